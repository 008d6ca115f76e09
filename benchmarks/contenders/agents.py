"""SQLAlchemySession of the OpenAI Agents SDK, on asyncpg, with an engine of default settings."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from agents.extensions.memory import SQLAlchemySession
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.data import MESSAGES

SCHEMA: Final = "agents"


class Agents:
    """The sessions of one engine. They have neither tenants nor users, and no lists."""

    schema = SCHEMA

    def __init__(self, engine: AsyncEngine) -> None:
        """Borrow the engine."""
        self._engine = engine

    def of_tenant(self, _tenant_id: str) -> Agents:
        """Return all sessions."""
        return self

    async def append(self, _user_id: str, id: str) -> None:
        """Append the turn as 2 items in 1 call."""
        await self._session(id).add_items(MESSAGES)

    async def last(self, _user_id: str, id: str, count: int) -> list[tuple[str, str]]:
        """Return the last items."""
        return _texts(await self._session(id).get_items(limit=count))

    async def whole(self, _user_id: str, id: str) -> list[tuple[str, str]]:
        """Return all items."""
        return _texts(await self._session(id).get_items())

    def _session(self, id: str) -> SQLAlchemySession:
        return SQLAlchemySession(id, engine=self._engine)


@contextlib.asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Agents]:
    """Create the tables, and open an engine."""
    engine = create_async_engine(
        "postgresql+asyncpg" + dsn[dsn.index("://") :],
        connect_args={"server_settings": {"search_path": SCHEMA}},
    )
    try:
        session = SQLAlchemySession("", engine=engine, create_tables=True)
        await session.get_items()
        yield Agents(engine)
    finally:
        await engine.dispose()


def _texts(items: list[Any]) -> list[tuple[str, str]]:
    return [(item["role"], item["content"]) for item in items]
