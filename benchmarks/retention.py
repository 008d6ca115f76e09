"""Retention: the latency of appends while a purge runs.

Appends start at a constant rate, independent of the server's speed: a waiting append does not
delay the next one. Periods with and without a purge alternate.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import statistics
import time
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncsvc
from benchmarks.report import Report
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


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    rounds: int
    old: int
    """The number of conversations that each round purges."""
    rate: int
    """Appends per second."""


SCALES = {"small": Scale(2, 200, 50), "middle": Scale(3, 3_000, 100), "full": Scale(5, 20_000, 200)}


@dataclass
class _Load:
    """Appends at a constant rate, to both tenants in turn, with the seconds of each."""

    svc: asyncsvc.AsyncSvc
    rate: int
    seconds: list[float] = field(default_factory=list)

    async def run_during(self, work: Awaitable[object]) -> None:
        """Append until `work` is done."""
        working, running = asyncio.ensure_future(work), set[asyncio.Task[None]]()
        began = time.perf_counter()
        for number in itertools.count():
            if working.done():
                break
            running.add(asyncio.create_task(self.append(number)))
            await asyncio.sleep(max(0.0, began + (number + 1) / self.rate - time.perf_counter()))
        await asyncio.gather(working, *running)

    async def append(self, number: int) -> None:
        tenant, id = TENANTS[number % 2], f"live{number // 2 % LIVE}"
        began = time.perf_counter()
        await self.svc.conversations.append_message(id, TURN, tenant_id=tenant)
        self.seconds.append(time.perf_counter() - began)


async def run(dsn: str, scale: str, report: Report) -> None:
    """Measure, and add the results to the report."""
    how = SCALES[scale]
    async with asyncsvc.connect(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as svc:
        await svc.migrate()
        await _begin(svc)
        quiet, purging, purged = list[list[float]](), list[list[float]](), list[float]()
        for number in range(how.rounds):
            await _fill(svc, how.old, number, report)
            await _settle(dsn)
            began = time.perf_counter()
            with report.working("appends while a purge runs"):
                purging.append(await _measured(svc, how.rate, _purge(svc)))
            took = time.perf_counter() - began
            purged.append(how.old / took)
            with report.working("appends alone"):
                quiet.append(await _measured(svc, how.rate, asyncio.sleep(took)))
    _add_results(how, quiet, purging, purged, report)


def _add_results(
    how: Scale,
    quiet: list[list[float]],
    purging: list[list[float]],
    purged: list[float],
    report: Report,
) -> None:
    highest = []
    for what, rounds in (("alone", quiet), ("while a purge runs", purging)):
        every = [seconds for each in rounds for seconds in each]
        highest.append(_percentile(every, 99))
        counted = {
            "ms p50": round(1_000 * _percentile(every, 50), 2),
            "ms p99": round(1_000 * highest[-1], 2),
            "appends": len(every),
        }
        report.add_counts(f"{how.rate} appends a second {what}", counted)
    report.add_counts(
        f"the purge of conversations of {MESSAGES} messages during it",
        {"conversations a second": round(statistics.median(purged))},
    )
    title = "p99 of appends while a purge runs, against appends alone"
    report.target(title, highest[1] / highest[0], maximum=2)


async def _measured(svc: asyncsvc.AsyncSvc, rate: int, work: Awaitable[object]) -> list[float]:
    load = _Load(svc, rate)
    await load.run_during(work)
    return load.seconds


async def _purge(svc: asyncsvc.AsyncSvc) -> None:
    await svc.conversations.purge(timedelta(days=30), tenant_id=TENANTS[0])


async def _begin(svc: asyncsvc.AsyncSvc) -> None:
    for tenant in TENANTS:
        live = [{"id": f"live{number}", "dialog_id": "d"} for number in range(LIVE)]
        await svc.conversations.create_many(live, tenant_id=tenant)
    load = _Load(svc, rate=0)  # open each connection and prepare the statement on it
    for _ in range(10):
        await asyncio.gather(*(load.append(number) for number in range(CONNECTIONS)))


async def _fill(svc: asyncsvc.AsyncSvc, count: int, number: int, report: Report) -> None:
    with report.working(f"{count:,} old conversations"):
        await svc.conversations.import_(_old(count, number), tenant_id=TENANTS[0])
        gc.collect()  # a later collection would delay the appends


async def _settle(dsn: str) -> None:
    """Bring the server into a steady state.

    A checkpoint recycles segments of the write-ahead log. Without recycled segments the server
    creates each segment of 16 MiB on demand, and commits wait for it.
    """
    async with connected(dsn) as connection:
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")


def _old(count: int, number: int) -> Iterator[dict[str, Any]]:
    then = datetime.now(UTC) - timedelta(days=60)
    for each in range(count):
        yield {
            "id": f"old{number}-{each}",
            "dialog_id": "d",
            "messages": TURN["messages"] * (MESSAGES // 2),
            "created_at": then,
            "updated_at": then,
        }


def _percentile(seconds: list[float], percent: int) -> float:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
