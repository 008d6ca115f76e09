"""Cases for the counting of round trips, for methods whose number of round trips varies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncsvc import AsyncSvc
from tests.support.citus import WAITING
from tests.support.registry.examples import RECORD, TURN
from tests.support.wire import Wire

if TYPE_CHECKING:
    from tests.support.registry.method import Method, Tenant

Act = Callable[[], Awaitable[object]]


@dataclass
class Count:
    """The context of a counted call: its tenant, and services with and without the counter."""

    method: Method
    tenant: Tenant
    svc: AsyncSvc
    uncounted: AsyncSvc
    wire: Wire
    ended_at: int | None = None
    """The count at the end of the call, if the case makes further round trips after it."""

    def before(self, statement: str, act: Act, *, first: int = 1) -> None:
        """Call `act` before each run of this statement, beginning with run number `first`."""
        seen = 0

        async def watch(text: str) -> None:
            nonlocal seen
            if f"/{statement} " in text:
                seen += 1
                if seen >= first:
                    await act()

        self.wire.before_statement = watch


Case = Callable[[Count], Awaitable[Act]]
"""Prepares rows, and returns the call to count."""


def valid(**changes: object) -> Case:
    """Count the valid call, with these values."""

    async def case(count: Count) -> Act:
        arguments = count.method.arguments(count.tenant) | changes
        return lambda: count.method.run(count.svc, arguments)

    return case


def of_a_new_tenant(**changes: object) -> Case:
    """Count the valid call for a tenant without rows."""

    async def case(count: Count) -> Act:
        arguments = count.method.arguments(count.tenant) | changes
        arguments |= {"tenant_id": f"{count.tenant.id}-new"}
        return lambda: count.method.run(count.svc, arguments)

    return case


def repeated(**changes: object) -> Case:
    """Count the second of two equal calls."""
    return after(None, **changes)


def after(other: str | None, **changes: object) -> Case:
    """Count the valid call after that of another method; None: after the same call."""

    async def case(count: Count) -> Act:
        from tests.support.registry import BY_NAME

        arguments = count.method.arguments(count.tenant) | changes
        if other is None:
            await count.method.run(count.svc, arguments)
        else:
            method = BY_NAME[other]
            await method.run(count.svc, method.arguments(count.tenant))
        return lambda: count.method.run(count.svc, arguments)

    return case


# ------------------------------------------------------------------ conversations


async def append_while_the_conversation_is_created(count: Count) -> Act:
    """Count the first append to a conversation that another session creates at the same time."""
    append = count.svc.conversations.append_message
    new = {"dialog_id": "d"}
    return while_another_session_creates(
        count, lambda: append("b", TURN, tenant_id=count.tenant.id, create=new)
    )


async def upsert_while_the_conversation_is_created(count: Count) -> Act:
    """Count an upsert of a conversation that another session creates at the same time."""
    upsert = count.svc.conversations.upsert
    return while_another_session_creates(
        count, lambda: upsert("b", {"dialog_id": "d"}, tenant_id=count.tenant.id)
    )


async def put_while_the_conversation_is_created(count: Count) -> Act:
    """Count a put into a conversation that another session creates at the same time."""
    put, message = count.svc.conversations.put_message, {"id": "m", "role": "r", "content": "c"}
    create = {"dialog_id": "d"}
    return while_another_session_creates(
        count, lambda: put("b", message, create=create, tenant_id=count.tenant.id)
    )


def while_another_session_creates(count: Count, act: Act) -> Act:
    """Return `act`, started while a transaction that created conversation "b" is open."""

    async def run() -> None:
        async with count.uncounted.transaction() as tx:
            await tx.conversations.create(dialog_id="d", id="b", tenant_id=count.tenant.id)
            waiting = asyncio.ensure_future(act())
            await until_blocked(count.uncounted)
        await waiting

    return run


async def append_while_the_conversation_is_deleted_and_created(count: Count) -> Act:
    """Count an append that finds no conversation, although explain_append finds one, each time."""
    at = {"tenant_id": count.tenant.id}

    async def watch(text: str) -> None:
        if "/append_message " in text:
            await count.uncounted.conversations.delete_by_id("a", **at)
        elif "/explain_append " in text:
            await count.uncounted.conversations.create(dialog_id="d", id="a", **at)

    count.wire.before_statement = watch
    return lambda: count.svc.conversations.append_message("a", TURN, **at)


async def delete_two_batches(count: Count) -> Act:
    """Count a deletion of 1,002 conversations, in 2 batches."""
    for number in range(2):
        await count.svc.conversations.create_many(
            [{"dialog_id": "many", "id": f"{number}-{each}"} for each in range(501)],
            tenant_id=count.tenant.id,
        )
    return await valid(dialog_ids=["many"])(count)


def search_in_300(keywords: str, **options: object) -> Case:
    """Count a search in 300 conversations, more than its first scan reads.

    The oldest contains "long ago" and the newest 20 contain "lately".
    """

    async def case(count: Count) -> Act:
        contents = ["long ago", *[""] * 279, *["lately"] * 20]
        await count.svc.conversations.import_(
            [
                RECORD | {"id": f"{number:03}", "messages": [{"role": "user", "content": text}]}
                for number, text in enumerate(contents)
            ],
            tenant_id=count.tenant.id,
        )
        options_and_tenant = {"tenant_id": count.tenant.id} | options
        return lambda: count.svc.conversations.search(keywords, **options_and_tenant)

    return case


def search(keywords: str, **options: object) -> Case:
    """Count a search in the conversations of `furnish`."""

    async def case(count: Count) -> Act:
        return lambda: count.svc.conversations.search(
            keywords, tenant_id=count.tenant.id, **options
        )

    return case


def import_(*ids: str, existing: Iterable[str] = ()) -> Case:
    """Count an import of conversations, of which some exist."""

    async def case(count: Count) -> Act:
        await count.svc.conversations.import_(records(existing), tenant_id=count.tenant.id)
        return lambda: count.svc.conversations.import_(records(ids), tenant_id=count.tenant.id)

    return case


async def import_in_a_transaction_of_the_caller(count: Count) -> Act:
    """Count an import inside a transaction of the caller."""
    stack = contextlib.AsyncExitStack()
    connection = await stack.enter_async_context(count.svc._executor._pool.acquire())
    await stack.enter_async_context(connection.transaction())

    async def run() -> None:
        mine = count.svc.on(connection)
        await mine.conversations.import_(records(["x"]), tenant_id=count.tenant.id)
        count.ended_at = count.wire.round_trips  # the COMMIT is the caller's
        await stack.aclose()

    return run


def records(ids: Iterable[str]) -> list[dict[str, object]]:
    return [RECORD | {"id": id} for id in ids]


# ------------------------------------------------------------------ tokens


def while_a_token_is_created(statement: str) -> Case:
    """Count the call for a tenant, with a token created before the second run of the statement."""

    async def case(count: Count) -> Act:
        waiting = ["late"]

        async def create() -> None:
            if waiting:
                await count.uncounted.tokens.create(tenant_id=count.tenant.id, name=waiting.pop())

        count.before(statement, create, first=2)
        return lambda: count.method.run(count.svc, {"tenant_id": count.tenant.id})

    return case


async def revoke_a_family_that_grows(count: Count) -> Act:
    """Count a revocation that reads the family before another transaction commits a rotation."""
    id, tenant_id = count.tenant.token_id, count.tenant.id

    async def revoke() -> None:
        async with count.uncounted.transaction() as tx:
            await tx.tokens.rotate(id, tenant_id=tenant_id)
            revoking = asyncio.create_task(count.svc.tokens.revoke_family(id, tenant_id=tenant_id))
            await until_blocked(count.uncounted)
        await revoking

    return revoke


async def until_blocked(svc: AsyncSvc) -> None:
    """Wait until a session of the database waits for a lock."""
    async with asyncio.timeout(20):
        while not await svc._executor._pool.fetchval(WAITING):
            await asyncio.sleep(0.01)


async def second_watch(count: Count) -> Act:
    """Count a watch of a tenant that the process watches already."""
    arguments = count.method.arguments(count.tenant)
    first = count.svc.conversations.watch(**arguments)
    await first.__aenter__()

    async def act() -> None:
        async with count.svc.conversations.watch(**arguments):
            count.ended_at = count.wire.round_trips
        await first.aclose()

    return act
