"""The library behind a pooler of transactions, with fewer connections than clients."""

import asyncio
import contextlib
import random

import asyncpg
import pytest

import asyncsvc
from asyncsvc import AlreadyExists, Conflict, InvalidInput, InvalidToken, NotFound, Settings
from tests.conftest import SERVER_CONNECTIONS
from tests.support.citus import ON_CITUS
from tests.support.registry import SERVICE_METHODS, furnish

TURN = {"messages": [{"role": "user", "content": "hello"}]}
POOLED = Settings(pgbouncer="transaction")
REFUSALS = (AlreadyExists, Conflict, InvalidToken, NotFound)


@pytest.fixture
async def pooled(pooler_setting):
    """The services on a PgBouncer that pools transactions."""
    dsns, setting = pooler_setting
    async with asyncsvc.connect(
        dsns["transaction"], settings=Settings(pgbouncer=setting), max_size=4 * SERVER_CONNECTIONS
    ) as svc:
        yield svc


async def test_concurrent_migrations_through_the_pooler_apply_once(pooled, svc):
    await svc._executor._pool.execute("DROP SCHEMA asyncsvc CASCADE")
    done = await asyncio.gather(*(pooled.migrate(citus=ON_CITUS) for _ in range(4)))
    assert sorted(map(len, done)) == [0, 0, 0, 1]
    await pooled.check()


async def test_every_method_works_while_16_clients_share_4_connections(pooled):
    """Each connection runs statements of all clients in turn."""
    tenants = [await furnish(pooled, f"t{number}") for number in range(5)]

    async def use(tenant):
        for method in SERVICE_METHODS:
            with contextlib.suppress(*REFUSALS):  # another client was faster
                await method.run(pooled, method.arguments(tenant))

    await asyncio.gather(*(use(tenants[client % 5]) for client in range(4 * SERVER_CONNECTIONS)))
    for tenant in tenants:  # `delete_tenant` is one of the methods; the next call is a normal one
        await pooled.conversations.create(tenant_id=tenant.id, dialog_id="last", id="last")
        page = await pooled.conversations.get_list(tenant_id=tenant.id, dialog_id="last")
        assert [item.id for item in page.items] == ["last"]


async def test_32_writers_through_the_pooler_lose_nothing(pooled):
    await pooled.conversations.create(tenant_id="acme", dialog_id="d", id="a")

    async def write(writer):
        for turn in range(5):
            key = f"{writer}.{turn}" if writer % 2 else None
            await pooled.conversations.append_message(
                "a", TURN, tenant_id="acme", idempotency_key=key
            )

    await asyncio.gather(*(write(writer) for writer in range(32)))
    stored = await pooled.conversations.get_by_id("a", tenant_id="acme", include_messages=True)
    assert (stored.round, stored.last_seq) == (160, 160)
    assert [message.seq for message in stored.messages] == list(range(1, 161))


async def test_transactions_and_savepoints_work_through_the_pooler(pooled):
    async with pooled.transaction() as tx:
        await tx.conversations.create(tenant_id="acme", dialog_id="d", id="a")
        with contextlib.suppress(ZeroDivisionError):
            async with tx.transaction() as inner:
                await inner.conversations.create(tenant_id="acme", dialog_id="d", id="b")
                raise ZeroDivisionError
    assert (await pooled.conversations.get_list(dialog_id="d", tenant_id="acme")).total == 1


async def test_import_and_export_work_through_the_pooler(pooled):
    records = [
        {"id": str(number), "dialog_id": "d", "messages": TURN["messages"] * 3}
        for number in range(50)
    ]
    report = await pooled.conversations.import_(records, tenant_id="acme")
    assert (report.conversations, report.messages) == (50, 150)
    exported = [each async for each in pooled.conversations.export(tenant_id="acme")]
    assert len(exported) == 50


async def test_explain_works_through_the_pooler(pooled):
    plan = await pooled.explain("conversation/get_list", present=["user_id"])
    assert any("conversation" in line for line in plan.lines)


async def test_a_statement_timeout_leaves_the_pool_usable(pgbouncer):
    settings = Settings(pgbouncer="transaction", statement_timeout=0.3)
    async with asyncsvc.connect(pgbouncer["transaction"], settings=settings, max_size=2) as svc:
        await svc.conversations.create(tenant_id="acme", dialog_id="d", id="a")
        async with svc.transaction() as tx:
            await tx.conversations.update_by_id("a", {"name": "x"}, tenant_id="acme")
            with pytest.raises(asyncsvc.StatementTimeout):
                await svc.conversations.update_by_id("a", {"name": "y"}, tenant_id="acme")
        await svc.conversations.update_by_id("a", {"name": "z"}, tenant_id="acme")


