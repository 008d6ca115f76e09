"""Replicas: the cost of a list, the lag after a write, and the effect of a promotion.

The suite starts a primary and a standby of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import asyncsvc
from asyncsvc import Settings, Unavailable
from benchmarks import standby
from benchmarks.contest import EFFORTS, ContestRunner, spelled
from benchmarks.measuring import Contender, Work
from benchmarks.report import Report
from benchmarks.standby import Node

TENANT = "replicated"
CONVERSATIONS = 64
TURN = asyncsvc.Turn(messages=[asyncsvc.Message(role="user", content="Where is my parcel?")])
READS = {"small": 5, "middle": 100, "full": 500}
LOAD_SECONDS = 1.5


async def run(dsn: str, scale: str, report: Report) -> None:  # noqa: ARG001 - it has its own
    """Measure, and add the tables to the report."""
    if standby.programs() is None:
        report.add_remark("left out: replicas, because PostgreSQL's programs are not installed")
        return
    async with standby.running(fsync=True) as (primary, replica):
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{replica.port}"
        many = f"postgresql://postgres@{hosts}/postgres"
        async with asyncsvc.connect(primary.dsn, max_size=32) as alone:
            await alone.migrate()
            live = [{"id": str(number), "dialog_id": "d"} for number in range(CONVERSATIONS)]
            await alone.conversations.create_many(live, tenant_id=TENANT)
            await replica.replay(await alone.position())
            async with asyncsvc.connect(many, max_size=32) as svc:
                await _lists(ContestRunner(primary.dsn, report, EFFORTS[scale]), alone, svc)
                await _lag(svc, READS[scale], report)
        await _promotion(many, primary, replica, report)


async def _lists(runner: ContestRunner, alone: asyncsvc.AsyncSvc, svc: asyncsvc.AsyncSvc) -> None:
    fresh = svc.at_least(await svc.position())
    sides = {"the primary": alone, "a replica": svc, "a replica, of a position": fresh}
    for count in (1, runner.effort.tasks):
        contenders = [Contender(name, [_page(each)] * count) for name, each in sides.items()]
        await runner.contest(f"a page of 20, {spelled(count)}", contenders)


def _page(svc: asyncsvc.client.Services) -> Work:
    async def work() -> None:
        await svc.conversations.get_list(
            dialog_id="d", tenant_id=TENANT, items_per_page=20, total="none"
        )

    return work


async def _lag(svc: asyncsvc.AsyncSvc, reads: int, report: Report) -> None:
    """Measure the time from an append until a list on the replica contains it."""
    seconds, immediately = list[float](), 0
    for number in range(reads):
        id = str(number % CONVERSATIONS)
        await svc.conversations.append_message(id, TURN, tenant_id=TENANT)
        written = (await svc.conversations.get_by_id(id, tenant_id=TENANT)).updated_at
        began = time.perf_counter()
        for attempt in itertools.count():
            page = await svc.conversations.get_list(
                dialog_id="d", tenant_id=TENANT, id=id, total="none"
            )
            if page.items[0].updated_at == written:
                immediately += attempt == 0
                break
        seconds.append(time.perf_counter() - began)
    ordered = sorted(seconds)
    report.add_counts(
        "a list on a replica contains an append",
        {
            "% at the first read": round(100 * immediately / reads),
            "ms until then, p99": round(1_000 * ordered[len(ordered) * 99 // 100], 1),
        },
    )


@dataclass
class _Load:
    """Continuous calls, with the times of their results and their errors."""

    name: str
    call: Callable[[int], Awaitable[object]]
    done: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    async def run(self, stopped: asyncio.Event) -> None:
        for number in itertools.count():
            if stopped.is_set():
                return
            try:
                await self.call(number)
            except Unavailable as error:
                self.errors.append(type(error).__name__)
                await asyncio.sleep(0.005)
            else:
                self.done.append(time.perf_counter())

    def gap(self) -> float:
        """Return the longest time between two results, in seconds."""
        return max(after - before for before, after in itertools.pairwise(self.done))


async def _promotion(dsn: str, primary: Node, replica: Node, report: Report) -> None:
    """Stop the primary as in a crash under load, and promote the standby."""
    for name in ("asyncpg", "asyncsvc"):  # they log each lost connection
        logging.getLogger(name).setLevel(logging.CRITICAL)
    async with (
        asyncsvc.connect(dsn, max_size=8) as svc,
        asyncsvc.connect(dsn, max_size=8, settings=Settings(retry_timeout=0)) as without_retries,
    ):
        page = _page(svc)
        loads = [
            _Load("keyed appends, retried", _append(svc)),
            _Load("keyed appends, not retried", _append(without_retries)),
            _Load("lists", lambda _: page()),
        ]
        stopped = asyncio.Event()
        running = [asyncio.create_task(load.run(stopped)) for load in loads for _ in range(4)]
        await asyncio.sleep(LOAD_SECONDS)
        began = time.perf_counter()
        await asyncio.to_thread(primary.stop)
        await asyncio.to_thread(replica.promote)
        promoted = time.perf_counter() - began
        await asyncio.sleep(LOAD_SECONDS)
        stopped.set()
        await asyncio.gather(*running)
    report.add_counts("duration of a crash and a promotion", {"ms": round(1_000 * promoted)})
    for load in loads:
        counted = {"errors": len(load.errors), "ms without a result": round(1_000 * load.gap())}
        report.add_counts(f"during it, {load.name}", counted)


def _append(svc: asyncsvc.AsyncSvc) -> Callable[[int], Awaitable[object]]:
    async def call(number: int) -> None:
        id, key = str(number % CONVERSATIONS), f"{id_of_task()} {number}"
        await svc.conversations.append_message(id, TURN, tenant_id=TENANT, idempotency_key=key)

    return call


def id_of_task() -> str:
    """Return a name that is unique among tasks."""
    task = asyncio.current_task()
    return "" if task is None else task.get_name()
