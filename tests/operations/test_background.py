"""Maintenance in the background of `connect`: when it runs, when it does not, and how it ends."""

import asyncio
import contextlib
import logging
import os
import secrets
import subprocess
import sys
import time
from contextvars import ContextVar
from datetime import timedelta
from types import SimpleNamespace

import pytest

import asyncsvc
from asyncsvc import AsyncSvc, MaintenanceReport, Settings
from asyncsvc.database import PoolExecutor
from asyncsvc.operations import search_index
from asyncsvc.operations.background import BackgroundMaintenance
from asyncsvc.repositories import MaintenanceRepository
from tests.support.citus import execute_each
from tests.support.wire import Wire

SHORT = 0.05
"""Seconds between runs in these tests."""
WAIT = 60
"""The guard against a run that does not come."""
TURN = {"messages": [{"role": "user", "content": "Where is my parcel?"}], "tokens": 3}
RUNS = "asyncsvc.operations.background"
REST = """
    SELECT (SELECT count(*) FROM asyncsvc.append_key),
           (SELECT count(*) FROM asyncsvc.usage_ledger),
           (SELECT count(*) FROM asyncsvc.message WHERE NOT is_indexed),
           (SELECT count(*) FROM asyncsvc.conversation_title WHERE NOT is_indexed)
"""
SESSIONS = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = 'maintained'
"""
SLOW = """
    CREATE FUNCTION asyncsvc.slow() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_sleep(600); RETURN NEW; END $$;
    CREATE TRIGGER slow BEFORE UPDATE ON asyncsvc.message
       FOR EACH ROW EXECUTE FUNCTION asyncsvc.slow()
