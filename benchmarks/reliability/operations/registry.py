"""The list of operations, filled by the modules of this package."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from benchmarks.reliability.application import Application

Work = Callable[[Application], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation, the public methods that it calls, and its weight in the random choice."""

    calls: tuple[str, ...]
    weight: float
    run: Work


Run = TypeVar("Run", bound=Work)
OPERATIONS: Final[list[Operation]] = []


def operation(*calls: str, weight: float = 1) -> Callable[[Run], Run]:
    """Register a function as an operation that calls these public methods."""

    def register(run: Run) -> Run:
        OPERATIONS.append(Operation(calls, weight, run))
        return run

    return register


def all_calls() -> set[str]:
    """Return the public methods that the operations call, for example `conversations.create`."""
    return {call for operation in OPERATIONS for call in operation.calls}
