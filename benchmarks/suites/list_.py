"""A page by cursor starts after the last row of the previous page.

At any position it costs 1 descent of an index and the rows of the page. For a page by number the
server reads all rows before the page. RAGFlow also counts the dialog for each page. The dialog
contains half of the tenant's conversations.

An exact total reads an index entry per counted conversation, in each implementation. A capped total
reads at most 10,000 entries.

Each combination of filters is a separate statement, so no condition depends on whether a value is
present. After 5 calls the server may use a generic plan, which saves the planning of each call. The
last lines count the statements with a generic plan, after calls on an empty table, and show the
largest slowdown. The tests check that each statement reads about the same number of rows with a
generic plan.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import random
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

import asyncpg

import asyncsvc
from benchmarks import data
from benchmarks.bench import Bench, Point
from benchmarks.contenders import bare, pgbench, psycopg, stores
from benchmarks.contenders.library import connect
from benchmarks.contenders.stores import Stores
from benchmarks.data import Tenant
from benchmarks.measuring import Work, agree
from benchmarks.server import connected, database, sql

ITEMS = 20
TARGET_PAGE = 10_000
"""The page with a target for the rate against RAGFlow."""
WRITERS = 4
PAUSE = 0.005
"""Seconds between two appends of a writer: a few hundred appends per second."""
Order: TypeAlias = Literal["created_at", "updated_at"]
ORDERS: dict[Order, str] = {"created_at": "creation", "updated_at": "recent activity"}
_FEW = 5


async def run(bench: Bench) -> None:
    """Measure pages by position, with and without writers, totals and generic plans."""
    sizes = bench.choose((200,), (10_000, 100_000), (10_000, 100_000, 1_000_000))
    pages = bench.choose((1, 3), (1, 100, 1_000), (1, 100, 1_000, 10_000))
    async with stores.opened(bench, bench.tasks) as opened:
        tenants = [data.of_size(size) for size in sizes]
        for tenant in tenants:
            await data.fill(bench, tenant, *stores.SCHEMAS)
        suite = _Suite(bench, opened, tenants[-1])
        for order in ORDERS:
            await suite.walk(order, pages)
            async with _writing(opened, tenants[-1]):
                await suite.walk(order, pages, " while appends run")
        for number in pages:
            await suite.page(number)
            await suite.recent(number)
        await suite.many()
        for tenant in tenants:
            await suite.total(tenant)
    await _generic_plans(bench)


@contextlib.asynccontextmanager
async def _writing(opened: Stores, tenant: Tenant) -> AsyncIterator[None]:
    """Append to conversations of a tenant from `WRITERS` tasks while the block runs."""

    async def writer() -> None:
        while True:
            await opened.library.append(tenant.name, random.choice(tenant.ids))  # noqa: S311
            await asyncio.sleep(PAUSE)

    async with asyncio.TaskGroup() as group:
        writers = [group.create_task(writer()) for _ in range(WRITERS)]
        yield
        for each in writers:
            each.cancel()


@dataclass(frozen=True)
class _Suite:
    bench: Bench
    stores: Stores
    tenant: Tenant

    async def walk(self, order: Order, pages: tuple[int, ...], meanwhile: str = "") -> None:
        """Measure pages by cursor with the library alone."""
        contenders = {f"page {number:,}": await self._by_cursor(order, number) for number in pages}
        how = f"by {ORDERS[order]}{meanwhile}"
        by = await self.bench.contest(f"pages {how}, asyncsvc by cursor", contenders, tasks=1)
        (first, floor), *_, (last, measured) = by.items()
        title = f"{last} against {first}, {how}, time"
        self.bench.target(title, measured.cost(floor), at_most=2)

    async def page(self, number: int) -> None:
        """Measure all contenders at one page, newest first."""
        dsn, name, dialog = self.bench.dsn, self.tenant.name, self.tenant.dialog
        position = await self._position("created_at", number)
        async with connected(dsn) as connection, psycopg.connected(dsn) as other:
            held = self.stores.svc.on(connection)
            by_cursor = await self._by_cursor("created_at", number, held)
            query, arguments = await bare.captured(connection, by_cursor)
            contenders: dict[str, Work] = {
                "bare statement": lambda: connection.fetch(query, *arguments),
                "bare statement, psycopg": lambda: psycopg.fetch(other, query, arguments),
                "asyncsvc, held": by_cursor,
                "asyncsvc": await self._by_cursor("created_at", number),
                "asyncsvc, by number": self._page("created_at", page_number=number),
                "SQLAlchemy": lambda: self.stores.orm.page(name, dialog, ITEMS, position.row),
                "as RAGFlow": lambda: self.stores.flow.get_list(dialog, number, ITEMS),
            }
            by_pgbench = pgbench.contender("bare statement, pgbench", dsn, query, arguments, 1)
            by = await self.bench.contest(
                f"page {number:,} by creation", {**contenders, **by_pgbench},
                tasks=1, point=Point("page", number), answer=_ids,
            )  # fmt: skip
        if number == TARGET_PAGE:
            faster = by["asyncsvc"].ratio(by["as RAGFlow"])
            title = f"page {number:,} by creation, 1 task, rate against RAGFlow's"
            self.bench.target(title, faster, at_least=100)

    async def recent(self, number: int) -> None:
        """Measure one page by recent activity: by cursor, by number, and the bare statement."""
        async with connected(self.bench.dsn) as connection:
            held = self.stores.svc.on(connection)
            by_cursor = await self._by_cursor("updated_at", number, held)
            query, arguments = await bare.captured(connection, by_cursor)
            contenders: dict[str, Work] = {
                "bare statement": lambda: connection.fetch(query, *arguments),
                "asyncsvc": await self._by_cursor("updated_at", number),
                "asyncsvc, by number": self._page("updated_at", page_number=number),
            }
            title, point = f"page {number:,} by recent activity", Point("recent page", number)
            await self.bench.contest(title, contenders, tasks=1, point=point, answer=_ids)

    async def many(self) -> None:
        """Measure the first page with concurrent tasks."""
        name, dialog = self.tenant.name, self.tenant.dialog
        contenders: dict[str, Work] = {
            "asyncsvc": await self._by_cursor("created_at", 1),
            "SQLAlchemy": lambda: self.stores.orm.page(name, dialog, ITEMS),
            "as RAGFlow": lambda: self.stores.flow.get_list(dialog, 1, ITEMS),
        }
        title, tasks = "page 1 by creation", self.bench.tasks
        await self.bench.contest(title, contenders, tasks=tasks, answer=_ids)

    async def total(self, tenant: Tenant) -> None:
        """Measure a page with each kind of total."""
        size = tenant.conversations // 2
        page = functools.partial(
            self.stores.svc.conversations.get_list,
            tenant_id=tenant.name, dialog_id=tenant.dialog,
            items_per_page=ITEMS, include_dsl=False,
        )  # fmt: skip
        contenders: dict[str, Work] = {
            "none": functools.partial(page, total="none"),
            "capped": functools.partial(page, total="capped"),
            "exact": functools.partial(page, total="exact"),
            "exact, of a user": functools.partial(page, total="exact", user_id="u1"),
            "SQLAlchemy, count alone": lambda: self.stores.orm.count(tenant.name, tenant.dialog),
            "as RAGFlow, count alone": lambda: self.stores.flow.count(tenant.dialog),
        }
        exact = {
            each: contenders[each]
            for each in contenders
            if "count alone" in each or each == "exact"
        }
        await agree(f"the total of {size:,}", exact, _total)
        title = f"total of a dialog of {size:,}"
        await self.bench.contest(title, contenders, tasks=1, point=Point("total", size))

    def _page(self, order: Order, svc: asyncsvc.Services | None = None, **place: Any) -> Work:  # noqa: ANN401
        """Return the call of one page at a place: its number or the cursor before it."""
        return functools.partial(
            (svc or self.stores.svc).conversations.get_list,
            tenant_id=self.tenant.name, dialog_id=self.tenant.dialog, orderby=order,
            include_dsl=False, total="none", **{"items_per_page": ITEMS, **place},
        )  # fmt: skip

    async def _by_cursor(
        self, order: Order, number: int, svc: asyncsvc.Services | None = None
    ) -> Work:
        return self._page(order, svc, after=(await self._position(order, number)).cursor)

    async def _position(self, order: Order, number: int) -> Position:
        """Return the start of a page. It is reached in steps of the maximum page size."""
        position, left = Position(None, None), (number - 1) * ITEMS
        while left > 0:
            size = min(left, 1_000)
            page = await self._page(order, after=position.cursor, items_per_page=size)()
            left -= len(page.items)
            last = page.items[-1]
            position = Position(page.next, (last.created_at, last.id))
        return position


@dataclass(frozen=True)
class Position:
    """The start of a page: the library's cursor, and the sort key of the row before it."""

    cursor: str | None
    row: tuple[datetime, str] | None


