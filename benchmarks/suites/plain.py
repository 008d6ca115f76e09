"""The frequent calls, and plain statements for the same rows through asyncpg's default pool.

The plain statements return rows, the library returns models. asyncpg's pool sends a second
statement at each release; the library's pool sends none. A plain insert writes 1 row of 1 table; an
append writes a message, the counters, the update time and the usage. A page of 20 takes {a page of
20, 1 task: asyncsvc / plain select} times the rate of the plain select, an append {an append of 1
message, 1 task: asyncsvc / plain insert} times the rate of the plain insert.

Most of the client's work in a long read is the construction of the models: one takes about as long
as the driver needs to decode its row.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass

import asyncpg

import asyncsvc
from asyncsvc import Message, Turn
from asyncsvc.validation.types import OrderBy
from benchmarks import data
from benchmarks.bench import Bench
from benchmarks.contenders import bare, stores
from benchmarks.contenders.bare import PLAIN
from benchmarks.contenders.library import connect
from benchmarks.contenders.stores import Stores
from benchmarks.data import Tenant
from benchmarks.measuring import Measured, Work
from benchmarks.server import sql

ITEMS = 20
TEXT = data.MESSAGES[1]["content"]
TURN = Turn(messages=[Message(role="assistant", content=TEXT)], tokens=data.TOKENS)


async def run(bench: Bench) -> None:
    """Measure pages, appends and reads of messages against plain statements."""
    tenant = data.of_size(bench.choose(200, 100_000, 1_000_000))
    long = [data.of_length(each, 20) for each in bench.choose((10, 100), *[(1_000, 10_000)] * 2)]
    async with stores.opened(bench, bench.tasks) as opened:
        await data.fill(bench, tenant, *stores.SCHEMAS)
        for each in long:
            await data.fill(bench, each, "asyncsvc")
        await bare.create_tables(bench.dsn, PLAIN)
        async with (
            asyncpg.create_pool(
                bench.dsn, min_size=1, max_size=bench.tasks, server_settings={"search_path": PLAIN}
            ) as pool,
            connect(bench.dsn, max_size=bench.tasks) as svc,
        ):
            suite = _Suite(bench, opened, svc, pool, tenant)
            await suite.page()
            await suite.deep_page(bench.choose(5, 1_000, 1_000))
            for tasks in (1, bench.tasks):
                await suite.append(tasks)
            await suite.messages(long[0])
            await suite.whole(long[-1])


@dataclass(frozen=True)
class _Suite:
    bench: Bench
    stores: Stores
    svc: asyncsvc.AsyncSvc
    pool: asyncpg.Pool
    tenant: Tenant

    async def page(self) -> None:
        name, dialog = self.tenant.name, self.tenant.dialog
        query = sql("page_rows")
        contenders: dict[str, Work] = {
            "plain select": lambda: self.pool.fetch(query, name, dialog, ITEMS),
            "asyncsvc": self._page("created_at", 1),
        }
        title = f"a page of {ITEMS}"
        by = await self.bench.contest(title, contenders, tasks=1, answer=_ids)
        self._targets(title, by["asyncsvc"], by["plain select"], wall=1.4, cpu=1.5)

    async def deep_page(self, number: int) -> None:
        flow = functools.partial(self.stores.flow.get_list, self.tenant.dialog, number, ITEMS)
        contenders: dict[str, Work] = {
            "by creation": self._page("created_at", number),
            "by update time": self._page("updated_at", number),
            "as RAGFlow": flow,
        }
        title = f"page {number:,} by number"
        by = await self.bench.contest(title, contenders, tasks=1)
        update, creation = by["by update time"], by["by creation"]
        self.bench.target(f"{title}: by update time against by creation, time",
                          update.cost(creation), at_most=1.5)  # fmt: skip
        for each in ("by update time", "by creation"):
            cost = by[each].cost(by["as RAGFlow"])
            self.bench.target(f"{title}: {each} against RAGFlow, time", cost, at_most=0.5)

    async def append(self, tasks: int) -> None:
        query, ids = sql("insertion"), self.tenant.ids

        async def append() -> None:
            id = random.choice(ids)  # noqa: S311
            await self.svc.conversations.append_message(id, TURN, tenant_id=self.tenant.name)

        contenders: dict[str, Work] = {
            "plain insert": lambda: self.pool.fetchval(query, TEXT),
            "asyncsvc": append,
        }
        title = "an append of 1 message"
        by = await self.bench.contest(title, contenders, tasks=tasks)
        if tasks == 1:
            self._targets(title, by["asyncsvc"], by["plain insert"], wall=1.3, cpu=1.4)
        else:
            rate = by["asyncsvc"].ratio(by["plain insert"])
            self.bench.target(
                f"{title}, {tasks} tasks, rate against plain insert", rate, at_least=0.6
            )

    async def messages(self, tenant: Tenant) -> None:
        query, id, count = sql("message_rows"), tenant.ids[0], tenant.messages
        contenders: dict[str, Work] = {
            "plain select": lambda: self.pool.fetch(query, tenant.name, id, count),
            "asyncsvc": lambda: self.svc.conversations.messages(
                id, tenant_id=tenant.name, limit=count
            ),
        }
        title = f"{count:,} messages"
        by = await self.bench.contest(title, contenders, tasks=1, answer=len)
        self._targets(title, by["asyncsvc"], by["plain select"], cpu=1.3)

    async def whole(self, tenant: Tenant) -> None:
        query, id = sql("conversation_json"), tenant.ids[0]
        contenders: dict[str, Work] = {
            "server's JSON": lambda: self.pool.fetchrow(query, tenant.name, id),
            "asyncsvc": lambda: self.svc.conversations.get_by_id(
                id, tenant_id=tenant.name, include_messages=True
            ),
        }
        title = f"a conversation of {tenant.messages:,} messages"
        by = await self.bench.contest(title, contenders, tasks=1)
        self._targets(title, by["asyncsvc"], by["server's JSON"], wall=1.5)

    def _page(self, orderby: OrderBy, number: int) -> Work:
        return functools.partial(
            self.svc.conversations.get_list,
            tenant_id=self.tenant.name, dialog_id=self.tenant.dialog, orderby=orderby,
            page_number=number, items_per_page=ITEMS, total="none",
        )  # fmt: skip

    def _targets(
        self,
        title: str,
        own: Measured,
        plain: Measured,
        *,
        wall: float | None = None,
        cpu: float | None = None,
    ) -> None:
        if wall is not None:
            self.bench.target(f"{title}, time", own.cost(plain), at_most=wall)
        if cpu is not None:
            self.bench.target(f"{title}, CPU of the client", own.cpu_cost(plain), at_most=cpu)


def _ids(page: object) -> list[str]:
    return data.ids(page)[:ITEMS]
