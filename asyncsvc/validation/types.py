"""The types of public parameters, each with its check, and the markers ANY and UNSET."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Annotated, Final, Literal, TypeVar, Union, get_args

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
)
from pydantic_core import CoreSchema, core_schema

from asyncsvc.validation.checks import (
    batch_size,
    check_json_object,
    check_json_value,
    check_members,
    check_storable,
    message_text,
    text_length,
    with_limits,
)
from asyncsvc.validation.inputs import invalid_value
from asyncsvc.validation.limits import Limits

T = TypeVar("T")

MAX_INT: Final = 2**31 - 1
"""The largest value of PostgreSQL's type integer."""
MAX_TOKENS: Final = 2**63 - 1
"""The largest number of tokens of a conversation: that of PostgreSQL's type bigint."""
MAX_DURATION: Final = 9 * 10**12
"""The largest duration of a conversation in seconds. Its microseconds fit into a bigint."""
MIN_INSTANT: Final = datetime(2, 1, 1, tzinfo=UTC)
MAX_INSTANT: Final = datetime(9998, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
"""1 year below Python's maximum, so that local times and the ends of buckets fit too."""
MAX_USAGE_TOKENS: Final = 10**12
"""The largest number of tokens of one usage."""
MAX_LABEL_LENGTH: Final = 200
"""The most characters of the label of a model."""
MAX_COST: Final = 1_000
"""The largest cost of one usage."""
MAX_ADJUSTED_COST: Final = 1_000_000
"""The largest cost that one adjustment adds or withdraws. Its nano units fit into a bigint."""
_NANO_UNIT: Final = Decimal("1E-9")
COST_CONTEXT: Final = Context(prec=28, rounding=ROUND_HALF_EVEN)
"""The context of computations with costs, since that of a thread may have another precision."""
_MAX_DECIMAL_LENGTH: Final = 64


class AnyType(enum.Enum):
    """The type of `ANY`."""

    ANY = "any"


class UnsetType(enum.Enum):
    """The type of `UNSET`."""

    UNSET = "unset"


ANY: Final = AnyType.ANY
"""In a filter: no condition on this column. `None` means: the column is NULL."""
UNSET: Final = UnsetType.UNSET
"""In a write: leave this column as it is. `None` means: set it to NULL."""


@dataclass(frozen=True)
class _OrMarker:
    """Makes pydantic accept a marker in addition to the other types of a union.

    A plain union also accepts it, but adds the names of its branches to the path of an error.
    """

    marker: enum.Enum

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        others = tuple(part for part in get_args(source) if part is not type(self.marker))
        rejects_none = self.marker is ANY and type(None) not in others

        def validate(value: object, check: ValidatorFunctionWrapHandler) -> object:
            if value is self.marker:
                return value
            if value is None and rejects_none:
                raise invalid_value("must not be None: ANY means no condition")
            return check(value)

        return core_schema.no_info_wrap_validator_function(
            validate,
            handler.generate_schema(Union[others]),  # noqa: UP007 - built at run time
        )


OrAny = Annotated[T | AnyType, _OrMarker(ANY)]
"""A condition of a filter: a value of type T, or `ANY` for no condition."""
OrUnset = Annotated[T | UnsetType, _OrMarker(UNSET)]
"""A column of a patch: a value of type T, or `UNSET` to leave the column as it is."""


def _check_page_size(count: int, limits: Limits) -> int:
    if not 1 <= count <= limits.max_page_size:
        raise invalid_value(f"must be 1 to {limits.max_page_size}")
    return count


def _check_overlap(value: timedelta, limits: Limits) -> timedelta:
    if not 0 <= value.total_seconds() <= limits.max_rotation_overlap:
        raise invalid_value(f"must be 0 to {limits.max_rotation_overlap:,g} seconds")
    return value


def _check_date(value: date | datetime | str) -> date | datetime | str:
    if not isinstance(value, date | str):
        raise invalid_value("must be a date, an aware datetime or ISO 8601 text")
    if isinstance(value, datetime) and value.utcoffset() is None:
        raise invalid_value("must have a time zone: naive datetimes are ambiguous")
    return value


def _check_age(value: timedelta | date | datetime | str) -> timedelta | date | datetime | str:
    if not isinstance(value, timedelta | date | str):
        raise invalid_value("must be a timedelta, a date, an aware datetime or ISO 8601 text")
    if not isinstance(value, timedelta):
        return _check_date(value)
    if value <= timedelta(0):
        raise invalid_value("must be greater than 0")
    return value


def _parse_instant_of_json(value: object, info: ValidationInfo) -> object:
    """Parse ISO 8601 in JSON, which has no times. In Python a text is no instant."""
    if info.mode != "json" or not isinstance(value, str):
        return value
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise invalid_value("must be ISO 8601, for example 2026-11-22T10:00Z") from None


def _check_instant(value: datetime) -> datetime:
    """Return the instant in UTC, which all drivers and servers write in the same way."""
    try:
        instant = value.astimezone(UTC)
    except OverflowError:
        instant = datetime.max.replace(tzinfo=UTC)
    if not MIN_INSTANT <= instant <= MAX_INSTANT:
        raise invalid_value(f"must be within the years {MIN_INSTANT.year} to {MAX_INSTANT.year}")
    return instant


def _cost_within(minimum: int, maximum: int) -> PlainValidator:
    """Return a validator of costs, which rounds them half even to whole nano units."""

    def check(value: object, info: ValidationInfo) -> Decimal:
        """Return a cost in whole nano units. A float is rejected, since it is not exact."""
        if info.mode == "json" and isinstance(value, str) and len(value) <= _MAX_DECIMAL_LENGTH:
            with contextlib.suppress(InvalidOperation):
                value = Decimal(value)
        if isinstance(value, bool) or not isinstance(value, Decimal | int):
            raise invalid_value("must be a Decimal")
        cost = Decimal(value)
        if cost.is_finite() and -MAX_ADJUSTED_COST <= cost <= MAX_ADJUSTED_COST:
            cost = cost.quantize(_NANO_UNIT, context=COST_CONTEXT)
        if not cost.is_finite() or not minimum <= cost <= maximum:
            raise invalid_value(f"must be {minimum:,} to {maximum:,}")
        return cost.copy_abs() if cost.is_zero() else cost  # of -0

    return PlainValidator(check, json_schema_input_type=str)


def _check_limit(value: object) -> Decimal | int:
    """Return the limit of a budget. A float is rejected, since it is not exact."""
    if isinstance(value, bool) or not isinstance(value, Decimal | int):
        raise invalid_value("must be an int or a Decimal")
    if not (Decimal(value).is_finite() and 0 <= value <= MAX_BUDGET):
        raise invalid_value(f"must be 0 to {MAX_BUDGET:,}")
    if isinstance(value, Decimal) and value != value.quantize(_NANO_UNIT, context=COST_CONTEXT):
        raise invalid_value("must have at most 9 decimal places")
    return value


def _check_thumb(value: int) -> int:
    if value not in {-1, 1}:  # Literal[-1, 1] accepts True and 1.0
        raise invalid_value("must be 1 or -1")
    return value


def _check_message_key(value: object) -> int | str:
    if isinstance(value, str):
        return check_storable(value, _MAX_ID_LENGTH)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_INT:
        return value
    raise invalid_value(f"must be a seq, 0 to {MAX_INT}, or the id of a message")


def _check_message_bound(value: object) -> int | str | datetime:
    if not isinstance(value, datetime):
        return _check_message_key(value)
    if value.utcoffset() is None:
        raise invalid_value("must have a time zone: naive datetimes are ambiguous")
    return _check_instant(value)


def _check_secret(value: SecretStr | str) -> SecretStr:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        raise invalid_value("must be text")
    return value if isinstance(value, SecretStr) else SecretStr(value)


def _check_names(value: Collection[str]) -> Collection[str]:
    is_collection = isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping)
    if not is_collection or not all(isinstance(name, str) for name in value):
        raise invalid_value("must be a collection of names")
    return value


