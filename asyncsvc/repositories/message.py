"""The statements of `sql/message`."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from asyncsvc.database import build_model, build_models, build_value
from asyncsvc.errors import NotFound
from asyncsvc.models import Conversation, FoundMessage, Message, MessagePatch, StoredMessage
from asyncsvc.models.columns import Bytes
from asyncsvc.repositories.base import (
    Repository,
    escape_copy_text,
    json_unless_unset,
    to_json,
    to_json_apart,
)
from asyncsvc.repositories.conversation_rows import ConversationRow, columns_to_create
from asyncsvc.repositories.large_rows import build_payloads, build_row, build_rows
from asyncsvc.repositories.message_rows import (
    DeletedMessages,
    MessageBounds,
    MessageOutline,
    NewConversationMessages,
)
from asyncsvc.threads import run_in_thread
from asyncsvc.validation.types import UNSET, UnsetType

if TYPE_CHECKING:
    from asyncsvc.database import Row

T = TypeVar("T")
Bound: TypeAlias = int | str | datetime | None
"""A bound of messages: a seq, the own id of a message, or a time."""

_FIRST_CHUNK = 64
_CHUNK_GROWTH = 4
_MAX_CHUNK = 5_000
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


class MessageForm(NamedTuple, Generic[T]):
    """What a list returns of each message: the flags of the statement, and how to build it."""

    flags: tuple[str, ...]
    build: Callable[[Sequence[Row]], Awaitable[list[T]]]


MESSAGES: Final = MessageForm(("full_row",), partial(build_rows, StoredMessage))
PAYLOADS: Final = MessageForm((), build_payloads)


class _KnownBounds(NamedTuple):
    """The seq of the last message of a conversation, and of the messages that are bounds."""

    last_seq: int
    after_seq: int | None = None
    before_seq: int | None = None


class _Digest(NamedTuple):
    """The digest of a conversation's messages up to a seq."""

    id: str
    digest: Bytes


