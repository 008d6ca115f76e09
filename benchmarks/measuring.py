"""Measure contenders in turns, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

Work: TypeAlias = Callable[[], Awaitable[Any]]
"""An operation that a task repeats."""

_WARM = 6  # calls of each task: after 5 calls the server may change to a generic plan


class DifferentAnswers(Exception):
    """Contenders returned different results, so their times are not comparable."""


@dataclass(frozen=True)
class Turn:
    """The seconds of each operation in a contender's turn, and of the whole turn."""

    seconds: Sequence[float]
    elapsed: float
    cpu: float = 0.0
    """The seconds of CPU that this process used."""


class Contender(Protocol):
    """One implementation of an operation."""

    async def warm_up(self, seconds: float) -> None:
        """Do one-time work, for example prepare statements."""

    async def turn(self, seconds: float) -> Turn:
        """Repeat the operation for this time."""


@dataclass(frozen=True)
class Tasks:
    """A contender whose tasks repeat an operation each, concurrently."""

    works: Sequence[Work]

    async def warm_up(self, seconds: float) -> None:
        """Run each task's operation up to `_WARM` times, but only once if it takes long."""
        until = time.perf_counter() + seconds
        for _ in range(_WARM):
            await asyncio.gather(*(work() for work in self.works))
            if time.perf_counter() > until:
                break

    async def turn(self, seconds: float) -> Turn:
        """Repeat all operations, each at least once."""
        began, used, durations = time.perf_counter(), time.process_time(), list[float]()
        await asyncio.gather(*(_repeat(work, began + seconds, durations) for work in self.works))
        return Turn(durations, time.perf_counter() - began, time.process_time() - used)


@dataclass(frozen=True)
class SelfTimed:
    """A contender that measures itself once per turn, for example in its own process."""

    measure: Callable[[], Awaitable[Turn]]

    async def warm_up(self, seconds: float) -> None:
        """Do nothing."""

    async def turn(self, seconds: float) -> Turn:  # noqa: ARG002 - it decides itself
        """Measure once."""
        return await self.measure()


@dataclass
class Measured:
    """The measurements of a contender: its rate in each round and the seconds of each operation."""

    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    """The seconds of CPU of an operation, in each round."""

    def add(self, turn: Turn) -> None:
        """Add a round."""
        self.seconds += turn.seconds
        self.rates.append(len(turn.seconds) / turn.elapsed)
        self.cpu_seconds.append(turn.cpu / len(turn.seconds))

    @property
    def rate(self) -> float:
        """The median over the rounds, in operations per second."""
        return statistics.median(self.rates)

    def latency(self, percent: int) -> float:
        """Return this percentile of all operations, in milliseconds."""
        return milliseconds(self.seconds, percent)

    def ratio(self, floor: Measured) -> float:
        """Return the median over the rounds of the rate, divided by the floor's rate."""
        return statistics.median(
            own / other for own, other in zip(self.rates, floor.rates, strict=True)
        )

    def cost(self, floor: Measured) -> float:
        """Return the median over the rounds of the time, divided by the floor's time."""
        return floor.ratio(self)

    def cpu_cost(self, floor: Measured) -> float:
        """Return the median over the rounds of the CPU time, divided by the floor's."""
        return statistics.median(
            own / other for own, other in zip(self.cpu_seconds, floor.cpu_seconds, strict=True)
        )


def milliseconds(seconds: Sequence[float], percent: int) -> float:
    """Return a percentile of these seconds, in milliseconds."""
    ordered = sorted(seconds)
    return 1_000 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


async def contest(
    contenders: Mapping[str, Contender], *, rounds: int, seconds: float
) -> dict[str, Measured]:
    """Run `rounds` rounds in which each contender works for `seconds`, in changing order.

    The garbage collector still runs, but not over the objects from before the contest. Otherwise a
    contender that creates many objects would pay for the libraries of all contenders.
    """
    measured = {name: Measured() for name in contenders}
    for contender in contenders.values():
        await contender.warm_up(seconds)
    gc.collect()
    gc.freeze()
    names = list(contenders)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            measured[name].add(await contenders[name].turn(seconds))
    return measured


async def agree(
    title: str,
    contenders: Mapping[str, Work],
    answer: Callable[[Any], object] = lambda result: result,
) -> None:
    """Call each implementation once; raise DifferentAnswers if the answers differ.

    `answer` returns the part of a result that must be equal, for example the ids of a page.
    """
    answers = {name: answer(await work()) for name, work in contenders.items()}
    (first, expected), *others = answers.items()
    for name, other in others:
        if other != expected:
            raise DifferentAnswers(
                f"{title}: {first} returns {expected!r}, {name} returns {other!r}"
            )


async def _repeat(work: Work, until: float, durations: list[float]) -> None:
    now = time.perf_counter()
    while True:
        await work()
        after = time.perf_counter()
        durations.append(after - now)
        now = after
        if now >= until:
            return
