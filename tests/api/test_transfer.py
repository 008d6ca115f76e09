"""Import and export of whole conversations: complete, without duplicates, and unchanged."""

import asyncio
import gc
import itertools
import tracemalloc
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

import asyncsvc
from asyncsvc import (
    AlreadyExists,
    Conversation,
    ConversationRecord,
    ImportReport,
    InvalidInput,
    Message,
    MessageRecord,
    Settings,
    Turn,
)
from asyncsvc.repositories import ConversationRepository, UsageRepository
from asyncsvc.services import conversation_import
from asyncsvc.services import transfer as service
from asyncsvc.services import usage as usage_service

NOW = datetime(2026, 11, 22, 10, 30, 0, 123456, tzinfo=UTC)
NASTY = "a\\b\tc\nd\re\x08\x0b\x0c \\N \\. 'q' \"d\" $1 %s {}   你好 🦄 é"


def record(id: str, *contents: str, **more: object) -> dict[str, object]:
    messages = [{"role": "user", "content": content} for content in contents]
    return {"id": id, "dialog_id": "d", "messages": messages} | more


async def exported(svc, tenant_id: str = "acme", **of: object) -> list[Conversation]:
    return [item async for item in svc.conversations.export(tenant_id=tenant_id, **of)]


def moved(conversations: list[Conversation], tenant_id: str) -> list[Conversation]:
    return [item.model_copy(update={"tenant_id": tenant_id}) for item in conversations]


async def test_import_stores_every_column_of_a_record(svc):
    full = ConversationRecord(
        id="a",
        dialog_id="d",
        user_id="u",
        exp_user_id="e",
        name=NASTY,
        source="s",
        dsl={"x": [1, 2.5, None, "\\"]},
        version_title="v",
        metadata={"k": NASTY},
        errors="err\tor",
        round=7,
        tokens=2**40,
        duration=12345678.901234,
        last_seq=9,
        created_at=NOW,
        updated_at=NOW + timedelta(days=2),
        messages=[
            MessageRecord(role="user", content=NASTY, payload={"p": NASTY}, reference=[NASTY, 1]),
            MessageRecord(role="tool", content="", seq=5, thumb=1, created_at=NOW),
            MessageRecord(role="assistant", content="\\.", seq=8, thumb=-1, payload={}),
        ],
    )
    report = await svc.conversations.import_([full], tenant_id="acme")
    assert report == ImportReport(conversations=1, messages=3)
    (stored,) = await exported(svc)
    for name in ConversationRecord.model_fields.keys() - {"messages", "usage"}:
        assert getattr(stored, name) == getattr(full, name), name
    assert (stored.thumb_up, stored.thumb_down) == (1, 1)
    assert [message.seq for message in stored.messages] == [1, 5, 8]
    for new, message in zip(full.messages, stored.messages, strict=True):
        for name in ("role", "content", "payload", "reference", "thumb"):
            assert getattr(message, name) == getattr(new, name), name
    assert {message.created_at for message in stored.messages} == {NOW}


async def test_missing_columns_of_a_record_get_defaults(svc):
    later = NOW + timedelta(hours=1)
    dated = record("a", "one", "two", "three")
    dated["messages"][1]["created_at"] = NOW
    dated["messages"][2]["created_at"] = later
    dated["messages"][2]["role"] = "assistant"
    before = await svc.conversations.create(tenant_id="t", dialog_id="d")
    await svc.conversations.import_([dated, record("b", "x"), record("c")], tenant_id="acme")
    a, b, c = await exported(svc)
    assert (a.created_at, a.updated_at, a.round, a.last_seq) == (NOW, later, 2, 3)
    assert [message.created_at for message in a.messages] == [NOW, NOW, later]
    assert b.created_at >= before.created_at
    assert b.messages[0].created_at == b.created_at == b.updated_at
    assert (c.messages, c.last_seq, c.round, c.user_id) == ((), 0, 0, "")


