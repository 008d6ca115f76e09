"""The numbered migration files of `sql/migrations`: their kinds, locks and checksums.

The labels of a header name the kind of a file and its locks. `docs/project/migrations.md` describes
them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Final

from asyncsvc.database import sql_files

if TYPE_CHECKING:
    from asyncsvc.database.sql_files import Query
    from asyncsvc.models import MigrationKind

_NO_TRANSACTION: Final = re.compile(r"^-- Transaction: none\b", re.MULTILINE)
_BACKFILL: Final = re.compile(r"^-- Backfill: (\w+)", re.MULTILINE)
_LOCK: Final = re.compile(r"^-- Locks: (\w+) ([A-Z ]+[A-Z])\b", re.MULTILINE)
_CONTRACT: Final = re.compile(r"^-- Contract: (\d+(?:\.\d+)+)", re.MULTILINE)


@dataclass(frozen=True)
class MigrationFile:
    """One file: `NNNN_name.sql`, any number of commands separated by semicolons.

    Each batch of a backfill reads the checksums of all files, so they are computed once: to parse
    the first file takes longer than a batch.
    """

    version: int
    name: str
    source: str

    @property
    def title(self) -> str:
        """The name of the file without its ending."""
        return f"{self.version:04}_{self.name}"

    @cached_property
    def commands(self) -> list[str]:
        """The commands, without comments."""
        return sql_files.commands(self.source)

    @cached_property
    def checksum(self) -> str:
        """The SHA-256 of the commands in hex. Comments and line breaks do not change it."""
        return hashlib.sha256(";\n".join(self.commands).encode()).hexdigest()

    @property
    def kind(self) -> MigrationKind:
        """How the file runs; see `MigrationStep.kind`.

        The commands of a file with `Transaction: none` are safe to repeat, since an interrupted run
        leaves a part of them applied.
        """
        if self.backfilled_table:
            return "backfill"
        return "concurrent" if _NO_TRANSACTION.search(self.source) else "transaction"

    @property
    def backfilled_table(self) -> str:
        """The table of a backfill; empty for another kind."""
        label = _BACKFILL.search(self.source)
        return label[1] if label else ""

    @property
    def locks(self) -> list[tuple[str, str]]:
        """The existing tables that the file locks, each with PostgreSQL's name of the mode."""
        return _LOCK.findall(self.source)

    @property
    def oldest_release(self) -> str | None:
        """The oldest release that can run after this file; None unless the file contracts."""
        label = _CONTRACT.search(self.source)
        return label and label[1]

    @cached_property
    def _statement(self) -> sql_files.Statement:
        return sql_files.Statement(f"migrations/{self.title}", self.source)

    def batch(self, position: str, limit: int, *, shard_of: str | None = None) -> Query:
        """Return the statement of one batch of a backfill, on Citus for the shard of a tenant."""
        query = self._statement.bind((), {"position": position, "limit": limit})
        return dataclasses.replace(query, shard_of=shard_of)


@cache
def migration_files() -> tuple[MigrationFile, ...]:
    """Return the files of the library, oldest first."""
    return read_folder(sql_files.root() / "migrations")


def read_folder(folder: Traversable) -> tuple[MigrationFile, ...]:
    """Return the migration files of a folder, oldest first."""
    files = list[MigrationFile]()
    for file in folder.iterdir():
        number, _, name = file.name.removesuffix(".sql").partition("_")
        files.append(MigrationFile(int(number), name, file.read_text(encoding="utf-8")))
    return tuple(sorted(files, key=lambda migration: migration.version))
