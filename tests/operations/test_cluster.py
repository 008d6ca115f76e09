"""What `check` and the doctor say about Citus: on stand-ins for its catalog, and on a cluster."""

import logging

import asyncpg
import pytest

import asyncsvc
from asyncsvc import MigrationError, Settings
from asyncsvc.operations import cluster
from asyncsvc.repositories.server import Cluster, Worker
from tests.support.citus import ON_CITUS, STUBS, execute

GOOD = Cluster("13.2", "13.2", False, "ALTER", ["conversation", "message"], [])
WORKER = Worker("one:5432", True, True, "13.2", "13.2", 10_000, "ALTER")
LOST = Worker("two:5432", True, False, None, None, None, "ALTER")
CHECKS = {"citus", "distribution", "workers", "worker locks", "jit"}
without_citus = pytest.mark.skipif(ON_CITUS, reason="the server has no stand-ins for Citus")
with_citus = pytest.mark.skipif(not ON_CITUS, reason="it needs a cluster of Citus")


async def findings_of(dsn: str, *, citus: bool = True) -> dict[str, asyncsvc.Finding]:
    async with asyncsvc.connect(dsn, settings=Settings(citus=citus)) as svc:
        return {each.check: each for each in await svc.doctor() if each.check in CHECKS}


async def check(dsn: str, *, citus: bool = True) -> None:
    async with asyncsvc.connect(dsn, settings=Settings(citus=citus)) as svc:
        await svc.check()


async def size_and_indexes(dsn: str) -> list[asyncsvc.Finding]:
    async with asyncsvc.connect(dsn, settings=Settings(citus=True)) as svc:
        return [each for each in await svc.doctor() if each.check in {"size", "indexes"}]


@pytest.fixture
async def stubbed(dsn):
    """A migrated database of a server without Citus, with the catalog of a cluster."""
    await execute(dsn, STUBS)
    return dsn


# --- rules


def test_the_version_of_the_extension_is_that_of_the_library():
    assert cluster.version(GOOD).level == "ok"
    old = cluster.version(GOOD._replace(extension="13.1"))
    assert (old.level, "update the extension" in old.advice) == ("problem", True)


def test_the_tables_are_distributed_if_and_only_if_the_settings_say_so():
    assert cluster.distribution(GOOD, Settings(citus=True)).level == "ok"
    unset = cluster.distribution(GOOD, Settings(citus=False))
    assert (unset.level, "set Settings.citus" in unset.advice) == ("problem", True)
    none = GOOD._replace(distributed=[], misplaced=["conversation", "message"])
    assert (
        cluster.distribution(none, Settings(citus=False)).level == "ok"
    )  # Citus is for other tables
    assert cluster.distribution(none, Settings(citus=True)).level == "problem"
    partly = cluster.distribution(GOOD._replace(misplaced=["record"]), Settings(citus=True))
    assert partly.level == "problem"
    assert partly.observed.endswith(": record")
    assert "migrate --citus" in partly.advice


def test_a_worker_that_is_down_disabled_or_of_another_version_is_named():
    assert cluster.nodes([WORKER], GOOD).level == "ok"
    assert cluster.nodes([], GOOD).level == "warning"
    assert cluster.nodes([WORKER, LOST], GOOD).observed == "not reached: two:5432"
    disabled = cluster.nodes([WORKER, LOST._replace(is_active=False)], GOOD)
    assert disabled.observed == "disabled: two:5432"
    assert "citus_activate_node" in disabled.advice
    for change in ({"library": "13.1"}, {"extension": "13.1"}):
        other = cluster.nodes([WORKER._replace(**change)], GOOD)
        assert (other.level, "one:5432" in other.observed) == ("problem", True)


def test_a_lock_timeout_that_differs_comes_with_the_statement_that_sets_it():
    settings = Settings(lock_timeout=10)
    assert cluster.lock_timeout([WORKER, LOST], settings).level == "ok"
    unlimited = cluster.lock_timeout([WORKER._replace(lock_timeout=0)], settings)
    assert (unlimited.level, unlimited.advice) == ("warning", "on the coordinator: ALTER")


def test_jit_on_the_coordinator_is_a_warning():
    assert cluster.jit(GOOD).level == "ok"
    warning = cluster.jit(GOOD._replace(has_jit=True))
    assert (warning.level, "ALTER" in warning.advice) == ("warning", True)


# --- on a server without Citus


