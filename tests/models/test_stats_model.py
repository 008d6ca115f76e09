"""`stats` agrees with `model.usage` in each interval, zone and filter, across clock changes."""

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncsvc import ANY, AsyncSvc, InvalidInput, Message, Settings, Turn, UsageBucket, connect
from tests.models.model import (
    DAY,
    EXAMPLES,
    FORMS,
    HOUR,
    MICROSECOND,
    Kept,
    Question,
    WrongRangeError,
    clock_changes,
    keep,
    usage,
    written,
)

RARELY = st.integers(0, 9).map(lambda number: number == 9)

APIA = "Pacific/Apia"
BERLIN = "Europe/Berlin"
HAVANA = "America/Havana"
LORD_HOWE = "Australia/Lord_Howe"
CHANGING_ZONES = (
    *(BERLIN, HAVANA, LORD_HOWE, "America/New_York", APIA),
    # 00:00 goes back to 23:00; an offset changes for good, by half an hour; two changes in spring
    *("America/Sao_Paulo", "America/Caracas", "Asia/Pyongyang"),
    # Not Africa/Casablanca: its changes are decreed year by year, and no two editions agree.
)
ZONES = ("UTC", "Asia/Kathmandu", *CHANGING_ZONES)
INTERVALS = {"hour": 2 * DAY, "day": 40 * DAY, "week": 100 * DAY, "month": 800 * DAY}

# Month ends, new year, week borders, leap days, and the day that Apia does not have.
DAYS = [
    *(date(2011, 12, 30), date(2011, 12, 31), date(2018, 12, 31), date(2027, 1, 1)),
    *(date(2012, 2, 29), date(2012, 3, 1), date(2016, 2, 29), date(2024, 2, 29), date(2024, 3, 1)),
    *(date(2020, 12, 28), date(2021, 1, 4), date(2026, 11, 1), date(2026, 11, 23)),
]
STEPS = sorted(
    {
        sign * hours * HOUR + nearly
        for hours in (0, 1 / 4, 1 / 2, 1, 3 / 2, 2, 12, 24, 48, 7 * 24, 31 * 24)
        for sign in (1, -1)
        for nearly in (timedelta(0), MICROSECOND, -MICROSECOND)
    }
)


# ---------------------------------------------------------------- what is generated


@st.composite
def moments(draw: st.DrawFn, tz: str) -> datetime:
    """An instant at which a summer time, a month, a week or a day ends in this zone."""
    midnights = [datetime.combine(day, time(), ZoneInfo(tz)) for day in DAYS]
    ends = st.sampled_from([midnight.astimezone(UTC) for midnight in midnights])
    changes = clock_changes(tz)
    return draw(st.sampled_from(changes) | ends if changes else ends)


@st.composite
def conversations(draw: st.DrawFn, id: str, near: Sequence[datetime]) -> Kept:
    turn = st.builds(
        Turn,
        messages=st.just(
            [Message(role="user", content="?"), Message(role="assistant", content="!")]
        ),
        tokens=st.integers(0, 10**9),
        duration=st.sampled_from([0.0, 0.000001, 0.1, 0.2, 12.345678]),
        round=st.integers(0, 3),
    )
    turns = draw(st.lists(turn, max_size=2))
    return Kept(
        id=id,
        created_at=draw(st.sampled_from(near)) + draw(st.sampled_from(STEPS)),
        dialog_id=draw(st.sampled_from(["d", "e"])),
        user_id=draw(st.sampled_from(["", "ann", "bob", "eve"])),
        source=draw(st.sampled_from([None, "web", "api"])),
        turns=turns,
        thumbs={2: draw(st.sampled_from([1, -1]))} if turns and draw(st.booleans()) else {},
    )


@st.composite
def histories(draw: st.DrawFn) -> tuple[str, list[datetime], list[Kept]]:
    """A zone, some moments in it, and conversations around them."""
    tz = draw(st.sampled_from(ZONES))
    near = draw(st.lists(moments(tz), min_size=1, max_size=2))
    count = draw(st.integers(1, 15))
    return tz, near, [draw(conversations(str(n), near)) for n in range(count)]


