"""Work on large values without blocking the event loop: in a thread, or in turns with it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from functools import cache
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from asyncsvc.cancellation import finish_despite_cancellation

T = TypeVar("T")

_LARGE: Final = 2**16
"""The number of characters that take about a millisecond to check, encode or hash."""
_BETWEEN_TURNS: Final = 0.002
_BETWEEN_PAUSES: Final = 0.001
_PAUSE: Final = 0.000_05
"""Seconds. A sleep of 0 would not suffice: the thread would run again before the event loop."""
_PER_VALUE: Final = 16
"""A value costs as much as this number of characters."""
_SMALL_TYPES: Final = frozenset({float, bool, type(None)})


class _Pauses(threading.local):
    """The pauses of the work of this thread. They give the event loop its turn."""

    next: float | None = None
    """The time of the next one. None: this thread runs no work apart."""


_PAUSES: Final = _Pauses()


async def run_apart(work: Callable[[], T], *values: object) -> T:
    """Run the work on these values: in a thread if they are large, otherwise here.

    A cancellation waits for the end of the work.
    """
    return await run_in_thread(work) if is_large(values) else work()


async def run_in_thread(work: Callable[[], T]) -> T:
    """Run the work in a thread. A cancellation waits for the end of the work."""
    return await finish_despite_cancellation(asyncio.to_thread(_with_pauses, work))


def _with_pauses(work: Callable[[], T]) -> T:
    _PAUSES.next = 0.0
    try:
        return work()
    finally:
        _PAUSES.next = None


def pause_if_apart() -> None:
    """Let the event loop run, about once in a millisecond of work in a thread.

    Work on large values calls it between its steps. Otherwise the event loop waits for the
    interpreter's switch interval of 5 ms, several times in each turn.
    """
    if _PAUSES.next is not None and time.perf_counter() >= _PAUSES.next:
        time.sleep(_PAUSE)
        _PAUSES.next = time.perf_counter() + _BETWEEN_PAUSES


async def in_turns(steps: Iterable[T]) -> AsyncIterator[T]:
    """Yield the steps of a long work. The event loop runs about once in 2 milliseconds of it."""
    due = time.perf_counter() + _BETWEEN_TURNS
    for step in steps:
        yield step
        if time.perf_counter() >= due:
            await asyncio.sleep(0)
            due = time.perf_counter() + _BETWEEN_TURNS


def is_large(values: object) -> bool:
    """Return whether values have many characters or many parts, without counting all of them."""
    budget, pending = _LARGE, [values]
    while pending:
        value = pending.pop()
        kind = type(value)
        if kind is str:
            budget -= len(value)  # type: ignore[arg-type]
        elif kind is int:
            budget -= value.bit_length() // 8  # type: ignore[attr-defined]
        elif kind not in _SMALL_TYPES:
            parts = value.values() if isinstance(value, dict) else _parts(kind)(value)  # type: ignore[arg-type]
            budget -= _PER_VALUE * len(parts)
            if budget < 0:
                return True
            if isinstance(value, dict):
                budget -= sum([len(name) for name in value if isinstance(name, str)])
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
