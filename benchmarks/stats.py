"""Usage statistics: a year, by size of the tenant, zone, interval and size of the ledger.

Before each contest the suite compares the library's buckets with a recount of its rows, and
RAGFlow's buckets with the library's. It does not compare RAGFlow's tokens and rounds, because other
suites append to the library's conversations at the same time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, TypeAlias

import asyncsvc
from benchmarks import data
from benchmarks.append_contenders import Stores, by_library, in_turn, stores
from benchmarks.contest import EFFORTS, ContestRunner, Effort, spelled
from benchmarks.data import Tenant
from benchmarks.measuring import Contender, Measured, Work, agree
from benchmarks.report import Place, Report
from benchmarks.server import connected
from benchmarks.statements import sql

SOURCE = "api"
DECLARED, UNDECLARED = "Asia/Kathmandu", "Europe/Berlin"
UsageBasis: TypeAlias = Literal["creation", "activity"]
Interval: TypeAlias = Literal["hour", "day", "week", "month"]
Change: TypeAlias = Literal["append", "creation"]
DAYS_BY_INTERVAL: dict[Interval, int] = {"hour": 30, "day": 365, "week": 365, "month": 365}
"""The number of days in the range, by interval."""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    sizes: tuple[int, ...]
    days: tuple[int, ...]
    changes: int  # ledger rows that are not rolled up
    effort: Effort


SCALES = {
    "small": Scale((100, 200), (7, 365), 10, EFFORTS["small"]),
    "middle": Scale((10_000, 100_000), (7, 30, 365), 1_000, EFFORTS["middle"]),
    "full": Scale((10_000, 100_000, 1_000_000), (7, 30, 365), 1_000, EFFORTS["full"]),
}


async def run(dsn: str, scale: str, report: Report) -> None:
    """Measure, and add the tables to the report."""
    how = SCALES[scale]
    async with stores(dsn, how.effort.tasks) as lent:
        await lent.create()
        tenants = [data.of_size(size) for size in how.sizes]
        for tenant in tenants:
            await lent.fill(tenant, report)
        suite = Suite(ContestRunner(dsn, report, how.effort), lent, how)
        for tenant in tenants:
            await suite.roll_up(tenant)
        years = [await suite.ranges(tenant) for tenant in tenants]
        suite.add_targets(years)
        await suite.many(tenants[-1])
        await suite.intervals(tenants[-1])
        await suite.zones(tenants[-1])
        for change in ("append", "creation"):
            await suite.ledger(tenants[-1], change)


@dataclass(frozen=True)
class Suite:
    """The contests."""

    runner: ContestRunner
    stores: Stores
    how: Scale

    async def roll_up(self, tenant: Tenant) -> None:
        """Recount the tenant's usage. `maintain` would also index all messages."""
        with self.runner.report.working(f"counting {tenant.name}"):
            await self.stores.svc.conversations.recount_usage(tenant_id=tenant.name)

    async def ranges(self, tenant: Tenant) -> dict[str, Measured]:
        """Measure ranges of days on both bases; return the measurements of the longest."""
        measured: Sequence[Measured] = ()
        for days in self.how.days:
            await self._agree(tenant, days)
            ways: dict[str, Work] = {
                "asyncsvc by creation": self._usage(tenant, "creation", days),
                "asyncsvc by activity": self._usage(tenant, "activity", days),
                "as RAGFlow": self._as_ragflow(tenant, days),
            }
            title = f"usage of {tenant.conversations:,} conversations, {days} days, 1 task"
            longest = days == self.how.days[-1]
            place = Place("usage", tenant.conversations) if longest else None
            measured = await self._contest(title, ways, place)
        return {each.name: each for each in measured}

    def add_targets(self, years: Sequence[dict[str, Measured]]) -> None:
        """Compare the medians of the largest tenant's year with those of the smallest tenant's."""
        for name in ("asyncsvc by creation", "asyncsvc by activity"):
            title = f"{self.how.days[-1]} days, {name}, {self.how.sizes[-1]:,} conversations"
            self.runner.report.target(f"{title}, p50 ms", years[-1][name].latency(50), maximum=2)
            ratio = years[-1][name].latency(50) / years[0][name].latency(50)
            smallest, largest = self.how.sizes[0], self.how.sizes[-1]
            title = f"{self.how.days[-1]} days, {name}, {largest:,} against {smallest:,}"
            self.runner.report.target(f"{title} conversations, time", ratio, maximum=1.5)

    async def many(self, tenant: Tenant) -> None:
        """Measure the second longest range, with many tasks at once."""
        count, days = self.how.effort.tasks, self.how.days[-2]
        ways: dict[str, Work] = {
            "asyncsvc by creation": self._usage(tenant, "creation", days),
            "asyncsvc by activity": self._usage(tenant, "activity", days),
            "as RAGFlow": self._as_ragflow(tenant, days),
        }
        contenders = [Contender(name, [work] * count) for name, work in ways.items()]
        title = f"usage of {tenant.conversations:,} conversations, {days} days, {spelled(count)}"
        await self.runner.contest(title, contenders)

    async def intervals(self, tenant: Tenant) -> None:
        """Measure each interval, over its longest range."""
        for interval, days in DAYS_BY_INTERVAL.items():
            ways: dict[str, Work] = {
                "asyncsvc by creation": self._usage(tenant, "creation", days, interval),
                "asyncsvc by activity": self._usage(tenant, "activity", days, interval),
            }
            await self._contest(f"usage by {interval}, {days} days, 1 task", ways)

    async def zones(self, tenant: Tenant) -> None:
        """Measure a year by day: in UTC, in a declared zone and in an undeclared zone."""
        with self.runner.report.working(f"declaring {DECLARED}"):
            await self.stores.svc.conversations.declare_zone(tenant_id=tenant.name, tz=DECLARED)
        zones = {
            "UTC": "UTC",
            f"declared, {DECLARED}": DECLARED,
            f"undeclared, {UNDECLARED}": UNDECLARED,
        }
        days = self.how.days[-1]
        for basis in ("creation", "activity"):
            ways = {name: self._usage(tenant, basis, days, tz=tz) for name, tz in zones.items()}
            await self._contest(f"usage by zone, by {basis}, {days} days, 1 task", ways)

    async def ledger(self, tenant: Tenant, change: Change) -> None:
        """Measure a year while the ledger has changes, spread over the year."""
        work = self._change(tenant, change)
        with self.runner.report.working(f"{self.how.changes:,} of {change}"):
            for number in range(self.how.changes):
                await work(number)
        days = self.how.days[-1]
        ways: dict[str, Work] = {
            "asyncsvc by creation": self._usage(tenant, "creation", days),
            "asyncsvc by activity": self._usage(tenant, "activity", days),
        }
        await self._agree_with_recount(tenant, days)
        title = f"usage, {self.how.changes:,} of {change} in the ledger, {days} days, 1 task"
        for each in await self._contest(title, ways):
            about = f"{days} days, {each.name}, {self.how.changes:,} of {change} in the ledger"
            self.runner.report.target(f"{about}, p50 ms", each.latency(50), maximum=10)
        await self.roll_up(tenant)

    def _change(self, tenant: Tenant, change: Change) -> Callable[[int], Awaitable[object]]:
        if change == "append":
            append = in_turn(by_library(self.stores.svc, tenant.name), tenant.ids)
            return lambda _: append()
        since, until = (datetime.combine(day, time(), UTC) for day in _dates(self.how.days[-1]))
        return lambda number: self.stores.svc.conversations.create(
            tenant_id=tenant.name,
            dialog_id="creation",
            user_id=f"u{number % 100}",
            source=SOURCE,
            created_at=since + (until - since) * number / self.how.changes,
        )

    async def _contest(
        self, title: str, ways: dict[str, Work], place: Place | None = None
    ) -> list[Measured]:
        contenders = [Contender(name, [work]) for name, work in ways.items()]
        return await self.runner.contest(title, contenders, place=place)

    def _usage(
        self,
        tenant: Tenant,
        basis: UsageBasis,
        days: int,
        interval: Interval = "day",
        *,
        tz: str = "UTC",
    ) -> Callable[..., Any]:
        since, until = _dates(days)
        return lambda: self.stores.svc.conversations.stats(
            tenant_id=tenant.name,
            from_date=since,
            to_date=until,
            source=SOURCE,
            basis=basis,
            interval=interval,
            tz=tz,
        )

    def _as_ragflow(self, tenant: Tenant, days: int) -> Callable[..., Any]:
        since, until = _dates(days)
        return lambda: self.stores.flow.stats(
            tenant.name,
            datetime.combine(since, time()),
            datetime.combine(until, time(23, 59, 59)),
            SOURCE,
        )

    async def _agree_with_recount(self, tenant: Tenant, days: int) -> None:
        since, until = _dates(days)
        bounds = [datetime.combine(day, time(), UTC) for day in (since, until + timedelta(days=1))]

        async def library() -> object:
            return [_whole(bucket) for bucket in await self._usage(tenant, "creation", days)()
                    if bucket.pv]  # fmt: skip

        async def recounted() -> object:
            async with connected(self.runner.dsn) as connection:
                rows = await connection.fetch(sql("recount"), tenant.name, *bounds)
            return [tuple(row) for row in rows]

        await agree(
            f"usage of {tenant.name}, {days} days", {"a recount": recounted, "asyncsvc": library}
        )

    async def _agree(self, tenant: Tenant, days: int) -> None:
        await self._agree_with_recount(tenant, days)

        async def library_in_short() -> object:
            buckets = await self._usage(tenant, "creation", days)()
            return [
                (each.dt.date(), each.pv, each.uv, each.thumb_up) for each in buckets if each.pv
            ]

        async def as_ragflow() -> object:
            rows = await self._as_ragflow(tenant, days)()
            return sorted((row["dt"].date(), row["pv"], row["uv"], row["thumb_up"]) for row in rows)

        title = f"usage of {tenant.name}, {days} days"
        await agree(title, {"RAGFlow": as_ragflow, "asyncsvc": library_in_short})


def _dates(days: int) -> tuple[date, date]:
    """Return the first and the last of so many whole days, of which the last was yesterday."""
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    return yesterday - timedelta(days=days - 1), yesterday


def _whole(bucket: asyncsvc.UsageBucket) -> tuple[object, ...]:
    return (bucket.dt, bucket.pv, bucket.uv, bucket.tokens, bucket.rounds, bucket.thumb_up)
