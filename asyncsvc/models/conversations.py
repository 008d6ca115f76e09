"""Conversations and messages: inputs of the methods, and stored rows.

`docs/start/concepts.md` explains the words of RAGFlow: dialog, dsl, exp_user_id, version_title,
round and source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Self, TypeVar

from pydantic import Field, JsonValue, ValidationInfo, field_validator, model_validator
from pydantic import Json as JsonText

from asyncsvc.models.base import Model, ModelLike
from asyncsvc.models.columns import Timestamp
from asyncsvc.models.usage import Usage, Usages, refuse_total, usages
from asyncsvc.validation.checks import (
    batch_size,
    check_batch_bytes,
    check_distinct_ids,
    with_limits,
)
from asyncsvc.validation.inputs import Input, invalid_value
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
    """One message of a turn."""

    role: Role
    """The author: "user", "assistant", "system", "tool" or another role of the application."""
    content: Content
    """The text of the message, which `keywords` and `search` use. It is stored as NFC."""
    id: Id | None = None
    """An id of the application, unique within the conversation. None: no id."""
    created_at: Instant | None = None
    """The time of the message. None: the server's clock. The order is that of `seq`."""
    reference: Json = None
    """The sources that an answer cites, as any JSON value."""
    payload: JsonObject = Field(default_factory=dict)
    """All other data of the message: its parts, tool calls, files."""


def microseconds(seconds: float) -> int:
    """Convert a duration to whole microseconds, the stored form, because integer sums are exact."""
    return round(seconds * 1_000_000)


def _values(items: Iterable[Input]) -> list[object]:
    """Return the values of all fields of all items."""
    return [value for item in items for value in vars(item).values()]


def _exclusive(*names: str) -> object:
    """Return a validator: a patch does not set and merge the same column."""

    def check(value: object, info: ValidationInfo) -> object:
        column = (info.field_name or "").removeprefix("merge_")
        if value is not UNSET and info.data.get(column, UNSET) is not UNSET:
            raise invalid_value(f"must not be passed together with {column}")
        return value

    return field_validator(*names)(check)


class Turn(Input):
    """The messages that one append adds, and their usage."""

    messages: Annotated[Sequence[Message], Field(min_length=1), batch_size()]
    """1 to `Settings.max_batch_size` messages, in their order in the conversation."""
    tokens: Tokens = 0
    """The language model tokens of a turn of which only the total is known. Otherwise `usage`."""
    usage: Usages = None
    """The usage of the turn's requests to language models: one `Usage`, or up to 32, in order.
    The conversation's `tokens` grow by their input and output."""
    duration: Duration = 0.0
    """The time that the turn took, in seconds."""
    round: Rounds = 1
    """The rounds that the turn adds to the conversation.

    0 for a question that is stored before its answer, so that a crash does not lose it.
    """
    errors: OrUnset[ErrorText | None] = UNSET
    """The new `errors` of the conversation. UNSET: they do not change."""
    dsl: OrUnset[Json] = UNSET
    """The new `dsl` of the conversation. UNSET: it does not change."""
    merge_dsl: OrUnset[JsonObject] = UNSET
    """A merge patch (RFC 7396) of the conversation's `dsl`: members are set, None removes one."""
    merge_metadata: OrUnset[JsonObject] = UNSET
    """A merge patch of the conversation's `metadata`."""
    token_id: Id | None = None
    """The id of the API token to which statistics by activity attribute the usage."""
    user_id: UserId | None = None
    """The user to whom statistics by activity attribute the usage. None: the conversation's."""

    @property
    def usages(self) -> Sequence[Usage]:
        """The usage of the turn, as a sequence."""
        return usages(self.usage)

    @property
    def total_tokens(self) -> int:
        """The tokens of the turn: `tokens`, or the sum of its usage."""
        return self.tokens + sum(each.tokens for each in self.usages)

    _has_no_total = field_validator("usage")(refuse_total)

    @field_validator("messages")
    @classmethod
    def _check_ids(cls, messages: Sequence[Message]) -> Sequence[Message]:
        check_distinct_ids(message.id for message in messages)
        return messages

    @model_validator(mode="after")
    def _is_within_batch(self, info: ValidationInfo) -> Self:
        if info.context is not None:
            values = [self.errors, self.dsl, self.merge_dsl, self.merge_metadata]
            check_batch_bytes([*values, *_values(self.messages)], info.context)
        return self

    _is_no_replacement = _exclusive("merge_dsl")


