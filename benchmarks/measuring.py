"""Measure contenders in turns, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Work = Callable[[], Awaitable[object]]
"""The operation of a task."""

_WARM = 6  # calls of each task: after the fifth the server decides about a generic plan


class DifferentAnswers(Exception):
    """Contenders returned different results, so their times are not comparable."""


@dataclass(frozen=True)
class Turn:
    """The seconds of each operation in a contender's turn, and of the whole turn."""

    seconds: list[float]
    elapsed: float


class Competitor(Protocol):
    """The interface of a contender."""

    @property
    def name(self) -> str:
        """The name in the tables."""

    async def warm_up(self, seconds: float) -> None:
        """Do one-time work, for example prepare statements."""

    async def turn(self, seconds: float) -> Turn:
        """Repeat the operation for this time."""


@dataclass(frozen=True)
class Contender:
    """One implementation of an operation; each task repeats an operation of its own."""

    name: str
    tasks: Sequence[Work]

    async def warm_up(self, seconds: float) -> None:
        """Run each task's operation up to `_WARM` times, but only once if it takes long."""
        until = time.perf_counter() + seconds
        for _ in range(_WARM):
            await asyncio.gather(*(work() for work in self.tasks))
            if time.perf_counter() > until:
                break

    async def turn(self, seconds: float) -> Turn:
        """Repeat all tasks' operations concurrently, each at least once."""
        began, taken = time.perf_counter(), list[float]()
        await asyncio.gather(*(_repeat(work, began + seconds, taken) for work in self.tasks))
        return Turn(taken, time.perf_counter() - began)


@dataclass
class Measured:
    """The measurements of a contender: its rate in each round, the seconds of each operation."""

    name: str
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, turn: Turn) -> None:
        """Add a round."""
        self.seconds += turn.seconds
        self.rates.append(len(turn.seconds) / turn.elapsed)

    @property
    def rate(self) -> float:
        """The median over the rounds, in operations per second."""
        return statistics.median(self.rates)

    def latency(self, percent: int) -> float:
        """Return this percentile of all operations, in milliseconds."""
        ordered = sorted(self.seconds)
        return 1_000 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]

    def ratio(self, floor: Measured) -> float:
        """Return the median over the rounds of the rate, divided by the floor's rate."""
        return statistics.median(
            mine / its for mine, its in zip(self.rates, floor.rates, strict=True)
        )

    def cost(self, floor: Measured) -> float:
        """Return the median over the rounds of the time, divided by the floor's time."""
        return floor.ratio(self)


async def contest(
    contenders: Sequence[Competitor], *, rounds: int, seconds: float
) -> list[Measured]:
    """Run `rounds` rounds in which each contender works for `seconds`, in changing order."""
    measured = [Measured(contender.name) for contender in contenders]
    pairs = list(zip(contenders, measured, strict=True))
    for contender in contenders:
        await contender.warm_up(seconds)
    for number in range(rounds):
        first = number % len(pairs)
        for contender, measurements in pairs[first:] + pairs[:first]:
            measurements.add(await contender.turn(seconds))
    return measured


async def agree(title: str, ways: Mapping[str, Work]) -> None:
    """Call each implementation once; raise DifferentAnswers if the results differ."""
    answers = {name: await work() for name, work in ways.items()}
    (first, expected), *others = answers.items()
    for name, answer in others:
        if answer != expected:
            raise DifferentAnswers(
                f"{title}: {first} returns {expected!r}, {name} returns {answer!r}"
            )


async def _repeat(work: Work, until: float, taken: list[float]) -> None:
    now = time.perf_counter()
    while True:
        await work()
        after = time.perf_counter()
        taken.append(after - now)
        now = after
        if now >= until:
            return