async def test_an_export_can_be_imported_unchanged(svc):
    turn = Turn(messages=[Message(role="user", content=NASTY), Message(role="a", content="b")])
    for number in range(30):
        id = f"c{number}"
        await svc.conversations.create(
            tenant_id="acme", dialog_id=f"d{number % 2}", user_id=f"u{number % 3}", id=id,
            dsl=[number], metadata={"n": number / 7},
        )  # fmt: skip
        for _ in range(number % 5):
            await svc.conversations.append_message(id, turn, tenant_id="acme")
    await svc.conversations.set_feedback("c4", 2, -1, tenant_id="acme")
    await svc.conversations.delete_message("c4", 5, tenant_id="acme")
    await svc.conversations.pop_message("c9", tenant_id="acme")

    report = await svc.conversations.import_(
        svc.conversations.export(tenant_id="acme"), tenant_id="copy"
    )

    assert report.conversations == 30
    assert await exported(svc, "copy") == moved(await exported(svc), "copy")
    await svc.conversations.append_message("c4", turn, tenant_id="copy")  # appends continue


async def test_the_json_of_an_export_is_parsed_to_equal_records(svc):
    await svc.conversations.import_([record("a", "x", created_at=NOW)], tenant_id="t")
    (exported,) = [each async for each in svc.conversations.export(tenant_id="t")]
    derived = {"tenant_id", "thumb_up", "thumb_down"}
    parsed = ConversationRecord.model_validate_json(exported.model_dump_json(exclude=derived))
    assert (parsed.created_at, parsed.messages[0].created_at) == (NOW, NOW)
    await svc.conversations.import_([parsed], tenant_id="u")
    assert (await svc.conversations.get_by_id("a", tenant_id="u")).created_at == NOW


@pytest.mark.parametrize("text", ["2026-11-22T10:30", "yesterday", "2026-11-22T10:30Z" + "0" * 99])
def test_the_json_of_a_record_needs_times_with_an_offset(text):
    with pytest.raises(InvalidInput, match=r"^created_at: "):
        ConversationRecord.model_validate_json(
            f'{{"id": "a", "dialog_id": "d", "messages": [], "created_at": "{text}"}}'
        )


def test_a_record_in_python_needs_a_datetime():
    with pytest.raises(InvalidInput, match="created_at: Input should be a valid datetime"):
        ConversationRecord(id="a", dialog_id="d", messages=[], created_at="2026-11-22T10:30Z")


