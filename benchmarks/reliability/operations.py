"""The operations of the soak, which together call every public method.

Some operations delete, so the stored data stays bounded, and the load is constant over the run. The
soak fails if no call of one of these methods succeeds; `tests/every_method/test_registry.py` fails
if a method has no operation.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeVar

import asyncpg

import asyncsvc
from asyncsvc import Message
from benchmarks.reliability.application import DIALOGS, USERS, Application

OLD: Final = timedelta(seconds=20)
"""The retention of conversations in a purge, and the lifetime of idempotency keys."""
_DAY: Final = timedelta(days=1)


class _RollBack(Exception):
    """Rolls back a transaction."""


Work = Callable[[Application], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation, the public methods that it calls, and its weight in the random choice."""

    calls: tuple[str, ...]
    weight: float
    run: Work


Run = TypeVar("Run", bound=Work)
OPERATIONS: Final[list[Operation]] = []


def _operation(*calls: str, weight: float = 1) -> Callable[[Run], Run]:
    def register(run: Run) -> Run:
        OPERATIONS.append(Operation(calls, weight, run))
        return run

    return register


def all_calls() -> set[str]:
    """Return the public methods that the operations call, for example `conversations.create`."""
    return {call for operation in OPERATIONS for call in operation.calls}


# ------------------------------------------------------------------ conversations


@_operation("conversations.create", weight=4)
async def _create(app: Application) -> None:
    await app.create()


@_operation("conversations.create_many")
async def _create_many(app: Application) -> None:
    new = [app.new() for _ in range(3)]
    await app.conversations.create_many(new, tenant_id=app.tenant)
    app.ids.extend(str(each["id"]) for each in new)


@_operation("conversations.upsert")
async def _upsert(app: Application) -> None:
    """Upsert a known or a new conversation, by a whole or by a merged metadata."""
    new = app.new()
    id = app.chance.choice((await app.id(), str(new["id"])))
    patch = app.chance.choice((None, {"merge_metadata": {app.chance.choice("abc"): 1}}))
    await app.conversations.upsert(id, new | {"id": id}, tenant_id=app.tenant, patch=patch)
    app.ids.append(id)


@_operation("conversations.record_usage", weight=2)
async def _record_usage(app: Application) -> None:
    """Record the usage of a conversation or of the tenant, with or without a key, once or twice."""
    key = secrets.token_hex(8) if app.chance.random() < 1 / 2 else None
    id = await app.id() if app.chance.random() < 1 / 2 else None
    for _ in range(2 if key else 1):
        await app.conversations.record_usage(
            {"input_tokens": 10, "output_tokens": 2, "model": "m"},
            tenant_id=app.tenant,
            conversation_id=id,
            idempotency_key=key,
        )


@_operation("conversations.adjust_usage", weight=0.5)
async def _adjust_usage(app: Application) -> None:
    """Correct usage with a key, once or twice."""
    key = secrets.token_hex(8)
    for _ in range(app.chance.choice((1, 2))):
        await app.conversations.adjust_usage(
            {"output_tokens": 1, "model": "m"},
            tenant_id=app.tenant,
            actor="soak",
            reason="soak",
            idempotency_key=key,
        )


@_operation("conversations.append_message", weight=16)
async def _append(app: Application) -> None:
    """Append with or without a key, after a wrong seq, or as the first turn."""
    key = secrets.token_hex(8) if app.chance.random() < 2 / 3 else None
    expected = 10**6 if app.chance.random() < 1 / 16 else None
    id, turn = await app.id(), app.turn()
    creates = app.chance.random() < 1 / 4
    for _ in range(app.chance.choice((1, 1, 2)) if key else 1):
        await app.conversations.append_message(
            id,
            turn,
            tenant_id=app.tenant,
            idempotency_key=key,
            expected_seq=expected,
            create=app.new() | {"id": id} if creates else None,
        )


