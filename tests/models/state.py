"""The state of the model: conversations and tokens of tenants, as plain objects."""

import copy
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from asyncsvc import ANY, NotFound

Row = dict[str, Any]
COUNTERS = ("conversations", "tokens", "duration", "rounds", "thumb_up", "thumb_down")
"""The sums of a bucket. The model counts durations in microseconds."""
MESSAGE: Row = {"id": None, "payload": {}, "reference": None, "thumb": None}
"""The defaults of a message."""
STORED_COLUMNS = ("id", "dialog_id", "user_id", "exp_user_id", "name", "source", "version_title",
                  "metadata", "errors", "round", "tokens", "last_seq")  # fmt: skip
TOKEN_COLUMNS = ("id", "name", "kind", "scopes", "dialog_id", "source", "metadata", "expires_at",
                 "created_by", "rotated_from", "status")  # fmt: skip
"""The columns that the model stores under the same name."""


@dataclass(frozen=True)
class Unknown:
    """A placeholder that equals each value of a type."""

    type: type

    def __eq__(self, other: object) -> bool:
        return isinstance(other, self.type)

    __hash__ = None


SERVER_TIME = Unknown(datetime)


@dataclass
class Conversation:
    """The expected state of a conversation."""

    id: str
    dialog_id: str
    user_id: str = ""
    exp_user_id: str | None = None
    name: str | None = None
    source: str | None = None
    version_title: str | None = None
    metadata: dict | None = None
    dsl: object = None
    errors: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    round: int = 0
    tokens: int = 0
    microseconds: int = 0
    last_seq: int = 0
    messages: dict[int, Row] = field(default_factory=dict)
    keys: dict[str, tuple[Row, Row]] = field(default_factory=dict)
    is_updated: bool = False
    """Whether `updated_at` increased since it was read."""

    def set(self, patch: Row) -> None:
        set_columns(vars(self), patch)
        self.is_updated = True

    def count(self, thumb: int) -> int:
        return [message["thumb"] for message in self.messages.values()].count(thumb)

    def contains(self, keywords: str) -> bool:
        texts = [self.id, self.name or "", *(each["content"] for each in self.messages.values())]
        return any(keywords.casefold() in text.casefold() for text in texts)

    def message(self, key: int | str) -> Row | None:
        """Return the message with this seq or own id."""
        if isinstance(key, int):
            return self.messages.get(key)
        return next((each for each in self.messages.values() if each["id"] == key), None)

    @property
    def counters(self) -> dict[str, int]:
        """The usage of the conversation, in the order of `COUNTERS`."""
        thumbs = self.count(1), self.count(-1)
        values = (1, self.tokens, self.microseconds, self.round, *thumbs)
        return dict(zip(COUNTERS, values, strict=True))

    def row(self, *, include_dsl: bool = True, include_messages: bool = False) -> Row:
        """Return the fields of `asyncsvc.Conversation`, except the tenant."""
        is_known = self.updated_at is not None and not self.is_updated
        return {name: getattr(self, name) for name in STORED_COLUMNS} | {
            "dsl": self.dsl if include_dsl else None,
            "duration": self.microseconds / 1_000_000,
            "thumb_up": self.count(1),
            "thumb_down": self.count(-1),
            "created_at": self.created_at or SERVER_TIME,
            "updated_at": self.updated_at if is_known else SERVER_TIME,
            "messages": message_rows(self) if include_messages else None,
        }


def message_row(message: Row) -> Row:
    return message | {"created_at": message["created_at"] or SERVER_TIME}


def message_rows(conversation: Conversation) -> list[Row]:
    return [message_row(message) for message in conversation.messages.values()]


