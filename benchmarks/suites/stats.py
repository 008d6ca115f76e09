"""A year by day, week or month is read from stored buckets and the tenant's rows in the ledger.

The buckets are at most 365 rows. The cost is that of reading, sorting and sending these rows and of
building their models, at any size of the tenant. RAGFlow reads all conversations in the range and
joins each with its dialog. Hours, months that the range cuts, and undeclared zones are counted from
the rows: the cost is that of the conversations, or by activity of the quarter hours, in them.

In the ledger a change of a counter costs 1 row. A creation also costs 1 index lookup, which decides
whether its user is new on that day.

The suite compares the library's buckets with a recount of its rows, and RAGFlow's buckets with the
library's. It does not compare RAGFlow's tokens and rounds, because other suites append to the
library's conversations in the same run.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, TypeAlias

import asyncsvc
from benchmarks import data
from benchmarks.bench import Bench, Point
from benchmarks.contenders import stores
from benchmarks.contenders.stores import Stores
from benchmarks.data import Tenant
from benchmarks.measuring import Measured, Work, agree
from benchmarks.server import connected, sql

SOURCE = "api"
DECLARED, UNDECLARED = "Asia/Kathmandu", "Europe/Berlin"
Basis: TypeAlias = Literal["creation", "activity"]
BASES: tuple[Basis, ...] = ("creation", "activity")
Interval: TypeAlias = Literal["hour", "day", "week", "month"]
DAYS_BY_INTERVAL: dict[Interval, int] = {"hour": 30, "day": 365, "week": 365, "month": 365}
"""The number of days in the range, by interval."""


async def run(bench: Bench) -> None:
    """Measure a year by size of the tenant, zone, interval and size of the ledger."""
    sizes = bench.choose((100, 200), (10_000, 100_000), (10_000, 100_000, 1_000_000))
    async with stores.opened(bench, bench.tasks) as opened:
        suite = _Suite(bench, opened, bench.choose((7, 365), (7, 30, 365), (7, 30, 365)))
        tenants = [data.of_size(size) for size in sizes]
        for tenant in tenants:
            await data.fill(bench, tenant, *stores.SCHEMAS)
            await suite.roll_up(tenant)
        years = [await suite.ranges(tenant) for tenant in tenants]
        suite.add_targets(tenants, years)
        await suite.many(tenants[-1])
        await suite.intervals(tenants[-1])
        await suite.zones(tenants[-1])
        for change in ("append", "creation"):
            await suite.ledger(tenants[-1], change)


@dataclass(frozen=True)
class _Suite:
    bench: Bench
    stores: Stores
    days: Sequence[int]

    async def roll_up(self, tenant: Tenant) -> None:
        """Recount the tenant's usage. `maintain` would also index all messages."""
        with self.bench.working(f"counting {tenant.name}"):
            await self.stores.svc.conversations.recount_usage(tenant_id=tenant.name)

    async def ranges(self, tenant: Tenant) -> dict[str, Measured]:
        """Measure ranges of days on both bases; return the measurements of the longest."""
        by: dict[str, Measured] = {}
        for days in self.days:
            await self._agree_with_recount(tenant, days)
            await self._agree_with_ragflow(tenant, days)
            contenders = {**self._both(tenant, days), "as RAGFlow": self._by_ragflow(tenant, days)}
            title = f"usage of {tenant.conversations:,} conversations, {days} days"
            point = Point("usage", tenant.conversations) if days == self.days[-1] else None
            by = await self.bench.contest(title, contenders, tasks=1, point=point)
        return by

    def add_targets(
        self, tenants: Sequence[Tenant], years: Sequence[Mapping[str, Measured]]
    ) -> None:
        """Compare the medians of the largest tenant's year with those of the smallest tenant's."""
        smallest, largest = tenants[0].conversations, tenants[-1].conversations
        for name in (f"asyncsvc by {basis}" for basis in BASES):
            title, last = f"{self.days[-1]} days, {name}", years[-1][name].latency(50)
            self.bench.target(f"{title}, {largest:,} conversations, p50 ms", last, at_most=2)
            ratio = last / years[0][name].latency(50)
            title = f"{title}, {largest:,} against {smallest:,} conversations, time"
            self.bench.target(title, ratio, at_most=1.5)

    async def many(self, tenant: Tenant) -> None:
        """Measure the second longest range with concurrent tasks."""
        days = self.days[-2]
        contenders = {**self._both(tenant, days), "as RAGFlow": self._by_ragflow(tenant, days)}
        title = f"usage of {tenant.conversations:,} conversations, {days} days"
        await self.bench.contest(title, contenders, tasks=self.bench.tasks)

    async def intervals(self, tenant: Tenant) -> None:
        """Measure each interval, over its longest range."""
        for interval, days in DAYS_BY_INTERVAL.items():
            contenders = self._both(tenant, days, interval)
            await self.bench.contest(f"usage by {interval}, {days} days", contenders, tasks=1)

    async def zones(self, tenant: Tenant) -> None:
        """Measure a year by day: in UTC, in a declared zone and in an undeclared zone."""
        with self.bench.working(f"declaring {DECLARED}"):
            await self.stores.svc.conversations.declare_zone(DECLARED, tenant_id=tenant.name)
        zones = {
            "UTC": "UTC",
            f"declared, {DECLARED}": DECLARED,
            f"undeclared, {UNDECLARED}": UNDECLARED,
        }
        days = self.days[-1]
        for basis in BASES:
            contenders = {
                name: self._usage(tenant, basis, days, tz=tz) for name, tz in zones.items()
            }
            await self.bench.contest(f"usage by zone, by {basis}, {days} days", contenders, tasks=1)

    async def ledger(self, tenant: Tenant, change: str) -> None:
        """Measure a year while the ledger has changes, spread over the year."""
        count, days = self.bench.choose(10, 1_000, 1_000), self.days[-1]
        what = f"{count:,} {change}s"
        with self.bench.working(what):
            await (self._append if change == "append" else self._create)(tenant, count)
        await self._agree_with_recount(tenant, days)
        title = f"usage, {what} in the ledger, {days} days"
        by = await self.bench.contest(title, self._both(tenant, days), tasks=1)
        for name, each in by.items():
            title = f"{days} days, {name}, {what} in the ledger, p50 ms"
            self.bench.target(title, each.latency(50), at_most=10)
        await self.roll_up(tenant)

    async def _append(self, tenant: Tenant, count: int) -> None:
        for number in range(count):
            id = tenant.ids[number % len(tenant.ids)]
            await self.stores.library.append(tenant.name, id)

    async def _create(self, tenant: Tenant, count: int) -> None:
        since, until = (datetime.combine(day, time(), UTC) for day in _dates(self.days[-1]))
        for number in range(count):
            await self.stores.svc.conversations.create(
                tenant_id=tenant.name,
                dialog_id="creation",
                user_id=f"u{number % 100}",
                source=SOURCE,
                created_at=since + (until - since) * number / count,
            )

    def _both(self, tenant: Tenant, days: int, interval: Interval = "day") -> dict[str, Work]:
        return {
            f"asyncsvc by {basis}": self._usage(tenant, basis, days, interval) for basis in BASES
        }

    def _usage(
        self, tenant: Tenant, basis: Basis, days: int, interval: Interval = "day", tz: str = "UTC"
    ) -> Work:
        since, until = _dates(days)
        return functools.partial(
            self.stores.svc.conversations.stats, tenant_id=tenant.name, source=SOURCE,
            from_date=since, to_date=until, basis=basis, interval=interval, tz=tz,
        )  # fmt: skip

    def _by_ragflow(self, tenant: Tenant, days: int) -> Work:
        since, until = _dates(days)
        begin, end = datetime.combine(since, time()), datetime.combine(until, time(23, 59, 59))
        return functools.partial(self.stores.flow.stats, tenant.name, begin, end, SOURCE)

    async def _agree_with_recount(self, tenant: Tenant, days: int) -> None:
        since, until = _dates(days)
        bounds = [datetime.combine(day, time(), UTC) for day in (since, until + timedelta(days=1))]
        async with connected(self.bench.dsn) as connection:
            contenders: dict[str, Work] = {
                "a recount": lambda: connection.fetch(sql("recount"), tenant.name, *bounds),
                "asyncsvc": self._usage(tenant, "creation", days),
            }
            await agree(f"usage of {tenant.name}, {days} days", contenders, _whole)

    async def _agree_with_ragflow(self, tenant: Tenant, days: int) -> None:
        contenders = {
            "RAGFlow": self._by_ragflow(tenant, days),
            "asyncsvc": self._usage(tenant, "creation", days),
        }
        await agree(f"usage of {tenant.name}, {days} days", contenders, _in_short)


def _dates(days: int) -> tuple[date, date]:
    """Return the first and the last day of a range of this many days that ends yesterday."""
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    return yesterday - timedelta(days=days - 1), yesterday


def _whole(rows: Sequence[Any]) -> list[tuple[Any, ...]]:
    names = ("dt", "conversations", "users", "tokens", "rounds", "thumb_up")
    return [each for each in (_values(row, names) for row in rows) if each[1]]


def _in_short(rows: Sequence[Any]) -> list[tuple[Any, ...]]:
    days = (_values(row, ("dt", "conversations", "users", "thumb_up")) for row in rows)
    return sorted((dt.date(), *counts) for dt, *counts in days if counts[0])


def _values(row: Any, names: Sequence[str]) -> tuple[Any, ...]:  # noqa: ANN401 - model, row, dict
    if isinstance(row, asyncsvc.UsageBucket):
        return tuple(getattr(row, name) for name in names)
    return tuple(row[name] for name in names)
