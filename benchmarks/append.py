"""Appends: by length of the conversation, against a bare insert, and with concurrent writers.

Each contender appends the same turn of 2 messages to conversations of the same lengths, in its own
tables. Before each contest each contender appends once, and the suite compares the stored messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from benchmarks import data
from benchmarks.append_contenders import (
    MESSAGES,
    Append,
    Stores,
    by_library,
    by_orm,
    by_pgbench,
    by_psycopg,
    by_ragflow,
    by_same_statement,
    by_statement,
    in_turn,
    insertion,
    stores,
    to_random_conversation,
)
from benchmarks.contenders import bare, pgbench, psycopg
from benchmarks.contest import EFFORTS, ContestRunner, Effort, spelled
from benchmarks.data import Tenant
from benchmarks.measuring import Competitor, Contender, Measured, Turn
from benchmarks.report import Place, Report
from benchmarks.server import activity, connected, connections
from benchmarks.statements import sql

BURSTS = 3
FASTER = {10: 7, 10_000: 50}
"""The target for the library's rate, as a multiple of RAGFlow's, by length."""
_PARTS = 5


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    lengths: tuple[int, ...]
    conversations: int  # maximum per length
    stored: int  # approximate number of messages per length
    counted: int  # appends whose WAL is counted
    hot: int  # appends of each writer to the shared conversation
    effort: Effort

    @property
    def tenants(self) -> list[Tenant]:
        """One tenant per length, with enough conversations that each gets few appends."""
        return [
            data.of_length(length, min(self.conversations, max(self.stored // length, 20)))
            for length in self.lengths
        ]


SCALES = {
    "small": Scale((10, 100), 20, 1_000, 10, 2, EFFORTS["small"]),
    "middle": Scale((10, 100, 1_000), 5_000, 50_000, 500, 10, EFFORTS["middle"]),
    "full": Scale((10, 100, 1_000, 10_000), 10_000, 100_000, 2_000, 20, EFFORTS["full"]),
}


async def run(dsn: str, scale: str, report: Report) -> None:
    """Measure, and add the tables to the report."""
    how = SCALES[scale]
    async with stores(dsn, how.effort.tasks) as lent:
        available = await _filled(lent, how, report)
        suite = Suite(ContestRunner(dsn, report, how.effort), lent, how, available)
        await suite.lengths()
        for count in (1, how.effort.tasks):
            for tenant in how.tenants:
                await suite.at_length(tenant, count)
            await suite.extras(count)
        await suite.written()
        await suite.burst()


async def _filled(lent: Stores, how: Scale, report: Report) -> list[str]:
    """Store all conversations; return the plain schema and the extras that the server supports."""
    await lent.create()
    await bare.create_tables(lent.dsn, bare.PLAIN)
    for tenant in how.tenants:
        await lent.fill(tenant, report)
        await data.fill(lent.dsn, tenant, data.PLAIN, report, schema=bare.PLAIN)
    available = [bare.PLAIN]
    for name in bare.EXTRAS:
        try:
            await bare.create_tables(lent.dsn, name)
        except asyncpg.PostgresError as error:
            report.add_remark(f"left out: {bare.NAMES[name]}: {error}")
            continue
        files = (*data.PLAIN, *bare.FILLS.get(name, ()))
        await data.fill(lent.dsn, how.tenants[0], files, report, schema=name)
        available.append(name)
    return available


@dataclass(frozen=True)
class Suite:
    """The contests."""

    runner: ContestRunner
    stores: Stores
    how: Scale
    available: Sequence[str]

    async def lengths(self) -> None:
        """Measure the library's append at each length."""
        async with connected(self.runner.dsn) as connection:
            svc = self.stores.svc.on(connection)
            contenders = [
                Contender(
                    f"{tenant.messages:,} messages",
                    [to_random_conversation(by_library(svc, tenant.name), tenant)],
                )
                for tenant in self.how.tenants
            ]
            measured = await self.runner.contest("asyncsvc's append by length, 1 task", contenders)
        shortest, longest = measured[0], measured[-1]
        title = f"append at {longest.name} against {shortest.name}, time"
        self.runner.report.target(title, longest.cost(shortest), maximum=1.1)

    async def at_length(self, tenant: Tenant, count: int) -> None:
        """Measure all contenders at one length."""
        await self.stores.agree(tenant)
        title = f"append at {tenant.messages:,} messages, {spelled(count)}"
        place = Place("append" if count == 1 else "append by many", tenant.messages)
        async with contextlib.AsyncExitStack() as stack:
            contenders = await self._contenders(stack, tenant, count)
            measured = await self.runner.contest(title, contenders, place=place)
        self._add_targets(tenant, count, {each.name: each for each in measured})

    async def _contenders(
        self, stack: contextlib.AsyncExitStack, tenant: Tenant, count: int
    ) -> list[Competitor]:
        dsn, lent, name = self.runner.dsn, self.stores, tenant.name
        held = await stack.enter_async_context(connections(dsn, count))
        plain = await stack.enter_async_context(connections(dsn, count, bare.PLAIN))
        others = [
            await stack.enter_async_context(psycopg.connected(dsn, bare.PLAIN))
            for _ in range(count)
        ]
        ways: Mapping[str, Sequence[Append]] = {
            "plain statement": [by_statement(each, bare.PLAIN, name) for each in plain],
            "plain statement, psycopg": [by_psycopg(each, name) for each in others],
            "asyncsvc, held": [by_library(lent.svc.on(each), name) for each in held],
            "asyncsvc": [by_library(lent.svc, name)] * count,
            "SQLAlchemy": [by_orm(lent.orm, name)] * count,
            "as RAGFlow": [by_ragflow(lent.flow)] * count,
        }
        contenders: list[Competitor] = [
            Contender("bare insert", [insertion(each) for each in plain]),
            *(
                Contender(title, [to_random_conversation(append, tenant) for append in appends])
                for title, appends in ways.items()
            ),
        ]
        if tenant != self.how.tenants[0]:
            return contenders  # the time of pgbench does not depend on the length
        if pgbench.program() is None:
            self.runner.report.add_remark("left out: pgbench, which is not installed")
            return contenders
        return [*contenders, by_pgbench(dsn, tenant, count)]

    def _add_targets(self, tenant: Tenant, count: int, by: Mapping[str, Measured]) -> None:
        target, mine, floor = self.runner.report.target, by["asyncsvc"], by["bare insert"]
        where = f"at {tenant.messages:,} messages, {spelled(count)}"
        shortest = tenant == self.how.tenants[0]
        if count > 1:
            if shortest:  # of the longest there are so few that tasks wait for each other's rows
                title = f"append {where}, asyncsvc: p99 against p50"
                target(title, mine.latency(99) / mine.latency(50), maximum=5)
            return
        if shortest:
            plain, held = by["plain statement"], by["asyncsvc, held"]
            target(
                f"plain statement {where}, against a bare insert", plain.cost(floor), maximum=1.25
            )
            target(f"asyncsvc, held, {where}, against it", held.cost(floor), maximum=1.7)
        if tenant.messages in FASTER:
            faster = mine.ratio(by["as RAGFlow"])
            title = f"append {where}, asyncsvc against RAGFlow, rate"
            target(title, faster, minimum=FASTER[tenant.messages])

    async def extras(self, count: int) -> None:
        """Measure the cost of each extra that the library adds to the plain statement."""
        tenant = self.how.tenants[0]
        async with contextlib.AsyncExitStack() as stack:
            contenders = []
            for schema in self.available:
                lent = await stack.enter_async_context(connections(self.runner.dsn, count, schema))
                works = [
                    to_random_conversation(by_statement(each, schema, tenant.name), tenant)
                    for each in lent
                ]
                contenders.append(Contender(bare.NAMES[schema], works))
            lent = await stack.enter_async_context(connections(self.runner.dsn, count))
            contenders += [
                Contender(name, [to_random_conversation(append, tenant) for append in appends])
                for name, appends in (await self._whole(lent, tenant)).items()
            ]
            await self.runner.contest(f"the price of each extra, {spelled(count)}", contenders)

    async def _whole(
        self, lent: Sequence[asyncpg.Connection], tenant: Tenant
    ) -> Mapping[str, Sequence[Append]]:
        """Return the library's statement on the bare driver, and the library itself."""
        svc, name = self.stores.svc, tenant.name
        return {
            "asyncsvc's statement, bare": [
                await by_same_statement(each, svc, tenant) for each in lent
            ],
            "asyncsvc, held": [by_library(svc.on(each), name) for each in lent],
            "asyncsvc, held, with a key": [
                by_library(svc.on(each), name, keyed=True) for each in lent
            ],
        }

    async def written(self) -> None:
        """Count the bytes of WAL of one append, and the share of HOT updates."""
        tenant = self.how.tenants[0]
        for schema in self.available:
            async with connected(self.runner.dsn, schema) as connection:
                append = by_statement(connection, schema, tenant.name)
                await self._count(bare.NAMES[schema], connection, append, schema)
        for name, keyed in (("asyncsvc", False), ("asyncsvc, with a key", True)):
            async with connected(self.runner.dsn) as connection:
                append = by_library(self.stores.svc.on(connection), tenant.name, keyed=keyed)
                await self._count(name, connection, append, "asyncsvc")

    async def _count(
        self, name: str, connection: asyncpg.Connection, append: Append, schema: str
    ) -> None:
        """Count after a warm-up in which each page is written in full once.

        The median of several parts excludes the WAL that the server's own processes write.
        """
        work = in_turn(append, self.how.tenants[0].ids[: self.how.counted])
        for _ in range(self.how.counted):
            await work()
        wal = []
        updates, hot = await _updates(connection, schema)
        for _ in range(_PARTS):
            before = await activity(connection)
            for _ in range(self.how.counted // _PARTS):
                await work()
            wal.append((await activity(connection)).wal - before.wal)
        updated, hot_then = await _updates(connection, schema)
        self.runner.report.add_counts(
            f"one append writes, {name}",
            {
                "bytes of WAL": round(statistics.median(wal) / (self.how.counted // _PARTS)),
                "% HOT": round(100 * (hot_then - hot) / max(updated - updates, 1)),
            },
        )

    async def burst(self) -> None:
        """Measure concurrent appends to one conversation, and count the lost messages."""
        lent, tenant = self.stores, self.how.tenants[0]
        ways: Mapping[str, Append] = {
            "as RAGFlow": by_ragflow(lent.flow),
            "SQLAlchemy": by_orm(lent.orm, tenant.name),
            "asyncsvc": by_library(lent.svc, tenant.name),
        }
        measured = {name: Measured(name) for name in ways}
        lost = dict.fromkeys(ways, BURSTS * self.how.effort.tasks * self.how.hot * len(MESSAGES))
        for id in tenant.ids[-BURSTS:]:
            for name, append in ways.items():
                before = await lent.stored(name, tenant.name, id)
                measured[name].add(await _append_concurrently(append, id, self.how))
                lost[name] -= len(await lent.stored(name, tenant.name, id)) - len(before)
        self._add_burst_targets(measured, lost)

    def _add_burst_targets(self, measured: Mapping[str, Measured], lost: Mapping[str, int]) -> None:
        title, report = f"{self.how.effort.tasks} writers on one conversation", self.runner.report
        appended = BURSTS * self.how.effort.tasks * self.how.hot * len(MESSAGES)
        report.add(title, list(measured.values()))
        report.add_counts(f"{title}, messages lost of {appended:,}", lost)
        report.target(f"{title}, asyncsvc: messages lost", lost["asyncsvc"], maximum=0)
        faster = measured["asyncsvc"].ratio(measured["as RAGFlow"])
        report.target(f"{title}, rate against RAGFlow's", faster, minimum=3)


async def _updates(connection: asyncpg.Connection, schema: str) -> tuple[int, int]:
    """Return the number of updates of conversations so far, and the number of HOT updates."""
    await connection.execute(sql("force_flush"))
    row = await connection.fetchrow(sql("updates"), f"{schema}.conversation")
    assert row is not None  # noqa: S101
    return row["updates"], row["hot"]


async def _append_concurrently(append: Append, id: str, how: Scale) -> Turn:
    """Append to one conversation from many tasks, `how.hot` times from each."""
    taken: list[float] = []

    async def writer() -> None:
        for _ in range(how.hot):
            began = time.perf_counter()
            await append(id)
            taken.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(writer() for _ in range(how.effort.tasks)))
    return Turn(taken, time.perf_counter() - began)
