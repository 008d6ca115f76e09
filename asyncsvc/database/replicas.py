"""Reads that a replica may answer, and what it has to hold for that.

Two bounds hold, either by positions in the primary's write-ahead log, never by clocks. For
whoever names a position, a replica answers that has replayed it, which it is asked for on the
connection that then answers. For anybody else it may be behind by `Settings.replica_lag`: now and
then the primary's position is noted with the time, and a replica that has replayed one of these
holds all that was there at that time. What is behind, or does not answer, is passed over; the
primary always can.
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
from typing import TYPE_CHECKING, Final, NamedTuple

import asyncpg

from asyncsvc.database import sql_files
from asyncsvc.database.driver_errors import translate_errors
from asyncsvc.database.executor import QueryTimer
from asyncsvc.database.pool_executor import PoolExecutor, PoolLease
from asyncsvc.errors import (
    AsyncSvcError,
    DatabaseError,
    MigrationError,
    StatementTimeout,
    Unavailable,
)

if TYPE_CHECKING:
    from asyncsvc.database.driver_errors import Connection
    from asyncsvc.database.executor import Row
    from asyncsvc.database.pool_executor import Pool
    from asyncsvc.database.sql_files import Query
    from asyncsvc.settings import Settings

_log = logging.getLogger("asyncsvc")

_NOTES_IN_LAG: Final = 4
"""How often the primary's position is noted while a replica may be behind."""
_OF_THE_SERVER: Final = ("08", "28", "3D", "53", "57")
"""Errors of connections, roles, databases and resources, and of a server that stops or starts."""
_REST: Final = 1.0
"""For how many seconds a replica is left alone that did not answer."""


class _Note(NamedTuple):
    """Where the primary was, and the time at which it was known to be there."""

    position: int
    at: float


