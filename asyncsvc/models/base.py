"""The base of stored rows, and arguments that are a model or an equal mapping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema

from asyncsvc.validation.inputs import Described

M = TypeVar("M", bound=BaseModel)


class _OnlyModel:
    """The validation of `ModelLike`: it replaces a mapping by its model."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Validate by the model alone."""
        return handler.generate_schema(get_args(source)[0])


ModelLike = Annotated[M | Mapping[str, object], _OnlyModel()]
"""A parameter that takes a model or an equal mapping. The method reads it with `as_model`."""


def as_model(model: type[M], value: M | Mapping[str, object]) -> M:
    """Return a `ModelLike` argument as the model to which `validated` has converted it."""
    if not isinstance(value, model):
        raise TypeError(f"not validated: {type(value).__name__} is not {model.__name__}")
    return value


class Model(Described):
    """The base of all rows and results: frozen, built from the columns of a statement.

    Unknown columns are ignored: a check for them costs a fifth of the time, and the tests compare
    the columns of each statement with the fields of its model.

    pydantic caches up to 16,384 short strings of JSON per process and never removes them. Here it
    caches only keys, because keys repeat, and because texts of users must not outlive their
    objects.
    """

    model_config = ConfigDict(extra="ignore", cache_strings="keys")
