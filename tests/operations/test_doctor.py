"""The findings of the doctor on a healthy database and on databases with problems."""

import asyncio
import json
import os
import subprocess
import sys
import urllib.parse
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

import asyncsvc
from asyncsvc import Finding
from asyncsvc.database import sql_files
from asyncsvc.operations import doctor
from asyncsvc.repositories import ServerRepository
from asyncsvc.repositories.server import Index, ServerSettings, Table
from tests.conftest import fetch
from tests.support.citus import execute

GOOD = ServerSettings(
    "16.1", 160001, "UTF8", False, True, True, "on", 7, None, True, 100_000, 2**26
)

OF_CITUS = {"citus", "distribution", "workers", "worker locks", "jit"}
"""The checks of a cluster: tests/operations/test_cluster.py."""


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


async def examine(dsn: str) -> dict[str, Finding]:
    async with asyncsvc.connect(dsn) as svc:
        return by_check(await svc.doctor())


async def test_a_healthy_database_has_no_problem(svc):
    findings = by_check(await svc.doctor())
    checks = {"server", "replica", "durability", "pooler", "search", "clock", "zones", "migrations"}
    checks |= {"autovacuum", "indexes", "rights", "row security", "size", "usage"}
    assert findings.keys() - OF_CITUS == checks
    for check in checks - {"durability", "row security", "size"}:
        assert (findings[check].level, findings[check].advice) == ("ok", None), findings[check]
    assert "message 0" in findings["size"].observed
    assert "PostgreSQL" in findings["server"].observed


async def test_a_pending_migration_is_a_problem(empty_dsn):
    findings = await examine(empty_dsn)
    assert (findings["migrations"].level, findings["migrations"].observed) == (
        "problem", "pending: 0001_initial",
    )  # fmt: skip
    assert "asyncsvc migrate" in findings["migrations"].advice
    assert not findings.keys() & {"indexes", "rights", "size"}


async def test_missing_indexes_are_named(dsn):
    await execute(dsn, "DROP INDEX asyncsvc.conversation_recency_updated_idx")
    await execute(dsn, "DROP INDEX asyncsvc.message_search_idx")
    findings = await examine(dsn)
    assert findings["indexes"].level == "problem"
    assert (
        findings["indexes"].observed
        == "missing: conversation_recency_updated_idx, message_search_idx"
    )
    create = findings["indexes"].advice.partition(": ")[2]
    async with asyncsvc.connect(dsn) as svc:
        await svc.migrate()
    assert (await examine(dsn))["indexes"].level == "problem"  # only an operator can repair it
    for command in sql_files.commands(create):  # those of the advice
        await execute(dsn, command)
    assert (await examine(dsn))["indexes"].level == "ok"


async def test_a_changed_migration_is_a_problem_and_the_other_checks_run(dsn):
    await execute(dsn, "UPDATE asyncsvc.migration SET checksum = 'another'")
    findings = await examine(dsn)
    assert findings["migrations"].level == "problem"
    assert "other commands" in findings["migrations"].observed
    assert "install the version of asyncsvc that migrated" in findings["migrations"].advice
    assert findings["indexes"].level == "ok"