async def test_an_export_is_limited_to_a_tenant_a_dialog_or_a_user(svc):
    for number in range(12):
        await svc.conversations.create(
            tenant_id="acme", dialog_id=f"d{number % 2}", user_id=f"u{number % 3}",
            id=f"{number:02}", created_at=NOW - timedelta(days=number // 2),
        )  # fmt: skip
    await svc.conversations.create(tenant_id="other", dialog_id="d0", user_id="u0")

    async def ids(**of: object) -> list[str]:
        return [item.id for item in await exported(svc, **of)]

    assert await ids() == [f"{number:02}" for number in range(12)]
    assert await ids(dialog_id="d0") == ["10", "08", "06", "04", "02", "00"]
    assert await ids(user_id="u1") == ["10", "07", "04", "01"]
    assert await ids(user_id="u1", dialog_id="d1") == ["07", "01"]
    assert await ids(user_id="") == []


@pytest.mark.parametrize(
    "limits",
    [
        {"_BATCH_SIZE": 2},
        {"_MAX_MESSAGES": 3},
        {"_MAX_BYTES": 200},
        {"_MAX_BYTES": 1},
    ],
)
@pytest.mark.parametrize("of", [{}, {"dialog_id": "d"}, {"user_id": "u"}])
async def test_pages_of_an_export_contain_each_conversation_once(svc, monkeypatch, limits, of):
    records = [
        record(f"{n:02}", *("x" * (n * 7 % 90) for _ in range(n % 6)), user_id="u", created_at=NOW)
        for n in range(25)
    ]
    await svc.conversations.import_(records, tenant_id="acme")
    for name, value in limits.items():
        monkeypatch.setattr(service, name, value)
    conversations = await exported(svc, **of)
    assert [(item.id, len(item.messages)) for item in conversations] == [
        (f"{n:02}", n % 6) for n in range(25)
    ]


async def test_a_page_of_an_export_is_bounded_by_messages_and_bytes(dsn):
    pages: list[int] = []

    def watch(name: str, seconds: float, rows: int, error: object) -> None:
        if name == "conversation/export":
            pages.append(rows)

    async with asyncsvc.connect(dsn, settings=Settings(on_query=watch)) as svc:
        big = record("big", *("y" * 2**20 for _ in range(20)))
        small = [record(f"s{n}", "x") for n in range(5)]
        many = [record(f"t{n:02}", *("x" for _ in range(999))) for n in range(15)]
        await svc.conversations.import_([big, *small, *many], tenant_id="acme")
        assert len(await exported(svc)) == 21
    assert pages == [1, 16, 4, 0]  # a page of 20 MiB, and a page of more than 10,000 messages


async def test_a_repeated_import_adds_nothing(svc):
    records = [record(f"{n}", "one", "two") for n in range(20)]
    await svc.conversations.import_(records[:7], tenant_id="acme")
    first = await exported(svc)
    report = await svc.conversations.import_(records, tenant_id="acme")
    assert report == ImportReport(conversations=13, messages=26, present=7)
    assert await svc.conversations.import_(records, tenant_id="acme") == ImportReport(present=20)
    assert [item for item in await exported(svc) if item in first] == first


async def test_a_record_that_is_a_prefix_is_present_and_a_different_one_is_rejected(svc):
    await svc.conversations.import_([record("a", "one"), record("b", "one")], tenant_id="acme")
    turn = {"messages": [{"role": "user", "content": "two"}]}
    await svc.conversations.append_message("a", turn, tenant_id="acme")
    again = [record("a", "one"), record("b", "one", "two"), record("a", "other"), record("a")]
    rejected: list[tuple[int, str]] = []

    report = await svc.conversations.import_(
        again,
        tenant_id="acme",
        on_rejected=lambda place, error: rejected.append((place, type(error).__name__)),
    )

    assert report == ImportReport(present=2, rejected=2)
    assert rejected == [(1, "AlreadyExists"), (2, "AlreadyExists")]
    with pytest.raises(AlreadyExists, match="other messages"):
        await svc.conversations.import_(again, tenant_id="acme")
    assert [item.last_seq for item in await exported(svc)] == [2, 1]


WRONG = [
    ({"id": ""}, "id"),
    ({"id": None}, "id"),
    ({"dialog_id": "x" * 129}, "dialog_id"),
    ({"messages": None}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": "a\x00"}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": "x" * (2**20 + 1)}]}, "messages.0.content"),
    ({"messages": [{"role": "u", "content": "", "thumb": 2}]}, "messages.0.thumb"),
    ({"messages": [{"role": "u", "content": "", "seq": 0}]}, "messages.0.seq"),
    (
        {"messages": [{"role": "u", "content": "", "payload": {"a": "\ud800"}}]},
        "messages.0.payload",
    ),
    ({"messages": [{"role": "u", "content": "", "created_at": "2026"}]}, "messages.0.created_at"),
    ({"messages": [{"role": "u", "content": "", "seq": 3}] * 2}, "messages"),
    ({"messages": [{"role": "u", "content": "", "seq": 3}], "last_seq": 2}, "last_seq"),
    ({"tokens": -1}, "tokens"),
    ({"duration": float("nan")}, "duration"),
    ({"created_at": NOW.replace(tzinfo=None)}, "created_at"),
    ({"metadata": [1]}, "metadata"),
    ({"nonsense": 1}, "nonsense"),
]


@pytest.mark.parametrize(("wrong", "field"), WRONG)
async def test_an_invalid_record_is_rejected_and_the_others_are_stored(svc, wrong, field):
    rejected: list[tuple[int, InvalidInput]] = []
    records = [record("a", "one"), record("b", "x") | wrong, record("c", "three")]
    report = await svc.conversations.import_(
        records, tenant_id="acme", on_rejected=lambda *rejection: rejected.append(rejection)
    )
    assert report == ImportReport(conversations=2, messages=2, rejected=1)
    ((place, error),) = rejected
    assert (place, error.field) == (1, field)
    with pytest.raises(InvalidInput) as caught:
        await svc.conversations.import_(records, tenant_id="acme")
    assert caught.value.field == f"records.1.{field}"


