"""A model of `get_list` and `stats`: the expected results, in plain Python over plain lists.

It is written from the docstrings and uses only the inputs of the library. A zone is a list of
stretches, each with one offset. The instants of a date, a day or an hour are those at which a local
clock shows it.

At a change of the clocks:

- A clock that goes back shows some times twice. As a lower bound such a time is its first
  instant, as an upper bound its last. The two hours are two buckets, since their offsets differ.
  A day, week or month whose midnight comes twice begins with the first of the two.
- A clock that goes forward skips some times. As a bound such a time has the offset before the
  change. A day, week or month whose midnight is skipped begins at the change. A day that is skipped
  completely has no bucket, and as a bound it is the empty range at the change.
- An hour is named by the local time, cut to the hour, with the offset of that instant. A change by
  half an hour, as on Lord Howe, makes 2 buckets of half an hour in autumn and 1 in spring, whose
  names are half an hour before their content.
"""

import itertools
import os
import re
from bisect import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from asyncsvc import ANY, AsyncSvc, NewConversation, Turn

MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

DateLike = date | datetime | str

# The number of generated data sets of each test that uses the model.
EXAMPLES = int(os.environ.get("ASYNCSVC_MODEL_EXAMPLES", "25"))


class WrongRangeError(Exception):
    """The range ends before it starts."""


# ---------------------------------------------------------------- clocks


class Stretch(NamedTuple):
    """A period in which a zone has one offset."""

    since: datetime
    until: datetime
    offset: timedelta

    def shows(self, instant: datetime) -> datetime:
        return (instant + self.offset).replace(tzinfo=None)

    def when(self, clock: datetime) -> datetime:
        return clock.replace(tzinfo=UTC) - self.offset


class Span(NamedTuple):
    """A half-open range of instants."""

    since: datetime
    until: datetime


def offset_of(tz: str, instant: datetime) -> timedelta:
    return instant.astimezone(ZoneInfo(tz)).utcoffset() or timedelta(0)


