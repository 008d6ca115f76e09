"""What an application may call, each call as an operation that can be repeated for ever.

What they store stays bounded, since others of them delete: the load of a soak is the same at its
end as at its beginning. A public method that no operation calls makes the soak fail.
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
"""What is older than this goes: conversations by a purge, idempotency keys by maintain."""
_DAY: Final = timedelta(days=1)


class _RollBack(Exception):
    """Ends a transaction that is not to be committed."""


@dataclass(slots=True)
class Application:
    """One task of an application: what it calls, and what it remembers of what it made."""

    svc: asyncsvc.AsyncSvc
    pool: Pool
    dsn: str
    tenant: str
    chance: random.Random
    ids: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))
    tokens: deque[asyncsvc.IssuedToken] = field(default_factory=lambda: deque(maxlen=_KEPT))

    async def id(self) -> str:
        """Return a conversation, which may be gone by now."""
        return self.chance.choice(self.ids) if self.ids else await create(self)

    async def token(self) -> asyncsvc.IssuedToken:
        """Return a token, which may be gone by now."""
        return self.chance.choice(self.tokens) if self.tokens else await create_token(self)

    def turn(self) -> Turn:
        """Return something to say."""
        chance = self.chance
        said = [
            Message(role=role, content="word " * chance.randint(1, 100), payload={"n": [1, 2]})
            for role in ("user", "assistant")
        ]
        return Turn(messages=said, tokens=chance.randint(1, 100), duration=chance.random())

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
    """Some calls, what they are, and how often they come up beside the others."""

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
    """Return the public methods of the facade and the services, as operations name them."""
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
    """Create a conversation and remember it."""
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
async def _append_once(app: Application) -> None:
    key, turn, id = secrets.token_hex(8), app.turn(), await app.id()
    for _ in range(app.chance.choice((1, 1, 2))):
        await app.svc.conversations.append_message(
            id, turn, tenant_id=app.tenant, idempotency_key=key
        )


@_operation("conversations.append_message", weight=5)
async def _append(app: Application) -> None:
    await app.svc.conversations.append_message(await app.id(), app.turn(), tenant_id=app.tenant)


@_operation("conversations.append_message")
async def _append_refused(app: Application) -> None:
    await app.svc.conversations.append_message(
        await app.id(), app.turn(), tenant_id=app.tenant, expected_seq=10**6
    )


@_operation("conversations.get_list", weight=6)
async def _get_list(app: Application) -> None:
    """Ask for a page by one of many combinations of filters, and perhaps for the one after it."""
    ask = functools.partial(
        app.svc.conversations.get_list,
        app.chance.choice(DIALOGS),
        app.tenant,
        orderby=app.chance.choice(("created_at", "updated_at", "name", "round")),
        desc=app.chance.random() < 1 / 2,
        keywords=app.chance.choice(("", "", "cats", "word")),
        from_date=app.chance.choice((None, datetime.now(UTC) - _DAY)),
        total=app.chance.choice(("exact", "capped", "none")),
        include_messages=app.chance.random() < 1 / 4,
    )
    page = await ask()
    if page.next is not None:
        await ask(after=page.next)


@_operation("conversations.search", weight=2)
async def _search(app: Application) -> None:
    """Look for a word that is everywhere, for one that is nowhere, and for the page after."""
    keywords = app.chance.choice(("word", "edited", "never said", "d"))
    found = await app.svc.conversations.search(
        app.tenant, keywords, limit=5, total=app.chance.choice(("exact", "capped", "none"))
    )
    if found.next is not None:
        await app.svc.conversations.search(app.tenant, keywords, limit=5, after=found.next)


@_operation("conversations.get_by_id", weight=4)
async def _get_by_id(app: Application) -> None:
    await app.svc.conversations.get_by_id(
        await app.id(), tenant_id=app.tenant, include_messages=True
    )


@_operation("conversations.get_by_ids", weight=2)
async def _get_by_ids(app: Application) -> None:
    ids = [await app.id(), "nobody's"]
    await app.svc.conversations.get_by_ids(ids, tenant_id=app.tenant)


@_operation("conversations.get_names")
async def _get_names(app: Application) -> None:
    await app.svc.conversations.get_names("support", "ann", tenant_id=app.tenant)


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
    patches = {await app.id(): patch, "nobody's": patch}
    await app.svc.conversations.update_many_by_id(patches, tenant_id=app.tenant)


async def _said(app: Application) -> str:
    """Return a conversation that has a message."""
    id = await app.id()
    await app.svc.conversations.append_message(id, app.turn(), tenant_id=app.tenant)
    return id


@_operation("conversations.set_feedback")
async def _set_feedback(app: Application) -> None:
    id, thumb = await _said(app), app.chance.choice((1, -1, None))
    await app.svc.conversations.set_feedback(id, 1, thumb, tenant_id=app.tenant)


@_operation("conversations.update_message")
async def _update_message(app: Application) -> None:
    patch = {"content": "edited"}
    await app.svc.conversations.update_message(await _said(app), 1, patch, tenant_id=app.tenant)


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
async def _delete_by_user(app: Application) -> None:
    await app.svc.conversations.erase_user("bob", tenant_id=app.tenant)


@_operation("conversations.purge", weight=0.5)
async def _purge(app: Application) -> None:
    dry_run = app.chance.random() < 1 / 4
    await app.svc.conversations.purge(OLD, tenant_id=app.tenant, dry_run=dry_run)


@_operation("conversations.export", "conversations.load", weight=0.5)
async def _export_and_load(app: Application) -> None:
    """Read one, or all, and store the last one read under another id."""
    last, all_of_them = None, app.chance.random() < 1 / 2
    async with aclosing(app.svc.conversations.export(tenant_id=app.tenant)) as exported:
        async for conversation in exported:
            last = conversation
            if not all_of_them:
                break
    if last is not None:
        moved = last.model_copy(update={"id": secrets.token_hex(8)})
        await app.svc.conversations.import_([moved], tenant_id=app.tenant)


@_operation("conversations.stats", weight=2)
async def _stats(app: Application) -> None:
    now = datetime.now(UTC)
    basis: Literal["creation", "activity"] = (
        "creation" if app.chance.random() < 1 / 2 else "activity"
    )
    await app.svc.conversations.stats(
        app.tenant, now - _DAY, now + _DAY, basis=basis, interval="hour", tz="Europe/Berlin"
    )


@_operation("conversations.declare_zone", weight=0.3)
async def _declare_zone(app: Application) -> None:
    await app.svc.conversations.declare_zone(app.tenant, app.chance.choice(ZONES))


@_operation("conversations.recount_usage", weight=0.3)
async def _recount_usage(app: Application) -> None:
    await app.svc.conversations.recount_usage(app.tenant)


# ------------------------------------------------------------------------- tokens


@_operation("tokens.create", weight=2)
async def create_token(app: Application) -> asyncsvc.IssuedToken:
    """Issue a token and remember it."""
    issued = await app.svc.tokens.create(app.tenant, name="one more", scopes=["chat"])
    app.tokens.append(issued)
    return issued


@_operation("tokens.verify", weight=8)
async def _verify(app: Application) -> None:
    secret = (await app.token()).secret
    await app.svc.tokens.verify(secret, scopes=["chat"], touch=app.chance.random() < 1 / 2)


@_operation("tokens.verify")
async def _verify_unknown(app: Application) -> None:
    secret = (await app.token()).secret.get_secret_value()
    await app.svc.tokens.verify(secret.swapcase())


@_operation("tokens.used")
async def _used(app: Application) -> None:
    await app.svc.tokens.used((await app.token()).secret)


@_operation("tokens.get_list")
async def _get_tokens(app: Application) -> None:
    page = await app.svc.tokens.get_list(app.tenant, limit=10)
    if page.next is not None:
        await app.svc.tokens.get_list(app.tenant, limit=10, after=page.next)


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
    await app.svc.tokens.revoke_all(app.tenant, reason="a soak")


@_operation("tokens.delete_by_tenant_id", weight=0.3)
async def _delete_tokens(app: Application) -> None:
    await app.svc.tokens.delete_by_tenant_id(app.tenant)


@_operation("tokens.audit")
async def _audit(app: Application) -> None:
    await app.svc.tokens.audit(app.tenant, limit=20)


@_operation("tokens.load", weight=0.5)
async def _load_token(app: Application) -> None:
    await app.svc.tokens.import_(
        [{"secret": f"ragflow-{secrets.token_hex(16)}"}], tenant_id=app.tenant
    )


# ------------------------------------------------------------------------- facade


@_operation("transaction", weight=2)
async def _transaction(app: Application) -> None:
    """Work over both services, with a savepoint that is rolled back; commit it, or do not."""
    with suppress(_RollBack):
        async with app.svc.transaction() as tx:
            conversation = await tx.conversations.create(tenant_id=app.tenant, dialog_id="support")
            with suppress(_RollBack):
                async with tx.transaction() as inner:
                    await inner.tokens.create(app.tenant, name="never")
                    raise _RollBack
            await tx.conversations.append_message(
                conversation.id, app.turn(), tenant_id=app.tenant, idempotency_key="first"
            )
            if app.chance.random() < 1 / 3:
                raise _RollBack


@_operation("on", weight=2)
async def _on(app: Application) -> None:
    """Work in a transaction of the application's own, on a connection of its pool."""
    id = await app.id()
    with _lost_of_its_own():
        async with app.pool.acquire(timeout=5) as connection, connection.transaction():
            services = app.svc.on(connection)
            await services.conversations.append_message(id, app.turn(), tenant_id=app.tenant)


@contextmanager
def _lost_of_its_own() -> Iterator[None]:
    """Take what the driver says to the application, which began and committed, as the library."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise asyncsvc.Unavailable(str(error)) from error


@_operation("connect", weight=0.5)
async def _connect(app: Application) -> None:
    """Open a pool beside the other, and close it."""
    async with asyncsvc.connect(app.dsn, max_size=2) as svc:
        await svc.conversations.get_list("support", app.tenant, items_per_page=1)


@_operation("position", "at_least", weight=0.5)
async def _at_least(app: Application) -> None:
    """Read what was there at a position; a call of this load has no replica to find that on."""
    position = await app.svc.position()
    svc = app.svc.at_least(position)
    await svc.conversations.get_list("support", app.tenant, items_per_page=1)


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
