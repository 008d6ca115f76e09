"""Writes of whole rows of RAGFlow to the messages of stored conversations.

A row is a copy that its caller read earlier and then changed. Its `update_time` is the time of
that reading. Newer stored messages come from other callers, so they remain.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final

from asyncsvc.client import Services
from asyncsvc.models import Conversation, StoredMessage
from asyncsvc.ragflow.columns import SET_BY_APPEND, counter, references_of, split_messages
from asyncsvc.ragflow.messages import (
    MessageFields,
    answers_of,
    append,
    attach_references,
    common_length,
    is_same,
    without_equal,
    without_known,
)
from asyncsvc.ragflow.shapes import conversation_row, milliseconds, times

_TAIL_LENGTH: Final = 20
_BEFORE: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class RowWriter:
    """Writes the messages of rows to conversations of one tenant."""

    svc: Services
    tenant_id: str
    local: tzinfo

    async def append(self, id: str, row: MutableMapping[str, Any]) -> None:
        """Append the new messages of a row.

        Raises NotFound, and StaleSequence if another caller appended meanwhile.
        """
        conversations = self.svc.conversations
        before = await conversations.get_by_id(id, tenant_id=self.tenant_id, include_dsl=False)
        new, others = await self._new_messages(before, row)
        columns = {name: row[name] for name in SET_BY_APPEND & row.keys()}
        if new:
            turn = {
                "tokens": max(0, counter(row, "tokens") - before.tokens),
                "duration": max(0.0, counter(row, "duration") - before.duration),
                **columns,
            }
            await self._append(before, turn, new)
        elif columns:
            await conversations.update_by_id(id, columns, tenant_id=self.tenant_id)
        self._set_version(row, others)

    async def replace(self, stored: Conversation, data: MutableMapping[str, Any]) -> None:
        """Replace the messages of a conversation by those of a row.

        Equal messages at the start remain, with the new references, thumbs and other values.
        """
        row = {**conversation_row(stored, self.local), **data}
        old, new = stored.messages or (), split_messages(row)
        common = common_length(old, new)
        others, known = _split_by_version(old[common:], data.get("update_time"))
        attach_references(
            new,
            references_of(row, stored),
            new_from=common,
            has_references=_has_references([*old[:common], *known]),
        )
        for message, fields in zip(old[:common], new, strict=False):
            await self._set_message(stored.id, message, fields)
        for message in known:
            await self.svc.conversations.delete_message(
                stored.id, message.seq, tenant_id=self.tenant_id
            )
        if added := without_equal(new[common:], others):
            await self._append(stored, {"round": 0}, added)
        self._set_version(data, without_known(others, new[common:]))

    async def _new_messages(
        self, before: Conversation, row: Mapping[str, Any]
    ) -> tuple[list[MessageFields], list[StoredMessage]]:
        """Return the new messages of a row, and the stored messages that the row lacks.

        New messages begin after the common start of both. A message is not new if another caller
        stored one with the same id after that start. Messages after the `last_seq` of `before` are
        ignored.

        1 round trip if the stored conversation is the start of the row; otherwise 2, and all
        stored messages are read. Raises NotFound if the conversation was deleted meanwhile.
        """
        messages, references = split_messages(row), references_of(row, before)
        last_seq = before.last_seq
        tail = await self.svc.conversations.messages(
            before.id, tenant_id=self.tenant_id, last=_TAIL_LENGTH
        )
        tail = [message for message in tail if message.seq <= last_seq]
        if (
            len(messages) >= last_seq
            and _ends_with(messages[:last_seq], tail)
            and (len(tail) == last_seq or _is_clear(messages, references, tail, last_seq))
        ):
            stored, common = tail, last_seq
            others: Sequence[StoredMessage] = ()
        else:
            whole = await self.svc.conversations.get_by_id(
                before.id, tenant_id=self.tenant_id, include_dsl=False, include_messages=True
            )
            stored = [message for message in whole.messages or () if message.seq <= last_seq]
            common = common_length(stored, messages)
            stored, others = stored[:common], stored[common:]
        attach_references(
            messages, references, new_from=common, has_references=_has_references(stored)
        )
        added = messages[common:]
        return without_equal(added, others), without_known(others, added)

    async def _append(
        self, stored: Conversation, turn: Mapping[str, object], messages: list[MessageFields]
    ) -> None:
        await append(
            self.svc,
            stored.id,
            turn,
            messages,
            tenant_id=self.tenant_id,
            expected_seq=stored.last_seq,
        )

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

    def _set_version(self, row: MutableMapping[str, Any], others: Sequence[StoredMessage]) -> None:
        """Set the row's times to now, or to a time before the messages that the row lacks."""
        moment = min((each.created_at - _BEFORE for each in others), default=datetime.now(UTC))
        columns = times(moment, moment, self.local)
        row.update({name: columns[name] for name in ("update_time", "update_date")})


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
