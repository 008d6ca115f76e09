"""A purge deletes in batches of 1 commit each and skips locked rows.

Therefore it competes with the appends only for the processor and the disk. On a machine with more
of both its effect is smaller. Appends start at a constant rate, independent of the server's speed:
a waiting append does not delay the next one. Periods with and without a purge alternate.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import statistics
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import asyncsvc
from benchmarks.bench import Bench
from benchmarks.contenders.library import connect
from benchmarks.measuring import milliseconds
from benchmarks.server import connected

TENANTS = ("purged", "other")
CONNECTIONS = 16
LIVE = 200
"""The number of conversations per tenant that get appends."""
MESSAGES = 20
TURN = {
    "messages": [
        {"role": "user", "content": "Where is my parcel? " * 4},
        {"role": "assistant", "content": "It is on its way, and will be there tomorrow. " * 8},
    ]
}


async def run(bench: Bench) -> None:
    """Measure the latency of appends while a purge runs, and alone."""
    old, rate = bench.choose((200, 50), (3_000, 100), (20_000, 200))
    quiet, purging, purged = list[float](), list[float](), list[float]()
    async with connect(bench.dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as svc:
        await svc.migrate()
        await _begin(svc)
        for number in range(bench.choose(2, 3, 5)):
            with bench.working(f"{old:,} old conversations"):
                await _import_old(svc, old, number)
            await _settle(bench)
            began = time.perf_counter()
            with bench.working("appends while a purge runs"):
                purge = svc.conversations.purge(timedelta(days=30), tenant_id=TENANTS[0])
                purging += await _append_during(purge, svc, rate)
            duration = time.perf_counter() - began
            purged.append(old / duration)
            with bench.working("appends alone"):
                quiet += await _append_during(asyncio.sleep(duration), svc, rate)
    for what, seconds in (("alone", quiet), ("while a purge runs", purging)):
        times = {f"ms p{percent}": round(milliseconds(seconds, percent), 2) for percent in (50, 99)}
        bench.counts(f"{rate} appends per second, {what}", {**times, "appends": len(seconds)})
    title = f"purge during the appends, conversations of {MESSAGES} messages"
    bench.counts(title, {"conversations per second": round(statistics.median(purged))})
    ratio = milliseconds(purging, 99) / milliseconds(quiet, 99)
    bench.target("p99 of appends while a purge runs, against appends alone", ratio, at_most=2)


@dataclass
class _Load:
    """Appends to both tenants in turn, with the seconds of each."""

    svc: asyncsvc.AsyncSvc
    seconds: list[float] = field(default_factory=list)

    async def append(self, number: int) -> None:
        tenant, id = TENANTS[number % 2], f"live{number // 2 % LIVE}"
        began = time.perf_counter()
        await self.svc.conversations.append_message(id, TURN, tenant_id=tenant)
        self.seconds.append(time.perf_counter() - began)


async def _append_during(work: Awaitable[object], svc: asyncsvc.AsyncSvc, rate: int) -> list[float]:
    """Append at a constant rate until `work` is done; return the seconds of each append."""
    load, running = _Load(svc), set[asyncio.Task[None]]()
    working, began = asyncio.ensure_future(work), time.perf_counter()
    for number in itertools.count():
        if working.done():
            break
        running.add(asyncio.create_task(load.append(number)))
        await asyncio.sleep(max(0.0, began + (number + 1) / rate - time.perf_counter()))
    await asyncio.gather(working, *running)
    return load.seconds


async def _begin(svc: asyncsvc.AsyncSvc) -> None:
    for tenant in TENANTS:
        live = [{"id": f"live{number}", "dialog_id": "d"} for number in range(LIVE)]
        await svc.conversations.create_many(live, tenant_id=tenant)
    load = _Load(svc)  # open each connection and prepare the statement on it
    for _ in range(10):
        await asyncio.gather(*(load.append(number) for number in range(CONNECTIONS)))


async def _import_old(svc: asyncsvc.AsyncSvc, count: int, number: int) -> None:
    then = datetime.now(UTC) - timedelta(days=60)
    messages = TURN["messages"] * (MESSAGES // 2)
    records = (
        {"id": f"old{number}-{each}", "dialog_id": "d", "messages": messages,
         "created_at": then, "updated_at": then}
        for each in range(count)
    )  # fmt: skip
    await svc.conversations.import_(records, tenant_id=TENANTS[0])
    gc.collect()  # a later collection would delay the appends


async def _settle(bench: Bench) -> None:
    """Bring the server into a steady state.

    A checkpoint recycles segments of the write-ahead log. Without recycled segments the server
    creates each segment of 16 MiB on demand, and commits wait for it.
    """
    async with connected(bench.dsn) as connection:
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
