"""The one mechanism by which public methods check what they are given.

`@validated` reads a method's signature, whose types are those of `asyncsvc.validation.types` and
the inputs of `asyncsvc.models`, and checks and normalises each argument before the method
runs. A wrong value raises `InvalidInput` before any SQL, by the name of its parameter.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import cache, wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ArgsKwargs

from asyncsvc.validation.inputs import invalid_input
from asyncsvc.validation.limits import Limits

P = ParamSpec("P")
R = TypeVar("R")

# A wrong call, as opposed to a wrong value: Python's own error says it best.
_WRONG_CALL = {
    "missing_argument",
    "missing_keyword_only_argument",
    "missing_positional_only_argument",
    "multiple_argument_values",
    "unexpected_keyword_argument",
    "unexpected_positional_argument",
}


class HasSettings(Protocol):
    """What a validated method belongs to."""

    @property
    def settings(self) -> Limits:
        """The limits to check against."""


S = TypeVar("S", bound=HasSettings)


def validated(
    method: Callable[Concatenate[S, P], Awaitable[R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Check the arguments of an async method by the types in its signature.

    The method gets them normalised: text as NFC where its type says so, mappings as models.
    Raises InvalidInput for a wrong value and TypeError for a wrong call.
    """
    names = tuple(inspect.signature(method).parameters)

    @cache
    def adapter() -> TypeAdapter[Awaitable[R]]:  # built at first use: importing stays quick
        config = ConfigDict(strict=True, hide_input_in_errors=True)
        return TypeAdapter(method, config=config)  # type: ignore[arg-type]

    @wraps(method)
    async def checked(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        refused = None
        try:
            call = adapter().validate_python(
                ArgsKwargs((self, *args), kwargs), context=self.settings
            )
        except ValidationError as error:
            refused = error
        # Outside of the handler: no error is to have pydantic's, which holds the values, behind it.
        if refused is not None and _is_wrong_call(refused):
            inspect.signature(method).bind(self, *args, **kwargs)  # raises the TypeError
        # A careless log prints the variables of a traceback's frames, and one may be a secret.
        del args, kwargs
        if refused is None:
            return await call
        raise invalid_input(refused, names)

    return checked


def _is_wrong_call(error: ValidationError) -> bool:
    return error.errors(include_input=False)[0]["type"] in _WRONG_CALL
