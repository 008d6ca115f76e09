"""Typed access to the values of exports: any field may be missing or have another type."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from asyncsvc.exports.model import JsonObject

_MIN_YEAR: Final = 1900
_MAX_YEAR: Final = 9998
_MIN_MILLISECONDS: Final = 10**10
_MAX_TIME_LENGTH: Final = 40
_LONG_FRACTION: Final = re.compile(r"(\.\d{6})\d+")
_EMPTY: Final[tuple[object, ...]] = (None, "", [], {})


def text(value: object) -> str:
    """Return a text, or the empty text for any other value."""
    return value if isinstance(value, str) else ""


def identifier(*values: object) -> str | None:
    """Return the first text that is not empty, or None."""
    return next((value for value in values if isinstance(value, str) and value), None)


def mapping(value: object) -> JsonObject:
    """Return an object, or an empty one for any other value."""
    return value if isinstance(value, dict) else {}


def objects(value: object) -> list[JsonObject]:
    """Return the objects of a list; an empty list for any other value."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def without(value: JsonObject, *names: str) -> dict[str, object]:
    """Return the other fields of an object that are not empty."""
    return {name: item for name, item in value.items() if name not in names and item not in _EMPTY}


def joined(texts: Iterable[str], separator: str = "\n\n") -> str:
    """Join the texts that are not empty."""
    return separator.join(filter(None, texts))


def moment(value: object) -> datetime | None:
    """Return a time: seconds or milliseconds since 1970, ISO 8601, or MongoDB's `$date`.

    None if it is missing, not positive, or before 1900. Text without an offset is UTC.
    """
    if isinstance(value, Mapping):
        return _mongo_moment(value)
    try:
        if isinstance(value, str):
            return _iso_moment(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            return None
        seconds = value / 1_000 if value > _MIN_MILLISECONDS else value
        return datetime.fromtimestamp(seconds, UTC) if math.isfinite(seconds) else None
    except (ValueError, OverflowError, OSError):
        return None


def _iso_moment(value: str) -> datetime | None:
    if len(value) > _MAX_TIME_LENGTH:
        return None
    time = datetime.fromisoformat(_LONG_FRACTION.sub(r"\1", value))
    time = (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    return time if _MIN_YEAR <= time.year <= _MAX_YEAR else None


def _mongo_moment(value: JsonObject) -> datetime | None:
    date = value.get("$date")
    if isinstance(date, Mapping):
        number = text(date.get("$numberLong"))
        is_number = number.isascii() and number.isdigit() and len(number) < _MAX_TIME_LENGTH
        return moment(int(number)) if is_number else None
    return None if isinstance(date, Mapping) else moment(date)
