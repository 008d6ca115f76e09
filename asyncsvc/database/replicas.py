"""Reads on replicas, with a limit on their staleness.

Both limits compare positions in the primary's write-ahead log, and never clocks of 2 machines:

- A read with a position (`at_least`) runs on a replica that has replayed the log up to it. The
  connection that runs the read first reads the replica's position.
- Any other read runs on a replica that lags by at most `Settings.replica_lag`. The library records
  the primary's position at regular times. A replica that has replayed the log up to a recorded
  position contains each commit before the time of the record.

A replica that lags too much or does not answer is skipped. The primary can run every read.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from typing import TYPE_CHECKING, Final, NamedTuple

import asyncpg

from asyncsvc.database import sql_files
from asyncsvc.database.borrowed import check_pool
from asyncsvc.database.driver_errors import translate_errors
from asyncsvc.database.executor import RECORD_CLASS, QueryTimer
from asyncsvc.database.pool_executor import PoolExecutor, PoolLease
from asyncsvc.database.rows import build_model
from asyncsvc.errors import (
    AsyncSvcError,
    DatabaseError,
    InvalidInput,
    MigrationError,
    StatementTimeout,
    Unavailable,
)

if TYPE_CHECKING:
    from asyncsvc.database.driver_errors import Connection
    from asyncsvc.database.pool_executor import Pool
    from asyncsvc.database.rows import Row
    from asyncsvc.database.sql_files import Query
    from asyncsvc.models import PoolStats
    from asyncsvc.settings import AcquireHook, Settings

_log = logging.getLogger("asyncsvc")

_RECORDS_PER_LAG: Final = 4
"""The number of times that the primary's position is recorded within `Settings.replica_lag`."""
_SERVER_ERROR_CLASSES: Final = ("08", "28", "3D", "53", "57")
"""SQLSTATE classes of connections, roles, databases, resources, and of a server that stops."""
_REST_SECONDS: Final = 1.0
"""The seconds for which a replica is skipped after a failure."""


class _KnownPosition(NamedTuple):
    """A position of the primary, and a time at which the primary had not passed it."""

    position: int
    time: float


class _Standby(NamedTuple):
    """The state of a server that may be a standby. A primary has no replayed position."""

    position: str | None
    is_standby: bool
    is_streaming: bool


class _PrimaryPositions:
    """The recent positions of the primary."""

    def __init__(self, executor: PoolExecutor, lag: float) -> None:
        self._executor = executor
        self._lag = lag
        self._interval = lag / _RECORDS_PER_LAG
        # Large enough to keep at least one position that is older than the lag.
        self._known = deque[_KnownPosition](maxlen=_RECORDS_PER_LAG + 2)
        self._next_record = 0.0
        self._recording: asyncio.Task[None] | None = None

    async def refresh(self, timeout: float) -> None:  # noqa: ASYNC109 - not an error if it ends
        """Start to record the position if that is due. Wait for it if all positions are too old.

        The wait ends after `timeout` seconds without an error.
        """
        now = time.monotonic()
        if now >= self._next_record:
            self._next_record = now + self._interval
            self._recording = asyncio.create_task(self._record(now))
        is_too_old = not self._known or self._known[-1].time < now - self._lag
        if is_too_old and self._recording is not None:
            await asyncio.wait({self._recording}, timeout=timeout)

    async def _record(self, now: float) -> None:
        with suppress(AsyncSvcError):  # the known positions remain valid
            flushed = (await self._executor.positions()).flushed
            self._known.append(_KnownPosition(_lsn_to_int(flushed), now))

    def time_covered_by(self, position: int) -> float:
        """Return the latest time before which a server at this position contains each commit."""
        return max((known.time for known in self._known if known.position <= position), default=0.0)


