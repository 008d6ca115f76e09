"""The sessions of the OpenAI Agents SDK: its SQLAlchemySession, and that of the integration.

The engine of SQLAlchemySession is on asyncpg, with default settings.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from agents.extensions.memory import SQLAlchemySession
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from asyncsvc import AsyncSvc
from asyncsvc.integrations.openai_agents import Session
from benchmarks.data import MESSAGES

SCHEMA: Final = "agents"


class AgentSessions:
    """Sessions of the SDK, which have no lists."""

    def __init__(self, open_session: Callable[[str, str], Any]) -> None:
        """Open sessions by their user and id."""
        self._open = open_session

    async def append(self, user_id: str, id: str) -> None:
        """Append the turn as 2 items in 1 call."""
        await self._open(user_id, id).add_items(MESSAGES)

    async def last(self, user_id: str, id: str, count: int) -> list[tuple[str, str]]:
        """Return the last items."""
        return _texts(await self._open(user_id, id).get_items(limit=count))

    async def whole(self, user_id: str, id: str) -> list[tuple[str, str]]:
        """Return all items."""
        return _texts(await self._open(user_id, id).get_items())


class Agents:
    """The sessions of one engine. They have neither tenants nor users."""

    schema = SCHEMA

    def __init__(self, engine: AsyncEngine) -> None:
        """Borrow the engine."""
        self._engine = engine

    def of_tenant(self, _tenant_id: str) -> AgentSessions:
        """Return all sessions."""
        return AgentSessions(lambda _, key: SQLAlchemySession(key, engine=self._engine))


class Integrated:
    """The sessions of the integration."""

    schema = "agents_session"

    def __init__(self, svc: AsyncSvc) -> None:
        """Borrow the services."""
        self._svc = svc

    def of_tenant(self, tenant_id: str) -> AgentSessions:
        """Return the sessions of the copy of a tenant."""
        owner = {"tenant_id": f"{tenant_id}-agents", "dialog_id": "agents"}
        return AgentSessions(lambda user, key: Session(key, self._svc, user_id=user, **owner))


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
