"""Measures contenders side by side, so that what the machine does meanwhile hits all of them."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Work = Callable[[], Awaitable[object]]
"""One operation of one task."""

_WARM = 6  # calls of each task: after the fifth the server decides about a generic plan


class DifferentAnswers(Exception):
    """Contenders did not do the same, so there is nothing to compare."""


@dataclass(frozen=True)
class Turn:
    """What a contender did when its turn came: the seconds of each operation, and of them all."""

    seconds: list[float]
    elapsed: float


class Competitor(Protocol):
    """Whoever can take a turn."""

    @property
    def name(self) -> str:
        """What the tables call it."""

    async def warm_up(self, seconds: float) -> None:
        """Do what is done once, as preparing a statement, for no longer than needed."""

    async def turn(self, seconds: float) -> Turn:
        """Repeat the operation for so long."""


@dataclass(frozen=True)
class Contender:
    """One way to do the same thing; each task has an operation of its own to repeat."""

    name: str
    tasks: Sequence[Work]

    async def warm_up(self, seconds: float) -> None:
        """Have each task call a few times, and once where a call takes long."""
        until = time.perf_counter() + seconds
        for _ in range(_WARM):
            await asyncio.gather(*(work() for work in self.tasks))
            if time.perf_counter() > until:
                break

    async def turn(self, seconds: float) -> Turn:
        """Have all tasks repeat their operation, each at least once."""
        began, taken = time.perf_counter(), list[float]()
        await asyncio.gather(*(_repeat(work, began + seconds, taken) for work in self.tasks))
        return Turn(taken, time.perf_counter() - began)


@dataclass
class Measured:
    """What a contender did: operations a second in each round, and how long each took."""

    name: str
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, turn: Turn) -> None:
        """Add a round."""
        self.seconds += turn.seconds
        self.rates.append(len(turn.seconds) / turn.elapsed)

    @property
    def rate(self) -> float:
        """The median of the rounds, in operations a second."""
        return statistics.median(self.rates)

    def latency(self, percent: int) -> float:
        """Return this percentile of all operations, in milliseconds."""
        ordered = sorted(self.seconds)
        return 1_000 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]

    def ratio(self, floor: Measured) -> float:
        """Return the median over the rounds of the rate, as a part of the floor's."""
        return statistics.median(
            mine / its for mine, its in zip(self.rates, floor.rates, strict=True)
        )

    def cost(self, floor: Measured) -> float:
        """Return how many times as long as the floor it takes: the median over the rounds."""
        return floor.ratio(self)


async def contest(
    contenders: Sequence[Competitor], *, rounds: int, seconds: float
) -> list[Measured]:
    """Have each work for `seconds`, one after the other, `rounds` times, in changing order."""
    measured = [Measured(contender.name) for contender in contenders]
    pairs = list(zip(contenders, measured, strict=True))
    for contender in contenders:
        await contender.warm_up(seconds)
    for number in range(rounds):
        turned = number % len(pairs)
        for contender, found in pairs[turned:] + pairs[:turned]:
            found.add(await contender.turn(seconds))
    return measured


async def agree(title: str, ways: Mapping[str, Work]) -> None:
    """Call each way once, and raise DifferentAnswers unless all give what the first one gives."""
    answers = {name: await work() for name, work in ways.items()}
    (first, expected), *others = answers.items()
    for name, answer in others:
        if answer != expected:
            raise DifferentAnswers(f"{title}: {first} gives {expected!r}, {name} {answer!r}")


async def _repeat(work: Work, until: float, taken: list[float]) -> None:
    now = time.perf_counter()
    while True:
        await work()
        after = time.perf_counter()
        taken.append(after - now)
        now = after
        if now >= until:
            return
