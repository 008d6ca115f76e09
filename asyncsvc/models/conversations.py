"""Conversations and messages: inputs of the methods, and stored rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Self, TypeVar

from pydantic import (
    Field,
    JsonValue,
    ValidationInfo,
    model_validator,
)
from pydantic import Json as JsonText

from asyncsvc.models.base import ModelOrMapping, Row
from asyncsvc.validation.checks import check_batch_bytes, check_batch_size, with_limits
from asyncsvc.validation.inputs import Input
from asyncsvc.validation.limits import Limits
from asyncsvc.validation.types import (
    UNSET,
    Content,
    Duration,
    ErrorText,
    Id,
    Instant,
    Json,
    JsonObject,
    Name,
    OrUnset,
    Role,
    Rounds,
    Source,
    Tokens,
    UserId,
    VersionTitle,
)


class Message(Input):
    """One message of a turn.

    `content` is the text, and what `keywords` finds. Everything else that a message carries (its
    id, parts, tool calls, files) lives in `payload`; `reference` is what the answer quotes.
    """

    role: Role
    content: Content
    reference: Json = None
    payload: JsonObject = Field(default_factory=dict)


def microseconds(seconds: float) -> int:
    """Return a duration as it is stored: whole microseconds, whose sums are exact."""
    return round(seconds * 1_000_000)


def _values(items: Iterable[Input]) -> list[object]:
    return [value for item in items for value in vars(item).values()]


class Turn(Input):
    """What one append adds: at least one message, and what it cost.

    `duration` is in seconds. `round` is what the conversation's rounds grow by: 0 for half a turn,
    when the question is stored first so that a crash keeps it. `errors` and `dsl` replace the
    conversation's, unless UNSET. `token_id` is the API token that the usage is booked on.
    """

    messages: Annotated[Sequence[Message], Field(min_length=1), with_limits(check_batch_size)]
    tokens: Tokens = 0
    duration: Duration = 0.0
    round: Rounds = 1
    errors: OrUnset[ErrorText | None] = UNSET
    dsl: OrUnset[Json] = UNSET
    token_id: Id | None = None

    @model_validator(mode="after")
    def _is_within_batch(self, info: ValidationInfo) -> Self:
        if info.context is not None:
            check_batch_bytes([self.errors, self.dsl, *_values(self.messages)], info.context)
        return self


class NewConversation(Input):
    """One conversation of `create_many`; the fields are those of `create`."""

    dialog_id: Id
    id: Id | None = None
    user_id: UserId = ""
    exp_user_id: Id | None = None
    name: Name | None = None
    source: Source | None = None
    dsl: Json = None
    version_title: VersionTitle | None = None
    metadata: JsonObject | None = None
    created_at: Instant | None = None


class ConversationPatch(Input):
    """The columns of a conversation to set; UNSET leaves one as it is, None sets NULL."""

    name: OrUnset[Name | None] = UNSET
    source: OrUnset[Source | None] = UNSET
    version_title: OrUnset[VersionTitle | None] = UNSET
    metadata: OrUnset[JsonObject | None] = UNSET
    dsl: OrUnset[Json] = UNSET
    errors: OrUnset[ErrorText | None] = UNSET
    user_id: OrUnset[UserId] = UNSET
    exp_user_id: OrUnset[Id | None] = UNSET
    dialog_id: OrUnset[Id] = UNSET


Bulk = TypeVar("Bulk", Sequence[NewConversation], Mapping[str, ConversationPatch])


def _bulk_size(values: Bulk, limits: Limits) -> Bulk:
    check_batch_bytes(_values(values.values() if isinstance(values, Mapping) else values), limits)
    return values


NewConversations = Annotated[
    Sequence[NewConversation | Mapping[str, object]],
    ModelOrMapping(Sequence[NewConversation]),
    with_limits(check_batch_size),
    with_limits(_bulk_size),
]


ConversationPatches = Annotated[
    Mapping[Id, ConversationPatch | Mapping[str, object]],
    ModelOrMapping(Mapping[Id, ConversationPatch]),
    with_limits(check_batch_size),
    with_limits(_bulk_size),
]


class MessagePatch(Input):
    """The columns of a message to set; UNSET leaves one as it is."""

    content: OrUnset[Content] = UNSET
    payload: OrUnset[JsonObject] = UNSET
    reference: OrUnset[Json] = UNSET


TurnLike = Annotated[Turn | Mapping[str, object], ModelOrMapping(Turn)]


ConversationPatchLike = Annotated[
    ConversationPatch | Mapping[str, object], ModelOrMapping(ConversationPatch)
]


MessagePatchLike = Annotated[MessagePatch | Mapping[str, object], ModelOrMapping(MessagePatch)]


class StoredMessage(Row):
    """A message as stored. `seq` is its place in the conversation, from 1, never used twice."""

    seq: int
    role: str
    content: str
    payload: JsonText[dict[str, JsonValue]]
    reference: JsonText[JsonValue] | None
    thumb: int | None
    created_at: datetime


class Conversation(Row):
    """A conversation as stored.

    `duration` is in seconds. `dsl` is None unless it was asked for, `messages` likewise. The
    counters but thumbs only grow; deleting messages withdraws their thumbs and nothing else.
    """

    tenant_id: str
    id: str
    dialog_id: str
    user_id: str
    exp_user_id: str | None
    name: str | None
    source: str | None
    version_title: str | None
    metadata: JsonText[dict[str, JsonValue]] | None
    dsl: JsonText[JsonValue] | None
    errors: str | None
    round: int
    tokens: int
    duration: float
    thumb_up: int
    thumb_down: int
    last_seq: int
    created_at: datetime
    updated_at: datetime
    messages: JsonText[tuple[StoredMessage, ...]] | None


class Hit(Row):
    """A conversation in which a message holds the keywords of a search.

    `seq` is the place of its first message that does; `snippet` is the part of that message around
    the keywords, up to 40 characters before and behind them. `created_at` is the conversation's.
    """

    id: str
    dialog_id: str
    name: str | None
    created_at: datetime
    seq: int
    snippet: str


class ConversationName(Row):
    """What a sidebar shows of a conversation."""

    id: str
    name: str | None


class Appended(Row):
    """Where an append put its messages, and the conversation's rounds after it.

    `replayed` says that the idempotency key was known: the answer is that of the first append.
    """

    first_seq: int
    last_seq: int
    round: int
    replayed: bool
