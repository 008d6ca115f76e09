"""`get_list` and `search` equal the model with every filter, order, page, cursor and zone.

The conversations are imported, so the tests choose both of their times, which are often equal.
"""

import itertools
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsvc import ANY, AsyncSvc, InvalidInput
from tests.models.clocks import FORMS, MICROSECOND, Bound, format_bound
from tests.models.comparison import CURSOR_ORDERS, assert_pages, differences, profile
from tests.models.conversation_model import SORT_KEYS
from tests.models.model import Model, import_both
from tests.models.state import Row

RARELY = st.integers(0, 9).map(lambda number: number == 9)
ORDERS = list(SORT_KEYS)
ZONES = ("UTC", "Europe/Berlin", "America/Havana", "Australia/Lord_Howe", "Asia/Kathmandu")

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
    "in its middle, far from both ends, this text says Hello World, and its snippet is cut twice",
    "",
)
KEYWORDS = ("h", "HELLO", "world", "ALPHA", "Fox", "100%", "0 P", "_", "%", "\\", "\\%", "%%", "__",
            "a_", "数据库", "会", "line\nsecond", " ", "assistant", "hidden", "absent")  # fmt: skip

# Starts and ends of days, months and daylight saving time in the zones. STEPS adds instants nearby.
MOMENTS = [
    datetime(2024, 2, 29, 0, 0, tzinfo=UTC),
    datetime(2026, 3, 8, 5, 0, tzinfo=UTC),  # Havana skips midnight
    datetime(2026, 3, 29, 1, 0, tzinfo=UTC),  # Berlin skips 02:00
    datetime(2026, 4, 4, 15, 0, tzinfo=UTC),  # Lord Howe has 01:30 twice
    datetime(2026, 10, 25, 0, 0, tzinfo=UTC),  # the first 02:00 in Berlin
    datetime(2026, 10, 25, 1, 0, tzinfo=UTC),  # the second 02:00 in Berlin
    datetime(2026, 11, 1, 4, 0, tzinfo=UTC),  # the first midnight in Havana
    datetime(2026, 11, 1, 5, 0, tzinfo=UTC),  # the second midnight in Havana
    datetime(2026, 11, 21, 18, 15, tzinfo=UTC),  # midnight in Kathmandu
    datetime(2026, 11, 22, 10, 0, tzinfo=UTC),
]
SECONDS = (0, 0.000001, 0.001, 1, 59.999999, 30 * 60, 60 * 60, 23 * 60 * 60)
STEPS = sorted({timedelta(seconds=sign * each) for each in SECONDS for sign in (1, -1)})


# ---------------------------------------------------------------- generated data


def mostly_none(values: Iterable[object]) -> st.SearchStrategy:
    return st.none() | st.none() | st.sampled_from(list(values))


def mostly_any(values: Iterable[object]) -> st.SearchStrategy:
    return st.just(ANY) | st.just(ANY) | st.sampled_from(list(values))


INSTANTS = st.builds(lambda moment, step: moment + step, st.sampled_from(MOMENTS),
                     st.sampled_from(STEPS))  # fmt: skip
MESSAGES = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant"]),
        "content": st.sampled_from(TEXTS),
        "payload": st.just({"hidden": "hidden"}),
        "reference": st.just(["hidden"]),
        "thumb": st.sampled_from([None, 1, -1]),
        "created_at": st.just(MOMENTS[0]),
    }
)
RECORDS = st.fixed_dictionaries(
    {
        "id": st.text("aAbZ1%_\\会", min_size=1, max_size=2),
        "created_at": INSTANTS,
        "updated_at": INSTANTS,
        "dialog_id": st.sampled_from("de"),
        "user_id": st.sampled_from(["", "ann", "bob"]),
        "exp_user_id": st.sampled_from([None, "ann", "eve"]),
        "name": st.sampled_from([None, *NAMES]),
        "source": st.sampled_from([None, "web"]),
        "metadata": st.sampled_from([None, {}, {"a": 1}, {"a": 1, "b": None}, {"a": {"b": 1}}]),
        "dsl": st.sampled_from([None, {"graph": [1, None, "%"]}]),
        "messages": st.lists(MESSAGES, max_size=4),
        "tokens": st.integers(0, 2),
        "duration": st.sampled_from([0.0, 0.000001, 0.1, 0.2, 1.5]),
        "round": st.integers(0, 2),
    }
)
TENANTS = st.lists(
    st.lists(RECORDS, min_size=12, max_size=30, unique_by=lambda each: each["id"]),
    min_size=2,
    max_size=2,
)
PAGE_SIZES = st.integers(1, 9)
SEARCHES = st.fixed_dictionaries(
    {
        "keywords": st.sampled_from(KEYWORDS),
        "dialog_id": st.sampled_from([ANY, ANY, "d", "D"]),
        "user_id": st.sampled_from([ANY, ANY, "", "ann"]),
    }
)


