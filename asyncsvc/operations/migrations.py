"""Bring the schema up to date: numbered files, forward only, each applied once.

A migration takes a lock that all migrating processes share, runs the next file, and records it with
the checksum of its commands. Therefore any number of processes may start at once. A file runs in
one transaction, so a killed process leaves no part of it applied. A file that declares
`Transaction: none` runs command by command, and is safe to repeat. A file that declares `Backfill`
runs once for each batch of rows, and each batch is a transaction that records its position.

A process polls for the lock. A statement that waited for the lock would hold a snapshot, and CREATE
INDEX CONCURRENTLY in another process waits for the end of snapshots. The server would not detect
this deadlock.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from asyncsvc.database import backoff, build_model, full_jitter
from asyncsvc.database.migration_files import MigrationFile, migration_files
from asyncsvc.errors import InvalidInput, LockTimeout, MigrationError, PoolExhausted
from asyncsvc.models import Migration, MigrationProgress, MigrationStep, TableLock
from asyncsvc.operations import cluster
from asyncsvc.operations.backfills import Backfill
from asyncsvc.repositories import MigrationRepository

if TYPE_CHECKING:
    from asyncsvc.database import Executor
    from asyncsvc.models import Waiting
    from asyncsvc.repositories.migration import TableSize

_T = TypeVar("_T")
_LOCK_PAUSE, _MAX_LOCK_PAUSE = 0.02, 0.5
_FIRST_RETRY_PAUSE: Final = 0.1
_MAX_RETRY_PAUSE: Final = 1.0
_MIN_BATCH_SIZE: Final = 100
"""The first size, and the least. On Citus or a loaded server the fixed cost of a batch may exceed
the duration that the size approaches, so a smaller batch would not be shorter."""
_MAX_BATCH_SIZE: Final = 5_000
_BATCH_SECONDS: Final = 0.005
"""The duration of a batch of a backfill that its size approaches. Appends wait for its commit."""
_PAUSE_PER_BATCH: Final = 2.0
"""The pause after a batch, as a multiple of its duration."""
_SHORT_SECONDS: Final = 0.05
"""The estimated duration of a file that reads no rows."""
_SCANNED_BYTES_PER_SECOND: Final = 200_000_000
_BACKFILLED_ROWS_PER_SECOND: Final = 7_000
"""Measured under appends, by the suite `upgrade` of the benchmarks."""
_WRITES_WAIT: Final = {"SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE"}
_READS_WAIT: Final = "ACCESS EXCLUSIVE"


class _Progress(NamedTuple):
    """The place of a backfill, and the number of rows that it has changed."""

    position: str
    rows: int


async def migrate(
    executor: Executor,
    *,
    citus: bool = False,
    on_batch: Callable[[MigrationProgress], None] | None = None,
) -> list[Migration]:
    """Apply the pending migrations in order, and return them.

    With `citus` it also distributes the tables, and with `Settings.row_level_security` it enables
    row-level security.

    Raises MigrationError if an applied migration has other commands than its file, or if the
    database lacks Citus.
    """
    if citus:
        await _check_citus(executor)
    applied_now = list[Migration]()
    async with aclosing(_Migrator(executor).run()) as results:
        async for result in results:
            if isinstance(result, Migration):
                applied_now.append(result)
            elif on_batch is not None:
                on_batch(result)
    if citus:
        async with _locked(executor) as transaction:
            await MigrationRepository(transaction).distribute()
    if executor.settings.row_level_security:
        await _with_short_waits(
            executor, lambda transaction: MigrationRepository(transaction).enable_row_security()
        )
    return applied_now


async def applied(executor: Executor) -> list[Migration]:
    """Return the applied migrations, oldest first, also those of a newer version. Read-only."""
    repository = MigrationRepository(executor)
    return await repository.get_applied() if await repository.has_table() else []


async def pending(executor: Executor) -> list[Migration]:
    """Return the migrations that `migrate` would apply. Read-only.

    Raises MigrationError if an applied migration has other commands than its file.
    """
    return [_record(file) for file in _pending_files(await applied(executor))]


async def plan(executor: Executor) -> list[MigrationStep]:
    """Return the pending migrations with their locks and estimates. Read-only."""
    files = _pending_files(await applied(executor))
    repository = MigrationRepository(executor)
    sizes = await repository.get_sizes(with_shards=await repository.has_citus())
    tables = {table.name: table for table in sizes}
    return [await _step(file, executor, tables) for file in files]


async def _step(
    file: MigrationFile, executor: Executor, tables: Mapping[str, TableSize]
) -> MigrationStep:
    touched = [tables[name] for name, _ in file.locks if name in tables]
    rows, size = sum(table.rows for table in touched), sum(table.bytes for table in touched)
    seconds, rows_done = _SHORT_SECONDS, 0
    if file.kind == "concurrent":
        seconds += size / _SCANNED_BYTES_PER_SECOND
    elif file.kind == "backfill":
        if touched:
            rows_done = (await _get_progress(file, executor)).rows
        seconds += max(rows - rows_done, 0) / _BACKFILLED_ROWS_PER_SECOND
    return MigrationStep(
        version=file.version,
        name=file.name,
        kind=file.kind,
        locks=tuple(
            TableLock(table=table, mode=mode, waiting=_waiting(mode)) for table, mode in file.locks
        ),
        rows=rows,
        rows_done=rows_done,
        bytes=size,
        seconds=seconds,
        oldest_release=file.oldest_release,
    )


def _waiting(mode: str) -> Waiting:
    """Return the statements that wait for a lock of this mode."""
    if mode == _READS_WAIT:
        return "reads and writes"
    return "writes" if mode in _WRITES_WAIT else "none"


async def check(executor: Executor) -> None:
    """Raise MigrationError unless the schema has the state that the settings need. Read-only."""
    if missing := await pending(executor):
        titles = ", ".join(f"{migration.version:04}_{migration.name}" for migration in missing)
        raise MigrationError(f"the schema lacks {titles}: run `await svc.migrate()`")
    await cluster.check(executor)
    if not executor.settings.row_level_security:
        return
    if tables := await MigrationRepository(executor).get_unrestricted_tables():
        raise MigrationError(
            f"row-level security does not restrict this role on {', '.join(tables)}: migrate with"
            " Settings.row_level_security, and connect as a role that neither owns the tables nor"
            " bypasses it"
        )


async def _check_citus(executor: Executor) -> None:
    if executor.settings.row_level_security:
        # A worker node does not receive the setting that names the tenant.
        raise InvalidInput("citus", "is not possible with Settings.row_level_security")
    if not await MigrationRepository(executor).has_citus():
        raise MigrationError("the database has no extension citus: install it there, on each node")


class _Migrator:
    """Applies the pending files one after the other, and a backfill batch by batch."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._batch_size = _MIN_BATCH_SIZE
        self._backfills = dict[int, Backfill]()

    async def run(self) -> AsyncGenerator[Migration | MigrationProgress]:
        """Yield each applied migration, and the progress after each batch of a backfill."""
        while True:
            start = time.monotonic()
            result = await _with_short_waits(self._executor, self._apply_next)
            if result is None:
                return
            yield result
            if isinstance(result, MigrationProgress):
                await self._pause(time.monotonic() - start)

    async def _pause(self, seconds: float) -> None:
        """Give way to the application after a batch that took `seconds`, and adapt the next one."""
        if seconds < _BATCH_SECONDS / 2:
            self._batch_size = min(self._batch_size * 2, _MAX_BATCH_SIZE)
        elif seconds > _BATCH_SECONDS * 2:
            self._batch_size = max(self._batch_size // 2, _MIN_BATCH_SIZE)
        await asyncio.sleep(seconds * _PAUSE_PER_BATCH)

    async def _apply_next(self, transaction: Executor) -> Migration | MigrationProgress | None:
        """Apply the next file or its next batch. None: no file is pending."""
        repository = MigrationRepository(transaction)
        await repository.create_schema()
        await repository.create_table()
        files = _pending_files(await repository.get_applied())
        if not files:
            return None
        file = files[0]
        if file.kind == "backfill":
            progress = await self._run_batch(file, transaction)
            if progress is not None:
                return progress
        elif file.kind == "transaction":
            for command in file.commands:
                await transaction.execute(command)
        else:
            # The last statement keeps its snapshot until a statement of the simple protocol ends.
            await transaction.execute("SELECT")
            await _run_concurrently(file, self._executor)
        migration = _record(file)
        await repository.record(
            version=migration.version, name=migration.name, checksum=migration.checksum
        )
        return migration

    async def _run_batch(
        self, file: MigrationFile, transaction: Executor
    ) -> MigrationProgress | None:
        """Change the next rows and record the position. None: there are no more rows."""
        progress = await _get_progress(file, transaction)
        backfill = self._backfills.setdefault(file.version, Backfill(file))
        batch = await backfill.run_batch(transaction, progress.position, self._batch_size)
        if batch.position is None:
            return None
        rows = progress.rows + batch.rows
        await MigrationRepository(transaction).record_progress(
            version=file.version,
            name=file.name,
            checksum=file.checksum,
            position=batch.position,
            rows=rows,
        )
        return MigrationProgress(version=file.version, name=file.name, rows=rows)


async def _get_progress(file: MigrationFile, executor: Executor) -> _Progress:
    rows = await MigrationRepository(executor).get_progress(
        version=file.version, checksum=file.checksum
    )
    return build_model(_Progress, rows[0]) if rows else _Progress("[]", 0)


async def _run_concurrently(file: MigrationFile, executor: Executor) -> None:
    """Run each command alone on the pool."""
    try:
        for command in file.commands:
            await executor.execute(command)
    except PoolExhausted as error:
        raise MigrationError(
            f"{file.title} runs outside a transaction, beside the connection that holds the lock:"
            " migrate with a pool of at least 2 connections"
        ) from error
    except LockTimeout as error:
        raise MigrationError(
            f"{file.title} waited for a transaction that is older than Settings.lock_timeout: end"
            " that transaction or raise the timeout, and migrate again"
        ) from error


async def _with_short_waits(executor: Executor, work: Callable[[Executor], Awaitable[_T]]) -> _T:
    """Run `work` in a transaction under the lock of all migrating processes.

    A statement that waits for a lock on a table makes all later statements on the table wait. So
    each attempt waits for 0.1 s, and further ones follow for `Settings.lock_timeout`.
    """
    pauses = backoff(executor.settings.lock_timeout, base=_FIRST_RETRY_PAUSE, cap=_MAX_RETRY_PAUSE)
    while True:
        try:
            async with _locked(executor) as transaction:
                await MigrationRepository(transaction).set_lock_timeout()
                return await work(transaction)
        except LockTimeout:
            if (pause := next(pauses, None)) is None:
                raise
            await asyncio.sleep(pause)


@asynccontextmanager
async def _locked(executor: Executor) -> AsyncGenerator[Executor]:
    """Open a transaction that holds the lock of all migrating processes."""
    for attempt in itertools.count():
        # At a stricter isolation the snapshot would be older than the lock.
        async with executor.transaction(isolation="read_committed") as transaction:
            if await MigrationRepository(transaction).try_lock():
                yield transaction
                return
        await asyncio.sleep(full_jitter(attempt, base=_LOCK_PAUSE, cap=_MAX_LOCK_PAUSE))


def _record(file: MigrationFile) -> Migration:
    return Migration(version=file.version, name=file.name, checksum=file.checksum)


def _pending_files(applied: Sequence[Migration]) -> list[MigrationFile]:
    """Return the files that are not applied. A newer schema than this version is not an error."""
    checksums = {migration.version: migration.checksum for migration in applied}
    for file in migration_files():
        if checksums.get(file.version, file.checksum) != file.checksum:
            raise MigrationError(f"migration {file.title} was applied with other commands")
    return [file for file in migration_files() if file.version not in checksums]
