"""Maintenance deletes expired idempotency keys, beside other work and after interruptions."""

import asyncio
import itertools
import os
from datetime import timedelta

import pytest

import asyncsvc
from asyncsvc import InvalidInput, MaintenanceReport, Settings
from asyncsvc.operations import maintenance
from tests.support.citus import execute_each
from tests.support.command_line import run_command

TURN = {"messages": [{"role": "user", "content": "hello"}]}
DAY = 86_400.0


async def append(svc, key, *, tenant_id="acme", id="a"):
    return await svc.conversations.append_message(
        id, TURN, tenant_id=tenant_id, idempotency_key=key
    )


async def append_keyed(svc, pool, ages, *, tenant_id="acme", id="a"):
    """Create a conversation and append 1 turn for each age, with a key of that age in days."""
    await svc.conversations.create(tenant_id=tenant_id, dialog_id="d", id=id)
    for number, age in enumerate(ages):
        await append(svc, f"k{number}", tenant_id=tenant_id, id=id)
        await pool.execute(
            "UPDATE asyncsvc.append_key SET created_at = now() - $1 * interval '1 day'"
            " WHERE tenant_id = $2 AND conversation_id = $3 AND key = $4",
            *(float(age), tenant_id, id, f"k{number}"),
        )


async def keys(pool):
    rows = await pool.fetch("SELECT tenant_id, key FROM asyncsvc.append_key ORDER BY 1, 2")
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("batch", [1, 2, 1_000])
async def test_keys_expire_after_a_week(svc, pool, monkeypatch, batch):
    monkeypatch.setattr(maintenance, "_KEY_BATCH_SIZE", batch)
    await append_keyed(svc, pool, [8, 0, 7.1, 6.9])
    await append_keyed(svc, pool, [100, 1], tenant_id="other")
    seen = []
    report = await svc.maintain(on_batch=seen.append)
    assert report == MaintenanceReport(append_keys=3, ledger_rows=8, messages=6, titles=2)
    assert seen[-1] == report
    assert await keys(pool) == [("acme", "k1"), ("acme", "k3"), ("other", "k1")]
    assert (await svc.maintain()).append_keys == 0


async def test_the_lifetime_of_keys_is_a_setting(dsn, svc, pool):
    await append_keyed(svc, pool, [2, 0.5])
    async with asyncsvc.connect(dsn, settings=Settings(key_lifetime=DAY)) as short_lived:
        assert (await short_lived.maintain()).append_keys == 1
    assert await keys(pool) == [("acme", "k1")]


async def test_an_expired_key_can_be_used_again(svc, pool):
    await append_keyed(svc, pool, [8])
    assert (await append(svc, "k0")).replayed
    await svc.maintain()
    again = await append(svc, "k0")
    assert (again.first_seq, again.replayed) == (2, False)


async def test_maintenance_skips_locked_keys(svc, pool):
    await append_keyed(svc, pool, [8, 8])
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(
            "SELECT 1 FROM asyncsvc.append_key WHERE tenant_id = 'acme' AND key = 'k0' FOR UPDATE"
        )
        async with asyncio.timeout(5):
            assert (await svc.maintain()).append_keys == 1
    assert (await svc.maintain()).append_keys == 1


async def test_concurrent_runs_delete_each_key_once(svc, pool, monkeypatch):
    monkeypatch.setattr(maintenance, "_KEY_BATCH_SIZE", 7)
    for tenant_id in ("acme", "other", "third"):
        await append_keyed(svc, pool, [8] * 20, tenant_id=tenant_id)
    reports = await asyncio.gather(*(svc.maintain() for _ in range(4)))
    reports.append(await svc.maintain())  # each run may skip a key that the other run locked
    assert sum(report.append_keys for report in reports) == 60
    assert await keys(pool) == []


