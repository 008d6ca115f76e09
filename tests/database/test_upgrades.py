"""An upgrade of a store in use: short locks, resumable backfills, and a plan that is true."""

import asyncio
import dataclasses
from pathlib import Path

import pytest

import asyncsvc
from asyncsvc import LockTimeout, MigrationError
from asyncsvc.database import sql_files
from asyncsvc.database.migration_files import MigrationFile, migration_files, read_folder
from asyncsvc.operations import migrations
from asyncsvc.operations.backfills import Backfill
from tests.support import citus
from tests.support.migration_rules import violations

UPGRADE = read_folder(Path(__file__).parents[2] / "benchmarks" / "migrations")
"""A new column, its backfill and its index."""
COLUMN, BACKFILL, INDEX = UPGRADE
LATER = [*migration_files()[1:], *UPGRADE]
HELD_LOCKS = """
SELECT c.relname::text,
       upper(regexp_replace(replace(l.mode, 'Lock', ''), '(?<!^)([A-Z])', ' \\1', 'g'))
  FROM pg_locks AS l
  JOIN pg_class AS c ON c.oid = l.relation
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = 'asyncsvc' AND c.relkind IN ('r', 'p') AND c.relname <> 'migration'
   AND l.pid = $1 AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
"""
MISSING_COUNTS = "SELECT count(*) FROM asyncsvc.message WHERE words IS NULL"
SPLIT = """
UPDATE pg_catalog.pg_dist_shard SET shardid = 3, next_tenant = 'a2' WHERE shardid = 1;
INSERT INTO pg_catalog.pg_dist_shard VALUES ('asyncsvc.message', 4, '0', 'a2', 'b')
"""
PROGRESS = "SELECT rows FROM asyncsvc.migration WHERE version = 3"


def with_files(monkeypatch, *files):
    monkeypatch.setattr(migrations, "migration_files", lambda: (*migration_files(), *files))


@pytest.fixture(params=["a table", "2 shards"])
async def messages(svc, pool, request):
    """Conversations with 5 messages of 3 words each; return the number of messages."""
    if request.param == "2 shards":
        if citus.ON_CITUS:
            pytest.skip("the table has real shards")
        await pool.execute(citus.STUBS + citus.TWO_SHARDS)
    records = [
        {
            "id": f"c{number}",
            "dialog_id": "d",
            "messages": [{"role": "user", "content": "where is it"}] * 5,
        }
        for number in range(100)
    ]
    for tenant in ("a", "b"):
        await svc.conversations.import_(records, tenant_id=tenant)
    return 1_000


async def test_an_upgrade_adds_a_column_fills_it_and_builds_its_index(
    svc, pool, messages, monkeypatch
):
    with_files(monkeypatch, *UPGRADE)
    batches = []
    applied = await svc.migrate(on_batch=batches.append)
    assert [migration.name for migration in applied] == [file.name for file in UPGRADE]
    assert await pool.fetchval(MISSING_COUNTS) == 0
    rows = [batch.rows for batch in batches]
    assert rows == sorted(rows)
    assert len(rows) > 1
    assert rows[-1] == messages
    assert await svc.pending() == []
    assert await svc.migrate() == []


async def test_a_backfill_continues_after_its_last_batch(svc, pool, messages, monkeypatch):
    with_files(monkeypatch, COLUMN, BACKFILL)

    def interrupt(progress):
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        await svc.migrate(on_batch=interrupt)
    done = await pool.fetchval(PROGRESS)
    assert 0 < done < messages
    assert await pool.fetchval(MISSING_COUNTS) == messages - done
    assert [step.rows_done for step in await svc.migration_plan()] == [done]
    assert [migration.version for migration in await svc.pending()] == [3]
    await pool.execute(
        "UPDATE asyncsvc.message SET words = NULL"
    )  # rows that it does not read again
    batches = []
    await svc.migrate(on_batch=batches.append)
    assert batches[0].rows > done
    assert await pool.fetchval(MISSING_COUNTS) == done


