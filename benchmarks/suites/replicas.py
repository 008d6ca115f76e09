"""The library reads the lag of a replica every 2.5 s.

With a position it reads the lag before each call, which costs 1 additional round trip. Both servers
run on this machine, so the replica does not reduce the load here. After a crash a retried call
waits for the promotion; a call without retries raises an error.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import asyncsvc
from benchmarks import standby
from benchmarks.bench import Bench
from benchmarks.contenders.library import connect
from benchmarks.measuring import milliseconds
from benchmarks.standby import Node
from benchmarks.suites import calls
from benchmarks.suites.calls import CONVERSATIONS, TENANT, TURN

LOAD_SECONDS = 1.5


async def run(bench: Bench) -> None:
    """Measure lists, the lag after a write, and a promotion, on a primary and a standby."""
    if standby.programs() is None:
        bench.remark("skipped: PostgreSQL's programs are not installed, so there is no replica")
        return
    async with standby.running(fsync=True) as (primary, replica):
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{replica.port}"
        both = f"postgresql://postgres@{hosts}/postgres"
        async with connect(primary.dsn, max_size=32) as single:
            await single.migrate()
            await calls.create_conversations(single)
            await replica.replay(await single.position())
            async with connect(both, max_size=32) as svc:
                sides = {
                    "the primary": single,
                    "a replica": svc,
                    "a replica, of a position": svc.at_least(await svc.position()),
                }
                on_primary = dataclasses.replace(bench, dsn=primary.dsn)
                await calls.compare(on_primary, sides, {"a page of 20": calls.page})
                await _lag(bench, svc)
        await _promotion(bench, both, primary, replica)


async def _lag(bench: Bench, svc: asyncsvc.AsyncSvc) -> None:
    """Measure the time from an append until a list on the replica contains it."""
    reads, seconds, immediately = bench.choose(5, 100, 500), list[float](), 0
    for number in range(reads):
        id = str(number % CONVERSATIONS)
        await svc.conversations.append_message(id, TURN, tenant_id=TENANT)
        written = (await svc.conversations.get_by_id(id, tenant_id=TENANT)).updated_at
        began = time.perf_counter()
        for attempt in itertools.count():
            page = await svc.conversations.get_list(
                tenant_id=TENANT, dialog_id="d", id=id, total="none"
            )
            if page.items[0].updated_at == written:
                immediately += attempt == 0
                break
        seconds.append(time.perf_counter() - began)
    bench.counts(
        "a list on a replica contains an append",
        {
            "% at the first read": round(100 * immediately / reads),
            "ms until then, p99": round(milliseconds(seconds, 99), 1),
        },
    )


@dataclass
class _Load:
    """Continuous calls, with the times of their results and the number of their errors."""

    call: Callable[[], Awaitable[object]]
    done: list[float] = field(default_factory=list)
    errors: int = 0

    async def run(self, stopped: asyncio.Event) -> None:
        while not stopped.is_set():
            try:
                await self.call()
            except asyncsvc.Unavailable:
                self.errors += 1
                await asyncio.sleep(0.005)
            else:
                self.done.append(time.perf_counter())

    def gap(self) -> float:
        """Return the longest time between two results, in seconds."""
        return max(after - before for before, after in itertools.pairwise(self.done))


async def _promotion(bench: Bench, dsn: str, primary: Node, replica: Node) -> None:
    """Stop the primary under load like a crash, and promote the standby."""
    for name in ("asyncpg", "asyncsvc"):  # they log each lost connection
        logging.getLogger(name).setLevel(logging.CRITICAL)
    no_retries = asyncsvc.Settings(retry_timeout=0)
    async with (
        connect(dsn, max_size=8) as svc,
        connect(dsn, max_size=8, settings=no_retries) as without_retries,
    ):
        loads = {
            "keyed appends, retried": _Load(_keyed_append(svc)),
            "keyed appends, not retried": _Load(_keyed_append(without_retries)),
            "lists": _Load(calls.page(svc)),
        }
        stopped = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for load in loads.values():
                for _ in range(4):
                    group.create_task(load.run(stopped))
            await asyncio.sleep(LOAD_SECONDS)
            began = time.perf_counter()
            await asyncio.to_thread(primary.stop)
            await asyncio.to_thread(replica.promote)
            promoted = time.perf_counter() - began
            await asyncio.sleep(LOAD_SECONDS)
            stopped.set()
    bench.counts("duration of a crash and a promotion", {"ms": round(1_000 * promoted)})
    for name, load in loads.items():
        counted = {"errors": load.errors, "ms without a result": round(1_000 * load.gap())}
        bench.counts(f"during the promotion, {name}", counted)


def _keyed_append(svc: asyncsvc.AsyncSvc) -> Callable[[], Awaitable[object]]:
    keys = itertools.count()

    async def call() -> None:
        number = next(keys)
        await svc.conversations.append_message(
            str(number % CONVERSATIONS), TURN, tenant_id=TENANT,
            idempotency_key=f"{id(svc)} {number}",
        )  # fmt: skip

    return call