@cache
def stretches(tz: str) -> tuple[Stretch, ...]:
    """Return the stretches of a zone from 2000 to 2100, by its offset on each day."""
    changes = [datetime(2000, 1, 1, tzinfo=UTC)]
    while (today := changes[-1]).year < 2100:
        changes.append(next_change(tz, today))
    return tuple(
        Stretch(since, until, offset_of(tz, since)) for since, until in itertools.pairwise(changes)
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


def clock_changes(tz: str) -> list[datetime]:
    """Return the instants from 2011 to 2027 at which the offset of a zone changes."""
    changes = [stretch.since for stretch in stretches(tz)[1:]]
    return [change for change in changes if 2011 <= change.year <= 2027]


@cache
def shown(tz: str, first: datetime, beyond: datetime) -> list[Span]:
    """Return the spans in which the clock shows `first` or later, but less than `beyond`."""
    spans = (
        Span(max(each.when(first), each.since), min(each.when(beyond), each.until))
        for each in stretches_around(tz, first, beyond)
    )
    return [span for span in spans if span.since < span.until]


def stretches_around(tz: str, first: datetime, beyond: datetime) -> tuple[Stretch, ...]:
    """Return the stretches that can contain these local times: offsets are less than 1 day."""
    begin, end = (
        bisect(stretches(tz), clock.replace(tzinfo=UTC) + away, key=lambda each: each.since)
        for clock, away in ((first, -DAY), (beyond, DAY))
    )
    return stretches(tz)[max(begin - 1, 0) : end]


def before_the_gap(tz: str, clock: datetime) -> Stretch:
    """Return the stretch before the change that skips this local time."""
    return next(
        before
        for before, after in itertools.pairwise(stretches(tz))
        if before.shows(before.until) <= clock < after.shows(after.since)
    )


# ---------------------------------------------------------------- dates


def named(value: DateLike, tz: str) -> Span:
    """Return all instants of a bound, for example of a day or a minute."""
    if isinstance(value, datetime):
        return Span(value.astimezone(UTC), value.astimezone(UTC) + MICROSECOND)
    if isinstance(value, date):
        return day_named(value, tz)
    if re.fullmatch(r"\d+-\d+-\d+", value):
        return day_named(date.fromisoformat(value), tz)
    moment, length = parsed(value)
    if moment.tzinfo is not None:
        return Span(moment.astimezone(UTC), moment.astimezone(UTC) + length)
    if spans := shown(tz, moment, moment + length):
        return Span(spans[0].since, spans[-1].until)
    skipped = before_the_gap(tz, moment).when(moment)
    return Span(skipped, skipped + length)


def parsed(text: str) -> tuple[datetime, timedelta]:
    """Parse a text with a time of day; also return the length of its smallest unit."""
    second, fraction, offset = re.fullmatch(
        r"\d+-\d+-\d+[T ]\d+:\d+(:\d+)?(\.\d+)?(Z|[+-]\d+:?\d+)?", text
    ).groups()
    form = "%Y-%m-%dT%H:%M" + ":%S" * bool(second) + ".%f" * bool(fraction) + "%z" * bool(offset)
    length = SECOND if second else MINUTE
    if fraction:
        length /= 10 ** len(fraction.removeprefix("."))
    return datetime.strptime(text.replace(" ", "T"), form), length  # noqa: DTZ007 - as it says


def day_named(day: date, tz: str) -> Span:
    midnight = datetime.combine(day, time())
    if spans := shown(tz, midnight, midnight + DAY):
        return Span(spans[0].since, spans[-1].until)
    change = before_the_gap(tz, midnight).until
    return Span(change, change)


def named_range(from_date: DateLike | None, to_date: DateLike | None, tz: str) -> Span:
    """Return the instants of a range. An open end is the first or last possible instant.

    It ends with the last instant of its upper bound, so "from an hour to its day" is a valid range.
    """
    since, _ = named(from_date, tz) if from_date else (datetime.min.replace(tzinfo=UTC), None)
    to_since, until = named(to_date, tz) if to_date else (None, datetime.max.replace(tzinfo=UTC))
    if to_since and since > to_since and since >= until:
        raise WrongRangeError
    return Span(since, until)


# The forms of a bound, from the local time of an instant.
FORMS: Mapping[str, Callable[[datetime], DateLike]] = {
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


def written(form: str, instant: datetime, tz: str) -> DateLike:
    """Return an instant in one of the forms, in the local time of a zone."""
    return FORMS[form](instant.astimezone(ZoneInfo(tz)))


# ---------------------------------------------------------------- conversations


@dataclass
class Kept:
    """A conversation to create, with its turns and feedback."""

    id: str
    created_at: datetime
    dialog_id: str = "d"
    user_id: str = ""
    exp_user_id: str | None = None
    name: str | None = None
    source: str | None = None
    dsl: object = None
    turns: Sequence[Turn] = ()
    thumbs: Mapping[int, int] = field(default_factory=dict)
    updated_at: datetime = field(default=datetime.max.replace(tzinfo=UTC), compare=False)

    @property
    def messages(self) -> list[dict[str, object]]:
        """The messages as stored, without their times, which the server sets."""
        said = [message for turn in self.turns for message in turn.messages]
        return [
            {"seq": seq, **message.model_dump(), "thumb": self.thumbs.get(seq)}
            for seq, message in enumerate(said, 1)
        ]

    @property
    def round(self) -> int:
        return sum(turn.round for turn in self.turns)

    @property
    def tokens(self) -> int:
        return sum(turn.tokens for turn in self.turns)

    @property
    def microseconds(self) -> int:
        return sum(round(turn.duration * 1_000_000) for turn in self.turns)

    def thumb_count(self, thumb: int) -> int:
        return [message["thumb"] for message in self.messages].count(thumb)

    def new(self) -> NewConversation:
        return NewConversation(
            id=self.id,
            dialog_id=self.dialog_id,
            user_id=self.user_id,
            exp_user_id=self.exp_user_id,
            name=self.name,
            source=self.source,
            dsl=self.dsl,
            created_at=self.created_at,
        )

    def row(self, tenant_id: str, *, include_dsl: bool, include_messages: bool) -> dict:
        """Return the conversation as an item of a list."""
        return {
            "tenant_id": tenant_id,
            "id": self.id,
            "dialog_id": self.dialog_id,
            "user_id": self.user_id,
            "exp_user_id": self.exp_user_id,
            "name": self.name,
            "source": self.source,
            "version_title": None,
            "metadata": None,
            "dsl": self.dsl if include_dsl else None,
            "errors": None,
            "round": self.round,
            "tokens": self.tokens,
            "duration": self.microseconds / 1_000_000,
            "thumb_up": self.thumb_count(1),
            "thumb_down": self.thumb_count(-1),
            "last_seq": len(self.messages),
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "messages": self.messages if include_messages else None,
        }


async def keep(svc: AsyncSvc, tenant_id: str, conversations: Sequence[Kept]) -> None:
    """Store the conversations with their turns and feedback, and adopt the server's updated_at."""
    for some in thousands(conversations):
        await svc.conversations.create_many([each.new() for each in some], tenant_id=tenant_id)
    for each in conversations:
        for turn in each.turns:
            await svc.conversations.append_message(each.id, turn, tenant_id=tenant_id)
        for seq, thumb in each.thumbs.items():
            await svc.conversations.set_feedback(each.id, seq, thumb, tenant_id=tenant_id)
    for some in thousands(conversations):
        rows = await svc.conversations.get_by_ids([each.id for each in some], tenant_id=tenant_id)
        for each, row in zip(some, rows, strict=True):
            each.updated_at = row.updated_at


def thousands(conversations: Sequence[Kept]) -> Iterator[Sequence[Kept]]:
    """Yield batches of the maximum size of a call."""
    for start in range(0, len(conversations), 1_000):
        yield conversations[start : start + 1_000]


# ---------------------------------------------------------------- get_list


@dataclass(frozen=True)
class Query:
    """The parameters of `get_list`, without the page."""

    dialog_id: str = "d"
    orderby: str = "created_at"
    desc: bool = True
    id: str | None = None
    user_id: str | None = None
    exp_user_id: str | None = None
    keywords: str = ""
    from_date: DateLike | None = None
    to_date: DateLike | None = None
    tz: str = "UTC"

    @property
    def has_cursors(self) -> bool:
        return self.orderby in {"created_at", "updated_at"}


SORT_KEYS: Mapping[str, Callable[[Kept], object]] = {
    "created_at": lambda each: each.created_at,
    "updated_at": lambda each: each.updated_at,
    "name": lambda each: each.name,
    "round": lambda each: each.round,
    "tokens": lambda each: each.tokens,
    "duration": lambda each: each.microseconds,
    "thumb_up": lambda each: each.thumb_count(1),
}


def listed(conversations: Sequence[Kept], query: Query) -> list[Kept]:
    """Return all conversations of a tenant that `get_list` returns, in its order."""
    span = named_range(query.from_date, query.to_date, query.tz)
    found = [each for each in conversations if finds(query, span, each)]
    key = SORT_KEYS[query.orderby]
    keyed = [each for each in found if key(each) is not None]
    keyed.sort(key=lambda each: (key(each), each.id), reverse=query.desc)
    without = [each for each in found if key(each) is None]
    without.sort(key=lambda each: each.id, reverse=query.desc)
    return keyed + without


def finds(query: Query, span: Span, each: Kept) -> bool:
    time = each.updated_at if query.orderby == "updated_at" else each.created_at
    return (
        each.dialog_id == query.dialog_id
        and query.id in {None, each.id}
        and query.user_id in {None, each.user_id}
        and query.exp_user_id in {None, each.exp_user_id}
        and span.since <= time
        and (time < span.until or query.to_date is None)
        and holds(each, query.keywords)
    )


def holds(each: Kept, keywords: str) -> bool:
    texts = [each.id, each.name or "", *(message["content"] for message in each.messages)]
    return any(keywords.casefold() in text.casefold() for text in texts)


# ---------------------------------------------------------------- stats


@dataclass(frozen=True)
class Question:
    """The parameters of `stats`."""

    from_date: DateLike
    to_date: DateLike
    source: object = ANY
    interval: str = "day"
    dialog_id: object = ANY
    tz: str = "UTC"
    fill: bool = True


def usage(conversations: Sequence[Kept], question: Question) -> list[dict[str, object]]:
    """Return the expected buckets of `stats`."""
    tz, interval = question.tz, question.interval
    span = named_range(question.from_date, question.to_date, tz)
    counted: dict[datetime, list[Kept]] = {}
    if question.fill:
        counted = {start: [] for start in bucket_starts(tz, interval, span)}
    for each in conversations:
        if (
            span.since <= each.created_at < span.until
            and question.source in {ANY, each.source}
            and question.dialog_id in {ANY, each.dialog_id}
        ):
            counted.setdefault(bucket_start(tz, interval, each.created_at), []).append(each)
    return [bucket(start, counted[start]) for start in sorted(counted)]


def bucket(start: datetime, held: Sequence[Kept]) -> dict[str, object]:
    rounds = sum(each.round for each in held)
    return {
        "dt": start,
        "pv": len(held),
        "uv": len({each.user_id for each in held} - {""}),
        "tokens": sum(each.tokens for each in held),
        "duration": sum(each.microseconds for each in held) / 1_000_000,
        "rounds": rounds,
        "round": rounds / len(held) if held else 0.0,
        "thumb_up": sum(each.thumb_count(1) for each in held),
        "thumb_down": sum(each.thumb_count(-1) for each in held),
    }


def bucket_start(tz: str, interval: str, instant: datetime) -> datetime:
    """Return the `dt` of the bucket of an instant."""
    stretch = stretches(tz)[bisect(stretches(tz), instant, key=lambda each: each.since) - 1]
    return start_on_the_clock(tz, interval, stretch, stretch.shows(instant))


def bucket_starts(tz: str, interval: str, span: Span) -> set[datetime]:
    """Return the `dt` of each bucket that has an instant in the span."""
    return {
        start_on_the_clock(tz, interval, stretch, clock)
        for stretch in stretches(tz)
        if max(stretch.since, span.since) < min(stretch.until, span.until)
        for clock in units(
            interval,
            stretch.shows(max(stretch.since, span.since)),
            stretch.shows(min(stretch.until, span.until)),
        )
    }


def units(interval: str, first: datetime, beyond: datetime) -> Iterator[datetime]:
    """Yield the local starts of hours, days, weeks or months, without changes of the clock."""
    clock = floor(interval, first)
    while clock < beyond:
        yield clock
        clock = following(interval, clock)


def floor(interval: str, clock: datetime) -> datetime:
    if interval == "hour":
        return datetime.combine(clock, time(clock.hour))
    midnight = datetime.combine(clock, time())
    back = {"day": 0, "week": clock.weekday(), "month": clock.day - 1}
    return midnight - back[interval] * DAY


def following(interval: str, clock: datetime) -> datetime:
    if interval == "month":
        return floor("month", clock + 31 * DAY)
    return clock + {"hour": HOUR, "day": DAY, "week": 7 * DAY}[interval]


def start_on_the_clock(tz: str, interval: str, stretch: Stretch, clock: datetime) -> datetime:
    """Return the `dt` of the bucket of a local time within a stretch."""
    start = floor(interval, clock)
    if interval == "hour":
        return stretch.when(start)
    return shown(tz, start, following(interval, start))[0].since
