"""Bring the schema up to date: numbered files, forward only, each applied once.

A migration takes a lock that all migrating processes share, runs the next file, and records it with
the checksum of its commands. Therefore any number of processes may start at once. A file runs in
one transaction, so a killed process leaves no part of it applied. A file that declares
`Transaction: none` runs command by command, and is safe to repeat.

A process polls for the lock. A statement that waited for the lock would hold a snapshot, and CREATE
INDEX CONCURRENTLY in another process waits for the end of snapshots. The server would not detect
this deadlock.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from asyncsvc.database import full_jitter
from asyncsvc.database.migration_files import MigrationFile, migration_files
from asyncsvc.errors import InvalidInput, MigrationError, PoolExhausted
from asyncsvc.models import Migration
from asyncsvc.repositories import MigrationRepository

if TYPE_CHECKING:
    from asyncsvc.database import Executor

_LOCK_PAUSE, _MAX_LOCK_PAUSE = 0.02, 0.5


async def migrate(executor: Executor, *, citus: bool = False) -> list[Migration]:
    """Apply the pending migrations in order, and return them.

    With `citus` it also distributes the tables, and with `Settings.row_level_security` it enables
    row-level security.

    Raises MigrationError if an applied migration has other commands than its file, or if the
    database lacks Citus.
    """
    if citus:
        await _check_citus(executor)
    applied_now = list[Migration]()
    while migration := await _apply_next(executor):
        applied_now.append(migration)
    if citus:
        async with _locked(executor) as transaction:
            await MigrationRepository(transaction).distribute()
    if executor.settings.row_level_security:
        async with _locked(executor) as transaction:
            await MigrationRepository(transaction).enable_row_security()
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


async def check(executor: Executor) -> None:
    """Raise MigrationError unless the schema has the state that the settings need. Read-only."""
    if missing := await pending(executor):
        titles = ", ".join(f"{migration.version:04}_{migration.name}" for migration in missing)
        raise MigrationError(f"the schema lacks {titles}: run `await svc.migrate()`")
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
        raise MigrationError("the database has no extension citus")


async def _apply_next(executor: Executor) -> Migration | None:
    """Apply the next pending migration and return it, or None if there is none."""
    async with _locked(executor) as transaction:
        repository = MigrationRepository(transaction)
        await repository.create_schema()
        await repository.create_table()
        files = _pending_files(await repository.get_applied())
        if not files:
            return None
        migration = _record(files[0])
        if files[0].is_transactional:
            await _run(files[0], transaction)
        else:
            # The last statement keeps its snapshot until a statement of the simple protocol ends.
            await transaction.execute("SELECT")
            await _run(files[0], executor)
        await repository.record(
            version=migration.version, name=migration.name, checksum=migration.checksum
        )
        return migration


async def _run(file: MigrationFile, executor: Executor) -> None:
    """Run the commands in one transaction, or each command alone on a pool."""
    try:
        for command in file.commands:
            await executor.execute(command)
    except PoolExhausted as error:
        raise MigrationError(
            f"{file.title} runs outside a transaction, beside the connection that holds the lock:"
            " migrate with a pool of at least 2 connections"
        ) from error


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