class ConversationColumns(Input):
    """The columns of a conversation that the application chooses when it creates one."""

    dialog_id: Id
    """The assistant or agent that the conversation belongs to."""
    user_id: UserId = ""
    """The end user. Empty for an anonymous visitor."""
    exp_user_id: Id | None = None
    """The account that explores an agent, if the conversation belongs to one."""
    name: Name | None = None
    """The title for people. It is stored as NFC."""
    source: Source | None = None
    """The application's label for where the conversation came from."""
    dsl: Json = None
    """The state of the agent, as any JSON value."""
    version_title: VersionTitle | None = None
    """The title of the agent's version."""
    metadata: JsonObject | None = None
    """A JSON object of the application."""


class NewConversation(ConversationColumns):
    """A conversation to create."""

    id: Id | None = None
    """An id of the application, unique within the tenant. None: a new id."""
    created_at: Instant | None = None
    """The time of creation, for data of another system. None: the server's clock."""


class ConversationPatch(Input):
    """The columns of a conversation to set. UNSET leaves a column unchanged, None sets NULL."""

    name: OrUnset[Name | None] = UNSET
    """The title for people. It is stored as NFC."""
    source: OrUnset[Source | None] = UNSET
    """The application's label for where the conversation came from."""
    version_title: OrUnset[VersionTitle | None] = UNSET
    """The title of the agent's version."""
    metadata: OrUnset[JsonObject | None] = UNSET
    """The whole JSON object; the previous one is replaced."""
    dsl: OrUnset[Json] = UNSET
    """The whole state of the agent; the previous one is replaced."""
    merge_metadata: OrUnset[JsonObject] = UNSET
    """A merge patch (RFC 7396) of the metadata: members are set, objects are merged, None removes a
    member. Concurrent patches of different members all count."""
    merge_dsl: OrUnset[JsonObject] = UNSET
    """A merge patch of the state of the agent. A state that is no object is replaced."""
    errors: OrUnset[ErrorText | None] = UNSET
    """The errors of the latest turn."""
    user_id: OrUnset[UserId] = UNSET
    """The end user. Empty for an anonymous visitor."""
    exp_user_id: OrUnset[Id | None] = UNSET
    """The account that explores an agent."""
    dialog_id: OrUnset[Id] = UNSET
    """The dialog to move the conversation to, with its messages."""

    _is_no_replacement = _exclusive("merge_metadata", "merge_dsl")


Bulk = TypeVar("Bulk", Sequence[Input], Mapping[str, Input])
P = TypeVar("P", bound=Input)


def _check_bulk_bytes(values: Bulk, limits: Limits) -> Bulk:
    """Check the total size of all values of one call."""
    check_batch_bytes(_values(values.values() if isinstance(values, Mapping) else values), limits)
    return values


NewConversations = Annotated[
    Sequence[ModelLike[NewConversation]],
    batch_size(),
    with_limits(_check_bulk_bytes),
]
"""Up to `Settings.max_batch_size` conversations to create."""

PatchesById = Annotated[
    Mapping[Id, ModelLike[P]],
    batch_size(),
    with_limits(_check_bulk_bytes),
]
"""Up to `Settings.max_batch_size` patches, by the id of their row."""


class MessagePatch(Input):
    """The columns of a message to set. UNSET leaves a column unchanged."""

    content: OrUnset[Content] = UNSET
    """The text of the message. It is stored as NFC."""
    payload: OrUnset[JsonObject] = UNSET
    """The whole JSON object; the previous one is replaced."""
    merge_payload: OrUnset[JsonObject] = UNSET
    """A merge patch (RFC 7396) of the payload: members are set, None removes a member."""
    reference: OrUnset[Json] = UNSET
    """The sources that an answer cites. None sets NULL."""

    _is_no_replacement = _exclusive("merge_payload")


