"""Measure small tenants beside a large one: latency, the backlog of maintenance, and sizes.

The small tenants have the same load first alone, and then beside the large tenant, which reads,
appends, purges and imports from a process of its own. Maintenance runs in the background of both
processes, as `connect` starts it.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import asyncpg

import asyncsvc
from asyncsvc.cli.runner import CommandError
from benchmarks.measuring import milliseconds
from benchmarks.reliability import Frozen
from benchmarks.reliability.mixed_load import LARGE, Calls, OpenLoop, Order, SmallTenants
from benchmarks.reliability.server import Server, described, temporary_directory
from benchmarks.server import connected, sql

Show: TypeAlias = Callable[[str, float], None]
"""Called with the current work and the seconds of load so far."""

MAX_RATIO: Final = 3.0
"""The maximum p99 of a small tenant beside the large one, divided by its p99 alone."""
MAX_GROWTH: Final = 1.3
"""The maximum bytes per row of a relation at the end, divided by those of the fresh store."""
MAX_AGE: Final = 180.0
"""The maximum age of the backlog: 3 intervals of maintenance."""
_MIN_SHARE: Final = 0.01
"""The share of the store from which on a relation must not grow."""
_TOKENS: Final = 200
_SAMPLES: Final = 120
_WARM_UP: Final = 0.2
"""The duration of the load before the measurement, divided by that of the small tenants alone."""
_END_SECONDS: Final = 300.0
_ROOT: Final = Path(__file__).parents[2]


class Settings(Frozen):
    """The options of a mixed run."""

    minutes: float
    """The duration of the load beside the large tenant."""
    alone: float
    """The minutes of the load of the small tenants alone."""
    rate: float
    """The calls of the small tenants per second."""
    large: int
    """The number of conversations of the large tenant."""
    tenants: int
    """The number of small tenants."""
    small: int
    """The number of conversations of each small tenant."""
    seed: int


class Operation(Frozen):
    """The latency of an operation of the small tenants, in milliseconds."""

    name: str
    calls: int
    alone_p50: float
    alone_p99: float
    mixed_p50: float
    mixed_p99: float

    @property
    def ratio(self) -> float:
        """The p99 beside the large tenant, divided by the p99 alone."""
        return self.mixed_p99 / self.alone_p99


class LargeOperation(Frozen):
    """The latency of an operation of the large tenant, in milliseconds."""

    name: str
    calls: int
    p50: float
    p99: float


class Relation(Frozen):
    """The size of a table or an index at first and at the end."""

    name: str
    fresh_bytes: int
    fresh_rows: int
    bytes: int
    rows: int

    @property
    def growth(self) -> float:
        """The bytes per row of the table, divided by those of the fresh store."""
        rows = max(1, self.rows) / max(1, self.fresh_rows)
        return self.bytes / max(1, self.fresh_bytes) / rows


class Sample(Frozen):
    """The state at one time of the load beside the large tenant."""

    seconds: float
    p99: float
    """The p99 of the calls of small tenants since the sample before, in milliseconds."""
    backlog: int
    """The rows that maintenance has not processed, of each kind at most 10,000."""
    age: float
    """The seconds since the last run of maintenance that processed all rows."""
    bytes: int
    """The size of all tables and indexes."""


class Report(Frozen):
    """The results of a mixed run."""

    settings: Settings
    server: dict[str, str]
    operations: list[Operation]
    large_operations: list[LargeOperation]
    relations: list[Relation]
    errors: dict[str, int]
    samples: list[Sample]

    @property
    def summary(self) -> dict[str, object]:
        """The values by name, without the tables and the samples."""
        fresh = sum(each.fresh_bytes for each in self.relations)
        return {
            "PostgreSQL": self.server["server_version"],
            "minutes": round(self.samples[-1].seconds / 60, 1) if self.samples else 0.0,
            "calls of small tenants": sum(each.calls for each in self.operations),
            "MiB of the fresh store": fresh // 2**20,
            "MiB at the end": sum(each.bytes for each in self.relations) // 2**20,
            "maximum backlog": max((each.backlog for each in self.samples), default=0),
            "maximum age of the backlog, s": round(max(each.age for each in self.samples)),
            "errors": ", ".join(f"{count:,} {name}" for name, count in self.errors.items()),
        }

    @property
    def large_relations(self) -> list[Relation]:
        """The relations with a considerable share of the store, the largest first."""
        minimum = _MIN_SHARE * sum(each.bytes for each in self.relations)
        large = (each for each in self.relations if each.bytes >= minimum)
        return sorted(large, key=lambda each: -each.bytes)

    @property
    def failures(self) -> list[str]:
        """The missed targets."""
        slow = [
            f"{each.name}: p99 is {each.ratio:.1f} times that alone"
            for each in self.operations
            if each.ratio > MAX_RATIO
        ]
        grown = [
            f"{each.name}: {each.growth:.2f} times its fresh size per row"
            for each in self.large_relations
            if each.growth > MAX_GROWTH
        ]
        age = max(each.age for each in self.samples)
        late = [f"maintenance was {age:.0f} s late"] if age > MAX_AGE else []
        return [*slow, *grown, *late, *(f"{n} {name}" for name, n in self.errors.items())]


async def mixed(settings: Settings, dsn: str | None, show: Show) -> Report:
    """Run on a new server, or on the database of `dsn`, and return the report.

    The database is empty, or the run loads nothing because an earlier run has loaded it.
    """
    async with AsyncExitStack() as stack:
        if dsn is None:
            directory = stack.enter_context(temporary_directory())
            dsn = await stack.enter_async_context(Server(directory).running())
        own = await stack.enter_async_context(connected(dsn))
        svc = await stack.enter_async_context(asyncsvc.connect(dsn, min_size=8, max_size=16))
        return await _Run(settings, dsn, own, svc, show).report()


@dataclass(slots=True)
class _Run:
    settings: Settings
    dsn: str
    own: asyncpg.Connection[asyncpg.Record]
    svc: asyncsvc.AsyncSvc
    show: Show

    async def report(self) -> Report:
        await self._load()
        secrets = await self._create_tokens()
        self.show("reading the sizes", 0)
        fresh = await self._sizes()
        await self.own.execute("CHECKPOINT")  # those of the load would disturb the first minutes
        await self._measure(secrets, self.settings.alone * _WARM_UP, 0)
        alone, _ = await self._measure(secrets, self.settings.alone, 0)
        async with self._large_tenant() as large:
            offset = self.settings.alone * 60
            beside, samples = await self._measure(secrets, self.settings.minutes, offset)
        await self.svc.maintain()
        (calls,) = large
        return Report(
            settings=self.settings,
            server=await described(self.dsn),
            operations=_operations(alone, beside),
            large_operations=_large_operations(calls),
            relations=_relations(fresh, await self._sizes()),
            errors=_errors(alone, beside, calls),
            samples=samples,
        )

    async def _load(self) -> None:
        """Create the tables and fill them, unless an earlier run did."""
        if await self.own.fetchval(sql("has_loaded")):
            return
        self.show("loading", 0)
        await self.svc.migrate()
        settings = self.settings
        sizes = (settings.large, settings.tenants, settings.small)
        await self.own.execute(sql("generator"))
        for command in sql("fill_mixed").split(";\n\n"):
            statement = await self.own.prepare(command)
            values = (LARGE, *sizes) if statement.get_parameters() else ()
            await statement.fetch(*values)
        self.show("rolling up", 0)
        await self.svc.maintain()
        await self.own.execute(sql("compact_usage"))
        await self.own.execute("VACUUM ANALYZE")
        await self.own.execute("CREATE TABLE bench.loaded ()")

    async def _create_tokens(self) -> list[str]:
        chance = self._chance()
        tenants = [f"s{chance.randint(1, self.settings.tenants)}" for _ in range(_TOKENS)]
        return [
            (await self.svc.tokens.create(tenant_id=tenant, name="mixed")).secret.get_secret_value()
            for tenant in tenants
        ]

    def _chance(self) -> random.Random:
        return random.Random(self.settings.seed)  # noqa: S311 - no secret

    async def _measure(
        self, secrets: list[str], minutes: float, offset: float
    ) -> tuple[Calls, list[Sample]]:
        """Run the load of the small tenants for this time; return its calls and the samples."""
        settings, gone = self.settings, minutes * 60
        small = SmallTenants(self.svc, settings.tenants, settings.small, self._chance(), secrets)
        loop, samples = OpenLoop(small.works), list[Sample]()
        gc.collect()
        gc.freeze()
        began = time.perf_counter()
        load = asyncio.create_task(
            loop.run(small.names(), settings.rate, lambda: time.perf_counter() > began + gone)
        )
        while not load.done():
            await asyncio.wait({load}, timeout=gone / _SAMPLES)
            samples.append(await self._sample(time.perf_counter() - began, loop))
            self.show(f"{samples[-1].p99:.1f} ms p99", offset + samples[-1].seconds)
        await load
        return loop.calls, samples

    async def _sample(self, seconds: float, loop: OpenLoop) -> Sample:
        recent, loop.recent = loop.recent, []
        backlog = await self.svc.backlog()
        rows = await self.own.fetch(sql("relation_sizes"))
        return Sample(
            seconds=seconds,
            p99=milliseconds(recent, 99) if recent else 0.0,
            backlog=backlog.ledger_rows + backlog.messages + backlog.titles,
            age=0.0 if backlog.is_empty else backlog.age,
            bytes=sum(row["bytes"] for row in rows),
        )

    async def _sizes(self) -> dict[str, tuple[int, int]]:
        """Return the bytes of each table and index, and the rows of its table."""
        relations = await self.own.fetch(sql("relation_sizes"))
        rows = {
            name: await self.own.fetchval(f"SELECT count(*) FROM asyncsvc.{name}")  # noqa: S608
            for name in {row["table_name"] for row in relations}
        }
        return {row["name"]: (row["bytes"], rows[row["table_name"]]) for row in relations}

    @asynccontextmanager
    async def _large_tenant(self) -> AsyncIterator[list[Calls]]:
        """Run the process of the large tenant inside the block; the list then has its calls."""
        order = Order(
            dsn=self.dsn,
            conversations=self.settings.large,
            seed=self.settings.seed,
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.reliability.mixed_load", order.model_dump_json()),
            cwd=_ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        calls = list[Calls]()
        try:
            yield calls
            async with asyncio.timeout(_END_SECONDS):
                printed, _ = await process.communicate(b"")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise CommandError("the process of the large tenant failed, see above")
        calls.append(Calls.model_validate_json(printed))


def _errors(alone: Calls, beside: Calls, large: Calls) -> dict[str, int]:
    return {
        f"{phase}: {name}": count
        for phase, calls in (("alone", alone), ("beside", beside), ("large tenant", large))
        for name, count in calls.errors.items()
    }


def _operations(alone: Calls, beside: Calls) -> list[Operation]:
    return [
        Operation(
            name=name,
            calls=len(seconds),
            alone_p50=milliseconds(alone.seconds[name], 50),
            alone_p99=milliseconds(alone.seconds[name], 99),
            mixed_p50=milliseconds(seconds, 50),
            mixed_p99=milliseconds(seconds, 99),
        )
        for name, seconds in sorted(beside.seconds.items())
        if name in alone.seconds
    ]


def _large_operations(calls: Calls) -> list[LargeOperation]:
    return [
        LargeOperation(
            name=name,
            calls=len(seconds),
            p50=milliseconds(seconds, 50),
            p99=milliseconds(seconds, 99),
        )
        for name, seconds in calls.seconds.items()
    ]


def _relations(
    fresh: dict[str, tuple[int, int]], end: dict[str, tuple[int, int]]
) -> list[Relation]:
    return [
        Relation(
            name=name,
            fresh_bytes=fresh[name][0],
            fresh_rows=fresh[name][1],
            bytes=size,
            rows=rows,
        )
        for name, (size, rows) in end.items()
    ]
