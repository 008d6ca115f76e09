"""Examples of `get_list` with expected results written by hand: bounds, keywords, totals, cursors.

`tests/models/test_lists.py` compares generated lists with a model.
"""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from asyncsvc import ANY, AsyncSvc, InvalidInput, NotFound

MICROSECOND = timedelta(microseconds=1)
LORD_HOWE = "Australia/Lord_Howe"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
NAIVE = NOON.replace(tzinfo=None)


async def create(svc, *conversations, tenant_id="t"):
    """Create conversations with defaults for the dialog and the time."""
    rows = [{"dialog_id": "d", "created_at": NOON} | fields for fields in conversations]
    for start in range(0, len(rows), 1_000):
        await svc.conversations.create_many(rows[start : start + 1_000], tenant_id=tenant_id)


async def listed_ids(svc, **query):
    page = await svc.conversations.get_list(**{"tenant_id": "t", "dialog_id": "d"} | query)
    return [item.id for item in page.items]


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
    await create(svc, *({"id": name, "created_at": at} for name, at in instants.items()))
    for orderby in ("created_at", "updated_at"):  # without messages both times are equal
        query = {"tz": tz, "orderby": orderby, "desc": False}
        lower, upper = {"from_date": bound}, {"to_date": bound}
        assert await listed_ids(svc, **query, **lower) == ["first", "last", "after"]
        assert await listed_ids(svc, **query, **upper) == ["before", "first", "last"]
        assert await listed_ids(svc, **query, **lower, **upper) == ["first", "last"]


async def test_a_datetime_is_exact_and_respects_its_fold(svc):
    second = datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    around = {"just before": -MICROSECOND, "then": timedelta(0), "just after": MICROSECOND}
    await create(svc, *({"id": name, "created_at": second + by} for name, by in around.items()))
    local = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
    assert await listed_ids(svc, from_date=local, to_date=local) == ["then"]


async def test_a_lower_bound_may_lie_within_the_day_of_the_upper_bound(svc):
    """The upper bound is the whole day."""
    instants = {
        "before": "2026-11-22T09:59:59Z",
        "in range": "2026-11-22T10:00:00Z",
        "last": "2026-11-22T23:59:59Z",
        "after": "2026-11-23T00:00:00Z",
    }
    for name, at in instants.items():
        await create(svc, {"id": name, "created_at": datetime.fromisoformat(at)})
    query = {"from_date": "2026-11-22T10:00", "to_date": "2026-11-22", "desc": False}
    assert await listed_ids(svc, **query) == ["in range", "last"]


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
    async def say(id, text, tenant_id="t"):
        await create(svc, {"id": id}, tenant_id=tenant_id)
        secret = {"payload": {"secret": 1}, "reference": ["secret"]}
        messages = [{"role": "user", "content": each} | secret for each in ("first", text)]
        await svc.conversations.append_message(id, {"messages": messages}, tenant_id=tenant_id)

    await create(
        svc,
        {"id": "by id needle"},
        {"id": "by name", "name": "a Needle in a haystack"},
        {"id": "percent", "name": "100%"},
    )
    await say("by text", "two nEEdLes")
    await say("underscore", "snake_case")
    await say("backslash", "C:\\")
    await say("chinese", "什么是数据库")
    for id in ("by name", "underscore", "another"):
        await say(id, " ".join(IDS_BY_KEYWORDS), "another tenant")
    for keywords, ids in IDS_BY_KEYWORDS.items():
        with subtests.test(keywords):
            assert await listed_ids(svc, keywords=keywords, desc=False) == ids


@pytest.mark.parametrize(("text", "keywords"), [("Ärger", "ärger"), ("Жук", "ЖУК")])
async def test_keywords_ignore_case_in_an_id_as_in_a_name(svc, text, keywords):
    await create(svc, {"id": "name", "name": text}, {"id": text})
    ids = set(await listed_ids(svc, keywords=keywords))
    assert ids in ({"name", text}, set())  # the locale C has no case of these letters


async def test_keywords_find_an_id_that_is_not_normalized(svc):
    """Ids are stored without normalization."""
    decomposed = "cafe\u0301"
    await create(svc, {"id": decomposed})
    assert await listed_ids(svc, keywords=decomposed) == [decomposed]


# ---------------------------------------------------------------- totals and cursors


async def test_a_capped_total_stops_at_ten_thousand(svc):
    async def page(**query):
        return await svc.conversations.get_list(tenant_id="t", dialog_id="d", **query)

    rows = [{"id": f"{n:05}"} for n in range(10_001)]
    await create(svc, *rows[:10_000])
    capped = await page(total="capped")
    assert (capped.total, capped.total_capped) == (10_000, False)
    await create(svc, *rows[10_000:])
    capped = await page(total="capped", page_number=2)
    assert (capped.total, capped.total_capped) == (10_000, True)
    exact = await page(total="exact", after=capped.next)
    assert (exact.total, exact.total_capped) == (10_001, False)
    uncounted = await page(total="none")
    assert (uncounted.total, uncounted.total_capped, len(uncounted.items)) == (None, False, 30)


