"""Examples of `stats` with expected results written by hand: clock changes, sums, wrong input.

`tests/models/test_statistics.py` compares generated statistics with a model.
"""

import contextlib
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest

from asyncsvc import ANY, AsyncSvc, InvalidInput, Settings, UsageBucket, connect

HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
APIA = "Pacific/Apia"
BERLIN = "Europe/Berlin"
HAVANA = "America/Havana"
LORD_HOWE = "Australia/Lord_Howe"
INTERVALS = ("hour", "day", "week", "month")


# ---------------------------------------------------------------- known clock changes


async def stats(svc, from_date, to_date, **options):
    return await svc.conversations.stats(
        tenant_id="t", from_date=from_date, to_date=to_date, basis="creation", **options
    )


async def starts(svc, from_date, to_date, *, tz, interval="hour"):
    """Return the labels of the buckets, as text."""
    buckets = await stats(svc, from_date, to_date, tz=tz, interval=interval)
    return [bucket.dt.isoformat(timespec="minutes") for bucket in buckets]


async def counts(svc, from_date, to_date, *, tz, interval):
    """Return the number of conversations in each bucket that is not empty."""
    buckets = await stats(svc, from_date, to_date, tz=tz, interval=interval, fill=False)
    return {bucket.dt.isoformat(timespec="minutes"): bucket.conversations for bucket in buckets}


async def create(svc, *instants):
    rows = [{"dialog_id": "d", "created_at": datetime.fromisoformat(at)} for at in instants]
    await svc.conversations.create_many(rows, tenant_id="t")


async def test_berlins_last_day_of_summer_has_25_hours(svc):
    labels = await starts(svc, "2026-10-25", "2026-10-25", tz=BERLIN)
    assert len(labels) == 25
    assert labels[2:4] == ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00"]


async def test_berlins_first_day_of_summer_has_23_hours(svc):
    labels = await starts(svc, "2026-03-29", "2026-03-29", tz=BERLIN)
    assert len(labels) == 23
    assert labels[1:3] == ["2026-03-29T01:00+01:00", "2026-03-29T03:00+02:00"]


async def test_the_hour_that_occurs_twice_in_berlin_is_two_buckets(svc):
    await create(svc, "2026-10-25T00:30Z", "2026-10-25T01:30Z", "2026-10-25T01:45Z")
    assert await counts(svc, "2026-10-25", "2026-10-25", tz=BERLIN, interval="hour") == {
        "2026-10-25T02:00+02:00": 1,
        "2026-10-25T02:00+01:00": 2,
    }


@pytest.mark.parametrize("interval", ["day", "month"])
async def test_havanas_day_of_two_midnights_starts_with_the_first(svc, interval):
    await create(svc, "2026-11-01T03:59:59Z", "2026-11-01T04:30Z", "2026-11-01T05:30Z")
    assert await counts(svc, "2026-11-01", "2026-11-01", tz=HAVANA, interval=interval) == {
        "2026-11-01T00:00-04:00": 2
    }
    labels = await starts(svc, "2026-11-01", "2026-11-02", tz=HAVANA, interval="day")
    assert labels == ["2026-11-01T00:00-04:00", "2026-11-02T00:00-05:00"]


async def test_havanas_day_without_a_midnight_starts_at_one(svc):
    await create(svc, "2026-03-08T04:59:59Z", "2026-03-08T05:00Z")
    assert await counts(svc, "2026-03-07", "2026-03-08", tz=HAVANA, interval="day") == {
        "2026-03-07T00:00-05:00": 1,
        "2026-03-08T01:00-04:00": 1,
    }


async def test_apia_has_no_30_december_2011(svc):
    await create(svc, "2011-12-30T09:59:59Z", "2011-12-30T10:00Z")
    days = ("2011-12-29", "2011-12-31")
    assert await starts(svc, *days, tz=APIA, interval="day") == [
        "2011-12-29T00:00-10:00",
        "2011-12-31T00:00+14:00",
    ]
    assert set((await counts(svc, *days, tz=APIA, interval="day")).values()) == {1}
    assert len(await starts(svc, *days, tz=APIA)) == 48


async def test_apias_missing_day_is_an_empty_range(svc, subtests):
    await create(svc, "2011-12-30T09:59:59.999999Z", "2011-12-30T10:00Z")
    for interval in INTERVALS:
        with subtests.test(interval):
            assert await starts(svc, "2011-12-30", "2011-12-30", tz=APIA, interval=interval) == []


