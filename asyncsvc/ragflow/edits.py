"""Writes of whole rows of RAGFlow to the messages of stored conversations.

A row is a copy that its caller read earlier and then changed. Its `update_time` is the time of
that reading. Newer stored messages come from other callers, so they remain. A row of `get_by_id`
also has a state, so its messages need no comparison: see `asyncsvc.ragflow.row_state`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, NamedTuple

from asyncsvc.client import AsyncSvc, Services
from asyncsvc.errors import StaleSequence
from asyncsvc.models import Appended, Conversation, ModelLike, StoredMessage, Turn, as_model
from asyncsvc.ragflow.columns import SET_BY_APPEND, counter, references_of, split_messages
from asyncsvc.ragflow.messages import (
    UNKNOWN_ROLE,
    Key,
    MessageFields,
    answers_of,
    append,
    attach_references,
    common_length,
    is_same,
    key,
    only_stored,
    stored_key,
    turn_message,
    without_equal,
)
from asyncsvc.ragflow.row_state import (
    Queue,
    RowMessages,
    RowState,
    Snapshot,
    queue_of,
    state_of,
)
from asyncsvc.ragflow.shapes import conversation_row, milliseconds, times
from asyncsvc.repositories import ConversationRepository, SessionRepository
from asyncsvc.services.common import row_or_not_found
from asyncsvc.settings import Settings
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.types import UNSET, Id, Seq

_TAIL_LENGTH: Final = 20
_BEFORE: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class RowWriter:
    """Writes the messages of rows to conversations of one tenant."""

    svc: Services
    tenant_id: str
    local: tzinfo

    @property
    def settings(self) -> Settings:
        """The settings, with the limits that turns are validated against."""
        return self.svc.conversations.settings

    async def append(self, id: str, row: MutableMapping[str, Any]) -> None:
        """Append the new messages of a row.

        If the row has a state and no other process appended since, 1 statement appends what follows
        the messages of the state. Callers of this process wait for each other without a connection,
        and know what the others appended. Otherwise the conversation is locked.

        Raises:
            NotFound: The conversation does not exist.
        """
        if not isinstance(self.svc, AsyncSvc):  # the caller may have locked the conversation
            self.remember(row, await self._append_row(id, row, None))
            return
        queue = queue_of(self.svc._executor, self.tenant_id, id)  # noqa: SLF001 - of the same library
        async with queue.lock:
            after = await self._append_row(id, row, queue)
        self.remember(row, after)

    async def _append_row(
        self, id: str, row: MutableMapping[str, Any], queue: Queue | None
    ) -> RowState:
        """Append the new messages of a row."""
        state = state_of(row, self.tenant_id, id)
        if state is not None:
            before, tail = await self._latest(state, queue)
            additions = _additions(state, row, tail)
            if not any(each["thumb"] for each in additions.new):  # thumbs need a transaction
                with contextlib.suppress(StaleSequence):
                    after = await self._append(before, row, additions, is_locked=False)
                    if queue is not None:
                        queue.set_state(after, before.last_seq, list(map(key, additions.new)))
                    return after
        async with self.svc.transaction() as tx:
            writer = RowWriter(tx, self.tenant_id, self.local)
            after = await writer._append_to_locked(id, row, state)
        if queue is not None:
            queue.set_state(after, after.last_seq, [])
        return after

    async def _latest(self, state: RowState, queue: Queue | None) -> tuple[RowState, list[Key]]:
        """Return the state after the previous append, and the messages since `state`."""
        latest = None if queue is None else queue.state
        if (
            queue is None
            or latest is None
            or latest.created_at != state.created_at
            or latest.last_seq <= state.last_seq
        ):
            return state, []
        tail = queue.appended_after(state.last_seq)
        if tail is None:
            stored = await self._messages_after(state.id, state.last_seq)
            tail = list(map(stored_key, stored))
        return latest, tail

    async def _append_to_locked(
        self, id: str, row: MutableMapping[str, Any], state: RowState | None
    ) -> RowState:
        stored = row_or_not_found(await self.lock(id), "conversation")
        if (
            state is None
            or state.created_at != stored.created_at  # it was stored again under its id
            or state.last_seq > stored.last_seq  # even with its old created_at
        ):
            additions = await self._compare(stored, row)
        else:
            tail = await self._messages_after(id, state.last_seq)
            additions = _additions(state, row, list(map(stored_key, tail)))
        before = RowState.of(stored, additions.messages)
        return await self._append(before, row, additions, is_locked=True)

    async def lock(self, id: str) -> Conversation | None:
        """Lock a conversation until the end of the transaction; None if it does not exist."""
        repository = SessionRepository(self.svc._executor)  # noqa: SLF001 - of the same library
        return await repository.lock(tenant_id=self.tenant_id, id=id)

    async def _messages_after(self, id: str, seq: int) -> list[StoredMessage]:
        """Return all messages after a seq."""
        size = self.settings.max_page_size
        messages = list[StoredMessage]()
        while True:
            page = await self.svc.conversations.messages(
                id, tenant_id=self.tenant_id, after=seq, limit=size
            )
            messages += page
            if len(page) < size:
                return messages
            seq = page[-1].seq

    async def _append(
        self,
        before: RowState,
        row: MutableMapping[str, Any],
        additions: Additions,
        *,
        is_locked: bool,
    ) -> RowState:
        """Append messages, and set the version of the row; or set the columns alone.

        Raises StaleSequence if `before` is not the state of the conversation.
        """
        columns = {name: row[name] for name in SET_BY_APPEND & row.keys()}
        tokens = max(0, counter(row, "tokens") - before.tokens)
        duration = max(0.0, counter(row, "duration") - before.duration)
        state = replace(
            before,
            has_references=additions.has_references,
            messages=additions.messages,
            others=additions.others,
        )
        if not additions.new:
            await self._set_columns(before, columns)
            return state
        turn = {"tokens": tokens, "duration": duration, **columns}
        last_seq = await self._append_turn(before, turn, additions.new, is_locked=is_locked)
        if additions.seen_until is not None or not additions.others:
            self._set_version(row, additions.seen_until)
        return replace(
            state,
            last_seq=last_seq,
            tokens=before.tokens + tokens,
            duration=before.duration + duration,
        )

    async def _set_columns(self, before: RowState, columns: Mapping[str, object]) -> None:
        """Set columns. Raises StaleSequence if another conversation was stored under the id."""
        conversations = self.svc.conversations
        if columns:
            stored = await conversations.update_by_id(before.id, columns, tenant_id=self.tenant_id)
        else:
            stored = await conversations.get_by_id(
                before.id, tenant_id=self.tenant_id, include_dsl=False
            )
        if stored.created_at != before.created_at:
            raise StaleSequence("the conversation was stored again")

    def remember(self, row: Mapping[str, Any], state: RowState) -> None:
        """Remember the state of the conversation for the next append of the row.

        A transaction of the caller may roll back, so rows within it have no state.
        """
        messages = row.get("message")
        if isinstance(messages, RowMessages):
            messages.state = state if isinstance(self.svc, AsyncSvc) else None

    async def replace(self, stored: Conversation, data: MutableMapping[str, Any]) -> RowState:
        """Replace the messages of a locked conversation by those of a row.

        Equal messages at the start remain, with the new references, thumbs and other values.
        """
        row = {**conversation_row(stored, self.local), **data}
        state = RowState.of(stored, Snapshot.of(row["message"] or []))
        old, new = stored.messages or (), split_messages(row)
        common = common_length(old, new)
        newer, older = _split_by_version(old[common:], data.get("update_time"))
        attach_references(
            new,
            references_of(row, stored),
            new_from=common,
            has_references=_has_references([*old[:common], *older]),
        )
        for message, fields in zip(old[:common], new, strict=False):
            await self._set_message(stored.id, message, fields)
        for message in older:
            await self.svc.conversations.delete_message(
                stored.id, message.seq, tenant_id=self.tenant_id
            )
        last_seq = stored.last_seq
        keys = list(map(stored_key, newer))
        if added := without_equal(new[common:], keys):
            last_seq = await self._append_turn(state, {"round": 0}, added, is_locked=True)
        others = only_stored(keys, new[common:])
        self._set_version(data, _before(newer, others))
        return replace(
            state,
            last_seq=last_seq,
            has_references=any(each.get("reference") is not None for each in new),
            others=others,
        )

    async def _compare(self, before: Conversation, row: Mapping[str, Any]) -> Additions:
        """Compare a row with the messages of a locked conversation.

        New messages begin after the common start of both. A message is not new if another caller
        stored one with the same id after that start.

        1 round trip if the stored conversation is the start of the row; otherwise 2, and all
        stored messages are read.
        """
        messages, references = split_messages(row), references_of(row, before)
        snapshot = Snapshot.of(row.get("message") or [])
        conversations, last_seq = self.svc.conversations, before.last_seq
        tail = await conversations.messages(before.id, tenant_id=self.tenant_id, last=_TAIL_LENGTH)
        if (
            len(messages) >= last_seq
            and _ends_with(messages[:last_seq], tail)
            and (len(tail) == last_seq or _is_clear(messages, references, tail, last_seq))
        ):
            stored, common = tail, last_seq
            others: Sequence[StoredMessage] = ()
        else:
            whole = await conversations.get_by_id(
                before.id, tenant_id=self.tenant_id, include_dsl=False, include_messages=True
            )
            stored = list(whole.messages or ())
            common = common_length(stored, messages)
            stored, others = stored[:common], stored[common:]
        has_references = _has_references(stored)
        attach_references(messages, references, new_from=common, has_references=has_references)
        keys = list(map(stored_key, others))
        additions = _compared(messages[common:], keys, snapshot, has_references=has_references)
        return additions._replace(seen_until=_before(others, additions.others))

    async def _append_turn(
        self,
        before: RowState,
        turn: Mapping[str, object],
        messages: list[MessageFields],
        *,
        is_locked: bool,
    ) -> int:
        """Append a turn to the state `before`; return the new last_seq.

        Raises StaleSequence if `before` is not the state of the conversation.
        """
        if is_locked:
            appended = await append(
                self.svc,
                before.id,
                turn,
                messages,
                tenant_id=self.tenant_id,
                expected_seq=before.last_seq,
            )
        else:
            appended = await self._append_unlocked(
                before.id,
                {**turn, "messages": [turn_message(each) for each in messages]},
                expected_seq=before.last_seq,
                created_at=before.created_at,
            )
        return appended.last_seq

    @validated
    async def _append_unlocked(
        self, id: Id, turn: ModelLike[Turn], *, expected_seq: Seq, created_at: datetime
    ) -> Appended:
        """Append a turn without thumbs by 1 statement, or raise StaleSequence.

        The service has no condition on `created_at`, so this calls the repository. Without it the
        turn could be appended to another conversation that was stored under the id.
        """
        appended = await ConversationRepository(self.svc._executor).append_message(  # noqa: SLF001 - of the same library
            tenant_id=self.tenant_id,
            id=id,
            turn=as_model(Turn, turn),
            expected_seq=expected_seq,
            created_at=created_at,
            idempotency_key=UNSET,
            body_hash=UNSET,
        )
        if appended is None:
            raise StaleSequence("the conversation changed or was stored again")
        return appended

    async def _set_message(self, id: str, message: StoredMessage, fields: MessageFields) -> None:
        """Set the reference, payload and thumb of a message whose text remains."""
        columns = {"reference": fields.get("reference"), "payload": fields["payload"]}
        patch = {name: it for name, it in columns.items() if it != getattr(message, name)}
        conversations = self.svc.conversations
        if patch:
            await conversations.update_message(id, message.seq, patch, tenant_id=self.tenant_id)
        if fields["thumb"] != message.thumb:
            await conversations.set_feedback(
                id, message.seq, fields["thumb"], tenant_id=self.tenant_id
            )

    def _set_version(self, row: MutableMapping[str, Any], seen_until: datetime | None) -> None:
        """Set the row's times to now, or to the time until which it contains all messages."""
        moment = datetime.now(UTC) if seen_until is None else seen_until
        columns = times(moment, moment, self.local)
        row.update({name: columns[name] for name in ("update_time", "update_date")})


