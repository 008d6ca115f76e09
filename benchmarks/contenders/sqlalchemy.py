"""SQLAlchemy's asynchronous ORM on asyncpg, with one class per table.

The tables are the plain ones with the other indexes of the library's tables. `with_for_update`
prevents lost updates between appends to one conversation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from sqlalchemy import Text, func, insert, select, tuple_
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.data import MESSAGES, TOKENS, texts

SCHEMA: Final = "orm"
Key = Annotated[str, mapped_column(Text(), primary_key=True)]


class Base(DeclarativeBase):
    """The base of the tables."""

    __table_args__ = {"schema": SCHEMA}  # noqa: RUF012
    type_annotation_map = {  # noqa: RUF012
        str: Text(), datetime: TIMESTAMP(timezone=True), dict[str, Any]: JSONB()
    }  # fmt: skip


class Conversation(Base):
    """A conversation, one row each."""

    __tablename__ = "conversation"

    tenant_id: Mapped[Key]
    id: Mapped[Key]
    dialog_id: Mapped[str]
    user_id: Mapped[str] = mapped_column(default="")
    name: Mapped[str | None]
    source: Mapped[str | None]
    round: Mapped[int] = mapped_column(default=0)
    tokens: Mapped[int] = mapped_column(default=0)
    duration: Mapped[int] = mapped_column(default=0)
    thumb_up: Mapped[int] = mapped_column(default=0)
    last_seq: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Message(Base):
    """A message, one row each."""

    __tablename__ = "message"

    tenant_id: Mapped[Key]
    conversation_id: Mapped[Key]
    seq: Mapped[int] = mapped_column(primary_key=True)
    role: Mapped[str]
    content: Mapped[str]
    payload: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]


class Orm:
    """The store of conversations with the ORM."""

    def __init__(self, dsn: str, size: int) -> None:
        """Open an engine with at most `size` connections."""
        url = "postgresql+asyncpg" + dsn[dsn.index("://") :]
        self._engine = create_async_engine(url, pool_size=size, max_overflow=0)
        self._session = async_sessionmaker(self._engine, expire_on_commit=False)

    async def append(self, tenant_id: str, id: str) -> None:
        """Append the turn."""
        now, key = datetime.now(UTC), (tenant_id, id)
        async with self._session() as session, session.begin():
            conversation = await session.get_one(Conversation, key, with_for_update=True)
            first = conversation.last_seq + 1
            session.add_all(
                Message(tenant_id=tenant_id, conversation_id=id, seq=seq, created_at=now, **message)
                for seq, message in enumerate(MESSAGES, first)
            )
            conversation.last_seq += len(MESSAGES)
            conversation.round += 1
            conversation.tokens += TOKENS
            conversation.updated_at = now

    async def messages(self, tenant_id: str, id: str) -> list[tuple[str, str]]:
        """Return the messages of a conversation; raise AssertionError if a seq is missing."""
        query = (
            select(Message)
            .where(Message.tenant_id == tenant_id, Message.conversation_id == id)
            .order_by(Message.seq)
        )
        async with self._session() as session:
            return texts(list(await session.scalars(query)))

    async def page(
        self, tenant_id: str, dialog_id: str, items: int, after: tuple[datetime, str] | None = None
    ) -> list[Conversation]:
        """Return the page after a conversation, by creation, newest first."""
        query = select(Conversation).where(
            Conversation.tenant_id == tenant_id, Conversation.dialog_id == dialog_id
        )
        if after is not None:
            query = query.where(tuple_(Conversation.created_at, Conversation.id) < after)
        query = query.order_by(Conversation.created_at.desc(), Conversation.id.desc())
        async with self._session() as session:
            return list(await session.scalars(query.limit(items)))

    async def count(self, tenant_id: str, dialog_id: str) -> int:
        """Return the number of conversations of a dialog."""
        query = (
            select(func.count())
            .select_from(Conversation)
            .where(Conversation.tenant_id == tenant_id, Conversation.dialog_id == dialog_id)
        )
        async with self._session() as session:
            return (await session.scalars(query)).one()

    async def store(
        self,
        conversations: Iterable[Mapping[str, object]],
        messages: Iterable[Mapping[str, object]],
    ) -> None:
        """Store conversations and their messages in 1 transaction with bulk inserts."""
        async with self._session() as session, session.begin():
            await session.execute(insert(Conversation), list(conversations))
            await session.execute(insert(Message), list(messages))

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()
