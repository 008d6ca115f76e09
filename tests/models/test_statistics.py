"""`stats` equals the model: by creation and by activity, in each interval, zone and filter.

The examples are conversations around changes of clocks and around the ends of days, weeks and
months. In the zone of the query their usage is not rolled up, half of it is, or all of it.
"""

import itertools
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsvc import ANY, AsyncSvc, InvalidInput
from tests.models.clocks import DAY, FORMS, HOUR, MICROSECOND, clock_changes, format_bound
from tests.models.comparison import differences, profile
from tests.models.model import Model, import_both
from tests.models.state import Row

CHANGING_ZONES = (
    *("Europe/Berlin", "America/New_York", "America/Havana", "Australia/Lord_Howe", "Pacific/Apia"),
    # Midnight goes back to 23:00; an offset changes permanently, or by half an hour; 2 in spring
    *("America/Sao_Paulo", "America/Caracas", "Asia/Pyongyang"),
    # Not Africa/Casablanca: its changes are set each year, so versions of the database differ.
)
ZONES = ("UTC", "Asia/Kathmandu", *CHANGING_ZONES)
INTERVALS = {"hour": 2 * DAY, "day": 40 * DAY, "week": 100 * DAY, "month": 800 * DAY}
ROLLED_UP = ("nothing", "half", "counted", "maintained")
BASES = ("creation", "activity")
THUMBS = [{"role": "user", "content": "?", "thumb": thumb} for thumb in (None, 1, -1)]

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
_numbers = itertools.count(1)


