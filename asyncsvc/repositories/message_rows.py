"""Arguments and results of the statements of `sql/message`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from asyncsvc.models import MessageRecord, StoredMessage
from asyncsvc.models.columns import Bytes
from asyncsvc.validation.types import UNSET, UnsetType


@dataclass(frozen=True, slots=True)
class DeletedMessages:
    """The result of a deletion of messages."""

    count: int
    """The number of deleted messages."""
    newest: StoredMessage | None
    """The deleted message, if the call was to delete only the newest and there was one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageBounds:
    """The bounds of an iteration over the messages of a conversation."""

    after_seq: int
    """The iteration starts after it."""
    last_seq: int
    after_time: datetime | UnsetType = UNSET
    """Only messages that are later."""
    before_time: datetime | UnsetType = UNSET
    """Only messages that are earlier."""


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