class _ReplicaLease(PoolLease):
    """A connection of a replica that is fresh enough."""

    __slots__ = ("_replica",)

    def __init__(
        self, replica: _Replica, pool: Pool, timeout: float, name: str, hook: AcquireHook | None
    ) -> None:
        super().__init__(pool, timeout, name, hook)
        self._replica = replica

    async def __aenter__(self) -> Connection:
        connection = await super().__aenter__()
        try:
            await self._replica.check_freshness(connection)
        except BaseException:
            await self.__aexit__()
            raise
        return connection


class _Health:
    """The state of one replica, which all tasks share."""

    def __init__(self) -> None:
        self.fresh_as_of = 0.0
        """The replica contains each commit before this time."""
        self.rests_until = 0.0
        """The replica is skipped until this time. 0 after it answered."""


class _Replica(PoolExecutor):
    """Runs reads on one replica if it is fresh enough."""

    def __init__(
        self,
        pool: Pool,
        settings: Settings,
        name: str,
        primary_positions: _PrimaryPositions,
    ) -> None:
        super().__init__(pool, settings, name)
        self._primary_positions = primary_positions
        self._health = _Health()
        self._min_position = 0

    def at_least(self, position: str) -> _Replica:
        """Return an executor for reads that must also see each commit before this position."""
        replica: _Replica = copy(self)
        replica._min_position = max(self._min_position, _lsn_to_int(position))
        return replica

    def _lease(self) -> _ReplicaLease:
        settings = self._settings
        return _ReplicaLease(
            self, self._pool, settings.replica_timeout, self._name, settings.on_acquire
        )

    @property
    def is_resting(self) -> bool:
        """Whether the replica is skipped because of a recent failure."""
        return time.monotonic() < self._health.rests_until

    async def try_fetch(self, query: Query) -> list[Row] | None:
        """Run one statement and return its rows, or None if the primary has to run it.

        Raises StatementTimeout, because the statement would take too long on the primary too.
        """
        # The first read after a rest tests the replica. Other reads do not wait for the result.
        is_test = self._health.rests_until > 0
        if is_test:
            self._rest()
        try:
            rows = await self._attempt(query)
        except StatementTimeout:
            self._health.fresh_as_of = 0.0  # the next read checks whether the replica answers
            raise
        except (Unavailable, DatabaseError, MigrationError, InvalidInput) as error:
            # InvalidInput: the replica rejects a parameter of its DSN, or asks for clear text.
            self._handle_failure(error, is_test=is_test)
            return None
        if is_test:
            self._health.rests_until = 0.0
        return rows

    def _handle_failure(self, error: Exception, *, is_test: bool) -> None:
        is_about_dsn = isinstance(error, InvalidInput)
        is_about_statement = not is_about_dsn and _concerns_statement(error.__cause__)
        if isinstance(error, _BehindPositionError) or is_about_statement:
            _log.info("the primary runs a read instead of a replica: %s", error)
            return
        # If the DSN has several hosts, one of the replicas is the primary. This is not a fault.
        is_new_problem = not is_test and not isinstance(error, _IsPrimaryError)
        level = logging.WARNING if is_new_problem else logging.DEBUG
        _log.log(level, "a replica is skipped until it answers again: %s", error)
        self._rest()

    def _rest(self) -> None:
        self._health.rests_until = time.monotonic() + _REST_SECONDS

    async def check_freshness(self, connection: Connection) -> None:
        """Raise Unavailable unless a read on this connection is fresh enough."""
        lag, health = self._settings.replica_lag, self._health
        is_known_fresh = time.monotonic() - health.fresh_as_of < lag / 2
        if is_known_fresh and not self._min_position:
            return
        if not is_known_fresh:
            # Record it before the replica's position is read, so a replica with little lag has it.
            await self._primary_positions.refresh(self._settings.replica_timeout)
        position = await self._replayed_position(connection)
        health.fresh_as_of = max(
            health.fresh_as_of, self._primary_positions.time_covered_by(position)
        )
        if position < self._min_position:
            raise _BehindPositionError("the replica has not replayed the position of the caller")
        if time.monotonic() - health.fresh_as_of > lag:
            raise Unavailable(f"the replica may lag by more than {lag:g} s")

    async def _replayed_position(self, connection: Connection) -> int:
        query = sql_files.load("replica/replayed").bind((), {})
        with QueryTimer(self._settings.on_query, query.name), translate_errors(connection):
            try:
                async with asyncio.timeout(self._settings.replica_timeout):
                    row = await connection.fetchrow(query.text, record_class=RECORD_CLASS)
            except BaseException as error:
                connection.terminate()  # without waiting for the server
                if isinstance(error, TimeoutError):
                    raise Unavailable("the replica does not answer") from error
                raise
        standby = None if row is None else build_model(_Standby, row)
        if standby is None or standby.position is None or not standby.is_standby:
            raise _IsPrimaryError("the server is a primary")
        if not standby.is_streaming:
            raise Unavailable("no server streams to the replica")
        return _lsn_to_int(standby.position)


