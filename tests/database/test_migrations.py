"""Migrations are applied once each by any number of processes; read-only roles can check them."""

import asyncio
import sys
from pathlib import Path

import asyncpg
import pytest

import asyncsvc
from asyncsvc import LockTimeout, MigrationError
from asyncsvc.database import sql_files
from asyncsvc.database.migration_files import MigrationFile, migration_files
from asyncsvc.operations import migrations

PROCESS = """
import asyncio, sys, asyncsvc
async def main():
    async with asyncsvc.connect(sys.argv[1], max_size=1) as svc:
        print(len(await svc.migrate()))
        await svc.check()
asyncio.run(main())
"""


async def applied(dsn):
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(
            "SELECT version, name, checksum FROM asyncsvc.migration ORDER BY version"
        )
    finally:
        await connection.close()


async def test_an_empty_database_is_migrated_once(empty_dsn):
    async with asyncsvc.connect(empty_dsn) as svc:
        pending = await svc.pending()
        assert [migration.name for migration in pending] == ["initial"]
        with pytest.raises(MigrationError, match="lacks 0001_initial"):
            await svc.check()
        assert await svc.migrate() == pending
        assert await svc.migrate() == []
        assert await svc.pending() == []
        await svc.check()
    assert [tuple(row) for row in await applied(empty_dsn)] == [
        (migration.version, migration.name, migration.checksum) for migration in pending
    ]


async def test_16_concurrent_processes_apply_each_migration_once(empty_dsn):
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROCESS,
            empty_dsn,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        for _ in range(16)
    ]
    outputs = await asyncio.gather(*(process.communicate() for process in processes))
    assert [err for _, err in outputs if err] == []
    counts = sorted(int(out) for out, _ in outputs)
    assert sum(counts) == len(migration_files())
    assert len(await applied(empty_dsn)) == len(migration_files())


def with_files(monkeypatch, *more):
    files = (*migration_files(), *more)
    monkeypatch.setattr(migrations, "migration_files", lambda: files)


async def test_a_later_migration_is_applied_alone(dsn, svc, monkeypatch):
    with_files(monkeypatch, MigrationFile(9999, "later", "-- A table.\nCREATE TABLE later ();"))
    with pytest.raises(MigrationError, match="lacks 9999_later"):
        await svc.check()
    assert [migration.version for migration in await svc.migrate()] == [9999]
    assert [row["version"] for row in await applied(dsn)][-1] == 9999


async def test_a_migration_that_fails_leaves_nothing_and_can_be_repeated(dsn, svc, monkeypatch):
    with monkeypatch.context() as broken:
        source = "CREATE TABLE half (); SELECT 1/0;"
        with_files(broken, MigrationFile(9999, "later", source))
        with pytest.raises(asyncsvc.DatabaseError):
            await svc.migrate()
    assert len(await applied(dsn)) == 1
    with_files(monkeypatch, MigrationFile(9999, "later", "CREATE TABLE half ();"))
    assert [migration.version for migration in await svc.migrate()] == [9999]


async def terminate(pool, statement):
    """Wait until a session of this database runs the statement, and end the session."""
    query = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE $1"
        " AND state = 'active' AND pid <> pg_backend_pid()"
    )
    async with asyncio.timeout(60):
        while not (pid := await pool.fetchval(query, statement)):
            await asyncio.sleep(0.02)
    await pool.execute("SELECT pg_terminate_backend($1::int)", pid)


async def test_a_killed_migration_leaves_nothing(dsn, svc, pool, monkeypatch):
    with_files(
        monkeypatch, MigrationFile(9999, "slow", "CREATE TABLE half (); SELECT pg_sleep(60);")
    )
    migrating = asyncio.create_task(svc.migrate())
    await terminate(pool, "SELECT pg_sleep(60)%")
    with pytest.raises(asyncsvc.Unavailable):
        await migrating
    assert await pool.fetchval("SELECT to_regclass('half')") is None
    assert len(await applied(dsn)) == 1


