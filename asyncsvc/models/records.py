"""Records of an import of conversations from another system."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    field_validator,
)

from asyncsvc.models.conversations import Conversation
from asyncsvc.validation.checks import check_iterable, invalid_value
from asyncsvc.validation.inputs import Input
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
    Name,
    Role,
    Source,
    Thumb,
    TotalDuration,
    UserId,
    VersionTitle,
)


class MessageRecord(BaseModel):
    """A message of a `ConversationRecord`, as it was stored elsewhere or will be.

    Without a `seq` it follows the one before it; without a `created_at` it is as old as that, and
    the first as old as its conversation.
    """

    # No `Input`: a load has thousands, and what it checks it checks within their conversation.
    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", hide_input_in_errors=True, defer_build=True
    )

    role: Role
    content: Content
    reference: Json = None
    payload: JsonObject = Field(default_factory=dict)
    seq: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    thumb: Thumb | None = None
    created_at: Instant | None = None


class ConversationRecord(Input):
    """A whole conversation for `load`: what `create` takes, its counters, and its messages.

    `round` is the number of messages of the role "user" unless given; `duration` is in seconds;
    `last_seq` is that of the last message unless messages behind it were deleted. Without a
    `created_at` it is as old as its first message that has one, else the server's clock decides;
    without an `updated_at` it was last updated by its last message. Thumbs are counted from the
    messages.
    """

    id: Id
    dialog_id: Id
    messages: Annotated[list[MessageRecord], Field(strict=False)]
    user_id: UserId = ""
    exp_user_id: Id | None = None
    name: Name | None = None
    source: Source | None = None
    dsl: Json = None
    version_title: VersionTitle | None = None
    metadata: JsonObject | None = None
    errors: ErrorText | None = None
    round: Count | None = None
    tokens: BigCount = 0
    duration: TotalDuration = 0.0
    last_seq: Count | None = None
    created_at: Instant | None = None
    updated_at: Instant | None = None

    @property
    def seqs(self) -> list[int]:
        """The place of each message."""
        return _seqs(self.messages)

    @field_validator("messages")
    @classmethod
    def _rise(cls, messages: list[MessageRecord]) -> list[MessageRecord]:
        seqs = _seqs(messages)
        if (
            any(after <= before for before, after in pairwise(seqs))
            or max(seqs, default=0) > MAX_INT
        ):
            raise invalid_value("the seq of each must be greater than that of the one before")
        return messages

    @field_validator("last_seq")
    @classmethod
    def _is_last(cls, last_seq: int | None, info: ValidationInfo) -> int | None:
        if last_seq is not None and last_seq < max(_seqs(info.data.get("messages", ())), default=0):
            raise invalid_value("must not be less than the last message's seq")
        return last_seq


def _seqs(messages: Sequence[MessageRecord]) -> list[int]:
    last = 0
    return [last := last + 1 if message.seq is None else message.seq for message in messages]


Records = Annotated[
    Iterable[Conversation | ConversationRecord | Mapping[str, object]]
    | AsyncIterable[Conversation | ConversationRecord | Mapping[str, object]],
    PlainValidator(check_iterable),
]
"""What `load` takes: what `export` yields, records, or equal mappings."""