"""


class Hook:
    """Collects the calls of `Settings.on_maintenance`."""

    def __init__(self):
        self.calls = []
        self._unread = asyncio.Queue()

    def __call__(self, report, seconds, error):
        self.calls.append(SimpleNamespace(report=report, seconds=seconds, error=error))
        self._unread.put_nowait(self.calls[-1])

    async def next(self):
        """Return the next call, in their order; wait for it."""
        async with asyncio.timeout(WAIT):
            return await self._unread.get()


def often(interval=SHORT, **settings):
    return Settings(maintenance_interval=interval, **settings)


async def append(svc, id="a", tenant_id="acme"):
    await svc.conversations.create(tenant_id=tenant_id, dialog_id="d", id=id)
    await svc.conversations.append_message(id, TURN, tenant_id=tenant_id, idempotency_key="k")


async def until(condition):
    """Wait until an asynchronous condition holds."""
    async with asyncio.timeout(WAIT):
        while not await condition():
            await asyncio.sleep(SHORT)


def test_it_runs_once_a_minute_by_default():
    assert Settings().maintenance_interval == 60
    for wrong in (0, -1, 86_401, float("inf"), "often"):
        with pytest.raises(asyncsvc.InvalidInput, match="maintenance_interval"):
            Settings(maintenance_interval=wrong)


# ------------------------------------------------------------------------- the runs


async def test_usage_is_rolled_up_and_messages_are_indexed_without_a_call(dsn, pool):
    hook = Hook()
    settings = often(key_lifetime=1e-6, on_maintenance=hook)
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        await append(svc)

        expected = MaintenanceReport(append_keys=1, ledger_rows=2, messages=1, titles=1)
        total = MaintenanceReport()
        while total != expected:
            total += (await hook.next()).report
        assert tuple(await pool.fetchrow(REST)) == (0, 0, 0, 0)
        assert await pool.fetchval("SELECT processed_until FROM asyncsvc.maintenance")
        assert (await svc.conversations.search("parcel", tenant_id="acme")).items[0].id == "a"
    assert all(call.error is None and call.seconds >= 0 for call in hook.calls)


async def test_a_run_is_logged(dsn, caplog):
    hook = Hook()
    with caplog.at_level(logging.INFO, RUNS):
        async with asyncsvc.connect(dsn, settings=often(on_maintenance=hook)) as svc:
            await append(svc)
            await hook.next()
    assert "maintenance deleted 0 idempotency keys, rolled up" in caplog.text


@pytest.mark.parametrize("way", ["interval", "pool"])
async def test_without_an_interval_and_on_a_pool_of_the_caller_nothing_runs(dsn, pool, way):
    settings = often(None if way == "interval" else SHORT, on_maintenance=Hook())
    if way == "interval":
        svc = await asyncsvc.connect(dsn, settings=settings)
    else:
        svc = AsyncSvc(pool, settings=settings)
    await append(svc)
    await asyncio.sleep(20 * SHORT)
    assert settings.on_maintenance.calls == []
    await svc.close()


async def test_a_quiet_store_costs_one_statement_for_each_interval(dsn, pool):
    seen = []
    settings = often(on_query=lambda name, *_: seen.append(name))
    async with asyncsvc.connect(named(dsn), settings=settings):

        async def is_seen():
            return len(seen) >= 5

        await until(is_seen)
        assert await pool.fetchval(SESSIONS) == 1
        assert await pool.fetchval("SELECT count(*) FROM asyncsvc.maintenance") == 0
    assert seen[0] == "maintenance/get_role"
    assert set(seen[1:]) == {"maintenance/find_due"}


@pytest.mark.damages
async def test_a_run_has_a_connection_beside_the_pool_and_closes_it(dsn, pool):
    hook = Hook()
    await execute_each(pool, SLOW)
    settings = often(on_maintenance=hook, acquire_timeout=WAIT)
    async with asyncsvc.connect(named(dsn), settings=settings, max_size=1) as svc:
        await append(svc)
        await until(lambda: is_running(pool, "index_messages"))
        await append(svc, "b")  # on the only connection of the pool
        assert await pool.fetchval(SESSIONS) == 2
        await pool.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity" + INDEXING)
        await pool.execute("ALTER TABLE asyncsvc.message DISABLE TRIGGER slow")

        async def is_alone():
            rest = tuple(await pool.fetchrow(REST))[1:]
            return rest == (0, 0, 0) and await pool.fetchval(SESSIONS) == 1

        await until(is_alone)


async def test_one_of_several_processes_works(dsn, pool):
    hook = Hook()
    await claim(pool, "another")
    async with asyncsvc.connect(dsn, settings=often(on_maintenance=hook)) as svc:
        await append(svc)
        await asyncio.sleep(20 * SHORT)
        assert hook.calls == []
        assert (await pool.fetchrow(REST))[1] > 0
        await pool.execute("UPDATE asyncsvc.maintenance SET claimed_until = now()")
        await hook.next()


async def claim(pool, worker):
    repository = MaintenanceRepository(PoolExecutor(pool, Settings()))
    return await repository.claim(worker=worker, lease=timedelta(seconds=WAIT))


async def test_a_claim_is_renewed_by_its_worker_and_expires(dsn, pool):
    assert await claim(pool, "one")
    assert await claim(pool, "one")
    assert not await claim(pool, "two")
    await pool.execute("UPDATE asyncsvc.maintenance SET claimed_until = now()")
    assert await claim(pool, "two")
    await pool.execute("UPDATE asyncsvc.maintenance SET claimed_until = now() + interval '2 days'")
    assert await claim(pool, "one")  # the clock of the server was wrong


async def test_of_concurrent_claims_one_succeeds(dsn, pool):
    assert sum(await asyncio.gather(*(claim(pool, f"w{n}") for n in range(8)))) == 1


@pytest.mark.damages
async def test_a_run_renews_its_claim_and_ends_when_it_is_lost(dsn, pool, monkeypatch):
    monkeypatch.setattr(search_index, "_BATCH_SIZE", 1)
    hook, names = Hook(), []
    settings = often(
        0.4, on_maintenance=hook, on_query=lambda name, *_: names.append(name), max_batch_size=100
    )
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        await execute_each(
            pool,
            """
            CREATE FUNCTION asyncsvc.slow() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                PERFORM pg_sleep(0.1);
                IF NEW.seq = 20 THEN
                    UPDATE asyncsvc.maintenance SET worker = 'another', claimed_until = 'tomorrow';
                END IF;
                RETURN NEW;
            END $$;
            CREATE TRIGGER slow BEFORE UPDATE ON asyncsvc.message
               FOR EACH ROW EXECUTE FUNCTION asyncsvc.slow()
            """,
        )
        await svc.conversations.create(tenant_id="acme", dialog_id="d", id="a")
        turn = {"messages": TURN["messages"] * 100}
        await svc.conversations.append_message("a", turn, tenant_id="acme")
        call = await hook.next()
        while call.report.messages == 0:  # a run before the append
            call = await hook.next()
    assert 20 <= call.report.messages < 100
    assert names.count("maintenance/claim") > 2


async def test_a_run_does_not_see_the_variables_of_the_caller(dsn):
    request = ContextVar("request", default="none")
    seen, hook = [], Hook()

    def on_query(name, *_):
        if name.startswith("maintenance/"):
            seen.append(request.get())

    request.set("of the caller")
    settings = often(on_query=on_query, on_maintenance=hook)
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        await append(svc)
        await hook.next()
    assert set(seen) == {"none"}


# ------------------------------------------------------------------------- roles and servers


async def watched(dsn, caplog, **settings):
    """Keep the services open for many intervals; return the statements and the hook's calls."""
    names, hook = [], Hook()
    settings = often(on_query=lambda name, *_: names.append(name), on_maintenance=hook, **settings)
    with caplog.at_level(logging.INFO, RUNS):
        async with asyncsvc.connect(dsn, settings=settings):
            await asyncio.sleep(20 * SHORT)
    return names, hook.calls


