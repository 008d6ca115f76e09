"""Stores repaired conversations of one tenant, and appends new messages to stored ones."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from asyncsvc.client import Services
from asyncsvc.errors import AlreadyExists, AsyncSvcError, Conflict, InvalidInput, NotFound
from asyncsvc.models import Conversation
from asyncsvc.ragflow.messages import MessageFields, append, turn_message
from asyncsvc.ragflow.repair import ConversationFields, RepairedConversation
from asyncsvc.ragflow.reports import Progress, Skip, TableReport
from asyncsvc.ragflow.source import CONVERSATIONS
from asyncsvc.settings import Settings
from asyncsvc.validation.json_values import json_text

Counter = Literal["round", "tokens", "duration"]
_MAX_PER_TURN: Final[Mapping[Counter, float]] = {
    "round": 1_000,
    "tokens": 10**12,
    "duration": 10.0**9,
}
"""The largest growth of a counter by one append."""


async def import_conversations(
    svc: Services, rows: Sequence[RepairedConversation], progress: Progress, *, tenant_id: str
) -> None:
    """Store new conversations, and append the new messages of stored ones."""
    rejected = dict[int, AsyncSvcError]()
    try:
        report = await svc.conversations.import_(
            (row.fields for row in rows), tenant_id=tenant_id, on_rejected=rejected.__setitem__
        )
    except InvalidInput as error:
        if error.field != "tenant_id":
            raise
        rejected = dict.fromkeys(range(len(rows)), error)
    else:
        progress.conversations += TableReport(imported=report.conversations, present=report.present)
        progress.messages += report.messages
    stored = _StoredConversations(svc, tenant_id, progress)
    for index, row in enumerate(rows):
        if index not in rejected or await stored.update_or_skip(row.fields, rejected[index]):
            progress.repair(row.fields["id"], row.repairs)


@dataclass(frozen=True, slots=True)
class _StoredConversations:
    """The conversations of the tenant that an import rejected because they are stored."""

    svc: Services
    tenant_id: str
    progress: Progress

    async def update_or_skip(self, fields: ConversationFields, error: AsyncSvcError) -> bool:
        """Append new messages, or skip the conversation; return whether it is stored now."""
        id = fields["id"]
        if not isinstance(error, AlreadyExists):
            self.progress.skip(CONVERSATIONS, id, Skip.REJECTED, str(error))
            return False
        try:
            appended = await self._update(fields)
        except InvalidInput as invalid:
            self.progress.skip(CONVERSATIONS, id, Skip.REJECTED, str(invalid))
            return False
        if appended is None:
            reason = "a conversation with this id and other messages is stored"
            self.progress.skip(CONVERSATIONS, id, Skip.DIVERGED, reason)
            return False
        self.progress.conversations += TableReport(updated=appended > 0, present=appended == 0)
        self.progress.messages += appended
        return True

    async def _update(self, fields: ConversationFields) -> int | None:
        """Append new messages; return their number, or None if the conversation diverged.

        It tries twice: a concurrent writer may be another import that appends the same messages.
        """
        for _ in range(2):
            with suppress(Conflict, NotFound):
                return await self._append_new_messages(fields)
        return None

    async def _append_new_messages(self, fields: ConversationFields) -> int | None:
        messages = fields["messages"]
        stored = await self.svc.conversations.get_by_id(
            fields["id"], tenant_id=self.tenant_id, include_dsl=False, include_messages=True
        )
        if not _is_start(stored, messages):
            return None
        if missing := len(messages) - stored.last_seq:
            async with self.svc.transaction() as tx:
                await self._append(tx, stored, fields)
        return missing

    async def _append(self, tx: Services, stored: Conversation, fields: ConversationFields) -> None:
        """Append the new messages turn by turn, and distribute the growth of the counters."""
        new = list(_with_uncounted_thumbs(fields["messages"], stored))
        growth: dict[Counter, float] = {
            name: max((fields[name] or 0) - getattr(stored, name), 0) for name in _MAX_PER_TURN
        }
        last_seq = stored.last_seq
        for messages in _turns(new, self.svc.conversations.settings, _min_turns(growth, len(new))):
            counted: dict[str, float] = {
                name: min(rest, _MAX_PER_TURN[name]) for name, rest in growth.items()
            }
            appended = await append(
                tx,
                stored.id,
                {**counted, "errors": fields["errors"], "dsl": fields["dsl"]},
                messages,
                tenant_id=self.tenant_id,
                expected_seq=last_seq,
            )
            last_seq = appended.last_seq
            growth = {name: rest - counted[name] for name, rest in growth.items()}


def _is_start(stored: Conversation, messages: Sequence[MessageFields]) -> bool:
    """Return whether the stored messages are complete and `messages` begins with them."""
    ours = stored.messages or ()
    return (
        len(ours) <= len(messages)
        and stored.last_seq == len(ours)
        and all(
            (message.seq, message.role, message.content)
            == (seq, fields["role"], unicodedata.normalize("NFC", fields["content"]))
            for seq, (message, fields) in enumerate(zip(ours, messages, strict=False), start=1)
        )
    )


def _with_uncounted_thumbs(
    messages: Sequence[MessageFields], stored: Conversation
) -> Iterator[MessageFields]:
    """Yield the new messages, without thumbs up that are already counted.

    If only the row counts a thumb, an earlier import may have assigned it to an earlier answer.
    """
    uncounted = sum(message["thumb"] == 1 for message in messages) - stored.thumb_up
    for message in messages[stored.last_seq :]:
        is_up = message["thumb"] == 1
        yield {**message, "thumb": None} if is_up and uncounted <= 0 else message
        uncounted -= is_up


def _min_turns(growth: Mapping[Counter, float], messages: int) -> int:
    """Return the smallest number of turns whose counters can add up to the growth.

    Raises InvalidInput if there are fewer messages than turns.
    """
    turns = {name: math.ceil(growth[name] / _MAX_PER_TURN[name]) for name in growth}
    name = max(turns, key=lambda each: turns[each])
    if turns[name] > messages:
        raise InvalidInput(name, "has grown too much for the number of new messages")
    return max(turns[name], 1)


def _turns(
    messages: Sequence[MessageFields], settings: Settings, min_turns: int
) -> Iterator[list[MessageFields]]:
    """Split messages into turns within the limits of an append, at least `min_turns` of them."""
    max_messages = min(settings.max_batch_size, len(messages) // min_turns)
    max_bytes = settings.max_batch_bytes // 2  # a turn also carries the dsl and the errors
    turn, size = list[MessageFields](), 0
    for message in messages:
        message_size = sum(len(json_text(it).encode()) for it in turn_message(message).values())
        if turn and (len(turn) == max_messages or size + message_size > max_bytes):
            yield turn
            turn, size = [], 0
        turn.append(message)
        size += message_size
    if turn:
        yield turn
