"""Append a turn inside the transaction of a SQLAlchemy session."""

import asyncio
import os

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import asyncsvc
from asyncsvc import Message, Turn

DSN = os.environ["ASYNCSVC_DSN"]


class Base(DeclarativeBase):
    pass


class Parcel(Base):
    __tablename__ = "parcel"
    number: Mapped[str] = mapped_column(primary_key=True)
    conversation_id: Mapped[str]


async def services_of(session: AsyncSession, svc: asyncsvc.AsyncSvc) -> asyncsvc.Services:
    """Return the services on the session's connection, inside its transaction."""
    connection = await session.connection()
    # SQLAlchemy sends BEGIN with its first statement, and asyncsvc must not be before it.
    await connection.execute(text("SELECT 1"))
    raw = await connection.get_raw_connection()
    driver: asyncpg.Connection[asyncpg.Record] | None = raw.driver_connection
    if driver is None:
        raise RuntimeError("the session is closed")
    return svc.on(driver)


async def main() -> None:
    engine = create_async_engine(DSN.replace("postgresql://", "postgresql+asyncpg://", 1))
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with asyncsvc.connect(DSN) as svc:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        chat = await svc.conversations.create(tenant_id="acme", dialog_id="support")

        async with sessions.begin() as session:
            session.add(Parcel(number="7", conversation_id=chat.id))
            await session.flush()
            mine = await services_of(session, svc)
            turn = Turn(messages=[Message(role="user", content="Where is parcel 7?")])
            await mine.conversations.append_message(chat.id, turn, tenant_id="acme")
            before = await svc.conversations.get_by_id(chat.id, tenant_id="acme")

        after = await svc.conversations.get_by_id(chat.id, tenant_id="acme")
        print("messages before the commit:", before.last_seq, "and after it:", after.last_seq)
        # > messages before the commit: 0 and after it: 1
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
