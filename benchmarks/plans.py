"""Whether any combination of filters ever flips to a plan that does not look at its values.

After five calls the server may plan a prepared statement without its values. One that was warmed up
on an empty table and then meets a full one is where that would hurt.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import asyncpg

import asyncsvc
from benchmarks import data
from benchmarks.data import Tenant
from benchmarks.measuring import Work
from benchmarks.report import Report
from benchmarks.server import database
from benchmarks.statements import sql

_FEW = 5


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    conversations: int
    empty: int  # calls while the table is empty
    full: int  # and when it is full
    combinations: int


@dataclass
class Calls:
    """What the calls of one combination took, in seconds, on the full table."""

    name: str
    work: Work
    seconds: list[float] = field(default_factory=list)

    @property
    def slower(self) -> float:
        """How many times as long the last calls took as the first: their medians."""
        few = self.seconds[:_FEW], self.seconds[-2 * _FEW :]
        return statistics.median(few[1]) / statistics.median(few[0])


async def measure(dsn: str, how: Scale, report: Report) -> None:
    """Measure in a database of its own, and add what was found to the report."""
    tenant = data.of_size(how.conversations)
    async with database(dsn) as fresh, asyncsvc.connect(fresh) as svc:
        await svc.migrate()
        connection = await asyncpg.connect(
            fresh, statement_cache_size=1_000, max_cached_statement_lifetime=0
        )
        try:
            works = itertools.islice(_combinations(svc.on(connection), tenant), how.combinations)
            calls = [Calls(name, work) for name, work in works]
            await _repeat(calls, how.empty)
            await data.fill(fresh, tenant, data.LIBRARY, report)
            before = await _generic(connection)
            for each in calls:
                each.seconds.clear()
            with report.working(f"{len(calls)} combinations of filters"):
                await _repeat(calls, how.full)
            after = await _generic(connection)
        finally:
            await connection.close()
    flipped = sum(count > before.get(query, 0) for query, count in after.items())
    _report(calls, flipped, how, report)


async def _generic(connection: asyncpg.Connection) -> dict[str, int]:
    """Return how often each statement ran by a plan that did not look at its values."""
    rows = await connection.fetch(sql("plans"))
    return {row["statement"]: row["generic_plans"] for row in rows}


async def _repeat(calls: list[Calls], times: int) -> None:
    for _ in range(times):
        for each in calls:
            began = time.perf_counter()
            await each.work()
            each.seconds.append(time.perf_counter() - began)


def _report(calls: list[Calls], flipped: int, how: Scale, report: Report) -> None:
    worst = max(calls, key=lambda each: each.slower)
    title = f"{len(calls)} combinations of filters, {how.empty} calls empty, {how.full} full"
    report.note(
        title,
        {
            "by a generic plan when full": flipped,
            f"times as long the last calls of the worst ({worst.name})": round(worst.slower, 2),
        },
    )
    report.target(f"{title}: by a generic plan", flipped, most=0)
    report.target(f"{title}: the worst, last calls against first", worst.slower, most=2)


def _combinations(svc: asyncsvc.Services, tenant: Tenant) -> Iterator[tuple[str, Work]]:
    """Return every combination of the optional filters, in both orders by time."""
    now = datetime.now(UTC)
    filters: dict[str, object] = {
        "id": tenant.ids[1],
        "user_id": "u1",
        "exp_user_id": "nobody",
        "keywords": "parcel 17",
        "from_date": now - timedelta(days=100),
    }
    sets = itertools.chain.from_iterable(
        itertools.combinations(filters, count) for count in range(len(filters) + 1)
    )
    for names, order in itertools.product(sets, ("created_at", "updated_at")):
        chosen = {name: filters[name] for name in names}
        yield f"{', '.join(names) or 'none'} by {order}", _page(svc, tenant, order, chosen)


def _page(
    svc: asyncsvc.Services, tenant: Tenant, order: str, filters: Mapping[str, object]
) -> Work:
    get_list: Callable[..., Awaitable[object]] = svc.conversations.get_list

    async def work() -> None:
        await get_list(tenant.dialog, tenant.name, orderby=order, total="none", **filters)

    return work
