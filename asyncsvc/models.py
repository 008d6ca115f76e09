"""What goes in, what comes back: frozen pydantic models.

Inputs are `Input`s; everything else is a row or a result, made from what the database returned.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    JsonValue,
    PlainValidator,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic import Json as JsonText
from pydantic_core import CoreSchema

from asyncsvc.fields import (
    MOST_INT,
    UNSET,
    BigCount,
    Content,
    Count,
    Duration,
    ErrorText,
    Id,
    Instant,
    Json,
    JsonObject,
    Label,
    Name,
    OrUnset,
    Role,
    Rounds,
    Scopes,
    Secret,
    Source,
    Thumb,
    TokenAction,
    TokenKind,
    Tokens,
    TokenStatus,
    TotalDuration,
    UserId,
    an_iterable,
    bulk,
    checked,
    refused,
    within_batch,
)
from asyncsvc.inputs import Input
from asyncsvc.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True)
class Made:
    """Says what `validated` makes of an argument for which an equal mapping does as well."""

    form: object

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Check by the form alone; the union is for the type checker's sake."""
        return handler.generate_schema(self.form)


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

    messages: Annotated[Sequence[Message], Field(min_length=1), checked(bulk)]
    tokens: Tokens = 0
    duration: Duration = 0.0
    round: Rounds = 1
    errors: OrUnset[ErrorText | None] = UNSET
    dsl: OrUnset[Json] = UNSET
    token_id: Id | None = None

    @model_validator(mode="after")
    def _is_within_batch(self, info: ValidationInfo) -> Self:
        if info.context is not None:
            within_batch([self.errors, self.dsl, *_values(self.messages)], info.context)
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
    version_title: Label | None = None
    metadata: JsonObject | None = None
    created_at: Instant | None = None


class ConversationPatch(Input):
    """The columns of a conversation to set; UNSET leaves one as it is, None sets NULL."""

    name: OrUnset[Name | None] = UNSET
    source: OrUnset[Source | None] = UNSET
    version_title: OrUnset[Label | None] = UNSET
    metadata: OrUnset[JsonObject | None] = UNSET
    dsl: OrUnset[Json] = UNSET
    errors: OrUnset[ErrorText | None] = UNSET
    user_id: OrUnset[UserId] = UNSET
    exp_user_id: OrUnset[Id | None] = UNSET
    dialog_id: OrUnset[Id] = UNSET


Bulk = TypeVar("Bulk", Sequence[NewConversation], Mapping[str, ConversationPatch])


def _bulk_size(values: Bulk, settings: Settings) -> Bulk:
    within_batch(_values(values.values() if isinstance(values, Mapping) else values), settings)
    return values


NewConversations = Annotated[
    Sequence[NewConversation | Mapping[str, object]],
    Made(Sequence[NewConversation]),
    checked(bulk),
    checked(_bulk_size),
]
ConversationPatches = Annotated[
    Mapping[Id, ConversationPatch | Mapping[str, object]],
    Made(Mapping[Id, ConversationPatch]),
    checked(bulk),
    checked(_bulk_size),
]


class MessagePatch(Input):
    """The columns of a message to set; UNSET leaves one as it is."""

    content: OrUnset[Content] = UNSET
    payload: OrUnset[JsonObject] = UNSET
    reference: OrUnset[Json] = UNSET


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
    seq: Annotated[int, Field(ge=1, le=MOST_INT)] | None = None
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
    version_title: Label | None = None
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
            or max(seqs, default=0) > MOST_INT
        ):
            raise refused("the seq of each must be greater than that of the one before")
        return messages

    @field_validator("last_seq")
    @classmethod
    def _is_last(cls, last_seq: int | None, info: ValidationInfo) -> int | None:
        if last_seq is not None and last_seq < max(_seqs(info.data.get("messages", ())), default=0):
            raise refused("must not be less than the last message's seq")
        return last_seq


def _seqs(messages: Sequence[MessageRecord]) -> list[int]:
    last = 0
    return [last := last + 1 if message.seq is None else message.seq for message in messages]