def _ids(page: object) -> list[str]:
    return data.ids(page)[:ITEMS]


def _total(answer: Any) -> int | None:  # noqa: ANN401 - a page or a count
    return answer if isinstance(answer, int) else answer.total


@dataclass
class _Combination:
    """The calls of one combination of filters, with their seconds on the full table."""

    name: str
    work: Work
    seconds: list[float] = field(default_factory=list)

    @property
    def slower(self) -> float:
        """The median time of the last calls, divided by that of the first calls."""
        first, last = self.seconds[:_FEW], self.seconds[-2 * _FEW :]
        return statistics.median(last) / statistics.median(first)


async def _generic_plans(bench: Bench) -> None:
    """Count the combinations of filters for which the server changes to a generic plan.

    After 5 calls the server may use a generic plan for a prepared statement. This hurts most if the
    first calls ran on an empty table, so each combination is first called on an empty table.
    """
    size, few, calls, count = bench.choose(
        (200, 6, 10, 4), (2_000, 10, 50, 64), (10_000, 10, 50, 64)
    )
    tenant = data.of_size(size)
    async with database(bench.dsn) as fresh, connect(fresh) as svc:
        await svc.migrate()
        connection = await asyncpg.connect(
            fresh, statement_cache_size=1_000, max_cached_statement_lifetime=0
        )
        try:
            combinations = [*itertools.islice(_combinations(svc.on(connection), tenant), count)]
            await _repeat(combinations, few)
            await data.fill(Bench(fresh, bench.scale, bench.document), tenant, "asyncsvc")
            before = await _uses_of_generic_plans(connection)
            for each in combinations:
                each.seconds.clear()
            with bench.working(f"{count} combinations of filters"):
                await _repeat(combinations, calls)
            after = await _uses_of_generic_plans(connection)
        finally:
            await connection.close()
    changed = sum(uses > before.get(query, 0) for query, uses in after.items())
    worst = max(combinations, key=lambda each: each.slower)
    ratio = f"the time ratio of the last calls of the worst ({worst.name})"
    counted = {"with a generic plan on the full table": changed, ratio: round(worst.slower, 2)}
    title = f"{count} combinations of filters, {few} calls empty, {calls} full"
    bench.counts(title, counted)
    bench.target(f"{title}: the worst, last calls against first", worst.slower, at_most=2)


