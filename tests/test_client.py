"""The facade: whose connection, whose transaction, and what becomes of the driver's errors."""

import asyncio
import contextlib
import socket
import time

import asyncpg
import pytest
from conftest import fetch
from wire import Wire

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
    PoolExhausted,
    Settings,
    StatementTimeout,
    Unavailable,
)
from asyncsvc.database import sql_files, translate_errors
from asyncsvc.database.driver_errors import is_transient
from asyncsvc.database.sql_files import Query

HOLD = "SELECT 1 FROM asyncsvc.conversation WHERE tenant_id = 'acme' FOR UPDATE"
SLEEP = "SELECT pg_sleep(20)"
OPEN = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
"""


async def make(svc, id, tenant_id="acme"):
    await svc.conversations.create(tenant_id=tenant_id, dialog_id="d", id=id)


async def listed(svc):
    page = await svc.conversations.get_list("d", "acme", desc=False)
    return [item.id for item in page.items]


async def test_a_borrowed_pool_is_neither_closed_nor_configured(pool):
    await make(AsyncSvc(pool), "a")
    async with pool.acquire() as connection:
        assert await connection.fetchval("SHOW plan_cache_mode") == "auto"
        assert await connection.fetchval("SELECT count(*) FROM asyncsvc.conversation") == 1


async def test_an_opened_pool_is_closed(dsn):
    async with asyncsvc.connect(dsn) as svc:
        await make(svc, "a")
    with pytest.raises(Unavailable, match="closed"):
        await make(svc, "b")


async def test_a_transaction_is_over_both_services(svc):
    async with svc.transaction() as tx:
        await make(tx, "a")
        issued = await tx.tokens.create("acme", name="t")
        assert await listed(svc) == []
    assert await listed(svc) == ["a"]
    assert await svc.tokens.verify(issued.secret)


async def test_an_error_rolls_the_transaction_back(svc):
    with pytest.raises(ZeroDivisionError):
        async with svc.transaction() as tx:
            await make(tx, "a")
            raise ZeroDivisionError
    assert await listed(svc) == []


async def test_a_nested_transaction_is_a_savepoint(svc):
    async with svc.transaction() as tx:
        await make(tx, "a")
        with contextlib.suppress(ZeroDivisionError):
            async with tx.transaction() as inner:
                await make(inner, "b")
                raise ZeroDivisionError
        async with tx.transaction() as inner:
            await make(inner, "c")
    assert await listed(svc) == ["a", "c"]


async def fail(svc):
    """Let a statement fail on the server."""
    with pytest.raises(DatabaseError):
        await svc._executor.fetch(Query("test/fail", "SELECT 1/0", ()))


async def test_a_transaction_in_which_a_statement_failed_is_not_committed_in_silence(svc):
    with pytest.raises(DatabaseError, match="rolled back") as caught:
        async with svc.transaction() as tx:
            await make(tx, "a")
            await fail(tx)
    assert caught.value.sqlstate == "25P02"
    assert caught.value.__cause__.sqlstate == "22012"
    assert await listed(svc) == []


async def test_a_savepoint_in_which_a_statement_failed_leaves_the_rest(svc):
    async with svc.transaction() as tx:
        await make(tx, "a")
        with pytest.raises(DatabaseError, match="rolled back"):
            async with tx.transaction() as inner:
                await make(inner, "b")
                await fail(inner)
        await make(tx, "c")
    assert await listed(svc) == ["a", "c"]


async def test_a_begin_that_is_cancelled_leaves_the_callers_connection_clean(svc, pool):
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
            await asyncio.wait([task])
            assert not connection.is_in_transaction()
            async with mine.transaction() as tx:
                await make(tx, str(turns))
    assert len(await listed(svc)) == 12


async def test_a_begin_that_is_cancelled_again_and_again_is_undone_all_the_same(svc, pool):
    async with pool.acquire() as connection:
        mine = svc.on(connection)

        async def begin():
            async with mine.transaction():
                await asyncio.sleep(60)

        for turns in range(12):
            task = asyncio.create_task(begin())
            for _ in range(turns):
                await asyncio.sleep(0)
            while not task.done():
                task.cancel()
                await asyncio.sleep(0)
            assert task.cancelled()
            assert not connection.is_in_transaction()


async def test_a_statement_of_the_callers_that_failed_is_no_commit_in_silence(svc, pool):
    async with pool.acquire() as connection:
        with pytest.raises(DatabaseError) as caught:
            async with svc.on(connection).transaction() as tx:
                await make(tx, "a")
                with contextlib.suppress(asyncpg.DivisionByZeroError):
                    await connection.execute("SELECT 1/0")
        assert caught.value.sqlstate == "25P02"
        async with connection.transaction():
            with pytest.raises(DatabaseError):
                async with svc.on(connection).transaction() as inner:
                    await make(inner, "b")
                    with contextlib.suppress(asyncpg.DivisionByZeroError):
                        await connection.execute("SELECT 1/0")
            await make(svc.on(connection), "c")
    assert await listed(svc) == ["c"]


async def test_a_transaction_begun_by_hand_is_named(svc, pool):
    async with pool.acquire() as connection:
        await connection.execute("BEGIN")
        with pytest.raises(ConcurrentUse, match="begun by hand"):
            async with svc.on(connection).transaction():
                pass
        await make(svc.on(connection), "a")
        await connection.execute("COMMIT")
    assert await listed(svc) == ["a"]


async def test_on_a_connection_the_callers_transaction_decides(svc, pool):
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        mine = svc.on(connection)
        await make(mine, "a")
        async with mine.transaction() as inner:
            await make(inner, "b")
        await transaction.rollback()
        assert await listed(svc) == []
        await make(mine, "c")
    assert await listed(svc) == ["c"]


async def test_an_error_inside_a_savepoint_leaves_the_callers_transaction_usable(svc, pool):
    async with pool.acquire() as connection, connection.transaction():
        mine = svc.on(connection)
        await make(mine, "a")
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with connection.transaction():
                await connection.execute("SELECT 1/0")
        with pytest.raises(AlreadyExists):
            await make(mine, "a")
        with pytest.raises(NotFound):
            await mine.conversations.get_by_id("x", tenant_id="acme")
        await make(mine, "b")
    assert await listed(svc) == ["a", "b"]


async def test_no_session_state_is_left(svc, pool):
    query = "SELECT name, setting FROM pg_settings WHERE source = 'session' ORDER BY name"
    async with pool.acquire() as connection:
        before = await connection.fetch(query)
        mine = svc.on(connection)
        await make(mine, "a")
        await mine.conversations.get_list("d", "acme", keywords="a")
        await mine.conversations.stats("acme", "2026-01-01", "2026-01-02", tz="Europe/Berlin")
        async with mine.transaction() as tx:
            await tx.tokens.create("acme", name="t")
        assert await connection.fetch(query) == before
        assert not connection.is_in_transaction()
        locks = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        assert await connection.fetch(locks) == []


async def test_two_tasks_in_one_transaction_get_a_clear_error(svc):
    async with svc.transaction() as tx:
        outcomes = await asyncio.gather(
            *(make(tx, str(number)) for number in range(3)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes if outcome] == [ConcurrentUse] * 2
        await make(tx, "after")
    assert len(await listed(svc)) == 2


async def test_a_connection_that_its_owner_uses_meanwhile_gives_the_same_error(svc, pool):
    async with pool.acquire() as connection:
        busy = asyncio.create_task(connection.execute("SELECT pg_sleep(0.3)"))
        await asyncio.sleep(0.1)
        with pytest.raises(ConcurrentUse):
            await make(svc.on(connection), "a")
        await busy
        await make(svc.on(connection), "a")


async def test_an_outer_transaction_waits_for_the_inner_one(svc):
    async with svc.transaction() as tx:
        async with tx.transaction():
            with pytest.raises(ConcurrentUse):
                await make(tx, "a")
        await make(tx, "a")


async def test_an_exhausted_pool_gives_up_in_time(dsn):
    settings = Settings(acquire_timeout=0.3)
    async with asyncsvc.connect(dsn, settings=settings, max_size=1) as svc:
        async with svc.transaction() as tx:
            start = time.monotonic()
            with pytest.raises(PoolExhausted, match=r"within 0\.3 s"):
                await make(svc, "a")
            assert time.monotonic() - start < 3
            await make(tx, "b")
        await make(svc, "c")
        assert await listed(svc) == ["b", "c"]


async def test_a_statement_that_takes_too_long_is_cancelled(dsn, pool):
    settings = Settings(statement_timeout=0.3)
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        await make(svc, "a")
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(HOLD)
            with pytest.raises(StatementTimeout):
                await svc.conversations.update_by_id("a", {"name": "x"}, tenant_id="acme")
        await svc.conversations.update_by_id("a", {"name": "y"}, tenant_id="acme")


async def test_a_row_that_is_held_too_long_is_not_waited_for_any_longer(dsn, pool):
    settings = Settings(lock_timeout=0.2)
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        await make(svc, "a")
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(HOLD)
            with pytest.raises(LockTimeout):
                await svc.conversations.update_by_id("a", {"name": "x"}, tenant_id="acme")
        await svc.conversations.update_by_id("a", {"name": "y"}, tenant_id="acme")


@pytest.mark.parametrize("bound", ["lock_timeout", "idle_transaction_timeout"])
async def test_the_server_takes_the_shortest_and_the_longest_bound(dsn, bound):
    for seconds in (0.001, (2**31 - 1) // 1_000):
        async with asyncsvc.connect(dsn, settings=Settings(**{bound: seconds})) as svc:
            await listed(svc)
    for seconds in (0, 0.0005, 2**31 // 1_000 + 1):
        with pytest.raises(InvalidInput, match=bound):
            Settings(**{bound: seconds})


async def test_a_transaction_that_does_nothing_is_ended_with_its_locks(dsn, pool):
    settings = Settings(idle_transaction_timeout=0.2)
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        await make(svc, "a")
        with pytest.raises(Unavailable):
            async with svc.transaction() as tx:
                await tx.conversations.update_by_id("a", {"name": "x"}, tenant_id="acme")
                async with asyncio.timeout(20):
                    await pool.execute(HOLD)
        found = await svc.conversations.get_by_id("a", tenant_id="acme")
    assert found.name is None


async def test_a_migration_waits_for_another_however_long_that_takes(empty_dsn):
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
async def test_a_recount_may_take_longer_than_other_statements(dsn, pool, declare):
    settings = Settings(statement_timeout=0.2, lock_timeout=30)
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        await svc.conversations.declare_zone("acme", "UTC")
        zone = ["Europe/Paris"] if declare == "declare_zone" else []
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "SELECT 1 FROM asyncsvc.usage_zone WHERE tenant_id = 'acme' FOR UPDATE"
            )
            recount = getattr(svc.conversations, declare)
            waiting = asyncio.create_task(recount("acme", *zone))
            await asyncio.sleep(0.6)
            assert not waiting.done()
        await waiting


async def test_a_statement_that_the_server_cancels(svc, pool):
    await make(svc, "a")
    async with pool.acquire() as connection:
        await connection.execute("SET statement_timeout = '100ms'")
        async with pool.acquire() as other, other.transaction():
            await other.execute(HOLD)
            with pytest.raises(StatementTimeout):
                await svc.on(connection).conversations.update_by_id(
                    "a", {"name": "x"}, tenant_id="acme"
                )


async def test_a_server_that_is_not_there_is_one_clear_line():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Unavailable) as caught:
        async with asyncsvc.connect(f"postgresql://postgres@127.0.0.1:{port}/x"):
            pass
    assert "\n" not in str(caught.value)
    assert "cannot be reached" in str(caught.value)


async def test_no_server_that_is_what_was_asked_for(dsn):
    with pytest.raises(Unavailable, match="no server has the requested role"):
        async with asyncsvc.connect(f"{dsn}?target_session_attrs=standby"):
            pass


async def test_a_database_that_is_not_there(dsn):
    with pytest.raises(asyncsvc.AsyncSvcError, match="does not exist"):
        async with asyncsvc.connect(f"{dsn}_absent"):
            pass


@pytest.mark.parametrize("wrong", ["nonsense://x", "postgresql://[::1", "postgresql://h:port/x"])
async def test_a_dsn_that_is_none(wrong):
    with pytest.raises(InvalidInput, match="dsn"):
        async with asyncsvc.connect(wrong):
            pass


@pytest.mark.parametrize(("least", "most"), [(2, 1), (-1, 1), (0, 0)])
async def test_a_pool_of_no_size(dsn, least, most):
    with pytest.raises(InvalidInput, match="max_size"):
        async with asyncsvc.connect(dsn, min_size=least, max_size=most):
            pass


async def test_a_connection_that_was_lost(svc, dsn, pool):
    connection = await asyncpg.connect(dsn)
    mine = svc.on(connection)
    await make(mine, "a")
    await pool.execute("SELECT pg_terminate_backend($1::int)", connection.get_server_pid())
    for _ in range(2):
        with pytest.raises(Unavailable):
            await make(mine, "b")
    await make(svc, "b")


async def test_a_call_that_is_cancelled_as_its_connection_is_lost_is_cancelled(dsn):
    """And is not made again, as a read would be whose connection alone was lost."""
    async with asyncsvc.connect(dsn, max_size=1) as svc:
        await make(svc, "a")
        reading = asyncio.create_task(svc._executor.fetch(Query("x", SLEEP, (), {}, True)))
        await asyncio.sleep(0.2)
        svc._executor._pool._holders[0]._con.terminate()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await listed(svc) == ["a"]


async def test_what_ended_a_connection_is_told(dsn, pool):
    async with asyncsvc.connect(dsn, max_size=1, settings=Settings(retry_timeout=0)) as svc:
        reading = asyncio.create_task(svc._executor.fetch(Query("x", SLEEP, ())))
        await asyncio.sleep(0.2)
        await pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = $1", SLEEP
        )
        with pytest.raises(Unavailable) as caught:
            await reading
        assert isinstance(caught.value.__cause__, asyncpg.PostgresError)


async def test_a_lost_transaction_reports_the_loss_and_frees_its_connection(dsn, pool):
    async with asyncsvc.connect(dsn, max_size=1) as svc:
        with pytest.raises(Unavailable):
            async with svc.transaction() as tx:
                await make(tx, "a")
                await pool.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                await make(tx, "b")
        assert await listed(svc) == []


async def test_a_cancellation_stays_one_when_the_network_is_gone(dsn):
    settings = Settings(acquire_timeout=0.5, statement_timeout=20)
    async with Wire(dsn) as wire, asyncsvc.connect(wire.dsn, settings=settings) as svc:
        await make(svc, "a")
        wire.silence()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await make(svc, "b")
        wire.heal()


async def test_a_commit_that_is_not_answered_is_bounded_on_a_borrowed_pool(dsn):
    settings = Settings(acquire_timeout=0.5, statement_timeout=0.5)
    async with Wire(dsn) as wire, asyncpg.create_pool(wire.dsn, min_size=0) as pool:
        svc = AsyncSvc(pool, settings=settings)
        with pytest.raises(StatementTimeout):
            async with asyncio.timeout(20), svc.transaction() as tx:
                await make(tx, "a")
                wire.silence()
        wire.heal()


async def test_a_begin_that_is_not_answered_is_bounded_on_a_borrowed_pool(dsn):
    settings = Settings(acquire_timeout=0.5, statement_timeout=0.5)
    async with Wire(dsn) as wire, asyncpg.create_pool(wire.dsn, min_size=1) as pool:
        wire.silence()
        with pytest.raises(StatementTimeout):
            async with asyncio.timeout(10), AsyncSvc(pool, settings=settings).transaction():
                pass
        wire.heal()


async def test_an_error_stays_itself_when_the_network_is_gone(dsn):
    settings = Settings(acquire_timeout=0.5, statement_timeout=0.5)
    async with Wire(dsn) as wire, asyncsvc.connect(wire.dsn, settings=settings) as svc:
        with pytest.raises(ZeroDivisionError):
            async with asyncio.timeout(20), svc.transaction() as tx:
                await make(tx, "a")
                wire.silence()
                raise ZeroDivisionError
        wire.heal()


async def test_a_cancelled_transaction_is_rolled_back(dsn):
    async with asyncsvc.connect(dsn, max_size=1) as svc:
        entered = asyncio.Event()

        async def work():
            async with svc.transaction() as tx:
                await make(tx, "a")
                entered.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(work())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await listed(svc) == []


async def test_without_the_schema_it_says_what_to_do(empty_dsn):
    async with asyncsvc.connect(empty_dsn) as svc:
        with pytest.raises(MigrationError, match=r"await svc\.migrate\(\)"):
            await make(svc, "a")


async def test_what_the_server_refuses_otherwise_has_its_sqlstate(dsn, pool):
    await pool.execute(
        "ALTER TABLE asyncsvc.conversation ADD CONSTRAINT short CHECK (length(id) < 5)"
    )
    async with asyncsvc.connect(dsn) as svc:
        with pytest.raises(DatabaseError) as caught:
            await make(svc, "too long")
    assert caught.value.sqlstate == "23514"
    assert isinstance(caught.value.__cause__, asyncpg.CheckViolationError)


@pytest.mark.parametrize(
    ("error", "passes"),
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
def test_what_passes_is_told_from_what_does_not(error, passes):
    with pytest.raises(Unavailable) as caught, translate_errors():
        raise error("as the server says it")
    assert is_transient(caught.value) is passes


async def test_a_keyed_append_that_lost_a_race_is_made_again(dsn):
    retries = []
    settings = Settings(on_retry=lambda *each: retries.append(each))
    turn = {"messages": [{"role": "user", "content": "hello"}]}
    async with (
        asyncsvc.connect(dsn, settings=settings) as svc,
        svc._executor._pool.acquire() as holder,
    ):
        await make(svc, "a")
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute(HOLD)
        await svc._executor._pool.execute(
            f'ALTER DATABASE "{dsn.rpartition("/")[2]}"'
            " SET default_transaction_isolation = 'serializable'"
        )
        await svc._executor._pool.expire_connections()
        appending = asyncio.create_task(
            svc.conversations.append_message("a", turn, tenant_id="acme", idempotency_key="k")
        )
        await asyncio.sleep(0.3)
        await holder.execute("UPDATE asyncsvc.conversation SET version_title = 'changed'")
        await transaction.commit()
        assert (await appending).last_seq == 1
    assert [type(error.__cause__) for *_, error in retries] == [asyncpg.SerializationError]


async def test_a_deadlock_is_passing(svc):
    await make(svc, "a")
    await make(svc, "b")

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


async def test_every_statement_can_be_watched(dsn):
    seen = []
    settings = Settings(on_query=lambda *event: seen.append(event))
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        await make(svc, "a")
        await listed(svc)
        with pytest.raises(AlreadyExists):
            await make(svc, "a")
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


@pytest.mark.parametrize(
    "lost",
    [
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.InterfaceError("cannot call Connection.fetch(): connection is closed"),
        # Seen when the server ended the session while the driver cleaned up after a cancellation.
        asyncpg.InternalClientError("cannot switch to state 15; another operation is in progress"),
        ConnectionResetError(104, "Connection reset by peer"),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_connection_that_is_lost_on_its_way_back_changes_no_answer(dsn, lost):
    async def reset(connection):
        raise lost

    async with asyncpg.create_pool(dsn, min_size=0, max_size=1, reset=reset) as pool:
        svc = AsyncSvc(pool)
        await make(svc, "a")
        assert await listed(svc) == ["a"]
        with pytest.raises(AlreadyExists):
            await make(svc, "a")
        assert pool.get_idle_size() == pool.get_size()


async def test_a_connection_whose_end_the_driver_has_not_read_yet_is_lost(pool):
    async with pool.acquire() as connection:
        with pytest.raises(Unavailable) as caught, translate_errors(connection):
            raise asyncpg.InternalClientError("cannot switch to state 21; another operation")
        assert type(caught.value) is Unavailable


@pytest.mark.parametrize("place", ["pool", "connection"])
async def test_a_statement_that_was_only_parsed_is_not_left_open(dsn, svc, pool, place):
    """Its locks and its snapshot would be, until somebody uses the connection again."""

    async def refused_by_the_driver(executor):
        query = Query("x", "SELECT c.id FROM asyncsvc.conversation AS c WHERE c.round = $1", ("x",))
        with pytest.raises(DatabaseError, match="cannot be encoded"):
            await executor.fetch(query)

    async def asked_for_its_types(executor):
        query = Query("x", "SELECT c.id FROM asyncsvc.conversation AS c WHERE c.round = $1", ())
        assert await executor.parameter_types(query) == ["int4"]

    async with pool.acquire() as lent:
        executor = svc._executor if place == "pool" else svc.on(lent)._executor
        for leave in (refused_by_the_driver, asked_for_its_types):
            await leave(executor)
            assert await fetch(dsn, OPEN) == 0, leave
            assert (await svc.conversations.get_list("d", "acme")).items == []
