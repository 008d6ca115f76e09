"""Whatever substring of what was written is looked for: found is what a plain find finds.

The plain find reads every message, in the database's lower case, and looks into it by `in`.
"""

import asyncio
import itertools
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

import asyncsvc
from asyncsvc import ANY, InvalidInput, Settings
from asyncsvc.operations import maintenance
from asyncsvc.services import search as searching

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
# The same instant twice, neighbours, other weeks and years, and as far away as may be.
MOMENTS = [BEGIN - timedelta(days=days) for days in (0, 0, 0, 1, 6, 7, 8, 20, 100, 400, 5_000)]
MOMENTS += [datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC)]
WALKS = [(1, 1), (3, 40), (100, 1_000)]
"""How far to walk at first, and how far at most: the least leaves it to the index."""


@pytest.fixture(params=WALKS, ids=lambda walk: f"walk {walk[0]}")
def walks(request, monkeypatch):
    monkeypatch.setattr(searching, "_FIRST_SCAN", request.param[0])
    monkeypatch.setattr(searching, "_MAX_SCAN", request.param[1])


def some_text(chance: random.Random) -> str:
    parts = []
    for _ in range(chance.choice((0, 1, 1, 2, 3, 8))):
        script = chance.choice(SCRIPTS)
        parts.append("".join(chance.choice(script) for _ in range(chance.randint(1, 12))))
    return "".join(parts)


