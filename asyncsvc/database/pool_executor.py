"""Statements and transactions on the connections of a pool."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from asyncsvc.database import sql_files
from asyncsvc.database.borrowed import check_event_loop, check_pool
from asyncsvc.database.connection_executor import ConnectionExecutor, open_transaction
from asyncsvc.database.driver_errors import is_transient, translate_errors
from asyncsvc.database.executor import Executor
from asyncsvc.database.listener import Listener
from asyncsvc.database.notifier import Notifier
from asyncsvc.database.retry import backoff
from asyncsvc.database.row_security import set_tenant
from asyncsvc.database.rows import build_model
from asyncsvc.errors import LockTimeout, PoolExhausted, StatementTimeout, Unavailable
from asyncsvc.models import PoolStats

if TYPE_CHECKING:
    import asyncpg

    from asyncsvc.database.driver_errors import Connection
    from asyncsvc.database.rows import Row
    from asyncsvc.database.sql_files import Query
    from asyncsvc.settings import AcquireHook, Settings

    Pool: TypeAlias = asyncpg.Pool[Any]

_log = logging.getLogger("asyncsvc")

_RETRY_BASE: Final = 0.05
_RETRY_CAP: Final = 1.0


class LogPositions(NamedTuple):
    """The end of the primary's write-ahead log, and the end of the part on disk."""

    position: str
    flushed: str


class PoolLease:
    """A connection of a pool. The pool gets it back at the end of the block."""

    __slots__ = ("_connection", "_hook", "_name", "_pool", "_timeout")

    def __init__(  # noqa: D107
        self, pool: Pool, timeout: float, name: str, hook: AcquireHook | None
    ) -> None:
        self._pool = pool
        self._timeout = timeout
        self._name = name
        self._hook = hook

    async def __aenter__(self) -> Connection:  # noqa: D105
        check_event_loop(self._pool)
        if self._hook is None:
            return await self._acquire()
        start = time.perf_counter()
        try:
            await self._acquire()
        except BaseException as error:
            self._hook(self._name, time.perf_counter() - start, error)
            raise
        try:
            self._hook(self._name, time.perf_counter() - start, None)
        except BaseException:
            await self.__aexit__()
            raise
        return self._connection

    async def _acquire(self) -> Connection:
        # The timeout of asyncpg's pool.fetch() does not cover the wait for a connection, and the
        # timeout of its acquire() costs a task.
        try:
            with translate_errors(pool=self._pool):
                async with asyncio.timeout(self._timeout):
                    self._connection = await self._pool.acquire()
        except StatementTimeout as error:
            raise PoolExhausted(f"no connection became free within {self._timeout:g} s") from error
        return self._connection

    async def __aexit__(self, *_: object) -> None:  # noqa: D105
        # A connection that cannot be reset changes neither the result nor the error of the
        # statement. The pool drops the connection. Its reset may be a callback of the caller.
        try:
            await self._pool.release(self._connection, timeout=self._timeout)
        except Exception as error:  # noqa: BLE001
            _log.warning("a connection was dropped: %s", type(error).__name__)


class PoolExecutor(Executor):
    """Runs each statement on a connection of a pool, and returns the connection at once."""

    def __init__(self, pool: Pool, settings: Settings, name: str = "primary") -> None:
        """Borrow the pool. This class neither configures nor closes it.

        `name` is the name that `Settings.on_acquire` receives.
        """
        super().__init__(settings)
        check_pool("pool", pool)
        self._pool = pool
        self._name = name
        self._listener = Listener(pool, settings)
        self._notifier = Notifier(self)

    @property
    def listener(self) -> Listener:
        """The connection that receives notifications, beside the pool."""
        return self._listener

    @property
    def notifier(self) -> Notifier:
        """Notifies of committed appends, on the connections of the pool."""
        return self._notifier

    def _lease(self) -> PoolLease:
        settings = self._settings
        return PoolLease(self._pool, settings.acquire_timeout, self._name, settings.on_acquire)

    def pool_stats(self) -> list[PoolStats]:
        """Return the present numbers of connections of each pool."""
        pool = self._pool
        return [
            PoolStats(
                name=self._name,
                size=pool.get_size(),
                idle=pool.get_idle_size(),
                max_size=pool.get_max_size(),
            )
        ]

    @asynccontextmanager
    async def transaction(
        self, *, isolation: Literal["read_committed"] | None = None
    ) -> AsyncGenerator[ConnectionExecutor]:
        """Open a transaction on a connection of the pool. See `Executor.transaction`."""
        async with (
            self._lease() as connection,
            open_transaction(
                connection,
                self._settings,
                owns_connection=True,
                owns_transaction=True,
                isolation=isolation,
            ) as executor,
        ):
            yield executor

    async def fetch(self, query: Query) -> list[Row]:
        """Run one statement and return its rows. After a transient error retry it if idempotent.

        1 round trip if the statement is prepared; a pool of the caller adds 1 for its reset, and
        row-level security adds 3.
        """
        try:
            return await self._attempt(query)
        except Unavailable as error:
            if not query.is_idempotent:
                raise
            return await self._retry(query, error)

    async def _attempt(self, query: Query) -> list[Row]:
        if self._settings.row_level_security and set_tenant(query) is not None:
            async with self.transaction() as executor:
                return await executor.fetch(query)
        async with self._lease() as connection:
            return await self._fetch(connection, query)

    async def _retry(self, query: Query, error: Unavailable) -> list[Row]:
        """Retry until success, until an error that is not transient, or for `retry_timeout`."""
        pauses = backoff(self._settings.retry_timeout, base=_RETRY_BASE, cap=_RETRY_CAP)
        for attempt, pause in enumerate(pauses, 1):
            if not is_transient(error):
                break
            self._report_retry(query, attempt, pause, error)
            await asyncio.sleep(pause)
            try:
                return await self._attempt(query)
            except (PoolExhausted, LockTimeout) as latest:
                # These errors mean that this attempt did nothing. The outcome of the first attempt
                # is unknown.
                raise error from latest
            except Unavailable as latest:
                error = latest
        raise error

    def _report_retry(self, query: Query, attempt: int, pause: float, error: Unavailable) -> None:
        _log.warning("%s is retried in %.2f s: %s", query.name, pause, error)
        if self._settings.on_retry is not None:
            self._settings.on_retry(query.name, attempt, pause, error)

    async def positions(self) -> LogPositions:
        """Return the end of the primary's write-ahead log, and the end of the part on disk."""
        (row,) = await self.fetch(sql_files.load("replica/position").bind((), {}))
        return build_model(LogPositions, row)

    def at_least(self, position: str) -> PoolExecutor:  # noqa: ARG002 - a primary has all positions
        """Return an executor whose reads see each commit before this position."""
        return self