async def test_records_can_come_from_any_iterable(svc):
    async def trickle():
        for n in range(3):
            await asyncio.sleep(0)
            yield record(f"a{n}", "x")

    assert (await svc.conversations.import_(trickle(), tenant_id="acme")).conversations == 3
    some = (record(f"b{n}", "x") for n in range(4))
    assert (await svc.conversations.import_(some, tenant_id="acme")).conversations == 4
    assert await svc.conversations.import_([], tenant_id="acme") == ImportReport()
    without = (await svc.conversations.get_list(dialog_id="d", tenant_id="acme")).items
    with pytest.raises(InvalidInput, match=r"records\.0\.messages"):
        await svc.conversations.import_(without, tenant_id="copy")


@pytest.mark.parametrize("limits", [{"_MAX_MESSAGES": 4}, {"_MAX_CHARACTERS": 10}])
async def test_concurrent_imports_store_each_conversation_once(svc, monkeypatch, limits):
    for name, value in limits.items():
        monkeypatch.setattr(conversation_import, name, value)
    records = [record(f"{n:03}", "one", "two") for n in range(60)]
    reports = await asyncio.gather(
        *(svc.conversations.import_(records[::step], tenant_id="acme") for step in (1, -1, 1, -1))
    )
    total = sum(reports, ImportReport())
    assert total == ImportReport(conversations=60, messages=120, present=180)
    assert [item.last_seq for item in await exported(svc)] == [2] * 60


async def test_an_interrupted_import_leaves_whole_conversations(svc, monkeypatch):
    monkeypatch.setattr(conversation_import, "_MAX_MESSAGES", 10)
    records = [record(f"{n:03}", "one", "two") for n in range(50)]

    def breaking():
        yield from records[:31]
        raise RuntimeError("the source is gone")

    with pytest.raises(RuntimeError, match="gone"):
        await svc.conversations.import_(breaking(), tenant_id="acme")
    left = await exported(svc)
    assert 20 < len(left) < 31
    assert {len(item.messages) for item in left} == {2}
    report = await svc.conversations.import_(records, tenant_id="acme")
    assert (report.present, report.conversations) == (len(left), 50 - len(left))


async def test_an_import_cancelled_at_any_await_can_be_repeated(svc, monkeypatch):
    monkeypatch.setattr(conversation_import, "_MAX_MESSAGES", 6)
    records = [record(f"{n:03}", "one", "two") for n in range(24)]
    for delay in itertools.count(0):
        task = asyncio.create_task(svc.conversations.import_(records, tenant_id=f"t{delay}"))
        await asyncio.sleep(delay * 0.004)
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert {len(item.messages) for item in await exported(svc, f"t{delay}")} <= {2}
        await svc.conversations.import_(records, tenant_id=f"t{delay}")
        assert len(await exported(svc, f"t{delay}")) == 24
        if isinstance(outcome, ImportReport):
            break


class Usage:
    """The usage of the tenant of an import, and its ledger."""

    def __init__(self, svc):
        self.conversations = svc.conversations
        self.repository = UsageRepository(svc._executor)

    async def ledger_rows(self) -> int:
        return await self.repository.backlog(limit=10_000)

    async def totals(self) -> tuple[int, int, int, int]:
        """Return conversations, users and tokens of all time, and the total of a list."""
        (month,) = await self.conversations.stats(
            tenant_id="acme",
            from_date="2026-11-01",
            to_date="2026-11-30",
            basis="creation",
            interval="month",
        )
        page = await self.conversations.get_list(tenant_id="acme")
        return month.conversations, month.users, month.tokens, page.total