async def test_the_error_names_a_migration_whose_commands_changed(svc, pool):
    await pool.execute("UPDATE asyncsvc.migration SET checksum = 'other'")
    for call in (svc.migrate(), svc.pending(), svc.check()):
        with pytest.raises(MigrationError, match="0001_initial was applied with other commands"):
            await call


async def test_a_newer_schema_is_no_error(svc, pool):
    await pool.execute("INSERT INTO asyncsvc.migration VALUES (9999, 'newer', 'x', now())")
    await svc.check()
    assert await svc.migrate() == []


@pytest.mark.parametrize(
    "same",
    [
        "CREATE TABLE a (\r\n    b int\r\n);\r\nSELECT 'x  y';\r\n",
        "-- Another comment.\nCREATE TABLE a (\n    -- of b\n    b int\n);\n\n\nSELECT 'x  y';",
        "CREATE TABLE a ( /* b */\n\tb int ); SELECT 'x  y'",
    ],
)
def test_comments_and_white_space_do_not_change_a_checksum(same):
    source = "-- A comment.\nCREATE TABLE a (\n    b int\n);\nSELECT 'x  y';\n"
    assert MigrationFile(1, "a", same).checksum == MigrationFile(1, "a", source).checksum


@pytest.mark.parametrize(
    "other",
    [
        "CREATE TABLE a (b int); SELECT 'x y'",
        "CREATE TABLE a (b bigint); SELECT 'x  y'",
        "CREATE TABLE a (b int)",
        "CREATE TABLE a (b int); SELECT 'x  y -- z'",
        "CREATE TABLE a (b int); SELECT $$x  y$$",
    ],
)
def test_other_commands_change_a_checksum(other):
    source = "CREATE TABLE a (b int); SELECT 'x  y'"
    assert MigrationFile(1, "a", other).checksum != MigrationFile(1, "a", source).checksum


CONCURRENTLY = """\
-- Build an index beside writers.
-- Transaction: none. The index is built concurrently.
DROP INDEX CONCURRENTLY IF EXISTS asyncsvc.later_idx;
CREATE INDEX CONCURRENTLY later_idx ON asyncsvc.message (created_at);
"""
IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('asyncsvc.later_idx')"


async def test_a_migration_outside_a_transaction_waits_for_no_idle_migrator(
    dsn, svc, pool, monkeypatch
):
    with_files(monkeypatch, MigrationFile(9999, "later", CONCURRENTLY))
    async with asyncio.timeout(60), asyncsvc.connect(dsn) as other:
        done = await asyncio.gather(svc.migrate(), other.migrate(), other.migrate())
    assert sorted(map(len, done)) == [0, 0, 1]
    assert await pool.fetchval(IS_VALID)


async def test_a_migration_outside_a_transaction_is_repeated_after_it_was_killed(
    dsn, svc, pool, monkeypatch
):
    with_files(monkeypatch, MigrationFile(9999, "later", CONCURRENTLY))
    async with pool.acquire() as writer:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("LOCK TABLE asyncsvc.message IN ROW EXCLUSIVE MODE")
        migrating = asyncio.create_task(svc.migrate())
        await terminate(pool, "CREATE INDEX CONCURRENTLY%")
        with pytest.raises(asyncsvc.Unavailable):
            await migrating
        await transaction.rollback()
    assert await pool.fetchval(IS_VALID) is False
    assert len(await applied(dsn)) == len(migration_files())
    assert [migration.version for migration in await svc.migrate()] == [9999]
    assert await pool.fetchval(IS_VALID)


async def test_a_migration_outside_a_transaction_needs_two_connections(dsn, monkeypatch):
    with_files(monkeypatch, MigrationFile(9999, "later", CONCURRENTLY))
    settings = asyncsvc.Settings(acquire_timeout=0.3)
    async with asyncsvc.connect(dsn, max_size=1, settings=settings) as svc:
        with pytest.raises(MigrationError, match="at least 2 connections"):
            await svc.migrate()
    async with asyncsvc.connect(dsn, max_size=2, settings=settings) as svc:
        assert len(await svc.migrate()) == 1