@_operation("conversations.get_list", weight=6)
async def _get_list(app: Application) -> None:
    """Get a page with random filters, and the next page."""
    get_page = functools.partial(
        app.conversations.get_list,
        tenant_id=app.tenant,
        dialog_id=app.chance.choice(DIALOGS),
        orderby=app.chance.choice(("created_at", "updated_at", "name", "round")),
        desc=app.chance.random() < 1 / 2,
        keywords=app.chance.choice(("", "", "cats", "word")),
        from_date=app.chance.choice((None, datetime.now(UTC) - _DAY)),
        total=app.chance.choice(("exact", "capped", "none")),
        include_messages=app.chance.random() < 1 / 4,
    )
    page = await get_page()
    if page.next is not None:
        await get_page(after=page.next)


@_operation("conversations.search", weight=2)
async def _search(app: Application) -> None:
    """Search for a common, rare, absent or short text, and get the next page."""
    search = functools.partial(
        app.conversations.search,
        app.chance.choice(("word", "edited", "absent text", "d")),
        tenant_id=app.tenant,
        limit=5,
        total=app.chance.choice(("exact", "capped", "none")),
    )
    page = await search()
    if page.next is not None:
        await search(after=page.next)


@_operation(
    *("conversations.get_by_id", "conversations.get_by_ids"),
    *("conversations.messages", "conversations.payloads", "conversations.get_names"),
    "conversations.list_dialogs",
    weight=4,
)
async def _get(app: Application) -> None:
    id = await app.id()
    await app.conversations.get_by_id(id, tenant_id=app.tenant, include_messages=True)
    await app.conversations.get_by_ids([id, "absent"], tenant_id=app.tenant)
    await app.conversations.messages(id, tenant_id=app.tenant, last=20)
    await app.conversations.payloads(id, tenant_id=app.tenant, last=20)
    await app.conversations.get_names(tenant_id=app.tenant, exp_user_id="ann", dialog_id="support")
    await app.conversations.list_dialogs(tenant_id=app.tenant)


@_operation("conversations.update_by_id", "conversations.update_many_by_id")
async def _update(app: Application) -> None:
    id, patch = await app.id(), asyncsvc.ConversationPatch(name="renamed", metadata={"by": "ann"})
    await app.conversations.update_by_id(id, patch, tenant_id=app.tenant)
    await app.conversations.update_many_by_id({id: patch, "absent": patch}, tenant_id=app.tenant)


@_operation("conversations.put_message", "conversations.get_message", "conversations.find_message")
async def _put_message(app: Application) -> None:
    id, own_id = await app.id(), secrets.token_hex(8)
    for content in ("first", "second"):
        message = Message(role="assistant", content=content, id=own_id)
        await app.conversations.put_message(id, message, tenant_id=app.tenant)
    await app.conversations.get_message(id, own_id, tenant_id=app.tenant)
    await app.conversations.find_message(own_id, tenant_id=app.tenant)


@_operation("conversations.iter_messages")
async def _iterate(app: Application) -> None:
    messages = app.conversations.iter_messages(await app.id(), tenant_id=app.tenant)
    async with aclosing(messages):
        async for _ in messages:
            pass


@_operation(
    *("conversations.set_feedback", "conversations.update_message"),
    *("conversations.delete_message", "conversations.pop_message"),
    weight=2,
)
async def _edit_messages(app: Application) -> None:
    id, thumb, tenant = await app.id(), app.chance.choice((1, -1, None)), app.tenant
    appended = await app.conversations.append_message(id, app.turn(), tenant_id=tenant)
    seq = appended.first_seq
    await app.conversations.set_feedback(id, seq, thumb, tenant_id=tenant)
    await app.conversations.update_message(id, seq, {"content": "edited"}, tenant_id=tenant)
    if app.chance.random() < 1 / 2:
        await app.conversations.delete_message(id, seq, tenant_id=tenant)
        await app.conversations.pop_message(id, tenant_id=tenant)