async def test_an_interrupted_run_is_continued_by_the_next(svc, pool, monkeypatch):
    monkeypatch.setattr(maintenance, "_KEY_BATCH_SIZE", 5)
    await append_keyed(svc, pool, [8] * 20)

    def interrupt(report):
        if report.append_keys >= 10:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await svc.maintain(on_batch=interrupt)
    assert len(await keys(pool)) == 10
    assert (await svc.maintain()).append_keys == 10


async def test_maintenance_runs_beside_appends_and_deletions(svc, pool):
    await append_keyed(svc, pool, [8] * 50)

    await append_keyed(svc, pool, [8] * 50, id="doomed")

    async def append_and_delete():
        for number in range(20):
            await append(svc, f"new{number}")
        await svc.conversations.delete_by_id("doomed", tenant_id="acme")

    await asyncio.gather(append_and_delete(), *(svc.maintain() for _ in range(5)))
    await svc.maintain()
    assert await keys(pool) == sorted(("acme", f"new{number}") for number in range(20))


@pytest.mark.damages
async def test_maintenance_reads_expired_keys_by_their_index(svc, pool):
    await append_keyed(svc, pool, [0])
    await pool.execute(
        "INSERT INTO asyncsvc.append_key"
        " SELECT tenant_id, conversation_id, 'n' || n, body_hash, 1, 1, 1,"
        "        now() - n * interval '1 minute'"
        "   FROM asyncsvc.append_key, generate_series(1, 20000) AS n"
    )
    await pool.execute("ANALYZE asyncsvc.append_key")
    plan = await svc.explain("append_key/find_expired", values={"lifetime": "P7D", "limit": "100"})
    assert "append_key_created_idx" in "\n".join(plan.lines)
    assert "Seq Scan" not in "\n".join(plan.lines)


@pytest.mark.parametrize("lifetime", [1e-6, 1e9])
async def test_the_shortest_and_the_longest_lifetime_are_accepted(dsn, svc, pool, lifetime):
    await append_keyed(svc, pool, [8])
    async with asyncsvc.connect(dsn, settings=Settings(key_lifetime=lifetime)) as extreme:
        assert (await extreme.maintain()).append_keys == (lifetime < 1)
    with pytest.raises(InvalidInput, match="key_lifetime"):
        Settings(key_lifetime=1e9 + 1)


# ------------------------------------------------------------------------- failing tenants


def planted(table, event, body, tenant_id="b"):
    """Return commands that run `body` for each changed row of a tenant."""
    return f"""
        CREATE FUNCTION asyncsvc.planted() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN {body}; RETURN coalesce(NEW, OLD); END $$;
        CREATE TRIGGER planted BEFORE {event} ON asyncsvc.{table}
           FOR EACH ROW WHEN (OLD.tenant_id = '{tenant_id}') EXECUTE FUNCTION asyncsvc.planted()
    """


FAULTS = {
    "append_keys": ("append_key", "DELETE"),
    "usage": ("usage_ledger", "DELETE"),
    "search": ("message", "UPDATE"),
}
BROKEN = "RAISE EXCEPTION 'broken' USING ERRCODE = '22003'"


async def make_tenants(svc, pool, turns=3):
    for tenant_id in ("a", "b", "c"):
        await append_keyed(svc, pool, [8] * turns, tenant_id=tenant_id)


async def rest(pool, tenant_id):
    """Count a tenant's rows that maintenance has not processed."""
    return await pool.fetchrow(
        "SELECT (SELECT count(*) FROM asyncsvc.append_key WHERE tenant_id = $1),"
        "       (SELECT count(*) FROM asyncsvc.usage_ledger WHERE tenant_id = $1),"
        "       (SELECT count(*) FROM asyncsvc.message WHERE tenant_id = $1 AND NOT is_indexed)",
        tenant_id,
    )


