"""SQLAlchemy's asynchronous ORM on asyncpg, with one class per table.

The tables have the columns and indexes of the library's tables. `with_for_update` prevents lost
updates between appends to one conversation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ForeignKeyConstraint, Index, Text, func, insert, select, tuple_
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import CreateSchema

_AWARE = TIMESTAMP(timezone=True)


class Base(DeclarativeBase):
    """The base of the tables."""

    type_annotation_map = {str: Text(), datetime: _AWARE, dict[str, Any]: JSONB()}  # noqa: RUF012


class Conversation(Base):
    """A conversation, one row each."""

    __tablename__ = "conversation"

    tenant_id: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    id: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    dialog_id: Mapped[str] = mapped_column(Text(collation="C"))
    user_id: Mapped[str] = mapped_column(Text(collation="C"), default="")
    name: Mapped[str | None]
    source: Mapped[str | None]
    round: Mapped[int] = mapped_column(default=0)
    tokens: Mapped[int] = mapped_column(default=0)
    duration: Mapped[int] = mapped_column(default=0)
    thumb_up: Mapped[int] = mapped_column(default=0)
    last_seq: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    __table_args__ = (
        Index("orm_created_idx", "tenant_id", "dialog_id", "created_at", "id"),
        Index("orm_updated_idx", "tenant_id", "dialog_id", "updated_at", "id"),
        Index("orm_user_idx", "tenant_id", "user_id", "created_at"),
        {"schema": "orm"},
    )


class Message(Base):
    """A message, one row each."""

    __tablename__ = "message"

    tenant_id: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    conversation_id: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    role: Mapped[str]
    content: Mapped[str]
    payload: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]

    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "conversation_id"],
            ["orm.conversation.tenant_id", "orm.conversation.id"],
            ondelete="CASCADE",
        ),
        {"schema": "orm"},
    )


class Orm:
    """The store of conversations with the ORM."""

    def __init__(self, dsn: str, size: int) -> None:
        """Open an engine with at most `size` connections."""
        url = "postgresql+asyncpg" + dsn[dsn.index("://") :]
        self._engine = create_async_engine(url, pool_size=size, max_overflow=0)
        self._session = async_sessionmaker(self._engine, expire_on_commit=False)

    async def create_tables(self) -> None:
        """Create the schema and the tables if they do not exist."""
        async with self._engine.begin() as connection:
            await connection.execute(CreateSchema("orm", if_not_exists=True))
            await connection.run_sync(Base.metadata.create_all)

    async def append(
        self, tenant_id: str, id: str, messages: Sequence[Mapping[str, str]], tokens: int
    ) -> int:
        """Append a turn; return the conversation's last seq."""
        now = datetime.now(UTC)
        async with self._session() as session, session.begin():
            conversation = await session.get_one(
                Conversation, (tenant_id, id), with_for_update=True
            )
            first = conversation.last_seq + 1
            session.add_all(
                Message(tenant_id=tenant_id, conversation_id=id, seq=seq, created_at=now, **message)
                for seq, message in enumerate(messages, first)
            )
            conversation.last_seq += len(messages)
            conversation.round += 1
            conversation.tokens += tokens
            conversation.updated_at = now
        return conversation.last_seq

    async def messages(self, tenant_id: str, id: str) -> list[Message]:
        """Return the messages of a conversation, in their order."""
        query = (
            select(Message)
            .where(Message.tenant_id == tenant_id, Message.conversation_id == id)
            .order_by(Message.seq)
        )
        async with self._session() as session:
            return list(await session.scalars(query))

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