class TokenPatch(Input):
    """The columns of a token to set; UNSET leaves one as it is, None sets NULL."""

    name: OrUnset[Name] = UNSET
    scopes: OrUnset[Scopes] = UNSET
    dialog_id: OrUnset[Id | None] = UNSET
    source: OrUnset[Source | None] = UNSET
    metadata: OrUnset[JsonObject] = UNSET
    expires_at: OrUnset[Instant | None] = UNSET


class TokenRecord(Input):
    """A token that another system issued, in clear text, for `load`."""

    secret: Secret
    kind: TokenKind = "api"
    name: Name = ""
    scopes: Scopes = ("*",)
    dialog_id: Id | None = None
    source: Source | None = None
    metadata: JsonObject = Field(default_factory=dict)
    created_at: Instant | None = None
    expires_at: Instant | None = None


TurnLike = Annotated[Turn | Mapping[str, object], Made(Turn)]
ConversationPatchLike = Annotated[ConversationPatch | Mapping[str, object], Made(ConversationPatch)]
MessagePatchLike = Annotated[MessagePatch | Mapping[str, object], Made(MessagePatch)]
TokenPatchLike = Annotated[TokenPatch | Mapping[str, object], Made(TokenPatch)]


class Row(BaseModel):
    """The base of all rows and results: frozen, made of what the database returned.

    What is no field is left out: looking for such costs a fifth of the time, and the tests hold
    the columns of each statement against the model's fields.

    Of JSON pydantic caches short texts, up to 16,384 in a process, for ever. Keys repeat, and it is
    right for them; what people wrote does not, and is not to stay when the caller lets it go.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", cache_strings="keys", defer_build=True)


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


Records = Annotated[
    Iterable[Conversation | ConversationRecord | Mapping[str, object]]
    | AsyncIterable[Conversation | ConversationRecord | Mapping[str, object]],
    PlainValidator(an_iterable),
]
"""What `load` takes: what `export` yields, records, or equal mappings."""


TokenRecords = Annotated[
    Iterable[TokenRecord | Mapping[str, object]]
    | AsyncIterable[TokenRecord | Mapping[str, object]],
    PlainValidator(an_iterable),
]
"""What `load` takes: records, or equal mappings."""


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


class LoadReport(Row):
    """What a load did.

    `present` conversations were there already, and are as they were. `refused` ones went to
    `on_refused`. Reports of several loads can be added.
    """

    conversations: int = 0
    messages: int = 0
    present: int = 0
    refused: int = 0

    def __add__(self, other: LoadReport) -> LoadReport:
        """Return the report of both loads together."""
        return LoadReport(
            conversations=self.conversations + other.conversations,
            messages=self.messages + other.messages,
            present=self.present + other.present,
            refused=self.refused + other.refused,
        )


class TokenLoadReport(Row):
    """What a load of tokens did; `present` ones were there already, `refused` ones reported."""

    tokens: int = 0
    present: int = 0
    refused: int = 0


class PurgeReport(Row):
    """What a purge deleted, or with `dry_run` would delete.

    `before` is the instant that what went was older than. `skipped` conversations were old, but
    changed, gone or held by somebody else when their turn came: the next purge looks again.
    """

    before: datetime
    dry_run: bool
    conversations: int = 0
    messages: int = 0
    skipped: int = 0


class MaintenanceReport(Row):
    """What maintenance found to do. Reports can be added."""

    append_keys: int = 0
    """How many idempotency keys it forgot."""
    bookings: int = 0
    """How many rows of the usage ledger it folded into the sums."""
    messages: int = 0
    """How many messages it put into the search index."""
    titles: int = 0
    """How many ids and names of conversations it put into it."""

    def __add__(self, other: MaintenanceReport) -> MaintenanceReport:
        """Return the report of both together."""
        return MaintenanceReport(
            append_keys=self.append_keys + other.append_keys,
            bookings=self.bookings + other.bookings,
            messages=self.messages + other.messages,
            titles=self.titles + other.titles,
        )


class ErasureReceipt(Row):
    """What was deleted of one person, for whoever has to prove it.

    Nothing of the person was left at `erased_at`, by the server's clock, when a last look found
    nothing more. It counts what this call deleted: after one that was broken off, the rest.
    """

    tenant_id: str
    user_id: str
    conversations: int
    messages: int
    append_keys: int
    erased_at: datetime


class UsageBucket(Row):
    """The usage of one hour, day, week or month.

    `dt` is the bucket's first instant, with the offset that its zone has then. (An hour in which
    a clock shifts by half an hour is two buckets; the second is named by the hour that its own
    offset makes of it, which began before.) `pv` counts conversations and `uv` their distinct
    users that are not empty; `duration` is in seconds; `rounds` is a sum and `round` the mean a
    conversation.
    """

    dt: datetime
    pv: int
    uv: int
    tokens: int
    duration: float
    rounds: int
    round: float
    thumb_up: int
    thumb_down: int


class APIToken(Row):
    """A token, without its secret. `status` is by the server's clock, as of the answer.

    `hint` is how its secret begins. `revoked_at` lies ahead while the token is retiring.
    `last_used_at` is the stamp, and `pepper_version` what its secret was hashed by (0 for none), as
    they were before the call that returned this. `rotated_from` is the id of its predecessor.
    """

    id: str
    tenant_id: str
    name: str
    hint: str
    kind: TokenKind
    scopes: tuple[str, ...]
    dialog_id: str | None
    source: str | None
    metadata: JsonText[dict[str, JsonValue]]
    created_at: datetime
    created_by: str | None
    expires_at: datetime | None
    revoked_at: datetime | None
    revoked_reason: str | None
    last_used_at: datetime | None
    rotated_from: str | None
    pepper_version: int
    status: TokenStatus


class IssuedToken(Row):
    """A new token and its secret, which nobody can read again."""

    token: APIToken
    secret: SecretStr


class TokenEvent(Row):
    """What was done to a token, when, and by whom, as far as the caller said so.

    `detail` has what belongs to the action: the fields of a token that was created or imported, the
    patch of an update, the successor and the end of a rotated one, the reason of a revocation.
    """

    id: int
    tenant_id: str
    token_id: str
    action: TokenAction
    actor: str | None
    at: datetime
    detail: JsonText[dict[str, JsonValue]]


class Migration(Row):
    """A numbered migration: applied when `applied_at` is set, pending otherwise."""

    version: int
    name: str
    checksum: str
    applied_at: datetime | None = None


class Argument(Row):
    """A parameter of a statement: its type in PostgreSQL, and the value it was explained with.

    `is_given` tells what a caller chose from what was put in its place.
    """

    name: str
    type: str
    value: object
    is_given: bool


class Plan(Row):
    """What PostgreSQL would do for a statement, and with which values it was asked."""

    name: str
    text: str
    arguments: tuple[Argument, ...]
    lines: tuple[str, ...]


Level = Literal["ok", "note", "warning", "problem"]


class Finding(Row):
    """One thing that `doctor` looked at: what it found, and what to do where that is not well."""

    check: str
    level: Level
    found: str
    advice: str | None = None


class Page(tuple[int | None, list[T]]):  # noqa: SLOT001 - it has more than its slots
    """One page: a tuple of `(total, items)`, and how to go on.

    `total` is None when it was not counted; `total_capped` says that there are more than `total`.
    `next` is the cursor of the next page, or None when this one is the last or its order has no
    cursors.
    """

    next: str | None
    total_capped: bool

    def __new__(
        cls,
        total: int | None,
        items: list[T],
        *,
        next: str | None = None,
        total_capped: bool = False,
    ) -> Page[T]:
        """Make the pair, and hang the rest on it."""
        page = super().__new__(cls, (total, items))
        page.next = next
        page.total_capped = total_capped
        return page

    @property
    def total(self) -> int | None:
        """How many items all pages have together."""
        return self[0]

    @property
    def items(self) -> list[T]:
        """The items of this page, in order."""
        return self[1]

    def __getnewargs_ex__(self) -> tuple[tuple[object, ...], dict[str, object]]:
        """Copy and pickle the whole of it."""
        return tuple(self), {"next": self.next, "total_capped": self.total_capped}

    def __repr__(self) -> str:
        """Show every part, as the models do."""
        return (
            f"Page(total={self.total!r}, items={self.items!r}, next={self.next!r}, "
            f"total_capped={self.total_capped!r})"
        )


Hits = Page[Hit]
"""A page of a search."""
