"""The threads of ChatKit: a store as applications write it, and that of the integration.

ChatKit ships no store on PostgreSQL. This one has the tables of the store of its tests, with the
values as JSON and the indexes of its queries. It is on SQLAlchemy's ORM and asyncpg, with default
settings.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import chatkit.store
from chatkit.types import (
    AssistantMessageItem,
    Page,
    ThreadItem,
    ThreadMetadata,
    UserMessageItem,
)
from pydantic import TypeAdapter
from sqlalchemy import JSON, Index, MetaData, Select, Text, select, tuple_
from sqlalchemy.dialects.postgresql import TIMESTAMP, insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from asyncsvc import AsyncSvc
from asyncsvc.integrations.chatkit import Store
from benchmarks.data import MESSAGES

SCHEMA: Final = "chatkit"
_MAX_THREADS: Final = 1_000
_MAX_ITEMS: Final = 100_000
_ITEM: Final = TypeAdapter[ThreadItem](ThreadItem)
_TYPES: Final = {"user": "user_message", "assistant": "assistant_message"}


class Base(DeclarativeBase):
    """The base of the tables."""

    metadata = MetaData(schema=SCHEMA)
    type_annotation_map = {  # noqa: RUF012
        str: Text(), datetime: TIMESTAMP(timezone=True), dict[str, Any]: JSON()
    }  # fmt: skip


class ThreadRow(Base):
    """A thread."""

    __tablename__ = "threads"
    __table_args__ = (Index(None, "user_id", "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    created_at: Mapped[datetime]
    data: Mapped[dict[str, Any]]


class ItemRow(Base):
    """An item."""

    __tablename__ = "items"
    __table_args__ = (Index(None, "thread_id", "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    thread_id: Mapped[str]
    user_id: Mapped[str]
    created_at: Mapped[datetime]
    data: Mapped[dict[str, Any]]


Row = TypeVar("Row", ThreadRow, ItemRow)


class PlainStore:
    """The methods of a store that the suite calls. The context is the user."""

    def __init__(self, session: async_sessionmaker[AsyncSession]) -> None:
        """Open sessions with this."""
        self._session = session

    async def load_threads(
        self, limit: int, after: str | None, order: str, context: str
    ) -> Page[ThreadMetadata]:
        """Return threads by their creation."""
        query = select(ThreadRow).where(ThreadRow.user_id == context)
        async with self._session() as session:
            rows = await _page(session, query, ThreadRow, after, limit, order)
        data = [ThreadMetadata.model_validate(row.data) for row in rows[:limit]]
        return _page_of(Page[ThreadMetadata], data, len(rows))

    async def load_thread_items(
        self, thread_id: str, after: str | None, limit: int, order: str, context: str
    ) -> Page[ThreadItem]:
        """Return items by their creation."""
        query = select(ItemRow).where(ItemRow.thread_id == thread_id, ItemRow.user_id == context)
        async with self._session() as session:
            rows = await _page(session, query, ItemRow, after, limit, order)
        data = [_ITEM.validate_python(row.data) for row in rows[:limit]]
        return _page_of(Page[ThreadItem], data, len(rows))

    async def load_item(self, thread_id: str, item_id: str, context: str) -> ThreadItem:
        """Return an item."""
        query = select(ItemRow).where(
            ItemRow.id == item_id, ItemRow.thread_id == thread_id, ItemRow.user_id == context
        )
        async with self._session() as session:
            row = await session.scalar(query)
        if row is None:
            raise chatkit.store.NotFoundError(item_id)
        return _ITEM.validate_python(row.data)

    async def add_thread_item(self, thread_id: str, item: ThreadItem, context: str) -> None:
        """Append an item."""
        async with self._session() as session, session.begin():
            session.add(ItemRow(**_values(thread_id, item, context)))

    async def save_item(self, thread_id: str, item: ThreadItem, context: str) -> None:
        """Replace or append an item."""
        values = _values(thread_id, item, context)
        command = insert(ItemRow).values(values)
        command = command.on_conflict_do_update(
            index_elements=[ItemRow.id],
            set_={"data": values["data"]},
            where=(ItemRow.thread_id == thread_id) & (ItemRow.user_id == context),
        )
        async with self._session() as session, session.begin():
            await session.execute(command)


async def _page(
    session: AsyncSession,
    query: Select[Row],
    table: type[Row],
    after: str | None,
    limit: int,
    order: str,
) -> list[Row]:
    """Return the rows of a page and 1 more."""
    columns = (table.created_at, table.id)
    if after is not None:
        place = (await session.execute(select(*columns).where(table.id == after))).one()
        bound = tuple_(*columns)
        query = query.where(bound > place if order == "asc" else bound < place)
    ascending = order == "asc"
    query = query.order_by(*(each.asc() if ascending else each.desc() for each in columns))
    return list(await session.scalars(query.limit(limit + 1)))


def _page_of(kind: type[Page[Any]], data: list[Any], count: int) -> Page[Any]:
    has_more = count > len(data)
    return kind.model_construct(
        data=data, has_more=has_more, after=data[-1].id if has_more else None
    )


def _values(thread_id: str, item: ThreadItem, user_id: str) -> dict[str, Any]:
    return {
        "id": item.id,
        "thread_id": thread_id,
        "user_id": user_id,
        "created_at": item.created_at,
        "data": item.model_dump(mode="json"),
    }


class ChatKitThreads:
    """The threads of a store. A context is a user."""

    def __init__(self, store: PlainStore | Store[str]) -> None:
        """Call this store."""
        self._store = store

    async def append(self, user_id: str, id: str) -> None:
        """Append the turn as 2 items, as a server does."""
        for message in MESSAGES:
            item = _item(secrets.token_hex(16), id, message["role"], message["content"])
            await self._store.add_thread_item(id, item, user_id)

    async def last(self, user_id: str, id: str, count: int) -> list[tuple[str, str]]:
        """Return the last items."""
        page = await self._store.load_thread_items(id, None, count, "desc", user_id)
        return [_text(item) for item in reversed(page.data)]

    async def whole(self, user_id: str, id: str) -> list[tuple[str, str]]:
        """Return all items."""
        page = await self._store.load_thread_items(id, None, _MAX_ITEMS, "asc", user_id)
        return [_text(item) for item in page.data]

    async def first(self, user_id: str, id: str) -> tuple[str, str]:
        """Return the first item."""
        return _text(await self._store.load_item(id, f"{id}-1", user_id))

    async def save_first(self, user_id: str, id: str) -> None:
        """Replace the first item."""
        item = _item(f"{id}-1", id, "user", "Where is my other parcel?")
        await self._store.save_item(id, item, user_id)

    async def of_user(self, user_id: str) -> list[str]:
        """Return the ids of all threads of a user, the newest first."""
        page = await self._store.load_threads(_MAX_THREADS, None, "desc", user_id)
        return [thread.id for thread in page.data]


def _item(id: str, thread_id: str, role: str, text: str) -> ThreadItem:
    part = {"type": "input_text" if role == "user" else "output_text", "text": text}
    fields: dict[str, object] = {"id": id, "thread_id": thread_id, "created_at": datetime.now(UTC)}
    if role == "user":
        fields |= {"inference_options": {}}
    return _ITEM.validate_python(fields | {"type": _TYPES[role], "content": [part]})


def _text(item: ThreadItem) -> tuple[str, str]:
    if isinstance(item, UserMessageItem):
        return "user", item.content[0].text
    if isinstance(item, AssistantMessageItem):
        return "assistant", item.content[0].text
    raise TypeError(item.type)


class Plain:
    """The store of applications. It has no tenants."""

    schema = SCHEMA

    def __init__(self, session: async_sessionmaker[AsyncSession]) -> None:
        """Open sessions with this."""
        self._store = PlainStore(session)

    def of_tenant(self, _tenant_id: str) -> ChatKitThreads:
        """Return all threads."""
        return ChatKitThreads(self._store)


class Integrated:
    """The store of the integration."""

    schema = "chatkit_store"

    def __init__(self, svc: AsyncSvc) -> None:
        """Borrow the services."""
        self._svc = svc

    def of_tenant(self, tenant_id: str) -> ChatKitThreads:
        """Return the threads of the copy of a tenant."""

        def owner(user_id: str) -> tuple[str, str]:
            return f"{tenant_id}-chatkit", user_id

        return ChatKitThreads(Store[str](self._svc, owner, dialog_id="chatkit"))


@contextlib.asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Plain]:
    """Create the tables, and open an engine."""
    engine = create_async_engine("postgresql+asyncpg" + dsn[dsn.index("://") :])
    try:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield Plain(async_sessionmaker(engine, expire_on_commit=False))
    finally:
        await engine.dispose()
