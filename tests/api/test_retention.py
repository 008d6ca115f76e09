"""Purge, erasure of a person and deletion of dialogs: deleted rows, kept rows and concurrency."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

import asyncsvc
from asyncsvc import Conflict, InvalidInput, NotFound, PurgeReport, Settings
from asyncsvc.repositories import ConversationRepository, TokenAuditRepository
from asyncsvc.services import erasure
from asyncsvc.services import retention as service

NOW = datetime.now(UTC)
TURN = {"messages": [{"role": "user", "content": "more"}]}


def record(id: str, age: int, messages: int = 1, **more: object) -> dict[str, object]:
    """Return a conversation that was created and last updated `age` days ago."""
    at = NOW - timedelta(days=age)
    return {
        "id": id,
        "dialog_id": "d",
        "messages": [{"role": "user", "content": "x"}] * messages,
        "created_at": at,
        "updated_at": at,
    } | more


async def ids(svc, tenant_id: str = "acme") -> list[str]:
    return [item.id async for item in svc.conversations.export(tenant_id=tenant_id)]


@pytest.mark.parametrize("batch", [1, 3, 500])
async def test_purge_deletes_older_conversations(svc, monkeypatch, batch):
    monkeypatch.setattr(service, "BATCH_SIZE", batch)
    records = [record(f"{age:02}", age, dialog_id=f"d{age % 3}") for age in range(20)]
    await svc.conversations.import_(records, tenant_id="acme")
    await svc.conversations.import_(records, tenant_id="other")

    counted = await svc.conversations.purge(timedelta(days=10), tenant_id="acme", dry_run=True)
    assert (counted.conversations, counted.messages, counted.dry_run) == (10, 10, True)
    assert len(await ids(svc)) == 20
    report = await svc.conversations.purge(timedelta(days=10), tenant_id="acme")

    assert (report.conversations, report.messages, report.skipped) == (10, 10, 0)
    assert timedelta(0) < report.before - counted.before < timedelta(minutes=1)
    assert await ids(svc) == [f"{age:02}" for age in range(10)]
    assert len(await ids(svc, "other")) == 20
    again = await svc.conversations.purge(report.before, tenant_id="acme")
    assert again == PurgeReport(before=report.before, dry_run=False)


async def test_purge_measures_age_by_update_or_creation_in_a_dialog_or_the_tenant(svc):
    used = record("used", 30) | {"updated_at": NOW}
    more = [record("old", 30), record("far", 30, dialog_id="e"), record("new", 1)]
    await svc.conversations.import_([used, *more], tenant_id="acme")
    week = timedelta(weeks=1)

    async def purge(**of: object) -> int:
        return (await svc.conversations.purge(week, tenant_id="acme", **of)).conversations

    assert await purge(dry_run=True) == 2
    assert await purge(dry_run=True, by="created_at") == 3
    assert await purge(dry_run=True, dialog_id="e") == 1
    assert await purge(dialog_id="d") == 1
    assert await ids(svc) == ["far", "new", "used"]
    assert await purge(dialog_id="d", by="created_at") == 1
    assert await ids(svc) == ["far", "new"]


async def test_purge_before_a_date_ends_at_midnight_in_its_zone(svc):
    midnight = datetime(2026, 10, 31, 23, 0, tzinfo=UTC)  # in Berlin, of the first of November
    before = record("before", 0) | dict.fromkeys(
        ("created_at", "updated_at"), midnight - timedelta(microseconds=1)
    )
    on = record("on", 0) | dict.fromkeys(("created_at", "updated_at"), midnight)
    await svc.conversations.import_([before, on], tenant_id="acme")
    report = await svc.conversations.purge("2026-11-01", tenant_id="acme", tz="Europe/Berlin")
    assert (report.before, report.conversations) == (midnight, 1)
    assert await ids(svc) == ["on"]


async def test_an_age_before_year_two_purges_nothing(svc):
    await svc.conversations.import_([record("a", 9_000)], tenant_id="acme")
    report = await svc.conversations.purge(timedelta.max, tenant_id="acme")
    assert (report.before.year, report.conversations) == (2, 0)


async def test_a_batch_is_bounded_by_its_messages(svc, monkeypatch):
    monkeypatch.setattr(service, "MAX_MESSAGES", 5)
    records = [record(f"{n}", 9, messages=n) for n in range(6)]
    await svc.conversations.import_(records, tenant_id="acme")
    seen: list[int] = []
    await svc.conversations.purge(
        timedelta(days=1), tenant_id="acme", on_batch=lambda report: seen.append(report.messages)
    )
    assert seen == [6, 15]  # a batch ends with the conversation that exceeds 5 messages


async def test_purge_skips_locked_conversations_and_reports_them(svc, pool):
    await svc.conversations.import_([record("held", 9), record("free", 9)], tenant_id="acme")
    async with pool.acquire() as connection, connection.transaction():
        mine = svc.on(connection)
        await mine.conversations.update_by_id("held", {"name": "n"}, tenant_id="acme")
        report = await asyncio.wait_for(
            svc.conversations.purge(timedelta(days=1), tenant_id="acme"), timeout=5
        )
        assert (report.conversations, report.skipped) == (1, 1)
    assert await ids(svc) == ["held"]  # it was updated in the meantime


async def test_conversations_appended_to_during_a_purge_stay(svc, monkeypatch):
    monkeypatch.setattr(service, "BATCH_SIZE", 5)
    records = [record(f"{n:03}", 9, messages=2) for n in range(100)]
    await svc.conversations.import_(records, tenant_id="acme")
    written: set[str] = set()

    async def write(id: str) -> None:
        try:
            await svc.conversations.append_message(id, TURN, tenant_id="acme")
        except Exception:  # the purge was faster
            return
        written.add(id)

    report, *_ = await asyncio.gather(
        svc.conversations.purge(timedelta(days=1), tenant_id="acme"),
        *(write(f"{n:03}") for n in reversed(range(0, 100, 7))),
    )
    left = await ids(svc)
    assert set(left) >= written
    assert report.conversations == 100 - len(left)
    assert report.messages == 2 * report.conversations


async def test_concurrent_purges_delete_each_conversation_once(svc):
    await svc.conversations.import_([record(f"{n}", 9) for n in range(200)], tenant_id="acme")
    reports = await asyncio.gather(
        *(svc.conversations.purge(timedelta(days=1), tenant_id="acme") for _ in range(4))
    )
    assert sum(report.conversations for report in reports) + len(await ids(svc)) == 200
    await svc.conversations.purge(timedelta(days=1), tenant_id="acme")
    assert await ids(svc) == []


async def test_a_cancelled_purge_can_be_repeated(svc, monkeypatch):
    monkeypatch.setattr(service, "BATCH_SIZE", 2)
    await svc.conversations.import_([record(f"{n:02}", 9) for n in range(40)], tenant_id="acme")
    task = asyncio.create_task(svc.conversations.purge(timedelta(days=1), tenant_id="acme"))
    while len(await ids(svc)) == 40:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    left = len(await ids(svc))
    report = await svc.conversations.purge(timedelta(days=1), tenant_id="acme")
    assert (report.conversations, await ids(svc)) == (left, [])


async def test_statistics_follow_a_purge_and_an_erasure(svc):
    records = [record("a", 9, user_id="u"), record("b", 2, user_id="u"), record("c", 2)]
    await svc.conversations.import_(records, tenant_id="acme")

    async def count() -> int:
        since = (NOW - timedelta(days=20)).date()
        buckets = await svc.conversations.stats(
            tenant_id="acme", from_date=since, to_date=NOW.date(), basis="creation"
        )
        return sum(bucket.conversations for bucket in buckets)

    assert await count() == 3
    await svc.conversations.purge(timedelta(days=5), tenant_id="acme")
    assert await count() == 2
    await svc.conversations.erase_user("u", tenant_id="acme")
    assert await count() == 1


@pytest.mark.parametrize("by", ["created_at", "updated_at"])
@pytest.mark.parametrize("dialog_id", [asyncsvc.ANY, "d1"])
async def test_purge_deletes_conversations_of_one_user(svc, monkeypatch, by, dialog_id):
    monkeypatch.setattr(service, "BATCH_SIZE", 2)
    records = [
        record(f"{age:02}", age, dialog_id=f"d{age % 2}", user_id=f"u{age % 3}")
        for age in range(20)
    ]
    await svc.conversations.import_(records, tenant_id="acme")
    old = {
        each["id"] for each in records
        if each["created_at"] < NOW - timedelta(days=5) and each["user_id"] == "u1"
        and dialog_id in {asyncsvc.ANY, each["dialog_id"]}
    }  # fmt: skip
    report = await svc.conversations.purge(
        NOW - timedelta(days=5), tenant_id="acme", dialog_id=dialog_id, user_id="u1", by=by
    )
    assert report.conversations == len(old)
    assert set(await ids(svc)) == {each["id"] for each in records} - old


@pytest.mark.parametrize("batch", [1, 2, 500])
async def test_erasure_deletes_all_rows_of_a_person(svc, pool, monkeypatch, batch):
    monkeypatch.setattr(erasure, "BATCH_SIZE", batch)
    records = [
        record("a", 1, messages=3, user_id="ann"),
        record("b", 1, user_id="ann", exp_user_id="ann", dialog_id="e"),
        record("c", 1, messages=2, user_id="bob", exp_user_id="ann"),
        record("d", 1, user_id="bob"),
        record("e", 1, messages=0),
    ]
    await svc.conversations.import_(records, tenant_id="acme")
    await svc.conversations.import_(records, tenant_id="other")
    await svc.conversations.append_message("a", TURN, tenant_id="acme", idempotency_key="k")

    receipt = await svc.conversations.erase_user("ann", tenant_id="acme")

    assert (receipt.tenant_id, receipt.user_id) == ("acme", "ann")
    assert (receipt.conversations, receipt.messages, receipt.append_keys) == (3, 7, 1)
    assert abs(receipt.erased_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert await ids(svc) == ["d", "e"]
    assert len(await ids(svc, "other")) == 5
    for table in ("conversation", "message", "append_key"):
        rows = await pool.fetch(f"SELECT t::text FROM asyncsvc.{table} AS t")
        assert not [row for row in rows if "ann" in row["t"] and row["t"].startswith("(acme")]
    again = await svc.conversations.erase_user("ann", tenant_id="acme")
    assert (again.conversations, again.messages) == (0, 0)


async def test_erasure_rejects_an_empty_user_id(svc):
    with pytest.raises(InvalidInput, match="user_id"):
        await svc.conversations.erase_user("", tenant_id="acme")


async def test_erasure_deletes_conversations_created_during_the_call(svc, monkeypatch):
    monkeypatch.setattr(erasure, "BATCH_SIZE", 3)
    await svc.conversations.import_(
        [record(f"{n}", 1, user_id="ann") for n in range(9)], tenant_id="acme"
    )
    delete, batches = ConversationRepository.delete, []

    async def delete_and_create(self, **parameters: object):
        batches.append(await delete(self, **parameters))
        if len(batches) == 3:  # the batch with the last of the first 9 conversations
            await svc.conversations.create(tenant_id="acme", dialog_id="d", user_id="ann")
        return batches[-1]

    monkeypatch.setattr(ConversationRepository, "delete", delete_and_create)
    receipt = await svc.conversations.erase_user("ann", tenant_id="acme")
    assert receipt.conversations == 10
    assert await ids(svc) == []


async def test_a_conversation_that_moves_to_another_user_is_not_erased(svc):
    await svc.conversations.import_([record("a", 1, user_id="ann")], tenant_id="acme")
    async with svc.transaction() as tx:
        await tx.conversations.update_by_id("a", {"user_id": "bob"}, tenant_id="acme")
        erasure = asyncio.create_task(svc.conversations.erase_user("ann", tenant_id="acme"))
        await asyncio.sleep(0.1)
    assert (await erasure).conversations == 0
    assert await ids(svc) == ["a"]


async def test_a_receipt_counts_rows_that_were_appended_during_the_wait_for_the_lock(svc):
    await svc.conversations.import_([record("a", 1, user_id="ann")], tenant_id="acme")
    async with svc.transaction() as tx:
        await tx.conversations.append_message("a", TURN, tenant_id="acme", idempotency_key="k")
        erasure = asyncio.create_task(svc.conversations.erase_user("ann", tenant_id="acme"))
        await asyncio.sleep(0.1)
    receipt = await erasure
    assert (receipt.conversations, receipt.messages, receipt.append_keys) == (1, 2, 1)


async def test_erasure_counts_each_message_during_continuous_appends(svc):
    await svc.conversations.import_([record("a", 1, user_id="ann")], tenant_id="acme")
    messages = 1

    async def append() -> None:
        nonlocal messages
        with pytest.raises(NotFound):
            while True:
                async with svc.transaction() as tx:
                    await tx.conversations.append_message("a", TURN, tenant_id="acme")
                    await asyncio.sleep(0.01)
                messages += 1

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(append())
        await asyncio.sleep(0.1)
        receipt = await svc.conversations.erase_user("ann", tenant_id="acme")
    assert (receipt.conversations, receipt.messages) == (1, messages)


async def rows_of(pool: asyncpg.Pool, tenant_id: str) -> dict[str, int]:
    """Return the number of rows of a tenant by table, without tables that have none."""
    tables = await pool.fetch(
        "SELECT table_name FROM information_schema.columns"
        " WHERE table_schema = 'asyncsvc' AND column_name = 'tenant_id'"
    )
    counts = {
        table: await pool.fetchval(
            f"SELECT count(*) FROM asyncsvc.{table} WHERE tenant_id = $1", tenant_id
        )
        for (table,) in tables
    }
    return {table: count for table, count in counts.items() if count}


async def populate(svc: asyncsvc.AsyncSvc, tenant_id: str) -> None:
    """Store rows of a tenant in every table."""
    records = [record(f"{n}", n, messages=2, user_id="ann") for n in range(7)]
    await svc.conversations.import_(records, tenant_id=tenant_id)
    await svc.conversations.update_by_id("0", {"name": "title"}, tenant_id=tenant_id)
    await svc.conversations.declare_zone("Europe/Berlin", tenant_id=tenant_id)
    for key in ("one", "two"):
        await svc.conversations.append_message("0", TURN, tenant_id=tenant_id, idempotency_key=key)
    await svc.maintain()
    await svc.conversations.append_message("1", TURN, tenant_id=tenant_id)
    for name in ("one", "two", "three"):
        await svc.tokens.create(tenant_id=tenant_id, name=name)


@pytest.mark.parametrize("batch", [1, 50])
async def test_deletion_of_a_tenant_leaves_no_row(svc, pool, monkeypatch, batch):
    monkeypatch.setattr(erasure, "BATCH_SIZE", batch)
    monkeypatch.setattr(erasure, "_ROW_BATCH_SIZE", batch)
    await populate(svc, "other")
    await populate(svc, "acme")
    before = await rows_of(pool, "other")
    assert len(await rows_of(pool, "acme")) >= 11
    receipts = []
    receipt = await svc.conversations.delete_tenant(tenant_id="acme", on_batch=receipts.append)
    assert (receipt.conversations, receipt.messages, receipt.append_keys) == (7, 17, 2)
    assert (receipt.tokens, receipt.audit_events) == (3, 6)
    assert receipt.usage_rows > 10
    assert receipt.deleted_at is not None
    assert receipts[-1].model_dump(exclude={"deleted_at"}) == receipt.model_dump(
        exclude={"deleted_at"}
    )
    assert await rows_of(pool, "acme") == {}
    assert await rows_of(pool, "other") == before
    again = await svc.conversations.delete_tenant(tenant_id="acme")
    assert again.conversations == again.tokens == again.usage_rows == again.audit_events == 0


async def test_a_tenant_with_concurrent_writes_is_deleted(svc, pool):
    await populate(svc, "acme")
    is_done = False

    async def write() -> None:
        for number in range(20):
            await svc.conversations.create(tenant_id="acme", dialog_id="d", id=f"new{number}")
            await svc.tokens.create(tenant_id="acme", name="new")

    async def maintain() -> None:
        while not is_done:
            await svc.maintain()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(maintain())
        writing = group.create_task(write())
        first = await svc.conversations.delete_tenant(tenant_id="acme")
        await writing
        second = await svc.conversations.delete_tenant(tenant_id="acme")
        is_done = True
    assert first.conversations + second.conversations == 27
    assert first.tokens + second.tokens == 23
    assert await rows_of(pool, "acme") == {}


class Interrupted(Exception):
    """Raised by a callback in the middle of a deletion."""


@pytest.mark.parametrize("is_rolled_up", [True, False])
async def test_totals_stay_exact_while_a_tenant_is_deleted(svc, monkeypatch, is_rolled_up):
    monkeypatch.setattr(erasure, "BATCH_SIZE", 2)
    monkeypatch.setattr(erasure, "_ROW_BATCH_SIZE", 1)
    await populate(svc, "acme")
    if is_rolled_up:
        await svc.maintain()
    is_deleted, attempts = False, 0
    while not is_deleted:
        seen = iter(range(attempts))

        def interrupt(_: object, seen=seen) -> None:
            if next(seen, None) is None:
                raise Interrupted

        attempts += 1
        try:
            await svc.conversations.delete_tenant(tenant_id="acme", on_batch=interrupt)
            is_deleted = True
        except Interrupted:
            page = await svc.conversations.get_list(tenant_id="acme")
            assert page.total == len(page.items)
            await svc.conversations.create(tenant_id="acme", dialog_id="d", id="new")
            if is_rolled_up:
                await svc.maintain()
            page = await svc.conversations.get_list(tenant_id="acme")
            assert page.total == len(page.items)
            await svc.conversations.delete_by_id("new", tenant_id="acme")
    assert attempts > 5


async def test_a_recount_beside_a_deleted_tenant_counts_new_conversations(svc, pool):
    await populate(svc, "acme")
    async with svc.transaction() as tx:
        await tx.conversations.delete_tenant(tenant_id="acme")
        recount = asyncio.create_task(svc.conversations.recount_usage(tenant_id="acme"))
        await asyncio.sleep(0.2)
        assert not recount.done()
        await svc.conversations.create(tenant_id="acme", dialog_id="d", id="new")
    await recount
    assert (await svc.conversations.get_list(tenant_id="acme")).total == 1


async def test_deletion_of_a_tenant_with_continuous_writes_raises_conflict(svc, monkeypatch):
    monkeypatch.setattr(erasure, "_MAX_PASSES", 2)
    await populate(svc, "acme")
    delete, calls = TokenAuditRepository.delete, itertools.count()

    async def delete_and_create(self, **parameters: object) -> int:
        if next(calls) % 2 == 0:
            await svc.tokens.create(tenant_id="acme", name="new")
        return await delete(self, **parameters)

    monkeypatch.setattr(TokenAuditRepository, "delete", delete_and_create)
    with pytest.raises(Conflict, match="other sessions still write"):
        async with asyncio.timeout(60):
            await svc.conversations.delete_tenant(tenant_id="acme")


@pytest.mark.parametrize("by", ["created_at", "updated_at"])
async def test_a_conversation_that_moves_to_another_dialog_is_not_purged(svc, monkeypatch, by):
    await svc.conversations.import_([record("a", 9)], tenant_id="acme")
    find = ConversationRepository.find_expired

    async def find_and_move(self, **parameters: object):
        expired = await find(self, **parameters)
        if expired:
            await svc.conversations.update_by_id("a", {"dialog_id": "e"}, tenant_id="acme")
        return expired

    monkeypatch.setattr(ConversationRepository, "find_expired", find_and_move)
    tomorrow = NOW + timedelta(days=1)
    report = await svc.conversations.purge(tomorrow, tenant_id="acme", dialog_id="d", by=by)
    assert (report.conversations, report.skipped) == (0, 1)
    assert await ids(svc) == ["a"]


async def test_inside_a_transaction_a_deleted_tenant_is_restored_by_a_rollback(svc, pool):
    await populate(svc, "acme")
    before = await rows_of(pool, "acme")
    with pytest.raises(asyncpg.DataError):
        async with svc.transaction() as tx:
            assert (await tx.conversations.delete_tenant(tenant_id="acme")).conversations == 7
            raise asyncpg.DataError
    assert await rows_of(pool, "acme") == before


async def test_a_batch_of_dialogs_is_bounded_by_its_messages(dsn, monkeypatch):
    monkeypatch.setattr(service, "_DIALOG_MAX_MESSAGES", 4)
    statements: list[str] = []

    def on_query(name: str, seconds: float, rows: int, error: object) -> None:
        statements.append(name)

    async with asyncsvc.connect(dsn, settings=Settings(on_query=on_query)) as svc:
        records = [record(f"{n}", 1, messages=2) for n in range(5)]
        await svc.conversations.import_(records, tenant_id="acme")
        assert await svc.conversations.delete_by_dialog_ids(["d"], tenant_id="acme") == 5
    assert statements.count("conversation/delete") == 3


async def test_inside_a_transaction_nothing_is_committed(svc):
    await svc.conversations.import_([record("a", 9, user_id="ann")], tenant_id="acme")
    for _ in range(2):
        with pytest.raises(asyncpg.DataError):
            async with svc.transaction() as tx:
                await tx.conversations.purge(timedelta(days=1), tenant_id="acme")
                await tx.conversations.erase_user("ann", tenant_id="acme")
                assert await ids(tx) == []
                raise asyncpg.DataError
    assert await ids(svc) == ["a"]


async def test_a_deletion_without_a_selection_deletes_nothing(svc):
    await svc.conversations.create(tenant_id="acme", dialog_id="d", id="a")
    repository = ConversationRepository(svc._executor)
    for selection in ({}, {"ids": ["a"], "dialog_ids": ["d"]}):
        with pytest.raises(TypeError, match="exactly one"):
            await repository.delete(tenant_id="acme", **selection)
    assert (await svc.conversations.get_by_id("a", tenant_id="acme")).id == "a"
