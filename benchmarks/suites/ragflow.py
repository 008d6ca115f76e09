"""A turn as RAGFlow's callers make it: read the conversation, append to its messages, store it.

RAGFlow reads and writes the whole conversation as one JSON text, and counts the round by a second
statement. `asyncsvc.ragflow` reads the columns of all messages, and appends the new messages alone.

In the burst all writers append to one conversation. RAGFlow's writers overwrite the turns of the
others, so its conversation stays short, and each of its reads is cheap. The writers of
`asyncsvc.ragflow` wait for each other in the process, before they take a connection.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from benchmarks import data
from benchmarks.bench import Bench
from benchmarks.contenders import stores
from benchmarks.contenders.facade import Facade
from benchmarks.data import MESSAGES, Tenant
from benchmarks.measuring import Measured, Turn

BURSTS = 3

MakeTurn = Callable[[str, list[dict[str, str]]], Awaitable[None]]


async def run(bench: Bench) -> None:
    """Measure turns by length of the conversation, and bursts to one conversation."""
    async with stores.opened(bench, bench.tasks) as opened:
        for length in bench.choose((10, 100), (10, 1_000), (10, 1_000, 10_000)):
            count = bench.choose(20, max(100_000 // length, 20), max(100_000 // length, 20))
            tenant = _tenant(length, count)
            await data.fill(bench, tenant, "asyncsvc", "ragflow")
            turns = {"as RAGFlow": opened.flow.turn, "asyncsvc.ragflow": _turn(opened, tenant)}
            by = await bench.contest(
                f"a turn at {length:,} messages",
                {name: partial(_random_turn, turn, tenant) for name, turn in turns.items()},
                tasks=1,
                seconds=bench.choose(0.005, 0.5, 1.0),
            )
            cost = by["asyncsvc.ragflow"].cost(by["as RAGFlow"])
            title = f"a turn at {length:,} messages, asyncsvc.ragflow against RAGFlow"
            bench.target(title, cost, at_most=0.5)
        await _bursts(bench, opened)


def _tenant(messages: int, conversations: int) -> Tenant:
    """Return a tenant of this suite, whose conversations have this number of messages."""
    return Tenant(f"r{messages}", 1_900_000_000 + messages * 10_000, conversations, messages)


def _turn(opened: stores.Stores, tenant: Tenant) -> MakeTurn:
    return Facade(opened.svc, tenant.name).turn


async def _random_turn(turn: MakeTurn, tenant: Tenant) -> None:
    await turn(random.choice(tenant.ids), _exchange())  # noqa: S311


async def _bursts(bench: Bench, opened: stores.Stores) -> None:
    """Let many writers append to one conversation; count lost turns and errors."""
    tasks, count = bench.tasks, bench.choose(2, 20, 20)
    tenant = _tenant(2, BURSTS)
    await data.fill(bench, tenant, "asyncsvc", "ragflow")
    turns = {"as RAGFlow": opened.flow.turn, "asyncsvc.ragflow": _turn(opened, tenant)}
    readers = {"as RAGFlow": opened.flow.messages, "asyncsvc.ragflow": opened.library.messages}
    by = {name: Measured() for name in turns}
    lost, errors = dict.fromkeys(turns, BURSTS * tasks * count), dict.fromkeys(turns, 0)
    for id in tenant.ids:
        for name, turn in turns.items():
            before = len(await readers[name](tenant.name, id))
            measured, failed = await _burst(turn, id, tasks, count)
            by[name].add(measured)
            lost[name] -= (len(await readers[name](tenant.name, id)) - before) // len(MESSAGES)
            errors[name] += failed
    title = f"{tasks} writers x {count} turns on one conversation"
    bench.table(title, by)
    bench.counts(f"{title}, turns lost of {BURSTS * tasks * count:,}", lost)
    bench.counts(f"{title}, errors", errors)
    bench.target(f"{title}, asyncsvc.ragflow: turns lost", lost["asyncsvc.ragflow"], at_most=0)
    faster = by["asyncsvc.ragflow"].ratio(by["as RAGFlow"])
    bench.target(f"{title}, rate against RAGFlow's", faster, at_least=1)


async def _burst(turn: MakeTurn, id: str, tasks: int, count: int) -> tuple[Turn, int]:
    """Return the seconds of each turn, and the number of turns that raised an error."""
    seconds, failed = list[float](), 0

    async def write() -> None:
        nonlocal failed
        for _ in range(count):
            began = time.perf_counter()
            try:
                await turn(id, _exchange())
            except Exception:  # noqa: BLE001 - it is counted
                failed += 1
            seconds.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(write() for _ in range(tasks)))
    return Turn(seconds, time.perf_counter() - began), failed


_numbers: Iterator[int] = itertools.count(1)


def _exchange() -> list[dict[str, str]]:
    """Return a question and its answer with one new id, as in RAGFlow."""
    id = f"m{next(_numbers)}"
    return [{**message, "id": id} for message in MESSAGES]
