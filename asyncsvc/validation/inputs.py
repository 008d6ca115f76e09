"""The base of input models, and the conversion of pydantic's errors to InvalidInput."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from asyncsvc.errors import InvalidInput

if TYPE_CHECKING:
    from pydantic import ModelWrapValidatorHandler, ValidationInfo


_MAX_NAME_LENGTH: Final = 64
_FIELDS: Final = "\n\nFields:\n"
_FIELD_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,23}", re.ASCII)

_is_nested: Final = ContextVar("asyncsvc_is_nested", default=False)
"""Whether an input model is validated as a part of another one."""


def invalid_value(reason: str) -> PydanticCustomError:
    """Return the error that a check raises. The reason must not quote the value."""
    return PydanticCustomError("invalid_value", "{reason}", {"reason": reason})


def invalid_input(error: ValidationError, names: tuple[str, ...] = ()) -> InvalidInput:
    """Return InvalidInput for the first error of pydantic, without the rejected value.

    `names` are the parameter names of a validated call: pydantic identifies a positional argument
    by its index.
    """
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    head, *tail = first["loc"] or ("value",)
    if names and isinstance(head, int):
        head = names[head]
    # The keys of a mapping come from the caller and can be any text.
    path = [
        str(part).encode(errors="replace").decode()[:_MAX_NAME_LENGTH] for part in (head, *tail)
    ]
    if first["type"] == "extra_forbidden":
        path[-1] = safe_field_name(path[-1])
    return InvalidInput(".".join(path), first["msg"])


def _few_fields(model: type[BaseModel], values: Mapping[str, object]) -> dict[str, object]:
    """Return the values of a model with at most 1 unknown field, since each adds an error."""
    fields = model.model_fields
    if values.keys() <= fields.keys():
        return dict(values)
    known = {name: values[name] for name in fields if name in values}
    unknown = next(name for name in values if name not in fields)
    return known | {unknown: values[unknown]}


def safe_field_name(name: str) -> str:
    """Return the name of an unknown field, or `?` for text that could be a secret."""
    return name if _FIELD_NAME.fullmatch(name) else "?"


class Described(BaseModel):
    """The base of all public models. `help` shows the descriptions of their fields."""

    # Build rows at the first use, to keep imports fast.
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, defer_build=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **_options: object) -> None:
        """Add the descriptions of the fields to the docstring."""
        summary = (inspect.getdoc(cls) or "").partition(_FIELDS)[0]
        fields = (f"{name}: {field.description}" for name, field in cls.model_fields.items())
        cls.__doc__ = summary + _FIELDS + "\n".join(fields)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Omit the fields from the model's description, since each field has its own."""
        value = handler(schema)
        described = handler.resolve_ref_schema(value)
        if "description" in described:
            described["description"] = described["description"].partition(_FIELDS)[0]
        return value


class Input(Described):
    """The base of all input models: frozen, strict, without unknown fields.

    The constructor raises InvalidInput for a wrong type or a number out of range. The method that
    receives the model checks the size and content of text and JSON against its settings. The option
    `revalidate_instances` is on for that reason.
    """

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        revalidate_instances="always",
        hide_input_in_errors=True,
        # pydantic warns of a request body of FastAPI whose build is deferred.
        defer_build=False,
    )

    @model_validator(mode="wrap")
    @classmethod
    def _raise_invalid_input(
        cls, value: object, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        fields = _few_fields(cls, value) if isinstance(value, Mapping) else value
        if info.context is not None or _is_nested.get():
            return handler(fields)  # `validated` or the outer model reports the complete path
        token = _is_nested.set(True)
        try:
            return handler(fields)
        except ValidationError as error:
            rejected = invalid_input(error)
        finally:
            _is_nested.reset(token)
        # Raise outside of the handler: pydantic's error holds the values, so it must not become the
        # context of this error.
        raise rejected