def with_users(count: int, start: int = 0) -> list[dict[str, object]]:
    return [
        record(f"{n:03}", "x", user_id=f"u{n % 7}", tokens=n, created_at=NOW)
        for n in range(start, start + count)
    ]


@pytest.mark.parametrize("min_recount", [1, 1_000])
async def test_an_import_rolls_up_its_usage_as_it_goes(svc, monkeypatch, min_recount):
    monkeypatch.setattr(usage_service, "_MIN_RECOUNT", min_recount)
    for name, value in {"_MAX_MESSAGES": 4, "_MIN_ROLL_UP": 10, "_FAST_LEDGER": 3}.items():
        monkeypatch.setattr(conversation_import, name, value)
    usage, backlogs = Usage(svc), []

    async def records():
        for each in with_users(60):
            backlogs.append(await usage.ledger_rows())
            yield each

    await svc.conversations.import_(records(), tenant_id="acme")
    assert 10 <= max(backlogs) <= 30
    assert backlogs.count(0) > 4
    assert await usage.ledger_rows() == 0
    assert await usage.totals() == (60, 7, sum(range(60)), 60)
    await svc.conversations.import_(with_users(60) + with_users(2, start=60), tenant_id="acme")
    assert await usage.ledger_rows() == 2  # few new conversations are left to maintenance
    assert await usage.totals() == (62, 7, sum(range(62)), 62)


async def test_only_imports_mark_their_usage(svc, pool):
    await svc.conversations.create(tenant_id="acme", dialog_id="d", created_at=NOW)
    await svc.conversations.import_([record("a", "x")], tenant_id="acme")
    await svc.conversations.import_([record("a", "x", "y")], tenant_id="acme", update=True)
    rows = await pool.fetch(
        "SELECT conversations, rounds, is_imported FROM asyncsvc.usage_ledger ORDER BY 3, 1 DESC"
    )
    assert [tuple(row) for row in rows] == [(1, 0, False), (1, 1, True), (0, 1, True)]


async def test_an_import_records_the_usage_of_each_model(svc, pool):
    ours = asyncsvc.Usage(input_tokens=5, output_tokens=2, cost=Decimal("0.5"), model="m")
    free = asyncsvc.Usage(input_tokens=1, output_tokens=0, cost=Decimal(0))
    await svc.conversations.import_(
        [
            record("a", "x") | {"usage": [ours, free, {"input_tokens": 1, "output_tokens": 1}]},
            record("b", "x") | {"tokens": 9},
            record("c", "x", "y"),
        ],
        tenant_id="acme",
    )
    rows = await pool.fetch(
        "SELECT conversations, rounds, tokens, model, cost, unpriced, unmetered, is_imported"
        "  FROM asyncsvc.usage_ledger ORDER BY conversations DESC, tokens DESC, unmetered, cost"
    )
    assert [tuple(row) for row in rows] == [
        (1, 1, 9, None, None, 1, None, True),
        (1, 2, 0, None, None, None, 2, True),
        (1, 1, 0, None, None, None, None, True),
        (0, 0, 7, "m", 500_000_000, None, None, True),
        (0, 0, 2, None, None, 1, None, True),
        (0, 0, 1, None, 0, None, None, True),
    ]
    assert (await svc.conversations.get_by_id("a", tenant_id="acme")).tokens == 10
    items = await exported(svc)
    assert [item.tokens for item in items] == [10, 9, 0]
    await svc.conversations.import_(moved(items, "other"), tenant_id="other")
    assert (await svc.conversations.get_by_id("a", tenant_id="other")).tokens == 10


async def test_a_record_with_usage_and_a_total_is_rejected(svc):
    usage = {"input_tokens": 1, "output_tokens": 1}
    with pytest.raises(InvalidInput):
        await svc.conversations.import_(
            [record("a", "x") | {"usage": usage, "tokens": 1}], tenant_id="acme"
        )