@_operation(
    *("conversations.clear_messages", "conversations.delete_by_id"),
    "conversations.delete_by_ids",
    weight=2,
)
async def _delete(app: Application) -> None:
    await app.conversations.clear_messages(await app.id(), tenant_id=app.tenant)
    id = await app.id()
    app.ids.remove(id)
    await app.conversations.delete_by_id(id, tenant_id=app.tenant)
    ids = [app.ids.popleft() for _ in range(min(3, len(app.ids)))]
    await app.conversations.delete_by_ids(ids, tenant_id=app.tenant)


@_operation("conversations.delete_by_dialog_ids", "conversations.erase_user", weight=0.2)
async def _delete_many(app: Application) -> None:
    await app.conversations.delete_by_dialog_ids(["sales"], tenant_id=app.tenant)
    await app.conversations.erase_user("bob", tenant_id=app.tenant)


@_operation("conversations.delete_tenant", weight=0.2)
async def _delete_tenant(app: Application) -> None:
    """Delete a tenant with one conversation."""
    tenant_id = f"deleted {secrets.token_hex(4)}"
    await app.conversations.create(tenant_id=tenant_id, dialog_id=DIALOGS[0])
    await app.conversations.delete_tenant(tenant_id=tenant_id)


@_operation("conversations.purge", weight=0.5)
async def _purge(app: Application) -> None:
    dry_run = app.chance.random() < 1 / 4
    await app.conversations.purge(OLD, tenant_id=app.tenant, dry_run=dry_run)


@_operation("conversations.export", "conversations.import_", weight=0.5)
async def _export_and_import(app: Application) -> None:
    """Export 1 or all conversations, and import the last of them with another id."""
    last, all_of_them = None, app.chance.random() < 1 / 2
    async with aclosing(app.conversations.export(tenant_id=app.tenant)) as exported:
        async for conversation in exported:
            last = conversation
            if not all_of_them:
                break
    if last is not None:
        copy = last.model_copy(update={"id": secrets.token_hex(8)})
        await app.conversations.import_([copy], tenant_id=app.tenant)


@_operation("conversations.watch", weight=0.5)
async def _watch(app: Application) -> None:
    """Watch the first turn of a new tenant."""
    tenant_id = f"watched {secrets.token_hex(4)}"
    async with app.conversations.watch(tenant_id=tenant_id) as watch:
        await app.conversations.append_message(
            "a", app.turn(), tenant_id=tenant_id, create={"dialog_id": DIALOGS[0]}
        )
        await anext(watch)
    await app.conversations.delete_tenant(tenant_id=tenant_id)


@_operation("conversations.stats", weight=2)
async def _stats(app: Application) -> None:
    bases: tuple[Literal["creation", "activity"], ...] = ("creation", "activity")
    now = datetime.now(UTC)
    await app.conversations.stats(
        tenant_id=app.tenant,
        from_date=now - _DAY,
        to_date=now + _DAY,
        basis=app.chance.choice(bases),
        interval="hour",
        tz="Europe/Berlin",
    )


@_operation("conversations.stats_total")
async def _stats_total(app: Application) -> None:
    now = datetime.now(UTC)
    await app.conversations.stats_total(
        tenant_id=app.tenant, from_date=now - _DAY, to_date=now + _DAY
    )


@_operation("conversations.declare_zone", "conversations.recount_usage", weight=0.3)
async def _recount_usage(app: Application) -> None:
    zone = app.chance.choice(("Europe/Berlin", "Asia/Kathmandu"))
    await app.conversations.declare_zone(zone, tenant_id=app.tenant)
    await app.conversations.recount_usage(tenant_id=app.tenant)


# ------------------------------------------------------------------------- tokens


@_operation("tokens.create", weight=2)
async def _create_token(app: Application) -> None:
    await app.create_token()