@st.composite
def questions(draw: st.DrawFn, tz: str, near: Sequence[datetime]) -> Question:
    """A question about the time around these moments, of at most some dozen buckets."""
    tz = draw(st.just(tz) | st.just(tz) | st.sampled_from(ZONES))
    interval = draw(st.sampled_from(list(INTERVALS)))
    since = draw(st.sampled_from(near)) + draw(st.sampled_from(STEPS))
    until = since + draw(st.sampled_from([step for step in STEPS if step >= timedelta(0)]))
    until += draw(st.floats(0, 1)) * INTERVALS[interval] * draw(st.booleans())
    if draw(RARELY):
        since, until = until, since
    return Question(
        from_date=written(draw(st.sampled_from(list(FORMS))), since, tz),
        to_date=written(draw(st.sampled_from(list(FORMS))), until, tz),
        source=draw(st.sampled_from([ANY, ANY, None, "web", "nowhere"])),
        interval=interval,
        dialog_id=draw(st.sampled_from([ANY, ANY, "d", "nowhere"])),
        tz=tz,
        fill=draw(st.booleans()),
    )


# ---------------------------------------------------------------- stored buckets and ledger

ROLLED_UP = ("nothing", "all", "half")


async def store(
    svc: AsyncSvc, tenant_id: str, kept: Sequence[Kept], tz: str, rolled_up: str
) -> None:
    """Store conversations, and roll up nothing, half or all of them in this zone.

    "half" also deletes conversations after the roll-up. Some have the same users and times as
    conversations that remain.
    """
    if rolled_up == "half":
        middle = len(kept) // 2
        doomed = [replace(each, id=f"{each.id} doomed", turns=(), thumbs={}) for each in kept[::2]]
        await keep(svc, tenant_id, [*kept[:middle], *doomed])
        await svc.conversations.declare_zone(tenant_id=tenant_id, tz=tz)
        await keep(svc, tenant_id, kept[middle:])
        await svc.conversations.delete_by_ids([each.id for each in doomed], tenant_id=tenant_id)
        return
    await keep(svc, tenant_id, kept)
    if rolled_up == "all":
        await svc.maintain()
        await svc.conversations.declare_zone(tenant_id=tenant_id, tz=tz)


# ---------------------------------------------------------------- comparison


_numbers = itertools.count(1)


async def asked(svc: AsyncSvc, tenant_id: str, question: Question) -> list[UsageBucket]:
    return await svc.conversations.stats(tenant_id=tenant_id, **asdict(question))


async def assert_agrees(
    svc: AsyncSvc, tenant_id: str, kept: Sequence[Kept], question: Question
) -> None:
    """The buckets equal those of the model, and each `dt` has the offset of its zone then."""
    buckets = await asked(svc, tenant_id, question)
    assert [bucket.model_dump() for bucket in buckets] == usage(kept, question), question
    zone = ZoneInfo(question.tz)
    assert [bucket.dt.isoformat() for bucket in buckets] == [
        bucket.dt.astimezone(zone).isoformat() for bucket in buckets
    ]


# ---------------------------------------------------------------- generated data


@settings(max_examples=2 * EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=histories(), data=st.data())
async def test_generated_statistics_agree_with_the_model(svc, history, data):
    tz, near, kept = history
    tenant_id = f"t{next(_numbers)}"
    await store(svc, tenant_id, kept, tz, data.draw(st.sampled_from(ROLLED_UP)))
    await keep(svc, f"{tenant_id} other", [Kept(id="other", created_at=near[0], user_id="other")])
    for _ in range(8):
        question = data.draw(questions(tz, near))
        try:
            usage(kept, question)
        except WrongRangeError:
            with pytest.raises(InvalidInput, match="from_date"):
                await asked(svc, tenant_id, question)
        else:
            await assert_agrees(svc, tenant_id, kept, question)


async def server_knows(svc: AsyncSvc, tz: str, change: datetime) -> bool:
    """Return whether the server's time zone database has this change too: editions differ."""
    return [
        await svc._executor._pool.fetchval("SELECT $1::timestamptz AT TIME ZONE $2", moment, tz)
        == moment.astimezone(ZoneInfo(tz)).replace(tzinfo=None)
        for moment in (change - DAY, change - MICROSECOND, change, change + DAY)
    ] == [True] * 4