def messages(chance: random.Random, count: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": some_text(chance)} for _ in range(count)]


@dataclass(frozen=True)
class Written:
    """A conversation as it is in the database, its texts in the database's lower case."""

    id: str
    low_id: str
    low_name: str | None
    dialog_id: str
    user_id: str
    created_at: datetime
    updated_at: datetime
    tokens: int
    texts: dict[int, str]

    def first(self, low: str) -> int | None:
        """The seq of the first message that holds this."""
        return next((seq for seq, text in sorted(self.texts.items()) if low in text), None)


async def everything(pool, tenant_id: str) -> list[Written]:
    """All conversations, newest first."""
    rows = await pool.fetch(
        'SELECT id, lower(id COLLATE "default") AS low_id, lower(name) AS low_name, dialog_id,'
        " user_id, created_at, updated_at, tokens,"
        " ARRAY(SELECT seq FROM asyncsvc.message AS m WHERE m.tenant_id = c.tenant_id"
        "        AND m.conversation_id = c.id ORDER BY seq) AS seqs,"
        " ARRAY(SELECT lower(content) FROM asyncsvc.message AS m WHERE m.tenant_id = c.tenant_id"
        "        AND m.conversation_id = c.id ORDER BY seq) AS texts"
        "  FROM asyncsvc.conversation AS c WHERE tenant_id = $1",
        tenant_id,
    )
    found = [
        Written(**{k: v for k, v in row.items() if k != "seqs"} | {"texts": dict(both(row))})
        for row in rows
    ]
    return sorted(found, key=lambda each: (each.created_at, each.id.encode()), reverse=True)


def both(row):
    return zip(row["seqs"], row["texts"], strict=True)


async def low(pool, text: str) -> str:
    return await pool.fetchval("SELECT lower($1::text)", text)


async def walked(svc, tenant_id: str, keywords: str, size: int, **filters) -> list[tuple[str, int]]:
    """What all pages hold, which must say the right total and fit together."""
    found, after = [], None
    while True:
        page = await svc.conversations.search(
            tenant_id, keywords, limit=size, after=after, total="exact", **filters
        )
        assert len(page.items) == size or page.next is None
        found += [(hit.id, hit.seq) for hit in page.items]
        after = page.next
        if after is None:
            assert page.total == len(found)
            return found


async def assert_found(svc, pool, tenant_id: str, keywords: str, size: int, **filters) -> int:
    """Compare a search with a plain find; return how many it found."""
    sought = await low(pool, keywords)
    expected = [
        (each.id, seq)
        for each in await everything(pool, tenant_id)
        if filters.get("dialog_id", ANY) in {ANY, each.dialog_id}
        and filters.get("user_id", ANY) in {ANY, each.user_id}
        and (seq := each.first(sought)) is not None
    ]
    assert await walked(svc, tenant_id, keywords, size, **filters) == expected, keywords
    return len(expected)


def part_of(chance: random.Random, text: str) -> str:
    """A substring, perhaps in another case, perhaps with something else in it."""
    begin = chance.randrange(len(text))
    part = text[begin : begin + chance.choice((1, 1, 2, 2, 3, 4, 7, 15))]
    kind = chance.random()
    if kind < 0.3:
        return part.swapcase() or part
    if kind < 0.4:
        return part + chance.choice("zé的\x01")
    return part


async def fill(svc, chance: random.Random, tenant_id: str, count: int, begin: int = 0) -> None:
    """Conversations of which each has some messages, perhaps a name."""
    await svc.conversations.import_(
        [
            {
                "id": f"{chance.choice('aB会é')}{number:03}",
                "dialog_id": chance.choice(DIALOGS),
                "user_id": chance.choice(USERS),
                "name": chance.choice([None, some_text(chance)]),
                "tokens": chance.randint(0, 3),
                "created_at": chance.choice(MOMENTS),
                "messages": messages(chance, chance.randint(0, 3)),
            }
            for number in range(begin, begin + count)
        ],
        tenant_id=tenant_id,
    )


AT = {"tenant_id": "t"}
OTHER = {"d": "e", "e": "d"}


async def say(conversations, each, chance):
    await conversations.append_message(each.id, {"messages": messages(chance, 2)}, **AT)


async def edit(conversations, each, chance):
    await conversations.update_message(
        each.id, min(each.texts), {"content": some_text(chance)}, **AT
    )


async def shorten(conversations, each, chance):
    how = chance.randrange(3)
    if how == 0:
        await conversations.delete_message(each.id, min(each.texts), **AT)
    elif how == 1:
        await conversations.pop_message(each.id, **AT)
    else:
        await conversations.clear_messages(each.id, **AT)


async def judge(conversations, each, chance):
    await conversations.set_feedback(each.id, min(each.texts), chance.choice((1, -1)), **AT)


async def rename(conversations, each, chance):
    await conversations.update_by_id(each.id, {"name": some_text(chance)}, **AT)


async def move(conversations, each, chance):
    await conversations.update_by_id(each.id, {"dialog_id": OTHER[each.dialog_id]}, **AT)


async def delete(conversations, each, chance):
    await conversations.delete_by_id(each.id, **AT)


async def leave(conversations, each, chance):
    pass


CHANGES = [say, edit, edit, shorten, judge, rename, move, move, delete, leave, leave, leave]


async def change(svc, pool, chance: random.Random) -> None:
    """Some of everything that can happen to what is in the index."""
    for each in await everything(pool, "t"):
        await chance.choice(CHANGES if each.texts else [say])(svc.conversations, each, chance)


async def world(svc, pool, seed: int) -> random.Random:
    """Fill tenant "t": some texts indexed, some not, some changed before or after indexing."""
    chance = random.Random(seed)
    await fill(svc, chance, "t", 60)
    await fill(svc, chance, "another", 20)
    await svc.maintain()
    await change(svc, pool, chance)
    await fill(svc, chance, "t", 30, begin=100)
    if seed % 2:
        await svc.maintain()
        await change(svc, pool, chance)
    return chance


async def texts(pool) -> list[str]:
    return [
        row["content"]
        for row in await pool.fetch("SELECT content FROM asyncsvc.message WHERE content <> ''")
    ]


# ---------------------------------------------------------------- search


@pytest.mark.parametrize("seed", range(4))
async def test_any_substring_is_found(svc, pool, walks, seed):
    chance = await world(svc, pool, seed)
    said = await texts(pool)
    hits = 0
    for _ in range(60):
        keywords = part_of(chance, chance.choice(said))
        filters = {
            "dialog_id": chance.choice([ANY, ANY, *DIALOGS]),
            "user_id": chance.choice([ANY, ANY, *USERS]),
        }
        size = chance.choice((1, 2, 5, 100))
        hits += await assert_found(svc, pool, "t", keywords, size, **filters)
    assert hits > 100


async def test_each_single_character_of_what_was_written(svc, pool, walks):
    await world(svc, pool, 7)
    for character in sorted(set("".join(await texts(pool)))):
        await assert_found(svc, pool, "t", character, 1_000)


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
async def test_the_characters_that_the_index_sets_apart(svc, pool, walks, keywords):
    said = ["a\x01b", "ab", "c\x02\x01d", "的\x01x\x01的x", "\x01\x01", "b\x02", "a b", "ba\x01"]
    for times in range(2):
        for number, content in enumerate(said):
            record = {"id": f"{times}{number}", "dialog_id": "d"}
            record["messages"] = [{"role": "user", "content": content}]
            await svc.conversations.import_([record], tenant_id="t")
        if not times:
            await svc.maintain()
    await assert_found(svc, pool, "t", keywords, 3)


async def test_a_keyword_is_normalised_as_what_was_written(svc):
    await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
    turn = {"messages": [{"role": "user", "content": "cafe\N{COMBINING ACUTE ACCENT} au lait"}]}
    await svc.conversations.append_message("a", turn, tenant_id="t")
    for keywords in ("CAFÉ", "cafe\N{COMBINING ACUTE ACCENT}", "é a"):
        (hit,) = (await svc.conversations.search("t", keywords)).items
        assert hit.snippet == "café au lait"


async def test_a_hit_tells_where_it_is(svc):
    made = await svc.conversations.create(tenant_id="t", dialog_id="d", id="a", name="n")
    said = ["nothing", f"{'x' * 100}Needle{'y' * 100}", "needle again"]
    turn = {"messages": [{"role": "user", "content": content} for content in said]}
    await svc.conversations.append_message("a", turn, tenant_id="t")
    for _ in range(2):
        (hit,) = (await svc.conversations.search("t", "NEEDLE")).items
        assert (hit.id, hit.dialog_id, hit.name, hit.seq) == ("a", "d", "n", 2)
        assert hit.created_at == made.created_at
        assert hit.snippet == f"{'x' * 40}Needle{'y' * 40}"
        await svc.maintain()


async def test_what_was_written_last_is_found_at_once(svc, walks):
    at = {"tenant_id": "t"}
    for number in range(5):
        await svc.conversations.create(dialog_id="d", id=str(number), **at)
        for word in ("first", "second"):
            turn = {"messages": [{"role": "user", "content": f"{word}{number}"}]}
            await svc.conversations.append_message(str(number), turn, **at)
            (hit,) = (await svc.conversations.search("t", f"{word.upper()}{number}")).items
            assert hit.id == str(number)
        await svc.maintain()


async def test_a_cursor_belongs_to_what_was_searched(svc):
    await fill(svc, random.Random(1), "t", 30)
    for number in range(3):
        await svc.conversations.create(tenant_id="t", dialog_id="d", id=f"w{number}")
        turn = {"messages": [{"role": "user", "content": "word"}]}
        await svc.conversations.append_message(f"w{number}", turn, tenant_id="t")
    after = (await svc.conversations.search("t", "word", limit=2)).next
    assert len((await svc.conversations.search("t", "word", limit=9, after=after)).items) == 1
    for others in ({"dialog_id": "d"}, {"user_id": ""}):
        with pytest.raises(InvalidInput, match="after"):
            await svc.conversations.search("t", "word", after=after, **others)
    for tenant_id, keywords in (("t", "wor"), ("u", "word")):
        with pytest.raises(InvalidInput, match="after"):
            await svc.conversations.search(tenant_id, keywords, after=after)
    with pytest.raises(InvalidInput, match="after"):
        await svc.conversations.get_list("d", "t", keywords="word", after=after)
    with pytest.raises(InvalidInput, match="keywords"):
        await svc.conversations.search("t", "")


@pytest.mark.damages  # they are stored past the library, and so not booked
async def test_a_total_is_counted_as_far_as_asked(svc, pool):
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
            for page in [await svc.conversations.search("t", "word", total=total)]
        ]
        assert totals == [(10_500, False), (10_000, True), (None, False)]
        page = await svc.conversations.get_list("d", "t", keywords="WORD", total="capped")
        assert (page.total, page.total_capped, len(page.items)) == (10_000, True, 30)
        await svc.maintain()


