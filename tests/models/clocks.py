"""Local time in plain Python: the instants of a bound, and the buckets of statistics, in any zone.

This module shares no code with the library. A zone is a list of periods, each with one offset. A
date or an hour covers the instants at which a local clock shows it.

At a change of the clocks:

- If the clock goes back, some local times occur twice. A lower bound is the first of the two
  instants, an upper bound the last. The two hours are two buckets, since their offsets differ. A
  day, week or month with two midnights begins at the first midnight.
- If the clock goes forward, some local times do not occur. A bound at such a time has the offset
  before the change. A day, week or month without a midnight begins at the change. A day that does
  not occur has no bucket; as a bound it is the empty range at the change.
- The name of an hour is its local time, truncated to the hour, with the offset of that instant. A
  change by half an hour, as on Lord Howe, creates 2 buckets of half an hour in autumn and 1 in
  spring. Their names are half an hour before their content.
"""

import itertools
import re
from bisect import bisect
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from asyncsvc import InvalidInput

MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
QUARTER_HOUR = timedelta(minutes=15)

Bound = date | datetime | str


class Period(NamedTuple):
    """A period in which a zone has one offset."""

    since: datetime
    until: datetime
    offset: timedelta

    def local_time(self, instant: datetime) -> datetime:
        return (instant + self.offset).replace(tzinfo=None)

    def instant(self, local_time: datetime) -> datetime:
        return local_time.replace(tzinfo=UTC) - self.offset


class Range(NamedTuple):
    """A half-open range of instants."""

    since: datetime
    until: datetime


def offset_of(tz: str, instant: datetime) -> timedelta:
    return instant.astimezone(ZoneInfo(tz)).utcoffset() or timedelta(0)


@cache
def periods(tz: str) -> tuple[Period, ...]:
    """Return the periods of a zone from 2000 to 2100, by its offset on each day."""
    changes = [datetime(2000, 1, 1, tzinfo=UTC)]
    while changes[-1].year < 2100:
        changes.append(next_change(tz, changes[-1]))
    return tuple(
        Period(since, until, offset_of(tz, since)) for since, until in itertools.pairwise(changes)
    )


def next_change(tz: str, since: datetime) -> datetime:
    """Return the first second of another offset, or the end of the century."""
    offset = offset_of(tz, since)
    before = since
    while offset_of(tz, before + DAY) == offset:
        before += DAY
        if before.year >= 2100:
            return before
    after = before + DAY
    while after - before > SECOND:
        middle = before + (after - before) // SECOND // 2 * SECOND
        before, after = (middle, after) if offset_of(tz, middle) == offset else (before, middle)
    return after


@cache
def clock_changes(tz: str) -> list[datetime]:
    """Return the instants from 2011 to 2027 at which the offset of a zone changes."""
    return [each.since for each in periods(tz)[1:] if 2011 <= each.since.year <= 2027]


@cache
def ranges_of_local_times(tz: str, first: datetime, until: datetime) -> list[Range]:
    """Return the ranges in which the clock shows `first` or later, but less than `until`."""
    # Only periods around these local times, since offsets are less than 1 day.
    begin, end = (
        bisect(periods(tz), local_time.replace(tzinfo=UTC) + away, key=lambda each: each.since)
        for local_time, away in ((first, -DAY), (until, DAY))
    )
    ranges = (
        Range(max(each.instant(first), each.since), min(each.instant(until), each.until))
        for each in periods(tz)[max(begin - 1, 0) : end]
    )
    return [each for each in ranges if each.since < each.until]


def period_before_the_gap(tz: str, local_time: datetime) -> Period:
    """Return the period before the change that skips this local time."""
    return next(
        before
        for before, after in itertools.pairwise(periods(tz))
        if before.local_time(before.until) <= local_time < after.local_time(after.since)
    )


# ---------------------------------------------------------------- bounds


def range_of_bound(bound: Bound, tz: str) -> Range:
    """Return all instants of a bound, for example of a day or a minute."""
    if isinstance(bound, datetime):
        return Range(bound.astimezone(UTC), bound.astimezone(UTC) + MICROSECOND)
    if isinstance(bound, date):
        return range_of_day(bound, tz)
    if re.fullmatch(r"\d+-\d+-\d+", bound):
        return range_of_day(date.fromisoformat(bound), tz)
    moment, length = parse(bound)
    if moment.tzinfo is not None:
        return Range(moment.astimezone(UTC), moment.astimezone(UTC) + length)
    if ranges := ranges_of_local_times(tz, moment, moment + length):
        return Range(ranges[0].since, ranges[-1].until)
    skipped = period_before_the_gap(tz, moment).instant(moment)
    return Range(skipped, skipped + length)