class Additions(NamedTuple):
    """The new messages of a row, and the stored messages that the row lacks."""

    new: list[MessageFields]
    others: list[Key]
    """Messages of other callers that the row lacks."""
    messages: Snapshot
    """All messages of the row."""
    has_references: bool
    seen_until: datetime | None = None
    """A time before `others`. None: the row has such a time, since its caller read it before."""


def _before(stored: Sequence[StoredMessage], keys: Collection[Key]) -> datetime | None:
    """Return a time before the stored messages with these keys, if there are any."""
    times = [each.created_at for each in stored if stored_key(each) in keys]
    return min(times) - _BEFORE if times else None


def _additions(state: RowState, row: Mapping[str, Any], tail: Sequence[Key]) -> Additions:
    """Return what a row adds to the messages of its state; `tail` was stored since."""
    messages, references = row["message"], row.get("reference") or []
    count = len(state.messages.messages)
    old, new = messages[:count], messages[count:]
    fields = split_messages({"message": new})
    if references:
        attach_references(
            [*map(_with_role_alone, old), *fields],
            references,
            new_from=len(old),
            has_references=state.has_references,
        )
    others = [*state.others, *tail]
    return _compared(fields, others, Snapshot.of(messages), has_references=state.has_references)


def _with_role_alone(message: Mapping[str, Any]) -> MessageFields:
    return {"role": message.get("role", UNKNOWN_ROLE), "content": "", "payload": {}, "thumb": None}