@pytest.mark.parametrize("is_indexed", [True, False])
async def test_it_finds_without_its_index_and_behind_row_level_security(
    dsn, svc, pool, walks, is_indexed
):
    chance = await world(svc, pool, 2)
    if is_indexed:
        await svc.maintain()
    said = await texts(pool)
    async with asyncsvc.connect(dsn, settings=Settings(row_level_security=True)) as narrow:
        for _ in range(20):
            keywords = part_of(chance, chance.choice(said))
            await assert_found(narrow, pool, "t", keywords, 4) if False else None
            assert [
                hit.id
                for hit in (await narrow.conversations.search("t", keywords, limit=1_000)).items
            ] == [
                hit.id for hit in (await svc.conversations.search("t", keywords, limit=1_000)).items
            ]
    for index in ("message_search_idx", "conversation_title_search_idx"):
        await pool.execute(f"DROP INDEX asyncsvc.{index}")
    for _ in range(20):
        await assert_found(svc, pool, "t", part_of(chance, chance.choice(said)), 4)
    await svc.maintain()


# ---------------------------------------------------------------- lists


ORDERS = {
    "created_at": lambda each: each.created_at,
    "updated_at": lambda each: each.updated_at,
    "tokens": lambda each: each.tokens,
}


@pytest.mark.parametrize("seed", range(2))
async def test_a_list_by_keywords_is_that_of_a_plain_find(svc, pool, walks, seed):
    chance = await world(svc, pool, seed)
    said = await texts(pool)
    names = [name for each in await everything(pool, "t") if (name := each.low_name)]
    ids = [each.id for each in await everything(pool, "t")]
    for _ in range(40):
        keywords = part_of(chance, chance.choice(chance.choice([said, said, names, ids])))
        orderby, desc = chance.choice(list(ORDERS)), chance.random() < 1 / 2
        dialog_id, user_id = chance.choice(DIALOGS), chance.choice([None, None, *USERS])
        filters = {
            "user_id": user_id,
            "orderby": orderby,
            "desc": desc,
            "total": chance.choice(["exact", "capped", "none"]),
            "items_per_page": chance.choice((1, 3, 100)),
        }
        await assert_listed(svc, pool, keywords, dialog_id, filters)


