"""The statements of `sql/testing`."""

from __future__ import annotations

from typing import NamedTuple

from asyncsvc.database import build_model
from asyncsvc.repositories.base import Repository


class DatabaseCommands(NamedTuple):
    """The commands that create and drop a database."""

    create_command: str
    drop_command: str


class DatabaseForTestsRepository(Repository):
    """A database for tests."""

    folder = "testing"

    async def get_commands(self, *, name: str) -> DatabaseCommands:
        """Return the commands for a database, which run outside a transaction."""
        (row,) = await self._rows("get_commands", name=name)
        return build_model(DatabaseCommands, row)

    async def empty(self) -> None:
        """Delete all rows except the applied migrations."""
        await self._rows("empty")