@pytest.mark.damages
@pytest.mark.parametrize("row_level_security", [False, True])
async def test_a_restricted_role_runs_nothing(dsn, svc, pool, caplog, row_level_security):
    await append(svc)
    async with restricted_role(dsn, pool, row_level_security=row_level_security) as role:
        names, calls = await watched(
            f"{dsn}?role={role}", caplog, row_level_security=row_level_security
        )
    assert names == ["maintenance/get_role"]
    assert calls == []
    assert caplog.text.count("run `asyncsvc maintain` as their owner") == 1
    assert (await pool.fetchrow(REST))[1] > 0


@contextlib.asynccontextmanager
async def restricted_role(dsn, pool, *, row_level_security):
    """Create a role that may change the rows of the tables, and owns none."""
    if row_level_security:
        async with asyncsvc.connect(dsn, settings=Settings(row_level_security=True)) as owner:
            await owner.migrate()
    role = f"app_{secrets.token_hex(4)}"
    await pool.execute(
        f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA asyncsvc TO {role};"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA asyncsvc TO {role}"
    )
    try:
        yield role
    finally:
        await pool.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.damages
async def test_the_owner_runs_it_also_with_row_level_security(dsn, pool):
    hook = Hook()
    settings = often(row_level_security=True, on_maintenance=hook)
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        await svc.migrate()
        await append(svc)

        async def is_done():
            return tuple(await pool.fetchrow(REST))[1:] == (0, 0, 0)

        await until(is_done)
    assert [call.error for call in hook.calls if call.error] == []


async def test_a_server_that_rejects_writes_is_left_alone(dsn, svc, caplog):
    await append(svc)
    names, calls = await watched(f"{dsn}?default_transaction_read_only=on", caplog)
    assert set(names) == {"maintenance/get_role"}
    assert len(names) > 1
    assert (calls, caplog.text) == ([], "")


async def test_it_waits_for_the_first_migration(empty_dsn, caplog):
    hook = Hook()
    async with asyncsvc.connect(empty_dsn, settings=often(on_maintenance=hook)) as svc:
        await asyncio.sleep(5 * SHORT)
        await svc.migrate()
        await append(svc)
        await hook.next()
    assert "failed" not in caplog.text


async def test_it_works_behind_pgbouncer(dsn, pool, pooler_setting):
    dsns, setting = pooler_setting
    async with asyncsvc.connect(dsns["transaction"], settings=often(pgbouncer=setting)) as svc:
        await append(svc)

        async def is_done():
            return tuple(await pool.fetchrow(REST))[1:] == (0, 0, 0)

        await until(is_done)


# ------------------------------------------------------------------------- failures


def planted(error):
    return f"""
        CREATE FUNCTION asyncsvc.planted() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'broken' USING ERRCODE = '{error}'; END $$;
        CREATE TRIGGER planted BEFORE UPDATE ON asyncsvc.message
           FOR EACH ROW EXECUTE FUNCTION asyncsvc.planted()
    """


@pytest.mark.damages
@pytest.mark.parametrize(
    ("sqlstate", "logged"),
    [("42501", "maintenance failed: DatabaseError: "), ("22003", "maintenance of search failed")],
)
async def test_a_failure_is_logged_once_and_retried(dsn, pool, caplog, sqlstate, logged):
    await execute_each(pool, planted(sqlstate))
    hook = Hook()
    async with asyncsvc.connect(dsn, settings=often(0.02, on_maintenance=hook)) as svc:
        await append(svc)
        for _ in range(4):
            call = await hook.next()
        assert getattr(call.error, "sqlstate", None) == (sqlstate if sqlstate > "4" else None)
        assert caplog.text.count(logged) == 1
        assert await svc.conversations.get_list(tenant_id="acme")  # the application works
        await pool.execute("DROP TRIGGER planted ON asyncsvc.message")

        async def is_done():
            return tuple(await pool.fetchrow(REST))[1:] == (0, 0, 0)

        await until(is_done)


def test_pauses_grow_with_failures_and_have_jitter(monkeypatch):
    pauses = []
    loop = SimpleNamespace(call_later=lambda pause, *_, **__: pauses.append(pause))
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    executor = SimpleNamespace(settings=Settings())
    maintenance = BackgroundMaintenance(executor, executor, 10)
    for failures in (0, 1, 2, 3, 4, 100):
        maintenance._consecutive_failures = failures
        pauses.clear()
        for _ in range(100):
            maintenance.start()
        expected = 10 * 2 ** min(failures, 4)
        assert 0.8 * expected <= min(pauses) < max(pauses) <= 1.2 * expected
        assert len(set(pauses)) == 100


