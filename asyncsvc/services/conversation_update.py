"""Updates of stored conversations from a later export.

A message has an own id, or its payload has its id in the export as `id`. These ids show whether the
stored messages and those of a record are equal, one is the beginning of the other, or both are
branches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from asyncsvc.errors import AlreadyExists, Conflict
from asyncsvc.models import Conversation, ConversationRecord, ImportReport, MessageRecord
from asyncsvc.repositories import ConversationRepository, MessageRepository
from asyncsvc.repositories.conversation_rows import ConversationExtension, ConversationRow
from asyncsvc.repositories.message_rows import MessageOutline, MessageRow, NewConversationMessages
from asyncsvc.repositories.query import Include
from asyncsvc.validation.types import UNSET

if TYPE_CHECKING:
    from asyncsvc.database import Executor

_OUTLINE_PAGE: Final = 5_000
_ATTEMPTS: Final = 3


class ConversationUpdate:
    """Updates one stored conversation to a record."""

    def __init__(self, executor: Executor, tenant_id: str) -> None:
        """Update conversations of the tenant where this executor runs."""
        self._executor = executor
        self._tenant_id = tenant_id

    async def apply(self, record: ConversationRecord, row: ConversationRow) -> ImportReport:
        """Store the additions of the record; `row` has the columns of the record.

        Raises:
            AlreadyExists: The conversation has messages that were not imported, after those that
                it has in common with the record.
            Conflict: The conversation kept changing.
        """
        for _ in range(_ATTEMPTS):
            async with self._executor.transaction() as executor:
                report = await self._apply(executor, record, row)
            if report is not None:
                return report
        raise Conflict("the conversation kept changing; try again")

    async def find_current(
        self, records: Mapping[str, ConversationRecord], rows: Mapping[str, ConversationRow]
    ) -> dict[str, ImportReport]:
        """Return the counts of records that change nothing, by id; `rows` has their columns.

        The records are the beginnings of their conversations.
        """
        stored = await ConversationRepository(self._executor).get_by_ids(
            tenant_id=self._tenant_id, ids=list(records), include=Include(dsl=False)
        )
        reports = dict[str, ImportReport]()
        for conversation in stored:
            record = records[conversation.id]
            if conversation.last_seq > max(record.seqs, default=0):
                reports[conversation.id] = ImportReport(present=1, older=1)
            elif _extension(conversation, record, rows[conversation.id], (), None)[0] is None:
                reports[conversation.id] = ImportReport(present=1)
        return reports

    async def _apply(
        self, executor: Executor, record: ConversationRecord, row: ConversationRow
    ) -> ImportReport | None:
        """Apply the record once; None if the conversation changed or was deleted meanwhile."""
        rows = await ConversationRepository(executor).get_by_ids(
            tenant_id=self._tenant_id, ids=[record.id], include=Include(dsl=False)
        )
        if not rows:
            return None
        (stored,) = rows
        # A record may be a part of a conversation, from its first seq on.
        first_seq = record.messages[0].seq if record.messages else None
        after_seq = (first_seq or 1) - 1
        outlines = await self._outlines(executor, record.id, after_seq)
        common = _common_length(outlines, record.messages)
        rest, new = outlines[common:], record.messages[common:]
        if rest and not new:
            return ImportReport(present=1, older=1)
        is_rewritten = bool(rest)
        if is_rewritten and not (
            stored.source == record.source
            and all(each.is_imported and (each.id or each.source_id) for each in rest)
        ):
            raise AlreadyExists("the tenant has a conversation of this id, with other messages")
        keep_seq = outlines[common - 1].seq if common else after_seq
        extension, message_rows = _extension(
            stored, record, row, new, keep_seq if is_rewritten else None
        )
        if extension is None:
            return ImportReport(present=1)
        if not await self._store(executor, stored, extension, message_rows):
            return None
        return ImportReport(
            present=int(not new),
            renamed=int(not new and extension.name is not UNSET),
            grown=int(bool(new) and not is_rewritten),
            rewritten=int(is_rewritten),
            messages_appended=len(new),
            messages_replaced=len(rest),
        )

    async def _outlines(self, executor: Executor, id: str, after_seq: int) -> list[MessageOutline]:
        """Return the identifying values of each stored message after a seq."""
        outlines = list[MessageOutline]()
        repository = MessageRepository(executor)
        while page := await repository.outline(
            tenant_id=self._tenant_id,
            id=id,
            after_seq=outlines[-1].seq if outlines else after_seq,
            limit=_OUTLINE_PAGE,
        ):
            outlines += page
            if len(page) < _OUTLINE_PAGE:
                break
        return outlines

    async def _store(
        self,
        executor: Executor,
        stored: Conversation,
        extension: ConversationExtension,
        rows: Sequence[MessageRow],
    ) -> bool:
        """Set the columns and store the new messages; return False if the conversation changed."""
        extended = await ConversationRepository(executor).extend(
            tenant_id=self._tenant_id,
            id=stored.id,
            expected_seq=stored.last_seq,
            extension=extension,
        )
        if extended is None:
            return False
        if rows:
            await MessageRepository(executor).copy(
                tenant_id=self._tenant_id,
                conversations=[
                    NewConversationMessages(
                        id=stored.id,
                        dialog_id=extended.dialog_id,
                        created_at=extended.created_at,
                        messages=rows,
                    )
                ],
            )
        return True


def _common_length(stored: Sequence[MessageOutline], messages: Sequence[MessageRecord]) -> int:
    """Return the number of equal messages at the start of both."""
    for length, (outline, message) in enumerate(zip(stored, messages, strict=False)):
        if not _is_same(outline, message):
            return length
    return min(len(stored), len(messages))


def _is_same(stored: MessageOutline, message: MessageRecord) -> bool:
    """Compare the own ids, or the ids of the export in the payload; without them the texts."""
    id = message.payload.get("id")
    if stored.role != message.role:
        return False
    if stored.id is not None and message.id is not None:
        return stored.id == message.id
    if stored.source_id is not None and isinstance(id, str):
        return stored.source_id == id
    return stored.digest == hashlib.sha256(message.content.encode()).digest()


def _extension(
    stored: Conversation,
    record: ConversationRecord,
    row: ConversationRow,
    new: Sequence[MessageRecord],
    keep_seq: int | None,
) -> tuple[ConversationExtension | None, list[MessageRow]]:
    """Return the columns to set and the messages to store; None if the record adds nothing.

    Name and metadata follow the later update. Counters of a grown conversation never decrease.
    """
    is_later = row.updated_at is not None and row.updated_at >= stored.updated_at
    name = record.name if is_later and record.name not in {None, stored.name} else None
    metadata = record.metadata if is_later and record.metadata else {}
    kept = stored.metadata or {}
    is_extended = any(kept.get(key, UNSET) != value for key, value in metadata.items())
    if not new and name is None and not is_extended:
        return None, []
    rows = list(_message_rows(stored, new))
    round, tokens, duration = row.round, row.tokens, row.duration
    if keep_seq is None:
        round = max(round, stored.round)
        tokens = max(tokens, stored.tokens)
        duration = max(duration, stored.duration)
    thumbs = [message.thumb for message in new]
    last_seq = rows[-1].seq if rows else stored.last_seq
    return ConversationExtension(
        last_seq=max(last_seq, record.last_seq or 0) if rows else last_seq,
        round=round,
        tokens=tokens,
        duration=duration,
        thumb_up=thumbs.count(1),
        thumb_down=thumbs.count(-1),
        updated_at=row.updated_at or stored.updated_at,
        name=UNSET if name is None else name,
        metadata=metadata if is_extended else UNSET,
        keep_seq=UNSET if keep_seq is None else keep_seq,
    ), rows


def _message_rows(stored: Conversation, new: Sequence[MessageRecord]) -> Iterator[MessageRow]:
    """Return the new messages with their seq and times; a seq is never used twice."""
    seq, created_at = stored.last_seq, stored.updated_at
    for message in new:
        seq = max(seq + 1, message.seq or 0)
        created_at = message.created_at or created_at
        yield MessageRow(seq, created_at, message)
