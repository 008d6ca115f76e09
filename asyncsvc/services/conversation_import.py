"""Loads whole conversations in batches: checked one by one, stored by COPY, each all or nothing.

A batch is one transaction, so that a load which was broken off left whole conversations behind;
made again, it finds these there and goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from asyncsvc.errors import AlreadyExists
from asyncsvc.models import (
    Conversation,
    ConversationRecord,
    ImportReport,
    MessageRecord,
    Records,
    microseconds,
)
from asyncsvc.repositories import ConversationRepository, MessageRepository
from asyncsvc.repositories.base import columns_to_set
from asyncsvc.services.record_reader import OnRejected, RecordReader, iterate

if TYPE_CHECKING:
    from asyncsvc.database import Executor
    from asyncsvc.settings import Settings

MESSAGES_AT_ONCE: Final = 5_000
_CHARACTERS_AT_ONCE: Final = 2**23
_USER: Final = "user"
_COUNTED: Final = frozenset({"tenant_id", "thumb_up", "thumb_down"})


@dataclass(slots=True)
class _Batch:
    """Conversations to store in one transaction, by id, with the place of each in the load."""

    records: dict[str, ConversationRecord] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    messages: int = 0
    characters: int = 0

    def has_room(self, record: ConversationRecord) -> bool:
        """Say whether it takes one more; of two with one id the first is stored before."""
        return record.id not in self.records and (
            self.messages < MESSAGES_AT_ONCE and self.characters < _CHARACTERS_AT_ONCE
        )

    def add(self, place: int, record: ConversationRecord) -> None:
        """Take one more."""
        self.records[record.id] = record
        self.places[record.id] = place
        self.messages += len(record.messages) + 1
        self.characters += sum(len(message.content) for message in record.messages)


class Load:
    """One load into one tenant."""

    def __init__(
        self,
        executor: Executor,
        settings: Settings,
        tenant_id: str,
        on_rejected: OnRejected | None,
    ) -> None:
        """Import where this executor runs; rejected records go to `on_rejected`, or are raised."""
        self._executor = executor
        self._tenant_id = tenant_id
        self._reader = RecordReader(ConversationRecord, settings, on_rejected)

    async def run(self, records: Records) -> ImportReport:
        """Store all records, batch by batch."""
        report = ImportReport()
        async for batch in self._batches(records):
            report += await self._store(batch)
        return report + ImportReport(rejected=self._reader.rejected)

    async def _batches(self, records: Records) -> AsyncIterator[_Batch]:
        batch = _Batch()
        async for place, record in self._reader.read(_without_counters(records)):
            if batch.records and not batch.has_room(record):
                yield batch
                batch = _Batch()
            batch.add(place, record)
        if batch.records:
            yield batch

    async def _store(self, batch: _Batch) -> ImportReport:
        async with self._executor.transaction() as executor:
            created = await ConversationRepository(executor).load(
                tenant_id=self._tenant_id,
                records=[_row(record) for record in batch.records.values()],
            )
            messages = await self._copy(executor, batch, created) if created else 0
        there = [record for id, record in batch.records.items() if id not in created]
        differing = await self._differing(there)
        for id in differing:
            self._reader.reject(
                batch.places[id],
                AlreadyExists("the tenant has a conversation of this id, with other messages"),
            )
        return ImportReport(
            conversations=len(created), messages=messages, present=len(there) - len(differing)
        )

    async def _copy(
        self, executor: Executor, batch: _Batch, created: Mapping[str, datetime]
    ) -> int:
        return await MessageRepository(executor).copy(
            tenant_id=self._tenant_id,
            conversations=(
                (id, record.dialog_id, created_at, _dated(record, created_at))
                for id, created_at in created.items()
                for record in (batch.records[id],)
            ),
        )

    async def _differing(self, there: Sequence[ConversationRecord]) -> list[str]:
        """Return the ids of those that do not begin with the messages that they were given."""
        if not there:
            return []
        stored = await MessageRepository(self._executor).digests(
            tenant_id=self._tenant_id,
            ids=[record.id for record in there],
            last_seqs=[max(record.seqs, default=0) for record in there],
        )
        return [record.id for record in there if stored[record.id] != _digest(record)]


async def _without_counters(records: Records) -> AsyncIterator[object]:
    """Turn exported conversations into the fields of records; counters are computed anew."""
    async for record in iterate(records):
        yield _fields(record) if isinstance(record, Conversation) else record


def _fields(conversation: Conversation) -> dict[str, object]:
    """Return the fields of a `ConversationRecord`."""
    fields = {name: value for name, value in conversation if name not in _COUNTED}
    if conversation.messages is not None:
        fields["messages"] = [dict(message) for message in conversation.messages]
    return fields


def _row(record: ConversationRecord) -> dict[str, object]:
    """Return the columns of a conversation, with what its messages say of it."""
    times = [message.created_at for message in record.messages if message.created_at is not None]
    thumbs = [message.thumb for message in record.messages]
    rounds = sum(message.role == _USER for message in record.messages)
    known = {
        "round": rounds if record.round is None else record.round,
        "last_seq": record.last_seq or max(record.seqs, default=0),
        "created_at": record.created_at or min(times, default=None),
        "updated_at": record.updated_at or max(times, default=None),
    }
    counted = {
        "duration": microseconds(record.duration),
        "thumb_up": thumbs.count(1),
        "thumb_down": thumbs.count(-1),
    }
    return columns_to_set(record.model_copy(update={"messages": [], **known})) | counted


def _dated(
    record: ConversationRecord, created_at: datetime
) -> Iterator[tuple[int, MessageRecord, datetime]]:
    """Return each message with its seq, and with the time of the one before where it has none."""
    at = created_at
    for seq, message in zip(record.seqs, record.messages, strict=True):
        at = message.created_at or at
        yield seq, message, at


def _digest(record: ConversationRecord) -> bytes:
    """Return what sql/message/digests.sql makes of the same messages."""
    whole = hashlib.sha256()
    for seq, message in zip(record.seqs, record.messages, strict=True):
        whole.update(hashlib.sha256(f"{seq} {message.role} {message.content}".encode()).digest())
    return whole.digest()
