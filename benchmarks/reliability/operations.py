"""The operations of the soak: every public method, in operations that can be repeated.

Some operations delete, so the stored data stays bounded, and the load is constant over the run. The
soak fails if no operation calls a public method.
"""

from __future__ import annotations

import functools
import inspect
import random
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import asyncpg

import asyncsvc
from asyncsvc import Message, Turn

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

TENANTS: Final = ("acme", "globex", "initech")
DIALOGS: Final = ("support", "sales")
USERS: Final = ("ann", "bob", "eve", "")
ZONES: Final = ("Europe/Berlin", "Asia/Kathmandu")
_KEPT: Final = 12
OLD: Final = timedelta(seconds=20)
"""The retention of conversations in a purge, and the lifetime of idempotency keys."""
_DAY: Final = timedelta(days=1)


class _RollBack(Exception):
    """Rolls back a transaction."""


@dataclass(slots=True)
class Application:
    """One task of an application, with the ids and tokens that it created."""

    svc: asyncsvc.AsyncSvc
    pool: Pool
    dsn: str
    tenant: str
    chance: random.Random
    ids: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))
    tokens: deque[asyncsvc.IssuedToken] = field(default_factory=lambda: deque(maxlen=_KEPT))

    async def id(self) -> str:
        """Return the id of a conversation, which may be deleted."""
        return self.chance.choice(self.ids) if self.ids else await create(self)

    async def token(self) -> asyncsvc.IssuedToken:
        """Return a token, which may be deleted."""
        return self.chance.choice(self.tokens) if self.tokens else await create_token(self)

    def turn(self) -> Turn:
        """Return a random turn."""
        chance = self.chance
        messages = [
            Message(role=role, content="word " * chance.randint(1, 100), payload={"n": [1, 2]})
            for role in ("user", "assistant")
        ]
        return Turn(messages=messages, tokens=chance.randint(1, 100), duration=chance.random())

    def new(self) -> dict[str, object]:
        """Return a conversation to create."""
        return {
            "id": secrets.token_hex(8),
            "dialog_id": self.chance.choice(DIALOGS),
            "user_id": self.chance.choice(USERS),
            "name": f"about {self.chance.choice(('cats', 'dogs', 'birds'))}",
        }


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


def public_calls() -> set[str]:
    """Return the names of the public methods of the facade and the services."""
    facade = (asyncsvc.AsyncSvc, "")
    tokens = (asyncsvc.APITokenService, "tokens.")
    conversations = (asyncsvc.API4ConversationService, "conversations.")
    return {
        f"{prefix}{name}"
        for kind, prefix in (facade, tokens, conversations)
        for name, _ in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    } | {"connect"}


# ------------------------------------------------------------------ conversations


@_operation("conversations.create", weight=4)
async def create(app: Application) -> str:
    """Create a conversation and keep its id."""
    conversation = await app.svc.conversations.create(
        tenant_id=app.tenant, dialog_id=app.chance.choice(DIALOGS), dsl={"nodes": [1, 2, 3]}
    )
    app.ids.append(conversation.id)
    return conversation.id


@_operation("conversations.create_many")
async def _create_many(app: Application) -> None:
    new = [app.new() for _ in range(3)]
    await app.svc.conversations.create_many(new, tenant_id=app.tenant)
    app.ids.extend(str(each["id"]) for each in new)


@_operation("conversations.append_message", weight=10)
async def _append_with_key(app: Application) -> None:
    key, turn, id = secrets.token_hex(8), app.turn(), await app.id()
    for _ in range(app.chance.choice((1, 1, 2))):
        await app.svc.conversations.append_message(
            id, turn, tenant_id=app.tenant, idempotency_key=key
        )


@_operation("conversations.append_message", weight=5)
async def _append(app: Application) -> None:
    await app.svc.conversations.append_message(await app.id(), app.turn(), tenant_id=app.tenant)


@_operation("conversations.append_message")
async def _append_after_wrong_seq(app: Application) -> None:
    await app.svc.conversations.append_message(
        await app.id(), app.turn(), tenant_id=app.tenant, expected_seq=10**6
    )


