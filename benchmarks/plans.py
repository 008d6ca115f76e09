"""Count the filter combinations of `get_list` for which the server changes to a generic plan.

After 5 calls the server may use a generic plan for a prepared statement. This hurts most if the
first calls ran on an empty table, so the suite calls on an empty table first.
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
    empty: int  # calls on the empty table
    full: int  # calls on the full table
    combinations: int


@dataclass
class Calls:
    """The calls of one combination of filters, with their seconds on the full table."""

    name: str
    work: Work
    seconds: list[float] = field(default_factory=list)

    @property
    def slower(self) -> float:
        """The median time of the last calls, divided by that of the first calls."""
        few = self.seconds[:_FEW], self.seconds[-2 * _FEW :]
        return statistics.median(few[1]) / statistics.median(few[0])


async def measure(dsn: str, how: Scale, report: Report) -> None:
    """Measure in a database of its own, and add the results to the report."""
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
    """Return the number of executions with a generic plan, by statement."""
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
    report.add_counts(
        title,
        {
            "with a generic plan on the full table": flipped,
            f"the time ratio of the last calls of the worst ({worst.name})": round(worst.slower, 2),
        },
    )
    report.target(f"{title}: with a generic plan", flipped, maximum=0)
    report.target(f"{title}: the worst, last calls against first", worst.slower, maximum=2)


def _combinations(svc: asyncsvc.Services, tenant: Tenant) -> Iterator[tuple[str, Work]]:
    """Return every combination of the optional filters, in both orders by time."""
    now = datetime.now(UTC)
    filters: dict[str, object] = {
        "id": tenant.ids[1],
        "user_id": "u1",
        "exp_user_id": "absent",
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
        await get_list(
            dialog_id=tenant.dialog, tenant_id=tenant.name, orderby=order, total="none", **filters
        )

    return work
