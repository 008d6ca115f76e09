"""Searches and lists by keywords return the same conversations as a plain search in Python.

The plain search reads all texts, in lower case of the database, and compares them with `in`.
"""

import asyncio
import itertools
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

import asyncsvc
from asyncsvc import ANY, InvalidInput, Settings
from asyncsvc.operations import search_index
from asyncsvc.services import search as search_module
from tests.support.registry.counting import until_blocked

SCRIPTS = (
    "abcde  etaoin srh",
    "ABC xyz 012 ,.!?",
    "éüñßÅçøÉÜÑ",
    "的一是不了人我在有他这中大来上国",
    "слово Дом ΑΣσς",
    "ＡｂＣ　日本語カナ",
    "🔥👍😀👩‍👩‍👧‍👦🏳️‍🌈",
    "%_\\%%__\\\\'\"",
    "\x01\x02\x03\n\t\x7f\x1f ",
)
DIALOGS = ("d", "e")
USERS = ("", "ann", "bob")
BEGIN = datetime(2026, 11, 22, tzinfo=UTC)
# Equal instants, neighbours, other weeks and years, and the first and last allowed year.
MOMENTS = [BEGIN - timedelta(days=days) for days in (0, 0, 0, 1, 6, 7, 8, 20, 100, 400, 5_000)]
MOMENTS += [datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC)]
SCAN_SIZES = [(1, 1), (3, 40), (100, 1_000)]
"""Sizes of the first and the largest scan. With the smallest sizes the index finds the matches."""


@pytest.fixture(params=SCAN_SIZES, ids=lambda sizes: f"scan {sizes[0]}")
def scan_sizes(request, monkeypatch):
    monkeypatch.setattr(search_module, "_FIRST_SCAN", request.param[0])
    monkeypatch.setattr(search_module, "_MAX_SCAN", request.param[1])


def some_text(rng: random.Random) -> str:
    parts = []
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
        script = rng.choice(SCRIPTS)
        parts.append("".join(rng.choice(script) for _ in range(rng.randint(1, 12))))
    return "".join(parts)


