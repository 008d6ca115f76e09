"""A cluster and one server without Citus do the same calls, with 16 tasks of a tenant each.

All servers run on this machine, beside the client. So a second worker does not add capacity here.
The suite needs `--citus`, and the server of `--dsn` has the settings of the nodes.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import asyncsvc
from benchmarks import cluster
from benchmarks.bench import Bench
from benchmarks.contenders.library import connect
from benchmarks.data import TURN
from benchmarks.measuring import Work
from benchmarks.server import connected

TASKS: Final = 16
CONVERSATIONS: Final = 32
PLAIN, ONE, TWO = "PostgreSQL", "Citus, 1 worker", "Citus, 2 workers"
TARGETS: Final = {
    "verify": 0.6,
    "append": 0.3,
    "update_by_id": 0.3,
    "update_message": 0.3,
    "import": 0.4,
}
"""The rate on 2 workers at least, as a part of the rate of the server without Citus."""
NOT_SLOWER: Final = {"verify that stamps", "append", "a page of 20"}
"""The calls whose rate a second worker does not reduce."""

_ids = itertools.count()


async def run(bench: Bench) -> None:
    """Measure calls on a server without Citus, on 1 worker and on 2 workers."""
    if bench.coordinator is None:
        bench.remark("skipped: it needs the coordinator of a cluster (--citus)")
        return
    async with contextlib.AsyncExitStack() as stack:
        sides = {PLAIN: await _open(stack, bench.dsn, citus=False)}
        for name, workers in ((ONE, 1), (TWO, 2)):
            dsn = await stack.enter_async_context(cluster.database(bench.coordinator, workers))
            sides[name] = await _open(stack, dsn, citus=True)
        for title, call in CALLS.items():
            await _contest(bench, title, call, sides)


@dataclass(frozen=True)
class _Client:
    """What one task uses: a tenant with conversations, and a token of it."""

    svc: asyncsvc.AsyncSvc
    tenant: str
    secret: str

    def next_id(self) -> str:
        return str(next(_ids) % CONVERSATIONS)

    async def verify(self) -> object:
        return await self.svc.tokens.verify(self.secret, record_use=False)

    async def verify_and_stamp(self) -> object:
        return await self.svc.tokens.verify(self.secret)

    async def append(self) -> object:
        conversations = self.svc.conversations
        return await conversations.append_message(self.next_id(), TURN, tenant_id=self.tenant)

    async def update_by_id(self) -> object:
        patch = asyncsvc.ConversationPatch(name=f"name {next(_ids)}")
        return await self.svc.conversations.update_by_id(
            self.next_id(), patch, tenant_id=self.tenant
        )

    async def update_message(self) -> object:
        patch = asyncsvc.MessagePatch(content=f"content {next(_ids)}")
        return await self.svc.conversations.update_message(
            self.next_id(), 1, patch, tenant_id=self.tenant
        )

    async def page(self) -> object:
        return await self.svc.conversations.get_list(
            tenant_id=self.tenant, dialog_id="d", items_per_page=20, total="none"
        )

    async def import_(self) -> object:
        """Import 20 conversations of 10 messages, of another dialog."""
        messages = [{"role": "user", "content": f"Where is parcel {n}?"} for n in range(10)]
        records = [
            {"id": f"imported {next(_ids)}", "dialog_id": "other", "messages": messages}
            for _ in range(20)
        ]
        return await self.svc.conversations.import_(records, tenant_id=self.tenant)


Call: TypeAlias = Callable[[_Client], Work]
CALLS: Final[Mapping[str, Call]] = {
    "verify": lambda client: client.verify,
    "verify that stamps": lambda client: client.verify_and_stamp,
    "append": lambda client: client.append,
    "update_by_id": lambda client: client.update_by_id,
    "update_message": lambda client: client.update_message,
    "a page of 20": lambda client: client.page,
    "import": lambda client: client.import_,
}


async def _open(stack: contextlib.AsyncExitStack, dsn: str, *, citus: bool) -> list[_Client]:
    """Migrate a database, fill a tenant for each task, and return the clients."""
    settings = asyncsvc.Settings(citus=citus, last_used_resolution=0)
    svc = await stack.enter_async_context(
        connect(dsn, settings=settings, min_size=TASKS, max_size=TASKS)
    )
    await svc.migrate(citus=citus)
    clients = []
    for number in range(TASKS):
        tenant = f"tenant {number}"
        new = [{"id": str(each), "dialog_id": "d"} for each in range(CONVERSATIONS)]
        await svc.conversations.create_many(new, tenant_id=tenant)
        for each in range(CONVERSATIONS):
            await svc.conversations.append_message(str(each), TURN, tenant_id=tenant)
        issued = await svc.tokens.create(tenant_id=tenant, name="benchmark")
        clients.append(_Client(svc, tenant, issued.secret.get_secret_value()))
    async with connected(dsn) as connection:
        await connection.execute("VACUUM ANALYZE")
    return clients


async def _contest(
    bench: Bench, title: str, call: Call, sides: Mapping[str, list[_Client]]
) -> None:
    """Measure a call on all sides, and compare the rates with the targets."""
    contenders = {name: [call(client) for client in clients] for name, clients in sides.items()}
    measured = await bench.contest(
        title, contenders, tasks=TASKS, seconds=bench.choose(0.005, 0.4, 0.6)
    )
    if title in TARGETS:
        ratio = measured[TWO].ratio(measured[PLAIN])
        bench.target(f"{title}, 2 workers against PostgreSQL", ratio, at_least=TARGETS[title])
    if title in NOT_SLOWER:
        ratio = measured[TWO].ratio(measured[ONE])
        bench.target(f"{title}, 2 workers against 1", ratio, at_least=1)