_MAX_ID_LENGTH: Final = 128
MAX_BUDGET: Final = 10**15
MAX_COST_BUDGET: Final = 10**12
Id = Annotated[str, text_length(1, _MAX_ID_LENGTH)]
"""An id that the caller chooses: 1 to 128 characters, stored unchanged."""
UserId = Annotated[str, text_length(0, 128)]
"""The id of a user: 0 to 128 characters. The empty text is an unknown visitor."""
Ids = Annotated[Sequence[Id], batch_size()]
"""Up to `Settings.max_batch_size` ids."""
Names = Annotated[Collection[str], PlainValidator(_check_names)]
"""The names of optional parts of a statement, in any collection."""
Source = Annotated[str, text_length(1, 128)]
"""The channel of a conversation, such as "web" or "api": 1 to 128 characters."""
Role = Annotated[str, text_length(1, 32)]
"""The author of a message, such as "user" or "assistant": 1 to 32 characters."""
Scope = Annotated[str, text_length(1, 128)]
"""A permission of a token: 1 to 128 characters. "*" is every permission."""
Scopes = Annotated[Sequence[Scope], batch_size()]
"""Up to `Settings.max_batch_size` scopes."""
Name = Annotated[str, text_length(0, 512, nfc=True, replaceable=True)]
"""A title that people read: up to 512 characters, stored as NFC."""
Actor = Annotated[str, text_length(1, 256)]
"""The person or program that an audit entry names: 1 to 256 characters."""
Reason = Annotated[str, text_length(1, 512)]
"""The reason that an audit entry states: 1 to 512 characters."""
VersionTitle = Annotated[str, text_length(0, 512, replaceable=True)]
"""The title of the version of an agent: up to 512 characters."""
Keywords = Annotated[str, text_length(0, 512)]
"""The text that a list is filtered by: up to 512 characters. The empty text is no filter."""
SearchText = Annotated[str, text_length(1, 512, nfc=True)]
"""The text of a search: 1 to 512 characters, compared as NFC."""
IdempotencyKey = Annotated[str, text_length(1, 255)]
"""The key of an append that is applied exactly once: 1 to 255 characters."""
Cursor = Annotated[str, text_length(1, 2_048)]
"""The position after a page: 1 to 2,048 characters, a value of `Page.next`."""
Zone = Annotated[str, text_length(1, 64)]
"""The name of a time zone, such as `Europe/Berlin`: 1 to 64 characters."""
Content = Annotated[str, message_text(nfc=True)]
"""The text of a message: up to `Settings.max_message_bytes` of UTF-8, stored as NFC."""
ErrorText = Annotated[str, message_text(nfc=False)]
"""The errors of a conversation: up to `Settings.max_message_bytes` of UTF-8, stored unchanged."""
Secret = Annotated[SecretStr | str, PlainValidator(_check_secret)]
"""The secret of a token, as text or SecretStr. A method receives a SecretStr."""

