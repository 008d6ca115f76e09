"""Runs statements on pools and connections, and translates asyncpg's errors to `asyncsvc.errors`.

Only this package imports asyncpg, with one exception: `asyncsvc.ragflow` opens a connection to the
PostgreSQL of RAGFlow.

- `PoolExecutor` leases a connection of a pool for each statement. It retries idempotent statements.
- `ReplicatedExecutor` also sends reads that may be slightly stale to a replica.
- `ConnectionExecutor` runs statements on one connection, inside the transaction that is open there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsvc.database.borrowed import check_connection
from asyncsvc.database.connection_executor import ConnectionExecutor
from asyncsvc.database.driver_errors import LOST_STATEMENT, is_connection_lost, translate_errors
from asyncsvc.database.executor import Executor
from asyncsvc.database.notifier import payload_of
from asyncsvc.database.pool_executor import PoolExecutor
from asyncsvc.database.poolers import PREPARED_ADVICE
from asyncsvc.database.pools import OpenedPools, open_pools
from asyncsvc.database.replicas import ReplicatedExecutor
from asyncsvc.database.retry import backoff, full_jitter
from asyncsvc.database.rows import (
    Row,
    build_model,
    build_models,
    build_models_of_columns,
    build_value,
    build_values,
    extend_model,
    json_arrays,
    parse_value,
)

if TYPE_CHECKING:
    from asyncsvc.database.driver_errors import Connection as Connection
    from asyncsvc.database.pool_executor import Pool as Pool

__all__ = [
    "LOST_STATEMENT",
    "PREPARED_ADVICE",
    "ConnectionExecutor",
    "Executor",
    "OpenedPools",
    "PoolExecutor",
    "ReplicatedExecutor",
    "Row",
    "backoff",
    "build_model",
    "build_models",
    "build_models_of_columns",
    "build_value",
    "build_values",
    "check_connection",
    "extend_model",
    "full_jitter",
    "is_connection_lost",
    "json_arrays",
    "open_pools",
    "parse_value",
    "payload_of",
    "translate_errors",
]