async def test_a_killed_backfill_loses_at_most_its_last_batch(svc, pool, messages, monkeypatch):
    with_files(monkeypatch, COLUMN, BACKFILL)
    first_batch = asyncio.Event()
    migrating = asyncio.create_task(svc.migrate(on_batch=lambda _: first_batch.set()))
    await first_batch.wait()
    migrating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await migrating
    done = await pool.fetchval(PROGRESS)
    assert await pool.fetchval(MISSING_COUNTS) == messages - done
    await svc.migrate()
    assert await pool.fetchval(MISSING_COUNTS) == 0


async def test_batches_parse_each_file_once(svc, messages, monkeypatch):
    parsed, batches = [], []
    for name in ("commands", "Statement"):
        monkeypatch.setattr(sql_files, name, counted(getattr(sql_files, name), parsed, name))
    with_files(monkeypatch, *(dataclasses.replace(file) for file in (COLUMN, BACKFILL)))
    await svc.migrate(on_batch=batches.append)
    assert len(batches) > 1
    assert ("Statement", f"migrations/{BACKFILL.title}", BACKFILL.source) in parsed
    assert len(parsed) == len(set(parsed))


def counted(function, calls, name):
    def call(*args):
        calls.append((name, *args))
        return function(*args)

    return call


async def test_concurrent_migrators_share_a_backfill(dsn, svc, pool, messages, monkeypatch):
    with_files(monkeypatch, *UPGRADE)
    async with asyncsvc.connect(dsn) as other:
        done = await asyncio.gather(svc.migrate(), other.migrate(), other.migrate())
    assert sum(map(len, done)) == len(UPGRADE)
    assert await pool.fetchval(PROGRESS) == messages


@pytest.mark.parametrize("messages", ["2 shards"], indirect=True)
async def test_a_split_of_a_shard_during_a_backfill_loses_no_row(svc, pool, messages, monkeypatch):
    with_files(monkeypatch, COLUMN, BACKFILL)
    run_batch, batches = Backfill.run_batch, list[object]()

    async def split_after_the_first_batch(self, *arguments):
        if len(batches) == 1:
            await pool.execute(f"SET allow_system_table_mods = on; {SPLIT}")
        batches.append(await run_batch(self, *arguments))
        return batches[-1]

    monkeypatch.setattr(Backfill, "run_batch", split_after_the_first_batch)
    for tenant in ("a2", "a3"):
        record = {"id": "c", "dialog_id": "d", "messages": [{"role": "user", "content": "x"}] * 300}
        await svc.conversations.import_([record], tenant_id=tenant)
    await svc.migrate()
    assert len(batches) > 3
    assert await pool.fetchval(MISSING_COUNTS) == 0


async def test_slow_batches_do_not_become_ever_smaller(svc, messages, monkeypatch):
    """Their fixed cost may take longer than the rows, so 1 row at a time would never end."""
    with_files(monkeypatch, COLUMN, BACKFILL)
    run_batch, batches = Backfill.run_batch, []

    async def run_slowly(self, *arguments):
        await asyncio.sleep(0.06)
        batches.append(arguments)
        return await run_batch(self, *arguments)

    monkeypatch.setattr(Backfill, "run_batch", run_slowly)
    await svc.migrate()
    assert len(batches) <= messages / 100 + 5  # 1 at the end of each shard


async def test_changed_commands_begin_a_backfill_again(svc, pool, messages, monkeypatch):
    with_files(monkeypatch, COLUMN, BACKFILL)

    def interrupt(progress):
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        await svc.migrate(on_batch=interrupt)
    await pool.execute("UPDATE asyncsvc.message SET words = NULL")
    other = MigrationFile(3, BACKFILL.name, BACKFILL.source.replace("' '", "'e'"))
    with_files(monkeypatch, COLUMN, other)
    await svc.migrate()
    assert await pool.fetchval("SELECT count(*) FROM asyncsvc.message WHERE words = 3") == messages


async def test_appends_pass_a_migration_that_waits_for_a_table(dsn, svc, pool, monkeypatch):
    """A waiting ACCESS EXCLUSIVE lock stops all later statements on the table."""
    await svc.conversations.create(tenant_id="t", dialog_id="d", id="c")
    with_files(monkeypatch, COLUMN)
    async with pool.acquire() as reader:
        transaction = reader.transaction()
        await transaction.start()
        await reader.fetch("SELECT 1 FROM asyncsvc.message")
        migrating = asyncio.create_task(svc.migrate())
        for _ in range(20):
            await svc.conversations.append_message(
                "c", {"messages": [{"role": "user", "content": "x"}]}, tenant_id="t"
            )
        assert not migrating.done()
        await transaction.rollback()
    assert len(await migrating) == 1


