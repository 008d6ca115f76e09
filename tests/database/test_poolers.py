"""Poolers that change while clients are connected: their settings, connections and the schema."""

import asyncio
import contextlib

import asyncpg
import pytest

import asyncsvc
from asyncsvc import DatabaseError, InvalidInput, Settings, Unavailable
from tests.conftest import SERVER_CONNECTIONS

TURN = {"messages": [{"role": "user", "content": "hello"}]}
PREPARED = Settings(pgbouncer="prepared", maintenance_interval=None)


async def run_on_console(dsns, command):
    console = await asyncpg.connect(dsns["console"], statement_cache_size=0)
    try:
        await console.execute(command)
    finally:
        await console.close()


async def test_a_client_never_runs_the_statement_of_another_process(keeping_pgbouncer, monkeypatch):
    """asyncpg numbers statements in each process; a pooler may pass the numbers to the server."""
    way = keeping_pgbouncer["transaction"]
    async with (
        asyncsvc.connect(way, settings=PREPARED, max_size=1) as one,
        asyncsvc.connect(way, settings=PREPARED, max_size=1) as other,
    ):
        await one.conversations.create(tenant_id="acme", dialog_id="x", id="a")
        await run_on_console(keeping_pgbouncer, "SET max_prepared_statements = 0")
        async with one.transaction() as first, other.transaction() as second:
            monkeypatch.setattr(asyncpg.connection, "_uid", 1_000)
            assert (await first.conversations.get_list(tenant_id="acme", dialog_id="x")).total == 1
            monkeypatch.setattr(asyncpg.connection, "_uid", 1_000)
            assert (await second.conversations.get_list(tenant_id="acme", user_id="x")).total == 0
        # PgBouncer uses the server connection that it got back last: that of `first`.
        with pytest.raises(DatabaseError) as caught:
            await other.conversations.get_list(tenant_id="acme", user_id="x")
    assert caught.value.sqlstate == "26000"


async def test_each_new_connection_is_checked(keeping_pgbouncer):
    way = keeping_pgbouncer["transaction"]
    async with asyncsvc.connect(way, settings=PREPARED, max_size=2) as svc:
        await run_on_console(keeping_pgbouncer, "SET max_prepared_statements = 0")
        async with svc.transaction():
            with pytest.raises(InvalidInput, match="keeps no prepared statements"):
                await svc.conversations.get_list(tenant_id="acme")


async def test_a_paused_pooler_is_unavailable_after_the_acquire_timeout(keeping_pgbouncer):
    settings = PREPARED.model_copy(update={"acquire_timeout": 0.5, "statement_timeout": 600.0})
    way = keeping_pgbouncer["transaction"]
    async with asyncsvc.connect(way, settings=settings):  # PgBouncer then knows the server
        await run_on_console(keeping_pgbouncer, "PAUSE")
        try:
            async with asyncio.timeout(60):
                with pytest.raises(Unavailable):
                    await asyncsvc.connect(way, settings=settings)
        finally:
            await run_on_console(keeping_pgbouncer, "RESUME")


async def test_a_pooler_without_a_free_connection_is_unavailable(pgbouncer):
    settings = Settings(pgbouncer="transaction", maintenance_interval=None)
    way = pgbouncer["transaction"]
    async with asyncsvc.connect(way, settings=settings, max_size=1) as svc:
        await run_on_console(pgbouncer, "SET max_client_conn = 1")
        with pytest.raises(Unavailable, match="max_client_conn"):
            await asyncsvc.connect(way, settings=settings)
        assert (await svc.conversations.get_list(tenant_id="acme")).items == []


async def test_a_check_leaves_no_statement_in_a_session(pgbouncer):
    settings = Settings(pgbouncer="transaction", maintenance_interval=None)
    way = pgbouncer["transaction"]
    async with asyncsvc.connect(way, settings=settings, max_size=1) as svc:
        await svc.doctor()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(SERVER_CONNECTIONS):  # each transaction holds a server connection
            connection = await asyncpg.connect(way, statement_cache_size=0)
            stack.push_async_callback(connection.close)
            await stack.enter_async_context(connection.transaction())
            assert await connection.fetchval("SELECT count(*) FROM pg_prepared_statements") == 0


async def test_calls_survive_new_server_connections_and_new_columns(pooler_setting, pool):
    dsns, setting = pooler_setting
    settings = Settings(pgbouncer=setting, maintenance_interval=None, acquire_timeout=60.0)
    async with asyncsvc.connect(
        dsns["transaction"], settings=settings, max_size=4 * SERVER_CONNECTIONS
    ) as svc:
        turns = dict.fromkeys(map(str, range(32)), 0)
        new = [{"id": id, "dialog_id": "d"} for id in turns]
        await svc.conversations.create_many(new, tenant_id="acme")

        async def write(id):
            while True:
                await svc.conversations.append_message(
                    id, TURN, tenant_id="acme", idempotency_key=f"{turns[id]}"
                )
                turns[id] += 1
                stored = await svc.conversations.get_by_id(id, tenant_id="acme")
                assert stored.last_seq == turns[id]

        async def change():
            for number in range(5):
                before = sum(turns.values())
                await run_on_console(dsns, "RECONNECT")
                for table in ("conversation", "message"):
                    await pool.execute(f"ALTER TABLE asyncsvc.{table} ADD COLUMN c{number} integer")
                while sum(turns.values()) < before + 64:
                    await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as group:
            writers = [group.create_task(write(id)) for id in turns]
            await change()
            for writer in writers:
                writer.cancel()


async def test_a_changed_result_type_needs_new_server_connections(keeping_pgbouncer, pool):
    """The pooler keeps the statement of the old type; a migration of asyncsvc changes no type."""
    way = keeping_pgbouncer["transaction"]
    async with asyncsvc.connect(way, settings=PREPARED, max_size=1) as svc:
        await svc.conversations.create(tenant_id="acme", dialog_id="d", id="a")
        for _ in range(3):
            await svc.conversations.get_list(tenant_id="acme")
        await pool.execute("ALTER TABLE asyncsvc.conversation ALTER COLUMN name TYPE varchar")
        with pytest.raises(DatabaseError, match="schema or configuration change"):
            await svc.conversations.get_list(tenant_id="acme")
        await run_on_console(keeping_pgbouncer, "RECONNECT")
        assert (await svc.conversations.get_list(tenant_id="acme")).total == 1