class MessageRepository(Repository):
    """The statements on the messages of a conversation, except the append."""

    folder = "message"

    async def get_list(
        self,
        *,
        tenant_id: str,
        id: str,
        user_id: str | UnsetType,
        after: Bound,
        before: Bound,
        limit: int | UnsetType,
        part: Literal["first", "last"],
        returning: MessageForm[T],
    ) -> list[T]:
        """Return messages, or their payloads, in the order of seq.

        Raises NotFound for the conversation, or for a message that is a bound.
        """
        rows = await self._rows(
            "get_list",
            part,
            *returning.flags,
            tenant_id=tenant_id,
            id=id,
            user_id=user_id,
            **_bound("after", after),
            **_bound("before", before),
            limit=limit,
        )
        if not rows:
            raise NotFound("conversation")
        _check_bounds(rows[0], after=after, before=before)
        return [] if rows[0]["payload"] is None else await returning.build(rows)

    async def get_bounds(
        self, *, tenant_id: str, id: str, user_id: str | UnsetType, after: Bound, before: Bound
    ) -> MessageBounds:
        """Return the bounds of an iteration. Raises NotFound as `get_list` does."""
        rows = await self._rows(
            "get_bounds",
            tenant_id=tenant_id,
            id=id,
            user_id=user_id,
            after_id=after if isinstance(after, str) else UNSET,
            before_id=before if isinstance(before, str) else UNSET,
        )
        if not rows:
            raise NotFound("conversation")
        _check_bounds(rows[0], after=after, before=before)
        known = build_model(_KnownBounds, rows[0])
        before_seq = before if isinstance(before, int) else known.before_seq
        return MessageBounds(
            after_seq=after if isinstance(after, int) else known.after_seq or 0,
            last_seq=known.last_seq if before_seq is None else min(before_seq - 1, known.last_seq),
            after_time=after if isinstance(after, datetime) else UNSET,
            before_time=before if isinstance(before, datetime) else UNSET,
        )

    async def get(
        self, *, tenant_id: str, id: str, message: int | str, user_id: str | UnsetType
    ) -> StoredMessage | None:
        """Return a message; None if it does not exist."""
        rows = await self._rows("get", tenant_id=tenant_id, id=id, **_key(message), user_id=user_id)
        return await build_row(StoredMessage, rows[0]) if rows else None

    async def find(
        self,
        *,
        tenant_id: str,
        message_id: str,
        dialog_id: str | UnsetType,
        user_id: str | UnsetType,
    ) -> FoundMessage | None:
        """Return the newest message with an own id, and its conversation; None without one."""
        rows = await self._rows(
            "find",
            tenant_id=tenant_id,
            message_id=message_id,
            dialog_id=dialog_id,
            user_id=user_id,
        )
        if not rows:
            return None
        columns = dict(rows[0].items())
        message = {"id": columns["message_id"], "created_at": columns["message_created_at"]}
        return FoundMessage(
            conversation=await build_row(Conversation, columns),
            message=await build_row(StoredMessage, columns | message),
        )

    async def put(
        self,
        *,
        tenant_id: str,
        id: str,
        message: Message,
        patch: MessagePatch | UnsetType,
        create: ConversationRow | UnsetType,
        user_id: str | UnsetType,
        max_json_bytes: int,
    ) -> StoredMessage | Literal["full", "oversized"] | None:
        """Store a message under its own id; None if the conversation does not exist.

        "full": the conversation has no further seq. "oversized": a merge would store more than
        `max_json_bytes`. `create` is stored if there is no conversation of this id; its counters
        are ignored.
        """
        changes = MessagePatch() if patch is UNSET else patch
        rows = await self._append(
            "put",
            *([] if patch is UNSET else ["patch"]),
            tenant_id=tenant_id,
            id=id,
            user_id=user_id,
            conversation=UNSET
            if create is UNSET
            else await to_json_apart(columns_to_create(create)),
            message_id=message.id,
            role=message.role,
            content=message.content,
            payload=await to_json_apart(message.payload),
            reference=await to_json_apart(message.reference),
            created_at=UNSET if message.created_at is None else message.created_at,
            new_content=changes.content,
            new_payload=await json_unless_unset(changes.payload),
            new_reference=await json_unless_unset(changes.reference),
            merge_payload=await json_unless_unset(changes.merge_payload),
            max_json_bytes=max_json_bytes,
        )
        is_full = bool(rows) and build_value(bool, rows[0], "is_full")
        return "full" if is_full else await _changed_message(rows)

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

    async def chunks(
        self,
        *,
        tenant_id: str,
        id: str,
        bounds: MessageBounds,
        max_bytes: int,
    ) -> AsyncGenerator[list[StoredMessage]]:
        """Iterate over messages in chunks of some bytes.

        The server measures all messages within the limit of a chunk, and returns a part of them. So
        the limit follows the length of the previous chunk, also downwards: of messages of some MiB
        the server measures 4 for each that it returns.
        """
        previous = 0
        while bounds.after_seq < bounds.last_seq:
            limit = min(_CHUNK_GROWTH * previous or _FIRST_CHUNK, _MAX_CHUNK)
            chunk = await self.get_chunk(
                tenant_id=tenant_id, id=id, bounds=bounds, limit=limit, max_bytes=max_bytes
            )
            if not chunk:
                return
            yield chunk
            bounds, previous = replace(bounds, after_seq=chunk[-1].seq), len(chunk)

    async def get_chunk(
        self, *, tenant_id: str, id: str, bounds: MessageBounds, limit: int, max_bytes: int
    ) -> list[StoredMessage]:
        """Return the next messages, up to the first one that reaches a number of bytes."""
        rows = await self._rows(
            "get_chunk",
            tenant_id=tenant_id,
            id=id,
            after_seq=bounds.after_seq,
            last_seq=bounds.last_seq,
            after_time=bounds.after_time,
            before_time=bounds.before_time,
            limit=limit,
            max_bytes=max_bytes,
        )
        return await build_rows(StoredMessage, rows)

    async def outline(
        self, *, tenant_id: str, id: str, after_seq: int, limit: int
    ) -> list[MessageOutline]:
        """Return what identifies the next messages of a conversation."""
        rows = await self._rows(
            "outline", tenant_id=tenant_id, id=id, after_seq=after_seq, limit=limit
        )
        return build_models(MessageOutline, rows)

    async def set_feedback(
        self,
        *,
        tenant_id: str,
        id: str,
        message: int | str,
        thumb: int | None,
        merge_payload: Mapping[str, object] | UnsetType,
        user_id: str | UnsetType,
        max_json_bytes: int,
    ) -> StoredMessage | Literal["oversized"] | None:
        """Set or remove the thumb of a message; None if it does not exist.

        "oversized": a merge would store more than `max_json_bytes`.
        """
        rows = await self._rows(
            "set_feedback",
            tenant_id=tenant_id,
            id=id,
            **_key(message),
            thumb=thumb,
            merge_payload=await json_unless_unset(merge_payload),
            max_json_bytes=max_json_bytes,
            user_id=user_id,
        )
        return await _changed_message(rows)

    async def update(
        self,
        *,
        tenant_id: str,
        id: str,
        message: int | str,
        patch: MessagePatch,
        user_id: str | UnsetType,
        max_json_bytes: int,
    ) -> StoredMessage | Literal["oversized"] | None:
        """Set columns of a message; None if it does not exist.

        "oversized": a merge would store more than `max_json_bytes`.
        """
        rows = await self._rows(
            "update",
            tenant_id=tenant_id,
            id=id,
            **_key(message),
            content=patch.content,
            payload=await json_unless_unset(patch.payload),
            reference=await json_unless_unset(patch.reference),
            merge_payload=await json_unless_unset(patch.merge_payload),
            max_json_bytes=max_json_bytes,
            user_id=user_id,
        )
        return await _changed_message(rows)

    async def change_dialog(self, *, tenant_id: str, ids: Sequence[str]) -> int:
        """Set the dialog of the messages of moved conversations; return their number."""
        (row,) = await self._rows("change_dialog", tenant_id=tenant_id, ids=ids)
        return build_value(int, row, "updated")

    async def delete(
        self,
        *,
        tenant_id: str,
        id: str,
        message: int | str | UnsetType = UNSET,
        newest: bool = False,
        user_id: str | UnsetType,
        after: Bound = None,
        before: Bound = None,
    ) -> DeletedMessages | None:
        """Delete one message, the newest, or all within bounds; None without the conversation.

        Raises NotFound for a message that is a bound.
        """
        rows = await self._rows(
            "delete",
            *(["newest"] if newest else []),
            tenant_id=tenant_id,
            id=id,
            **_key(message),
            user_id=user_id,
            **_bound("after", after),
            **_bound("before", before),
        )
        if not rows:
            return None
        _check_bounds(rows[0], after=after, before=before)
        count = build_value(int, rows[0], "deleted")
        is_shown = newest and count > 0
        newest_message = await build_row(StoredMessage, rows[0]) if is_shown else None
        return DeletedMessages(count, newest_message)


def _key(message: int | str | UnsetType) -> dict[str, int | str]:
    """Return the parameter that selects a message by its seq or its own id."""
    if message is UNSET:
        return {}
    return {"message_id" if isinstance(message, str) else "seq": message}


async def _changed_message(
    rows: Sequence[Row],
) -> StoredMessage | Literal["oversized"] | None:
    """Return the message after a change; a row of NULLs says that a merge would be too large."""
    if not rows:
        return None
    return "oversized" if rows[0]["seq"] is None else await build_row(StoredMessage, rows[0])


def _bound(side: str, bound: Bound) -> dict[str, int | str | datetime]:
    """Return the parameter of a bound."""
    match bound:
        case None:
            return {}
        case str():
            return {f"{side}_id": bound}
        case datetime():
            return {f"{side}_time": bound}
    return {f"{side}_seq": bound}


def _check_bounds(row: Row, *, after: Bound, before: Bound) -> None:
    """Raise NotFound if a bound is the id of no message."""
    for side, bound in (("after", after), ("before", before)):
        if isinstance(bound, str) and row[f"{side}_seq"] is None:
            raise NotFound("message")


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