@without_citus
async def test_settings_for_citus_need_citus(dsn):
    with pytest.raises(MigrationError, match="does not have the extension"):
        await check(dsn)
    assert (await findings_of(dsn))["citus"].level == "problem"
    assert await findings_of(dsn, citus=False) == {}


@without_citus
async def test_a_distributed_schema_has_no_problem(stubbed):
    await check(stubbed)
    findings = await findings_of(stubbed)
    assert findings.keys() == CHECKS
    assert {finding.level for finding in findings.values()} == {"ok"}
    other = Settings(citus=True, lock_timeout=3)
    async with asyncsvc.connect(stubbed, settings=other) as svc:
        (locks,) = [each for each in await svc.doctor() if each.check == "worker locks"]
    assert "one:5432 10000 ms, two:5432 10000 ms" in locks.observed
    assert locks.advice.endswith(" SET lock_timeout = 3000")


@without_citus
async def test_the_shards_of_a_coordinator_without_workers_are_no_tables(stubbed):
    before = await size_and_indexes(stubbed)
    columns = "tenant_id text CONSTRAINT record_pkey_102040 PRIMARY KEY"
    await execute(stubbed, f"CREATE TABLE asyncsvc.record_102040 ({columns})")
    await check(stubbed)
    assert await size_and_indexes(stubbed) == before


@without_citus
async def test_a_distributed_schema_needs_the_setting(stubbed):
    with pytest.raises(MigrationError, match=r"set Settings\.citus"):
        await check(stubbed, citus=False)
    assert (await findings_of(stubbed, citus=False))["distribution"].level == "problem"


@without_citus
@pytest.mark.parametrize("change", ["partmethod = 'n'", "partkey = 'id'", "colocationid = 2"])
async def test_a_table_that_is_distributed_otherwise_is_named(stubbed, change):
    command = (
        f"UPDATE pg_catalog.pg_dist_partition SET {change}"
        " WHERE logicalrelid = 'asyncsvc.record'::regclass"
    )
    await execute(stubbed, f"SET allow_system_table_mods = on; {command}")
    with pytest.raises(MigrationError, match=r"conversations: record: run `asyncsvc migrate"):
        await check(stubbed)


@without_citus
async def test_a_function_that_citus_does_not_call_on_the_node_of_a_tenant_is_named(stubbed):
    await execute(stubbed, "SET allow_system_table_mods = on; TRUNCATE pg_catalog.pg_dist_object")
    with pytest.raises(MigrationError, match=r"conversations: run_on_node_v1: run `asyncsvc"):
        await check(stubbed)


@without_citus
async def test_a_check_passes_while_a_worker_is_down_and_logs_it(stubbed, caplog):
    down = "UPDATE pg_catalog.pg_dist_node SET nodeport = 6000 WHERE nodename = 'two'"
    await execute(stubbed, f"SET allow_system_table_mods = on; {down}")
    with caplog.at_level(logging.WARNING, "asyncsvc"):
        await check(stubbed)
    assert "not reached: two:6000" in caplog.text
    assert (await findings_of(stubbed))["workers"].level == "problem"


# --- on a cluster


@with_citus
async def test_a_cluster_has_no_problem(dsn):
    await check(dsn)
    findings = await findings_of(dsn)
    assert findings.keys() == CHECKS
    for name in CHECKS - {"worker locks"}:
        assert findings[name].level == "ok", findings[name]
    with pytest.raises(MigrationError, match=r"set Settings\.citus"):
        await check(dsn, citus=False)


@with_citus
async def test_a_table_that_a_cluster_does_not_distribute_is_named(dsn):
    await execute(dsn, "SELECT undistribute_table('asyncsvc.record')")
    with pytest.raises(MigrationError, match="conversations: record"):
        await check(dsn)
    async with asyncsvc.connect(dsn) as svc:
        await svc.migrate(citus=True)
    await check(dsn)


@with_citus
async def test_the_advised_statement_sets_the_lock_timeout_of_workers(dsn):
    role = "asyncsvc_test_locks"
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(f"CREATE ROLE {role} LOGIN")
        await connection.execute(f"GRANT USAGE ON SCHEMA asyncsvc TO {role}")
        theirs = dsn.replace("//postgres@", f"//{role}@")
        finding = (await findings_of(theirs))["worker locks"]
        assert finding.level == "warning"
        await execute(theirs, finding.advice.partition(": ")[2])
        assert (await findings_of(theirs))["worker locks"].level == "ok"
    finally:
        await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await connection.close()
