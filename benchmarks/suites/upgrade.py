"""An upgrade adds a column to the messages, fills it in batches, and builds an index concurrently.

Appends start at a constant rate, independent of the server's speed: a waiting append does not delay
the next one. They run alone before the upgrade and after it, and during each of its steps.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from unittest import mock

import asyncsvc
from asyncsvc.database.migration_files import migration_files, read_folder
from asyncsvc.operations import migrations
from benchmarks import data
from benchmarks.bench import Bench
from benchmarks.contenders.library import connect
from benchmarks.data import TURN, Tenant
from benchmarks.measuring import milliseconds
from benchmarks.server import connected

FOLDER: Final = Path(__file__).parents[1] / "migrations"
CONNECTIONS: Final = 16
RATE: Final = 100
"""Appends per second."""
MESSAGES: Final = 20


async def run(bench: Bench) -> None:
    """Measure the latency of appends during an upgrade, and alone."""
    count = bench.choose(200, 25_000, 250_000)
    tenant = Tenant("upgraded", 1_000_000_000, count, MESSAGES)
    async with connect(bench.dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as svc:
        await svc.migrate()
        await data.fill(bench, tenant, "asyncsvc")
        load = _Load(svc, tenant)
        await asyncio.gather(*(load.append(number) for number in range(10 * CONNECTIONS)))
        async with connected(bench.dsn) as connection:
            await connection.execute("CHECKPOINT")
        seconds = bench.choose(0.2, 10, 30)
        with bench.working("appends alone"):
            quiet = await load.during(asyncio.sleep(seconds))
        during = await _upgrade(bench, load)
        with bench.working("appends alone"):
            quiet += await load.during(asyncio.sleep(seconds))
    _report(bench, f"{RATE} appends per second, alone", quiet)
    _report(bench, f"{RATE} appends per second, during the upgrade", during)
    ratio = milliseconds(during, 99) / milliseconds(quiet, 99)
    bench.target("p99 of appends during an upgrade, against appends alone", ratio, at_most=2)


async def _upgrade(bench: Bench, load: _Load) -> list[float]:
    """Apply the migrations one by one; return the seconds of the appends during all of them."""
    total = list[float]()
    for number, file in enumerate(read_folder(FOLDER), 1):
        files = (*migration_files(), *read_folder(FOLDER)[:number])
        with mock.patch.object(migrations, "migration_files", lambda files=files: files):
            (step,) = await load.svc.migration_plan()
            began = time.perf_counter()
            with bench.working(file.title):
                appends = await load.during(load.svc.migrate())
            took = time.perf_counter() - began
        sizes = {"rows": step.rows, "MB": step.bytes // 10**6}
        times = {"estimated seconds": round(step.seconds, 1), "seconds": round(took, 1)}
        _report(bench, f"upgrade, {file.name}", appends, {**sizes, **times})
        total += appends
    return total


def _report(
    bench: Bench, title: str, seconds: list[float], more: dict[str, float] | None = None
) -> None:
    times = {f"ms p{percent}": round(milliseconds(seconds, percent), 2) for percent in (50, 99)}
    worst = round(1_000 * max(seconds), 2)
    bench.counts(title, {**(more or {}), **times, "ms max": worst, "appends": len(seconds)})


@dataclass
class _Load:
    """Appends to the conversations of the tenant, with the seconds of each."""

    svc: asyncsvc.AsyncSvc
    tenant: Tenant
    seconds: list[float] = field(default_factory=list)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def append(self, number: int) -> None:
        """Append to a conversation. Successive numbers are in distant conversations."""
        id = str(self.tenant.base + 1 + number * 7_919 % self.tenant.conversations)
        began = time.perf_counter()
        await self.svc.conversations.append_message(id, TURN, tenant_id=self.tenant.name)
        self.seconds.append(time.perf_counter() - began)

    async def during(self, work: Awaitable[object]) -> list[float]:
        """Append at a constant rate until `work` is done; return the seconds of each append."""
        self.seconds, running = [], set[asyncio.Task[None]]()
        working, began = asyncio.ensure_future(work), time.perf_counter()
        for number in itertools.count():
            running.add(asyncio.create_task(self.append(next(self.numbers))))
            if working.done():
                break
            await asyncio.sleep(max(0.0, began + (number + 1) / RATE - time.perf_counter()))
        await asyncio.gather(working, *running)
        return self.seconds