async def assert_listed(svc, pool, keywords, dialog_id, filters) -> None:
    sought = await low(pool, keywords)
    key = ORDERS[filters["orderby"]]
    expected = sorted(
        (
            each
            for each in await everything(pool, "t")
            if each.dialog_id == dialog_id
            and filters["user_id"] in {None, each.user_id}
            and (
                sought in each.low_id
                or (each.low_name is not None and sought in each.low_name)
                or each.first(sought) is not None
            )
        ),
        key=lambda each: (key(each), each.id.encode()),
        reverse=filters["desc"],
    )
    ids = [each.id for each in expected]
    by_number, by_cursor, after = [], [], None
    for number in itertools.count(1):
        page = await svc.conversations.get_list(
            dialog_id, "t", number, keywords=keywords, **filters
        )
        assert page.total == (None if filters["total"] == "none" else len(ids))
        by_number += [item.id for item in page.items]
        if not page.items:
            break
    assert by_number == ids, (keywords, filters)
    while filters["orderby"] != "tokens":
        page = await svc.conversations.get_list(
            dialog_id, "t", keywords=keywords, after=after, **filters
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
            "d", "t", keywords="word", orderby=orderby, total="none"
        )
    assert len(page.items) == 30
    assert ran == ["search/scan", "conversation/get_by_ids"]