def messages(rng: random.Random, count: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": some_text(rng)} for _ in range(count)]


@dataclass(frozen=True)
class Stored:
    """A stored conversation, with its texts in lower case of the database."""

    id: str
    lower_id: str
    lower_name: str | None
    dialog_id: str
    user_id: str
    created_at: datetime
    updated_at: datetime
    tokens: int
    texts: dict[int, str]

    def first_seq(self, keywords: str) -> int | None:
        """Return the seq of the first message that contains these lower-case keywords."""
        return next((seq for seq, text in sorted(self.texts.items()) if keywords in text), None)


async def all_stored(pool, tenant_id: str) -> list[Stored]:
    """Return all conversations, newest first."""
    rows = await pool.fetch(
        'SELECT id, asyncsvc.lower_v1(id COLLATE "default") AS lower_id,'
        " asyncsvc.lower_v1(name) AS lower_name, dialog_id,"
        " user_id, created_at, updated_at, tokens,"
        " ARRAY(SELECT seq FROM asyncsvc.message AS m WHERE m.tenant_id = c.tenant_id"
        "        AND m.conversation_id = c.id ORDER BY seq) AS seqs,"
        " ARRAY(SELECT asyncsvc.lower_v1(content) FROM asyncsvc.message AS m"
        "        WHERE m.tenant_id = c.tenant_id"
        "        AND m.conversation_id = c.id ORDER BY seq) AS texts"
        "  FROM asyncsvc.conversation AS c WHERE tenant_id = $1",
        tenant_id,
    )
    stored = [
        Stored(
            **{name: value for name, value in row.items() if name != "seqs"}
            | {"texts": dict(zip(row["seqs"], row["texts"], strict=True))}
        )
        for row in rows
    ]
    return sorted(stored, key=lambda each: (each.created_at, each.id.encode()), reverse=True)


async def lower(pool, text: str) -> str:
    return await pool.fetchval("SELECT asyncsvc.lower_v1($1::text)", text)


async def all_hits(
    svc, tenant_id: str, keywords: str, size: int, **filters
) -> list[tuple[str, int]]:
    """Return the hits of all pages; check sizes, cursors and the total."""
    hits, after = [], None
    while True:
        page = await svc.conversations.search(
            tenant_id=tenant_id,
            keywords=keywords,
            limit=size,
            after=after,
            total="exact",
            **filters,
        )
        assert len(page.items) == size or page.next is None
        hits += [(hit.id, hit.seq) for hit in page.items]
        after = page.next
        if after is None:
            assert page.total == len(hits)
            return hits


async def assert_same_hits(svc, pool, tenant_id: str, keywords: str, size: int, **filters) -> int:
    """Compare a search with a plain search; return the number of hits."""
    lower_keywords = await lower(pool, keywords)
    expected = [
        (each.id, seq)
        for each in await all_stored(pool, tenant_id)
        if filters.get("dialog_id", ANY) in {ANY, each.dialog_id}
        and filters.get("user_id", ANY) in {ANY, each.user_id}
        and (seq := each.first_seq(lower_keywords)) is not None
    ]
    assert await all_hits(svc, tenant_id, keywords, size, **filters) == expected, keywords
    return len(expected)


def part_of(rng: random.Random, text: str) -> str:
    """Return a substring of the text, sometimes in another case or with an additional character."""
    begin = rng.randrange(len(text))
    part = text[begin : begin + rng.choice((1, 1, 2, 2, 3, 4, 7, 15))]
    kind = rng.random()
    if kind < 0.3:
        return part.swapcase() or part
    if kind < 0.4:
        return part + rng.choice("zé的\x01")
    return part


async def fill(svc, rng: random.Random, tenant_id: str, count: int, begin: int = 0) -> None:
    """Import conversations with up to 3 messages, some with a name."""
    await svc.conversations.import_(
        [
            {
                "id": f"{rng.choice('aB会é')}{number:03}",
                "dialog_id": rng.choice(DIALOGS),
                "user_id": rng.choice(USERS),
                "name": rng.choice([None, some_text(rng)]),
                "tokens": rng.randint(0, 3),
                "created_at": rng.choice(MOMENTS),
                "messages": messages(rng, rng.randint(0, 3)),
            }
            for number in range(begin, begin + count)
        ],
        tenant_id=tenant_id,
    )


AT = {"tenant_id": "t"}
OTHER = {"d": "e", "e": "d"}


async def append(conversations, each, rng):
    await conversations.append_message(each.id, {"messages": messages(rng, 2)}, **AT)


async def edit(conversations, each, rng):
    await conversations.update_message(each.id, min(each.texts), {"content": some_text(rng)}, **AT)


async def shorten(conversations, each, rng):
    kind = rng.randrange(3)
    if kind == 0:
        await conversations.delete_message(each.id, min(each.texts), **AT)
    elif kind == 1:
        await conversations.pop_message(each.id, **AT)
    else:
        await conversations.clear_messages(each.id, **AT)


async def set_feedback(conversations, each, rng):
    await conversations.set_feedback(each.id, min(each.texts), rng.choice((1, -1)), **AT)


async def rename(conversations, each, rng):
    await conversations.update_by_id(each.id, {"name": some_text(rng)}, **AT)


async def move(conversations, each, rng):
    await conversations.update_by_id(each.id, {"dialog_id": OTHER[each.dialog_id]}, **AT)


async def delete(conversations, each, rng):
    await conversations.delete_by_id(each.id, **AT)


async def keep(conversations, each, rng):
    pass


CHANGES = [append, edit, edit, shorten, set_feedback, rename, move, move, delete, keep, keep, keep]


async def change(svc, pool, rng: random.Random) -> None:
    """Change each conversation in a random way, or not at all."""
    for each in await all_stored(pool, "t"):
        await rng.choice(CHANGES if each.texts else [append])(svc.conversations, each, rng)


async def fill_tenant(svc, pool, seed: int) -> random.Random:
    """Fill tenant "t" with texts that are indexed or not, and changed before or after indexing."""
    rng = random.Random(seed)
    await fill(svc, rng, "t", 60)
    await fill(svc, rng, "another", 20)
    await svc.maintain()
    await change(svc, pool, rng)
    await fill(svc, rng, "t", 30, begin=100)
    if seed % 2:
        await svc.maintain()
        await change(svc, pool, rng)
    return rng


async def texts(pool) -> list[str]:
    return [
        row["content"]
        for row in await pool.fetch("SELECT content FROM asyncsvc.message WHERE content <> ''")
    ]


# ---------------------------------------------------------------- search


@pytest.mark.parametrize("seed", range(4))
async def test_any_substring_returns_the_hits_of_a_plain_search(svc, pool, scan_sizes, seed):
    rng = await fill_tenant(svc, pool, seed)
    contents = await texts(pool)
    hits = 0
    for _ in range(60):
        keywords = part_of(rng, rng.choice(contents))
        filters = {
            "dialog_id": rng.choice([ANY, ANY, *DIALOGS]),
            "user_id": rng.choice([ANY, ANY, *USERS]),
        }
        size = rng.choice((1, 2, 5, 100))
        hits += await assert_same_hits(svc, pool, "t", keywords, size, **filters)
    assert hits > 100


async def test_each_single_character_returns_the_hits_of_a_plain_search(svc, pool, scan_sizes):
    await fill_tenant(svc, pool, 7)
    for character in sorted(set("".join(await texts(pool)))):
        await assert_same_hits(svc, pool, "t", character, 1_000)


@pytest.mark.parametrize(
    "keywords",
    [
        "\x01",
        "\x02",
        "a\x01b",
        "\x01b",
        "b\x02",
        "c\x02\x01d",
        "\x01\x01",
        "ab",
        "的\x01",
        "x\x01的",
    ],
)
async def test_the_control_characters_of_the_index_are_literal(svc, pool, scan_sizes, keywords):
    contents = [
        "a\x01b",
        "ab",
        "c\x02\x01d",
        "的\x01x\x01的x",
        "\x01\x01",
        "b\x02",
        "a b",
        "ba\x01",
    ]
    for times in range(2):
        for number, content in enumerate(contents):
            record = {"id": f"{times}{number}", "dialog_id": "d"}
            record["messages"] = [{"role": "user", "content": content}]
            await svc.conversations.import_([record], tenant_id="t")
        if not times:
            await svc.maintain()
    await assert_same_hits(svc, pool, "t", keywords, 3)


async def test_a_keyword_is_normalized_like_a_message(svc):
    await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
    turn = {"messages": [{"role": "user", "content": "cafe\N{COMBINING ACUTE ACCENT} au lait"}]}
    await svc.conversations.append_message("a", turn, tenant_id="t")
    for keywords in ("CAFÉ", "cafe\N{COMBINING ACUTE ACCENT}", "é a"):
        (hit,) = (await svc.conversations.search(tenant_id="t", keywords=keywords)).items
        assert hit.snippet == "café au lait"


async def test_a_hit_has_the_first_message_and_a_snippet(svc):
    created = await svc.conversations.create(tenant_id="t", dialog_id="d", id="a", name="n")
    contents = ["nothing", f"{'x' * 100}Needle{'y' * 100}", "needle again"]
    turn = {"messages": [{"role": "user", "content": content} for content in contents]}
    await svc.conversations.append_message("a", turn, tenant_id="t")
    for _ in range(2):
        (hit,) = (await svc.conversations.search(tenant_id="t", keywords="NEEDLE")).items
        assert (hit.id, hit.dialog_id, hit.name, hit.seq) == ("a", "d", "n", 2)
        assert hit.created_at == created.created_at
        assert hit.snippet == f"{'x' * 40}Needle{'y' * 40}"
        await svc.maintain()


async def test_the_latest_append_is_found(svc, scan_sizes):
    at = {"tenant_id": "t"}
    for number in range(5):
        await svc.conversations.create(dialog_id="d", id=str(number), **at)
        for word in ("first", "second"):
            turn = {"messages": [{"role": "user", "content": f"{word}{number}"}]}
            await svc.conversations.append_message(str(number), turn, **at)
            (hit,) = (
                await svc.conversations.search(tenant_id="t", keywords=f"{word.upper()}{number}")
            ).items
            assert hit.id == str(number)
        await svc.maintain()


async def test_a_cursor_is_rejected_with_other_filters(svc):
    await fill(svc, random.Random(1), "t", 30)
    for number in range(3):
        await svc.conversations.create(tenant_id="t", dialog_id="d", id=f"w{number}")
        turn = {"messages": [{"role": "user", "content": "word"}]}
        await svc.conversations.append_message(f"w{number}", turn, tenant_id="t")
    after = (await svc.conversations.search(tenant_id="t", keywords="word", limit=2)).next
    assert (
        len(
            (
                await svc.conversations.search(tenant_id="t", keywords="word", limit=9, after=after)
            ).items
        )
        == 1
    )
    for others in ({"dialog_id": "d"}, {"user_id": ""}):
        with pytest.raises(InvalidInput, match="after"):
            await svc.conversations.search(tenant_id="t", keywords="word", after=after, **others)
    for tenant_id, keywords in (("t", "wor"), ("u", "word")):
        with pytest.raises(InvalidInput, match="after"):
            await svc.conversations.search(tenant_id=tenant_id, keywords=keywords, after=after)
    with pytest.raises(InvalidInput, match="after"):
        await svc.conversations.get_list(dialog_id="d", tenant_id="t", keywords="word", after=after)
    with pytest.raises(InvalidInput, match="keywords"):
        await svc.conversations.search(tenant_id="t", keywords="")


@pytest.mark.damages  # the inserts bypass the library, so the usage does not count them
async def test_a_total_is_exact_capped_or_none(svc, pool):
    await pool.execute(
        "INSERT INTO asyncsvc.conversation (tenant_id, id, dialog_id, last_seq, created_at,"
        " updated_at) SELECT 't', 'c' || n, 'd', 1, now() - n * interval '1 hour', now()"
        " FROM generate_series(1, 10500) AS n"
    )
    await pool.execute(
        "INSERT INTO asyncsvc.conversation_title (tenant_id, conversation_id, dialog_id,"
        " conversation_created_at) SELECT tenant_id, id, dialog_id, created_at"
        " FROM asyncsvc.conversation"
    )
    await pool.execute(
        "INSERT INTO asyncsvc.message (tenant_id, conversation_id, seq, role, content, payload,"
        " created_at, dialog_id, conversation_created_at) SELECT tenant_id, id, 1, 'user', 'word',"
        " '{}', created_at, dialog_id, created_at FROM asyncsvc.conversation"
    )
    for _ in range(2):
        totals = [
            (page.total, page.total_capped)
            for total in ("exact", "capped", "none")
            for page in [
                await svc.conversations.search(tenant_id="t", keywords="word", total=total)
            ]
        ]
        assert totals == [(10_500, False), (10_000, True), (None, False)]
        page = await svc.conversations.get_list(
            dialog_id="d", tenant_id="t", keywords="WORD", total="capped"
        )
        assert (page.total, page.total_capped, len(page.items)) == (10_000, True, 30)
        await svc.maintain()


@pytest.mark.parametrize("is_indexed", [True, False])
async def test_a_search_is_complete_with_row_level_security_and_without_the_index(
    dsn, svc, pool, scan_sizes, is_indexed
):
    rng = await fill_tenant(svc, pool, 2)
    if is_indexed:
        await svc.maintain()
    contents = await texts(pool)
    async with asyncsvc.connect(dsn, settings=Settings(row_level_security=True)) as restricted:
        for _ in range(20):
            keywords = part_of(rng, rng.choice(contents))
            await assert_same_hits(restricted, pool, "t", keywords, 1_000)
    for index in ("message_search_idx", "conversation_title_search_idx"):
        await pool.execute(f"DROP INDEX asyncsvc.{index}")
    for _ in range(20):
        await assert_same_hits(svc, pool, "t", part_of(rng, rng.choice(contents)), 4)
    await svc.maintain()


# ---------------------------------------------------------------- lists


ORDERS = {
    "created_at": lambda each: each.created_at,
    "updated_at": lambda each: each.updated_at,
    "tokens": lambda each: each.tokens,
}


@pytest.mark.parametrize("seed", range(2))
async def test_a_list_by_keywords_equals_that_of_a_plain_search(svc, pool, scan_sizes, seed):
    rng = await fill_tenant(svc, pool, seed)
    contents = await texts(pool)
    names = [name for each in await all_stored(pool, "t") if (name := each.lower_name)]
    ids = [each.id for each in await all_stored(pool, "t")]
    for _ in range(40):
        keywords = part_of(rng, rng.choice(rng.choice([contents, contents, names, ids])))
        orderby, desc = rng.choice(list(ORDERS)), rng.random() < 1 / 2
        dialog_id, user_id = rng.choice(DIALOGS), rng.choice([ANY, ANY, *USERS])
        filters = {
            "user_id": user_id,
            "orderby": orderby,
            "desc": desc,
            "total": rng.choice(["exact", "capped", "none"]),
            "items_per_page": rng.choice((1, 3, 100)),
        }
        await assert_same_list(svc, pool, keywords, dialog_id, filters)


async def assert_same_list(svc, pool, keywords, dialog_id, filters) -> None:
    lower_keywords = await lower(pool, keywords)
    key = ORDERS[filters["orderby"]]
    expected = sorted(
        (
            each
            for each in await all_stored(pool, "t")
            if each.dialog_id == dialog_id
            and filters["user_id"] in {ANY, each.user_id}
            and (
                lower_keywords in each.lower_id
                or (each.lower_name is not None and lower_keywords in each.lower_name)
                or each.first_seq(lower_keywords) is not None
            )
        ),
        key=lambda each: (key(each), each.id.encode()),
        reverse=filters["desc"],
    )
    ids = [each.id for each in expected]
    by_number, by_cursor, after = [], [], None
    for number in itertools.count(1):
        page = await svc.conversations.get_list(
            dialog_id=dialog_id, tenant_id="t", page_number=number, keywords=keywords, **filters
        )
        assert page.total == (None if filters["total"] == "none" else len(ids))
        by_number += [item.id for item in page.items]
        if not page.items:
            break
    assert by_number == ids, (keywords, filters)
    while filters["orderby"] != "tokens":
        page = await svc.conversations.get_list(
            dialog_id=dialog_id, tenant_id="t", keywords=keywords, after=after, **filters
        )
        by_cursor += [item.id for item in page.items]
        after = page.next
        if after is None:
            assert by_cursor == ids, (keywords, filters)
            break


@pytest.mark.parametrize("orderby", ["created_at", "updated_at"])
async def test_a_list_by_a_frequent_keyword_is_scanned(dsn, svc, orderby):
    for number in range(40):
        await svc.conversations.create(tenant_id="t", dialog_id="d", id=f"{number}", name="word")
    ran = []
    watched = Settings(on_query=lambda name, *_: ran.append(name))
    async with asyncsvc.connect(dsn, settings=watched) as watching:
        page = await watching.conversations.get_list(
            dialog_id="d", tenant_id="t", keywords="word", orderby=orderby, total="none"
        )
    assert len(page.items) == 30
    assert ran == ["search/scan", "conversation/get_by_ids"]


async def test_ids_are_searched_without_normalization(svc, scan_sizes):
    odd = "cafe\N{COMBINING ACUTE ACCENT}"
    for id in ("a", odd, "b"):
        await svc.conversations.create(
            tenant_id="t", dialog_id="d", id=id, name="CAFÉ" * (id == "b")
        )
    for _ in range(2):
        for keywords, ids in ((odd, [odd, "b"]), ("café", ["b"]), ("CAFE", [odd])):
            page = await svc.conversations.get_list(dialog_id="d", tenant_id="t", keywords=keywords)
            assert sorted(item.id for item in page.items) == sorted(ids), keywords
        await svc.maintain()


# ---------------------------------------------------------------- maintenance of the index


async def unindexed(pool) -> int:
    return await pool.fetchval(
        "SELECT (SELECT count(*) FROM asyncsvc.message WHERE NOT is_indexed)"
        "     + (SELECT count(*) FROM asyncsvc.conversation_title WHERE NOT is_indexed)"
    )


async def pending_pages(pool) -> int:
    """Flush the pending lists of both indexes; return the number of their pages."""
    return await pool.fetchval(
        "SELECT gin_clean_pending_list('asyncsvc.message_search_idx')"
        "     + gin_clean_pending_list('asyncsvc.conversation_title_search_idx')"
    )


@pytest.mark.parametrize("batch", [1, 7, 2_000])
async def test_maintenance_indexes_all_texts_and_flushes_the_pending_lists(
    svc, pool, monkeypatch, batch
):
    monkeypatch.setattr(search_index, "_BATCH_SIZE", batch)
    monkeypatch.setattr(search_index, "_FLUSH_THRESHOLD", 3 * batch)
    await fill_tenant(svc, pool, 0)
    await pool.execute("ALTER TABLE asyncsvc.message SET (autovacuum_enabled = off)")
    left = await unindexed(pool)
    assert left > 100
    seen = []
    report = await svc.maintain(on_batch=seen.append)
    assert report.messages + report.titles == left
    assert seen[-1] == report
    assert (await unindexed(pool), await pending_pages(pool)) == (0, 0)
    again = await svc.maintain()
    assert (again.messages, again.titles) == (0, 0)


async def test_a_batch_of_long_messages_is_small(svc, pool, monkeypatch):
    monkeypatch.setattr(search_index, "_BATCH_BYTES", 10_000)
    messages = [{"role": "user", "content": f"{number} " + "x" * 4_000} for number in range(7)]
    record = {"id": "a", "dialog_id": "d", "messages": messages}
    await svc.conversations.import_([record], tenant_id="t")
    seen = []
    await svc.maintain(on_batch=lambda report: seen.append(report.messages))
    assert [indexed for indexed in seen if indexed][:3] == [3, 6, 7]


async def test_only_maintenance_writes_to_the_index(svc, pool):
    rng = await fill_tenant(svc, pool, 0)
    await svc.maintain()
    await change(svc, pool, rng)
    await fill(svc, rng, "t", 10, begin=200)
    assert await unindexed(pool) > 10
    assert await pending_pages(pool) == 0


async def test_indexing_waits_for_no_lock(svc, pool):
    await fill_tenant(svc, pool, 0)
    async with pool.acquire() as connection, connection.transaction():
        held = await connection.fetch(
            "SELECT seq FROM asyncsvc.message"
            " WHERE tenant_id = 't' AND NOT is_indexed LIMIT 5 FOR UPDATE"
        )
        async with asyncio.timeout(20):
            await svc.maintain()
        assert await unindexed(pool) == len(held) == 5
    await svc.maintain()
    assert await unindexed(pool) == 0


async def test_interrupted_indexing_continues_in_the_next_run(svc, pool, monkeypatch):
    monkeypatch.setattr(search_index, "_BATCH_SIZE", 5)
    await pool.execute("ALTER TABLE asyncsvc.message SET (autovacuum_enabled = off)")
    await fill_tenant(svc, pool, 0)
    left = await unindexed(pool)

    def interrupt(report):
        if report.messages >= 20:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await svc.maintain(on_batch=interrupt)
    assert await unindexed(pool) == left - 20
    assert (await svc.maintain()).messages > 20
    assert (await unindexed(pool), await pending_pages(pool)) == (0, 0)


async def test_only_the_owner_runs_maintenance(dsn, svc, pool):
    name = dsn.rpartition("/")[2] + "_reader"
    await fill_tenant(svc, pool, 0)
    await pool.execute(f'CREATE ROLE "{name}" LOGIN BYPASSRLS')
    await pool.execute(f'GRANT USAGE ON SCHEMA asyncsvc TO "{name}"')
    await pool.execute(f'GRANT ALL ON ALL TABLES IN SCHEMA asyncsvc TO "{name}"')
    left = await unindexed(pool)
    try:
        async with asyncsvc.connect(f"{dsn}?role={name}") as reader:
            with pytest.raises(asyncsvc.DatabaseError, match="owner"):
                await reader.maintain()
        assert await unindexed(pool) == left
    finally:
        await pool.execute(f'DROP OWNED BY "{name}"')
        await pool.execute(f'DROP ROLE "{name}"')


async def test_writes_maintenance_and_searches_run_concurrently(svc, pool, scan_sizes, monkeypatch):
    """Append, edit, move and run maintenance at the same time. Each task finds its own writes."""
    monkeypatch.setattr(search_index, "_BATCH_SIZE", 3)
    rng = await fill_tenant(svc, pool, 0)
    stop = asyncio.Event()

    async def write(number: int) -> None:
        at = {"tenant_id": "t"}
        id = f"writer{number}"
        await svc.conversations.create(dialog_id="d", id=id, **at)
        for count in range(12):
            word = f"w{number}n{count}é"
            turn = {"messages": [{"role": "user", "content": word}]}
            seq = (await svc.conversations.append_message(id, turn, **at)).last_seq
            dialog_id = DIALOGS[count % 2]
            if count % 3 == 0:
                await svc.conversations.update_by_id(id, {"dialog_id": dialog_id}, **at)
            if count % 4 == 0:
                word = f"e{number}n{count}é"
                await svc.conversations.update_message(id, seq, {"content": word}, **at)
            page = await svc.conversations.search(tenant_id="t", keywords=word.upper())
            assert [(hit.id, hit.seq) for hit in page.items] == [(id, seq)]
            await asyncio.sleep(0)

    async def maintain() -> None:
        while not stop.is_set():
            await svc.maintain()

    maintaining = [asyncio.create_task(maintain()) for _ in range(2)]
    try:
        await asyncio.gather(*(write(number) for number in range(6)))
    finally:
        stop.set()
        await asyncio.gather(*maintaining)
    await svc.maintain()
    assert await unindexed(pool) == 0
    for keywords in ("w", "é", *(part_of(rng, text) for text in (await texts(pool))[:30])):
        for dialog_id in (ANY, *DIALOGS):
            await assert_same_hits(svc, pool, "t", keywords, 50, dialog_id=dialog_id)


async def test_a_message_appended_during_a_move_moves_with_its_conversation(svc, pool):
    """The move waits for the append, and its snapshot does not contain the new message."""
    at = {"tenant_id": "t"}
    await svc.conversations.create(dialog_id="d", id="a", **at)
    turn = {"messages": [{"role": "user", "content": "late"}]}
    async with svc.transaction() as tx:
        await tx.conversations.append_message("a", turn, **at)
        moving = asyncio.create_task(svc.conversations.update_by_id("a", {"dialog_id": "e"}, **at))
        await until_blocked(svc)
    await moving
    assert [
        hit.id
        for hit in (
            await svc.conversations.search(tenant_id="t", keywords="late", dialog_id="e")
        ).items
    ] == ["a"]
    assert (
        await svc.conversations.search(tenant_id="t", keywords="late", dialog_id="d")
    ).items == []
