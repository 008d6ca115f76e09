"""The session services of Google's ADK: its DatabaseSessionService, and that of the integration.

The engine of DatabaseSessionService is on asyncpg, with default settings.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from google.adk.events import Event, EventActions
from google.adk.sessions import BaseSessionService, DatabaseSessionService
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai import types

from asyncsvc import AsyncSvc
from asyncsvc.integrations.google_adk import SessionService
from benchmarks.data import MESSAGES

SCHEMA: Final = "adk"
_ROLES: Final = {"user": "user", "assistant": "model"}
_NAMES: Final = {role: name for name, role in _ROLES.items()}


class OpenedAdk:
    """The service. A tenant is an app."""

    schema = SCHEMA

    def __init__(self, service: DatabaseSessionService) -> None:
        """Borrow the service."""
        self._service = service

    def of_tenant(self, tenant_id: str) -> Adk:
        """Return the sessions of a tenant."""
        return Adk(self._service, tenant_id)


class Integrated:
    """The service of the integration."""

    schema = "adk_session"

    def __init__(self, svc: AsyncSvc) -> None:
        """Borrow the services."""
        self._svc = svc

    def of_tenant(self, tenant_id: str) -> Adk:
        """Return the sessions of the copy of a tenant."""
        return Adk(SessionService(self._svc, tenant_id=f"{tenant_id}-adk"), tenant_id)


class Adk:
    """The sessions of one app, whose name is the tenant's."""

    def __init__(self, service: BaseSessionService, app_name: str) -> None:
        """Borrow the service."""
        self._service = service
        self._app_name = app_name
        self._loaded: dict[str, Any] = {}

    async def append(self, user_id: str, id: str) -> None:
        """Append the turn as 2 events. The session was loaded before, without its events."""
        for message in MESSAGES:
            await self._append(user_id, id, message, {})

    async def set_state(self, user_id: str, id: str) -> None:
        """Append an event that changes the state of the session."""
        await self._append(user_id, id, MESSAGES[1], {"topic": secrets.token_hex(4)})

    async def set_all_states(self, user_id: str, id: str) -> None:
        """Append an event that changes the states of session, user and app."""
        value = secrets.token_hex(4)
        delta = {"topic": value, "user:language": value, "app:version": value}
        await self._append(user_id, id, MESSAGES[1], delta)

    async def create(self, user_id: str, _id: str) -> None:
        """Create a session of a user. It is not one of those that the other methods use."""
        await self._service.create_session(
            app_name=f"{self._app_name}-new", user_id=user_id, state={"topic": "parcel"}
        )

    async def _append(
        self, user_id: str, id: str, message: dict[str, str], delta: Mapping[str, object]
    ) -> None:
        session = self._loaded.get(id)
        if session is None:
            session = self._loaded[id] = await self._get(user_id, id, 0)
        content = types.Content(
            role=_ROLES[message["role"]], parts=[types.Part(text=message["content"])]
        )
        event = Event(
            author=message["role"],
            invocation_id="i",
            content=content,
            actions=EventActions(state_delta=dict(delta)),
        )
        await self._service.append_event(session, event)

    async def last(self, user_id: str, id: str, count: int) -> list[tuple[str, str]]:
        """Return the last events."""
        return _texts((await self._get(user_id, id, count)).events)

    async def whole(self, user_id: str, id: str) -> list[tuple[str, str]]:
        """Return all events."""
        return _texts((await self._get(user_id, id, None)).events)

    async def of_user(self, user_id: str) -> list[str]:
        """Return the ids of all sessions of a user, the latest first."""
        listed = await self._service.list_sessions(app_name=self._app_name, user_id=user_id)
        return [session.id for session in reversed(listed.sessions)]

    async def _get(self, user_id: str, id: str, count: int | None) -> Any:  # noqa: ANN401 - a Session of ADK
        return await self._service.get_session(
            app_name=self._app_name,
            user_id=user_id,
            session_id=id,
            config=None if count is None else GetSessionConfig(num_recent_events=count),
        )


@contextlib.asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[OpenedAdk]:
    """Create the tables, and open a service."""
    service = DatabaseSessionService(
        "postgresql+asyncpg" + dsn[dsn.index("://") :],
        connect_args={"server_settings": {"search_path": SCHEMA}},
    )
    async with service:
        await service.prepare_tables()
        yield OpenedAdk(service)


def _texts(events: Sequence[Any]) -> list[tuple[str, str]]:
    return [(_NAMES[event.content.role], event.content.parts[0].text) for event in events]
