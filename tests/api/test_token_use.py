"""The record of a token's use, which never fails or delays a verification."""

import asyncio
import logging

import asyncpg
import pytest

import asyncsvc
from asyncsvc import DatabaseError, Settings, Unavailable
from tests.support.citus import WAITING, execute_each
from tests.support.wire import RESETS, Fault, Wire

RECORD = "/record_use "
LOG = "asyncsvc.services.token_verification"
PROMPT = 20.0
"""Seconds within which a call ends that does not wait for a timeout, on a slow machine."""
SLOW = Settings(acquire_timeout=300, statement_timeout=300, retry_timeout=300)
REFUSE_WRITES = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = 'P0042'; END$$;
    CREATE TRIGGER refuse BEFORE UPDATE ON asyncsvc.api_token
        FOR EACH ROW EXECUTE FUNCTION refuse();
"""


async def issue(svc):
    return await svc.tokens.create(tenant_id="acme", name="test")


async def last_used(svc, issued):
    return (await svc.tokens.get_by_id(issued.token.id, tenant_id="acme")).last_used_at


@pytest.fixture(params=["verify", "used"])
def method(request):
    return request.param


async def assert_valid(svc, issued, method="verify"):
    async with asyncio.timeout(PROMPT):
        assert await getattr(svc.tokens, method)(issued.secret)


async def test_an_error_of_the_write_does_not_fail_the_verification(svc, pool, method, caplog):
    issued = await issue(svc)
    await execute_each(pool, REFUSE_WRITES)
    with caplog.at_level(logging.WARNING, LOG):
        await assert_valid(svc, issued, method)
    assert [each.message for each in caplog.records] == [
        f"the use of token {issued.token.id} is not recorded: refused"
    ]
    assert await last_used(svc, issued) is None
    await pool.execute("DROP TRIGGER refuse ON asyncsvc.api_token")
    await assert_valid(svc, issued, method)
    assert await last_used(svc, issued) is not None


@pytest.mark.parametrize("mode", ["SHARE", "EXCLUSIVE"])
async def test_a_locked_table_does_not_delay_the_verification(dsn, pool, method, caplog, mode):
    async with (
        asyncsvc.connect(dsn, settings=SLOW, max_size=1) as svc,
        pool.acquire() as connection,
    ):
        issued = await issue(svc)
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE asyncsvc.api_token IN {mode} MODE")
            with caplog.at_level(logging.WARNING, LOG):
                await assert_valid(svc, issued, method)
        assert f"the use of token {issued.token.id} is not recorded" in caplog.text
        assert await last_used(svc, issued) is None
        await assert_valid(svc, issued, method)
        assert await last_used(svc, issued) is not None


async def test_a_read_only_server_verifies_tokens(svc, dsn, pool):
    issued = await issue(svc)
    await pool.execute(
        "DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on',"
        " current_database()); END$$"
    )
    async with asyncsvc.connect(dsn, settings=SLOW) as reading:
        await assert_valid(reading, issued)
    assert await last_used(svc, issued) is None


@pytest.mark.parametrize("fault", RESETS)
async def test_a_lost_connection_of_the_write_does_not_fail_the_verification(dsn, fault):
    async with Wire(dsn) as wire, asyncsvc.connect(wire.dsn, settings=SLOW) as svc:
        issued = await issue(svc)
        injection = wire.inject(fault, RECORD, times=1_000)
        await assert_valid(svc, issued)
        assert injection.count
        injection.max_count = 0
        await assert_valid(svc, issued)
        assert await last_used(svc, issued) is not None


@pytest.mark.parametrize("fault", [Fault.STALL_REQUEST, Fault.STALL_REPLY])
async def test_a_stalled_connection_of_the_write_does_not_fail_the_verification(dsn, fault):
    settings = Settings(acquire_timeout=0.5)
    async with Wire(dsn) as wire, asyncsvc.connect(wire.dsn, settings=settings) as svc:
        issued = await issue(svc)
        wire.inject(fault, RECORD)
        try:
            await assert_valid(svc, issued)
        finally:
            wire.resume()
        await assert_valid(svc, issued)


async def test_an_exhausted_pool_does_not_delay_the_verification(dsn, method):
    taken, free = asyncio.Event(), asyncio.Event()
    tasks = []

    async def hold():
        async with svc.transaction() as tx:
            await tx.tokens.get_list(tenant_id="acme")
            taken.set()
            await free.wait()

    def after(name, *_):
        if name == "api_token/verify":  # the next in the queue gets the only connection
            tasks.append(asyncio.create_task(hold()))

    settings = SLOW.model_copy(update={"on_query": after})
    async with asyncsvc.connect(dsn, settings=settings, max_size=1) as svc:
        issued = await issue(svc)
        tasks.append(asyncio.create_task(hold()))
        await taken.wait()
        verifying = asyncio.create_task(assert_valid(svc, issued, method))
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(hold()))  # in the queue after the verification
        await asyncio.sleep(0)
        free.set()
        await tasks[0]
        free.clear()
        await verifying
        free.set()
        await asyncio.gather(*tasks)
        assert await last_used(svc, issued) is None


async def test_an_error_of_the_write_inside_a_transaction_is_raised(svc, pool, method):
    issued = await issue(svc)
    await execute_each(pool, REFUSE_WRITES)
    with pytest.raises(DatabaseError, match="refused"):
        async with svc.transaction() as tx:
            await getattr(tx.tokens, method)(issued.secret)
    async with pool.acquire() as connection, connection.transaction():
        with pytest.raises(DatabaseError, match="refused"):
            await getattr(svc.on(connection).tokens, method)(issued.secret)
        with pytest.raises(asyncpg.InFailedSQLTransactionError):
            await connection.execute("SELECT")


async def test_an_unavailable_lookup_still_fails_the_verification(dsn):
    settings = Settings(retry_timeout=0)
    async with Wire(dsn) as wire, asyncsvc.connect(wire.dsn, settings=settings) as svc:
        issued = await issue(svc)
        wire.inject(Fault.LOSE_REQUEST, "/verify ", times=1_000)
        with pytest.raises(Unavailable):
            await svc.tokens.verify(issued.secret)


async def test_a_cancellation_during_the_write_is_raised(dsn, pool):
    async with (
        asyncsvc.connect(dsn, settings=SLOW) as svc,
        pool.acquire() as connection,
    ):
        issued = await issue(svc)
        async with connection.transaction():
            await connection.execute("LOCK TABLE asyncsvc.api_token IN SHARE MODE")
            task = asyncio.create_task(svc.tokens.verify(issued.secret))
            async with asyncio.timeout(PROMPT):
                while not task.done() and not await pool.fetchval(WAITING):
                    await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await last_used(svc, issued) is None