async def test_an_outage_of_the_server_is_logged_once_and_survived(dsn, pool, caplog):
    hook = Hook()
    settings = often(0.02, on_maintenance=hook, acquire_timeout=2, retry_timeout=0)
    async with Wire(dsn) as wire, asyncsvc.connect(wire.dsn, settings=settings) as svc:
        await append(svc)
        await hook.next()
        wire.refuse_connections()
        wire.reset()
        for _ in range(4):
            call = await hook.next()
        assert isinstance(call.error, asyncsvc.Unavailable)
        await wire.accept_connections()
        await until(lambda: appended(svc))
        while call.error is not None:
            call = await hook.next()
    warned = [each for each in caplog.records if each.name == RUNS and each.levelname == "WARNING"]
    assert len(warned) == 1
    assert "is retried" not in caplog.text


async def appended(svc):
    try:
        await append(svc, "later")
    except asyncsvc.Unavailable:
        return False
    return True


async def test_a_hook_that_raises_does_not_end_the_runs(dsn, caplog):
    calls, hook = [], Hook()

    def broken(*arguments):
        calls.append(arguments)
        hook(*arguments)
        raise RuntimeError("broken hook")

    async with asyncsvc.connect(dsn, settings=often(on_maintenance=broken)) as svc:
        for id in ("a", "b"):
            await append(svc, id)
            await hook.next()
    assert len(calls) >= 2
    assert "Settings.on_maintenance raised" in caplog.text


# ------------------------------------------------------------------------- the end


INDEXING = """
     WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()
       AND query LIKE '%search/index_messages%'
"""


async def is_running(pool, name):
    return await pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity" + INDEXING.replace("index_messages", name)
    )


def named(dsn):
    return f"{dsn}?application_name=maintained"


@pytest.mark.damages
@pytest.mark.parametrize("cancelled", [False, True])
async def test_close_ends_a_run_in_the_middle_of_a_statement(dsn, pool, cancelled):
    await execute_each(pool, SLOW)
    svc = await asyncsvc.connect(named(dsn), settings=often())
    await append(svc)
    await until(lambda: is_running(pool, "index_messages"))
    start = time.monotonic()
    closing = asyncio.create_task(svc.close())
    if cancelled:
        await asyncio.sleep(0)
        closing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await closing
    assert time.monotonic() - start < 60  # the statement sleeps for 600 s

    async def is_gone():
        return await pool.fetchval(SESSIONS) == 0

    await until(is_gone)
    assert [task for task in asyncio.all_tasks() if task.get_name() == "asyncsvc maintenance"] == []
    with pytest.raises(asyncsvc.PoolClosed):
        await svc.conversations.get_list(tenant_id="acme")


async def test_nothing_runs_after_close(dsn):
    names = []
    settings = often(0.01, on_query=lambda name, *_: names.append(name))
    for _ in range(20):
        svc = await asyncsvc.connect(dsn, settings=settings)
        await asyncio.sleep(0.01)
        await svc.close()
        await svc.close()
        count = len(names)
        await asyncio.sleep(0.03)
        assert len(names) == count


PROGRAM = """
import asyncio, os, sys, asyncsvc

async def main():
    called = asyncio.Event()
    settings = asyncsvc.Settings(
        maintenance_interval=0.05, on_maintenance=lambda *_: called.set())
    svc = await asyncsvc.connect(os.environ["ASYNCSVC_DSN"], settings=settings)
    if "fork" in sys.argv:
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
    await svc.conversations.create(tenant_id="acme", dialog_id="d", id=sys.argv[1])
    await asyncio.wait_for(called.wait(), 60)
    if "fork" in sys.argv:
        await svc.close()
    return svc

if "run" in sys.argv:
    asyncio.run(main())
else:
    loop = asyncio.new_event_loop()
    svc = loop.run_until_complete(main())
    loop.close()
print("done")
"""


@pytest.mark.parametrize("way", ["run", "close", "fork"])
def test_an_event_loop_that_ends_without_close_gives_no_warning_of_a_task(dsn, way):
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", PROGRAM, way],
        check=False,
        env={**os.environ, "ASYNCSVC_DSN": dsn},
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert "Task was destroyed" not in done.stderr
    assert "never awaited" not in done.stderr
    assert "maintenance" not in done.stderr


def test_close_in_another_event_loop_stops_nothing(dsn):
    with asyncio.Runner() as runner:
        svc = runner.run(open_often(dsn))
        with pytest.raises(asyncsvc.ConcurrentUse):
            asyncio.run(svc.close())
        assert not svc._maintenance._is_stopped
        runner.run(svc.close())


async def open_often(dsn):
    return await asyncsvc.connect(dsn, settings=often())
