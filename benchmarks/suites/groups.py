"""Groups of a year are read from the sums of their dimension, and each returned bucket is a model.

In a range, each group is 1 bucket. By day a year of 20 groups and the rest has 7,665 buckets, and
the time is that of their rows and models. The first 20 persons are found by a bound of each
person's usage, so the usage of the others is not read. Before the measurement, the groups of each
dimension must add up to the usage without groups.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncsvc
from asyncsvc.validation.types import Interval, UsageGroup
from benchmarks.bench import Bench
from benchmarks.contenders.library import connect
from benchmarks.measuring import Work
from benchmarks.server import connected, sql

TENANT: Final = "grouped"
DAYS: Final = 365
_DIMENSIONS: Final[tuple[UsageGroup, ...]] = ("model", "token_id", "source", "user_id")
_SUMS: Final = ("conversations", "rounds", "requests", "input_tokens", "tokens", "cost")


async def run(bench: Bench) -> None:
    """Measure a year by dimension: as one bucket and by day."""
    changes, persons = bench.choose((500, 50), (50_000, 5_000), (1_000_000, 100_000))
    async with connect(bench.dsn) as svc:
        await svc.migrate()
        with bench.working(f"{changes:,} changes of {persons:,} persons"):
            async with connected(bench.dsn) as connection:
                await connection.execute(sql("fill_groups"), TENANT, changes, persons)
            await svc.maintain()
            async with connected(bench.dsn) as connection:
                await connection.execute("VACUUM ANALYZE")
        suite = _Suite(bench, svc, changes)
        await suite.agree()
        await suite.measure("total", _DIMENSIONS)
        await suite.measure("day", ("model", "token_id", "source"))


@dataclass(frozen=True)
class _Suite:
    bench: Bench
    svc: asyncsvc.AsyncSvc
    changes: int

    async def measure(self, interval: Interval, dimensions: tuple[UsageGroup, ...]) -> None:
        """Measure each dimension at an interval."""
        contenders: dict[str, Work] = {"no groups": self._stats(None, interval)}
        contenders |= {f"by {name}": self._stats(name, interval) for name in dimensions}
        title = f"usage of {DAYS} days, {self.changes:,} conversations, interval {interval}"
        by = await self.bench.contest(title, contenders, tasks=1)
        for name in dimensions:
            limit = 100 if name == "user_id" else 20
            self.bench.target(
                f"{title}, by {name}, p50 ms", by[f"by {name}"].latency(50), at_most=limit
            )

    async def agree(self) -> None:
        """Compare the groups of each dimension with the usage without groups."""
        (whole,) = await self._stats(None, "total")()
        if whole.conversations != self.changes:
            raise AssertionError(
                f"{whole.conversations} of {self.changes} conversations are counted"
            )
        for name in _DIMENSIONS:
            groups = await self._stats(name, "total")()
            for field in _SUMS:
                if sum(getattr(each, field) for each in groups) != getattr(whole, field):
                    raise AssertionError(f"the groups by {name} do not add up to {field}")

    def _stats(self, group_by: UsageGroup | None, interval: Interval) -> Work:
        until = datetime.now(UTC).date() - timedelta(days=1)
        return functools.partial(
            self.svc.conversations.stats, tenant_id=TENANT, group_by=group_by, interval=interval,
            from_date=until - timedelta(days=DAYS - 1), to_date=until,
        )  # fmt: skip
