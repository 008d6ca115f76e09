"""Pages of one dialog, by position of the page, with and without writers, and the cost of a total.

The dialog contains half of a tenant's conversations, in each contender's tables. Before each
contest the suite checks that all contenders return the same conversations.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import asyncpg

import asyncsvc
from benchmarks import data, plans
from benchmarks.append_contenders import Stores, by_library, stores
from benchmarks.contenders import bare, pgbench, psycopg
from benchmarks.contest import EFFORTS, ContestRunner, Effort, spelled
from benchmarks.data import Tenant
from benchmarks.measuring import Contender, Measured, Work, agree
from benchmarks.report import Place, Report
from benchmarks.server import connected

ITEMS = 20
FAR = 10_000
"""The page with a target for the rate against RAGFlow."""
WRITERS = 4
PAUSE = 0.005
"""Seconds between two appends of a writer: a few hundred appends per second."""

Order: TypeAlias = Literal["created_at", "updated_at"]
ORDERS: dict[Order, str] = {"created_at": "creation", "updated_at": "recent activity"}
Ids: TypeAlias = Callable[[], Awaitable[list[str]]]


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    sizes: tuple[int, ...]  # conversations of the tenants
    pages: tuple[int, ...]
    planned: plans.Scale
    effort: Effort


SCALES = {
    "small": Scale((200,), (1, 3), plans.Scale(200, 6, 10, 4), EFFORTS["small"]),
    "middle": Scale(
        (10_000, 100_000), (1, 100, 1_000), plans.Scale(2_000, 10, 50, 64), EFFORTS["middle"]
    ),
    "full": Scale(
        (10_000, 100_000, 1_000_000),
        (1, 100, 1_000, 10_000),
        plans.Scale(10_000, 10, 50, 64),
        EFFORTS["full"],
    ),
}


async def run(dsn: str, scale: str, report: Report) -> None:
    """Measure, and add the tables to the report."""
    how = SCALES[scale]
    async with stores(dsn, how.effort.tasks) as lent:
        await lent.create()
        tenants = [data.of_size(size) for size in how.sizes]
        for tenant in tenants:
            await lent.fill(tenant, report)
        suite = Suite(ContestRunner(dsn, report, how.effort), lent, tenants[-1], how)
        for order in ORDERS:
            await suite.walk(order)
            async with _writing(lent, tenants[-1]):
                await suite.walk(order, " while appends run")
        for number in how.pages:
            await suite.page(number)
            await suite.recent(number)
        await suite.many()
        for tenant in tenants:
            await suite.total(tenant)
        await plans.measure(dsn, how.planned, report)


@contextlib.asynccontextmanager
async def _writing(lent: Stores, tenant: Tenant) -> AsyncIterator[None]:
    """Append to conversations of a tenant from `WRITERS` tasks while the block runs."""
    append, ids = by_library(lent.svc, tenant.name), tenant.ids

    async def writer() -> None:
        while True:
            await append(random.choice(ids))  # noqa: S311
            await asyncio.sleep(PAUSE)

    async with asyncio.TaskGroup() as group:
        writers = [group.create_task(writer()) for _ in range(WRITERS)]
        yield
        for each in writers:
            each.cancel()


@dataclass(frozen=True)
class Suite:
    """The contests about pages of one dialog."""

    runner: ContestRunner
    stores: Stores
    tenant: Tenant
    how: Scale

    async def walk(self, order: Order, circumstances: str = "") -> None:
        """The library alone: each page by its cursor."""
        contenders = [
            Contender(f"page {number:,}", [await self._by_cursor(order, number)])
            for number in self.how.pages
        ]
        title = f"pages by {ORDERS[order]}{circumstances}, asyncsvc by cursor, 1 task"
        measured = await self.runner.contest(title, contenders)
        self._add_walk_target(f"by {ORDERS[order]}{circumstances}", measured)

    def _add_walk_target(self, how: str, measured: Sequence[Measured]) -> None:
        title = f"{measured[-1].name} against {measured[0].name}, {how}, time"
        self.runner.report.target(title, measured[-1].cost(measured[0]), maximum=2)

    async def page(self, number: int) -> None:
        """All contenders at one page, newest first."""
        lent, name, dialog = self.stores, self.tenant.name, self.tenant.dialog
        cursor = await self._position("created_at", number)
        async with (
            connected(self.runner.dsn) as connection,
            psycopg.connected(self.runner.dsn) as other,
        ):
            held = lent.svc.on(connection)
            by_cursor = await self._by_cursor("created_at", number, held)
            query, arguments = await bare.captured(connection, by_cursor)
            ways: dict[str, Work] = {
                "bare statement": lambda: connection.fetch(query, *arguments),
                "bare statement, psycopg": lambda: psycopg.fetch(other, query, arguments),
                "asyncsvc, held": by_cursor,
                "asyncsvc": await self._by_cursor("created_at", number),
                "asyncsvc, by number": self._by_number("created_at", number),
                "SQLAlchemy": lambda: lent.orm.page(name, dialog, ITEMS, cursor.row),
                "as RAGFlow": lambda: lent.flow.get_list(dialog, number, ITEMS),
            }
            await agree(f"page {number}", {each: _ids(work) for each, work in ways.items()})
            title = f"page {number:,} by creation, 1 task"
            contenders = [
                *(Contender(each, [work]) for each, work in ways.items()),
                *pgbench.alone("bare statement, pgbench", self.runner.dsn, query, arguments, 1),
            ]
            measured = await self.runner.contest(title, contenders, place=Place("page", number))
        if number == FAR:
            by = {each.name: each for each in measured}
            faster = by["asyncsvc"].ratio(by["as RAGFlow"])
            self.runner.report.target(f"{title}, rate against RAGFlow's", faster, minimum=100)

    async def recent(self, number: int) -> None:
        """Measure one page by recent activity: by cursor, by number, and the bare statement."""
        async with connected(self.runner.dsn) as connection:
            held = self.stores.svc.on(connection)
            by_cursor = await self._by_cursor("updated_at", number, held)
            query, arguments = await bare.captured(connection, by_cursor)
            ways: dict[str, Work] = {
                "bare statement": lambda: connection.fetch(query, *arguments),
                "asyncsvc": await self._by_cursor("updated_at", number),
                "asyncsvc, by number": self._by_number("updated_at", number),
            }
            await agree(f"page {number}", {each: _ids(work) for each, work in ways.items()})
            contenders = [Contender(each, [work]) for each, work in ways.items()]
            place = Place("recent page", number)
            title = f"page {number:,} by recent activity, 1 task"
            await self.runner.contest(title, contenders, place=place)

    async def many(self) -> None:
        """Measure the first page with concurrent tasks."""
        count, dialog = self.how.effort.tasks, self.tenant.dialog
        ways: dict[str, Work] = {
            "asyncsvc": await self._by_cursor("created_at", 1),
            "SQLAlchemy": lambda: self.stores.orm.page(self.tenant.name, dialog, ITEMS),
            "as RAGFlow": lambda: self.stores.flow.get_list(dialog, 1, ITEMS),
        }
        contenders = [Contender(each, [work] * count) for each, work in ways.items()]
        await self.runner.contest(f"page 1 by creation, {spelled(count)}", contenders)

    async def total(self, tenant: Tenant) -> None:
        """Measure a page with each kind of total."""
        lent, size = self.stores, tenant.conversations // 2
        ways: dict[str, Work] = {
            "none": _counted(lent.svc, tenant, "none"),
            "capped": _counted(lent.svc, tenant, "capped"),
            "exact": _counted(lent.svc, tenant, "exact"),
            "exact, of a user": _counted(lent.svc, tenant, "exact", user_id="u1"),
            "SQLAlchemy, count alone": lambda: lent.orm.count(tenant.name, tenant.dialog),
            "as RAGFlow, count alone": lambda: lent.flow.count(tenant.dialog),
        }
        exact = {each: ways[each] for each in ways if "count alone" in each or each == "exact"}
        await agree(f"the total of {size:,}", exact)
        contenders = [Contender(each, [work]) for each, work in ways.items()]
        title = f"total of a dialog of {size:,}, 1 task"
        await self.runner.contest(title, contenders, place=Place("total", size))

    async def _by_cursor(
        self, order: Order, number: int, svc: asyncsvc.Services | None = None
    ) -> Work:
        conversations = (svc or self.stores.svc).conversations
        after = (await self._position(order, number)).cursor
        return lambda: conversations.get_list(
            dialog_id=self.tenant.dialog,
            tenant_id=self.tenant.name,
            items_per_page=ITEMS,
            orderby=order,
            include_dsl=False,
            after=after,
            total="none",
        )

    def _by_number(self, order: Order, number: int) -> Work:
        return lambda: self.stores.svc.conversations.get_list(
            dialog_id=self.tenant.dialog,
            tenant_id=self.tenant.name,
            page_number=number,
            items_per_page=ITEMS,
            orderby=order,
            include_dsl=False,
            total="none",
        )

    async def _position(self, order: Order, number: int) -> Position:
        """Return the start of a page, reached in steps of the maximum page size."""
        position, left = Position(None, None), (number - 1) * ITEMS
        while left > 0:
            page = await self.stores.svc.conversations.get_list(
                dialog_id=self.tenant.dialog,
                tenant_id=self.tenant.name,
                items_per_page=min(left, 1_000),
                orderby=order,
                include_dsl=False,
                after=position.cursor,
                total="none",
            )
            left -= len(page.items)
            last = page.items[-1]
            position = Position(page.next, (last.created_at, last.id))
        return position


@dataclass(frozen=True)
class Position:
    """The start of a page: the library's cursor, and the sort key of the row before it."""

    cursor: str | None
    row: tuple[Any, str] | None


def _counted(
    svc: asyncsvc.AsyncSvc,
    tenant: Tenant,
    total: Literal["none", "capped", "exact"],
    user_id: str | None = None,
) -> Work:
    async def work() -> int | None:
        page = await svc.conversations.get_list(
            dialog_id=tenant.dialog,
            tenant_id=tenant.name,
            items_per_page=ITEMS,
            user_id=user_id,
            include_dsl=False,
            total=total,
        )
        return page.total

    return work


def _ids(work: Work) -> Ids:
    """Return a call that returns the ids of a contender's page."""

    async def ids() -> list[str]:
        page = await work()
        if isinstance(page, asyncsvc.Page):
            return [item.id for item in page.items]
        if isinstance(page, tuple):  # RAGFlow's total and page
            return [row["id"] for row in page[1]]
        return [_id(row) for row in cast("list[Any]", page)][:ITEMS]

    return ids


def _id(row: Any) -> str:  # noqa: ANN401 - a row of any contender
    if isinstance(row, asyncpg.Record):
        return str(row["id"])
    return str(row[2] if isinstance(row, tuple) else row.id)
