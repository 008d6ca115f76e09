"""The numbered migration files of `sql/migrations`, and the checksums of their commands."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from typing import Final

from asyncsvc.database import sql_files

_NO_TRANSACTION: Final = re.compile(r"^-- Transaction: none\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class MigrationFile:
    """One file: `NNNN_name.sql`, any number of commands separated by semicolons."""

    version: int
    name: str
    source: str

    @property
    def title(self) -> str:
        """The name of the file without its ending."""
        return f"{self.version:04}_{self.name}"

    @property
    def commands(self) -> list[str]:
        """The commands, without comments."""
        return sql_files.commands(self.source)

    @property
    def checksum(self) -> str:
        """The SHA-256 of the commands in hex. Comments and line breaks do not change it."""
        return hashlib.sha256(";\n".join(self.commands).encode()).hexdigest()

    @property
    def is_transactional(self) -> bool:
        """Whether all commands run in one transaction.

        False if the header has `Transaction: none`, for indexes that are built concurrently. Such a
        file is safe to repeat, since an interrupted run leaves a part of it applied.
        """
        return _NO_TRANSACTION.search(self.source) is None


@cache
def migration_files() -> tuple[MigrationFile, ...]:
    """Return the files, oldest first."""
    files = list[MigrationFile]()
    for file in (sql_files.root() / "migrations").iterdir():
        number, _, name = file.name.removesuffix(".sql").partition("_")
        files.append(MigrationFile(int(number), name, file.read_text(encoding="utf-8")))
    return tuple(sorted(files, key=lambda migration: migration.version))
