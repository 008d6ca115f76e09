"""Validation of the arguments of public methods.

`@validated` reads the signature of a method. Its types come from `asyncsvc.validation.types` and
`asyncsvc.models`. Before the method runs, pydantic checks and normalizes each argument. A wrong
value raises InvalidInput with the name of its parameter.
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

# The call does not match the signature. Python's own TypeError describes that best.
_WRONG_CALL = {
    "missing_argument",
    "missing_keyword_only_argument",
    "missing_positional_only_argument",
    "multiple_argument_values",
    "unexpected_keyword_argument",
    "unexpected_positional_argument",
}


class HasSettings(Protocol):
    """The class of a validated method."""

    @property
    def settings(self) -> Limits:
        """The limits that arguments are checked against."""


S = TypeVar("S", bound=HasSettings)


def validated(
    method: Callable[Concatenate[S, P], Awaitable[R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Validate the arguments of an async method by the types of its signature.

    The method receives normalized arguments: text as NFC where its type requires it, models in
    place of mappings. The wrapper raises InvalidInput for a wrong value and TypeError for a call
    that does not match the signature.
    """
    names = tuple(inspect.signature(method).parameters)

    @cache
    def adapter() -> TypeAdapter[Awaitable[R]]:  # built at the first call, to keep imports fast
        config = ConfigDict(strict=True, hide_input_in_errors=True)
        return TypeAdapter(method, config=config)  # type: ignore[arg-type]

    @wraps(method)
    async def call_validated(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        validation_error = None
        try:
            call = adapter().validate_python(
                ArgsKwargs((self, *args), kwargs), context=self.settings
            )
        except ValidationError as error:
            validation_error = error
        # Raise outside of the handler: pydantic's error holds the values, so it must not become the
        # context of another error.
        if validation_error is not None and _is_wrong_call(validation_error):
            inspect.signature(method).bind(self, *args, **kwargs)  # raises the TypeError
        # Some loggers print the local variables of a traceback, and an argument can be a secret.
        del args, kwargs
        if validation_error is None:
            return await call
        raise invalid_input(validation_error, names)

    return call_validated


def _is_wrong_call(error: ValidationError) -> bool:
    return error.errors(include_input=False)[0]["type"] in _WRONG_CALL
