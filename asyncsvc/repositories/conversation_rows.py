"""Arguments and results of the statements of `sql/conversation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from asyncsvc.models import Appended, Conversation, Model, Usage, microseconds
from asyncsvc.models.columns import Bytes, Timestamp
from asyncsvc.models.conversations import ConversationColumns
from asyncsvc.validation.cursors import Position
from asyncsvc.validation.types import UNSET, UnsetType


class AppendRejection(Model):
    """The state of a conversation and an idempotency key after an append that changed no row."""

    current_seq: int
    """The `last_seq` of the conversation."""
    current_round: int
    current_tokens: int
    current_duration: int
    """In microseconds."""
    is_of_user: bool
    """Whether the conversation belongs to the user of the call."""
    metadata_bytes: int | None
    """The size of the metadata after the merge of the turn, if it has one."""
    dsl_bytes: int | None
    """The size of the dsl after the merge of the turn, if it has one."""
    has_ids: bool
    """Whether the conversation has a message with an id of the turn."""
    body_hash: Bytes | None
    """The hash of the turn that was appended under the key."""
    replay: Appended | None = None
    """The result of the append under the key."""


@dataclass(frozen=True, kw_only=True)
class ConversationRow:
    """The columns of a conversation to create. Missing times default to the server's clock."""

    id: str
    columns: ConversationColumns
    errors: str | None = None
    round: int = 0
    tokens: int = 0
    duration: float = 0.0
    """Seconds."""
    thumb_up: int = 0
    thumb_down: int = 0
    last_seq: int = 0
    created_at: datetime | None
    updated_at: datetime | None = None
    usages: Sequence[Usage] = ()
    """The usage of which `tokens` are the sum. Empty: only the sum is known."""


class OversizedMergeError(Exception):
    """The merge of a column would exceed the limit. No row changed."""

    def __init__(self, id: str, column: str) -> None:
        """Take the id of the conversation and the column."""
        super().__init__(id, column)
        self.id = id
        self.field = f"merge_{column}"


class CreatedConversation(Model):
    """The id and the time of a created conversation."""

    id: str
    """The id of the conversation."""
    created_at: Timestamp
    """The time of its creation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationExtension:
    """The columns of a conversation after an import of a later export. UNSET: it stays."""

    last_seq: int
    round: int
    tokens: int
    duration: float
    """Seconds."""
    thumb_up: int
    """The positive feedback of the added messages."""
    thumb_down: int
    """The negative feedback of the added messages."""
    updated_at: datetime
    name: str | UnsetType = UNSET
    metadata: Mapping[str, object] | UnsetType = UNSET
    keep_seq: int | UnsetType = UNSET
    """Messages after it are deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendedConversation:
    """The columns of an extended conversation that its new messages take from it."""

    dialog_id: str
    created_at: Timestamp


class ExportPage(NamedTuple):
    """The next conversations of an export."""

    conversations: list[Conversation]
    """Whole conversations."""
    long: Conversation | None
    """A long conversation after them, without its messages."""
    last: Position | None
    """The position after which the next page starts. None: this page is the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedBatch:
    """The counts of one batch of a deletion."""

    matched: int = 0
    """The candidates, before the limit by messages."""
    deleted: int = 0
    messages: int = 0
    append_keys: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedBatch:
    """One batch of locked conversations."""

    matched: int
    """The candidates, before the limit by messages."""
    ids: list[str]
    locked_at: Timestamp
    """The server's clock at the start of the statement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiredConversation:
    """A candidate of a purge. The next batch starts after the last one."""

    id: str
    dialog_id: str
    at: Timestamp
    messages: int


def columns_to_create(conversation: ConversationRow) -> dict[str, object]:
    """Return a conversation as an object of JSON."""
    created_at, updated_at = conversation.created_at, conversation.updated_at
    values = dict(vars(conversation))
    columns = values.pop("columns")
    del values["usages"]
    values |= {name: getattr(columns, name) for name in ConversationColumns.model_fields}
    return values | {
        "duration": microseconds(conversation.duration),
        "created_at": None if created_at is None else created_at.isoformat(),
        "updated_at": None if updated_at is None else updated_at.isoformat(),
    }