@pytest.mark.parametrize("rolled_up", ROLLED_UP)
@pytest.mark.parametrize("tz", CHANGING_ZONES)
async def test_usage_across_every_clock_change_from_2011_to_2027(svc, tz, rolled_up):
    users = itertools.cycle(["", "ann", "ann", "bob", "eve"])
    changes = [each for each in clock_changes(tz) if await server_knows(svc, tz, each)]
    assert changes
    kept = [
        Kept(id=f"{n} {step}", created_at=change + step, user_id=next(users))
        for n, change in enumerate(changes)
        for step in STEPS
        if abs(step) <= 2 * HOUR
    ]
    await store(svc, "t", kept, tz, rolled_up)
    for change in changes:
        nearby = [each for each in kept if abs(each.created_at - change) < DAY]
        for interval, (since, until) in itertools.product(
            INTERVALS,
            (
                (change - DAY, change - MICROSECOND),
                (change, change + DAY),
                (change - 3 * HOUR, change + 2.75 * HOUR),
            ),
        ):
            await assert_agrees(svc, "t", nearby, Question(since, until, interval=interval, tz=tz))


@pytest.mark.parametrize("rolled_up", ROLLED_UP)
@pytest.mark.parametrize("tz", ZONES)
async def test_usage_of_two_years(svc, tz, rolled_up):
    """1 conversation every 21.9 hours; both ends of the range cut a bucket."""
    first = datetime(2011, 12, 1, tzinfo=UTC)
    kept = [Kept(id=str(n), created_at=first + n * 21.9 * HOUR) for n in range(800)]
    await store(svc, "t", kept, tz, rolled_up)
    for interval, fill in itertools.product(("day", "week", "month"), (True, False)):
        question = Question("2011-12-10", "2013-10-31T12:00", interval=interval, tz=tz, fill=fill)
        await assert_agrees(svc, "t", kept, question)


# ---------------------------------------------------------------- known clock changes


async def starts(
    svc: AsyncSvc,
    from_date: object,
    to_date: object,
    *,
    tz: str,
    interval: str = "hour",
    **more: object,
):
    """The labels of the buckets, as text."""
    buckets = await svc.conversations.stats(
        tenant_id="t", from_date=from_date, to_date=to_date, tz=tz, interval=interval, **more
    )
    return [bucket.dt.isoformat(timespec="minutes") for bucket in buckets]


async def counts(
    svc: AsyncSvc, from_date: object, to_date: object, *, tz: str, interval: str
) -> dict[str, int]:
    """The number of conversations in each bucket that is not empty."""
    buckets = await svc.conversations.stats(
        tenant_id="t", from_date=from_date, to_date=to_date, tz=tz, interval=interval, fill=False
    )
    return {bucket.dt.isoformat(timespec="minutes"): bucket.pv for bucket in buckets}


async def created(svc: AsyncSvc, *instants: str) -> None:
    await keep(
        svc,
        "t",
        [
            Kept(id=str(n), created_at=datetime.fromisoformat(instant))
            for n, instant in enumerate(instants)
        ],
    )


async def test_berlins_last_day_of_summer_has_25_hours(svc):
    labels = await starts(svc, "2026-10-25", "2026-10-25", tz=BERLIN)
    assert len(labels) == 25
    assert labels[2:4] == ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00"]


async def test_berlins_first_day_of_summer_has_23_hours(svc):
    labels = await starts(svc, "2026-03-29", "2026-03-29", tz=BERLIN)
    assert len(labels) == 23
    assert labels[1:3] == ["2026-03-29T01:00+01:00", "2026-03-29T03:00+02:00"]


async def test_the_hour_that_occurs_twice_in_berlin_is_two_buckets(svc):
    await created(svc, "2026-10-25T00:30Z", "2026-10-25T01:30Z", "2026-10-25T01:45Z")
    assert await counts(svc, "2026-10-25", "2026-10-25", tz=BERLIN, interval="hour") == {
        "2026-10-25T02:00+02:00": 1,
        "2026-10-25T02:00+01:00": 2,
    }


@pytest.mark.parametrize("interval", ["day", "month"])
async def test_havanas_day_of_two_midnights_starts_with_the_first(svc, interval):
    await created(svc, "2026-11-01T03:59:59Z", "2026-11-01T04:30Z", "2026-11-01T05:30Z")
    assert await counts(svc, "2026-11-01", "2026-11-01", tz=HAVANA, interval=interval) == {
        "2026-11-01T00:00-04:00": 2
    }
    labels = await starts(svc, "2026-11-01", "2026-11-02", tz=HAVANA, interval="day")
    assert labels == ["2026-11-01T00:00-04:00", "2026-11-02T00:00-05:00"]


