"""The types of the public parameters. Each carries its own check, so a signature says it all.

A check needs the service's settings for its limits and finds them in pydantic's context. Without
a context, as when a caller builds a model by hand, only the type is checked; the method that gets
the model checks the rest.
"""

from __future__ import annotations

import enum
import math
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Final, Literal, TypeVar, Union, get_args

from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    GetCoreSchemaHandler,
    PlainValidator,
    SecretStr,
    ValidationInfo,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from asyncsvc.settings import Settings

T = TypeVar("T")

MOST_INT = 2**31 - 1
MOST_BITS = 4_096  # of one integer in JSON; PostgreSQL's numeric holds far more


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


def refused(reason: str) -> PydanticCustomError:
    """Build the error by which a check refuses a value; the reason never quotes the value."""
    return PydanticCustomError("refused", "{reason}", {"reason": reason})


def checked(check: Callable[[T, Settings], T]) -> AfterValidator:
    """Make a validator of a check that needs the settings; without them it lets all pass."""

    def run(value: T, info: ValidationInfo) -> T:
        return value if info.context is None else check(value, info.context)

    return AfterValidator(run)


def _storable(text: str) -> str:
    if "\x00" in text:
        raise refused("must not hold a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise refused("must not hold a lone surrogate") from None
    return text


def _text(least: int, most: int, *, normal: bool = False) -> AfterValidator:
    def check(text: str, _: Settings) -> str:
        if not least <= len(text) <= most:
            raise refused(f"must be {least} to {most} characters")
        return unicodedata.normalize("NFC", _storable(text)) if normal else _storable(text)

    return checked(check)


def _long_text(*, normal: bool) -> AfterValidator:
    def check(text: str, settings: Settings) -> str:
        # Characters first: they are counted already, and normalising 100 MB is not free.
        if len(text) > settings.message_bytes:
            raise refused(f"must be at most {settings.message_bytes} bytes")
        text = unicodedata.normalize("NFC", _storable(text)) if normal else _storable(text)
        if len(text.encode()) > settings.message_bytes:
            raise refused(f"must be at most {settings.message_bytes} bytes")
        return text

    return checked(check)


def json_size(value: object, settings: Settings) -> int:
    """Check that PostgreSQL stores this JSON and Python reads it back; return its size in bytes.

    The size counts the text of strings and numbers, and two bytes for each value beside. The walk
    keeps its own stack, so that no depth of nesting can exhaust Python's.
    """
    size = 0
    stack: list[tuple[object, int]] = [(value, 1)]
    while stack:
        node, depth = stack.pop()
        if isinstance(node, dict | list):
            if depth > settings.json_depth:
                raise refused(f"must be at most {settings.json_depth} levels deep")
            stack.extend((child, depth + 1) for child in _children(node))
        size += 2 + _scalar_size(node)
        if size > settings.json_bytes:
            raise refused(f"must be at most {settings.json_bytes} bytes of JSON")
    return size


def _scalar_size(node: object) -> int:
    if isinstance(node, str):
        return len(_storable(node).encode())
    if isinstance(node, float) and not math.isfinite(node):
        raise refused("must not hold NaN or infinity")
    if isinstance(node, int) and node.bit_length() > MOST_BITS:
        raise refused(f"must not hold integers of over {MOST_BITS} bits")
    if node is None or isinstance(node, int | float):
        return len(str(node))
    if isinstance(node, dict | list):
        return 0
    raise refused("must be JSON: text, numbers, true, false, null, lists and objects")


def _children(node: dict[object, object] | list[object]) -> Iterable[object]:
    if isinstance(node, list):
        return node
    if not all(isinstance(key, str) for key in node):
        raise refused("must be JSON: the keys of an object are text")
    return (*node.keys(), *node.values())


def _json(value: object, info: ValidationInfo) -> object:
    if info.context is not None:
        json_size(value, info.context)
    return value


def _json_object(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, dict):
        raise refused("must be a JSON object")
    _json(value, info)
    return value


Sized = TypeVar("Sized", bound=Collection[object])


def bulk(values: Sized, settings: Settings) -> Sized:
    """Check how many items one call carries."""
    if len(values) > settings.batch_items:
        raise refused(f"must be at most {settings.batch_items}")
    return values


def within_batch(sizes: Iterable[int], settings: Settings) -> None:
    """Check how many bytes one call carries."""
    if sum(sizes) > settings.batch_bytes:
        raise refused(f"must be at most {settings.batch_bytes} bytes in all")


def _page_size(count: int, settings: Settings) -> int:
    if not 1 <= count <= settings.page_items:
        raise refused(f"must be 1 to {settings.page_items}")
    return count


def _date(value: date | datetime | str) -> date | datetime | str:
    if not isinstance(value, date | str):
        raise refused("must be a date, an aware datetime or ISO 8601 text")
    if isinstance(value, datetime) and value.utcoffset() is None:
        raise refused("must have a time zone: naive datetimes are ambiguous")
    return value


def _thumb(value: int) -> int:
    if value not in {-1, 1}:  # a Literal would take True and 1.0 for 1
        raise refused("must be 1 or -1")
    return value


def _secret(value: SecretStr | str) -> SecretStr:
    if not isinstance(value, SecretStr | str):
        raise refused("must be text")
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
Label = Annotated[str, _text(0, 512)]
Keywords = Annotated[str, _text(0, 512, normal=True)]
IdempotencyKey = Annotated[str, _text(1, 255)]
Cursor = Annotated[str, _text(1, 1_024)]
Zone = Annotated[str, _text(1, 64)]
"""The name of a time zone, as `Europe/Berlin`."""
Content = Annotated[str, _long_text(normal=True)]
"""The text of a message: up to `Settings.message_bytes` of UTF-8, stored as NFC."""
ErrorText = Annotated[str, _long_text(normal=False)]

Json = Annotated[object, PlainValidator(_json)]
"""A JSON value that PostgreSQL can hold, up to `Settings.json_bytes` and `json_depth`."""
JsonObject = Annotated[Mapping[str, object], PlainValidator(_json_object)]
"""As `Json`, and a `dict`."""

Ids = Annotated[Sequence[Id], checked(bulk)]
Scopes = Annotated[Sequence[Scope], checked(bulk)]
Seq = Annotated[int, Field(ge=0, le=MOST_INT)]
"""The place of a message in its conversation: the first is 1."""
Tokens = Annotated[int, Field(ge=0, le=10**12)]
Rounds = Annotated[int, Field(ge=0, le=10**6)]
Duration = Annotated[float, Field(ge=0, le=10**9, allow_inf_nan=False)]
"""Seconds, kept to the microsecond."""
Thumb = Annotated[int, AfterValidator(_thumb)]
"""1 for good, -1 for bad."""
PageNumber = Annotated[int, Field(ge=1)]
PageSize = Annotated[int, checked(_page_size)]
DateLike = Annotated[date | datetime | str, PlainValidator(_date)]
"""A date, an aware datetime, or ISO 8601 text; see `asyncsvc.dates`."""
Instant = AwareDatetime
Secret = Annotated[SecretStr | str, PlainValidator(_secret)]

OrderBy = Literal[
    "create_time",
    "create_date",
    "update_time",
    "update_date",
    "name",
    "round",
    "tokens",
    "duration",
    "thumb_up",
]
"""What a list is ordered by; `_date` means the same as `_time`."""
Total = Literal["exact", "capped", "none"]
Interval = Literal["hour", "day", "week", "month"]
UsageBy = Literal["created"]
TokenKind = Literal["api", "beta"]
TokenStatus = Literal["active", "expired", "revoked"]
