"""Validation of the arguments of public methods.

`@validated` reads the signature of a method. Its types come from `asyncsvc.validation.types` and
`asyncsvc.models`. Before the method runs, pydantic checks and normalizes each argument. A wrong
value raises InvalidInput with the name of its parameter.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import cache, partial, wraps
from types import FunctionType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ArgsKwargs

from asyncsvc.threads import is_large, run_in_thread
from asyncsvc.validation.inputs import invalid_input
from asyncsvc.validation.limits import Limits

P = ParamSpec("P")
R = TypeVar("R")

# The call does not match the signature. Python's TypeError describes this error best.
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
    def adapter(service: type[S]) -> TypeAdapter[Coroutine[Any, Any, R]]:
        """Build the adapter at the first call, to keep imports fast."""
        config = ConfigDict(strict=True, hide_input_in_errors=True)
        return TypeAdapter(_with_concrete_types(method, service), config=config)  # type: ignore[arg-type]

    @wraps(method)
    async def call_validated(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        validation_error = None
        arguments = ArgsKwargs((self, *args), kwargs)
        validate = partial(adapter(type(self)).validate_python, arguments, context=self.settings)
        try:
            is_apart = is_large((args, kwargs))
            call = await _in_thread(validate) if is_apart else validate()
        except ValidationError as error:
            validation_error = error
        # Raise outside of the handler: pydantic's error holds the values, so it must not become the
        # context of another error.
        if validation_error is not None and _is_wrong_call(validation_error):
            inspect.signature(method).bind(self, *args, **kwargs)  # raises the TypeError
        # Some loggers print the local variables of a traceback, and an argument can be a secret.
        del args, kwargs, arguments, validate
        if validation_error is None:
            return await call
        raise invalid_input(validation_error, names)

    return call_validated


async def _in_thread(
    validate: Callable[[], Coroutine[Any, Any, R]],
) -> Coroutine[Any, Any, R]:
    """Validate in a thread. After a cancellation the call is closed, which was not started."""
    calls: list[Coroutine[Any, Any, R]] = []
    try:
        await run_in_thread(lambda: calls.append(validate()))
    except asyncio.CancelledError:
        for call in calls:
            call.close()
        raise
    return calls[0]


def _with_concrete_types(method: Callable[..., R], service: type[Any]) -> Callable[..., R]:
    """Return the method with the types of its service in place of type variables.

    A service with generic methods has their types in `type_arguments`, by the variable's name.
    """
    hints = get_type_hints(method, include_extras=True)
    hints.pop("return", None)  # the result is not validated
    generic = {name: hint for name, hint in hints.items() if getattr(hint, "__parameters__", ())}
    if not generic:
        return method
    concrete = FunctionType(
        method.__code__,
        method.__globals__,
        method.__name__,
        method.__defaults__,
        method.__closure__,
    )
    concrete.__kwdefaults__ = method.__kwdefaults__
    concrete.__annotations__ = hints | {
        name: hint[tuple(service.type_arguments[each.__name__] for each in hint.__parameters__)]
        for name, hint in generic.items()
    }
    return concrete


def _is_wrong_call(error: ValidationError) -> bool:
    return error.errors(include_input=False)[0]["type"] in _WRONG_CALL