Json = Annotated[object, PlainValidator(check_json_value)]
"""A JSON value: up to `Settings.max_json_bytes` and `Settings.max_json_depth` levels.

It must not contain NaN or infinity. `Settings.unstorable_text` decides about NUL characters and
lone surrogates.
"""
Members = Annotated[Mapping[str, object], PlainValidator(check_members)]
"""The members that a JSON object must have: up to 64 texts, numbers, booleans, None; 64 KiB."""
JsonObject = Annotated[Mapping[str, object], PlainValidator(check_json_object)]
"""A dict within the limits of `Json`."""

Seq = Annotated[int, Field(ge=0, le=MAX_INT)]
"""The sequence number of a message within its conversation. The first message has 1."""
MessageKey = Annotated[
    int | str, PlainValidator(_check_message_key, json_schema_input_type=int | str)
]
"""A message of a conversation: its `seq` as an integer, or its own id as text."""
MessageBound = Annotated[
    int | str | datetime,
    PlainValidator(_check_message_bound, json_schema_input_type=int | str | datetime),
]
"""A bound of a read of messages: a `seq`, the own id of a message, or an aware datetime."""
Tokens = Annotated[int, Field(ge=0, le=MAX_USAGE_TOKENS)]
"""The language model tokens of one turn: 0 to 10**12."""
SignedCount = Annotated[int, Field(ge=-MAX_INT, le=MAX_INT)]
"""The change of a counter: at most 2**31 - 1."""
SignedTokens = Annotated[int, Field(ge=-MAX_USAGE_TOKENS, le=MAX_USAGE_TOKENS)]
"""The change of a counter of usage: -10**12 to 10**12."""
_PLAIN_COST: Final = PlainSerializer(
    lambda cost: format(cost, "f"), return_type=str, when_used="json"
)
SignedCost = Annotated[Decimal, _cost_within(-MAX_ADJUSTED_COST, MAX_ADJUSTED_COST), _PLAIN_COST]
"""The change of a cost: a Decimal, -1,000,000 to 1,000,000, rounded half even to 9 places."""
Cost = Annotated[Decimal, _cost_within(0, MAX_COST), _PLAIN_COST]
"""The cost of one usage: a Decimal, 0 to 1,000, rounded half even to 9 places."""
TotalCost = Annotated[Decimal, _PLAIN_COST]
"""A sum of costs, exact. Its JSON is a string without an exponent."""
ModelLabel = Annotated[str, text_length(1, MAX_LABEL_LENGTH)]
"""The label of a language model, such as "openai/gpt-5": 1 to 200 characters."""
BudgetLimit = Annotated[Decimal | int, PlainValidator(_check_limit)]
"""The limit of a budget: a Decimal or int for a cost, an int for others, 0 to 10**15."""
Rounds = Annotated[int, Field(ge=0, le=1_000)]
"""The rounds that one turn adds: 0 to 1,000."""
Duration = Annotated[float, Field(ge=0, le=10**9, allow_inf_nan=False)]
"""The duration of one turn in seconds: 0 to 10**9, stored in whole microseconds."""
Count = Annotated[int, Field(ge=0, le=MAX_INT)]
"""A counter: 0 to 2**31 - 1."""
BigCount = Annotated[int, Field(ge=0, le=MAX_TOKENS)]
"""A counter: 0 to 2**63 - 1."""
TotalDuration = Annotated[float, Field(ge=0, le=MAX_DURATION, allow_inf_nan=False)]
"""A sum of durations in seconds: 0 to 9 * 10**12, whose microseconds fit into 64 bits."""
Thumb = Annotated[int, AfterValidator(_check_thumb)]
"""Feedback: 1 is positive, -1 is negative."""
TopGroups = Annotated[int, Field(ge=1, le=1_000)]
"""The number of groups with rows of their own: 1 to 1,000."""
PageNumber = Annotated[int, Field(ge=1)]
"""The number of a page. The first page is 1."""
PageSize = Annotated[int, with_limits(_check_page_size)]
"""The items of a page: 1 to `Settings.max_page_size`."""

