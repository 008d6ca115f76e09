"""Measures contenders side by side, so that what the machine does meanwhile hits all of them."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

Work = Callable[[], Awaitable[object]]
"""One operation of one task."""


@dataclass(frozen=True)
class Contender:
    """One way to do the same thing; each task has an operation of its own to repeat."""

    name: str
    tasks: Sequence[Work]


@dataclass
class Measured:
    """What a contender did: operations a second in each round, and how long each took."""

    name: str
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

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


async def contest(
    contenders: Sequence[Contender], *, rounds: int, seconds: float
) -> list[Measured]:
    """Have each work for `seconds`, one after the other, `rounds` times, in changing order."""
    measured = [Measured(contender.name) for contender in contenders]
    pairs = list(zip(contenders, measured, strict=True))
    for contender in contenders:  # what is done once, as preparing a statement, is not measured
        await asyncio.gather(*(work() for work in contender.tasks))
    for number in range(rounds):
        turned = number % len(pairs)
        for contender, found in pairs[turned:] + pairs[:turned]:
            before = len(found.seconds)
            began = time.perf_counter()
            await asyncio.gather(
                *(_repeat(work, began + seconds, found.seconds) for work in contender.tasks)
            )
            found.rates.append((len(found.seconds) - before) / (time.perf_counter() - began))
    return measured


async def _repeat(work: Work, until: float, taken: list[float]) -> None:
    now = time.perf_counter()
    while now < until:
        await work()
        after = time.perf_counter()
        taken.append(after - now)
        now = after
