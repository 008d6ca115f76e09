"""`sql/message`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from asyncsvc.models import MessageRecord, StoredMessage
from asyncsvc.repositories.base import (
    Repository,
    build_model,
    build_models,
    escape_copy_text,
    to_json,
)
from asyncsvc.validation.types import UnsetType

_NULL = "\\N"
_COLUMNS = (
    "tenant_id",
    "conversation_id",
    "seq",
    "role",
    "content",
    "payload",
    "reference",
    "thumb",
    "created_at",
    "dialog_id",
    "conversation_created_at",
)


class MessageRepository(Repository):
    """The statements about the messages of a conversation, but for the append."""

    folder = "message"

    async def get_list(
        self,
        *,
        tenant_id: str,
        id: str,
        after_seq: int | UnsetType,
        before_seq: int | UnsetType,
        limit: int,
        order: str,
    ) -> list[StoredMessage] | None:
        """Return messages in the order of seq; None when there is no conversation."""
        rows = await self._rows(
            "get_list",
            order,
            tenant_id=tenant_id,
            id=id,
            after_seq=after_seq,
            before_seq=before_seq,
            limit=limit,
        )
        if not rows:
            return None
        return build_models(StoredMessage, (row for row in rows if row["seq"] is not None))

    async def copy(
        self,
        *,
        tenant_id: str,
        conversations: Iterable[
            tuple[str, str, datetime, Iterable[tuple[int, MessageRecord, datetime]]]
        ],
    ) -> int:
        """Store the messages of conversations, each with its seq and time; return how many.

        A conversation is given as its id, its dialog and its creation. It is COPY, whose text the
        driver writes: the one statement without a file.
        """
        lines = "".join(
            _line(prefix, suffix, *message)
            for id, dialog_id, created_at, messages in conversations
            for prefix in (f"{escape_copy_text(tenant_id)}\t{escape_copy_text(id)}",)
            for suffix in (f"{escape_copy_text(dialog_id)}\t{created_at}",)
            for message in messages
        )
        return await self._executor.copy(
            "message/copy", table="message", columns=_COLUMNS, data=lines.encode()
        )

    async def digests(
        self, *, tenant_id: str, ids: Sequence[str], last_seqs: Sequence[int]
    ) -> dict[str, bytes]:
        """Return the digest of each conversation's messages up to a seq."""
        rows = await self._rows("digests", tenant_id=tenant_id, ids=ids, last_seqs=last_seqs)
        return {row["id"]: row["digest"] for row in rows}

    async def set_thumb(
        self, *, tenant_id: str, id: str, seq: int, thumb: int | None
    ) -> StoredMessage | None:
        """Set the thumb; None when there is no such message."""
        rows = await self._rows("set_thumb", tenant_id=tenant_id, id=id, seq=seq, thumb=thumb)
        return build_model(StoredMessage, rows[0]) if rows else None

    async def update(
        self, *, tenant_id: str, id: str, seq: int, patch: Mapping[str, object]
    ) -> StoredMessage | None:
        """Set columns; None when there is no such message."""
        rows = await self._rows("update", tenant_id=tenant_id, id=id, seq=seq, patch=to_json(patch))
        return build_model(StoredMessage, rows[0]) if rows else None

    async def move(self, *, tenant_id: str, ids: Sequence[str]) -> int:
        """Take the messages of conversations along to another dialog; return how many."""
        (row,) = await self._rows("move", tenant_id=tenant_id, ids=ids)
        return int(row["moved"])

    async def delete(self, *, tenant_id: str, id: str, seq: int) -> int:
        """Delete one message; return how many there were."""
        return await self._count("delete", tenant_id=tenant_id, id=id, seq=seq)

    async def clear(self, *, tenant_id: str, id: str) -> int:
        """Delete all messages; return how many there were."""
        return await self._count("clear", tenant_id=tenant_id, id=id)

    async def pop(self, *, tenant_id: str, id: str) -> list[StoredMessage] | None:
        """Take the last message off: a list of it, or of none; None without a conversation."""
        rows = await self._rows("pop", tenant_id=tenant_id, id=id)
        if not rows:
            return None
        return build_models(StoredMessage, (row for row in rows if row["seq"] is not None))


def _line(prefix: str, suffix: str, seq: int, message: MessageRecord, created_at: datetime) -> str:
    """Write a message as a line of COPY's text format, tabs between its values."""
    payload = escape_copy_text(to_json(message.payload) or "") if message.payload else "{}"
    reference = to_json(message.reference)
    return (
        f"{prefix}\t{seq}\t{escape_copy_text(message.role)}\t{escape_copy_text(message.content)}\t{payload}\t"
        f"{_NULL if reference is None else escape_copy_text(reference)}\t"
        f"{_NULL if message.thumb is None else message.thumb}\t{created_at}\t{suffix}\n"
    )