OTHER_QUERIES = [
    {"tenant_id": "other"},
    {"dialog_id": "other"},
    {"dialog_id": ANY},
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
    await create(svc, *({"id": str(n)} for n in range(3)))
    page = await svc.conversations.get_list(tenant_id="t", dialog_id="d", items_per_page=1)
    for other in OTHER_QUERIES:
        query = {"tenant_id": "t", "dialog_id": "d", "after": page.next, **other}
        with subtests.test(repr(other)):
            with pytest.raises(InvalidInput) as raised:
                await svc.conversations.get_list(**query)
            assert raised.value.field == "after"


async def test_a_cursor_allows_another_page_size_total_and_zone(svc):
    await create(svc, *({"id": str(n)} for n in range(4)))
    page = await svc.conversations.get_list(tenant_id="t", dialog_id="d", items_per_page=1)
    assert await listed_ids(
        svc,
        tz="Asia/Kathmandu",
        after=page.next,
        items_per_page=2,
        total="none",
        include_dsl=False,
        include_messages=True,
    ) == ["2", "1"]


@pytest.mark.parametrize("year", [1, 9999])
async def test_a_creation_in_the_first_or_last_year_is_rejected(svc, year):
    """An infinite time cannot be compared with the time of a cursor."""
    with pytest.raises(InvalidInput):
        await create(svc, {"id": "a", "created_at": datetime(year, 6, 1, tzinfo=UTC)})


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
        ({"from_date": NOON + MICROSECOND, "to_date": NOON}, "from_date"),
        ({"from_date": NAIVE}, "from_date"),
        ({"to_date": NAIVE}, "to_date"),
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


async def test_the_page_with_the_highest_allowed_number_may_be_empty(svc):
    page = await svc.conversations.get_list(tenant_id="t", page_number=10**6, items_per_page=1_000)
    assert (page.total, page.items, page.next) == (0, [], None)


# ---------------------------------------------------------------- metadata and feedback


async def test_metadata_selects_conversations_with_all_members(svc):
    await create(
        svc,
        {"id": "a", "metadata": {"n": 1, "s": "x", "t": True, "none": None}},
        {"id": "b", "metadata": {"n": 1.0, "deep": {"n": 2}, "tags": ["x"]}},
        {"id": "c", "metadata": {"n": "1", "S": "x"}},
        {"id": "d", "metadata": {}},
        {"id": "e"},
    )
    await create(svc, {"id": "theirs", "metadata": {"n": 1}}, tenant_id="other")
    for metadata, expected in (
        ({"n": 1}, "ab"),
        ({"n": "1"}, "c"),
        ({"s": "x", "n": 1}, "a"),
        ({"s": "x", "n": 2}, ""),
        ({"none": None}, "a"),
        ({"t": True}, "a"),
        ({"t": 1}, ""),
        ({"deep": 2}, ""),
        ({"tags": "x"}, ""),
        ({}, "abcde"),
        (ANY, "abcde"),
    ):
        for orderby in ("created_at", "updated_at", "name"):
            query = {"metadata": metadata, "orderby": orderby, "desc": False}
            assert await listed_ids(svc, **query) == list(expected), query


async def test_metadata_follows_updates_and_deletions(svc):
    await create(svc, {"id": "a", "metadata": {"n": 1}}, {"id": "b", "metadata": {"n": 1}})
    await svc.conversations.update_by_id("a", {"metadata": {"n": 2}}, tenant_id="t")
    await svc.conversations.delete_by_id("b", tenant_id="t")
    assert await listed_ids(svc, metadata={"n": 1}) == []
    assert await listed_ids(svc, metadata={"n": 2}) == ["a"]


@pytest.mark.parametrize(
    "metadata",
    [{"a": []}, {"a": {}}, {f"{n}": n for n in range(65)}, {"a": "x" * 2**16}],
    ids=["list", "object", "many", "long"],
)
async def test_a_filter_on_metadata_has_few_members_without_parts(svc, metadata):
    with pytest.raises(InvalidInput) as caught:
        await listed_ids(svc, metadata=metadata)
    assert caught.value.field == "metadata"


async def test_thumb_selects_conversations_with_such_feedback(svc):
    await create(svc, *({"id": id} for id in ("up", "down", "both", "none", "withdrawn")))
    messages = [{"role": "assistant", "content": "x"}] * 2
    for id, thumbs in {
        "up": [1],
        "down": [-1],
        "both": [1, -1],
        "none": [],
        "withdrawn": [1],
    }.items():
        await svc.conversations.append_message(id, {"messages": messages}, tenant_id="t")
        for seq, thumb in enumerate(thumbs, 1):
            await svc.conversations.set_feedback(id, seq, thumb, tenant_id="t")
    await svc.conversations.set_feedback("withdrawn", 1, None, tenant_id="t")
    for orderby in ("created_at", "updated_at"):
        assert sorted(await listed_ids(svc, thumb=1, orderby=orderby)) == ["both", "up"]
        assert sorted(await listed_ids(svc, thumb=-1, orderby=orderby)) == ["both", "down"]


# ---------------------------------------------------------------- dialogs


@pytest.mark.parametrize("is_maintained", [False, True])
async def test_list_dialogs_counts_the_conversations_of_each_dialog(svc, is_maintained):
    await create(svc, *({"dialog_id": "dde"[n % 3]} for n in range(7)), {"id": "moved"})
    await create(svc, {"dialog_id": "theirs"}, tenant_id="other")
    if is_maintained:
        await svc.maintain()
    await svc.conversations.update_by_id("moved", {"dialog_id": "new"}, tenant_id="t")
    await create(svc, {"dialog_id": "gone", "id": "gone"}, {"dialog_id": "e", "id": "last"})
    await svc.conversations.delete_by_id("gone", tenant_id="t")
    turn = {"messages": [{"role": "user", "content": "x"}]}
    await svc.conversations.append_message("last", turn, tenant_id="t")
    last = await svc.conversations.get_by_id("last", tenant_id="t")
    dialogs = (await svc.conversations.list_dialogs(tenant_id="t")).items
    assert [(each.dialog_id, each.conversations) for each in dialogs] == [
        ("d", 5),
        ("e", 3),
        ("new", 1),
    ]
    assert dialogs[1].updated_at == last.updated_at
    assert (await svc.conversations.list_dialogs(tenant_id="empty")).items == []


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 100])
async def test_pages_of_dialogs_neither_overlap_nor_skip_one(svc, limit):
    ids = ["A", "a", "aa", "b", "z", "ä"]  # in the order of their bytes
    await create(svc, *({"dialog_id": id} for id in ids * 2))
    read, after = [], None
    while True:
        page = await svc.conversations.list_dialogs(tenant_id="t", limit=limit, after=after)
        assert len(page.items) <= limit
        read += [each.dialog_id for each in page.items]
        after = page.next
        if after is None:
            break
    assert read == ids
    with pytest.raises(InvalidInput, match="after"):
        names = await svc.conversations.get_list(tenant_id="t", items_per_page=1)
        await svc.conversations.list_dialogs(tenant_id="t", after=names.next)