async def test_an_import_in_a_transaction_leaves_the_roll_up_to_maintenance(svc, monkeypatch):
    monkeypatch.setattr(conversation_import, "_FAST_LEDGER", 1)
    usage = Usage(svc)
    async with svc.transaction() as tx:
        await tx.conversations.import_(with_users(10), tenant_id="acme")
        await svc.maintain()  # the transaction holds no lock of the tenant
    assert await usage.ledger_rows() == 10
    assert await usage.totals() == (10, 7, 45, 10)


async def test_an_import_does_not_wait_for_a_recount(svc, pool, monkeypatch):
    monkeypatch.setattr(usage_service, "_MIN_RECOUNT", 1)
    monkeypatch.setattr(conversation_import, "_FAST_LEDGER", 1)
    usage = Usage(svc)
    await svc.conversations.import_(with_users(10), tenant_id="acme")
    async with pool.acquire() as connection, connection.transaction():
        repository = UsageRepository(svc.on(connection)._executor)
        assert await repository.lock(tenant_id="acme")
        await svc.conversations.import_(with_users(10, start=10), tenant_id="acme")
        assert await usage.ledger_rows() == 10
    assert await usage.totals() == (20, 7, sum(range(20)), 20)


async def test_an_import_leaves_usage_that_another_session_locks_to_maintenance(
    svc, dsn, pool, monkeypatch
):
    monkeypatch.setattr(conversation_import, "_FAST_LEDGER", 1)
    short = Settings(lock_timeout=0.2)
    async with (
        asyncsvc.connect(dsn, settings=short) as other,
        pool.acquire() as connection,
        connection.transaction(),
    ):
        repository = UsageRepository(svc.on(connection)._executor)
        assert await repository.declare_zone(tenant_id="acme", tz="UTC")
        report = await other.conversations.import_(with_users(10), tenant_id="acme")
        assert report.conversations == 10
    usage = Usage(svc)
    assert await usage.ledger_rows() == 10
    assert await usage.totals() == (10, 7, sum(range(10)), 10)


async def test_an_import_rolls_up_what_another_import_stored_meanwhile(svc, monkeypatch):
    monkeypatch.setattr(conversation_import, "_FAST_LEDGER", 5)
    rolled_up = []

    async def roll_up_usage(executor, tenant):
        count = await usage_service.roll_up_usage(executor, tenant)
        if not rolled_up:
            await svc.conversations.create_many(
                [{"dialog_id": "d", "user_id": f"u{n}"} for n in range(5)], tenant_id="acme"
            )
        rolled_up.append(count)
        return count

    monkeypatch.setattr(conversation_import, "roll_up_usage", roll_up_usage)
    await svc.conversations.import_(with_users(10), tenant_id="acme")
    assert rolled_up == [10, 5]
    assert await Usage(svc).ledger_rows() == 0


async def test_an_import_follows_the_callers_transaction_and_leaves_no_setting(svc, pool):
    show = "SELECT current_setting('work_mem'), current_setting('gin_pending_list_limit')"
    async with pool.acquire() as connection, connection.transaction():
        before = await connection.fetchrow(show)
        mine = svc.on(connection)
        await mine.conversations.import_([record("a", "x")], tenant_id="acme")
        assert await connection.fetchrow(show) == before
        assert len(await exported(mine)) == 1
        assert await exported(svc) == []
    with pytest.raises(RuntimeError):
        async with svc.transaction() as tx:
            await tx.conversations.import_([record("b", "x")], tenant_id="acme")
            raise RuntimeError
    assert [item.id for item in await exported(svc)] == ["a"]


async def test_an_import_ignores_codecs_of_the_connection(svc, pool):
    async with pool.acquire() as connection:
        await connection.set_type_codec(
            "jsonb", schema="pg_catalog", encoder=lambda _: 1 / 0, decoder=lambda _: 1 / 0
        )
        mine = svc.on(connection)
        new = record("a", "x", metadata={"a": 1})
        new["messages"][0]["payload"] = {"b": [2]}
        await mine.conversations.import_([new], tenant_id="acme")
        (stored,) = await exported(mine)
        await connection.reset_type_codec("jsonb", schema="pg_catalog")
    assert (stored.metadata, stored.messages[0].payload) == ({"a": 1}, {"b": [2]})


