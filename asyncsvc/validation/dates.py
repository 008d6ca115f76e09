"""Dates and times of callers, converted to half-open ranges of instants in UTC.

A bound is a date, an aware datetime, or ISO 8601 text. A date, and text without an offset, are
local times of the zone `tz`. The upper bound is inclusive at its own precision: `2026-11-22`
includes the whole day, `2026-11-22T10:00` the minute, `2026-11-22T10:00:00` the second, and a
datetime its microsecond.

A zone is `UTC` or the name of an area and a city, such as `Europe/Berlin`. Abbreviations are
rejected: `CET` is a fixed offset to PostgreSQL and a zone with summer time to Python. The bounds
are converted with the time zone database of this machine. The server computes the buckets of
statistics with its own database.

If a clock goes back, a local time occurs twice: a lower bound is the first of the two instants, an
upper bound the second. If a clock goes forward, a skipped local time is converted with the offset
before the change.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from typing import Final, overload
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from asyncsvc.errors import InvalidInput
from asyncsvc.validation.types import MAX_INSTANT, MIN_INSTANT, UNSET, UnsetType

_ISO: Final = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:[T ](?P<minute>\d\d:\d\d)(?P<second>:\d\d(?:\.(?P<fraction>\d{1,6}))?)?"
    r"(?:Z|[+-]\d\d:?\d\d)?)?",
    re.ASCII,
)
_MICROSECOND: Final = timedelta(microseconds=1)


def zone(name: str) -> tzinfo:
    """Return the time zone of this name. Raises InvalidInput for an unknown name."""
    if name == "UTC":  # needs no time zone database
        return UTC
    area, slash, _ = name.partition("/")
    if not slash or area in {"posix", "right"}:  # directories of the database, but not areas
        raise InvalidInput("tz", "must be UTC or an area and a city, for example Europe/Berlin")
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput("tz", "is not a time zone known here (is `tzdata` current?)") from None


@overload
def instants(
    from_date: date | datetime | str, to_date: date | datetime | str, tz: str
) -> tuple[datetime, datetime]: ...


@overload
def instants(
    from_date: date | datetime | str | None, to_date: date | datetime | str | None, tz: str
) -> tuple[datetime | UnsetType, datetime | UnsetType]: ...


def instants(
    from_date: date | datetime | str | None, to_date: date | datetime | str | None, tz: str
) -> tuple[datetime | UnsetType, datetime | UnsetType]:
    """Return the first instant of the range and the first instant after it, in UTC.

    A bound that is None is UNSET in the result. Raises InvalidInput for text that is not a date,
    for an instant outside the years 2 to 9998, and if the range ends before it starts.
    """
    local = zone(tz)
    lower = None if from_date is None else _covered_instants("from_date", from_date, local)
    upper = None if to_date is None else _covered_instants("to_date", to_date, local)
    # A day that a zone skipped starts and ends at the same instant. That range is empty, not wrong.
    if lower and upper and lower[0] >= upper[1] and lower[0] != upper[0]:
        raise InvalidInput("from_date", "must not be after the end of the range")
    return UNSET if lower is None else lower[0], UNSET if upper is None else upper[1]


def first_instant(field: str, value: date | datetime | str, tz: str) -> datetime:
    """Return the first instant that a date covers, in UTC. Raises InvalidInput like `instants`."""
    return _covered_instants(field, value, zone(tz))[0]


def instant_after(field: str, value: date | datetime | str, tz: str) -> datetime:
    """Return the first instant after a date, in UTC. Raises InvalidInput like `instants`."""
    return _covered_instants(field, value, zone(tz))[1]


def _covered_instants(
    field: str, value: date | datetime | str, local: tzinfo
) -> tuple[datetime, datetime]:
    """Return the first instant that a value covers and the first instant after it, in UTC."""
    try:
        start, end = _convert(field, value, local)
    except OverflowError:
        start = end = datetime.max.replace(tzinfo=UTC)
    if not MIN_INSTANT <= start <= end <= MAX_INSTANT:
        raise InvalidInput(
            field, f"must be within the years {MIN_INSTANT.year} to {MAX_INSTANT.year}"
        )
    return start, end


def _convert(field: str, value: date | datetime | str, local: tzinfo) -> tuple[datetime, datetime]:
    if isinstance(value, str):
        return _convert_text(field, value, local)
    if isinstance(value, datetime):
        instant = value.astimezone(UTC)
        return instant, instant + _MICROSECOND
    return _convert_day(value, local)


def _convert_text(field: str, text: str, local: tzinfo) -> tuple[datetime, datetime]:
    match = _ISO.fullmatch(text)
    try:
        moment = datetime.fromisoformat(_pad_fraction(match)) if match else None
    except ValueError:
        moment = None
    if match is None or moment is None:
        raise InvalidInput(field, "must be ISO 8601, for example 2026-11-22 or 2026-11-22T10:00Z")
    if match["minute"] is None:
        return _convert_day(moment.date(), local)
    if moment.tzinfo is not None:
        instant = moment.astimezone(UTC)
        return instant, instant + _precision(match)
    return _first_occurrence(moment, local), _last_occurrence(moment, local) + _precision(match)


def _pad_fraction(match: re.Match[str]) -> str:
    """Return the text with a fraction of 6 digits: Python 3.11 reads only 3 or 6."""
    fraction = match["fraction"]
    if not fraction:
        return match[0]
    return match[0].replace(f".{fraction}", f".{fraction:0<6}")


def _precision(match: re.Match[str]) -> timedelta:
    """Return the length of the time that the text covers."""
    if match["fraction"]:
        return timedelta(microseconds=10 ** (6 - len(match["fraction"])))
    return timedelta(seconds=1) if match["second"] else timedelta(minutes=1)


def _convert_day(day: date, local: tzinfo) -> tuple[datetime, datetime]:
    midnight = datetime.combine(day, time())
    next_midnight = midnight + timedelta(days=1)
    return _first_occurrence(midnight, local), _first_occurrence(next_midnight, local)


def _first_occurrence(moment: datetime, local: tzinfo) -> datetime:
    return moment.replace(tzinfo=local, fold=0).astimezone(UTC)


def _last_occurrence(moment: datetime, local: tzinfo) -> datetime:
    second = moment.replace(tzinfo=local, fold=1).astimezone(UTC)
    return max(_first_occurrence(moment, local), second)


def bucket_start(label: datetime, local: tzinfo, *, hourly: bool) -> datetime:
    """Return the first instant of the bucket with this label of PostgreSQL's date_trunc.

    If the midnight of a day occurs twice, date_trunc labels the day with the second midnight,
    although the day starts with the first. If an hour occurs twice, it is two buckets, and both
    labels are right. The result has a fixed offset, because for Python an ambiguous time is never
    equal to a time in another zone.
    """
    if local is UTC:
        return label
    start = label.astimezone(local)
    if not hourly:
        start = start.replace(fold=0)
    return start.astimezone(timezone(start.utcoffset() or timedelta(0)))