@st.composite
def queries(draw: st.DrawFn, records: Sequence[Row]) -> Row:
    """Draw filters and an order, with bounds near the times of these conversations."""
    tz, orderby = draw(st.sampled_from(ZONES)), draw(st.sampled_from(ORDERS))
    from_date, to_date = draw(bounds(times(records, orderby), tz))
    return {
        "dialog_id": draw(st.sampled_from([ANY, ANY, "d", "d", "e", "D"])),
        "orderby": orderby,
        "desc": draw(st.booleans()),
        "id": draw(mostly_any([*(each["id"] for each in records), "absent"])),
        "user_id": draw(mostly_any(["", "ann", "bob", "ANN"])),
        "exp_user_id": draw(mostly_any(["ann", "eve", "absent"])),
        "thumb": draw(mostly_any([1, -1])),
        "metadata": draw(mostly_any([{}, {"a": 1}, {"b": None}, {"a": 1, "b": None}])),
        "keywords": draw(mostly_none(KEYWORDS)) or "",
        "from_date": from_date,
        "to_date": to_date,
        "tz": tz,
        "include_dsl": draw(st.booleans()),
        "include_messages": draw(st.booleans()),
    }


@st.composite
def bounds(draw: st.DrawFn, near: Sequence[datetime], tz: str) -> tuple[Bound | None, Bound | None]:
    """Draw two bounds in any form, in most cases in the right order."""
    instants = [draw(st.sampled_from(near)) + draw(st.sampled_from(STEPS)) for _ in range(2)]
    instants.sort(reverse=draw(RARELY))
    forms = [draw(mostly_none(FORMS)) for _ in instants]
    lower, upper = (
        format_bound(form, instant, tz) if form else None
        for form, instant in zip(forms, instants, strict=True)
    )
    return lower, upper


def times(records: Sequence[Row], orderby: str) -> list[datetime]:
    """Return the times to which from_date and to_date apply in this order."""
    return sorted(
        each["updated_at" if orderby == "updated_at" else "created_at"] for each in records
    )


_numbers = itertools.count(1)


async def store(svc: AsyncSvc, tenants: Sequence[Sequence[Row]]) -> tuple[Model, dict[str, Any]]:
    """Import conversations into new tenants. Maintenance runs after the first half of them."""
    number, model = next(_numbers), Model()
    records_of = {f"{number} {index}": records for index, records in enumerate(tenants)}
    for part in (slice(0, None, 2), slice(1, None, 2)):
        for tenant_id, records in records_of.items():
            await import_both(svc, model, tenant_id, records[part])
        if part.start == 0:
            await svc.maintain()
    return model, records_of


async def assert_list(
    svc: AsyncSvc, model: Model, tenant_id: str, size: int, *, total: str = "exact", **query: Any
) -> None:
    """Compare all pages of a list, by number and by cursor, with the model."""
    await assert_pages(
        lambda **page: svc.conversations.get_list(
            tenant_id=tenant_id, items_per_page=size, total=total, **query, **page
        ),
        model.conversations.get_list(tenant_id=tenant_id, **query),
        size=size,
        has_total=total != "none",
        has_cursors=query.get("orderby", "created_at") in CURSOR_ORDERS,
    )


async def assert_search(
    svc: AsyncSvc, model: Model, tenant_id: str, size: int, **query: Any
) -> None:
    """Compare all pages of a search with the model."""
    await assert_pages(
        lambda **page: svc.conversations.search(
            tenant_id=tenant_id, limit=size, total="exact", **query, **page
        ),
        model.conversations.search(tenant_id=tenant_id, **query),
        size=size,
        has_numbers=False,
    )


@st.composite
def cases(draw: st.DrawFn) -> list[tuple[list[Row], list[tuple], list[tuple]]]:
    """Draw two tenants, each with conversations, searches, queries and page sizes."""
    totals = st.sampled_from(["exact", "capped", "none"])
    return [
        (
            records,
            [(draw(SEARCHES), draw(PAGE_SIZES)) for _ in range(2)],
            [(draw(queries(records)), draw(st.integers(1, 31)), draw(totals)) for _ in range(4)],
        )
        for records in draw(TENANTS)
    ]


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@profile(25)
@given(tenants=cases())
async def test_any_list_and_search_of_any_conversations_equals_the_model(svc, tenants):
    model, tenant_ids = await store(svc, [records for records, _, _ in tenants])
    for tenant_id, (_, searches, lists) in zip(tenant_ids, tenants, strict=True):
        for query, size in searches:
            await assert_search(svc, model, tenant_id, size, **query)
        for query, size, total in lists:
            try:
                model.conversations.get_list(tenant_id=tenant_id, **query)
            except InvalidInput:
                with pytest.raises(InvalidInput, match="from_date"):
                    await svc.conversations.get_list(tenant_id=tenant_id, **query)
                continue
            for page_size in (1_000, size):
                await assert_list(svc, model, tenant_id, page_size, total=total, **query)


