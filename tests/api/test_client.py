"""The facade: pools, connections, transactions, timeouts and the translation of errors."""

import asyncio
import contextlib
import socket

import asyncpg
import pytest

import asyncsvc
from asyncsvc import (
    AlreadyExists,
    AsyncSvc,
    ConcurrentUse,
    DatabaseError,
    InvalidInput,
    LockTimeout,
    MigrationError,
    NotFound,
    PoolClosed,
    PoolExhausted,
    Settings,
    StatementTimeout,
    Unavailable,
)
from asyncsvc.database import sql_files, translate_errors
from asyncsvc.database.driver_errors import is_transient
from asyncsvc.database.sql_files import Query
from tests.conftest import fetch
from tests.support.registry.counting import until_blocked
from tests.support.wire import Wire

LOCK_CONVERSATION = "SELECT 1 FROM asyncsvc.conversation WHERE tenant_id = 'acme' FOR UPDATE"
SLEEP = "SELECT pg_sleep(20)"
TERMINATE = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query = $1"
OPEN_TRANSACTIONS = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
"""


async def create(svc, id, tenant_id="acme"):
    await svc.conversations.create(tenant_id=tenant_id, dialog_id="d", id=id)


async def listed(svc):
    page = await svc.conversations.get_list(dialog_id="d", tenant_id="acme", desc=False)
    return [item.id for item in page.items]


async def test_a_borrowed_pool_is_neither_closed_nor_configured(pool):
    await create(AsyncSvc(pool), "a")
    async with pool.acquire() as connection:
        assert await connection.fetchval("SHOW plan_cache_mode") == "auto"
        assert await connection.fetchval("SELECT count(*) FROM asyncsvc.conversation") == 1


async def test_connect_closes_its_pool_at_the_end_of_the_block(dsn):
    async with asyncsvc.connect(dsn) as svc:
        await create(svc, "a")
    with pytest.raises(Unavailable, match="closed"):
        await create(svc, "b")


async def test_connect_can_be_awaited_and_closed(dsn):
    opening = asyncsvc.connect(dsn)
    svc, other = await opening, await opening
    await other.close()
    assert await svc.tokens.get_list(tenant_id="acme")
    await svc.close()
    with pytest.raises(PoolClosed):
        await svc.tokens.get_list(tenant_id="acme")
    await svc.close()


async def test_close_leaves_a_borrowed_pool_open(pool):
    svc = asyncsvc.AsyncSvc(pool)
    await svc.close()
    assert await svc.tokens.get_list(tenant_id="acme")


async def test_a_transaction_covers_both_services(svc):
    async with svc.transaction() as tx:
        await create(tx, "a")
        issued = await tx.tokens.create(tenant_id="acme", name="t")
        assert await listed(svc) == []
    assert await listed(svc) == ["a"]
    assert await svc.tokens.verify(issued.secret)


async def test_an_error_rolls_back_the_transaction(svc):
    with pytest.raises(ZeroDivisionError):
        async with svc.transaction() as tx:
            await create(tx, "a")
            raise ZeroDivisionError
    assert await listed(svc) == []


async def test_a_nested_transaction_is_a_savepoint(svc):
    async with svc.transaction() as tx:
        await create(tx, "a")
        with contextlib.suppress(ZeroDivisionError):
            async with tx.transaction() as inner:
                await create(inner, "b")
                raise ZeroDivisionError
        async with tx.transaction() as inner:
            await create(inner, "c")
    assert await listed(svc) == ["a", "c"]


async def fail(svc):
    """Run a statement that fails on the server, and suppress its error."""
    with pytest.raises(DatabaseError):
        await svc._executor.fetch(Query("test/fail", "SELECT 1/0", ()))


async def test_a_transaction_with_a_failed_statement_raises_at_its_end(svc):
    with pytest.raises(DatabaseError, match="rolled back") as caught:
        async with svc.transaction() as tx:
            await create(tx, "a")
            await fail(tx)
    assert caught.value.sqlstate == "25P02"
    assert caught.value.__cause__.sqlstate == "22012"
    assert await listed(svc) == []


async def test_a_failed_statement_in_a_savepoint_leaves_the_outer_transaction_usable(svc):
    async with svc.transaction() as tx:
        await create(tx, "a")
        with pytest.raises(DatabaseError, match="rolled back"):
            async with tx.transaction() as inner:
                await create(inner, "b")
                await fail(inner)
        await create(tx, "c")
    assert await listed(svc) == ["a", "c"]


@pytest.mark.parametrize("repeatedly", [False, True])
async def test_a_cancelled_begin_leaves_no_transaction(svc, pool, repeatedly):
    async with pool.acquire() as connection:
        mine = svc.on(connection)

        async def begin():
            async with mine.transaction():
                await asyncio.sleep(60)

        for turns in range(12):
            task = asyncio.create_task(begin())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            while repeatedly and not task.done():
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert not connection.is_in_transaction()
            async with mine.transaction() as tx:
                await create(tx, str(turns))
    assert len(await listed(svc)) == 12


async def test_a_failed_statement_of_the_caller_raises_at_the_end_of_the_transaction(svc, pool):
    async with pool.acquire() as connection:
        with pytest.raises(DatabaseError) as caught:
            async with svc.on(connection).transaction() as tx:
                await create(tx, "a")
                with contextlib.suppress(asyncpg.DivisionByZeroError):
                    await connection.execute("SELECT 1/0")
        assert caught.value.sqlstate == "25P02"
        async with connection.transaction():
            with pytest.raises(DatabaseError):
                async with svc.on(connection).transaction() as inner:
                    await create(inner, "b")
                    with contextlib.suppress(asyncpg.DivisionByZeroError):
                        await connection.execute("SELECT 1/0")
            await create(svc.on(connection), "c")
    assert await listed(svc) == ["c"]


async def test_a_transaction_begun_by_hand_is_a_concurrent_use(svc, pool):
    async with pool.acquire() as connection:
        await connection.execute("BEGIN")
        with pytest.raises(ConcurrentUse, match="begun by hand"):
            async with svc.on(connection).transaction():
                pass
        await create(svc.on(connection), "a")
        await connection.execute("COMMIT")
    assert await listed(svc) == ["a"]


async def test_services_on_a_connection_follow_the_callers_transaction(svc, pool):
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        mine = svc.on(connection)
        await create(mine, "a")
        async with mine.transaction() as inner:
            await create(inner, "b")
        await transaction.rollback()
        assert await listed(svc) == []
        await create(mine, "c")
    assert await listed(svc) == ["c"]


async def test_an_error_in_a_savepoint_leaves_the_callers_transaction_usable(svc, pool):
    async with pool.acquire() as connection, connection.transaction():
        mine = svc.on(connection)
        await create(mine, "a")
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with connection.transaction():
                await connection.execute("SELECT 1/0")
        with pytest.raises(AlreadyExists):
            await create(mine, "a")
        with pytest.raises(NotFound):
            await mine.conversations.get_by_id("x", tenant_id="acme")
        await create(mine, "b")
    assert await listed(svc) == ["a", "b"]


async def test_calls_leave_no_session_state(svc, pool):
    query = "SELECT name, setting FROM pg_settings WHERE source = 'session' ORDER BY name"
    async with pool.acquire() as connection:
        before = await connection.fetch(query)
        mine = svc.on(connection)
        await create(mine, "a")
        await mine.conversations.get_list(dialog_id="d", tenant_id="acme", keywords="a")
        await mine.conversations.stats(
            tenant_id="acme", from_date="2026-01-01", to_date="2026-01-02", tz="Europe/Berlin"
        )
        async with mine.transaction() as tx:
            await tx.tokens.create(tenant_id="acme", name="t")
        assert await connection.fetch(query) == before
        assert not connection.is_in_transaction()
        locks = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        assert await connection.fetch(locks) == []


async def test_two_tasks_in_one_transaction_raise_concurrent_use(svc):
    async with svc.transaction() as tx:
        outcomes = await asyncio.gather(
            *(create(tx, str(number)) for number in range(3)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes if outcome] == [ConcurrentUse] * 2
        await create(tx, "after")
    assert len(await listed(svc)) == 2


async def test_a_connection_that_the_caller_uses_raises_concurrent_use(svc, pool):
    async with pool.acquire() as connection:
        async with pool.acquire() as holder, holder.transaction():
            await holder.execute("SELECT pg_advisory_xact_lock(1)")
            busy = asyncio.create_task(connection.execute("SELECT pg_advisory_xact_lock(1)"))
            await asyncio.sleep(0)
            with pytest.raises(ConcurrentUse):
                await create(svc.on(connection), "a")
        await busy
        await create(svc.on(connection), "a")


async def test_an_outer_transaction_cannot_be_used_during_an_inner_one(svc):
    async with svc.transaction() as tx:
        async with tx.transaction():
            with pytest.raises(ConcurrentUse):
                await create(tx, "a")
        await create(tx, "a")


async def test_a_call_on_an_exhausted_pool_ends_after_acquire_timeout(dsn):
    settings = Settings(acquire_timeout=0.3)
    async with asyncsvc.connect(dsn, settings=settings, max_size=1) as svc:
        async with svc.transaction() as tx:
            async with asyncio.timeout(60):
                with pytest.raises(PoolExhausted, match=r"within 0\.3 s"):
                    await create(svc, "a")
            await create(tx, "b")
        await create(svc, "c")
        assert await listed(svc) == ["b", "c"]


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (Settings(statement_timeout=0.3), StatementTimeout),
        (Settings(lock_timeout=0.2), LockTimeout),
    ],
)
async def test_a_statement_that_waits_for_a_row_ends_after_its_timeout(dsn, pool, settings, error):
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        await create(svc, "a")
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(LOCK_CONVERSATION)
            with pytest.raises(error):
                await svc.conversations.update_by_id("a", {"name": "x"}, tenant_id="acme")
        await svc.conversations.update_by_id("a", {"name": "y"}, tenant_id="acme")


@pytest.mark.parametrize("bound", ["lock_timeout", "idle_transaction_timeout"])
async def test_the_server_accepts_the_smallest_and_the_largest_timeout(dsn, bound):
    for seconds in (0.001, (2**31 - 1) // 1_000):
        async with asyncsvc.connect(dsn, settings=Settings(**{bound: seconds})) as svc:
            await listed(svc)
    for seconds in (0, 0.0005, 2**31 // 1_000 + 1):
        with pytest.raises(InvalidInput, match=bound):
            Settings(**{bound: seconds})


async def test_an_idle_transaction_ends_after_idle_transaction_timeout(dsn, pool):
    settings = Settings(idle_transaction_timeout=0.2)
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        await create(svc, "a")
        with pytest.raises(Unavailable):
            async with svc.transaction() as tx:
                await tx.conversations.update_by_id("a", {"name": "x"}, tenant_id="acme")
                async with asyncio.timeout(20):
                    await pool.execute(LOCK_CONVERSATION)
        stored = await svc.conversations.get_by_id("a", tenant_id="acme")
    assert stored.name is None


async def test_a_migration_waits_for_another_one_without_a_timeout(empty_dsn):
    settings = Settings(lock_timeout=0.1, statement_timeout=0.2)
    async with asyncsvc.connect(empty_dsn, settings=settings) as svc:
        lock = sql_files.load("migration/try_lock").bind((), {})
        async with svc.transaction() as tx:
            await tx._executor.fetch(lock)
            waiting = asyncio.create_task(svc.migrate())
            await asyncio.sleep(0.5)
            assert not waiting.done()
        assert len(await waiting) == 1


@pytest.mark.parametrize("declare", ["declare_zone", "recount_usage"])
async def test_a_recount_may_exceed_statement_timeout(dsn, pool, declare):
    settings = Settings(statement_timeout=0.2, lock_timeout=30)
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        await svc.conversations.declare_zone(tenant_id="acme", tz="UTC")
        zone = ["Europe/Paris"] if declare == "declare_zone" else []
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "SELECT 1 FROM asyncsvc.usage_zone WHERE tenant_id = 'acme' FOR UPDATE"
            )
            recount = getattr(svc.conversations, declare)
            waiting = asyncio.create_task(recount(*zone, tenant_id="acme"))
            await asyncio.sleep(0.6)
            assert not waiting.done()
        await waiting


async def test_a_statement_that_the_server_cancels_raises_statement_timeout(svc, pool):
    await create(svc, "a")
    async with pool.acquire() as connection:
        await connection.execute("SET statement_timeout = '100ms'")
        async with pool.acquire() as other, other.transaction():
            await other.execute(LOCK_CONVERSATION)
            with pytest.raises(StatementTimeout):
                await svc.on(connection).conversations.update_by_id(
                    "a", {"name": "x"}, tenant_id="acme"
                )


async def test_a_missing_server_raises_unavailable_with_a_message_of_one_line():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Unavailable) as caught:
        async with asyncsvc.connect(f"postgresql://postgres@127.0.0.1:{port}/x"):
            pass
    assert "\n" not in str(caught.value)
    assert "cannot be reached" in str(caught.value)


async def test_a_server_without_the_requested_role_raises_unavailable(dsn):
    with pytest.raises(Unavailable, match="no server has the requested role"):
        async with asyncsvc.connect(f"{dsn}?target_session_attrs=standby"):
            pass


async def test_a_missing_database_raises(dsn):
    with pytest.raises(asyncsvc.AsyncSvcError, match="does not exist"):
        async with asyncsvc.connect(f"{dsn}_absent"):
            pass


@pytest.mark.parametrize(
    "wrong",
    ["nonsense://x", "postgresql://[::1", "postgresql://h:port/x", None, 5, b"postgresql://h"],
)
async def test_an_invalid_dsn_is_rejected(wrong):
    with pytest.raises(InvalidInput, match="dsn"):
        async with asyncsvc.connect(wrong):
            pass


@pytest.mark.parametrize(("min_size", "max_size"), [(2, 1), (-1, 1), (0, 0), ("1", 2), (1, None)])
async def test_invalid_pool_sizes_are_rejected(dsn, min_size, max_size):
    with pytest.raises(InvalidInput, match="max_size"):
        async with asyncsvc.connect(dsn, min_size=min_size, max_size=max_size):
            pass


@pytest.mark.parametrize("options", [{"replicas": 5}, {"replicas": [5]}, {"settings": {}}])
async def test_an_invalid_option_of_connect_is_rejected(dsn, options):
    (field,) = options
    with pytest.raises(InvalidInput) as caught:
        async with asyncsvc.connect(dsn, **options):
            pass
    assert caught.value.field == field


async def test_calls_on_a_lost_connection_raise_unavailable(svc, dsn, pool):
    connection = await asyncpg.connect(dsn)
    mine = svc.on(connection)
    await create(mine, "a")
    await pool.execute("SELECT pg_terminate_backend($1::int)", connection.get_server_pid())
    for _ in range(2):
        with pytest.raises(Unavailable):
            await create(mine, "b")
    await create(svc, "b")


async def test_a_call_whose_connection_is_lost_can_be_cancelled(dsn):
    """A cancelled read is not retried, although other reads on a lost connection are."""
    async with asyncsvc.connect(dsn, max_size=1) as svc:
        await create(svc, "a")
        reading = asyncio.create_task(svc._executor.fetch(Query("x", SLEEP, (), {}, True)))
        await asyncio.sleep(0.2)
        svc._executor._pool._holders[0]._con.terminate()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await listed(svc) == ["a"]


async def test_a_terminated_connection_raises_unavailable_with_the_servers_error_as_cause(
    dsn, pool
):
    async with asyncsvc.connect(dsn, max_size=1, settings=Settings(retry_timeout=0)) as svc:
        reading = asyncio.create_task(svc._executor.fetch(Query("x", SLEEP, ())))
        async with asyncio.timeout(20):
            while not await pool.fetchval(TERMINATE, SLEEP):
                await asyncio.sleep(0.01)
        with pytest.raises(Unavailable) as caught:
            await reading
        assert isinstance(caught.value.__cause__, asyncpg.PostgresError)


async def test_a_transaction_on_a_lost_connection_raises_unavailable_and_frees_the_connection(
    dsn, pool
):
    async with asyncsvc.connect(dsn, max_size=1) as svc:
        with pytest.raises(Unavailable):
            async with svc.transaction() as tx:
                await create(tx, "a")
                await pool.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                await create(tx, "b")
        assert await listed(svc) == []


async def test_a_cancellation_is_not_replaced_by_an_error_of_the_network(dsn):
    settings = Settings(acquire_timeout=0.5, statement_timeout=20)
    async with Wire(dsn) as wire, asyncsvc.connect(wire.dsn, settings=settings) as svc:
        await create(svc, "a")
        wire.stall()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await create(svc, "b")
        wire.resume()


async def test_a_commit_without_a_reply_times_out_on_a_borrowed_pool(dsn):
    settings = Settings(acquire_timeout=0.5, statement_timeout=0.5)
    async with Wire(dsn) as wire, asyncpg.create_pool(wire.dsn, min_size=0) as pool:
        svc = AsyncSvc(pool, settings=settings)
        with pytest.raises(StatementTimeout):
            async with asyncio.timeout(20), svc.transaction() as tx:
                await create(tx, "a")
                wire.stall()
        wire.resume()


async def test_a_begin_without_a_reply_times_out_on_a_borrowed_pool(dsn):
    settings = Settings(acquire_timeout=0.5, statement_timeout=0.5)
    async with Wire(dsn) as wire, asyncpg.create_pool(wire.dsn, min_size=1) as pool:
        wire.stall()
        with pytest.raises(StatementTimeout):
            async with asyncio.timeout(10), AsyncSvc(pool, settings=settings).transaction():
                pass
        wire.resume()


async def test_an_error_in_a_block_is_not_replaced_by_an_error_of_the_network(dsn):
    settings = Settings(acquire_timeout=0.5, statement_timeout=0.5)
    async with Wire(dsn) as wire, asyncsvc.connect(wire.dsn, settings=settings) as svc:
        with pytest.raises(ZeroDivisionError):
            async with asyncio.timeout(20), svc.transaction() as tx:
                await create(tx, "a")
                wire.stall()
                raise ZeroDivisionError
        wire.resume()


async def test_a_cancelled_transaction_is_rolled_back(dsn):
    async with asyncsvc.connect(dsn, max_size=1) as svc:
        entered = asyncio.Event()

        async def work():
            async with svc.transaction() as tx:
                await create(tx, "a")
                entered.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(work())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await listed(svc) == []


async def test_a_missing_schema_raises_migration_error(empty_dsn):
    async with asyncsvc.connect(empty_dsn) as svc:
        with pytest.raises(MigrationError, match=r"await svc\.migrate\(\)"):
            await create(svc, "a")


async def test_an_unexpected_error_of_the_server_keeps_its_sqlstate(dsn, pool):
    await pool.execute(
        "ALTER TABLE asyncsvc.conversation ADD CONSTRAINT short CHECK (length(id) < 5)"
    )
    async with asyncsvc.connect(dsn) as svc:
        with pytest.raises(DatabaseError) as caught:
            await create(svc, "too long")
    assert caught.value.sqlstate == "23514"
    assert isinstance(caught.value.__cause__, asyncpg.CheckViolationError)


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (asyncpg.TooManyConnectionsError, True),
        (asyncpg.CannotConnectNowError, True),
        (asyncpg.AdminShutdownError, True),
        (asyncpg.CrashShutdownError, True),
        (asyncpg.ConnectionDoesNotExistError, True),
        (asyncpg.SerializationError, True),
        (asyncpg.DeadlockDetectedError, True),
        (asyncpg.DiskFullError, False),
        (asyncpg.OutOfMemoryError, False),
        (asyncpg.LockNotAvailableError, False),
        (asyncpg.QueryCanceledError, False),
        (ConnectionRefusedError, True),
        (ConnectionResetError, True),
        (TimeoutError, False),
    ],
)
def test_an_error_is_transient_if_a_retry_can_succeed(error, transient):
    with pytest.raises(Unavailable) as caught, translate_errors():
        raise error("message")
    assert is_transient(caught.value) is transient


@pytest.mark.parametrize(
    ("sqlstate", "text"),
    [
        ("XX000", "server closed the connection unexpectedly\n\tThis probably means"),
        ("XX000", "failure on connection marked as essential: 127.0.0.1:5433"),
        ("58030", "failed to COPY to shard 102035 on 127.0.0.1:5433"),
    ],
)
def test_a_node_that_a_coordinator_of_citus_lost_is_transient(sqlstate, text):
    lost = asyncpg.PostgresError.new({"S": "ERROR", "C": sqlstate, "M": text})
    with pytest.raises(Unavailable) as caught, translate_errors():
        raise lost
    assert is_transient(caught.value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('duplicate key value violates unique constraint "message_id_idx_102033"', AlreadyExists),
        ("canceling statement due to lock timeout", LockTimeout),
        ("canceling statement due to statement timeout", StatementTimeout),
        ("deadlock detected", Unavailable),
        ("terminating connection due to administrator command", Unavailable),
        ("cache lookup failed for relation 1", DatabaseError),
    ],
)
def test_an_error_of_a_node_of_citus_without_its_code_is_known_by_its_text(text, kind):
    error = asyncpg.PostgresError.new({"S": "ERROR", "C": "XX000", "M": text})
    with pytest.raises(kind) as caught, translate_errors():
        raise error
    assert type(caught.value) is kind


@pytest.mark.parametrize("constraint", [None, "message_id_idx_102033", "message_id_idx"])
def test_an_id_that_exists_is_named_in_place_of_its_index(constraint):
    text = f'duplicate key value violates unique constraint "{constraint or "message_id_idx_9"}"'
    fields = {"S": "ERROR", "C": "23505", "M": text} | ({"n": constraint} if constraint else {})
    with pytest.raises(AlreadyExists, match="a message with this id"), translate_errors():
        raise asyncpg.PostgresError.new(fields)


async def test_a_keyed_append_that_lost_a_race_is_retried(dsn):
    retries = []
    settings = Settings(on_retry=lambda *each: retries.append(each))
    turn = {"messages": [{"role": "user", "content": "hello"}]}
    async with (
        asyncsvc.connect(dsn, settings=settings) as svc,
        svc._executor._pool.acquire() as holder,
    ):
        await create(svc, "a")
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute(LOCK_CONVERSATION)
        await svc._executor._pool.execute(
            f'ALTER DATABASE "{dsn.rpartition("/")[2]}"'
            " SET default_transaction_isolation = 'serializable'"
        )
        await svc._executor._pool.expire_connections()
        appending = asyncio.create_task(
            svc.conversations.append_message("a", turn, tenant_id="acme", idempotency_key="k")
        )
        await until_blocked(svc)
        await holder.execute("UPDATE asyncsvc.conversation SET version_title = 'changed'")
        await transaction.commit()
        assert (await appending).last_seq == 1
    assert [type(error.__cause__) for *_, error in retries] == [asyncpg.SerializationError]


async def test_a_deadlock_raises_unavailable_in_one_transaction(svc):
    await create(svc, "a")
    await create(svc, "b")

    async def lock(first, second, barrier):
        async with svc.transaction() as tx:
            await tx.conversations.update_by_id(first, {"name": "x"}, tenant_id="acme")
            await barrier.wait()
            await tx.conversations.update_by_id(second, {"name": "x"}, tenant_id="acme")

    barrier = asyncio.Barrier(2)
    outcomes = await asyncio.gather(
        lock("a", "b", barrier), lock("b", "a", barrier), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes if outcome] == [Unavailable]


async def test_on_query_is_called_for_every_statement(dsn):
    seen = []
    settings = Settings(on_query=lambda *event: seen.append(event))
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        await create(svc, "a")
        await listed(svc)
        with pytest.raises(AlreadyExists):
            await create(svc, "a")
        await svc._executor._pool.execute("ALTER TABLE asyncsvc.message RENAME TO gone")
        with pytest.raises(MigrationError) as caught:
            await svc.conversations.messages("a", tenant_id="acme")
    assert [(name, rows, error) for name, _, rows, error in seen] == [
        ("conversation/create_many", 1, None),
        ("conversation/get_list", 1, None),
        ("conversation/create_many", 0, None),
        ("message/get_list", 0, caught.value),
    ]
    assert all(0 < seconds < 10 for _, seconds, _, _ in seen)


async def test_on_acquire_is_called_for_every_wait_for_a_connection(dsn):
    seen = []
    settings = Settings(acquire_timeout=3, on_acquire=lambda *event: seen.append(event))
    async with asyncsvc.connect(dsn, settings=settings, max_size=1) as svc:
        await create(svc, "a")
        async with svc.transaction() as tx:
            await listed(tx)
            with pytest.raises(PoolExhausted) as caught:
                await listed(svc)
        await listed(svc)
    assert [(pool, error) for pool, _, error in seen] == [
        ("primary", None),
        ("primary", None),
        ("primary", caught.value),
        ("primary", None),
    ]
    assert seen[2][1] > 2.9
    assert all(0 < seconds < 30 for _, seconds, _ in seen)


async def test_a_hook_that_raises_keeps_no_connection(dsn):
    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    settings = Settings(acquire_timeout=5, on_acquire=broken)
    async with asyncsvc.connect(dsn, settings=settings, max_size=1) as svc:
        for _ in range(3):
            with pytest.raises(RuntimeError, match="broken"):
                await listed(svc)
        (primary, _) = svc.pool_stats()
        assert primary.idle == primary.size == 1


async def test_pool_stats_counts_the_connections_of_each_pool(dsn):
    svc = await asyncsvc.connect(dsn, replicas=[dsn], min_size=2, max_size=3)
    names = ["primary", "replica 1", "maintenance"]
    assert [each.name for each in svc.pool_stats()] == names
    assert [(each.size, each.idle, each.max_size) for each in svc.pool_stats()] == [
        (2, 2, 3), (0, 0, 3), (0, 0, 1)
    ]  # fmt: skip
    async with svc.transaction():
        assert (svc.pool_stats()[0].size, svc.pool_stats()[0].idle) == (2, 1)
    await svc.close()
    assert [each.size for each in svc.pool_stats()] == [0, 0, 0]


async def test_pool_stats_of_a_pool_of_the_caller(pool):
    (stats,) = AsyncSvc(pool).pool_stats()
    assert (stats.name, stats.size, stats.max_size) == (
        "primary", pool.get_size(), pool.get_max_size()
    )  # fmt: skip


@pytest.mark.parametrize(
    "lost",
    [
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.InterfaceError("cannot call Connection.fetch(): connection is closed"),
        # Observed when the server ended the session while asyncpg handled a cancellation.
        asyncpg.InternalClientError("cannot switch to state 15; another operation is in progress"),
        ConnectionResetError(104, "Connection reset by peer"),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_connection_lost_during_its_release_changes_no_result(dsn, lost):
    async def reset(connection):
        raise lost

    async with asyncpg.create_pool(dsn, min_size=0, max_size=1, reset=reset) as pool:
        svc = AsyncSvc(pool)
        await create(svc, "a")
        assert await listed(svc) == ["a"]
        with pytest.raises(AlreadyExists):
            await create(svc, "a")
        assert pool.get_idle_size() == pool.get_size()


async def test_an_internal_error_of_the_driver_means_a_lost_connection(pool):
    async with pool.acquire() as connection:
        with pytest.raises(Unavailable) as caught, translate_errors(connection):
            raise asyncpg.InternalClientError("cannot switch to state 21; another operation")
        assert type(caught.value) is Unavailable


@pytest.mark.parametrize("place", ["pool", "connection"])
async def test_a_statement_that_was_only_parsed_is_closed(dsn, svc, pool, place):
    """Otherwise the statement keeps locks and a snapshot until the next use of the connection."""

    async def fail_to_encode(executor):
        query = Query("x", "SELECT c.id FROM asyncsvc.conversation AS c WHERE c.round = $1", ("x",))
        with pytest.raises(DatabaseError, match="cannot be encoded"):
            await executor.fetch(query)

    async def read_the_types(executor):
        query = Query("x", "SELECT c.id FROM asyncsvc.conversation AS c WHERE c.round = $1", ())
        assert await executor.parameter_types(query) == ["int4"]

    async with pool.acquire() as connection:
        executor = svc._executor if place == "pool" else svc.on(connection)._executor
        for leave in (fail_to_encode, read_the_types):
            await leave(executor)
            assert await fetch(dsn, OPEN_TRANSACTIONS) == 0, leave
            assert (await svc.conversations.get_list(dialog_id="d", tenant_id="acme")).items == []


async def test_one_block_at_a_time_enters_a_connection_to_be(dsn):
    connecting = asyncsvc.connect(dsn, max_size=1)
    async with connecting as svc:
        with pytest.raises(ConcurrentUse):
            async with connecting:
                raise AssertionError
        await svc.check()
    async with connecting as svc:
        await svc.check()