@dataclass
class Token:
    """The expected state of a token, with its secret if it is known."""

    name: str
    kind: str = "api"
    scopes: tuple[str, ...] = ()
    dialog_id: str | None = None
    source: str | None = None
    metadata: dict = field(default_factory=dict)
    expires_at: datetime | None = None
    created_at: datetime | None = None
    created_by: str | None = None
    rotated_from: str | None = None
    family: "Token | None" = field(default=None, repr=False)
    """The first token of its chain of rotations; None for itself."""
    id: str | None = None
    secret: str | None = None
    end: str | None = None
    """ "retiring" or "revoked"."""
    reason: str | None = None
    is_used: bool = False

    @property
    def status(self) -> str:
        if self.end == "revoked":
            return "revoked"
        if self.expires_at is not None and self.expires_at < datetime.now(UTC):
            return "expired"
        return self.end or "active"

    @property
    def is_valid(self) -> bool:
        return self.status in {"active", "retiring"}

    def row(self) -> Row:
        """Return the fields of `asyncsvc.APIToken`, except the tenant and the secret."""
        names = TOKEN_COLUMNS if self.id else TOKEN_COLUMNS[1:]
        return {name: getattr(self, name) for name in names} | {
            "created_at": self.created_at or SERVER_TIME,
            "revoked_at": SERVER_TIME if self.end else None,
            "revoked_reason": self.reason,
            "last_used_at": SERVER_TIME if self.is_used else None,
        }


@dataclass
class Tenant:
    """The expected state of a tenant."""

    conversations: dict[str, Conversation] = field(default_factory=dict)
    activity: dict[tuple, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Usage by quarter hour, dialog, source and token."""
    zones: set[str] = field(default_factory=set)
    tokens: list[Token] = field(default_factory=list)
    records: dict[tuple[str, str], Row] = field(default_factory=dict)
    """Records by kind and id."""
    audit: list[tuple[str, Token, str | None]] = field(default_factory=list)
    """Actions with their tokens and actors, oldest first."""

    def conversation(self, id: str, user_id: object = ANY) -> Conversation:
        conversation = self.conversations.get(id)
        if conversation is None or not matches(user_id, conversation.user_id):
            raise NotFound("conversation")
        return conversation

    def message(self, id: str, key: int | str, user_id: object = ANY) -> Row:
        conversation = self.conversations.get(id)
        message = conversation and conversation.message(key)
        if message is None or not matches(user_id, conversation.user_id):
            raise NotFound("message")
        return message

    def token(self, id: str) -> Token:
        for token in self.tokens:
            if token.id == id:
                return token
        raise NotFound("token")


def matches(condition: object, value: object) -> bool:
    """Return whether a value meets a condition of a filter."""
    return condition is ANY or condition == value


def set_columns(row: Row, patch: Row) -> None:
    """Set columns, or merge those whose name begins with merge_."""
    for name, value in copy.deepcopy(patch).items():
        column = name.removeprefix("merge_")
        row[column] = value if column == name else merge(row[column], value)


def merge(target: Any, patch: Any) -> Any:
    """Return what the pseudocode of RFC 7396 returns."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def now() -> datetime:
    return datetime.now(UTC)


def conversation_of_record(record: Row) -> Conversation:
    """Return the conversation of a record, with the defaults of `ConversationRecord`."""
    times = [each["created_at"] for each in record["messages"] if each.get("created_at")]
    created_at = record.get("created_at") or min(times, default=None)
    messages: dict[int, Row] = {}
    seq, at = 0, created_at
    for message in record["messages"]:
        seq, at = message.get("seq") or seq + 1, message.get("created_at") or at
        messages[seq] = MESSAGE | copy.deepcopy(message) | {"seq": seq, "created_at": at}
    rounds = sum(message["role"] == "user" for message in record["messages"])
    names = Conversation.__dataclass_fields__.keys() & record.keys()
    return Conversation(
        **{name: copy.deepcopy(record[name]) for name in names} | {
            "messages": messages,
            "round": rounds if record.get("round") is None else record["round"],
            "microseconds": round(record.get("duration", 0) * 1_000_000),
            "last_seq": record.get("last_seq") or seq,
            "created_at": created_at,
            "updated_at": record.get("updated_at") or max(times, default=created_at),
        }
    )  # fmt: skip