async def test_a_migration_gives_up_after_the_lock_timeout(dsn, pool, monkeypatch):
    with_files(monkeypatch, COLUMN)
    settings = asyncsvc.Settings(lock_timeout=0.3)
    async with (
        asyncsvc.connect(dsn, settings=settings) as svc,
        pool.acquire() as reader,
        reader.transaction(),
    ):
        await reader.fetch("SELECT 1 FROM asyncsvc.message")
        with pytest.raises(LockTimeout):
            await svc.migrate()
    assert await pool.fetchval("SELECT max(version) FROM asyncsvc.migration") == 1


async def test_a_migration_gives_up_while_a_transaction_writes(dsn, svc, monkeypatch):
    """On Citus its locks are on the node of the tenant, and none is on the coordinator."""
    await svc.conversations.create(tenant_id="t", dialog_id="d", id="c")
    with_files(monkeypatch, COLUMN)
    turn = {"messages": [{"role": "user", "content": "x"}]}
    async with asyncsvc.connect(dsn, settings=asyncsvc.Settings(lock_timeout=0.3)) as impatient:
        async with svc.transaction() as writing:
            await writing.conversations.append_message("c", turn, tenant_id="t")
            with pytest.raises(LockTimeout):
                await impatient.migrate()
        assert len(await impatient.migrate()) == 1


async def test_an_index_that_waits_for_an_old_transaction_says_so(dsn, pool, monkeypatch):
    with_files(monkeypatch, COLUMN, INDEX)
    settings = asyncsvc.Settings(lock_timeout=0.3)
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        assert await svc.migration_plan()
        async with pool.acquire() as writer, writer.transaction():
            await writer.execute("LOCK TABLE asyncsvc.usage_ledger IN ROW EXCLUSIVE MODE")
            await pool.execute(COLUMN.commands[0])
            await writer.execute("LOCK TABLE asyncsvc.message IN ROW EXCLUSIVE MODE")
            with_files(monkeypatch, INDEX)
            with pytest.raises(MigrationError, match="waited for a transaction"):
                await svc.migrate()
        assert len(await svc.migrate()) == 1


async def test_the_plan_shows_locks_and_sizes_and_changes_nothing(svc, pool, messages, monkeypatch):
    with_files(monkeypatch, *UPGRADE)
    await pool.execute("ANALYZE asyncsvc.message")
    steps = await svc.migration_plan()
    assert [step.kind for step in steps] == ["transaction", "backfill", "concurrent"]
    assert [lock.waiting for step in steps for lock in step.locks] == [
        "reads and writes",
        "none",
        "none",
    ]
    assert [step.rows for step in steps] == [messages] * 3
    assert all(step.bytes > 0 and step.seconds > 0 for step in steps)
    assert await svc.migration_plan() == steps
    assert len(await svc.pending()) == 3


async def test_the_plan_of_an_empty_database_locks_no_table(empty_dsn):
    async with asyncsvc.connect(empty_dsn) as svc:
        steps = await svc.migration_plan()
    assert [step.locks for step in steps] == [()] * len(migration_files())


@pytest.mark.parametrize("file", LATER, ids=lambda file: file.title)
async def test_the_header_declares_the_locks_that_a_migration_takes(svc, pool, file, monkeypatch):
    with_files(monkeypatch, *LATER[: LATER.index(file)])
    await svc.migrate()
    async with pool.acquire() as observer:
        if file.kind == "concurrent":
            held = await locks_of_concurrent_commands(pool, observer, file)
        else:
            held = await locks_of_transaction(pool, observer, file)
    assert held == set(file.locks)


async def locks_of_transaction(pool, observer, file):
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        if file.kind == "backfill":
            query = file.batch("[]", 10)
            await connection.fetch(query.text, *query.arguments)
        else:
            for command in file.commands:
                await connection.execute(command)
        held = await observer.fetch(HELD_LOCKS, connection.get_server_pid())
        await transaction.rollback()
    return set(map(tuple, held))