def parse(text: str) -> tuple[datetime, timedelta]:
    """Parse a text with a time of day; also return the length of its smallest unit."""
    second, fraction, offset = re.fullmatch(
        r"\d+-\d+-\d+[T ]\d+:\d+(:\d+)?(\.\d+)?(Z|[+-]\d+:?\d+)?", text
    ).groups()
    form = "%Y-%m-%dT%H:%M" + ":%S" * bool(second) + ".%f" * bool(fraction) + "%z" * bool(offset)
    length = SECOND if second else MINUTE
    if fraction:
        length /= 10 ** len(fraction.removeprefix("."))
    return datetime.strptime(text.replace(" ", "T"), form), length  # noqa: DTZ007 - as it says


def range_of_day(day: date, tz: str) -> Range:
    midnight = datetime.combine(day, time())
    if ranges := ranges_of_local_times(tz, midnight, midnight + DAY):
        return Range(ranges[0].since, ranges[-1].until)
    change = period_before_the_gap(tz, midnight).until
    return Range(change, change)


def range_of_bounds(from_date: Bound | None, to_date: Bound | None, tz: str) -> Range:
    """Return the instants of a range. An open end is the first or last possible instant.

    It ends with the last instant of its upper bound, so "from an hour to its day" is a valid range.
    """
    lower = range_of_bound(from_date, tz) if from_date else None
    upper = range_of_bound(to_date, tz) if to_date else None
    if lower and upper and lower.since > upper.since and lower.since >= upper.until:
        raise InvalidInput("from_date", "is after to_date")
    return Range(
        lower.since if lower else datetime.min.replace(tzinfo=UTC),
        upper.until if upper else datetime.max.replace(tzinfo=UTC),
    )


# The forms of a bound, from the local time of an instant.
FORMS: Mapping[str, Callable[[datetime], Bound]] = {
    "day": datetime.date,
    "datetime": lambda at: at,
    "datetime in UTC": lambda at: at.astimezone(UTC),
    "text of a day": lambda at: at.date().isoformat(),
    "local minute": lambda at: without_offset(at).isoformat(timespec="minutes"),
    "local second": lambda at: without_offset(at).isoformat(" ", timespec="seconds"),
    "local tenth": lambda at: without_offset(at).isoformat(timespec="microseconds")[:-5],
    "local millisecond": lambda at: without_offset(at).isoformat(timespec="milliseconds"),
    "local microsecond": lambda at: without_offset(at).isoformat(timespec="microseconds"),
    "minute": lambda at: at.isoformat(timespec="minutes"),
    "minute, offset without colon": lambda at: at.strftime("%Y-%m-%dT%H:%M%z"),
    "second": lambda at: at.isoformat(timespec="seconds"),
    "microsecond": lambda at: at.isoformat(" ", timespec="microseconds"),
    "second in UTC": lambda at: at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
}


def without_offset(at: datetime) -> datetime:
    return at.replace(tzinfo=None)


def format_bound(form: str, instant: datetime, tz: str) -> Bound:
    """Return an instant in one of the forms, in the local time of a zone."""
    return FORMS[form](instant.astimezone(ZoneInfo(tz)))


# ---------------------------------------------------------------- buckets


def quarter_hour(instant: datetime) -> datetime:
    """Return the start of the quarter hour of an instant."""
    return instant - (instant - datetime(2000, 1, 1, tzinfo=UTC)) % QUARTER_HOUR


def bucket_start(tz: str, interval: str, instant: datetime) -> datetime:
    """Return the `dt` of the bucket of an instant."""
    period = periods(tz)[bisect(periods(tz), instant, key=lambda each: each.since) - 1]
    return start_of_unit(tz, interval, period, period.local_time(instant))


@lru_cache(maxsize=64)
def bucket_starts(tz: str, interval: str, range_: Range) -> frozenset[datetime]:
    """Return the `dt` of each bucket that has an instant in the range."""
    return frozenset(
        start_of_unit(tz, interval, period, local_time)
        for period in periods(tz)
        if max(period.since, range_.since) < min(period.until, range_.until)
        for local_time in units(
            interval,
            period.local_time(max(period.since, range_.since)),
            period.local_time(min(period.until, range_.until)),
        )
    )


def units(interval: str, first: datetime, until: datetime) -> Iterator[datetime]:
    """Yield the local starts of hours, days, weeks or months, without changes of the clock."""
    local_time = floor(interval, first)
    while local_time < until:
        yield local_time
        local_time = following(interval, local_time)


def floor(interval: str, local_time: datetime) -> datetime:
    if interval == "hour":
        return datetime.combine(local_time, time(local_time.hour))
    midnight = datetime.combine(local_time, time())
    back = {"day": 0, "week": local_time.weekday(), "month": local_time.day - 1}
    return midnight - back[interval] * DAY


def following(interval: str, local_time: datetime) -> datetime:
    if interval == "month":
        return floor("month", local_time + 31 * DAY)
    return local_time + {"hour": HOUR, "day": DAY, "week": 7 * DAY}[interval]


def start_of_unit(tz: str, interval: str, period: Period, local_time: datetime) -> datetime:
    """Return the `dt` of the bucket of a local time within a period."""
    start = floor(interval, local_time)
    if interval == "hour":
        return period.instant(start)
    return ranges_of_local_times(tz, start, following(interval, start))[0].since