@pytest.mark.damages
@pytest.mark.parametrize("job", FAULTS)
async def test_the_failure_of_a_tenant_stops_no_other(svc, pool, caplog, job):
    await make_tenants(svc, pool)
    await execute_each(pool, planted(*FAULTS[job], BROKEN))
    seen = []
    report = await svc.maintain(on_batch=seen.append)
    assert {(each.job, each.tenant_id) for each in report.failures} == {(job, "b")}
    assert "broken" in report.failures[0].error
    assert seen[-1] == report
    assert f"maintenance of {job} failed for the tenant 'b'" in caplog.text
    for tenant_id in ("a", "c"):
        assert tuple(await rest(pool, tenant_id)) == (0, 0, 0)
    left = list(FAULTS).index(job)
    assert [count > 0 for count in await rest(pool, "b")] == [n == left for n in range(3)]

    await pool.execute("DROP TRIGGER planted ON asyncsvc." + FAULTS[job][0])
    assert (await svc.maintain()).failures == ()
    assert tuple(await rest(pool, "b")) == (0, 0, 0)


@pytest.mark.damages
@pytest.mark.parametrize("job", ["append_keys", "search"])
async def test_a_batch_that_takes_too_long_is_processed_in_parts(dsn, svc, pool, job):
    await make_tenants(svc, pool, turns=6)
    await execute_each(pool, planted(*FAULTS[job], "PERFORM pg_sleep(0.25)"))
    async with asyncsvc.connect(dsn, settings=Settings(statement_timeout=1)) as impatient:
        assert (await impatient.maintain()).failures == ()
    for tenant_id in ("a", "b", "c"):
        assert tuple(await rest(pool, tenant_id)) == (0, 0, 0)


@pytest.mark.damages
async def test_a_message_that_fails_alone_is_skipped(svc, pool):
    await make_tenants(svc, pool, turns=30)
    await execute_each(pool, planted("message", "UPDATE", f"IF NEW.seq = 7 THEN {BROKEN}; END IF"))
    report = await svc.maintain()
    assert [(each.job, each.tenant_id) for each in report.failures] == [("search", "b")]
    assert [tuple(await rest(pool, tenant_id)) for tenant_id in "abc"] == [
        (0, 0, 0), (0, 0, 1), (0, 0, 0)
    ]  # fmt: skip


@pytest.mark.damages
async def test_missing_rights_fail_for_all_tenants(svc, pool):
    await make_tenants(svc, pool)
    await execute_each(
        pool, planted("message", "UPDATE", "RAISE EXCEPTION USING ERRCODE = '42501'")
    )
    with pytest.raises(asyncsvc.DatabaseError) as caught:
        await svc.maintain()
    assert caught.value.sqlstate == "42501"


@pytest.mark.damages
async def test_the_command_reports_failures_by_its_exit_code(dsn, svc, pool):
    await make_tenants(svc, pool)
    await execute_each(pool, planted(*FAULTS["usage"], BROKEN))
    done = run_command(["maintain"], {**os.environ, "ASYNCSVC_DSN": dsn})
    assert done.returncode == 3
    assert "usage of 'b': DatabaseError" in done.stderr


async def test_many_maintainers_at_once_never_raise(dsn, svc, pool):
    for tenant_id in ("a", "b"):
        await append_keyed(svc, pool, [8] * 60, tenant_id=tenant_id)
    async with asyncsvc.connect(dsn, settings=Settings(lock_timeout=0.001)) as hasty:
        reports = await asyncio.gather(*(each.maintain() for each in [hasty, svc] * 6))
    reports.append(await svc.maintain())
    assert all(report.failures == () for report in reports)
    assert sum(report.messages for report in reports) == 120