async def _uses_of_generic_plans(connection: asyncpg.Connection) -> dict[str, int]:
    """Return the number of executions with a generic plan, by statement."""
    rows = await connection.fetch(sql("plans"))
    return {row["statement"]: row["generic_plans"] for row in rows}


async def _repeat(combinations: list[_Combination], times: int) -> None:
    for _ in range(times):
        for each in combinations:
            began = time.perf_counter()
            await each.work()
            each.seconds.append(time.perf_counter() - began)


def _combinations(svc: asyncsvc.Services, tenant: Tenant) -> Iterator[_Combination]:
    """Yield every combination of the optional filters, in both orders by time."""
    filters: dict[str, Any] = {
        "id": tenant.ids[1],
        "user_id": "u1",
        "exp_user_id": "absent",
        "keywords": "parcel 17",
        "from_date": datetime.now(UTC) - timedelta(days=100),
    }
    sets = itertools.chain.from_iterable(
        itertools.combinations(filters, count) for count in range(len(filters) + 1)
    )
    for names, order in itertools.product(sets, ORDERS):
        page = functools.partial(svc.conversations.get_list, **{n: filters[n] for n in names})
        yield _Combination(
            f"{', '.join(names) or 'none'} by {order}",
            functools.partial(
                page, tenant_id=tenant.name, dialog_id=tenant.dialog, orderby=order, total="none"
            ),
        )
