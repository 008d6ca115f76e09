"""Checks of the pools and connections that the library borrows from the caller."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg

from asyncsvc.errors import ConcurrentUse, InvalidInput

if TYPE_CHECKING:
    from asyncsvc.database.driver_errors import Connection
    from asyncsvc.database.pool_executor import Pool


def check_pool(field: str, pool: object) -> None:
    """Raise InvalidInput if the value of a parameter is not a pool of asyncpg."""
    if not isinstance(pool, asyncpg.Pool):
        raise InvalidInput(field, "must be a pool of asyncpg, from create_pool")


def check_connection(field: str, connection: object) -> None:
    """Raise InvalidInput if the value of a parameter is not a connection, from a pool or alone."""
    if not isinstance(connection, asyncpg.Connection):
        raise InvalidInput(field, "must be a connection of asyncpg, from connect or acquire")


def is_open(pool: Pool) -> bool:
    """Return whether the pool has been opened and not closed."""
    return getattr(pool, "_initialized", True) and not pool.is_closing()


def check_event_loop(borrowed: Pool | Connection) -> None:
    """Raise ConcurrentUse if the pool or connection belongs to another event loop.

    asyncpg detects this only after it has sent the statement, which the server then executes.
    """
    loop = getattr(borrowed, "_loop", None)
    if loop is not None and loop is not asyncio.get_running_loop():
        kind = "pool" if isinstance(borrowed, asyncpg.Pool) else "connection"
        raise ConcurrentUse(
            f"the {kind} belongs to another event loop: open one in each loop that uses the library"
        )
