"""Dates as callers write them, as half-open ranges of instants.

A range is given as dates, aware datetimes or ISO 8601 text. A date, and text without an offset,
mean the zone that the caller names. The upper bound is inclusive at the precision it is given in:
`2026-11-22` is the whole day, `2026-11-22T10:00` that minute, `...T10:00:00` that second, a
datetime exactly itself.

A zone is named by area and city, as `Europe/Berlin`, or `UTC`: an abbreviation such as `CET` is one
offset to PostgreSQL and a zone with summer time to Python. The bounds are computed here, with this
machine's time zone database, and the buckets of a statistic by the server, with its own.

Where a clock goes back, a local time means two instants: a lower bound takes the first, an upper
bound the second. Where it goes forward, a local time that was skipped counts on from before.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from asyncsvc.errors import InvalidInput
from asyncsvc.validation.types import MAX_INSTANT, MIN_INSTANT

_ISO = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:[T ](?P<minute>\d\d:\d\d)(?P<second>:\d\d(?:\.(?P<fraction>\d{1,6}))?)?"
    r"(?:Z|[+-]\d\d:?\d\d)?)?",
    re.ASCII,
)
_MICROSECOND = timedelta(microseconds=1)


def zone(name: str) -> tzinfo:
    """Return the zone of this name. Raises InvalidInput for one that is not known here."""
    if name == "UTC":  # needs no time zone database
        return UTC
    area, slash, _ = name.partition("/")
    if not slash or area in {"posix", "right"}:  # folders of the database that are no areas
        raise InvalidInput("tz", "must be UTC or an area and a city, as Europe/Berlin")
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput("tz", "is not a time zone known here (is `tzdata` current?)") from None


def instants(
    from_date: date | datetime | str | None, to_date: date | datetime | str | None, tz: str
) -> tuple[datetime | None, datetime | None]:
    """Return the first instant of the range and the first one after it, in UTC.

    Raises InvalidInput for text that is no date, for an instant outside the years 2 to 9998, and
    when the range ends before it starts.
    """
    local = zone(tz)
    since, _ = _bounds("from_date", from_date, local)
    to_since, until = _bounds("to_date", to_date, local)
    # A day that a zone left out begins and ends at once; what names it is no mistake.
    if since and to_since and until and since >= until and since != to_since:
        raise InvalidInput("from_date", "must not be after to_date")
    return since, until


def first_instant(field: str, value: date | datetime | str, tz: str) -> datetime:
    """Return the first instant that a date names, in UTC. Raises InvalidInput as `instants`."""
    local = zone(tz)
    _bounds(field, value, local)
    return _named(field, value, local)[0]


def _bounds(
    field: str, value: date | datetime | str | None, local: tzinfo
) -> tuple[datetime | None, datetime | None]:
    """Return the first instant that a bound names, and the first one after it."""
    if value is None:
        return None, None
    try:
        since, until = _named(field, value, local)
    except OverflowError:
        since = until = datetime.max.replace(tzinfo=UTC)
    if not MIN_INSTANT <= since <= until <= MAX_INSTANT:
        raise InvalidInput(
            field, f"must be within the years {MIN_INSTANT.year} to {MAX_INSTANT.year}"
        )
    return since, until


def _named(field: str, value: date | datetime | str, local: tzinfo) -> tuple[datetime, datetime]:
    if isinstance(value, str):
        return _text_bounds(field, value, local)
    if isinstance(value, datetime):
        instant = value.astimezone(UTC)
        return instant, instant + _MICROSECOND
    return _day_bounds(value, local)


def _text_bounds(field: str, text: str, local: tzinfo) -> tuple[datetime, datetime]:
    match = _ISO.fullmatch(text)
    try:
        moment = datetime.fromisoformat(_padded(match)) if match else None
    except ValueError:
        moment = None
    if match is None or moment is None:
        raise InvalidInput(field, "must be ISO 8601, as 2026-11-22 or 2026-11-22T10:00Z")
    if match["minute"] is None:
        return _day_bounds(moment.date(), local)
    if moment.tzinfo is not None:
        instant = moment.astimezone(UTC)
        return instant, instant + _precision(match)
    return _first(moment, local), _last(moment, local) + _precision(match)


def _padded(match: re.Match[str]) -> str:
    """Write the fraction with six digits: Python 3.11 reads only three or six."""
    fraction = match["fraction"]
    if not fraction:
        return match[0]
    return match[0].replace(f".{fraction}", f".{fraction:0<6}")


def _precision(match: re.Match[str]) -> timedelta:
    """Return the length of what the text names."""
    if match["fraction"]:
        return timedelta(microseconds=10 ** (6 - len(match["fraction"])))
    return timedelta(seconds=1) if match["second"] else timedelta(minutes=1)


def _day_bounds(day: date, local: tzinfo) -> tuple[datetime, datetime]:
    midnight = datetime.combine(day, time())
    return _first(midnight, local), _first(midnight + timedelta(days=1), local)


def _first(moment: datetime, local: tzinfo) -> datetime:
    return moment.replace(tzinfo=local, fold=0).astimezone(UTC)


def _last(moment: datetime, local: tzinfo) -> datetime:
    return max(_first(moment, local), moment.replace(tzinfo=local, fold=1).astimezone(UTC))


def bucket_start(label: datetime, local: tzinfo, *, hourly: bool) -> datetime:
    """Return the first instant of the bucket that PostgreSQL's date_trunc gave this label.

    A day whose midnight comes twice is labelled with the second one; it begins with the first.
    An hour that comes twice is two buckets, whose labels are right as they are. The answer has a
    fixed offset, since Python takes no two instants of different zones for equal in such an hour.
    """
    if local is UTC:
        return label
    start = label.astimezone(local)
    if not hourly:
        start = start.replace(fold=0)
    return start.astimezone(timezone(start.utcoffset() or timedelta(0)))
