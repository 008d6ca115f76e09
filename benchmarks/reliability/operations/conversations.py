"""Operations on conversations, their messages and their usage."""

from __future__ import annotations

import functools
import secrets
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import asyncsvc
from asyncsvc import Message
from benchmarks.reliability.application import DIALOGS, Application
from benchmarks.reliability.operations.registry import operation

OLD: Final = timedelta(seconds=20)
"""The retention of conversations in a purge, and the lifetime of idempotency keys."""
_DAY: Final = timedelta(days=1)


@operation("conversations.create", weight=4)
async def _create(app: Application) -> None:
    await app.create()


@operation("conversations.create_many")
async def _create_many(app: Application) -> None:
    new = [app.new() for _ in range(3)]
    await app.conversations.create_many(new, tenant_id=app.tenant)
    app.ids.extend(str(each["id"]) for each in new)


@operation("conversations.upsert")
async def _upsert(app: Application) -> None:
    """Upsert a known or a new conversation, by a whole or by a merged metadata."""
    new = app.new()
    id = app.chance.choice((await app.id(), str(new["id"])))
    patch = app.chance.choice((None, {"merge_metadata": {app.chance.choice("abc"): 1}}))
    await app.conversations.upsert(id, new | {"id": id}, tenant_id=app.tenant, patch=patch)
    app.ids.append(id)


@operation("conversations.record_usage", weight=2)
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


@operation("conversations.adjust_usage", weight=0.5)
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


@operation("conversations.append_message", weight=16)
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


@operation("conversations.get_list", weight=6)
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


@operation("conversations.search", weight=2)
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


@operation(
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


@operation("conversations.update_by_id", "conversations.update_many_by_id")
async def _update(app: Application) -> None:
    id, patch = await app.id(), asyncsvc.ConversationPatch(name="renamed", metadata={"by": "ann"})
    await app.conversations.update_by_id(id, patch, tenant_id=app.tenant)
    await app.conversations.update_many_by_id({id: patch, "absent": patch}, tenant_id=app.tenant)


@operation("conversations.put_message", "conversations.get_message", "conversations.find_message")
async def _put_message(app: Application) -> None:
    id, own_id = await app.id(), secrets.token_hex(8)
    for content in ("first", "second"):
        message = Message(role="assistant", content=content, id=own_id)
        await app.conversations.put_message(id, message, tenant_id=app.tenant)
    await app.conversations.get_message(id, own_id, tenant_id=app.tenant)
    await app.conversations.find_message(own_id, tenant_id=app.tenant)


@operation("conversations.iter_messages")
async def _iterate(app: Application) -> None:
    messages = app.conversations.iter_messages(await app.id(), tenant_id=app.tenant)
    async with aclosing(messages):
        async for _ in messages:
            pass


@operation(
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


@operation(
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


@operation("conversations.delete_by_dialog_ids", "conversations.erase_user", weight=0.2)
async def _delete_many(app: Application) -> None:
    await app.conversations.delete_by_dialog_ids(["sales"], tenant_id=app.tenant)
    await app.conversations.erase_user("bob", tenant_id=app.tenant)


@operation("conversations.delete_tenant", weight=0.2)
async def _delete_tenant(app: Application) -> None:
    """Delete a tenant with one conversation."""
    tenant_id = f"deleted {secrets.token_hex(4)}"
    await app.conversations.create(tenant_id=tenant_id, dialog_id=DIALOGS[0])
    await app.conversations.delete_tenant(tenant_id=tenant_id)


@operation("conversations.purge", weight=0.5)
async def _purge(app: Application) -> None:
    dry_run = app.chance.random() < 1 / 4
    await app.conversations.purge(OLD, tenant_id=app.tenant, dry_run=dry_run)


@operation("conversations.export", "conversations.import_", weight=0.5)
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


@operation("conversations.watch", weight=0.5)
async def _watch(app: Application) -> None:
    """Watch the first turn of a new tenant."""
    tenant_id = f"watched {secrets.token_hex(4)}"
    async with app.conversations.watch(tenant_id=tenant_id) as watch:
        await app.conversations.append_message(
            "a", app.turn(), tenant_id=tenant_id, create={"dialog_id": DIALOGS[0]}
        )
        await anext(watch)
    await app.conversations.delete_tenant(tenant_id=tenant_id)


@operation("conversations.stats", weight=2)
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


@operation("conversations.stats_total")
async def _stats_total(app: Application) -> None:
    now = datetime.now(UTC)
    await app.conversations.stats_total(
        tenant_id=app.tenant, from_date=now - _DAY, to_date=now + _DAY
    )


@operation("conversations.declare_zone", "conversations.recount_usage", weight=0.3)
async def _recount_usage(app: Application) -> None:
    zone = app.chance.choice(("Europe/Berlin", "Asia/Kathmandu"))
    await app.conversations.declare_zone(zone, tenant_id=app.tenant)
    await app.conversations.recount_usage(tenant_id=app.tenant)
