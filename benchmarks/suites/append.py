"""An append ends with a durable commit, so a bare insert of 1 row is its lower bound.

On a held connection the library takes {append at 10 messages, 1 task: asyncsvc, held / bare insert}
times as long as the bare insert at 10 messages. The plain statement, which only stores the messages
and updates the counters, takes {append at 10 messages, 1 task: plain statement / bare insert} times
as long. The difference is the cost of the extras, each of which has a row in the tables below, and
of the checks in Python. Without these checks the library's statement takes {the cost of each extra,
1 task: asyncsvc's statement, bare / plain statement} times as long as the plain statement, with
them {the cost of each extra, 1 task: asyncsvc, held / plain statement} times as long.

The time does not depend on the length of the conversation, because an append writes only its own
rows. RAGFlow writes the whole conversation: at 10,000 messages it takes {append at 10,000 messages,
1 task: as RAGFlow / asyncsvc} times as long. Its megabyte of WAL also slows the next contender, so
a table of the library alone compares the lengths.

There are only 20 conversations of the maximum length. There 32 tasks wait for each other's rows; in
the tables of shorter conversations they do not. Writers to one conversation wait for its row, one
commit after the other, so the disk limits their rate. RAGFlow's writers do not wait, and overwrite
each other's messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from benchmarks import data
from benchmarks.bench import Bench, Contenders, Point, task_count
from benchmarks.contenders import bare, pgbench, psycopg, stores
from benchmarks.contenders.bare import EXTRAS, PLAIN, Bare
from benchmarks.contenders.library import Library
from benchmarks.contenders.stores import Appender, Store, Stores
from benchmarks.data import MESSAGES, TOKENS, Tenant
from benchmarks.measuring import Measured, Turn, Work, agree
from benchmarks.server import activity, connected, connections, sql, updates

BURSTS = 3
RATE_TARGETS = {10: 7, 10_000: 50}
"""The target for the library's rate as a multiple of RAGFlow's, by length of the conversation."""
_PARTS = 5


async def run(bench: Bench) -> None:
    """Measure appends by length, their extras, their writes, and bursts to one conversation."""
    async with stores.opened(bench, bench.tasks) as opened:
        suite = _Suite(bench, opened, _tenants(bench))
        await suite.fill()
        await suite.lengths()
        for tasks in (1, bench.tasks):
            for tenant in suite.tenants:
                await suite.at_length(tenant, tasks)
            await suite.extras(tasks)
        await suite.written()
        await suite.burst()


def _tenants(bench: Bench) -> list[Tenant]:
    """Return one tenant per length, with enough conversations that each gets few appends."""
    max_count, stored = bench.choose((20, 1_000), (5_000, 50_000), (10_000, 100_000))
    lengths = bench.choose((10, 100), (10, 100, 1_000), (10, 100, 1_000, 10_000))
    return [data.of_length(each, min(max_count, max(stored // each, 20))) for each in lengths]


@dataclass(frozen=True)
class _Suite:
    bench: Bench
    stores: Stores
    tenants: Sequence[Tenant]

    @property
    def first(self) -> Tenant:
        """The tenant with the shortest conversations."""
        return self.tenants[0]

    async def fill(self) -> None:
        for tenant in self.tenants:
            await data.fill(self.bench, tenant, *stores.SCHEMAS)
        for schema in (PLAIN, *EXTRAS):
            await bare.create_tables(self.bench.dsn, schema)
            for tenant in self.tenants if schema == PLAIN else [self.first]:
                await data.fill(self.bench, tenant, schema)
            if schema != PLAIN:
                await bare.add_extra(self.bench.dsn, schema)

    async def lengths(self) -> None:
        """Measure the library's append at each length."""
        async with connected(self.bench.dsn) as connection:
            store = Library(self.stores.svc.on(connection))
            contenders = {
                f"{each.messages:,} messages": _random(store, each) for each in self.tenants
            }
            by = await self.bench.contest("asyncsvc's append by length", contenders, tasks=1)
        (shortest, floor), *_, (longest, measured) = by.items()
        title = f"append at {longest} against {shortest}, time"
        self.bench.target(title, measured.cost(floor), at_most=1.1)

    async def at_length(self, tenant: Tenant, tasks: int) -> None:
        """Measure all contenders at one length."""
        await self._agree(tenant)
        title = f"append at {tenant.messages:,} messages"
        point = Point("append" if tasks == 1 else "append by many", tenant.messages)
        async with contextlib.AsyncExitStack() as stack:
            contenders = await self._contenders(stack, tenant, tasks)
            by = await self.bench.contest(title, contenders, tasks=tasks, point=point)
        self._add_targets(tenant, tasks, by)

    async def _agree(self, tenant: Tenant) -> None:
        """Append once with each contender to equal conversations, and compare the results."""
        async with (
            connected(self.bench.dsn, PLAIN) as connection,
            psycopg.connected(self.bench.dsn, PLAIN) as other,
        ):
            plain = Bare(connection, PLAIN)
            tried: Mapping[str, tuple[Appender, Store]] = {
                "asyncsvc": (self.stores.library, self.stores.library),
                "SQLAlchemy": (self.stores.orm, self.stores.orm),
                "as RAGFlow": (self.stores.flow, self.stores.flow),
                "plain": (plain, plain),
                "psycopg": (psycopg.Plain(other), plain),
            }
            contenders = {name: _appended(*both, tenant) for name, both in tried.items()}
            await agree(f"an append at {tenant.messages} messages", contenders)

    async def _contenders(
        self, stack: contextlib.AsyncExitStack, tenant: Tenant, tasks: int
    ) -> Contenders:
        dsn, opened = self.bench.dsn, self.stores
        held = await stack.enter_async_context(connections(dsn, tasks))
        plain = await stack.enter_async_context(connections(dsn, tasks, PLAIN))
        others = [
            await stack.enter_async_context(psycopg.connected(dsn, PLAIN)) for _ in range(tasks)
        ]
        used: Mapping[str, Sequence[Appender]] = {
            "plain statement": [Bare(each, PLAIN) for each in plain],
            "plain statement, psycopg": [psycopg.Plain(each) for each in others],
            "asyncsvc, held": [Library(opened.svc.on(each)) for each in held],
            "asyncsvc": [opened.library] * tasks,
            "SQLAlchemy": [opened.orm] * tasks,
            "as RAGFlow": [opened.flow] * tasks,
        }
        contenders: dict[str, Sequence[Work]] = {
            "bare insert": [_insertion(each) for each in plain]
        }
        for name, each in used.items():
            contenders[name] = [_random(store, tenant) for store in each]
        if tenant != self.first:
            return contenders  # the time of pgbench does not depend on the length
        if pgbench.program() is None:
            self.bench.remark("skipped: pgbench is not installed")
            return contenders
        return {**contenders, "plain statement, pgbench": _by_pgbench(dsn, tenant, tasks)}

    def _add_targets(self, tenant: Tenant, tasks: int, by: Mapping[str, Measured]) -> None:
        target, library, floor = self.bench.target, by["asyncsvc"], by["bare insert"]
        where = f"at {tenant.messages:,} messages, {task_count(tasks)}"
        if tasks > 1:
            if tenant == self.first:  # in longer conversations tasks wait for each other's rows
                spread = library.latency(99) / library.latency(50)
                target(f"append {where}, asyncsvc: p99 against p50", spread, at_most=5)
            return
        if tenant == self.first:
            plain, held = by["plain statement"].cost(floor), by["asyncsvc, held"].cost(floor)
            target(f"plain statement {where}, against a bare insert", plain, at_most=1.25)
            target(f"asyncsvc, held, {where}, against a bare insert", held, at_most=1.7)
        if tenant.messages in RATE_TARGETS:
            title = f"append {where}, asyncsvc against RAGFlow, rate"
            target(title, library.ratio(by["as RAGFlow"]), at_least=RATE_TARGETS[tenant.messages])

    async def extras(self, tasks: int) -> None:
        """Measure the cost of each extra that the library adds to the plain statement."""
        svc, dsn = self.stores.svc, self.bench.dsn
        async with contextlib.AsyncExitStack() as stack:
            contenders: dict[str, Sequence[Work]] = {}
            for schema, name in {PLAIN: "plain statement", **EXTRAS}.items():
                held = await stack.enter_async_context(connections(dsn, tasks, schema))
                contenders[name] = [_random(Bare(each, schema), self.first) for each in held]
            held = await stack.enter_async_context(connections(dsn, tasks))
            contenders["asyncsvc's statement, bare"] = [
                await self._same_statement(each) for each in held
            ]
            for name, keyed in (("asyncsvc, held", False), ("asyncsvc, held, with a key", True)):
                on_held = [Library(svc.on(each), keyed) for each in held]
                contenders[name] = [_random(store, self.first) for store in on_held]
            await self.bench.contest("the cost of each extra", contenders, tasks=tasks)

    async def _same_statement(self, connection: asyncpg.Connection) -> Work:
        """Return the library's own statement on the bare driver, without its Python code."""
        store, ids = Library(self.stores.svc.on(connection)), self.first.ids
        query, arguments = await bare.captured(
            connection, lambda: store.append(self.first.name, ids[0])
        )
        position = arguments.index(ids[0])
        before, after = arguments[:position], arguments[position + 1 :]
        return lambda: connection.fetchrow(query, *before, random.choice(ids), *after)  # noqa: S311

    async def written(self) -> None:
        """Count the bytes of WAL of one append, and the share of HOT updates."""
        for schema, name in {PLAIN: "plain statement", **EXTRAS}.items():
            async with connected(self.bench.dsn, schema) as connection:
                await self._count(name, connection, Bare(connection, schema), schema)
        for name, keyed in (("asyncsvc", False), ("asyncsvc, with a key", True)):
            async with connected(self.bench.dsn) as connection:
                store = Library(self.stores.svc.on(connection), keyed)
                await self._count(name, connection, store, "asyncsvc")

    async def _count(
        self, name: str, connection: asyncpg.Connection, store: Appender, schema: str
    ) -> None:
        """Count after a warm-up in which each page is written in full once.

        The median of several parts excludes the WAL that the server's own processes write.
        """
        count = self.bench.choose(10, 500, 2_000)
        ids = itertools.cycle(self.first.ids[:count])
        for id in itertools.islice(ids, count):
            await store.append(self.first.name, id)
        wal = []
        before, hot_before = await updates(connection, f"{schema}.conversation")
        for _ in range(_PARTS):
            began = (await activity(connection)).wal
            for id in itertools.islice(ids, count // _PARTS):
                await store.append(self.first.name, id)
            wal.append((await activity(connection)).wal - began)
        after, hot_after = await updates(connection, f"{schema}.conversation")
        hot = 100 * (hot_after - hot_before) / max(after - before, 1)
        written = statistics.median(wal) / (count // _PARTS)
        counted = {"bytes of WAL": round(written), "% HOT": round(hot)}
        self.bench.counts(f"one append writes, {name}", counted)

    async def burst(self) -> None:
        """Measure concurrent appends to one conversation, and count the lost messages."""
        tasks, count = self.bench.tasks, self.bench.choose(2, 10, 20)
        used: dict[str, Store] = {
            "as RAGFlow": self.stores.flow,
            "SQLAlchemy": self.stores.orm,
            "asyncsvc": self.stores.library,
        }
        appended = BURSTS * tasks * count * len(MESSAGES)
        by, lost = {name: Measured() for name in used}, dict.fromkeys(used, appended)
        for id in self.first.ids[-BURSTS:]:
            for name, store in used.items():
                before = len(await store.messages(self.first.name, id))
                by[name].add(await _append_concurrently(store, self.first.name, id, tasks, count))
                lost[name] -= len(await store.messages(self.first.name, id)) - before
        title = f"{tasks} writers on one conversation"
        self.bench.table(title, by)
        self.bench.counts(f"{title}, messages lost of {appended:,}", lost)
        self.bench.target(f"{title}, asyncsvc: messages lost", lost["asyncsvc"], at_most=0)
        faster = by["asyncsvc"].ratio(by["as RAGFlow"])
        self.bench.target(f"{title}, rate against RAGFlow's", faster, at_least=3)


def _random(store: Appender, tenant: Tenant) -> Work:
    """Return an append to a random conversation of a tenant."""
    ids = tenant.ids
    return lambda: store.append(tenant.name, random.choice(ids))  # noqa: S311


def _insertion(connection: asyncpg.Connection) -> Work:
    """Return the lower bound of a write: insert 1 row durably."""
    return lambda: connection.fetchval(sql("insertion"), MESSAGES[0]["content"])


def _by_pgbench(dsn: str, tenant: Tenant, clients: int) -> pgbench.PgBench:
    """Return the plain statement on pgbench, which sends all parameters as text."""
    statement = bare.append_statement(PLAIN)
    roles, contents = (
        ",".join(f'"{each[key]}"' for each in MESSAGES) for key in ("role", "content")
    )
    texts = {
        "tenant_id": tenant.name,
        "roles": f"{{{roles}}}",
        "contents": f"{{{contents}}}",
        "tokens": str(TOKENS),
    }
    ids = {"id": (tenant.base + 1, tenant.base + tenant.conversations)}
    names = [str(name) for name in statement.arguments]
    return pgbench.PgBench(dsn, statement.text, names, clients, texts, ids, search_path=PLAIN)


def _appended(store: Appender, reader: Store, tenant: Tenant) -> Work:
    """Return an append that returns the messages that it added."""

    async def work() -> list[tuple[str, str]]:
        before = len(await reader.messages(tenant.name, tenant.ids[0]))
        await store.append(tenant.name, tenant.ids[0])
        return (await reader.messages(tenant.name, tenant.ids[0]))[before:]

    return work


async def _append_concurrently(
    store: Appender, tenant_id: str, id: str, tasks: int, count: int
) -> Turn:
    """Append to one conversation from many tasks, `count` times from each."""
    seconds: list[float] = []

    async def writer() -> None:
        for _ in range(count):
            began = time.perf_counter()
            await store.append(tenant_id, id)
            seconds.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(writer() for _ in range(tasks)))
    return Turn(seconds, time.perf_counter() - began)
