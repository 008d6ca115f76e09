"""Brings the schema up to date: numbered SQL files, forward only, each applied once.

Each migration runs in a transaction of its own, which takes a lock that all migrating processes
share, applies the next file, and writes it down with the checksum of its text. So any number of
processes may start at once, and one that is killed leaves nothing half-done.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from asyncsvc.database import sql_files
from asyncsvc.errors import InvalidInput, MigrationError
from asyncsvc.models import Migration
from asyncsvc.repositories import MigrationRepository

if TYPE_CHECKING:
    from asyncsvc.database import Executor


@dataclass(frozen=True)
class MigrationFile:
    """One file of `sql/migrations`."""

    version: int
    name: str
    source: str

    @property
    def checksum(self) -> str:
        """The SHA-256 of the text, in hex, whatever the ends of its lines."""
        return hashlib.sha256("\n".join(self.source.splitlines()).encode()).hexdigest()

    @property
    def record(self) -> Migration:
        """What is known of it outside of a database."""
        return Migration(version=self.version, name=self.name, checksum=self.checksum)


@cache
def migration_files() -> tuple[MigrationFile, ...]:
    """Return the numbered files, oldest first."""
    found = []
    for file in (sql_files.root() / "migrations").iterdir():
        number, _, name = file.name.removesuffix(".sql").partition("_")
        found.append(MigrationFile(int(number), name, file.read_text(encoding="utf-8")))
    return tuple(sorted(found, key=lambda migration: migration.version))


async def migrate(executor: Executor, *, citus: bool = False) -> list[Migration]:
    """Apply what is pending, in order, and distribute it; return what this call applied.

    Raises MigrationError when an applied migration is not the one that this version has, and where
    there is no Citus to distribute by.
    """
    if citus:
        await _check_citus(executor)
    done = list[Migration]()
    while migration := await _apply_next(executor):
        done.append(migration)
    if citus:
        async with _locked(executor) as transaction:
            await MigrationRepository(transaction).distribute()
    if executor.settings.row_level_security:
        async with _locked(executor) as transaction:
            await MigrationRepository(transaction).enable_row_security()
    return done


async def _check_citus(executor: Executor) -> None:
    if executor.settings.row_level_security:
        # The nodes of Citus are not told whose rows a statement may see.
        raise InvalidInput("citus", "is not possible with Settings.row_level_security")
    if not await MigrationRepository(executor).has_citus():
        raise MigrationError("the database has no extension citus")


async def _apply_next(executor: Executor) -> Migration | None:
    async with _locked(executor) as transaction:
        repository = MigrationRepository(transaction)
        await repository.create_schema()
        await repository.create_table()
        left = _pending(await repository.get_applied())
        if not left:
            return None
        for command in sql_files.commands(left[0].source):
            await transaction.execute(command)
        await repository.record(
            version=left[0].version, name=left[0].name, checksum=left[0].checksum
        )
        return left[0].record


@asynccontextmanager
async def _locked(executor: Executor) -> AsyncGenerator[Executor]:
    """Open a transaction that no other migrating process shares its time with."""
    # Another isolation would look at what was there before the lock was waited for.
    async with executor.transaction(isolation="read_committed") as transaction:
        await MigrationRepository(transaction).lock()
        yield transaction


async def applied(executor: Executor) -> list[Migration]:
    """Return what is applied, oldest first, also what a newer version applied. It only reads."""
    repository = MigrationRepository(executor)
    return await repository.get_applied() if await repository.is_recorded() else []


async def pending(executor: Executor) -> list[Migration]:
    """Return what `migrate` would apply. It only reads.

    Raises MigrationError when an applied migration is not the one that this version has.
    """
    return [file.record for file in _pending(await applied(executor))]


async def check(executor: Executor) -> None:
    """Raise MigrationError unless the schema is as the settings need it. It only reads."""
    if left := await pending(executor):
        listed = ", ".join(f"{migration.version:04}_{migration.name}" for migration in left)
        raise MigrationError(f"the schema lacks {listed}: run `await svc.migrate()`")
    if not executor.settings.row_level_security:
        return
    if tables := await MigrationRepository(executor).unrestricted_tables():
        raise MigrationError(
            f"row-level security does not hold for this role on {', '.join(tables)}: migrate with"
            " Settings.row_level_security, and connect as a role that neither owns the tables nor"
            " bypasses it"
        )


def _pending(done: list[Migration]) -> list[MigrationFile]:
    """Return the files that are not applied; a newer schema than this version's is no error."""
    checksums = {migration.version: migration.checksum for migration in done}
    for file in migration_files():
        if checksums.get(file.version, file.checksum) != file.checksum:
            raise MigrationError(
                f"migration {file.version:04}_{file.name} was applied with another text"
            )
    return [file for file in migration_files() if file.version not in checksums]