async def test_havanas_day_without_a_midnight_starts_at_one(svc):
    await created(svc, "2026-03-08T04:59:59Z", "2026-03-08T05:00Z")
    assert await counts(svc, "2026-03-07", "2026-03-08", tz=HAVANA, interval="day") == {
        "2026-03-07T00:00-05:00": 1,
        "2026-03-08T01:00-04:00": 1,
    }


async def test_apia_has_no_30_december_2011(svc):
    await created(svc, "2011-12-30T09:59:59Z", "2011-12-30T10:00Z")
    days = ("2011-12-29", "2011-12-31")
    assert await starts(svc, *days, tz=APIA, interval="day") == [
        "2011-12-29T00:00-10:00",
        "2011-12-31T00:00+14:00",
    ]
    assert set((await counts(svc, *days, tz=APIA, interval="day")).values()) == {1}
    assert len(await starts(svc, *days, tz=APIA)) == 48


async def test_apias_missing_day_is_an_empty_range(svc, subtests):
    await created(svc, "2011-12-30T09:59:59.999999Z", "2011-12-30T10:00Z")
    for interval in INTERVALS:
        with subtests.test(interval):
            assert await starts(svc, "2011-12-30", "2011-12-30", tz=APIA, interval=interval) == []


async def test_lord_howes_half_hour_in_autumn_is_a_bucket_of_its_own(svc):
    """The clock shows 01:30 to 02:00 twice, at first with +11:00 and then with +10:30."""
    await created(svc, "2026-04-04T14:45Z", "2026-04-04T15:15Z", "2026-04-04T15:20Z")
    assert await counts(svc, "2026-04-05", "2026-04-05", tz=LORD_HOWE, interval="hour") == {
        "2026-04-05T01:00+11:00": 1,
        "2026-04-05T01:30+11:00": 2,  # 01:00+10:30, as the zone's clock shows that instant
    }
    assert len(await starts(svc, "2026-04-05", "2026-04-05", tz=LORD_HOWE)) == 25
    assert await starts(svc, "2026-04-05", "2026-04-05T03:15", tz=LORD_HOWE) == [
        "2026-04-05T00:00+11:00",
        "2026-04-05T01:00+11:00",
        "2026-04-05T01:30+11:00",
        "2026-04-05T02:00+10:30",
        "2026-04-05T03:00+10:30",
    ]


async def test_lord_howes_half_hour_in_spring_is_missing(svc):
    """The clock goes from 02:00+10:30 to 02:30+11:00."""
    await created(svc, "2026-10-03T15:29Z", "2026-10-03T15:30Z")
    assert await counts(svc, "2026-10-04", "2026-10-04", tz=LORD_HOWE, interval="hour") == {
        "2026-10-04T01:00+10:30": 1,
        "2026-10-04T01:30+10:30": 1,  # 02:00+11:00, as the zone's clock shows that instant
    }
    assert len(await starts(svc, "2026-10-04", "2026-10-04", tz=LORD_HOWE)) == 24


@pytest.mark.parametrize("change", ["2026-04-04T15:00Z", "2026-10-03T15:30Z"])
async def test_a_range_from_lord_howes_change_on_has_no_earlier_bucket(svc, change):
    since = datetime.fromisoformat(change)
    labels = await starts(svc, since, since + HOUR / 2 - MICROSECOND, tz=LORD_HOWE)
    assert len(labels) == 1


async def test_kathmandus_hours_start_at_a_quarter_hour(svc):
    labels = await starts(svc, "2026-11-22T00:00", "2026-11-22T01:00", tz="Asia/Kathmandu")
    assert labels == ["2026-11-22T00:00+05:45", "2026-11-22T01:00+05:45"]


async def test_weeks_start_on_monday_and_the_first_is_cut_by_the_range(svc):
    await created(svc, "2026-11-17T23:59:59Z", "2026-11-18T00:00Z", "2026-11-22T23:59:59Z")
    assert await counts(svc, "2026-11-18", "2026-11-23", tz="UTC", interval="week") == {
        "2026-11-16T00:00+00:00": 2
    }
    labels = await starts(svc, "2026-11-18", "2026-11-23", tz="UTC", interval="week")
    assert labels == ["2026-11-16T00:00+00:00", "2026-11-23T00:00+00:00"]