class _Primary:
    """Where the primary was lately."""

    def __init__(self, executor: PoolExecutor, lag: float) -> None:
        self._executor = executor
        self._lag = lag
        self._pause = lag / _NOTES_IN_LAG
        # At least one is kept that is older than the lag.
        self._notes = deque[_Note](maxlen=_NOTES_IN_LAG + 2)
        self._due = 0.0
        self._noting: asyncio.Task[None] | None = None

    async def note(self, seconds: float) -> None:
        """Have noted where it is, if that is due; wait for it where what is known is of no use."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + self._pause
            self._noting = asyncio.create_task(self._note(now))
        is_useless = not self._notes or self._notes[-1].at < now - self._lag
        if is_useless and self._noting is not None:
            await asyncio.wait({self._noting}, timeout=seconds)

    async def _note(self, now: float) -> None:
        with suppress(AsyncSvcError):  # then what is known already has to do
            row = await self._executor.positions()
            self._notes.append(_Note(_number(row["flushed"]), now))

    def held_by(self, position: int) -> float:
        """Return the last time whose every row a server holds that has replayed this position."""
        return max((note.at for note in self._notes if note.position <= position), default=0.0)


class _Checked(PoolLease):
    """A connection of a replica that holds what it must."""

    __slots__ = ("_replica",)

    def __init__(self, replica: _Replica, pool: Pool, seconds: float) -> None:
        super().__init__(pool, seconds)
        self._replica = replica

    async def __aenter__(self) -> Connection:
        connection = await super().__aenter__()
        try:
            await self._replica.check(connection)
        except BaseException:
            await self.__aexit__()
            raise
        return connection


class _State:
    """What is known of one replica, whoever asks."""

    def __init__(self) -> None:
        self.held_at = 0.0
        """It holds whatever was there at this time."""
        self.rests_until = 0.0


class _Replica(PoolExecutor):
    """Runs reads on one replica, if it holds what it must and is not far behind."""

    def __init__(
        self, pool: Pool, settings: Settings, primary: _Primary, state: _State, floor: int
    ) -> None:
        super().__init__(pool, settings)
        self._primary = primary
        self._state = state
        self._floor = floor

    def at_least(self, position: str) -> _Replica:
        """Return it for reads that are to see what was there at this position, too."""
        floor = max(self._floor, _number(position))
        return _Replica(self._pool, self._settings, self._primary, self._state, floor)

    def _lease(self) -> _Checked:
        return _Checked(self, self._pool, self._settings.replica_timeout)

    @property
    def is_resting(self) -> bool:
        """Whether it did not answer lately."""
        return time.monotonic() < self._state.rests_until

    async def answer(self, query: Query) -> list[Row] | None:
        """Run one statement and return its rows, None where the primary has to.

        A statement that takes too long here would there, too: StatementTimeout is the caller's.
        """
        # Whoever finds out that it answers again does so alone: others are not to wait for that.
        is_tried = self._state.rests_until > 0
        if is_tried:
            self._rest()
        try:
            rows = await self._attempt(query)
        except StatementTimeout:
            self._state.held_at = 0.0  # it has to say that it still answers
            raise
        except (Unavailable, DatabaseError, MigrationError) as error:
            self._pass_over(error, is_known=is_tried)
            return None
        except ValueError as error:
            # asyncpg's, which reads a URL when it connects, and may quote what it cannot read.
            self._pass_over(Unavailable(f"its URL: {type(error).__name__}"), is_known=is_tried)
            return None
        if is_tried:
            self._state.rests_until = 0.0
        return rows

    def _pass_over(self, error: Exception, *, is_known: bool) -> None:
        if isinstance(error, _BehindPositionError) or _is_of_statement(error.__cause__):
            _log.info("the primary is asked instead of a replica: %s", error)
            return
        # With several hosts one of them is the primary: nobody has to see to that.
        is_news = not is_known and not isinstance(error, _PrimaryError)
        level = logging.WARNING if is_news else logging.DEBUG
        _log.log(level, "a replica is left alone until it answers again: %s", error)
        self._rest()

    def _rest(self) -> None:
        self._state.rests_until = time.monotonic() + _REST

    async def check(self, connection: Connection) -> None:
        """Raise Unavailable unless what is read on this connection is as it must be."""
        lag, state = self._settings.replica_lag, self._state
        is_fresh = time.monotonic() - state.held_at < lag / 2
        if is_fresh and not self._floor:
            return
        if not is_fresh:  # first, so that a replica which is hardly behind has what is noted
            await self._primary.note(self._settings.replica_timeout)
        position = await self._replayed(connection)
        state.held_at = max(state.held_at, self._primary.held_by(position))
        if position < self._floor:
            raise _BehindPositionError("it has not replayed what the caller has seen")
        if time.monotonic() - state.held_at > lag:
            raise Unavailable(f"it may be more than {lag:g} s behind")

    async def _replayed(self, connection: Connection) -> int:
        query = sql_files.load("replica/replayed").bind((), {})
        with QueryTimer(self._settings.on_query, query.name), translate_errors(connection):
            try:
                async with asyncio.timeout(self._settings.replica_timeout):
                    row = await connection.fetchrow(query.text)
            except BaseException as error:
                connection.terminate()  # nothing of it is waited for
                if isinstance(error, TimeoutError):
                    raise Unavailable("it does not answer") from error
                raise
        if row is None or not row["is_standby"]:
            raise _PrimaryError("it is a primary")
        if not row["is_streaming"]:
            raise Unavailable("nobody streams to it")
        return _number(row["position"])


class _BehindPositionError(Unavailable):
    """A replica has not replayed what a caller has seen; for others it may do."""


class _PrimaryError(Unavailable):
    """What should be a replica is a primary."""


def _is_of_statement(cause: BaseException | None) -> bool:
    """Whether a server refused one statement, and would answer the next.

    It conflicts with what is being replayed, or is about a table that is not there yet.
    """
    return isinstance(cause, asyncpg.PostgresError) and not (cause.sqlstate or "").startswith(
        _OF_THE_SERVER
    )


class ReplicatedExecutor(PoolExecutor):
    """Runs each statement on the primary, and reads that may be a little old on a replica."""

    def __init__(self, pool: Pool, settings: Settings, replicas: Sequence[Pool]) -> None:
        """Borrow the pools: each of the replicas' leads to one server."""
        super().__init__(pool, settings)
        primary = _Primary(PoolExecutor(pool, settings), settings.replica_lag)
        self._replicas = [_Replica(each, settings, primary, _State(), 0) for each in replicas]
        self._seats = weakref.WeakKeyDictionary[asyncio.Task[object], int]()
        self._next_seat = itertools.count()

    def at_least(self, position: str) -> ReplicatedExecutor:
        """Return an executor whose reads see what was there at this position."""
        bound = ReplicatedExecutor(self._pool, self._settings, ())
        bound._replicas = [replica.at_least(position) for replica in self._replicas]
        bound._seats, bound._next_seat = self._seats, self._next_seat
        return bound

    async def fetch(self, query: Query) -> list[Row]:
        """Run one statement and return its rows; of reads that may be old, on a replica first.

        A task stays with one replica while that answers: what it has read does not vanish again.
        """
        if query.allows_replica:
            for replica in self._in_turn():
                rows = await replica.answer(query)
                if rows is not None:
                    return rows
        return await super().fetch(query)

    def _in_turn(self) -> Sequence[_Replica]:
        awake = [replica for replica in self._replicas if not replica.is_resting]
        task = asyncio.current_task()
        if task is None or not awake:
            return awake
        if (seat := self._seats.get(task)) is None:
            seat = self._seats[task] = next(self._next_seat)
        first = seat % len(awake)
        return awake[first:] + awake[:first]


def _number(position: str) -> int:
    """Return a position, as the server writes it, as the number of a byte.

    https://www.postgresql.org/docs/current/datatype-pg-lsn.html
    """
    high, _, low = position.partition("/")
    return (int(high, 16) << 32) + int(low, 16)
