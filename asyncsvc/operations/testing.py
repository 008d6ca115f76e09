"""Databases for the tests of applications. The pytest plugin `asyncsvc_pytest` uses them."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from asyncsvc.database import Executor, PoolExecutor, open_pools
from asyncsvc.operations.migrations import migrate
from asyncsvc.repositories import DatabaseForTestsRepository
from asyncsvc.settings import Settings

_DATABASE_PARAMETERS: Final = {"database", "dbname"}
_RETRY_SECONDS: Final = 2.0
"""A server that stops in a run of tests rarely returns."""


@dataclass(frozen=True, slots=True)
class DatabaseForTests:
    """A database with the schema and without rows.

    Attributes:
        dsn: Its DSN.
    """

    dsn: str
    _executor: Executor

    async def empty(self) -> None:
        """Delete all rows. It takes milliseconds; a new copy of a template takes 10 times as long.

        Raises:
            LockTimeout: A transaction that a test left open holds a lock.
        """
        await DatabaseForTestsRepository(self._executor).empty()


@asynccontextmanager
async def migrated_database(
    server_dsn: str, *, row_level_security: bool = False
) -> AsyncGenerator[DatabaseForTests]:
    """Create and migrate a database with a name of its own, and drop it at the end.

    Args:
        server_dsn: The server. Its database is used only to create and drop the other one.
        row_level_security: Enable row-level security, as `Settings.row_level_security` does.
    """
    settings = Settings(row_level_security=row_level_security, retry_timeout=_RETRY_SECONDS)
    name = f"asyncsvc_pytest_{secrets.token_hex(8)}"
    async with _connected(server_dsn, settings) as server:
        commands = await DatabaseForTestsRepository(server).get_commands(name=name)
        await server.execute(commands.create_command)
        try:
            dsn = _dsn_of(server_dsn, name)
            async with _connected(dsn, settings) as executor:
                await migrate(executor)
                yield DatabaseForTests(dsn, executor)
        finally:
            await server.execute(commands.drop_command)


@asynccontextmanager
async def _connected(dsn: str, settings: Settings) -> AsyncGenerator[Executor]:
    # A migration outside a transaction needs a second connection.
    pools = await open_pools(dsn, (), settings, min_size=1, max_size=2)
    try:
        yield PoolExecutor(pools.primary, settings)
    finally:
        await pools.close()


def _dsn_of(server_dsn: str, name: str) -> str:
    """Return the DSN of another database on the same server."""
    parts = urlsplit(server_dsn)
    parameters = [
        (key, value)
        for key, value in parse_qsl(parts.query, keep_blank_values=True)
        if key not in _DATABASE_PARAMETERS
    ]
    return parts._replace(path=f"/{name}", query=urlencode(parameters)).geturl()