# ---------------------------------------------------------------- after an id


@pytest.mark.parametrize("desc", [True, False])
@pytest.mark.parametrize("orderby", ["created_at", "updated_at"])
@pytest.mark.parametrize("keywords", ["", "name"])
async def test_a_list_begins_after_the_conversation_with_an_id(svc, orderby, desc, keywords):
    rows = [
        {"id": id, "name": "name", "created_at": NOON + n // 2 * MICROSECOND}
        for n, id in enumerate("abcdef")
    ]
    await create(
        svc, *rows, {"id": "elsewhere", "dialog_id": "e", "created_at": NOON - MICROSECOND}
    )
    query = {"orderby": orderby, "desc": desc, "keywords": keywords}
    whole = await listed_ids(svc, **query)
    for index, id in enumerate(whole):
        assert await listed_ids(svc, **query, after_id=id) == whole[index + 1 :]
        assert await listed_ids(svc, **query, after_id=id, total="none") == whole[index + 1 :]
    at = {"tenant_id": "t", "dialog_id": "d", "items_per_page": 2} | query
    page = await svc.conversations.get_list(**at, after_id=whole[0])
    assert ([item.id for item in page.items], page.total) == (whole[1:3], 6)
    page = await svc.conversations.get_list(**at, after=page.next)
    assert [item.id for item in page.items] == whole[3:5]
    if orderby == "created_at":
        assert await listed_ids(svc, **query, after_id="elsewhere") == ([] if desc else whole)


@pytest.mark.parametrize("keywords", ["", "name"])
async def test_a_list_after_an_absent_id_is_not_found(svc, keywords):
    await create(svc, {"id": "a"}, {"id": "bobs", "user_id": "bob"})
    await create(svc, {"id": "theirs"}, tenant_id="other")
    for total in ("exact", "none"):
        options = {"keywords": keywords, "total": total}
        for id in ("absent", "theirs"):
            with pytest.raises(NotFound):
                await listed_ids(svc, after_id=id, **options)
        for user_id in ("ann", ""):
            with pytest.raises(NotFound):
                await listed_ids(svc, after_id="bobs", user_id=user_id, **options)
        assert await listed_ids(svc, after_id="bobs", user_id="bob", **options) == []
        assert await listed_ids(svc, after_id="a", **options) == []


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"after_id": "a", "page_number": 2}, "page_number"),
        ({"after_id": "a", "orderby": "name"}, "after_id"),
    ],
)
async def test_after_id_is_not_combined_with_pages_or_other_orders(svc, options, field):
    await create(svc, {"id": "a"}, {"id": "b"})
    with pytest.raises(InvalidInput) as caught:
        await listed_ids(svc, **options)
    assert caught.value.field == field
    page = await svc.conversations.get_list(tenant_id="t", dialog_id="d", items_per_page=1)
    with pytest.raises(InvalidInput, match="after_id"):
        await listed_ids(svc, after=page.next, after_id="a", items_per_page=1)