def _compared(
    added: Sequence[MessageFields],
    others: Sequence[Key],
    messages: Snapshot,
    *,
    has_references: bool,
) -> Additions:
    """Return the messages without an equal one of another caller."""
    new = without_equal(added, others)
    return Additions(
        new,
        only_stored(others, added),
        messages,
        has_references or any(each.get("reference") is not None for each in new),
    )


def _has_references(stored: Sequence[StoredMessage]) -> bool:
    return any(message.reference is not None for message in stored)


def _split_by_version(
    stored: Sequence[StoredMessage], update_time: object
) -> tuple[list[StoredMessage], list[StoredMessage]]:
    """Return the messages that are newer than the row, and the others.

    A row without `update_time` is newer than all messages.
    """
    if not isinstance(update_time, int | float):
        return [], list(stored)
    newer = [each for each in stored if milliseconds(each.created_at) > update_time]
    return newer, [each for each in stored if milliseconds(each.created_at) <= update_time]


def _ends_with(messages: Sequence[MessageFields], tail: Sequence[StoredMessage]) -> bool:
    """Return whether the messages end with the stored ones.

    Messages without an id count only if the tail is the whole conversation, because a text may
    occur twice.
    """
    return len(tail) == min(len(messages), _TAIL_LENGTH) and all(
        is_same(stored, each) and (each["payload"].get("id") or len(tail) == len(messages))
        for stored, each in zip(tail, messages[len(messages) - len(tail) :], strict=True)
    )


def _is_clear(
    messages: Sequence[MessageFields],
    references: Sequence[Any],
    tail: Sequence[StoredMessage],
    last_seq: int,
) -> bool:
    """Return whether the last messages suffice to assign the references to answers.

    A list that is too short for the old answers belongs to the new answers. A list that is too long
    for the new answers belongs to all answers. Otherwise a reference of an old answer decides.
    """
    old, new = answers_of(messages[:last_seq]), answers_of(messages[last_seq:])
    return _has_references(tail) or not len(old) - 1 <= len(references) <= len(new)
