"""The types of the public parameters. Each carries its own check, so a signature says it all.

A check that needs the service's settings for its limits finds them in pydantic's context. Without
a context, as when a caller builds a model by hand, it lets all pass; the method that gets the model
checks it then.
"""

from __future__ import annotations

import enum
import json
import re
import unicodedata
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Final, Literal, TypeVar, Union, get_args

from pydantic import (
    AfterValidator,
    AwareDatetime,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    JsonValue,
    PlainValidator,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from asyncsvc.validation.limits import Limits

T = TypeVar("T")

MAX_INT = 2**31 - 1
MIN_INSTANT = datetime(2, 1, 1, tzinfo=UTC)
MAX_INSTANT = datetime(9998, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
"""A year short of what Python can hold, so that any zone's local time and any bucket fits too."""

_JSON: Final = TypeAdapter[JsonValue](JsonValue, config=ConfigDict(defer_build=True))
_WRITER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_BRACKET: Final = re.compile(r"[][{}]")
_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class AnyType(enum.Enum):
    """The type of `ANY`."""

    ANY = "any"


class UnsetType(enum.Enum):
    """The type of `UNSET`."""

    UNSET = "unset"


ANY: Final = AnyType.ANY
"""No condition on this column, where `None` means: the column is NULL."""
UNSET: Final = UnsetType.UNSET
"""Leave this column as it is, where `None` means: set it to NULL."""


@dataclass(frozen=True)
class _Or:
    """Lets one marker pass beside the rest of a union.

    Pydantic's own union would do, but it puts the names of its branches into an error's path.
    """

    marker: enum.Enum

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        rest = tuple(part for part in get_args(source) if part is not type(self.marker))
        return core_schema.no_info_wrap_validator_function(
            lambda value, check: value if value is self.marker else check(value),
            handler.generate_schema(Union[rest]),  # noqa: UP007 - built at run time
        )


OrAny = Annotated[T | AnyType, _Or(ANY)]
OrUnset = Annotated[T | UnsetType, _Or(UNSET)]


def rejected(reason: str) -> PydanticCustomError:
    """Build the error by which a check refuses a value; the reason never quotes the value."""
    return PydanticCustomError("refused", "{reason}", {"reason": reason})


def check_limits(check: Callable[[T, Limits], T]) -> AfterValidator:
    """Make a validator of a check that needs the settings; without them it lets all pass."""

    def run(value: T, info: ValidationInfo) -> T:
        return value if info.context is None else check(value, info.context)

    return AfterValidator(run)


def _storable(text: str) -> str:
    if "\x00" in text:
        raise rejected("must not hold a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise rejected("must not hold a lone surrogate") from None
    return text


def _text(least: int, most: int, *, normal: bool = False) -> AfterValidator:
    def check(text: str, _: Limits) -> str:
        if not least <= len(text) <= most:
            raise rejected(f"must be {least} to {most} characters")
        stored = unicodedata.normalize("NFC", _storable(text)) if normal else _storable(text)
        if len(stored) > most:  # some characters have no composed form, and are taken apart
            raise rejected(f"must be {least} to {most} characters in Unicode's form NFC")
        return stored

    return check_limits(check)


def _long_text(*, normal: bool) -> AfterValidator:
    def check(text: str, limits: Limits) -> str:
        # Characters first: they are counted already, and normalising 100 MB is not free.
        if len(text) > limits.max_message_bytes:
            raise rejected(f"must be at most {limits.max_message_bytes} bytes")
        text = unicodedata.normalize("NFC", _storable(text)) if normal else _storable(text)
        if len(text.encode()) > limits.max_message_bytes:
            raise rejected(f"must be at most {limits.max_message_bytes} bytes")
        return text

    return check_limits(check)


def json_text(value: object) -> str:
    """Write JSON as it is measured and sent. Raises ValueError for NaN and infinity."""
    return "null" if value is None else "{}" if value == {} else _WRITER.encode(value)


def json_size(value: object, limits: Limits) -> int:
    """Check that PostgreSQL stores this JSON and Python reads it back; return its size in bytes."""
    try:
        _JSON.validate_python(value, strict=True)
        text = json_text(value)
        size = len(text.encode())
    except ValidationError as error:
        if any(part["type"] == "recursion_loop" for part in error.errors(include_input=False)):
            raise rejected(f"must be at most {limits.max_json_depth} levels deep") from None
        raise rejected("must be JSON: text, numbers, booleans, null, lists and objects") from None
    except RecursionError:
        raise rejected(f"must be at most {limits.max_json_depth} levels deep") from None
    except UnicodeEncodeError:
        raise rejected("must not hold a lone surrogate") from None
    except ValueError:
        raise rejected("must not hold NaN, infinity or integers of over 4,300 digits") from None
    if size > limits.max_json_bytes:
        raise rejected(f"must be at most {limits.max_json_bytes} bytes of JSON")
    # The plain searches are hundreds of times faster than the exact ones, and nearly always enough.
    if "\\u0000" in text and _NUL.search(text):
        raise rejected("must not hold a NUL character")
    brackets = text.count("[") + text.count("{")
    if brackets > limits.max_json_depth and _depth(text) > limits.max_json_depth:
        raise rejected(f"must be at most {limits.max_json_depth} levels deep")
    return size


def _depth(text: str) -> int:
    """Return how deep the lists and objects of JSON text are nested."""
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        if bracket in "[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def _json(value: object, info: ValidationInfo) -> object:
    if info.context is not None:
        json_size(value, info.context)
    return value


def _json_object(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, dict):
        raise rejected("must be a JSON object")
    _json(value, info)
    return value


Sized = TypeVar("Sized", bound=Collection[object])


def check_batch_size(values: Sized, limits: Limits) -> Sized:
    """Check how many items one call carries."""
    if len(values) > limits.max_batch_size:
        raise rejected(f"must be at most {limits.max_batch_size}")
    return values


def check_batch_bytes(values: Collection[object], limits: Limits) -> None:
    """Check how many bytes the text and the JSON of one call are, each of which was checked."""
    # What each can be at most is known without writing it out, and nearly always enough.
    most = sum(_most_bytes(value, limits) for value in values)
    if most > limits.max_batch_bytes and sum(map(_bytes, values)) > limits.max_batch_bytes:
        raise rejected(f"must be at most {limits.max_batch_bytes} bytes in all")


def _most_bytes(value: object, limits: Limits) -> int:
    if isinstance(value, str):
        return 4 * len(value)
    return limits.max_json_bytes if value and isinstance(value, dict | list) else 0


def _bytes(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode())
    return len(json_text(value).encode()) if isinstance(value, dict | list) else 0


def _page_size(count: int, limits: Limits) -> int:
    if not 1 <= count <= limits.max_page_size:
        raise rejected(f"must be 1 to {limits.max_page_size}")
    return count


def _date(value: date | datetime | str) -> date | datetime | str:
    if not isinstance(value, date | str):
        raise rejected("must be a date, an aware datetime or ISO 8601 text")
    if isinstance(value, datetime) and value.utcoffset() is None:
        raise rejected("must have a time zone: naive datetimes are ambiguous")
    return value


def _thumb(value: int) -> int:
    if value not in {-1, 1}:  # a Literal would take True and 1.0 for 1
        raise rejected("must be 1 or -1")
    return value


def _instant(value: datetime) -> datetime:
    """Return the instant in UTC, which every driver and server writes alike."""
    try:
        instant = value.astimezone(UTC)
    except OverflowError:
        instant = datetime.max.replace(tzinfo=UTC)
    if not MIN_INSTANT <= instant <= MAX_INSTANT:
        raise rejected(f"must be within the years {MIN_INSTANT.year} to {MAX_INSTANT.year}")
    return instant


def _overlap(value: timedelta, limits: Limits) -> timedelta:
    if not 0 <= value.total_seconds() <= limits.max_rotation_overlap:
        raise rejected(f"must be 0 to {limits.max_rotation_overlap:,g} seconds")
    return value


def _age(value: timedelta | date | datetime | str) -> timedelta | date | datetime | str:
    if not isinstance(value, timedelta):
        return _date(value)
    if value <= timedelta(0):
        raise rejected("must be longer than nothing")
    return value


def check_iterable(value: T) -> T:
    """Check that it can be iterated over; what it holds is checked as it comes."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable | AsyncIterable):
        raise rejected("must be an iterable, or an asynchronous one")
    return value


def _secret(value: SecretStr | str) -> SecretStr:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        raise rejected("must be text")
    return value if isinstance(value, SecretStr) else SecretStr(value)


Id = Annotated[str, _text(1, 128)]
"""An id of the caller's own: 1 to 128 characters, kept as given."""
UserId = Annotated[str, _text(0, 128)]
"""As `Id`; empty for a visitor who is not known."""
Source = Annotated[str, _text(1, 128)]
Role = Annotated[str, _text(1, 32)]
Scope = Annotated[str, _text(1, 128)]
Name = Annotated[str, _text(0, 512, normal=True)]
"""A title for people: up to 512 characters, stored as NFC."""
Actor = Annotated[str, _text(1, 256)]
"""Who does something, as the audit is to name them."""
Reason = Annotated[str, _text(1, 512)]
VersionTitle = Annotated[str, _text(0, 512)]
Keywords = Annotated[str, _text(0, 512)]
SearchText = Annotated[str, _text(1, 512, normal=True)]
"""What a search looks for: 1 to 512 characters, as NFC, like what it looks through."""
IdempotencyKey = Annotated[str, _text(1, 255)]
Cursor = Annotated[str, _text(1, 2_048)]
Zone = Annotated[str, _text(1, 64)]
"""The name of a time zone, as `Europe/Berlin`."""
Content = Annotated[str, _long_text(normal=True)]
"""The text of a message: up to `Settings.max_message_bytes` of UTF-8, stored as NFC."""
ErrorText = Annotated[str, _long_text(normal=False)]

Json = Annotated[object, PlainValidator(_json)]
"""A JSON value that PostgreSQL can hold, up to `Settings.max_json_bytes` and `max_json_depth`."""
JsonObject = Annotated[Mapping[str, object], PlainValidator(_json_object)]
"""As `Json`, and a `dict`."""

Ids = Annotated[Sequence[Id], check_limits(check_batch_size)]
Scopes = Annotated[Sequence[Scope], check_limits(check_batch_size)]
Seq = Annotated[int, Field(ge=0, le=MAX_INT)]
"""The place of a message in its conversation: the first is 1."""
Tokens = Annotated[int, Field(ge=0, le=10**12)]
Rounds = Annotated[int, Field(ge=0, le=1_000)]
Duration = Annotated[float, Field(ge=0, le=10**9, allow_inf_nan=False)]
"""Seconds, kept to the microsecond."""
Count = Annotated[int, Field(ge=0, le=MAX_INT)]
BigCount = Annotated[int, Field(ge=0, le=2**63 - 1)]
TotalDuration = Annotated[float, Field(ge=0, le=9 * 10**12, allow_inf_nan=False)]
"""Seconds, summed up; what the microseconds of 64 bits can hold."""
Thumb = Annotated[int, AfterValidator(_thumb)]
"""1 for good, -1 for bad."""
PageNumber = Annotated[int, Field(ge=1)]
PageSize = Annotated[int, check_limits(_page_size)]
DateLike = Annotated[date | datetime | str, PlainValidator(_date)]
"""A date, an aware datetime, or ISO 8601 text; see `asyncsvc.validation.dates`."""
Age = Annotated[timedelta | date | datetime | str, PlainValidator(_age)]
"""How old, by the server's clock, or before which date; see `DateLike`."""
Instant = Annotated[AwareDatetime, AfterValidator(_instant)]
"""An aware datetime within the years 2 to 9998, kept in UTC."""
Overlap = Annotated[timedelta, check_limits(_overlap)]
"""How long a rotated token stays good; see `Settings.max_rotation_overlap`."""
Secret = Annotated[SecretStr | str, PlainValidator(_secret)]

OrderBy = Literal[
    "created_at",
    "updated_at",
    "name",
    "round",
    "tokens",
    "duration",
    "thumb_up",
]
"""The column that a list is ordered by."""
Total = Literal["exact", "capped", "none"]
AgeBy = Literal["created_at", "updated_at"]
Interval = Literal["hour", "day", "week", "month"]
UsageBasis = Literal["creation", "activity"]
"""Whether usage counts at the creation of its conversation or at the time of each activity."""
TokenKind = Literal["api", "beta"]
TokenStatus = Literal["active", "retiring", "expired", "revoked"]
"""`retiring` is good until a moment that is known: it was rotated, with an overlap."""
TokenAction = Literal["create", "import", "update", "rotate", "revoke", "delete"]
