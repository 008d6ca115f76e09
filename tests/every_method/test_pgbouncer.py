"""The library behind a pooler of transactions, with fewer connections than clients."""

import asyncio
import contextlib
import random

import pytest

import asyncsvc
from asyncsvc import AlreadyExists, Conflict, InvalidInput, InvalidToken, NotFound, Settings
from tests.conftest import SERVER_CONNECTIONS
from tests.support.registry import SERVICE_METHODS, furnish

TURN = {"messages": [{"role": "user", "content": "hello"}]}
POOLED = Settings(pgbouncer=True)
REFUSALS = (AlreadyExists, Conflict, InvalidToken, NotFound)


@pytest.fixture
async def pooled(pgbouncer):
    """The services on a PgBouncer that pools transactions."""
    async with asyncsvc.connect(
        pgbouncer["transaction"], settings=POOLED, max_size=4 * SERVER_CONNECTIONS
    ) as svc:
        yield svc


async def test_concurrent_migrations_through_the_pooler_apply_once(pooled, svc):
    await svc._executor._pool.execute("DROP SCHEMA asyncsvc CASCADE")
    done = await asyncio.gather(*(pooled.migrate() for _ in range(4)))
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
    settings = Settings(pgbouncer=True, statement_timeout=0.3)
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


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_without_the_setting_connect_is_rejected(pgbouncer, mode):
    with pytest.raises(InvalidInput, match=r"Settings\.pgbouncer"):
        async with asyncsvc.connect(pgbouncer[mode]):
            pass


async def test_a_lost_prepared_statement_names_the_setting(svc, pool):
    async with pool.acquire() as connection:
        mine = svc.on(connection)
        await mine.conversations.get_list(tenant_id="acme")
        await connection.execute("DEALLOCATE ALL")  # as another server connection of a pooler
        with pytest.raises(asyncsvc.DatabaseError, match=r"Settings\.pgbouncer") as caught:
            await mine.conversations.get_list(tenant_id="acme")
    assert caught.value.sqlstate == "26000"


async def test_the_setting_works_with_pooled_sessions_and_without_a_pooler(pgbouncer, dsn):
    for way in (pgbouncer["session"], dsn):
        async with asyncsvc.connect(way, settings=POOLED) as svc:
            page = await svc.conversations.get_list(dialog_id="d", tenant_id="acme")
            assert (page.total, page.items) == (0, [])