DateLike = Annotated[date | datetime | str, PlainValidator(_check_date)]
"""A date, an aware datetime or ISO 8601 text. See `asyncsvc.validation.dates`."""
Age = Annotated[timedelta | date | datetime | str, PlainValidator(_check_age)]
"""A timedelta before the present time of the server, or a date as `DateLike`."""
Instant = Annotated[
    AwareDatetime, BeforeValidator(_parse_instant_of_json), AfterValidator(_check_instant)
]
"""An aware datetime in the years 2 to 9998, converted to UTC. In JSON: ISO 8601 with an offset."""
Overlap = Annotated[timedelta, with_limits(_check_overlap)]
"""The time for which a rotated token stays valid: 0 to `Settings.max_rotation_overlap`."""

OrderBy = Literal[
    "created_at",
    "updated_at",
    "name",
    "round",
    "tokens",
    "duration",
    "thumb_up",
]
"""The column that orders a list."""
Total = Literal["exact", "capped", "none"]
"""How `Page.total` is counted: completely, up to a cap, or not at all."""
AgeBy = Literal["created_at", "updated_at"]
"""The column that determines the age of a conversation."""
Interval = Literal["hour", "day", "week", "month", "total"]
"""The length of the buckets of a usage statistic; "total": one bucket of the whole range."""
UsageGroup = Literal["model", "token_id", "user_id", "dialog_id", "source"]
"""What a usage statistic is grouped by."""
UsageBasis = Literal["creation", "activity"]
"""The time at which usage counts: the creation of its conversation, or the time of the activity."""
TokenKind = Literal["api", "beta"]
"""The kind of a token: "api", or "beta" for embedded chats. A token is valid for 1 kind only."""
TokenStatus = Literal["active", "retiring", "expired", "revoked"]
"""The state of a token. A retiring token was rotated and is valid until its overlap ends."""
BudgetScope = Literal["tenant", "token", "user", "dialog"]
"""What a budget limits: a tenant, or each or one of its tokens, users or dialogs."""
BudgetMetric = Literal["cost", "tokens", "uncached_tokens", "rounds"]
"""What a budget counts. "uncached_tokens" are all tokens except input from a cache."""
BudgetWindow = Literal["hour", "day", "week", "month", "total"]
"""The time that a budget counts: the present local hour, day, week or month, or all time."""
UsageAction = Literal["adjust", "set_budget", "raise_limit", "delete_budget", "budget_crossed"]
"""The action that an entry of the audit of usage records."""
TokenAction = Literal["create", "import", "update", "rotate", "revoke", "delete"]
"""The action that an audit entry records."""