@_operation("tokens.verify", weight=9)
async def _verify(app: Application) -> None:
    """Verify a token, or an unknown secret."""
    secret = (await app.token()).secret.get_secret_value()
    if app.chance.random() < 1 / 9:
        secret = secret.swapcase()
    record_use = app.chance.random() < 1 / 2
    await app.tokens.verify(secret, scopes=["chat"], record_use=record_use)


@_operation(
    *("tokens.get_list", "tokens.get_by_id", "tokens.get_by_ids", "tokens.update_by_id"),
    *("tokens.update_many_by_id", "tokens.audit", "tokens.used"),
)
async def _manage_token(app: Application) -> None:
    issued, tenant = await app.token(), app.tenant
    page = await app.tokens.get_list(tenant_id=tenant, limit=10)
    if page.next is not None:
        await app.tokens.get_list(tenant_id=tenant, limit=10, after=page.next)
    id, patch = issued.token.id, {"name": "renamed"}
    await app.tokens.get_by_id(id, tenant_id=tenant)
    await app.tokens.get_by_ids([id, "absent"], tenant_id=tenant)
    await app.tokens.update_by_id(id, patch, tenant_id=tenant)
    await app.tokens.update_many_by_id({id: patch, "absent": patch}, tenant_id=tenant)
    await app.tokens.audit(tenant_id=tenant, limit=20)
    await app.tokens.used(issued.secret)


@_operation("tokens.rotate", "tokens.revoke")
async def _rotate(app: Application) -> None:
    """Rotate a token and revoke the old or the new one."""
    old = await app.token()
    overlap = timedelta(seconds=app.chance.choice((0, 60)))
    new = await app.tokens.rotate(old.token.id, tenant_id=app.tenant, overlap=overlap)
    app.issued.append(new)
    await app.tokens.revoke(app.chance.choice((old, new)).token.id, tenant_id=app.tenant)


@_operation(
    *("tokens.revoke_family", "tokens.revoke_all", "tokens.delete_by_tenant_id"),
    *("tokens.delete_by_id", "tokens.delete_by_ids"),
    weight=0.2,
)
async def _revoke_many(app: Application) -> None:
    await app.tokens.revoke_family((await app.token()).token.id, tenant_id=app.tenant)
    await app.tokens.revoke_all(tenant_id=app.tenant, reason="a soak")
    issued = [await app.token() for _ in range(2)]
    await app.tokens.delete_by_id(issued[0].token.id, tenant_id=app.tenant)
    await app.tokens.delete_by_ids([each.token.id for each in issued], tenant_id=app.tenant)
    await app.tokens.delete_by_tenant_id(tenant_id=app.tenant)


@_operation("tokens.import_", weight=0.5)
async def _import_token(app: Application) -> None:
    record = {"secret": f"ragflow-{secrets.token_hex(16)}"}
    await app.tokens.import_([record], tenant_id=app.tenant)


# ------------------------------------------------------------------------- records


@_operation("records.put", "records.merge", weight=2)
async def _put_records(app: Application) -> None:
    data = {"n": app.chance.random()}
    await app.records.put("state", app.chance.choice(DIALOGS), data, tenant_id=app.tenant)
    await app.records.merge("state", "all", {secrets.token_hex(1): data}, tenant_id=app.tenant)
    user = app.chance.choice(("ann", "bob", "eve"))
    await app.records.put("user", user, data, tenant_id=app.tenant, user_id=user)


@_operation("records.get_many", "records.list", weight=2)
async def _read_records(app: Application) -> None:
    await app.records.get_many("state", DIALOGS, tenant_id=app.tenant)
    page = await app.records.list("user", tenant_id=app.tenant, limit=2)
    if page.next is not None:
        await app.records.list("user", tenant_id=app.tenant, limit=2, after=page.next)


@_operation("records.get", "records.delete")
async def _delete_record(app: Application) -> None:
    id = app.chance.choice(DIALOGS)
    with suppress(asyncsvc.NotFound):
        await app.records.get("state", id, tenant_id=app.tenant)
    await app.records.delete("state", id, tenant_id=app.tenant)