async def test_settings_without_durable_commits_are_a_warning(dsn):
    name = urllib.parse.urlsplit(dsn).path[1:]
    await execute(dsn, f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    findings = await examine(dsn)
    fsync = await fetch(dsn, "SHOW fsync")  # off on the servers that the tests start
    assert findings["durability"].level == ("warning" if fsync == "on" else "problem")
    assert f"fsync {fsync}" in findings["durability"].observed
    assert "synchronous_commit off" in findings["durability"].observed


@pytest.mark.damages
async def test_a_table_with_many_dead_rows_is_a_warning(dsn):
    await execute(dsn, "ALTER TABLE asyncsvc.message SET (autovacuum_enabled = off)")
    await execute(
        dsn,
        "INSERT INTO asyncsvc.conversation (tenant_id, id, dialog_id, last_seq, created_at,"
        " updated_at) VALUES ('t', 'c', 'd', 15000, now(), now())",
    )
    await execute(
        dsn,
        "INSERT INTO asyncsvc.message (tenant_id, conversation_id, seq, role, content, payload,"
        " created_at, dialog_id, conversation_created_at)"
        " SELECT 't', 'c', n, 'user', '', '{}', now(), 'd', now() FROM generate_series(1, 15000) n",
    )
    await execute(dsn, "DELETE FROM asyncsvc.message WHERE seq <= 12000")
    for _ in range(100):
        findings = await examine(dsn)
        if "dead rows" in findings:
            break
        await asyncio.sleep(0.1)
    assert "80% of message are dead: 12,000 rows" in findings["dead rows"].observed
    assert "VACUUM asyncsvc.message" in findings["dead rows"].advice


async def test_the_finding_about_rights_names_the_missing_rights(dsn, server_dsn, svc):
    role = "doctor_" + urllib.parse.urlsplit(dsn).path[-12:].replace("-", "_")
    await execute(dsn, f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    parts = urllib.parse.urlsplit(dsn)
    theirs = parts._replace(netloc=f"{role}:x@{parts.netloc.rpartition('@')[2]}").geturl()
    try:
        findings = await examine(theirs)
        assert (findings["rights"].level, findings["migrations"].level) == ("problem", "problem")
        assert "check failed: permission denied" in findings["migrations"].observed
        assert "granting the missing right" in findings["migrations"].advice
        await execute(dsn, f"GRANT USAGE ON SCHEMA asyncsvc TO {role}")
        await execute(dsn, f"GRANT SELECT ON ALL TABLES IN SCHEMA asyncsvc TO {role}")
        findings = await examine(theirs)
        assert (findings["rights"].level, findings["migrations"].level) == ("note", "ok")
        assert "may not change" in findings["rights"].observed
    finally:
        await execute(dsn, f"DROP OWNED BY {role}")
        await execute(server_dsn, f"DROP ROLE {role}")


def test_version_encoding_durability_and_pooler_have_levels():
    assert doctor.version(GOOD).level == "ok"
    assert doctor.version(GOOD._replace(version_number=140010)).level == "problem"
    assert doctor.version(GOOD._replace(version_number=190000)).level == "note"
    assert doctor.version(GOOD._replace(encoding="SQL_ASCII")).level == "problem"
    assert doctor.replica(GOOD._replace(is_replica=True)).level == "warning"
    assert doctor.durability(GOOD._replace(fsync=False)).level == "problem"
    assert doctor.durability(GOOD._replace(full_page_writes=False)).level == "problem"


@pytest.mark.parametrize(
    ("pid", "setting", "is_kept", "level"),
    [
        (7, None, True, "ok"),
        (7, "prepared", True, "ok"),
        (8, None, False, "note"),
        (8, "transaction", False, "ok"),
        (8, "transaction", True, "note"),
        (8, "prepared", True, "ok"),
        (8, "prepared", False, "problem"),
    ],
)
def test_the_setting_of_the_pooler_must_fit(pid, setting, is_kept, level):
    finding = doctor.pooler(GOOD, pid, setting, is_kept=is_kept)
    assert finding.level == level
    assert level == "ok" or "Settings.pgbouncer" in finding.advice


def test_an_autovacuum_that_cannot_keep_up_has_a_level():
    assert doctor.autovacuum(GOOD).level == "ok"
    assert doctor.autovacuum(GOOD._replace(vacuum_rate=0)).level == "ok"
    assert "no cost limit" in doctor.autovacuum(GOOD._replace(vacuum_rate=0)).observed
    assert doctor.autovacuum(GOOD._replace(autovacuum=False)).level == "problem"
    assert doctor.autovacuum(GOOD._replace(vacuum_rate=10_000)).level == "warning"
    assert doctor.autovacuum(GOOD._replace(vacuum_memory=2**20)).level == "warning"


async def test_the_settings_of_autovacuum_are_those_of_the_server(dsn):
    name = urllib.parse.urlsplit(dsn).path[1:]
    for setting in ("maintenance_work_mem = '2MB'", "vacuum_cost_limit = 100"):
        await execute(dsn, f'ALTER DATABASE "{name}" SET {setting}')
    finding = (await examine(dsn))["autovacuum"]
    assert finding.observed == "on, 50,000 cost units a second, 2.0 MiB of memory"
    assert (finding.level, "cost_delay" in finding.advice) == ("warning", True)


@pytest.mark.parametrize(
    ("seconds", "level"), [(0, "ok"), (0.9, "ok"), (1.5, "warning"), (-86_400, "warning")]
)
def test_clocks_are_compared_within_the_round_trip(seconds, level):
    before = datetime.now(UTC)
    after = before + timedelta(seconds=3)
    server = (after if seconds >= 0 else before) + timedelta(seconds=seconds)
    assert doctor.clock(server, before, after).level == level


def test_zones_that_differ_are_named():
    assert doctor.zones([]).level == "ok"
    finding = doctor.zones([f"Area/{n}" for n in range(7)])
    assert finding.level == "warning"
    assert "7 declared time zones: Area/0, Area/1, Area/2, Area/3, Area/4, …" in finding.observed


async def test_only_declared_zones_are_compared(svc):
    for tenant_id in ("t", "u"):
        await svc.conversations.declare_zone("Asia/Kathmandu", tenant_id=tenant_id)
    names = {zone.name for zone in await ServerRepository(svc._executor).zones()}
    assert names == {"UTC", "Asia/Kathmandu"}


def test_indexes_that_are_broken_or_unused_are_named():
    good = {name: Index(name, True, False, 5, 8192, 10**6) for name in doctor.expected_indexes()}
    assert [finding.level for finding in doctor.indexes(good)] == ["ok"]
    name = next(iter(good))
    broken = good | {name: good[name]._replace(is_valid=False)}
    assert doctor.indexes(broken)[0].observed == f"invalid: {name}"
    unused = good | {name: good[name]._replace(scans=0)}
    assert doctor.indexes(unused)[0].level == "note"
    tables = [Table("message", 1, 1, 1, True, True)]
    assert doctor.rights(tables).level == "ok"


# --- as a program


def program(dsn: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "asyncsvc.cli", "doctor", *arguments],
        env=os.environ | {"ASYNCSVC_DSN": dsn, "COLUMNS": "60"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


async def test_the_command_prints_the_advice(dsn, empty_dsn):
    well = program(dsn)
    assert (well.returncode, well.stderr) in {(0, ""), (3, "")}  # a test server has no fsync
    assert "✓  migrations" in well.stdout
    ill = program(empty_dsn)
    assert (ill.returncode, ill.stderr) == (3, "")
    assert "✗  migrations" in ill.stdout
    assert "→ run `asyncsvc migrate`" in ill.stdout
    assert max(map(len, ill.stdout.splitlines())) <= 60
    findings = json.loads(program(empty_dsn, "--json").stdout)
    assert {"check", "level", "observed", "advice"} == findings[0].keys()


# --- through PgBouncer


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_an_undeclared_pooler_is_detected(pgbouncer, mode):
    async with asyncpg.create_pool(pgbouncer[mode], min_size=0, statement_cache_size=0) as pool:
        findings = by_check(await asyncsvc.AsyncSvc(pool).doctor())
    assert findings["pooler"].level == "note", findings
    assert "Settings.pgbouncer" in findings["pooler"].advice
    assert findings["migrations"].level == "ok"


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_a_pooler_declared_in_the_settings_is_ok(pgbouncer, mode):
    settings = asyncsvc.Settings(pgbouncer="transaction")
    async with asyncsvc.connect(pgbouncer[mode], settings=settings) as svc:
        findings = by_check(await svc.doctor())
    assert findings["pooler"].level == "ok", findings
    assert "a pooler is in use" in findings["pooler"].observed


async def test_a_pooler_that_could_keep_prepared_statements_is_noted(keeping_pgbouncer):
    levels = {}
    for kind in ("transaction", "prepared"):
        settings = asyncsvc.Settings(pgbouncer=kind)
        async with asyncsvc.connect(keeping_pgbouncer["transaction"], settings=settings) as svc:
            levels[kind] = by_check(await svc.doctor())["pooler"].level
    assert levels == {"transaction": "note", "prepared": "ok"}


async def test_prepared_statements_through_a_pooler_are_a_problem(pgbouncer):
    async with asyncpg.create_pool(pgbouncer["transaction"], min_size=0) as pool:
        for _ in range(3):  # the pooler may switch to a connection without the prepared statement
            findings = by_check(await asyncsvc.AsyncSvc(pool).doctor())
            assert findings["pooler"].level in {"note", "problem"}, findings
            assert "statement_cache_size=0" in findings["pooler"].advice
