"""Runs statements on a pool or on a connection, and turns asyncpg's errors into ours.

This is the only place that catches asyncpg. A pool's executor takes a connection for each
statement, never waits for one without an end, and repeats what may be repeated, or has a replica
answer what it may; a connection's executor runs where its owner put it, inside whatever transaction
is open, and never ends that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsvc.database.driver_errors import is_lost, translated
from asyncsvc.database.executors import (
    ConnectionExecutor,
    Executor,
    PoolExecutor,
    Row,
    full_jitter,
)
from asyncsvc.database.pools import opened
from asyncsvc.database.replicas import ReplicatedExecutor

if TYPE_CHECKING:
    from asyncsvc.database.driver_errors import Connection as Connection
    from asyncsvc.database.executors import Pool as Pool

__all__ = [
    "ConnectionExecutor",
    "Executor",
    "PoolExecutor",
    "ReplicatedExecutor",
    "Row",
    "full_jitter",
    "is_lost",
    "opened",
    "translated",
]