async def store(
    svc: AsyncSvc, records: Sequence[Row], tz: str, rolled_up: str
) -> tuple[Model, str]:
    """Store conversations in a new tenant, and roll up a part of them in a zone.

    - "nothing": all usage is in the ledger.
    - "half": the declaration of the zone rolls up half of it. Then conversations are deleted that
      have the times of remaining conversations, and the same user or another user.
    - "counted": the declaration rolls up all of it.
    - "maintained": maintenance rolls up all of it, after the declaration.
    """
    model, tenant_id = Model(), f"t{next(_numbers)}"
    if rolled_up == "maintained":
        await svc.conversations.declare_zone(tz, tenant_id=tenant_id)
    middle = {"nothing": 0, "half": len(records) // 2}.get(rolled_up, len(records))
    deleted = records[:middle:2] if rolled_up == "half" else []
    deleted = [each | {"id": f"{each['id']} deleted"} for each in deleted]
    deleted = [each | ({"user_id": "deleted"} if n % 2 else {}) for n, each in enumerate(deleted)]
    await import_both(svc, model, tenant_id, [*records[:middle], *deleted])
    if rolled_up in {"half", "counted"}:
        await svc.conversations.declare_zone(tz, tenant_id=tenant_id)
    await import_both(svc, model, tenant_id, records[middle:])
    ids = [each["id"] for each in deleted]
    assert await svc.conversations.delete_by_ids(ids, tenant_id=tenant_id) == len(ids)
    assert model.conversations.delete_by_ids(ids, tenant_id=tenant_id) == len(ids)
    if rolled_up == "maintained":
        await svc.maintain()
    return model, tenant_id


async def assert_equal(svc: AsyncSvc, model: Model, tenant_id: str, **question: Any) -> None:
    """Assert that the buckets equal the model, and that each `dt` has the offset of its zone."""
    buckets = await svc.conversations.stats(tenant_id=tenant_id, **question)
    expected = model.conversations.stats(tenant_id=tenant_id, **question)
    assert differences(expected, buckets) == [], question
    zone = ZoneInfo(question["tz"])
    assert [bucket.dt.isoformat() for bucket in buckets] == [
        bucket.dt.astimezone(zone).isoformat() for bucket in buckets
    ]


# ---------------------------------------------------------------- generated data


@st.composite
def histories(draw: st.DrawFn) -> tuple[str, list[datetime], list[Row]]:
    """Draw a zone, some moments in it, and conversations around these moments."""
    tz = draw(st.sampled_from(ZONES))
    ends = [datetime.combine(day, time(), ZoneInfo(tz)).astimezone(UTC) for day in DAYS]
    moments = st.sampled_from(ends)
    if changes := clock_changes(tz):
        moments |= st.sampled_from(changes)
    near = draw(st.lists(moments, min_size=1, max_size=2))
    record = st.fixed_dictionaries(
        {
            "created_at": st.builds(
                lambda moment, step: moment + step, st.sampled_from(near), st.sampled_from(STEPS)
            ),
            "dialog_id": st.sampled_from("de"),
            "user_id": st.sampled_from(["", "ann", "bob", "eve"]),
            "source": st.sampled_from([None, "web", "api"]),
            "tokens": st.integers(0, 10**9),
            "duration": st.sampled_from([0.0, 0.000001, 0.1, 0.2, 12.345678]),
            "round": st.integers(0, 3),
            "messages": st.lists(st.sampled_from(THUMBS), max_size=2),
        }
    )
    records = draw(st.lists(record, min_size=1, max_size=15))
    return tz, near, [record | {"id": str(n)} for n, record in enumerate(records)]


@st.composite
def questions(draw: st.DrawFn, tz: str, near: Sequence[datetime]) -> Row:
    """Draw a query of at most some dozen buckets around these moments."""
    tz = draw(st.just(tz) | st.just(tz) | st.sampled_from(ZONES))
    interval = draw(st.sampled_from([*INTERVALS, "total"]))
    since = draw(st.sampled_from(near)) + draw(st.sampled_from(STEPS))
    until = since + draw(st.sampled_from([step for step in STEPS if step >= timedelta(0)]))
    until += draw(st.floats(0, 1)) * INTERVALS.get(interval, 200 * DAY) * draw(st.booleans())
    if draw(st.integers(0, 9)) == 9:
        since, until = until, since
    return {
        "from_date": format_bound(draw(st.sampled_from(list(FORMS))), since, tz),
        "to_date": format_bound(draw(st.sampled_from(list(FORMS))), until, tz),
        "source": draw(st.sampled_from([ANY, ANY, None, "web", "nowhere"])),
        "basis": draw(st.sampled_from(BASES)),
        "interval": interval,
        "dialog_id": draw(st.sampled_from([ANY, ANY, "d", "nowhere"])),
        "user_id": draw(st.sampled_from([ANY, ANY, ANY, "ann", ""])),
        "group_by": draw(
            st.sampled_from([None, None, "dialog_id", "source", "token_id", "user_id"])
        ),
        "top": draw(st.sampled_from([1, 2, 20])),
        "tz": tz,
        "fill": draw(st.booleans()),
    }


@profile(50)
@given(history=histories(), rolled_up=st.sampled_from(ROLLED_UP), data=st.data())
async def test_any_statistics_of_any_conversations_equal_the_model(svc, history, rolled_up, data):
    tz, near, records = history
    model, tenant_id = await store(svc, records, tz, rolled_up)
    await store(svc, records[:1], tz, rolled_up)  # another tenant
    for _ in range(8):
        question = data.draw(questions(tz, near))
        try:
            model.conversations.stats(tenant_id=tenant_id, **question)
        except InvalidInput:
            with pytest.raises(InvalidInput, match=r"from_date|group_by"):
                await svc.conversations.stats(tenant_id=tenant_id, **question)
        else:
            await assert_equal(svc, model, tenant_id, **question)


# ---------------------------------------------------------------- changes of clocks


async def is_known_to_server(svc: AsyncSvc, tz: str, change: datetime) -> bool:
    """Return whether the server's time zone database has this change too: editions differ."""
    return [
        await svc._executor._pool.fetchval("SELECT $1::timestamptz AT TIME ZONE $2", moment, tz)
        == moment.astimezone(ZoneInfo(tz)).replace(tzinfo=None)
        for moment in (change - DAY, change - MICROSECOND, change, change + DAY)
    ] == [True] * 4


def record(id: str, created_at: datetime, user_id: str) -> Row:
    return {
        "id": id,
        "dialog_id": "d",
        "created_at": created_at,
        "user_id": user_id,
        "tokens": 1,
        "messages": [],
    }


@pytest.mark.parametrize("rolled_up", ["nothing", "half", "maintained"])
@pytest.mark.parametrize("tz", CHANGING_ZONES)
async def test_usage_across_every_clock_change_from_2011_to_2027_equals_the_model(
    svc, tz, rolled_up
):
    """Each pair of changes is tested with one of 6 combinations of range, basis and interval."""
    users = itertools.cycle(["", "ann", "ann", "bob", "eve"])
    changes = [each for each in clock_changes(tz) if await is_known_to_server(svc, tz, each)]
    assert changes
    records = [
        record(f"{n} {step}", change + step, next(users))
        for n, change in enumerate(changes)
        for step in STEPS
        if abs(step) <= 2 * HOUR and step % (HOUR / 4) != MICROSECOND
    ]
    model, tenant_id = await store(svc, records, tz, rolled_up)
    for (n, change), (i, interval) in itertools.product(enumerate(changes), enumerate(INTERVALS)):
        ranges = [
            (change - DAY, change - MICROSECOND),
            (change, change + DAY),
            (change - 3 * HOUR, change + 2.75 * HOUR),
        ]
        for turn in range(6) if len(changes) < 12 else [n // 2 + i]:
            since, until = ranges[turn % 3]
            question = {"interval": interval, "basis": BASES[turn // 3 % 2], "tz": tz}
            await assert_equal(svc, model, tenant_id, from_date=since, to_date=until, **question)


@pytest.mark.parametrize("rolled_up", ["nothing", "half", "counted"])
@pytest.mark.parametrize("tz", ZONES)
async def test_usage_of_two_years_equals_the_model(svc, tz, rolled_up):
    """There is 1 conversation every 43.9 hours, and both ends of the range cut a bucket."""
    first = datetime(2011, 12, 1, tzinfo=UTC)
    users = itertools.cycle(["", "ann", "bob"])
    records = [record(str(n), first + n * 43.9 * HOUR, next(users)) for n in range(400)]
    model, tenant_id = await store(svc, records, tz, rolled_up)
    for interval, basis, fill in itertools.product(("day", "week", "month"), BASES, (True, False)):
        question = {"interval": interval, "basis": basis, "tz": tz, "fill": fill}
        await assert_equal(
            svc, model, tenant_id, from_date="2011-12-10", to_date="2013-10-31T12:00", **question
        )