async def test_an_id_is_kept_as_given_and_found_as_given(svc, walks):
    odd = "cafe\N{COMBINING ACUTE ACCENT}"
    for id in ("a", odd, "b"):
        await svc.conversations.create(
            tenant_id="t", dialog_id="d", id=id, name="CAFÉ" * (id == "b")
        )
    for _ in range(2):
        for keywords, ids in ((odd, [odd, "b"]), ("café", ["b"]), ("CAFE", [odd])):
            page = await svc.conversations.get_list("d", "t", keywords=keywords)
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
    monkeypatch.setattr(maintenance, "_TEXT_BATCH_SIZE", batch)
    monkeypatch.setattr(maintenance, "_FLUSH_THRESHOLD", 3 * batch)
    await world(svc, pool, 0)
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
    monkeypatch.setattr(maintenance, "_TEXT_BATCH_BYTES", 10_000)
    said = [{"role": "user", "content": f"{number} " + "x" * 4_000} for number in range(7)]
    record = {"id": "a", "dialog_id": "d", "messages": said}
    await svc.conversations.import_([record], tenant_id="t")
    seen = []
    await svc.maintain(on_batch=lambda report: seen.append(report.messages))
    assert [indexed for indexed in seen if indexed][:3] == [3, 6, 7]


async def test_only_maintenance_writes_to_the_index(svc, pool):
    chance = await world(svc, pool, 0)
    await svc.maintain()
    await change(svc, pool, chance)
    await fill(svc, chance, "t", 10, begin=200)
    assert await unindexed(pool) > 10
    assert await pending_pages(pool) == 0


async def test_indexing_waits_for_no_lock(svc, pool):
    await world(svc, pool, 0)
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
    monkeypatch.setattr(maintenance, "_TEXT_BATCH_SIZE", 5)
    await pool.execute("ALTER TABLE asyncsvc.message SET (autovacuum_enabled = off)")
    await world(svc, pool, 0)
    left = await unindexed(pool)

    def break_off(report):
        if report.messages >= 20:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await svc.maintain(on_batch=break_off)
    assert await unindexed(pool) == left - 20
    assert (await svc.maintain()).messages > 20
    assert (await unindexed(pool), await pending_pages(pool)) == (0, 0)


async def test_only_the_owner_runs_maintenance(dsn, svc, pool):
    name = dsn.rpartition("/")[2] + "_reader"
    await world(svc, pool, 0)
    await pool.execute(f'CREATE ROLE "{name}" BYPASSRLS')
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


async def test_all_of_it_at_once(svc, pool, walks, monkeypatch):
    """Append, edit, move and run maintenance at the same time; each task finds its own writes."""
    monkeypatch.setattr(maintenance, "_TEXT_BATCH_SIZE", 3)
    chance = await world(svc, pool, 0)
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
            page = await svc.conversations.search("t", word.upper())
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
    for keywords in ("w", "é", *(part_of(chance, text) for text in (await texts(pool))[:30])):
        for dialog_id in (ANY, *DIALOGS):
            await assert_found(svc, pool, "t", keywords, 50, dialog_id=dialog_id)


async def test_a_message_that_comes_while_its_conversation_moves_moves_along(svc, pool):
    """The move waits for the append, whose message its own snapshot does not have."""
    at = {"tenant_id": "t"}
    await svc.conversations.create(dialog_id="d", id="a", **at)
    turn = {"messages": [{"role": "user", "content": "late"}]}
    async with svc.transaction() as tx:
        await tx.conversations.append_message("a", turn, **at)
        moving = asyncio.create_task(svc.conversations.update_by_id("a", {"dialog_id": "e"}, **at))
        async with asyncio.timeout(20):
            while not await pool.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND datname = current_database()"
            ):
                await asyncio.sleep(0.01)
    await moving
    assert [
        hit.id for hit in (await svc.conversations.search("t", "late", dialog_id="e")).items
    ] == ["a"]
    assert (await svc.conversations.search("t", "late", dialog_id="d")).items == []