async def test_a_bucket_sums_and_counts(svc):
    def cost(tokens: int, duration: float, round: int) -> Turn:
        message = Message(role="assistant", content="!")
        return Turn(messages=[message], tokens=tokens, duration=duration, round=round)

    when = datetime(2026, 11, 22, 12, tzinfo=UTC)
    await keep(
        svc,
        "t",
        [
            Kept("1", when, user_id="ann", turns=[cost(1, 0.1, 1), cost(2, 0.2, 1)], thumbs={1: 1}),
            Kept("2", when, user_id="ann", turns=[cost(4, 0.4, 1)], thumbs={1: -1}),
            Kept("3", when, user_id="bob", turns=[cost(8, 0.000001, 0)], thumbs={1: -1}),
            Kept("4", when, user_id=""),
        ],
    )
    (bucket,) = await svc.conversations.stats(
        tenant_id="t", from_date="2026-11-22", to_date="2026-11-22"
    )
    assert bucket == UsageBucket(
        dt=datetime(2026, 11, 22, tzinfo=UTC),
        pv=4,
        uv=2,
        tokens=15,
        duration=0.700001,
        rounds=3,
        round=0.75,
        thumb_up=1,
        thumb_down=2,
    )


async def test_source_none_means_conversations_without_a_source(svc):
    when = datetime(2026, 11, 22, tzinfo=UTC)
    sources = enumerate([None, "web", "web"])
    await keep(svc, "t", [Kept(str(n), when, source=source) for n, source in sources])
    for source, found in {ANY: 3, None: 1, "web": 2, "None": 0, "any": 0}.items():
        (bucket,) = await svc.conversations.stats(
            tenant_id="t", from_date=when, to_date=when, source=source
        )
        assert bucket.pv == found, source


async def test_a_lower_bound_may_be_within_the_day_of_the_upper_bound(svc):
    await created(svc, "2026-11-22T09:59Z", "2026-11-22T10:00Z", "2026-11-22T23:59Z")
    assert await counts(svc, "2026-11-22T10:00", "2026-11-22", tz="UTC", interval="day") == {
        "2026-11-22T00:00+00:00": 2
    }


# ---------------------------------------------------------------- first and last years, wrong input


@pytest.mark.parametrize(
    "range_",
    [
        ("0001-01-01", "0001-01-01"),
        ("0001-01-01T00:00", "0001-01-02T00:00"),
        ("9999-12-31T20:00Z", "9999-12-31T23:59:59.999998Z"),
    ],
)
async def test_a_range_in_the_first_or_last_year_is_answered_or_rejected(dsn, range_, subtests):
    """No bound becomes an infinity, which would have an infinite number of buckets."""
    async with connect(dsn, settings=Settings(statement_timeout=2)) as svc:
        for interval in INTERVALS:
            with subtests.test(interval), contextlib.suppress(InvalidInput):
                buckets = await asked(svc, "t", Question(*range_, interval=interval))
                assert 1 <= len(buckets) <= 25


async def test_a_month_that_starts_before_year_one_is_rejected(svc):
    with pytest.raises(InvalidInput):
        await asked(svc, "t", Question("0001-01-02", "0001-01-02", interval="month", tz=BERLIN))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"from_date": "2026-11-23"}, "from_date"),
        ({"from_date": datetime(2026, 11, 22)}, "from_date"),  # noqa: DTZ001 - the point
        ({"to_date": datetime(2026, 11, 22)}, "to_date"),  # noqa: DTZ001 - the point
        ({"from_date": None}, "from_date"),
        ({"to_date": None}, "to_date"),
        ({"to_date": "20000-01-01"}, "to_date"),
        ({"to_date": date.max}, "to_date"),
        ({"to_date": "2026-11-22T10:00 +01:00"}, "to_date"),
        ({"from_date": "1970-01-01"}, "to_date"),
        ({"interval": "year"}, "interval"),
        ({"interval": "1 day'; drop table"}, "interval"),
        ({"tz": "Berlin"}, "tz"),
        ({"tz": "+01:00"}, "tz"),
        ({"source": ""}, "source"),
        ({"dialog_id": None}, "dialog_id"),
        ({"basis": "magic"}, "basis"),
    ],
)
async def test_wrong_input_is_rejected_before_any_sql(wrong, field):
    svc = AsyncSvc(asyncpg.create_pool())  # a pool that is never opened
    question = {"from_date": "2026-11-22", "to_date": "2026-11-22", **wrong}
    with pytest.raises(InvalidInput) as error:
        await svc.conversations.stats(tenant_id="t", **question)
    assert error.value.field == field