@_operation("conversations.get_list", weight=6)
async def _get_list(app: Application) -> None:
    """Get a page with random filters, and the next page."""
    get_page = functools.partial(
        app.svc.conversations.get_list,
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
    keywords = app.chance.choice(("word", "edited", "absent text", "d"))
    page = await app.svc.conversations.search(
        tenant_id=app.tenant,
        keywords=keywords,
        limit=5,
        total=app.chance.choice(("exact", "capped", "none")),
    )
    if page.next is not None:
        await app.svc.conversations.search(
            tenant_id=app.tenant, keywords=keywords, limit=5, after=page.next
        )


@_operation("conversations.get_by_id", weight=4)
async def _get_by_id(app: Application) -> None:
    await app.svc.conversations.get_by_id(
        await app.id(), tenant_id=app.tenant, include_messages=True
    )


@_operation("conversations.get_by_ids", weight=2)
async def _get_by_ids(app: Application) -> None:
    ids = [await app.id(), "absent"]
    await app.svc.conversations.get_by_ids(ids, tenant_id=app.tenant)


@_operation("conversations.get_names")
async def _get_names(app: Application) -> None:
    await app.svc.conversations.get_names(
        dialog_id="support", exp_user_id="ann", tenant_id=app.tenant
    )


@_operation("conversations.messages", weight=4)
async def _messages(app: Application) -> None:
    await app.svc.conversations.messages(await app.id(), tenant_id=app.tenant, last=20)


@_operation("conversations.update_by_id")
async def _update_by_id(app: Application) -> None:
    patch = {"name": "renamed", "metadata": {"by": "a person"}}
    await app.svc.conversations.update_by_id(await app.id(), patch, tenant_id=app.tenant)


@_operation("conversations.update_many_by_id")
async def _update_many_by_id(app: Application) -> None:
    patch = asyncsvc.ConversationPatch(source="web")
    patches = {await app.id(): patch, "absent": patch}
    await app.svc.conversations.update_many_by_id(patches, tenant_id=app.tenant)


async def _conversation_with_messages(app: Application) -> str:
    """Append a turn to a conversation and return its id."""
    id = await app.id()
    await app.svc.conversations.append_message(id, app.turn(), tenant_id=app.tenant)
    return id


@_operation("conversations.set_feedback")
async def _set_feedback(app: Application) -> None:
    id, thumb = await _conversation_with_messages(app), app.chance.choice((1, -1, None))
    await app.svc.conversations.set_feedback(id, 1, thumb, tenant_id=app.tenant)


@_operation("conversations.update_message")
async def _update_message(app: Application) -> None:
    id, patch = await _conversation_with_messages(app), {"content": "edited"}
    await app.svc.conversations.update_message(id, 1, patch, tenant_id=app.tenant)


@_operation("conversations.delete_message")
async def _delete_message(app: Application) -> None:
    await app.svc.conversations.delete_message(await app.id(), 3, tenant_id=app.tenant)


@_operation("conversations.pop_message")
async def _pop_message(app: Application) -> None:
    await app.svc.conversations.pop_message(await app.id(), tenant_id=app.tenant)


@_operation("conversations.clear_messages")
async def _clear_messages(app: Application) -> None:
    await app.svc.conversations.clear_messages(await app.id(), tenant_id=app.tenant)


@_operation("conversations.delete_by_id", weight=2)
async def _delete_by_id(app: Application) -> None:
    id = await app.id()
    app.ids.remove(id)
    await app.svc.conversations.delete_by_id(id, tenant_id=app.tenant)


@_operation("conversations.delete_by_ids", weight=2)
async def _delete_by_ids(app: Application) -> None:
    ids = [app.ids.popleft() for _ in range(min(3, len(app.ids)))]
    await app.svc.conversations.delete_by_ids(ids, tenant_id=app.tenant)


@_operation("conversations.delete_by_dialog_ids", weight=0.1)
async def _delete_by_dialog_ids(app: Application) -> None:
    await app.svc.conversations.delete_by_dialog_ids(["sales"], tenant_id=app.tenant)


@_operation("conversations.erase_user", weight=0.3)
async def _erase_user(app: Application) -> None:
    await app.svc.conversations.erase_user("bob", tenant_id=app.tenant)


@_operation("conversations.purge", weight=0.5)
async def _purge(app: Application) -> None:
    dry_run = app.chance.random() < 1 / 4
    await app.svc.conversations.purge(OLD, tenant_id=app.tenant, dry_run=dry_run)


@_operation("conversations.export", "conversations.import_", weight=0.5)
async def _export_and_import(app: Application) -> None:
    """Export 1 or all conversations, and import the last of them with another id."""
    last, all_of_them = None, app.chance.random() < 1 / 2
    async with aclosing(app.svc.conversations.export(tenant_id=app.tenant)) as exported:
        async for conversation in exported:
            last = conversation
            if not all_of_them:
                break
    if last is not None:
        copy = last.model_copy(update={"id": secrets.token_hex(8)})
        await app.svc.conversations.import_([copy], tenant_id=app.tenant)


@_operation("conversations.stats", weight=2)
async def _stats(app: Application) -> None:
    now = datetime.now(UTC)
    basis: Literal["creation", "activity"] = (
        "creation" if app.chance.random() < 1 / 2 else "activity"
    )
    await app.svc.conversations.stats(
        tenant_id=app.tenant,
        from_date=now - _DAY,
        to_date=now + _DAY,
        basis=basis,
        interval="hour",
        tz="Europe/Berlin",
    )


@_operation("conversations.declare_zone", weight=0.3)
async def _declare_zone(app: Application) -> None:
    await app.svc.conversations.declare_zone(tenant_id=app.tenant, tz=app.chance.choice(ZONES))


@_operation("conversations.recount_usage", weight=0.3)
async def _recount_usage(app: Application) -> None:
    await app.svc.conversations.recount_usage(tenant_id=app.tenant)


# ------------------------------------------------------------------------- tokens


@_operation("tokens.create", weight=2)
async def create_token(app: Application) -> asyncsvc.IssuedToken:
    """Issue a token and keep it."""
    issued = await app.svc.tokens.create(tenant_id=app.tenant, name="one more", scopes=["chat"])
    app.tokens.append(issued)
    return issued


@_operation("tokens.verify", weight=8)
async def _verify(app: Application) -> None:
    secret = (await app.token()).secret
    await app.svc.tokens.verify(secret, scopes=["chat"], record_use=app.chance.random() < 1 / 2)


@_operation("tokens.verify")
async def _verify_unknown(app: Application) -> None:
    secret = (await app.token()).secret.get_secret_value()
    await app.svc.tokens.verify(secret.swapcase())


@_operation("tokens.used")
async def _used(app: Application) -> None:
    await app.svc.tokens.used((await app.token()).secret)


@_operation("tokens.get_list")
async def _get_tokens(app: Application) -> None:
    page = await app.svc.tokens.get_list(tenant_id=app.tenant, limit=10)
    if page.next is not None:
        await app.svc.tokens.get_list(tenant_id=app.tenant, limit=10, after=page.next)


@_operation("tokens.get_by_id")
async def _get_token(app: Application) -> None:
    await app.svc.tokens.get_by_id((await app.token()).token.id, tenant_id=app.tenant)


@_operation("tokens.update_by_id")
async def _update_token(app: Application) -> None:
    id = (await app.token()).token.id
    await app.svc.tokens.update_by_id(id, {"name": "renamed"}, tenant_id=app.tenant)


@_operation("tokens.rotate")
async def _rotate(app: Application) -> None:
    id = (await app.token()).token.id
    overlap = timedelta(seconds=app.chance.choice((0, 60)))
    app.tokens.append(await app.svc.tokens.rotate(id, tenant_id=app.tenant, overlap=overlap))


@_operation("tokens.revoke")
async def _revoke(app: Application) -> None:
    await app.svc.tokens.revoke((await app.token()).token.id, tenant_id=app.tenant)


@_operation("tokens.revoke_family", weight=0.3)
async def _revoke_family(app: Application) -> None:
    await app.svc.tokens.revoke_family((await app.token()).token.id, tenant_id=app.tenant)


@_operation("tokens.revoke_all", weight=0.1)
async def _revoke_all(app: Application) -> None:
    await app.svc.tokens.revoke_all(tenant_id=app.tenant, reason="a soak")


@_operation("tokens.delete_by_tenant_id", weight=0.3)
async def _delete_tokens(app: Application) -> None:
    await app.svc.tokens.delete_by_tenant_id(tenant_id=app.tenant)


@_operation("tokens.audit")
async def _audit(app: Application) -> None:
    await app.svc.tokens.audit(tenant_id=app.tenant, limit=20)


@_operation("tokens.import_", weight=0.5)
async def _import_token(app: Application) -> None:
    await app.svc.tokens.import_(
        [{"secret": f"ragflow-{secrets.token_hex(16)}"}], tenant_id=app.tenant
    )


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


@_operation("connect", weight=0.5)
async def _connect(app: Application) -> None:
    """Open and close a second pool."""
    async with asyncsvc.connect(app.dsn, max_size=2) as svc:
        await svc.conversations.get_list(
            dialog_id="support", tenant_id=app.tenant, items_per_page=1
        )


@_operation("position", "at_least", weight=0.5)
async def _at_least(app: Application) -> None:
    """Read at a position. The load has no replica, so the primary answers."""
    position = await app.svc.position()
    svc = app.svc.at_least(position)
    await svc.conversations.get_list(dialog_id="support", tenant_id=app.tenant, items_per_page=1)


@_operation("migrate", "pending", "applied", "check", weight=0.2)
async def _migrate(app: Application) -> None:
    await app.svc.migrate()
    await app.svc.pending()
    await app.svc.applied()
    await app.svc.check()


@_operation("maintain", weight=0.5)
async def _maintain(app: Application) -> None:
    await app.svc.maintain()


@_operation("doctor", weight=0.1)
async def _doctor(app: Application) -> None:
    await app.svc.doctor()


@_operation("explain", weight=0.2)
async def _explain(app: Application) -> None:
    await app.svc.explain("conversation/get_list", present=["user_id"])
