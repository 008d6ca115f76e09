"""The conversation of one session of ADK, and the list of those of an app."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from google.adk.sessions.base_session_service import GetSessionConfig

from asyncsvc import ANY, AlreadyExists, StaleSequence
from asyncsvc.integrations.google_adk.events import is_event, is_session, item_of, updated_at
from asyncsvc.integrations.message_log import MessageLog, Owner
from asyncsvc.integrations.packing import pack_id

if TYPE_CHECKING:
    from google.adk.sessions import Session

    from asyncsvc import Conversation, Services
    from asyncsvc.integrations.google_adk.state import Delta, SharedStates


class StoredSession:
    """The conversation of a session, whose id is unique only for a user of an app."""

    def __init__(
        self, svc: Services, tenant_id: str, app_name: str, user_id: str, session_id: str
    ) -> None:
        """Name the session. No statement runs before the first call."""
        self.id = pack_id(app_name, user_id, session_id)
        self._svc = svc
        self._app_name = app_name
        self._owner: Owner = {"tenant_id": tenant_id, "user_id": user_id}

    async def create(self, svc: Services, dsl: dict[str, Any]) -> Conversation:
        """Create the conversation with these services."""
        return await svc.conversations.create(
            id=self.id, dialog_id=self._app_name, dsl=dsl, **self._owner
        )

    async def read(
        self, config: GetSessionConfig | None
    ) -> tuple[Conversation, list[dict[str, Any]]]:
        """Return the conversation and its newest events within the limits of `config`.

        Events that are appended between the statements are returned too. Their session is stale.
        """
        stored = await self._svc.conversations.get_by_id(self.id, **self._owner)
        newest = config.num_recent_events if config else None
        since = config.after_timestamp if config else None
        if newest == 0:
            return stored, []
        if since:
            return stored, await self._read_since(since, newest)
        log = MessageLog(self.id, self._svc, dialog_id=self._app_name, **self._owner)
        return stored, await log.read(newest, is_item=is_event, item=item_of)

    async def _read_since(self, since: float, newest: int | None) -> list[dict[str, Any]]:
        """Return the newest events that are not older than a time."""
        conversations = self._svc.conversations
        # The bound is exclusive, ADK's is inclusive.
        after = datetime.fromtimestamp(since, UTC) - timedelta(microseconds=1)
        if newest is not None and newest <= self._svc.settings.max_page_size:
            messages = await conversations.messages(
                self.id, **self._owner, after=after, last=newest
            )
            return [item_of(each) for each in messages]
        rows = conversations.iter_messages(self.id, **self._owner, after=after)
        return list(deque([item_of(each) async for each in rows], maxlen=newest))

    async def delete(self) -> None:
        """Delete the conversation."""
        await self._svc.conversations.delete_by_id(self.id, **self._owner)

    async def last_seq(self, session: Session) -> int:
        """Return the `seq` of the last event that a session knows.

        No statement, if it was read from here. Another one must be as new as the conversation, or
        have its last event.

        Raises:
            StaleSequence: The conversation has newer events.
        """
        marker = session._storage_update_marker  # noqa: SLF001 - as ADK's own stores do
        if marker is not None:
            return int(marker)
        stored, newest = await self.read(GetSessionConfig(num_recent_events=1))
        known = [each.id for each in session.events[-1:]]
        if session.last_update_time < updated_at(stored) and known != [e["id"] for e in newest]:
            raise StaleSequence("the session has newer events")
        return stored.last_seq

    async def append(
        self, turn: dict[str, Any], last_seq: int, states: SharedStates, delta: Delta
    ) -> int | None:
        """Store the turn of an event and the changes of the states, all of them or none.

        Returns:
            The `seq` of the event; None if `last_seq` includes it already.
        """
        (message,) = turn["messages"]
        try:
            return await self._append(turn, last_seq, states, delta)
        except AlreadyExists:
            get_message = self._svc.conversations.get_message
            equal = await get_message(self.id, message["id"], **self._owner)
        if equal.payload == message["payload"]:
            return equal.seq if equal.seq == last_seq + 1 else None
        turn = turn | {"messages": [message | {"id": None}]}
        return await self._append(turn, last_seq, states, delta)

    async def _append(
        self, turn: dict[str, Any], last_seq: int, states: SharedStates, delta: Delta
    ) -> int:
        async with states.merging(self._app_name, self._owner["user_id"], delta) as svc:
            appended = await svc.conversations.append_message(
                self.id, turn, expected_seq=last_seq, **self._owner
            )
        return appended.last_seq


async def find_sessions(
    svc: Services, tenant_id: str, app_name: str, user_id: str | None
) -> list[Conversation]:
    """Return the sessions of an app, or of one of its users, in pages of the largest size."""
    sessions: list[Conversation] = []
    after = None
    while True:
        page = await svc.conversations.get_list(
            tenant_id=tenant_id,
            dialog_id=app_name,
            user_id=ANY if user_id is None else user_id,
            items_per_page=svc.settings.max_page_size,
            total="none",
            after=after,
        )
        sessions += filter(is_session, page.items)
        after = page.next
        if after is None:
            return sessions