async def test_maintainers_at_once_never_raise_beside_writers(svc):
    tenants, ids = ("a", "b", "c"), ("1", "2")
    turn = {"messages": [{"role": "user", "content": "hello"}], "tokens": 1}
    for tenant, id in itertools.product(tenants, ids):
        await svc.conversations.create(id=id, dialog_id="d", tenant_id=tenant)
    are_written = asyncio.Event()
    reports = []

    async def maintain():
        while not are_written.is_set():
            reports.append(await svc.maintain())

    async def write(tenant, id):
        for number in range(20):
            await svc.conversations.append_message(id, turn, tenant_id=tenant)
            await svc.conversations.update_by_id(id, {"name": f"n{number}"}, tenant_id=tenant)

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(maintain())
        await asyncio.gather(*(write(*each) for each in itertools.product(tenants, ids)))
        are_written.set()
    reports.append(await svc.maintain())
    assert all(report.failures == () for report in reports)
    left = await svc.backlog()
    assert (left.ledger_rows, left.messages, left.titles) == (0, 0, 0)
    for tenant in tenants:
        total = await svc.conversations.stats_total(
            tenant_id=tenant, from_date="2020-01-01", to_date="2100-01-01"
        )
        assert total.tokens == 40


async def test_the_backlog_counts_the_rows_that_are_not_processed(svc):
    assert (await svc.backlog()).is_empty
    await svc.conversations.create(tenant_id="acme", dialog_id="d", id="a")
    await append(svc, "k")
    await svc.conversations.create(tenant_id="other", dialog_id="d", id="a")
    backlog = await svc.backlog()
    assert (backlog.ledger_rows, backlog.messages, backlog.titles) == (3, 1, 2)
    assert not backlog.is_empty
    await svc.maintain()
    assert (await svc.backlog()).is_empty


async def test_the_counts_of_the_backlog_have_a_limit(svc, monkeypatch):
    monkeypatch.setattr(maintenance, "_MAX_COUNTED", 2)
    for id in "abc":
        await svc.conversations.create(tenant_id="acme", dialog_id="d", id=id)
        await append(svc, "k", id=id)
    backlog = await svc.backlog()
    assert (backlog.ledger_rows, backlog.messages, backlog.titles) == (2, 2, 2)


RUN_A_DAY_AGO = "UPDATE asyncsvc.maintenance SET processed_until = now() - interval '1 day'"


async def test_the_age_counts_from_the_begin_of_the_last_complete_run(svc, pool):
    await pool.execute("UPDATE asyncsvc.migration SET applied_at = applied_at - interval '2 days'")
    assert 2 * DAY < (await svc.backlog()).age < 3 * DAY
    begun = await pool.fetchval("SELECT clock_timestamp()")
    await svc.maintain()
    until = await pool.fetchval("SELECT processed_until FROM asyncsvc.maintenance")
    assert begun - timedelta(seconds=1) < until < await pool.fetchval("SELECT clock_timestamp()")
    assert 0 < (await svc.backlog()).age < DAY
    await pool.execute(RUN_A_DAY_AGO)
    assert DAY < (await svc.backlog()).age < 2 * DAY


async def test_a_run_with_a_failure_is_not_complete(svc, pool):
    await svc.maintain()
    await pool.execute(RUN_A_DAY_AGO)
    await svc.conversations.create(tenant_id="acme", dialog_id="d", id="a")
    await execute_each(
        pool,
        "CREATE FUNCTION asyncsvc.fail() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'broken'; END $$;"
        "CREATE TRIGGER fail BEFORE UPDATE ON asyncsvc.conversation_title"
        " FOR EACH ROW EXECUTE FUNCTION asyncsvc.fail()",
    )
    assert (await svc.maintain()).failures
    assert (await svc.backlog()).age > DAY
    await pool.execute("DROP FUNCTION asyncsvc.fail CASCADE")
    assert not (await svc.maintain()).failures
    assert (await svc.backlog()).age < DAY


async def test_an_interrupted_run_is_not_complete(svc, pool):
    await svc.maintain()
    await pool.execute(RUN_A_DAY_AGO)
    await svc.conversations.create(tenant_id="acme", dialog_id="d", id="a")

    def stop(_report):
        raise KeyError

    with pytest.raises(KeyError):
        await svc.maintain(on_batch=stop)
    assert (await svc.backlog()).age > DAY