async def test_an_export_during_writes_contains_each_permanent_conversation_once(svc, monkeypatch):
    monkeypatch.setattr(service, "_BATCH_SIZE", 3)
    stay = {f"{n:03}" for n in range(0, 40, 2)}
    await svc.conversations.import_([record(id, "x") for id in sorted(stay)], tenant_id="acme")
    seen: list[str] = []
    turn = {"messages": [{"role": "user", "content": "more"}]}
    async for item in svc.conversations.export(tenant_id="acme", dialog_id="d"):
        seen.append(item.id)
        assert item.last_seq == len(item.messages)
        await svc.conversations.append_message(item.id, turn, tenant_id="acme")
        new = f"{int(item.id) + 1:03}"
        if new not in seen and len(seen) < 30:
            await svc.conversations.import_([record(new, "y", created_at=NOW)], tenant_id="acme")
    assert len(seen) == len(set(seen))
    assert stay <= set(seen)


async def test_conversations_deleted_between_the_statements_of_a_page_are_left_out(
    svc, monkeypatch
):
    monkeypatch.setattr(service, "_BATCH_SIZE", 3)
    read = ConversationRepository.get_by_ids

    async def delete_and_read(repository, *, tenant_id, ids, **options):
        gone = [id for id in ids if id < "004"]
        await svc.conversations.delete_by_ids(gone, tenant_id=tenant_id)
        return await read(repository, tenant_id=tenant_id, ids=ids, **options)

    for tenant_id in ("exported", "listed"):
        await svc.conversations.import_(
            [record(f"{n:03}", "x") for n in range(8)], tenant_id=tenant_id
        )
    monkeypatch.setattr(ConversationRepository, "get_by_ids", delete_and_read)
    assert [item.id for item in await exported(svc, "exported")] == ["004", "005", "006", "007"]
    listed, cursor = [], None
    while cursor is not None or not listed:
        page = await svc.conversations.get_list(
            tenant_id="listed", desc=False, items_per_page=6, after=cursor, include_messages=True
        )
        listed += [item.id for item in page.items]
        cursor = page.next
    assert listed == ["004", "005", "006", "007"]


async def test_an_export_rejects_invalid_ids(svc):
    for of in ({"tenant_id": ""}, {"tenant_id": "t", "dialog_id": "x" * 129}):
        with pytest.raises(InvalidInput):
            await anext(svc.conversations.export(**of))


async def test_the_round_trips_of_an_import(dsn):
    names: list[str] = []

    def watch(name: str, seconds: float, rows: int, error: object) -> None:
        names.append(name)

    async with asyncsvc.connect(dsn, settings=Settings(on_query=watch)) as svc:
        await svc.conversations.import_([record("a", "x")], tenant_id="acme")
        await svc.conversations.import_([record("a", "x")], tenant_id="acme")
    assert names == [
        "conversation/create_many",
        "message/copy",
        "conversation/create_many",
        "message/digests",
    ]


async def test_an_import_releases_its_memory(svc):
    def records(name: str, count: int):
        return (record(f"{name}{number}", "x" * 1_000_000) for number in range(count))

    await svc.conversations.import_(records("a", 1), tenant_id="t")
    gc.collect()
    gc.disable()  # so objects in reference cycles stay; no large object may be in a cycle
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        await svc.conversations.import_(records("b", 40), tenant_id="t")
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert after - before < 1_000_000


@pytest.mark.parametrize("payload", [{"image": "a" * 2**21}, {"items": [0] * 2**17}])
async def test_the_json_of_messages_limits_a_batch_of_an_import(svc, payload):
    names: list[str] = []
    settings = asyncsvc.Settings(on_query=lambda name, *_: names.append(name))
    observed = asyncsvc.AsyncSvc(svc._executor._pool, settings=settings)
    message = {"role": "user", "content": "", "payload": payload}
    records = [{"id": str(n), "dialog_id": "d", "messages": [message]} for n in range(8)]
    await observed.conversations.import_(records, tenant_id="acme")
    assert names.count("message/copy") == 2
