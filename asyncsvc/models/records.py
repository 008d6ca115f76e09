"""Records of an import of conversations from another system."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import ConfigDict, Field, PlainValidator, ValidationInfo, field_validator

from asyncsvc.models.conversations import Conversation, ConversationColumns
from asyncsvc.models.usage import Usage, Usages, refuse_total, usages
from asyncsvc.validation.checks import check_distinct_ids, check_iterable
from asyncsvc.validation.inputs import Described, invalid_value
from asyncsvc.validation.types import (
    MAX_INT,
    BigCount,
    Content,
    Count,
    ErrorText,
    Id,
    Instant,
    Json,
    JsonObject,
    Role,
    Thumb,
    TotalDuration,
)


class MessageRecord(Described):
    """A message of a `ConversationRecord`."""

    # Not an `Input`: an import has thousands, and each is validated within its conversation.
    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    role: Role
    """The author: "user", "assistant", "system", "tool" or another role of the application."""
    content: Content
    """The text of the message. It is stored as NFC."""
    reference: Json = None
    """The sources that an answer cites, as any JSON value."""
    payload: JsonObject = Field(default_factory=dict)
    """All other data of the message."""
    id: Id | None = None
    """An id of the application, unique within the conversation."""
    seq: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    """The sequence number, greater than that of the previous message. None: the next number."""
    thumb: Thumb | None = None
    """The feedback: 1 is positive, -1 is negative. None: no feedback."""
    created_at: Instant | None = None
    """The time of the message. None: the time of the previous message, or of the conversation."""


class ConversationRecord(ConversationColumns):
    """A conversation to import with its messages, from another system or from `export`.

    `thumb_up` and `thumb_down` are computed from the messages.
    """

    id: Id
    """The id, unique within the tenant."""
    messages: Annotated[list[MessageRecord], Field(strict=False, fail_fast=True)]
    """All messages in the order of their `seq`."""
    errors: ErrorText | None = None
    """The errors of the latest turn."""
    round: Count | None = None
    """The number of rounds. None: the number of messages with the role "user"."""
    tokens: BigCount = 0
    """The language model tokens of all turns, if only their total is known. Otherwise `usage`."""
    usage: Usages = None
    """The usage of all turns: one `Usage`, or up to 32, for example the sums of each model."""
    duration: TotalDuration = 0.0
    """The duration of all turns in seconds."""
    last_seq: Count | None = None
    """The `seq` of the message that was appended last. If that message was deleted, it is greater
    than the `seq` of each message. None: the `seq` of the last message."""
    created_at: Instant | None = None
    """The time of creation. None: the earliest of the messages' times, or the server's clock."""
    updated_at: Instant | None = None
    """The time of the last change. None: the latest of the messages' times, or `created_at`."""

    @property
    def usages(self) -> Sequence[Usage]:
        """The usage of all turns, as a sequence."""
        return usages(self.usage)

    @property
    def total_tokens(self) -> int:
        """The tokens of all turns: `tokens`, or the sum of their usage."""
        return self.tokens + sum(each.tokens for each in self.usages)

    @property
    def seqs(self) -> list[int]:
        """The `seq` of each message."""
        return _seqs(self.messages)

    @field_validator("messages")
    @classmethod
    def _check_messages(cls, messages: list[MessageRecord]) -> list[MessageRecord]:
        seqs = _seqs(messages)
        if (
            any(after <= before for before, after in pairwise(seqs))
            or max(seqs, default=0) > MAX_INT
        ):
            raise invalid_value("each seq must be greater than the previous one")
        check_distinct_ids(message.id for message in messages)
        return messages

    _has_no_total = field_validator("usage")(refuse_total)

    @field_validator("last_seq")
    @classmethod
    def _check_last_seq(cls, last_seq: int | None, info: ValidationInfo) -> int | None:
        if last_seq is not None and last_seq < max(_seqs(info.data.get("messages", ())), default=0):
            raise invalid_value("must not be less than the last message's seq")
        return last_seq


def _seqs(messages: Sequence[MessageRecord]) -> list[int]:
    """Return the `seq` of each message, numbered where it is None."""
    last = 0
    return [last := last + 1 if message.seq is None else message.seq for message in messages]


Records = Annotated[
    Iterable[Conversation | ConversationRecord | Mapping[str, object]]
    | AsyncIterable[Conversation | ConversationRecord | Mapping[str, object]],
    PlainValidator(check_iterable),
]
"""Conversations to import: records, equal mappings, or the items of `export`."""
