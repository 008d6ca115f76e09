"""The calls of the suites that compare ways to the server: PgBouncer, replicas, a role."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import asyncsvc
from benchmarks.bench import Bench
from benchmarks.measuring import Work

TENANT = "calls"
CONVERSATIONS = 64
TURN = asyncsvc.Turn(messages=[asyncsvc.Message(role="user", content="Where is my parcel?")])


async def create_conversations(svc: asyncsvc.AsyncSvc) -> None:
    """Create the conversations of `append` and `page`, unless they exist."""
    if not (await svc.conversations.get_list(tenant_id=TENANT, items_per_page=1)).items:
        new = [{"id": str(number), "dialog_id": "d"} for number in range(CONVERSATIONS)]
        await svc.conversations.create_many(new, tenant_id=TENANT)


def append(svc: asyncsvc.Services) -> Work:
    """Return an append to a random conversation."""

    async def work() -> int:
        id = str(random.randrange(CONVERSATIONS))  # noqa: S311
        appended = await svc.conversations.append_message(id, TURN, tenant_id=TENANT)
        return appended.last_seq - appended.first_seq

    return work


def page(svc: asyncsvc.Services) -> Work:
    """Return the first page of a dialog."""

    async def work() -> list[str]:
        page = await svc.conversations.get_list(
            tenant_id=TENANT, dialog_id="d", items_per_page=20, total="none"
        )
        return [item.id for item in page.items]

    return work


async def compare(
    bench: Bench,
    sides: Mapping[str, asyncsvc.Services],
    calls: Mapping[str, Callable[[asyncsvc.Services], Work]],
    *,
    rounds: int | None = None,
) -> None:
    """Measure each call on each side, with 1 task and with many."""
    for title, call in calls.items():
        for tasks in (1, bench.tasks):
            contenders = {name: call(svc) for name, svc in sides.items()}
            await bench.contest(
                title, contenders, tasks=tasks, answer=lambda result: result, rounds=rounds
            )