# ------------------------------------------------------------------------- budgets


@_operation("budgets.set", "budgets.raise_limit", "budgets.delete")
async def _change_budgets(app: Application) -> None:
    for window in ("hour", "month"):
        await app.budgets.set(
            tenant_id=app.tenant, scope="user", metric="rounds", limit=10**9, window=window
        )
    budget = await app.budgets.set(
        tenant_id=app.tenant, scope="dialog", subject=app.chance.choice(DIALOGS), limit=10**9
    )
    await app.budgets.raise_limit(budget.id, tenant_id=app.tenant, by=1)
    await app.budgets.delete(budget.id, tenant_id=app.tenant)


@_operation("budgets.status", "budgets.check", "budgets.list", "budgets.audit", weight=2)
async def _read_budgets(app: Application) -> None:
    subjects = {"user_id": app.chance.choice(USERS), "dialog_id": app.chance.choice(DIALOGS)}
    await app.budgets.status(tenant_id=app.tenant, **subjects)
    await app.budgets.check(tenant_id=app.tenant, **subjects)
    await app.budgets.list(tenant_id=app.tenant, limit=2)
    await app.budgets.audit(tenant_id=app.tenant, limit=2)


# ------------------------------------------------------------------------- facade


@_operation("transaction", weight=2)
async def _transaction(app: Application) -> None:
    """Use both services in a transaction with a rolled back savepoint; commit or roll back."""
    with suppress(_RollBack):
        async with app.svc.transaction() as tx:
            conversation = await tx.conversations.create(tenant_id=app.tenant, dialog_id="support")
            with suppress(_RollBack):
                async with tx.transaction() as inner:
                    await inner.tokens.create(tenant_id=app.tenant, name="never")
                    raise _RollBack
            await tx.conversations.append_message(
                conversation.id, app.turn(), tenant_id=app.tenant, idempotency_key="first"
            )
            if app.chance.random() < 1 / 3:
                raise _RollBack


@_operation("on", weight=2)
async def _on(app: Application) -> None:
    """Use the library in a transaction on a connection of the application's own pool."""
    id = await app.id()
    with _driver_errors_as_unavailable():
        async with app.pool.acquire(timeout=5) as connection, connection.transaction():
            services = app.svc.on(connection)
            await services.conversations.append_message(id, app.turn(), tenant_id=app.tenant)


@contextmanager
def _driver_errors_as_unavailable() -> Iterator[None]:
    """Raise the driver's errors of the application's own BEGIN and COMMIT as Unavailable."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise asyncsvc.Unavailable(str(error)) from error


@_operation("connect", "close", weight=0.5)
async def _connect(app: Application) -> None:
    """Open and close a second pool, with maintenance in the background."""
    often = asyncsvc.Settings(maintenance_interval=0.02)
    svc = await asyncsvc.connect(app.dsn, max_size=2, settings=often)
    try:
        await svc.conversations.get_list(tenant_id=app.tenant, items_per_page=1)
        await asyncio.sleep(0.05)
    finally:
        await svc.close()


@_operation("position", "at_least", weight=0.5)
async def _at_least(app: Application) -> None:
    """Read at a position. The load has no replica, so the primary answers."""
    svc = app.svc.at_least(await app.svc.position())
    await svc.conversations.get_list(tenant_id=app.tenant, items_per_page=1)


@_operation("migrate", "pending", "applied", "check", weight=0.2)
async def _migrate(app: Application) -> None:
    await app.svc.migrate()
    await app.svc.pending()
    await app.svc.applied()
    await app.svc.check()


@_operation("maintain", weight=0.5)
async def _maintain(app: Application) -> None:
    await app.svc.maintain()


@_operation("doctor", "explain", "backlog", "pool_stats", weight=0.1)
async def _doctor(app: Application) -> None:
    await app.svc.doctor()
    await app.svc.backlog()
    app.svc.pool_stats()
    await app.svc.explain("conversation/get_list", present=["user_id"])