async def locks_of_concurrent_commands(pool, observer, file):
    """Return the locks of a build that waits for an older transaction on the table."""
    async with pool.acquire() as writer, pool.acquire() as connection:
        transaction = writer.transaction()
        await transaction.start()
        for table, _ in file.locks:
            await writer.execute(f"LOCK TABLE asyncsvc.{table} IN ROW EXCLUSIVE MODE")
        running = asyncio.create_task(run_all(connection, file.commands))
        held = []
        async with asyncio.timeout(60):
            while not held:
                held = await observer.fetch(HELD_LOCKS, connection.get_server_pid())
        await transaction.rollback()
        await running
    return set(map(tuple, held))


async def run_all(connection, commands):
    for command in commands:
        await connection.execute(command)


@pytest.mark.parametrize("file", LATER, ids=lambda file: file.title)
def test_migrations_keep_the_rules(file):
    assert violations(file) == []


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("CREATE INDEX i ON asyncsvc.message (seq)", "CREATE INDEX CONCURRENTLY"),
        ("CREATE INDEX CONCURRENTLY i ON asyncsvc.message (seq)", "Transaction: none"),
        (
            "-- Transaction: none\nCREATE INDEX CONCURRENTLY i ON asyncsvc.message (seq)",
            "follows a DROP INDEX",
        ),
        ("DROP INDEX asyncsvc.message_id_idx", "DROP INDEX CONCURRENTLY"),
        ("ALTER TABLE asyncsvc.message ADD COLUMN a uuid DEFAULT gen_random_uuid()", "constant"),
        ("ALTER TABLE asyncsvc.message ADD COLUMN a int NOT NULL", "has a default"),
        ("ALTER TABLE asyncsvc.message ADD COLUMN a int CHECK (a > 0)", "no constraint"),
        ("ALTER TABLE asyncsvc.message ALTER COLUMN seq TYPE bigint", "AT_AlterColumnType"),
        ("ALTER TABLE asyncsvc.message ALTER COLUMN id SET NOT NULL", "AT_SetNotNull"),
        ("ALTER TABLE asyncsvc.message ADD CHECK (seq > 0)", "NOT VALID"),
        ("ALTER TABLE asyncsvc.message ADD UNIQUE (seq)", "index that exists"),
        ("ALTER TABLE asyncsvc.message VALIDATE CONSTRAINT c", "a file of its own"),
        ("ALTER TABLE asyncsvc.message DROP COLUMN thumb", "Contract"),
        ("ALTER TABLE asyncsvc.message RENAME COLUMN thumb TO b", "renamed"),
        ("DROP TABLE asyncsvc.message", "Contract"),
        ("UPDATE asyncsvc.message SET thumb = NULL", "backfill"),
        ("TRUNCATE asyncsvc.message", "TruncateStmt"),
        ("VACUUM FULL asyncsvc.message", "VacuumStmt"),
        ("LOCK TABLE asyncsvc.message", "LockStmt"),
        ("DO 'BEGIN END'", "DoStmt"),
        (
            "-- Locks: a ACCESS EXCLUSIVE\n-- Locks: b ACCESS EXCLUSIVE\nCOMMENT ON TABLE a IS ''",
            "split it",
        ),
        ("-- Backfill: a\nUPDATE a SET b = 1; UPDATE a SET c = 1", "1 statement"),
    ],
)
def test_a_migration_that_blocks_a_large_table_breaks_a_rule(source, rule):
    (broken,) = violations(MigrationFile(2, "later", source))
    assert rule in broken


@pytest.mark.parametrize(
    "source",
    [
        "CREATE TABLE asyncsvc.a (b int PRIMARY KEY); CREATE INDEX i ON asyncsvc.a (b)",
        "ALTER TABLE asyncsvc.message ADD COLUMN a text NOT NULL DEFAULT ''",
        "ALTER TABLE asyncsvc.message ADD CONSTRAINT c CHECK (seq > 0) NOT VALID",
        "-- Transaction: none\nALTER TABLE asyncsvc.message VALIDATE CONSTRAINT c",
        "-- Contract: 0.3\nALTER TABLE asyncsvc.message DROP COLUMN thumb",
        "CREATE FUNCTION asyncsvc.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ],
)
def test_a_short_migration_keeps_the_rules(source):
    assert violations(MigrationFile(2, "later", source)) == []
