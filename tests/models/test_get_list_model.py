"""`get_list` returns the same as `model.listed`: every filter, order, page, cursor and zone."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncsvc import AsyncSvc, Conversation, InvalidInput, Message, Page, Turn
from tests.models.model import (
    EXAMPLES,
    FORMS,
    MICROSECOND,
    SORT_KEYS,
    DateLike,
    Kept,
    Query,
    WrongRangeError,
    keep,
    listed,
    without_offset,
    written,
)

T = TypeVar("T")
RARELY = st.integers(0, 9).map(lambda number: number == 9)

LORD_HOWE = "Australia/Lord_Howe"
ORDERS = list(SORT_KEYS)
TENANTS = ("acme", "globex")
DIALOGS = ("d", "e")
ZONES = ("UTC", "Europe/Berlin", "America/Havana", LORD_HOWE, "Asia/Kathmandu")

# No two names start with the same letter, so every collation orders them alike.
NAMES = ("", "alpha", "bravo", "c_1", "d%d", "e\\f", "foxtrot fox", "中文会话")
TEXTS = (
    "Hello, World",
    "hello again",
    "100% sure_thing",
    "100 percent sure-thing",
    "C:\\temp\\%TEMP%",
    "什么是数据库",
    "first line\nsecond line",
    "",
)
KEYWORDS = (
    *(
        "h",
        "HELLO",
        "world",
        "ALPHA",
        "Fox",
        "100%",
        "0 P",
        "_",
        "%",
        "\\",
        "\\%",
        "%%",
        "__",
        "a_",
    ),
    *("数据库", "会", "line\nsecond", " ", "assistant", "hidden", "absent from all texts"),
)

# Starts and ends of days, months and daylight saving time in the zones. STEPS adds instants around.
MOMENTS = [
    datetime(2024, 2, 29, 0, 0, tzinfo=UTC),
    datetime(2026, 3, 8, 5, 0, tzinfo=UTC),  # Havana skips midnight
    datetime(2026, 3, 29, 1, 0, tzinfo=UTC),  # Berlin skips 02:00
    datetime(2026, 4, 4, 15, 0, tzinfo=UTC),  # Lord Howe has 01:30 twice
    datetime(2026, 10, 25, 0, 0, tzinfo=UTC),  # the first 02:00 in Berlin
    datetime(2026, 10, 25, 1, 0, tzinfo=UTC),  # and the second
    datetime(2026, 11, 1, 4, 0, tzinfo=UTC),  # the first midnight in Havana
    datetime(2026, 11, 1, 5, 0, tzinfo=UTC),  # and the second
    datetime(2026, 11, 21, 18, 15, tzinfo=UTC),  # midnight in Kathmandu
    datetime(2026, 11, 22, 10, 0, tzinfo=UTC),
]
STEPS = sorted(
    {
        sign * step
        for sign in (1, -1)
        for step in (
            timedelta(0),
            MICROSECOND,
            timedelta(milliseconds=1),
            timedelta(seconds=1),
            timedelta(seconds=59, microseconds=999_999),
            timedelta(minutes=30),
            timedelta(hours=1),
            timedelta(hours=23),
        )
    }
)


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    texts = draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=2))
    roles = itertools.cycle(("user", "assistant"))
    return Turn(
        messages=[
            Message(role=role, content=text, payload={"hidden": "hidden"}, reference=["hidden"])
            for role, text in zip(roles, texts, strict=False)
        ],
        tokens=draw(st.integers(0, 2)),
        duration=draw(st.sampled_from([0.0, 0.000001, 0.1, 0.2, 1.5])),
        round=draw(st.integers(0, 2)),
    )


@st.composite
def conversations(draw: st.DrawFn, id: str) -> Kept:
    appended = draw(st.lists(turns(), max_size=2))
    seqs = range(1, sum(len(turn.messages) for turn in appended) + 1)
    return Kept(
        id=id,
        created_at=draw(st.sampled_from(MOMENTS)) + draw(st.sampled_from(STEPS)),
        dialog_id=draw(st.sampled_from(DIALOGS)),
        user_id=draw(st.sampled_from(["", "ann", "bob"])),
        exp_user_id=draw(st.sampled_from([None, "ann", "eve"])),
        name=draw(st.sampled_from([None, *NAMES])),
        source=draw(st.sampled_from([None, "web"])),
        dsl=draw(st.sampled_from([None, {"graph": [1, None, "%"]}])),
        turns=appended,
        thumbs={seq: thumb for seq in seqs if (thumb := draw(st.sampled_from([None, 1, -1])))},
    )


@st.composite
def tenants(draw: st.DrawFn) -> dict[str, list[Kept]]:
    """The conversations of each tenant, with ids from the same small set."""
    ids = st.lists(
        st.text("aAbZ1%_\\会", min_size=1, max_size=2), min_size=12, max_size=40, unique=True
    )
    return {tenant: [draw(conversations(id)) for id in draw(ids)] for tenant in TENANTS}


@st.composite
def queries(draw: st.DrawFn, kept: Sequence[Kept]) -> Query:
    """A query with bounds near the times of these conversations."""
    tz = draw(st.sampled_from(ZONES))
    orderby = draw(st.sampled_from(ORDERS))
    from_date, to_date = draw(bounds(times(kept, orderby), tz))
    return Query(
        dialog_id=draw(st.sampled_from([*DIALOGS, "d", "d", "D"])),
        orderby=orderby,
        desc=draw(st.booleans()),
        id=draw(mostly_none([*(each.id for each in kept), "absent"])),
        user_id=draw(mostly_none(["", "ann", "bob", "ANN"])),
        exp_user_id=draw(mostly_none(["ann", "eve", "absent"])),
        keywords=draw(mostly_none(KEYWORDS)) or "",
        from_date=from_date,
        to_date=to_date,
        tz=tz,
    )


@st.composite
def bounds(
    draw: st.DrawFn, near: Sequence[datetime], tz: str
) -> tuple[DateLike | None, DateLike | None]:
    """Two bounds in any form, in most cases in their order."""
    instants = [draw(st.sampled_from(near)) + draw(st.sampled_from(STEPS)) for _ in range(2)]
    instants.sort(reverse=draw(RARELY))
    since, until = (draw(st.sampled_from(list(FORMS))) for _ in range(2))
    return (
        draw(mostly_none([written(since, instants[0], tz)])),
        draw(mostly_none([written(until, instants[1], tz)])),
    )


def mostly_none(values: Sequence[T]) -> st.SearchStrategy[T | None]:
    return st.none() | st.none() | st.sampled_from(values)


def times(kept: Sequence[Kept], orderby: str) -> list[datetime]:
    """The times that from_date and to_date bound in this order."""
    if orderby.startswith("update"):
        return sorted(each.updated_at for each in kept)
    return sorted(each.created_at for each in kept)


# ---------------------------------------------------------------- comparison


_numbers = itertools.count(1)


async def kept_for(svc: AsyncSvc, world: dict[str, list[Kept]]) -> dict[str, list[Kept]]:
    """Store the conversations under tenants that are new in this run."""
    number = next(_numbers)
    own = {f"{tenant} {number}": conversations for tenant, conversations in world.items()}
    for tenant_id, conversations in own.items():
        await keep(svc, tenant_id, conversations)
    return own


async def page_of(
    svc: AsyncSvc, tenant_id: str, query: Query, **page: object
) -> Page[Conversation]:
    return await svc.conversations.get_list(tenant_id=tenant_id, **asdict(query), **page)


def rows(tenant_id: str, kept: Sequence[Kept], **included: bool) -> list[dict[str, object]]:
    return [each.row(tenant_id, **included) for each in kept]


def as_rows(items: Sequence[Conversation]) -> list[dict[str, object]]:
    """Return the items without the times of their messages."""
    without_times = {"messages": {"__all__": {"created_at"}}}
    return [
        {**row, "messages": None if row["messages"] is None else list(row["messages"])}
        for row in (item.model_dump(exclude=without_times) for item in items)
    ]


async def assert_pages_agree(
    svc: AsyncSvc, tenant_id: str, kept: Sequence[Kept], query: Query, size: int
) -> None:
    """Compare each page by number, and one after the end, and each page by cursor."""
    expected = [each.id for each in listed(kept, query)]
    parts = [expected[at : at + size] for at in range(0, len(expected), size)] or [[]]

    by_number = [
        await page_of(svc, tenant_id, query, items_per_page=size, page_number=page_number)
        for page_number in range(1, len(parts) + 2)
    ]
    assert [[item.id for item in page.items] for page in by_number] == [*parts, []]

    for page, further in zip(by_number, [*[True] * (len(parts) - 1), False, False], strict=True):
        assert page.total == len(expected)
        assert not page.total_capped
        assert (page.next is not None) == (further and query.has_cursors)

    by_cursor = [by_number[0]]
    while by_cursor[-1].next:
        assert len(by_cursor) <= len(parts)
        after = by_cursor[-1].next
        by_cursor.append(await page_of(svc, tenant_id, query, items_per_page=size, after=after))
    if query.has_cursors:
        assert [(page.total, page.items, page.next) for page in by_cursor] == [
            (page.total, page.items, page.next) for page in by_number[:-1]
        ]


# ---------------------------------------------------------------- generated data


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(world=tenants(), data=st.data())
async def test_any_list_of_any_conversations_agrees_with_the_model(svc, world, data):
    for tenant_id, kept in (await kept_for(svc, world)).items():
        for _ in range(4):
            query = data.draw(queries(kept))
            try:
                expected = listed(kept, query)
            except WrongRangeError:
                with pytest.raises(InvalidInput, match="from_date"):
                    await page_of(svc, tenant_id, query)
                continue

            included = data.draw(
                st.fixed_dictionaries(
                    {"include_dsl": st.booleans(), "include_messages": st.booleans()}
                )
            )
            total = data.draw(st.sampled_from(["exact", "capped", "none"]))
            page = await page_of(
                svc, tenant_id, query, items_per_page=1_000, total=total, **included
            )
            assert as_rows(page.items) == rows(tenant_id, expected, **included)
            assert page.total == (None if total == "none" else len(expected))
            assert not page.total_capped

            size = data.draw(st.integers(1, len(expected) + 1))
            await assert_pages_agree(svc, tenant_id, kept, query, size)


# ---------------------------------------------------------------- one fixed data set


@pytest.fixture
def some_conversations() -> list[Kept]:
    """Return 24 conversations with many ties, of which a filter matches about every second one."""
    appended = [
        Turn(
            messages=[Message(role="user", content=text)], tokens=n % 3, duration=n % 2, round=n % 4
        )
        for n, text in enumerate(TEXTS)
    ]
    return [
        Kept(
            id=f"{'aB'[n % 2]}{n:02}",
            created_at=MOMENTS[n % 3],
            user_id=["", "ann"][n % 2],
            exp_user_id=[None, "eve"][n // 2 % 2],
            name=[None, *NAMES][n % 9],
            turns=[appended[n % len(appended)]] if n % 3 else [],
            thumbs={1: [1, -1][n % 2]} if n % 3 else {},
        )
        for n in range(24)
    ]


@pytest.mark.parametrize("orderby", ORDERS)
async def test_every_combination_of_filters_in_every_order(svc, some_conversations, orderby):
    await keep(svc, "t", some_conversations)
    target = some_conversations[7]
    first, *_, last = times(some_conversations, orderby)
    filters = {
        "id": target.id,
        "user_id": target.user_id,
        "exp_user_id": target.exp_user_id,
        "keywords": target.id[0].lower(),
        "from_date": first + MICROSECOND,
        "to_date": last,
    }
    for chosen in powerset(filters):
        for desc in (True, False):
            query = Query(orderby=orderby, desc=desc, **{name: filters[name] for name in chosen})
            expected = [each.id for each in listed(some_conversations, query)]
            page = await page_of(svc, "t", query)
            assert [item.id for item in page.items] == expected, query
            assert page.total == len(expected)


@pytest.mark.parametrize("orderby", ORDERS)
async def test_pages_of_every_size_in_every_order(svc, some_conversations, orderby):
    await keep(svc, "t", some_conversations)
    for size, desc in itertools.product((1, 2, 5, 12, 23, 24, 25), (True, False)):
        query = Query(orderby=orderby, desc=desc)
        await assert_pages_agree(svc, "t", some_conversations, query, size)


@pytest.mark.parametrize("desc", [True, False])
async def test_ties_are_broken_by_id_even_without_an_index(dsn, some_conversations, desc):
    no_index = {
        "enable_indexscan": "off",
        "enable_indexonlyscan": "off",
        "enable_bitmapscan": "off",
    }
    async with asyncpg.create_pool(dsn, server_settings=no_index) as pool:
        svc = AsyncSvc(pool)
        await keep(svc, "t", some_conversations)
        for orderby in ORDERS:
            query = Query(orderby=orderby, desc=desc)
            await assert_pages_agree(svc, "t", some_conversations, query, 7)


@pytest.mark.parametrize("tz", ZONES)
async def test_a_bound_in_every_form(svc, tz):
    """Each form of instants at and around each moment, as the only lower or upper bound."""
    instants = sorted({moment + step for moment in MOMENTS for step in STEPS})
    kept = [Kept(id=f"{n:04}", created_at=instant) for n, instant in enumerate(instants)]
    await keep(svc, "t", kept)
    steps = (timedelta(0), -MICROSECOND, timedelta(minutes=30))
    for form, moment, step in itertools.product(FORMS, MOMENTS, steps):
        bound = written(form, moment + step, tz)
        for query in (Query(from_date=bound, tz=tz), Query(to_date=bound, tz=tz)):
            page = await page_of(svc, "t", query, items_per_page=1)
            expected = listed(kept, query)
            assert page.total == len(expected), query
            assert [item.id for item in page.items] == [each.id for each in expected[:1]], query


def powerset(names: Iterable[str]) -> Iterable[tuple[str, ...]]:
    names = tuple(names)
    return itertools.chain.from_iterable(
        itertools.combinations(names, count) for count in range(len(names) + 1)
    )


# ---------------------------------------------------------------- bounds


@pytest.mark.parametrize(
    ("bound", "tz", "first", "last"),
    [
        ("2026-11-22", "UTC", "2026-11-22T00:00:00Z", "2026-11-22T23:59:59.999999Z"),
        (date(2026, 11, 22), "UTC", "2026-11-22T00:00:00Z", "2026-11-22T23:59:59.999999Z"),
        ("2026-11-22T10:00", "UTC", "2026-11-22T10:00:00Z", "2026-11-22T10:00:59.999999Z"),
        ("2026-11-22T10:00:00", "UTC", "2026-11-22T10:00:00Z", "2026-11-22T10:00:00.999999Z"),
        ("2026-11-22 10:00:00.5", "UTC", "2026-11-22T10:00:00.5Z", "2026-11-22T10:00:00.599999Z"),
        ("2026-11-22T10:00+05:45", "UTC", "2026-11-22T04:15:00Z", "2026-11-22T04:15:59.999999Z"),
        # an offset in the text takes precedence over the zone
        ("2026-11-22T10:00Z", "Asia/Kathmandu", "2026-11-22T10:00Z", "2026-11-22T10:00:59.999999Z"),
        ("2026-11-22T10:00", "Asia/Kathmandu", "2026-11-22T04:15Z", "2026-11-22T04:15:59.999999Z"),
        # days of 25 and of 23 hours, with a repeated and with a skipped midnight
        ("2026-10-25", "Europe/Berlin", "2026-10-24T22:00Z", "2026-10-25T22:59:59.999999Z"),
        ("2026-03-29", "Europe/Berlin", "2026-03-28T23:00Z", "2026-03-29T21:59:59.999999Z"),
        ("2026-11-01", "America/Havana", "2026-11-01T04:00Z", "2026-11-02T04:59:59.999999Z"),
        ("2026-10-31", "America/Havana", "2026-10-31T04:00Z", "2026-11-01T03:59:59.999999Z"),
        ("2026-03-08", "America/Havana", "2026-03-08T05:00Z", "2026-03-09T03:59:59.999999Z"),
        # repeated and skipped local times
        ("2026-10-25T02:30", "Europe/Berlin", "2026-10-25T00:30Z", "2026-10-25T01:30:59.999999Z"),
        ("2026-03-29T02:30", "Europe/Berlin", "2026-03-29T01:30Z", "2026-03-29T01:30:59.999999Z"),
        ("2026-04-05T01:45", LORD_HOWE, "2026-04-04T14:45Z", "2026-04-04T15:15:59.999999Z"),
        ("2026-10-04T02:15", LORD_HOWE, "2026-10-03T15:45Z", "2026-10-03T15:45:59.999999Z"),
    ],
)
async def test_a_bound_covers_its_first_to_its_last_instant(svc, bound, tz, first, last):
    first, last = datetime.fromisoformat(first), datetime.fromisoformat(last)
    instants = {"before": first - MICROSECOND, "first": first, "last": last}
    instants["after"] = last + MICROSECOND
    await keep(svc, "t", [Kept(id=name, created_at=at) for name, at in instants.items()])

    async def listed_ids(**query: object) -> set[str]:
        return {item.id for item in (await page_of(svc, "t", Query(tz=tz, **query))).items}

    for orderby in ("created_at", "updated_at"):  # without messages both times are equal
        assert await listed_ids(orderby=orderby, from_date=bound) == {"first", "last", "after"}
        assert await listed_ids(orderby=orderby, to_date=bound) == {"before", "first", "last"}
        assert await listed_ids(orderby=orderby, from_date=bound, to_date=bound) == {
            "first",
            "last",
        }


async def test_a_datetime_is_exact_and_respects_its_fold(svc):
    second = datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    around = {"just before": -MICROSECOND, "then": timedelta(0), "just after": MICROSECOND}
    await keep(svc, "t", [Kept(id=name, created_at=second + step) for name, step in around.items()])

    local = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
    page = await page_of(svc, "t", Query(from_date=local, to_date=local))
    assert [item.id for item in page.items] == ["then"]


async def test_a_lower_bound_may_lie_within_the_day_of_the_upper_bound(svc):
    """The upper bound is the whole day."""
    instants = {
        "before": "2026-11-22T09:59:59Z",
        "in range": "2026-11-22T10:00:00Z",
        "last": "2026-11-22T23:59:59Z",
        "after": "2026-11-23T00:00:00Z",
    }
    await keep(
        svc,
        "t",
        [Kept(id=name, created_at=datetime.fromisoformat(at)) for name, at in instants.items()],
    )
    query = Query(from_date="2026-11-22T10:00", to_date="2026-11-22", desc=False)
    page = await page_of(svc, "t", query)
    assert [item.id for item in page.items] == ["in range", "last"]


# ---------------------------------------------------------------- keywords


IDS_BY_KEYWORDS = {
    "NEEDLE": ["by id needle", "by name", "by text"],
    "%": ["percent"],
    "_": ["underscore"],
    "\\": ["backslash"],
    "%c": [],
    "n%e": [],
    "数据": ["chinese"],
    "needle  ": [],
    "user": [],
    "secret": [],
}


async def test_keywords_are_a_literal_substring_of_id_name_or_message(svc, subtests):
    def turns_with(text: str) -> list[Turn]:
        message = Message(role="user", content=text, payload={"secret": 1}, reference=["secret"])
        return [Turn(messages=[Message(role="user", content="first"), message])]

    when = MOMENTS[0]
    kept = [
        Kept(id="by id needle", created_at=when),
        Kept(id="by name", created_at=when, name="a Needle in a haystack"),
        Kept(id="by text", created_at=when, turns=turns_with("two nEEdLes")),
        Kept(id="percent", created_at=when, name="100%"),
        Kept(id="underscore", created_at=when, turns=turns_with("snake_case")),
        Kept(id="backslash", created_at=when, turns=turns_with("C:\\")),
        Kept(id="chinese", created_at=when, turns=turns_with("什么是数据库")),
    ]
    await keep(svc, "t", kept)
    everything = " ".join(IDS_BY_KEYWORDS)
    others = [Kept(id=each.id, created_at=when, turns=turns_with(everything)) for each in kept]
    await keep(svc, "another tenant with the same ids", others)
    for keywords, ids in IDS_BY_KEYWORDS.items():
        with subtests.test(keywords):
            page = await page_of(svc, "t", Query(keywords=keywords, desc=False))
            assert [item.id for item in page.items] == ids


@pytest.mark.parametrize(("text", "keywords"), [("Ärger", "ärger"), ("Жук", "ЖУК")])
async def test_keywords_ignore_case_in_an_id_as_in_a_name(svc, text, keywords):
    kept = [Kept(id="name", created_at=MOMENTS[0], name=text), Kept(id=text, created_at=MOMENTS[0])]
    await keep(svc, "t", kept)
    page = await page_of(svc, "t", Query(keywords=keywords))
    assert {item.id for item in page.items} in ({"name", text}, set())  # none in the locale C


async def test_keywords_find_an_id_that_is_not_normalized(svc):
    """Ids are stored without normalization."""
    decomposed = "cafe\u0301"
    await keep(svc, "t", [Kept(id=decomposed, created_at=MOMENTS[0])])
    page = await page_of(svc, "t", Query(keywords=decomposed))
    assert [item.id for item in page.items] == [decomposed]


# ---------------------------------------------------------------- totals and cursors


async def test_a_capped_total_stops_at_ten_thousand(svc):
    kept = [Kept(id=f"{n:05}", created_at=MOMENTS[0]) for n in range(10_001)]
    await keep(svc, "t", kept[:10_000])
    page = await page_of(svc, "t", Query(), total="capped")
    assert (page.total, page.total_capped) == (10_000, False)

    await keep(svc, "t", kept[10_000:])
    page = await page_of(svc, "t", Query(), total="capped", page_number=2)
    assert (page.total, page.total_capped) == (10_000, True)
    page = await page_of(svc, "t", Query(), total="exact", after=page.next)
    assert (page.total, page.total_capped) == (10_001, False)
    page = await page_of(svc, "t", Query(), total="none")
    assert (page.total, page.total_capped, len(page.items)) == (None, False, 30)


OTHER_QUERIES = [
    {"tenant_id": "other"},
    {"dialog_id": "other"},
    {"desc": False},
    {"orderby": "updated_at"},
    {"orderby": "name"},
    {"id": "0"},
    {"user_id": ""},
    {"exp_user_id": "ann"},
    {"keywords": "0"},
    {"from_date": "2026-11-22"},
    {"to_date": "2026-11-22"},
    {"after": "bm8gY3Vyc29y"},
    {"after": "nö"},
    {"after": ""},
    {"after": "x" * 1_025},
]


async def test_a_cursor_is_rejected_with_other_filters_or_another_order(svc, subtests):
    await keep(svc, "t", [Kept(id=str(n), created_at=MOMENTS[0]) for n in range(3)])
    page = await page_of(svc, "t", Query(), items_per_page=1)
    for other in OTHER_QUERIES:
        query = {"tenant_id": "t", "dialog_id": "d", "after": page.next, **other}
        with subtests.test(other):
            with pytest.raises(InvalidInput) as raised:
                await svc.conversations.get_list(**query)
            assert raised.value.field == "after"


async def test_a_cursor_allows_another_page_size_total_and_zone(svc):
    await keep(svc, "t", [Kept(id=str(n), created_at=MOMENTS[0]) for n in range(4)])
    page = await page_of(svc, "t", Query(), items_per_page=1)
    rest = await page_of(
        svc,
        "t",
        Query(tz="Asia/Kathmandu"),
        after=page.next,
        items_per_page=2,
        total="none",
        include_dsl=False,
        include_messages=True,
    )
    assert [item.id for item in rest.items] == ["2", "1"]


async def test_conversations_at_the_ends_of_time_are_rejected_or_paged(svc):
    """An infinite time would break the comparison with a cursor."""
    ends = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
    kept = [Kept(id=f"{n}", created_at=end) for n, end in enumerate(ends * 2)]
    try:
        await keep(svc, "t", kept)
    except InvalidInput:
        return
    for desc in (True, False):
        await assert_pages_agree(svc, "t", kept, Query(desc=desc), 1)


# ---------------------------------------------------------------- rejected arguments


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"page_number": 0}, "page_number"),
        ({"page_number": -1}, "page_number"),
        ({"page_number": 10**12}, "page_number"),
        ({"page_number": "1"}, "page_number"),
        ({"page_number": 2, "after": "x"}, "page_number"),
        ({"items_per_page": 0}, "items_per_page"),
        ({"items_per_page": 1_001}, "items_per_page"),
        ({"orderby": "; drop table"}, "orderby"),
        ({"orderby": "create_time"}, "orderby"),
        ({"total": "about"}, "total"),
        ({"from_date": "2026-11-23", "to_date": "2026-11-22"}, "from_date"),
        ({"from_date": "2026-11-22T10:01", "to_date": "2026-11-22T10:00"}, "from_date"),
        ({"from_date": MOMENTS[0] + MICROSECOND, "to_date": MOMENTS[0]}, "from_date"),
        ({"from_date": without_offset(MOMENTS[0])}, "from_date"),
        ({"to_date": without_offset(MOMENTS[0])}, "to_date"),
        ({"from_date": "20000-01-01"}, "from_date"),
        ({"to_date": "20000-01-01"}, "to_date"),
        ({"to_date": "2026-02-29"}, "to_date"),
        ({"to_date": "2026-11-22T10"}, "to_date"),
        ({"to_date": "2026-11-22T10:00:00.1234567"}, "to_date"),
        ({"to_date": "tomorrow"}, "to_date"),
        ({"to_date": date.max}, "to_date"),
        ({"from_date": date.min, "tz": "Asia/Kathmandu"}, "from_date"),
        ({"from_date": 1}, "from_date"),
        ({"tz": "Europe/Atlantis", "from_date": "2026-11-22"}, "tz"),
        ({"tz": "../../etc/passwd", "from_date": "2026-11-22"}, "tz"),
        ({"tenant_id": ""}, "tenant_id"),
        ({"dialog_id": "d\0"}, "dialog_id"),
    ],
)
async def test_an_invalid_argument_is_rejected_before_any_query(wrong, field):
    svc = AsyncSvc(asyncpg.create_pool())  # never opened
    with pytest.raises(InvalidInput) as raised:
        await svc.conversations.get_list(**{"dialog_id": "d", "tenant_id": "t", **wrong})
    assert raised.value.field == field


async def test_the_last_page_of_the_window_may_be_empty(svc):
    page = await page_of(svc, "t", Query(), page_number=10**6, items_per_page=1_000)
    assert (page.total, page.items, page.next) == (0, [], None)
