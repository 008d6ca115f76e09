"""The statements of `sql/message`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal, NamedTuple

from pydantic import JsonValue

from asyncsvc.database import build_model, build_models, build_value
from asyncsvc.models import MessagePatch, MessageRecord, StoredMessage
from asyncsvc.models.columns import Bytes
from asyncsvc.repositories.base import (
    Repository,
    columns_to_set,
    escape_copy_text,
    to_json,
    to_json_apart,
)
from asyncsvc.repositories.large_rows import build_messages, build_payloads
from asyncsvc.threads import run_in_thread
from asyncsvc.validation.types import UNSET, UnsetType

_CHUNK_SIZE = 5_000
_NULL = "\\N"
_COLUMNS = (
    "tenant_id",
    "conversation_id",
    "seq",
    "id",
    "role",
    "content",
    "payload",
    "reference",
    "thumb",
    "created_at",
    "dialog_id",
    "conversation_created_at",
    "is_imported",
)


@dataclass(frozen=True, slots=True)
class DeletedMessages:
    """The result of a deletion of messages."""

    count: int
    """The number of deleted messages."""
    newest: StoredMessage | None
    """The deleted message, if the call was to delete only the newest and there was one."""


class _Digest(NamedTuple):
    """The digest of a conversation's messages up to a seq."""

    id: str
    digest: Bytes


class MessageOutline(NamedTuple):
    """What identifies a stored message."""

    seq: int
    id: str | None
    """The own id of the message."""
    source_id: str | None
    """The id in the payload: that of the export that the message came from."""
    role: str
    digest: Bytes
    """The SHA-256 of the content."""
    is_imported: bool
    """Whether an import stored the message, and not an append."""


class MessageRow(NamedTuple):
    """A message to store."""

    seq: int
    created_at: datetime
    message: MessageRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class NewConversationMessages:
    """The messages to store in a new conversation, and the columns that they copy from it."""

    id: str
    dialog_id: str
    created_at: datetime
    messages: Iterable[MessageRow]


