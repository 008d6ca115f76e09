"""Import of whole conversations: validate the records and store them in batches.

A batch is one transaction, so an interrupted import leaves only complete conversations. A repeated
import skips these and stores the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from asyncsvc.errors import AlreadyExists, AsyncSvcError, Conflict, LockTimeout, StatementTimeout
from asyncsvc.models import Conversation, ConversationRecord, ImportReport, Records
from asyncsvc.repositories import ConversationRepository, MessageRepository, UsageRepository
from asyncsvc.repositories.conversation_rows import ConversationRow, CreatedConversation
from asyncsvc.repositories.message_rows import MessageRow, NewConversationMessages
from asyncsvc.services.conversation_update import ConversationUpdate
from asyncsvc.services.record_reader import OnRejected, RecordReader, iterate
from asyncsvc.services.usage import roll_up_usage
from asyncsvc.validation.json_values import approximate_size

if TYPE_CHECKING:
    from asyncsvc.database import Executor
    from asyncsvc.settings import Settings

_MAX_MESSAGES: Final = 5_000
_MAX_CHARACTERS: Final = 2**23
_MIN_ROLL_UP: Final = 200_000
"""The number of created conversations at which an import rolls up its usage. It does so again at 4
times as many and so on: all recounts of a new tenant cost at most 2 of the last one."""
_FAST_LEDGER: Final = 500
"""The number of created conversations that statistics read fast from the ledger."""
_USER: Final = "user"
_OTHER_MESSAGES: Final = "the tenant has a conversation of this id, with other messages"
_COMPUTED: Final = frozenset({"tenant_id", "thumb_up", "thumb_down"})
"""The fields of a `Conversation` that a `ConversationRecord` does not have."""


@dataclass(slots=True)
class _Batch:
    """Records to store in one transaction, by id, with the index of each in the import."""

    records: dict[str, ConversationRecord] = field(default_factory=dict)
    indexes: dict[str, int] = field(default_factory=dict)
    messages: int = 0
    characters: int = 0

    def has_room(self, record: ConversationRecord) -> bool:
        """Return whether the record fits into the batch. Equal ids go into different batches."""
        return record.id not in self.records and (
            self.messages < _MAX_MESSAGES and self.characters < _MAX_CHARACTERS
        )

    def add(self, index: int, record: ConversationRecord) -> None:
        """Add a record."""
        self.records[record.id] = record
        self.indexes[record.id] = index
        self.messages += len(record.messages) + 1
        self.characters += sum(
            len(each.content) + approximate_size(each.payload) + approximate_size(each.reference)
            for each in record.messages
        )


class ConversationImport:
    """One import into one tenant."""

    def __init__(
        self,
        executor: Executor,
        settings: Settings,
        tenant_id: str,
        on_rejected: OnRejected | None,
        *,
        update: bool,
    ) -> None:
        """Import on this executor. Without `on_rejected` a rejected record raises its error.

        With `update`, the new messages of a record are added to its stored conversation.
        """
        self._executor = executor
        self._tenant_id = tenant_id
        self._update = ConversationUpdate(executor, tenant_id) if update else None
        self._reader = RecordReader(ConversationRecord, settings, on_rejected)

    async def run(self, records: Records) -> ImportReport:
        """Import all records, batch by batch."""
        report, ledger_rows = ImportReport(), 0
        async for batch in self._batches(records):
            stored = await self._store(batch)
            report += stored
            ledger_rows += stored.conversations
            if ledger_rows >= max(_MIN_ROLL_UP, report.conversations * 3 // 4):
                await self._roll_up()
                ledger_rows = 0
        if ledger_rows >= _FAST_LEDGER:
            await self._roll_up()
        return report + ImportReport(
            rejected=self._reader.rejected, replaced_characters=self._reader.replaced_characters
        )

    async def _roll_up(self) -> None:
        """Add the usage to the sums, but not in a transaction, which would keep their lock.

        What another session keeps locked for long is left to maintenance.
        """
        if self._executor.is_in_transaction:
            return
        usage = UsageRepository(self._executor)
        with suppress(LockTimeout, StatementTimeout):
            # Concurrent imports skip a tenant that this one rolls up, so it looks again.
            while tenants := await usage.find_tenants_to_roll_up(tenant_id=self._tenant_id):
                (tenant,) = tenants
                if tenant.creations < _FAST_LEDGER or not await roll_up_usage(
                    self._executor, tenant
                ):
                    break
                await usage.vacuum()

    async def _batches(self, records: Records) -> AsyncIterator[_Batch]:
        """Group the valid records into batches."""
        batch = _Batch()
        async for index, record in self._reader.read(_with_fields(records)):
            if batch.records and not batch.has_room(record):
                yield batch
                batch = _Batch()
            batch.add(index, record)
        if batch.records:
            yield batch

    async def _store(self, batch: _Batch) -> ImportReport:
        """Store the records with new ids, and compare the others with the stored conversations."""
        async with self._executor.transaction() as executor:
            created = await ConversationRepository(executor).create_many(
                tenant_id=self._tenant_id,
                conversations=[_conversation_row(record) for record in batch.records.values()],
                returning=CreatedConversation,
                is_imported=True,
            )
            messages = await self._copy(executor, batch.records, created) if created else 0
        new = {conversation.id for conversation in created}
        present = [record for id, record in batch.records.items() if id not in new]
        report = ImportReport(conversations=len(created), messages=messages)
        for id, outcome in (await self._compare(present)).items():
            if isinstance(outcome, ImportReport):
                report += outcome
            else:
                self._reader.reject(batch.indexes[id], outcome)
                if self._update is not None and isinstance(outcome, AlreadyExists):
                    report += ImportReport(diverged=1)
        return report

    async def _compare(
        self, present: Sequence[ConversationRecord]
    ) -> dict[str, ImportReport | AsyncSvcError]:
        """Compare records with the stored conversations of their ids, and update these.

        Return the counts or the error of each record, by id.
        """
        differing = set(await self._differing(present))
        equal = {record.id: record for record in present if record.id not in differing}
        outcomes = dict[str, ImportReport | AsyncSvcError]()
        if self._update is None:
            outcomes |= dict.fromkeys(equal, ImportReport(present=1))
            outcomes |= {id: AlreadyExists(_OTHER_MESSAGES) for id in differing}
            return outcomes
        rows = {record.id: _conversation_row(record) for record in present}
        if equal:
            outcomes |= await self._update.find_current(equal, rows)
        for record in present:
            if record.id not in outcomes:
                try:
                    outcomes[record.id] = await self._update.apply(record, rows[record.id])
                except (AlreadyExists, Conflict) as error:
                    outcomes[record.id] = error
        return outcomes

    async def _copy(
        self,
        executor: Executor,
        records: Mapping[str, ConversationRecord],
        created: Sequence[CreatedConversation],
    ) -> int:
        """Store the messages of the created conversations; return their number."""
        return await MessageRepository(executor).copy(
            tenant_id=self._tenant_id,
            conversations=(
                NewConversationMessages(
                    id=conversation.id,
                    dialog_id=records[conversation.id].dialog_id,
                    created_at=conversation.created_at,
                    messages=_message_rows(records[conversation.id], conversation.created_at),
                )
                for conversation in created
            ),
        )

    async def _differing(self, present: Sequence[ConversationRecord]) -> list[str]:
        """Return the ids of conversations that do not begin with the messages of their records."""
        if not present:
            return []
        stored = await MessageRepository(self._executor).digests(
            tenant_id=self._tenant_id,
            ids=[record.id for record in present],
            last_seqs=[max(record.seqs, default=0) for record in present],
        )
        return [record.id for record in present if stored[record.id] != _digest(record)]


async def _with_fields(records: Records) -> AsyncIterator[object]:
    """Yield the records. An exported conversation becomes the fields of a record."""
    async for record in iterate(records):
        yield _fields(record) if isinstance(record, Conversation) else record


def _fields(conversation: Conversation) -> dict[str, object]:
    """Return the fields of a `ConversationRecord`."""
    fields = {name: value for name, value in conversation if name not in _COMPUTED}
    if conversation.messages is not None:
        fields["messages"] = [dict(message) for message in conversation.messages]
    return fields


def _conversation_row(record: ConversationRecord) -> ConversationRow:
    """Return the columns of a conversation; missing ones are computed from its messages."""
    times = [message.created_at for message in record.messages if message.created_at is not None]
    thumbs = [message.thumb for message in record.messages]
    rounds = sum(message.role == _USER for message in record.messages)
    return ConversationRow(
        id=record.id,
        columns=record,
        errors=record.errors,
        round=rounds if record.round is None else record.round,
        tokens=record.total_tokens,
        usages=record.usages,
        duration=record.duration,
        thumb_up=thumbs.count(1),
        thumb_down=thumbs.count(-1),
        last_seq=record.last_seq or max(record.seqs, default=0),
        created_at=record.created_at or min(times, default=None),
        updated_at=record.updated_at or max(times, default=None),
    )


def _message_rows(record: ConversationRecord, created_at: datetime) -> Iterator[MessageRow]:
    """Yield each message with its seq and time. The default is the time of the previous message."""
    for seq, message in zip(record.seqs, record.messages, strict=True):
        created_at = message.created_at or created_at
        yield MessageRow(seq, created_at, message)


def _digest(record: ConversationRecord) -> bytes:
    """Return the digest that sql/message/digests.sql computes of the same messages."""
    digest = hashlib.sha256()
    for seq, message in zip(record.seqs, record.messages, strict=True):
        digest.update(hashlib.sha256(f"{seq} {message.role} {message.content}".encode()).digest())
    return digest.digest()
