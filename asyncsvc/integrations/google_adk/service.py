"""The session service of ADK."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from asyncsvc.integrations.extras import needs_extra, require_services

with needs_extra("google-adk"):
    from google.adk.errors import StaleSessionError
    from google.adk.errors.already_exists_error import AlreadyExistsError
    from google.adk.errors.session_not_found_error import SessionNotFoundError
    from google.adk.sessions import BaseSessionService
    from google.adk.sessions.base_session_service import ListSessionsResponse

import asyncsvc
from asyncsvc.integrations.google_adk.events import session_of, turn_of
from asyncsvc.integrations.google_adk.session import StoredSession, find_sessions
from asyncsvc.integrations.google_adk.state import Delta, SharedStates

if TYPE_CHECKING:
    from google.adk.events import Event
    from google.adk.sessions import Session
    from google.adk.sessions.base_session_service import GetSessionConfig

    from asyncsvc import Services


class SessionService(BaseSessionService):  # type: ignore[misc]  # mypy does not read ADK
    """The sessions of the apps of one tenant, for ADK's `Runner`.

    Any number of services, in any number of tasks and processes, can use one session. An append
    raises StaleSessionError if another `Session` object has appended to the session meanwhile.

    An event is stored whole in the payload of its message. Role and text are stored too, and its id
    becomes the id of the message. An event of the user counts 1 round, and the usage is that of
    `usage_metadata`, with its model.
    """

    def __init__(self, svc: Services, *, tenant_id: str, token_id: str | None = None) -> None:
        """Use these services. No statement runs before the first call.

        Args:
            svc: The services, also those of a transaction.
            tenant_id: The tenant. The sessions and the states of its apps and users are its own.
            token_id: The API token to which the usage is attributed.
        """
        self._svc = require_services(svc)
        self._tenant_id = tenant_id
        self._token_id = token_id
        self._states = SharedStates(svc, tenant_id)
        self._locks = WeakValueDictionary[str, asyncio.Lock]()

    async def create_session(
        self,
        *,
        app_name: str,
        user_id: str,
        state: dict[str, Any] | None = None,
        session_id: str | None = None,
    ) -> Session:
        """Create a session. 2 round trips; up to 6 with values of the app or the user.

        Raises:
            AlreadyExistsError: The user has a session with this id in the app.
        """
        session_id = (session_id or "").strip() or str(uuid.uuid4())
        delta = Delta.of(state)
        new = self._stored(app_name, user_id, session_id)
        try:
            async with self._states.merging(app_name, user_id, delta) as svc:
                stored = await new.create(svc, {"session_id": session_id, "state": delta.session})
        except asyncsvc.AlreadyExists:
            raise AlreadyExistsError(f"Session with id {session_id} already exists.") from None
        shared = await self._states.of_users(app_name, [user_id])
        return session_of(stored, shared[user_id])

    async def get_session(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str,
        config: GetSessionConfig | None = None,
    ) -> Session | None:
        """Return a session with its events; None if it does not exist. 3 round trips."""
        try:
            stored, events = await self._stored(app_name, user_id, session_id).read(config)
        except asyncsvc.NotFound:
            return None
        shared = await self._states.of_users(app_name, [user_id])
        return session_of(stored, shared[user_id], events)

    async def list_sessions(
        self, *, app_name: str, user_id: str | None = None
    ) -> ListSessionsResponse:
        """Return the sessions without events, the last updated one last.

        2 round trips for up to 1,000 sessions.
        """
        stored = await find_sessions(self._svc, self._tenant_id, app_name, user_id)
        shared = await self._states.of_users(app_name, {each.user_id for each in stored})
        sessions = [session_of(each, shared[each.user_id]) for each in stored]
        sessions.sort(key=lambda each: (each.last_update_time, each.user_id, each.id))
        return ListSessionsResponse(sessions=sessions)

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Delete a session and its events. The states of app and user stay. 1 round trip."""
        await self._stored(app_name, user_id, session_id).delete()

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """Return the state of a user, without the prefix. 1 round trip."""
        return await self._states.of_user(app_name, user_id)

    async def append_event(self, session: Session, event: Event) -> Event:
        """Append an event. 1 round trip; 4 or 5 with values of the app or the user.

        An equal event that is appended again is stored once, so a call can be repeated after a lost
        connection. Another event with an id that the session has is stored too.

        Raises:
            StaleSessionError: The session has newer events. Get it again.
            SessionNotFoundError: The session was deleted, or never created.
        """
        if event.partial:
            return event
        delta = Delta.of(event.actions.state_delta)
        turn = turn_of(event, delta.session, self._svc.settings) | {"token_id": self._token_id}
        stored = self._stored(session.app_name, session.user_id, session.id)
        # One `Session` object has one place in the order of the events.
        async with self._locks.setdefault(stored.id, asyncio.Lock()):
            try:
                seq = await stored.append(turn, await stored.last_seq(session), self._states, delta)
            except asyncsvc.StaleSequence as error:
                raise StaleSessionError(f"{session.id} was modified in storage.") from error
            except asyncsvc.NotFound:
                raise SessionNotFoundError(f"Session {session.id} not found.") from None
            if seq is None:
                return event
            session.last_update_time = event.timestamp
            session._storage_update_marker = str(seq)  # noqa: SLF001 - as ADK's own stores do
            return await super().append_event(session, event)

    def _stored(self, app_name: str, user_id: str, session_id: str) -> StoredSession:
        id = session_id.strip()  # as ADK's own stores do
        return StoredSession(self._svc, self._tenant_id, app_name, user_id, id)