class MessageRepository(Repository):
    """The statements on the messages of a conversation, except the append."""

    folder = "message"

    async def get_list(
        self,
        *,
        tenant_id: str,
        id: str,
        after_seq: int | UnsetType,
        before_seq: int | UnsetType,
        limit: int,
        part: Literal["first", "last"],
    ) -> list[StoredMessage] | None:
        """Return messages in the order of seq; None if the conversation does not exist."""
        rows = await self._rows(
            "get_list",
            part,
            tenant_id=tenant_id,
            id=id,
            after_seq=after_seq,
            before_seq=before_seq,
            limit=limit,
        )
        if not rows:
            return None
        return [] if rows[0]["seq"] is None else await build_messages(rows)

    async def payloads(
        self, *, tenant_id: str, id: str, user_id: str | UnsetType, newest: int | UnsetType
    ) -> list[dict[str, JsonValue]] | None:
        """Return payloads in the order of seq; None if the conversation does not exist."""
        rows = await self._rows(
            "payloads", tenant_id=tenant_id, id=id, user_id=user_id, newest=newest
        )
        if not rows:
            return None
        return [] if rows[0]["payload"] is None else await build_payloads(rows)

    async def copy(
        self, *, tenant_id: str, conversations: Iterable[NewConversationMessages]
    ) -> int:
        """Store the messages of new conversations by COPY; return their number.

        The driver writes the text of COPY, so this statement has no file.
        """
        data = await run_in_thread(partial(_copy_data, tenant_id, conversations))
        return await self._executor.copy(
            "message/copy", table="message", columns=_COLUMNS, data=data
        )

    async def digests(
        self, *, tenant_id: str, ids: Sequence[str], last_seqs: Sequence[int]
    ) -> dict[str, bytes]:
        """Return, by id, the digest of each conversation's messages up to a seq."""
        rows = await self._rows("digests", tenant_id=tenant_id, ids=ids, last_seqs=last_seqs)
        return {each.id: each.digest for each in build_models(_Digest, rows)}

    async def get_chunk(
        self, *, tenant_id: str, id: str, after_seq: int, last_seq: int, max_bytes: int
    ) -> list[StoredMessage]:
        """Return the next messages, up to the first one that reaches a number of bytes."""
        rows = await self._rows(
            "get_chunk",
            tenant_id=tenant_id,
            id=id,
            after_seq=after_seq,
            last_seq=last_seq,
            limit=_CHUNK_SIZE,
            max_bytes=max_bytes,
        )
        return await build_messages(rows)

    async def outline(
        self, *, tenant_id: str, id: str, after_seq: int, limit: int
    ) -> list[MessageOutline]:
        """Return what identifies the next messages of a conversation."""
        rows = await self._rows(
            "outline", tenant_id=tenant_id, id=id, after_seq=after_seq, limit=limit
        )
        return build_models(MessageOutline, rows)

    async def set_feedback(
        self, *, tenant_id: str, id: str, seq: int, thumb: int | None
    ) -> StoredMessage | None:
        """Set or remove the thumb of a message; None if the message does not exist."""
        rows = await self._rows("set_feedback", tenant_id=tenant_id, id=id, seq=seq, thumb=thumb)
        return build_model(StoredMessage, rows[0]) if rows else None

    async def update(
        self, *, tenant_id: str, id: str, seq: int, patch: MessagePatch
    ) -> StoredMessage | None:
        """Set columns of a message; None if the message does not exist."""
        rows = await self._rows(
            "update",
            tenant_id=tenant_id,
            id=id,
            seq=seq,
            patch=await to_json_apart(columns_to_set(patch)),
        )
        return build_model(StoredMessage, rows[0]) if rows else None

    async def change_dialog(self, *, tenant_id: str, ids: Sequence[str]) -> int:
        """Set the dialog of the messages of moved conversations; return their number."""
        (row,) = await self._rows("change_dialog", tenant_id=tenant_id, ids=ids)
        return build_value(int, row, "updated")

    async def delete(
        self, *, tenant_id: str, id: str, seq: int | Literal["newest", "all"]
    ) -> DeletedMessages | None:
        """Delete one message, the newest or all; None if the conversation does not exist."""
        newest = seq == "newest"
        rows = await self._rows(
            "delete",
            *(["newest"] if newest else []),
            tenant_id=tenant_id,
            id=id,
            seq=seq if isinstance(seq, int) else UNSET,
        )
        if not rows:
            return None
        count = build_value(int, rows[0], "deleted")
        is_shown = newest and count > 0
        return DeletedMessages(count, build_model(StoredMessage, rows[0]) if is_shown else None)


def _copy_data(tenant_id: str, conversations: Iterable[NewConversationMessages]) -> bytes:
    return "".join(
        line for conversation in conversations for line in _lines(tenant_id, conversation)
    ).encode()


def _lines(tenant_id: str, conversation: NewConversationMessages) -> Iterator[str]:
    """Return the messages of a conversation as lines of COPY's text format."""
    prefix = f"{escape_copy_text(tenant_id)}\t{escape_copy_text(conversation.id)}"
    suffix = f"{escape_copy_text(conversation.dialog_id)}\t{conversation.created_at}\ttrue"
    for seq, created_at, message in conversation.messages:
        payload = escape_copy_text(to_json(message.payload) or "") if message.payload else "{}"
        reference = to_json(message.reference)
        yield (
            f"{prefix}\t{seq}\t{_NULL if message.id is None else escape_copy_text(message.id)}\t"
            f"{escape_copy_text(message.role)}\t"
            f"{escape_copy_text(message.content)}\t{payload}\t"
            f"{_NULL if reference is None else escape_copy_text(reference)}\t"
            f"{_NULL if message.thumb is None else message.thumb}\t{created_at}\t{suffix}\n"
        )