@pytest.fixture
async def reader(dsn, pool):
    """A role that may only read. All databases share roles, so its name contains the database."""
    name = f"{dsn.rpartition('/')[2]}_reader"
    await pool.execute(f'CREATE ROLE "{name}"')
    await pool.execute(f'GRANT USAGE ON SCHEMA asyncsvc TO "{name}"')
    await pool.execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA asyncsvc TO "{name}"')
    yield name
    await pool.execute(f'DROP OWNED BY "{name}"')
    await pool.execute(f'DROP ROLE "{name}"')


async def test_a_read_only_role_can_check(dsn, empty_dsn, reader):
    for database, expected in ((dsn, 0), (empty_dsn, 1)):
        settings = {"default_transaction_read_only": "on", "role": reader}
        async with asyncpg.create_pool(database, min_size=0, server_settings=settings) as pool:
            svc = asyncsvc.AsyncSvc(pool)
            assert len(await svc.pending()) == expected
            if expected:
                with pytest.raises(MigrationError):
                    await svc.check()
            else:
                await svc.check()


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
async def test_a_stricter_default_isolation_does_not_apply_a_migration_twice(empty_dsn, isolation):
    settings = {"default_transaction_isolation": isolation}
    async with asyncpg.create_pool(empty_dsn, min_size=6, server_settings=settings) as pool:
        svc = asyncsvc.AsyncSvc(pool)
        done = await asyncio.gather(*(svc.migrate() for _ in range(6)))
    assert sorted(map(len, done))[-2:] == [0, 1]


async def test_an_empty_search_path_has_no_effect(empty_dsn):
    settings = {"search_path": ""}
    async with asyncpg.create_pool(empty_dsn, min_size=0, server_settings=settings) as pool:
        svc = asyncsvc.AsyncSvc(pool)
        assert len(await svc.migrate()) == 1
        await svc.conversations.create(tenant_id="t", dialog_id="d", name="Blue Sky")
        assert (
            await svc.conversations.get_list(dialog_id="d", tenant_id="t", keywords="e sK")
        ).total == 1


async def test_the_owner_of_the_schema_need_not_own_the_database(dsn, pool):
    role = f"{dsn.rpartition('/')[2]}_owner"
    await pool.execute(f'CREATE ROLE "{role}"')
    try:
        await pool.execute(f'ALTER SCHEMA asyncsvc OWNER TO "{role}"')
        for (table,) in await pool.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'asyncsvc'"
        ):
            await pool.execute(f'ALTER TABLE asyncsvc.{table} OWNER TO "{role}"')
        settings = {"role": role}
        async with asyncpg.create_pool(dsn, min_size=0, server_settings=settings) as theirs:
            assert await asyncsvc.AsyncSvc(theirs).migrate() == []
    finally:
        await pool.execute(f'DROP OWNED BY "{role}" CASCADE')
        await pool.execute(f'DROP ROLE "{role}"')


async def test_a_migration_waits_for_a_table_at_most_the_lock_timeout(dsn, pool):
    """While a migration waits for a lock, all later statements on the table wait as well."""
    settings = asyncsvc.Settings(row_level_security=True, lock_timeout=0.3)
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        async with pool.acquire() as reader, reader.transaction():
            await reader.fetch("SELECT 1 FROM asyncsvc.message")
            with pytest.raises(LockTimeout):
                await svc.migrate()
        assert await svc.migrate() == []


def test_migrations_are_numbered_without_gaps_and_have_headers():
    files = migration_files()
    assert [file.version for file in files] == list(range(1, len(files) + 1))
    assert all(file.source.startswith("-- ") for file in files)
    names = [f"{file.version:04}_{file.name}.sql" for file in files]
    folder = Path(str(sql_files.root())) / "migrations"
    assert sorted(path.name for path in folder.iterdir()) == names