async def test_lord_howes_half_hour_in_autumn_is_a_bucket_of_its_own(svc):
    """The clock shows 01:30 to 02:00 twice, at first with +11:00 and then with +10:30."""
    await create(svc, "2026-04-04T14:45Z", "2026-04-04T15:15Z", "2026-04-04T15:20Z")
    assert await counts(svc, "2026-04-05", "2026-04-05", tz=LORD_HOWE, interval="hour") == {
        "2026-04-05T01:00+11:00": 1,
        "2026-04-05T01:30+11:00": 2,  # the local clock shows 01:00+10:30 at that instant
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
    await create(svc, "2026-10-03T15:29Z", "2026-10-03T15:30Z")
    assert await counts(svc, "2026-10-04", "2026-10-04", tz=LORD_HOWE, interval="hour") == {
        "2026-10-04T01:00+10:30": 1,
        "2026-10-04T01:30+10:30": 1,  # the local clock shows 02:00+11:00 at that instant
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
    await create(svc, "2026-11-17T23:59:59Z", "2026-11-18T00:00Z", "2026-11-22T23:59:59Z")
    assert await counts(svc, "2026-11-18", "2026-11-23", tz="UTC", interval="week") == {
        "2026-11-16T00:00+00:00": 2
    }
    labels = await starts(svc, "2026-11-18", "2026-11-23", tz="UTC", interval="week")
    assert labels == ["2026-11-16T00:00+00:00", "2026-11-23T00:00+00:00"]


async def test_a_bucket_sums_and_counts(svc):
    turns = {
        "1": ("ann", [(1, 0.1, 1), (2, 0.2, 1)], 1),
        "2": ("ann", [(4, 0.4, 1)], -1),
        "3": ("bob", [(8, 0.000001, 0)], -1),
        "4": ("", [], None),
    }
    for id, (user_id, costs, thumb) in turns.items():
        await svc.conversations.create(
            tenant_id="t", id=id, dialog_id="d", user_id=user_id, created_at=NOON
        )
        for tokens, duration, round in costs:
            messages = [{"role": "assistant", "content": "!"}]
            turn = {"messages": messages, "tokens": tokens, "duration": duration, "round": round}
            await svc.conversations.append_message(id, turn, tenant_id="t")
        if thumb:
            await svc.conversations.set_feedback(id, 1, thumb, tenant_id="t")
    (bucket,) = await stats(svc, "2026-11-22", "2026-11-22")
    assert bucket == UsageBucket(
        dt=datetime(2026, 11, 22, tzinfo=UTC),
        conversations=4,
        users=2,
        tokens=15,
        duration=0.700001,
        rounds=3,
        round=0.75,
        thumb_up=1,
        thumb_down=2,
    )


async def test_source_none_means_conversations_without_a_source(svc):
    for source in (None, "web", "web"):
        await svc.conversations.create(tenant_id="t", dialog_id="d", created_at=NOON, source=source)
    for source, count in {ANY: 3, None: 1, "web": 2, "None": 0, "any": 0}.items():
        (bucket,) = await stats(svc, NOON, NOON, source=source)
        assert bucket.conversations == count, source


async def test_a_lower_bound_may_be_within_the_day_of_the_upper_bound(svc):
    await create(svc, "2026-11-22T09:59Z", "2026-11-22T10:00Z", "2026-11-22T23:59Z")
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
    """No bound becomes an infinite time, since its range would have infinitely many buckets."""
    async with connect(dsn, settings=Settings(statement_timeout=2)) as svc:
        for interval in INTERVALS:
            with subtests.test(interval), contextlib.suppress(InvalidInput):
                buckets = await stats(svc, *range_, interval=interval)
                assert 1 <= len(buckets) <= 25


async def test_a_month_that_starts_before_year_one_is_rejected(svc):
    with pytest.raises(InvalidInput):
        await stats(svc, "0001-01-02", "0001-01-02", interval="month", tz=BERLIN)


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
async def test_invalid_input_is_rejected_before_any_sql(wrong, field):
    svc = AsyncSvc(asyncpg.create_pool())  # a pool that is never opened
    question = {"from_date": "2026-11-22", "to_date": "2026-11-22", **wrong}
    with pytest.raises(InvalidInput) as error:
        await svc.conversations.stats(tenant_id="t", **question)
    assert error.value.field == field