# ---------------------------------------------------------------- one fixed data set


@pytest.fixture
def records() -> list[Row]:
    """24 conversations with many ties. A filter matches about every second conversation."""
    return [
        {
            "id": f"{'aB'[n % 2]}{n:02}",
            "dialog_id": "dde"[n // 2 % 3],
            "created_at": MOMENTS[n % 3],
            "updated_at": MOMENTS[5 + n // 3 % 3],
            "user_id": ["", "ann"][n % 2],
            "exp_user_id": [None, "eve"][n // 2 % 2],
            "name": [None, *NAMES][n % 9],
            "metadata": [{"a": 1, "n": n}, {"a": 2}, None][n // 2 % 3],
            "tokens": n % 3,
            "duration": n % 2,
            "round": n % 4,
            "messages": [{"role": "user", "content": TEXTS[n % 8], "thumb": [1, -1][n % 2]}]
            if n % 3
            else [],
        }
        for n in range(24)
    ]


@pytest.mark.parametrize("orderby", ORDERS)
async def test_every_combination_of_filters_in_every_order_equals_the_model(svc, records, orderby):
    model, (tenant_id,) = await store(svc, [records])
    target = records[7]  # it has {"a": 1} and -1
    first, *_, last = times(records, orderby)
    filters = {
        "dialog_id": target["dialog_id"],
        "id": target["id"],
        "user_id": target["user_id"],
        "exp_user_id": target["exp_user_id"],
        "labels": {"thumb": -1, "metadata": {"a": 1}},
        "keywords": target["id"][0].lower(),
        "from_date": first + MICROSECOND,
        "to_date": last - MICROSECOND,
    }
    for names in powerset(filters):
        for desc in (True, False):
            query = {name: filters[name] for name in names} | {"orderby": orderby, "desc": desc}
            if "labels" in query:
                query |= query.pop("labels")
            expected = model.conversations.get_list(tenant_id=tenant_id, **query)
            page = await svc.conversations.get_list(tenant_id=tenant_id, **query)
            assert differences(expected, page.items) == [], query
            assert page.total == len(expected), query


def powerset(names: Iterable[str]) -> Iterable[tuple[str, ...]]:
    names = tuple(names)
    return itertools.chain.from_iterable(
        itertools.combinations(names, count) for count in range(len(names) + 1)
    )


@pytest.mark.parametrize("dialog_id", [ANY, "d"], ids=str)
async def test_pages_of_every_size_in_every_order_equal_the_model(svc, records, dialog_id):
    model, (tenant_id,) = await store(svc, [records])
    matching = len(model.conversations.get_list(tenant_id=tenant_id, dialog_id=dialog_id))
    sizes = (1, 2, 5, matching // 2, matching - 1, matching, matching + 1)
    for orderby, size, desc in itertools.product(ORDERS, sizes, (True, False)):
        query = {"orderby": orderby, "desc": desc, "dialog_id": dialog_id}
        await assert_list(svc, model, tenant_id, size, **query)


async def test_ties_are_broken_by_id_even_without_an_index(dsn, records):
    names = ("enable_indexscan", "enable_indexonlyscan", "enable_bitmapscan")
    async with asyncpg.create_pool(dsn, server_settings=dict.fromkeys(names, "off")) as pool:
        svc = AsyncSvc(pool)
        model, (tenant_id,) = await store(svc, [records])
        for orderby, desc, dialog_id in itertools.product(ORDERS, (True, False), (ANY, "d")):
            query = {"orderby": orderby, "desc": desc, "dialog_id": dialog_id}
            await assert_list(svc, model, tenant_id, 7, **query)


@pytest.mark.parametrize("tz", ZONES)
async def test_bounds_in_every_form_equal_the_model(svc, tz):
    """Instants at and around each moment, in each form, as lower and as upper bound."""
    instants = sorted({moment + step for moment in MOMENTS for step in STEPS})
    records = [
        {"id": f"{n:04}", "dialog_id": "d", "messages": [], "created_at": instant}
        for n, instant in enumerate(instants)
    ]
    model, (tenant_id,) = await store(svc, [records])
    steps = (timedelta(0), -MICROSECOND, timedelta(minutes=30))
    for form, moment, step in itertools.product(FORMS, MOMENTS, steps):
        bound = format_bound(form, moment + step, tz)
        query = {"from_date": bound, "to_date": bound, "tz": tz, "tenant_id": tenant_id}
        page = await svc.conversations.get_list(**query, items_per_page=1)
        expected = model.conversations.get_list(**query)
        assert page.total == len(expected), query
        assert differences(expected[:1], page.items) == [], query
