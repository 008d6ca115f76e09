"""Work on large values in a thread, so that it does not block the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from asyncsvc.cancellation import finish_despite_cancellation

T = TypeVar("T")

_LARGE: Final = 2**16
"""The number of characters that take about a millisecond to check, encode or hash."""
_PER_VALUE: Final = 16
"""A value costs as much as this number of characters."""
_SMALL_TYPES: Final = frozenset({float, bool, type(None)})


async def run_apart(work: Callable[[], T], *values: object) -> T:
    """Run the work on these values: in a thread if they are large, otherwise here.

    A cancellation waits for the end of the work.
    """
    if not is_large(values):
        return work()
    return await finish_despite_cancellation(asyncio.to_thread(work))


def is_large(values: object) -> bool:
    """Return whether values have many characters or many parts, without counting all of them."""
    budget, pending = _LARGE, [values]
    while pending and budget >= 0:
        value = pending.pop()
        kind = type(value)
        if kind is str:
            budget -= len(value)  # type: ignore[arg-type]
        elif kind is int:
            budget -= value.bit_length() // 8  # type: ignore[attr-defined]
        elif kind not in _SMALL_TYPES:
            parts = _parts(kind)(value)  # type: ignore[arg-type]
            budget -= _PER_VALUE * len(parts)
            if budget >= 0:
                pending += parts
    return budget < 0


@cache
def _parts(kind: type) -> Callable[[Any], Collection[object]]:
    """Return a function that returns the parts of a value of this type."""
    if issubclass(kind, str):
        return lambda value: (value[:],)
    if issubclass(kind, list | tuple):
        return lambda value: value
    if issubclass(kind, Mapping):
        return lambda value: value.values()
    if issubclass(kind, BaseModel):
        return lambda value: vars(value).values()
    return lambda _: ()