async def test_cancellations_and_lost_connections_leave_the_pool_usable(pooled, pool):
    await pooled.conversations.create(tenant_id="acme", dialog_id="d", id="a")
    dice = random.Random(7)

    async def append(key):
        task = asyncio.create_task(
            pooled.conversations.append_message("a", TURN, tenant_id="acme", idempotency_key=key)
        )
        await asyncio.sleep(dice.random() * 0.02)
        task.cancel()
        await asyncio.wait([task])

    for round_number in range(10):
        await asyncio.gather(*(append(f"{round_number}.{each}") for each in range(16)))
        await pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    keys = [f"{round_number}.{each}" for round_number in range(10) for each in range(16)]
    for key in keys:  # the turn is applied once, for any outcome of the first call
        await pooled.conversations.append_message("a", TURN, tenant_id="acme", idempotency_key=key)
    stored = await pooled.conversations.get_by_id("a", tenant_id="acme", include_messages=True)
    assert stored.round == len(keys)
    assert [message.seq for message in stored.messages] == list(range(1, len(keys) + 1))


async def test_failed_calls_return_their_server_connections(pooler_setting, monkeypatch):
    """asyncpg sends a new statement in 2 parts, and PgBouncer waits for the second one."""
    dsns, setting = pooler_setting
    dsn = dsns["transaction"]
    settings = Settings(pgbouncer=setting, maintenance_interval=None)
    get_statement = asyncpg.Connection._get_statement

    async def fail(*arguments, **options):
        await get_statement(*arguments, **options)
        raise asyncio.CancelledError

    size = 4 * SERVER_CONNECTIONS
    async with asyncsvc.connect(dsn, settings=settings, max_size=size) as svc:
        reads = [svc.conversations.get_list(tenant_id="acme") for _ in range(size)]
        with monkeypatch.context() as patch:
            patch.setattr(asyncpg.Connection, "_get_statement", fail)
            failures = await asyncio.gather(*reads, return_exceptions=True)
        assert {type(each) for each in failures} == {asyncio.CancelledError}
        async with asyncsvc.connect(dsn, settings=settings, max_size=1) as other:
            assert (await other.conversations.get_list(tenant_id="acme")).items == []


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_without_the_setting_connect_is_rejected(pgbouncer, mode):
    with pytest.raises(InvalidInput, match=r"Settings\.pgbouncer"):
        async with asyncsvc.connect(pgbouncer[mode]):
            pass


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_a_pooler_that_keeps_no_prepared_statements_is_rejected(pgbouncer, mode):
    settings = Settings(pgbouncer="prepared")
    with pytest.raises(InvalidInput, match=r"Settings\.pgbouncer=\"prepared\".*max_prepared_state"):
        await asyncsvc.connect(pgbouncer[mode], settings=settings)


async def test_prepared_works_without_a_pooler(dsn):
    async with asyncsvc.connect(dsn, settings=Settings(pgbouncer="prepared")) as svc:
        assert (await svc.conversations.get_list(tenant_id="acme")).items == []


async def test_a_lost_prepared_statement_names_the_setting(svc, pool):
    async with pool.acquire() as connection:
        mine = svc.on(connection)
        await mine.conversations.get_list(tenant_id="acme")
        await connection.execute("DEALLOCATE ALL")  # as another server connection of a pooler
        with pytest.raises(asyncsvc.DatabaseError, match=r"Settings\.pgbouncer") as caught:
            await mine.conversations.get_list(tenant_id="acme")
    assert caught.value.sqlstate == "26000"


async def test_statements_stay_prepared_through_the_pooler(keeping_pgbouncer, pool):
    settings = Settings(pgbouncer="prepared", maintenance_interval=None)
    async with asyncsvc.connect(
        keeping_pgbouncer["transaction"], settings=settings, max_size=1
    ) as svc:
        for _ in range(3):
            await svc.conversations.get_list(tenant_id="acme")
        async with svc.transaction() as tx:
            names = await tx._executor._connection.fetch(
                "SELECT name FROM pg_prepared_statements WHERE statement LIKE '%get_list%'"
            )
    assert any(each["name"].startswith("PGBOUNCER_") for each in names)


async def test_more_variants_than_the_pooler_keeps_make_no_error(keeping_pgbouncer):
    """The client keeps 20 statements and the pooler 100, so both drop some."""
    optional = {"user_id": "u", "dialog_id": "d", "keywords": "parcel", "id": "a", "thumb": 1}
    optional |= {"from_date": "2026-01-01", "include_dsl": False, "desc": False}
    settings = Settings(pgbouncer="prepared", maintenance_interval=None)
    way = keeping_pgbouncer["transaction"]
    async with asyncsvc.connect(way, settings=settings, max_size=16) as svc:

        async def read(seed):
            dice = random.Random(seed)
            for _ in range(40):
                chosen = dice.sample(sorted(optional), dice.randrange(len(optional)))
                where = {name: optional[name] for name in chosen}
                assert not (await svc.conversations.get_list(tenant_id="acme", **where)).items

        await asyncio.gather(*map(read, range(16)))


async def test_the_setting_works_with_pooled_sessions_and_without_a_pooler(pgbouncer, dsn):
    for way in (pgbouncer["session"], dsn):
        async with asyncsvc.connect(way, settings=POOLED) as svc:
            page = await svc.conversations.get_list(dialog_id="d", tenant_id="acme")
            assert (page.total, page.items) == (0, [])