class _BehindPositionError(Unavailable):
    """The replica has not replayed the position of one caller. Other reads may use it."""


class _IsPrimaryError(Unavailable):
    """The server of a replica's pool is a primary."""


def _concerns_statement(cause: BaseException | None) -> bool:
    """Return whether the error concerns one statement, so that the server can run the next one.

    The statement conflicts with the replay, or needs a table that is not replicated yet.
    """
    return isinstance(cause, asyncpg.PostgresError) and not (cause.sqlstate or "").startswith(
        _SERVER_ERROR_CLASSES
    )


class ReplicatedExecutor(PoolExecutor):
    """Runs statements on the primary, and reads that may be slightly stale on a replica."""

    def __init__(self, pool: Pool, settings: Settings, replicas: Sequence[Pool]) -> None:
        """Borrow the pools. Each pool of `replicas` leads to one server."""
        super().__init__(pool, settings)
        for replica in replicas:
            check_pool("replicas", replica)
        positions = _PrimaryPositions(PoolExecutor(pool, settings), settings.replica_lag)
        self._replicas = [
            _Replica(each, settings, f"replica {number}", positions)
            for number, each in enumerate(replicas, 1)
        ]
        self._task_numbers = weakref.WeakKeyDictionary[asyncio.Task[object], int]()
        self._next_task_number = itertools.count()

    def at_least(self, position: str) -> ReplicatedExecutor:
        """Return an executor whose reads see each commit before this position."""
        executor: ReplicatedExecutor = copy(self)
        executor._replicas = [replica.at_least(position) for replica in self._replicas]
        return executor

    def pool_stats(self) -> list[PoolStats]:
        """Return the present numbers of connections of each pool, the primary's first."""
        return [
            *super().pool_stats(),
            *(stats for replica in self._replicas for stats in replica.pool_stats()),
        ]

    async def fetch(self, query: Query) -> list[Row]:
        """Run one statement and return its rows. A read that may be stale tries the replicas first.

        A task uses one replica while that answers, so rows that it has read do not disappear.
        """
        if query.allows_replica:
            for replica in self._replicas_for_task():
                rows = await replica.try_fetch(query)
                if rows is not None:
                    return rows
        return await super().fetch(query)

    def _replicas_for_task(self) -> Sequence[_Replica]:
        """Return the replicas that are not skipped, in the order of the current task."""
        available = [replica for replica in self._replicas if not replica.is_resting]
        task = asyncio.current_task()
        if task is None or not available:
            return available
        number = self._task_numbers.get(task)
        if number is None:
            number = self._task_numbers[task] = next(self._next_task_number)
        first = number % len(available)
        return available[first:] + available[:first]


def _lsn_to_int(position: str) -> int:
    """Convert a position in PostgreSQL's format to the offset of a byte.

    https://www.postgresql.org/docs/current/datatype-pg-lsn.html
    """
    high, _, low = position.partition("/")
    return (int(high, 16) << 32) + int(low, 16)