class StoredMessage(Model):
    """A message as stored."""

    seq: int
    """The sequence number within the conversation, from 1. A number is never used twice."""
    id: str | None
    """The id that the application chose, unique within the conversation."""
    role: str
    """The author of the message."""
    content: str
    """The text of the message."""
    payload: JsonText[dict[str, JsonValue]]
    """All other data of the message."""
    reference: JsonText[JsonValue] | None
    """The sources that an answer cites."""
    thumb: int | None
    """The feedback: 1 is positive, -1 is negative. None: no feedback."""
    created_at: Timestamp
    """The time that the application set, otherwise that of the append by the server's clock."""


class Conversation(Model):
    """A conversation as stored.

    round, tokens, duration and last_seq never decrease. The deletion of messages withdraws their
    thumbs from the counters and changes no other counter.
    """

    tenant_id: str
    """The tenant that owns the conversation."""
    id: str
    """The id, unique within the tenant."""
    dialog_id: str
    """The assistant or agent that the conversation belongs to."""
    user_id: str
    """The end user. Empty for an anonymous visitor."""
    exp_user_id: str | None
    """The account that explores an agent."""
    name: str | None
    """The title for people."""
    source: str | None
    """The application's label for where the conversation came from."""
    version_title: str | None
    """The title of the agent's version."""
    metadata: JsonText[dict[str, JsonValue]] | None
    """A JSON object of the application."""
    dsl: JsonText[JsonValue] | None
    """The state of the agent. None also if the call did not request it."""
    errors: str | None
    """The errors of the latest turn."""
    round: int
    """The sum of `Turn.round`: by default the number of appended turns."""
    tokens: int
    """The language model tokens of all turns."""
    duration: float
    """The duration of all turns in seconds, exact to the microsecond."""
    thumb_up: int
    """The number of messages with positive feedback."""
    thumb_down: int
    """The number of messages with negative feedback."""
    last_seq: int
    """The `seq` of the message that was appended last, 0 before the first."""
    created_at: Timestamp
    """The time of creation."""
    updated_at: Timestamp
    """The time of the last change other than feedback. It never decreases."""
    messages: tuple[StoredMessage, ...] | None
    """All messages in the order of `seq`. None if the call did not request them."""


class FoundMessage(Model):
    """A message, and the conversation that contains it."""

    conversation: Conversation
    """The conversation, without its messages."""
    message: StoredMessage
    """The message."""


class Hit(Model):
    """A conversation that a search found."""

    id: str
    """The id of the conversation."""
    dialog_id: str
    """The dialog of the conversation."""
    name: str | None
    """The title of the conversation."""
    created_at: Timestamp
    """The time at which the conversation was created."""
    seq: int
    """The `seq` of its first message with the keywords."""
    snippet: str
    """The keywords in this message, with up to 40 characters before and after them."""


class DialogSummary(Model):
    """The conversations of a dialog, in numbers."""

    dialog_id: str
    """The dialog."""
    conversations: int
    """The number of its conversations."""
    updated_at: Timestamp
    """The `updated_at` of its conversation that was updated last."""


class ConversationName(Model):
    """The id and title of a conversation, for a sidebar."""

    id: str
    """The id of the conversation."""
    name: str | None
    """The title of the conversation."""


class NewMessages(Model):
    """A conversation to which messages were appended, as `watch` reports it."""

    conversation_id: str
    """The conversation."""
    last_seq: int
    """The `seq` of the last message, also if that was deleted since."""


class Appended(Model):
    """The result of an append."""

    first_seq: int
    """The `seq` of the first message of the turn."""
    last_seq: int
    """The `seq` of the last message of the turn."""
    round: int
    """The rounds of the conversation after the append."""
    replayed: bool
    """Whether the idempotency key was known. The other fields are those of the first append."""
