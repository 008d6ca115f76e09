"""The session stores that agent frameworks ship, on the same messages.

They are SQLAlchemySession of the OpenAI Agents SDK, DatabaseSessionService of Google's ADK, and
Chainlit's own data layer. ChatKit ships none: its contender is a store as applications write it, on
SQLAlchemy. Each has the pool of its default settings and runs in this process, so times include its
work in Python. An append to 1,000 messages takes
{append at 1,000 messages, 1 task: OpenAI Agents / asyncsvc} times as long with OpenAI Agents,
{append at 1,000 messages, 1 task: ADK / asyncsvc} times with ADK and
{append at 1,000 messages, 1 task: Chainlit / asyncsvc for Chainlit} times with Chainlit.

An append is a question and its answer: 1 call of asyncsvc and of OpenAI Agents, 2 events of ADK, 2
steps of Chainlit, 2 items of ChatKit. `asyncsvc for` a framework is the store of
`asyncsvc.integrations`, with the items of the framework. ADK's session is loaded before, without
its events; its runner loads it for each invocation. Only ADK has states: of a session, its user and
its app. OpenAI Agents has no lists. Chainlit cannot read a part of a thread.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from benchmarks import data
from benchmarks.bench import Bench
from benchmarks.contenders import sessions
from benchmarks.contenders.sessions import (
    Framework,
    HasItems,
    HasLast,
    HasLists,
    HasStates,
    Sessions,
    Texts,
)
from benchmarks.data import Tenant
from benchmarks.measuring import Work, agree
from benchmarks.server import connected, sql

_LAST: Final = 20
Owner: TypeAlias = tuple[str, str]
"""The user of a session, and its id."""


async def run(bench: Bench) -> None:
    """Measure the list of a user's sessions; then reads and appends by length."""
    versions = sessions.installed()
    for name in sessions.FRAMEWORKS:
        if name not in versions:
            bench.remark(f"skipped: {name} is not installed (dependency group `contenders`)")
    if not versions:
        return
    bench.remark("versions: " + ", ".join(f"{name} {each}" for name, each in versions.items()))
    async with sessions.opened(bench) as stores:
        suite = _Suite(bench, stores)
        await suite.lists(_tenant(2, bench.choose(200, 10_000, 10_000)))
        for messages, count in bench.choose(
            ((10, 20), (100, 4)),
            ((10, 200), (1_000, 20)),
            ((10, 1_000), (1_000, 50), (10_000, 10)),
        ):
            await suite.at_length(_tenant(messages, count))


def _tenant(messages: int, conversations: int) -> Tenant:
    """Return a tenant of this suite: the copies have the order of unchanged conversations."""
    return Tenant(f"s{messages}", 1_500_000_000 + messages * 10_000, conversations, messages)


@dataclass(frozen=True)
class _Suite:
    bench: Bench
    stores: Mapping[str, Framework]

    async def lists(self, tenant: Tenant) -> None:
        """Measure the list of all sessions of a user."""
        users = [user for user, _ in await self._fill(tenant)]
        lists = {n: s.of_user for n, s in self._of(tenant).items() if isinstance(s, HasLists)}
        await self._compare("the sessions of a user", lists, [(user,) for user in users])

    async def at_length(self, tenant: Tenant) -> None:
        """Measure reads of sessions of one length, and then appends to them."""
        owners, stores = await self._fill(tenant), self._of(tenant)
        of = f"{tenant.messages:,} messages"
        wholes = {name: store.whole for name, store in stores.items()}
        await self._compare(f"a session of {of}", wholes, owners)
        lasts = {name: store.last for name, store in stores.items() if isinstance(store, HasLast)}
        await self._compare(f"the last {_LAST} of {of}", lasts, [(*o, _LAST) for o in owners])
        items = {name: store for name, store in stores.items() if isinstance(store, HasItems)}
        firsts = {name: store.first for name, store in items.items()}
        await self._compare(f"the first of {of}", firsts, owners)
        await agree("append", {n: _appended(s, owners[0]) for n, s in stores.items()})
        appends = {name: store.append for name, store in stores.items()}
        await self._contest(f"append at {of}", appends, owners)
        saves = {name: store.save_first for name, store in items.items()}
        await self._contest(f"save the first of {of}", saves, owners)
        await self._change_states(of, owners, stores)

    async def _change_states(
        self, of: str, owners: list[Owner], stores: Mapping[str, Sessions]
    ) -> None:
        """Measure the appends that change states, and the creation of sessions."""
        stateful = {name: store for name, store in stores.items() if isinstance(store, HasStates)}
        for title, calls in (
            ("the session's state", {name: store.set_state for name, store in stateful.items()}),
            ("all states", {name: store.set_all_states for name, store in stateful.items()}),
            ("create a session", {name: store.create for name, store in stateful.items()}),
        ):
            await self._contest(f"{title} at {of}", calls, owners)

    async def _compare(
        self,
        title: str,
        calls: Mapping[str, Callable[..., Awaitable[object]]],
        arguments: list[Any],
    ) -> None:
        """Compare the answers to one call, then the times of calls with random arguments."""
        if calls:
            await agree(title, {name: _random(call, arguments[:1]) for name, call in calls.items()})
        await self._contest(title, calls, arguments)

    async def _contest(
        self,
        title: str,
        calls: Mapping[str, Callable[..., Awaitable[object]]],
        arguments: list[Any],
    ) -> None:
        """Compare the times of calls with random arguments, if a store has the operation."""
        if calls:
            works = {name: _random(call, arguments) for name, call in calls.items()}
            await self.bench.contest(title, works, tasks=1)

    def _of(self, tenant: Tenant) -> dict[str, Sessions]:
        return {name: store.of_tenant(tenant.name) for name, store in self.stores.items()}

    async def _fill(self, tenant: Tenant) -> list[Owner]:
        """Store a tenant in all stores; return its sessions."""
        await data.fill(self.bench, tenant, "asyncsvc")
        for store in self.stores.values():
            if (store.schema, tenant.name) not in self.bench.filled:
                await sessions.copy(self.bench, store.schema, tenant.name)
                self.bench.filled.add((store.schema, tenant.name))
        async with connected(self.bench.dsn) as connection:
            rows = await connection.fetch(sql("owners"), tenant.name)
        return [(row["user_id"], row["id"]) for row in rows]


def _random(call: Callable[..., Awaitable[Any]], arguments: list[Any]) -> Work:
    """Return a call with random ones of these arguments."""
    return lambda: call(*random.choice(arguments))  # noqa: S311


def _appended(store: Sessions, owner: Owner) -> Callable[[], Awaitable[Texts]]:
    """Return an append whose answer is the whole session."""

    async def work() -> Texts:
        await store.append(*owner)
        return await store.whole(*owner)

    return work
