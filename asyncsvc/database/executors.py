"""Where statements run: on a pool, or on one connection."""

from __future__ import annotations

import abc
import asyncio
import dataclasses
import itertools
import logging
import random
import time
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    suppress,
)
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias

import asyncpg

from asyncsvc.database import sql_files
from asyncsvc.database.driver_errors import is_passing, is_usable, translated
from asyncsvc.database.row_security import narrowing, nobody
from asyncsvc.database.sql_files import Query
from asyncsvc.errors import (
    AsyncSvcError,
    ConcurrentUse,
    DatabaseError,
    LockTimeout,
    PoolExhausted,
    StatementTimeout,
    Unavailable,
)
from asyncsvc.settings import QueryHook, Settings

if TYPE_CHECKING:
    from asyncpg.transaction import Transaction

    from asyncsvc.database.driver_errors import Connection

    Pool: TypeAlias = asyncpg.Pool[Any]

_log = logging.getLogger("asyncsvc")

_COPIED_AT_ONCE = 2**19
_ABORTED = "25P02"
_NOT_SUPPORTED = "0A000"
_A_DAY = 86_400.0
"""How long a statement may take that may take long."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_DOUBLINGS = 64
"""Beyond any bound; a thousand would be beyond what a float can hold."""


def full_jitter(attempt: int, *, first: float, longest: float) -> float:
    """Return a pause before another attempt, drawn at random up to a bound that doubles.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/, "Full Jitter".
    """
    doubled = first * 2 ** min(attempt, _DOUBLINGS)
    return random.uniform(0, min(longest, doubled))  # noqa: S311 - no secret


class Row(Protocol):
    """One row as the driver gives it: columns by name."""

    def items(self) -> Iterator[tuple[str, Any]]:
        """Return the columns, each with its name and value."""

    def keys(self) -> Iterator[str]:
        """Return the names of the columns."""

    def __getitem__(self, name: str, /) -> Any:  # noqa: ANN401 - the models check it
        """Return the value of a column."""


class _Watched:
    """Tells the hook what a statement took, and returned or wrote.

    This and the other contexts of a statement are classes: each call passes through them, and
    generators cost several times as much.
    """

    __slots__ = ("_began", "_hook", "_name", "rows")

    def __init__(self, hook: QueryHook | None, name: str) -> None:
        self._hook = hook
        self._name = name
        self._began = 0.0
        self.rows = 0

    def __enter__(self) -> Self:
        if self._hook is not None:
            self._began = time.perf_counter()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._hook is not None:
            self._hook(self._name, time.perf_counter() - self._began, self.rows, error)


class Executor(abc.ABC):
    """Where statements run."""

    def __init__(self, settings: Settings, *, is_lent: bool = False) -> None:
        """Take the time-outs and the hooks from the settings."""
        self._settings = settings
        self.is_lent = is_lent
        """Whether it runs on a connection that the caller uses too."""

    @property
    def settings(self) -> Settings:
        """The settings that its statements run with."""
        return self._settings

    @abc.abstractmethod
    def _connection(self) -> AbstractAsyncContextManager[Connection]:
        """Lend a connection for one statement or one transaction."""

    async def fetch(self, query: Query) -> list[Row]:
        """Run one statement and return its rows.

        One round trip once it is prepared; the reset of a borrowed pool is one more.
        """
        async with self._connection() as connection:
            return await self._run(connection, query)

    async def _run(self, connection: Connection, query: Query) -> list[Row]:
        with self._watched(query.name) as watched, translated(connection):
            timeout = _A_DAY if query.has_no_timeout else self._settings.statement_timeout
            try:
                rows = await connection.fetch(query.text, *query.arguments, timeout=timeout)
            except BaseException:
                await self._end_statement(connection)
                raise
            watched.rows = len(rows)
        return rows

    async def copy(self, name: str, *, table: str, columns: Sequence[str], data: bytes) -> int:
        """Copy rows into a table of the schema, all or nothing; return how many.

        `data` is in the text format of COPY, whose values no codec of the connection touches.
        `name` is for the hook. One round trip: the data follow at once. Raises DatabaseError under
        row-level security, where PostgreSQL has no COPY.
        """
        try:
            return await self._copy(name, table=table, columns=columns, data=data)
        except DatabaseError as error:
            if error.sqlstate != _NOT_SUPPORTED:
                raise
            raise DatabaseError(
                "COPY is not possible under row-level security: load as the owner of the tables",
                _NOT_SUPPORTED,
            ) from error

    async def _copy(self, name: str, *, table: str, columns: Sequence[str], data: bytes) -> int:
        async with self._connection() as connection:
            with self._watched(name) as watched, translated(connection):
                done = await connection.copy_to_table(
                    table,
                    schema_name="asyncsvc",
                    columns=list(columns),
                    source=_blocks(data),
                    timeout=self._settings.statement_timeout,
                )
                watched.rows = int(done.removeprefix("COPY "))
            return watched.rows

    async def parameter_types(self, query: Query) -> list[str]:
        """Return PostgreSQL's name of each parameter's type, as `int4` or `text[]`.

        Two or three round trips; nothing is executed.
        """
        async with self._connection() as connection:
            with translated(connection):
                timeout = self._settings.statement_timeout
                try:
                    prepared = await connection.prepare(query.text, name="", timeout=timeout)
                finally:
                    await self._end_statement(connection)
                return [kind.name for kind in prepared.get_parameters()]

    async def explain(self, query: Query) -> list[str]:
        """Return the lines of the plan that the server would run for these arguments.

        It is EXPLAIN without ANALYZE: nothing is executed. One round trip once it is prepared.
        """
        explained = dataclasses.replace(query, text=f"EXPLAIN {query.text}")
        return [str(row["QUERY PLAN"]) for row in await self.fetch(explained)]

    async def execute(self, text: str) -> None:
        """Run one command of a migration, which may take long: building an index does."""
        async with self._connection() as connection:
            with translated(connection):
                await connection.execute(text, timeout=_A_DAY)

    @asynccontextmanager
    async def transaction(
        self, *, isolation: Literal["read_committed"] | None = None
    ) -> AsyncGenerator[ConnectionExecutor]:
        """Open a transaction, or a savepoint inside one, and lend its executor.

        Leaving the block commits, an error rolls back. So does leaving it after a statement in it
        failed, with a DatabaseError: the server would answer the commit by rolling back, without
        an error. Two round trips more than what runs inside, three on the caller's connection.
        """
        async with self._connection() as connection:
            with translated(connection):
                is_ours = self._owns(connection)
                transaction = connection.transaction(isolation=isolation)
            await self._begin(transaction, connection)
            executor = ConnectionExecutor(
                connection, self._settings, is_ours=is_ours, is_lent=self.is_lent
            )
            try:
                yield executor
                executor.raise_if_aborted()
                if self.is_lent:  # a statement of the caller's own may have failed meanwhile
                    await self._ask(connection)
            except BaseException:
                # Where this fails the connection is lost, and the first error says it better.
                with suppress(AsyncSvcError):
                    await _to_the_end(self._roll_back(transaction, connection))
                raise
            async with self._bounded(connection):
                await transaction.commit()

    def _owns(self, connection: Connection) -> bool:
        """Whether a transaction that is opened now is no part of one of the caller's."""
        return not connection.is_in_transaction()

    async def _begin(self, transaction: Transaction, connection: Connection) -> None:
        """Begin to the end, also when cancelled meanwhile: half-begun it could not be undone."""
        try:
            await _to_the_end(self._start(transaction, connection))
        except asyncio.CancelledError:
            with suppress(AsyncSvcError):
                await _to_the_end(self._roll_back(transaction, connection))
            raise

    async def _start(self, transaction: Transaction, connection: Connection) -> None:
        async with self._bounded(connection):
            await transaction.start()

    async def _roll_back(self, transaction: Transaction, connection: Connection) -> None:
        async with self._bounded(connection):
            await transaction.rollback()

    @asynccontextmanager
    async def _bounded(self, connection: Connection) -> AsyncGenerator[None]:
        """Bound the commands that asyncpg bounds by the pool's own time-out, which may be none."""
        with translated(connection):
            async with asyncio.timeout(self._settings.statement_timeout):
                yield

    async def _end_statement(self, connection: Connection) -> None:
        """Have the server end a statement that was parsed, and perhaps not executed.

        asyncpg sends a statement that is new to a connection in two parts. Given up between them,
        by a cancellation or for a value that cannot be encoded, it stays open on the server, with
        its snapshot and its locks, until the connection is next used. Any other ends it.
        """
        if is_usable(connection) and not connection.is_in_transaction():
            with suppress(AsyncSvcError):
                await _to_the_end(self._ask(connection))

    async def _ask(self, connection: Connection) -> None:
        """Ask for nothing, and so whether the server still listens, and has aborted nothing."""
        with translated(connection):
            await connection.execute("SELECT", timeout=self._settings.acquire_timeout)

    def _watched(self, name: str) -> _Watched:
        return _Watched(self._settings.on_query, name)


class Acquired:
    """A connection of a pool, for as long as the block lasts."""

    __slots__ = ("_connection", "_pool", "_seconds")

    def __init__(self, pool: Pool, seconds: float) -> None:  # noqa: D107
        self._pool = pool
        self._seconds = seconds

    async def __aenter__(self) -> Connection:  # noqa: D105
        # asyncpg's pool.fetch(timeout=) bounds the statement and waits for ever for a connection.
        try:
            with translated():
                self._connection = await self._pool.acquire(timeout=self._seconds)
        except StatementTimeout as error:
            raise PoolExhausted(f"no connection came free within {self._seconds:g} s") from error
        return self._connection

    async def __aexit__(self, *_: object) -> None:  # noqa: D105
        # What was done is done, and what went wrong is already on its way: neither becomes
        # anything else because the connection cannot be reset. The pool drops it then.
        try:
            await self._pool.release(self._connection)
        except (
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            OSError,
        ) as error:
            _log.warning("a connection was dropped: %s", type(error).__name__)


class PoolExecutor(Executor):
    """Runs each statement on a connection of a pool, and gives it back at once."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        """Borrow the pool: it is neither configured nor closed here."""
        super().__init__(settings)
        self._pool = pool

    def _connection(self) -> Acquired:
        return Acquired(self._pool, self._settings.acquire_timeout)

    async def fetch(self, query: Query) -> list[Row]:
        """Run one statement and return its rows; again, where it may be and may then succeed.

        One round trip once it is prepared; the reset of a borrowed pool is one more. Under
        row-level security three more.
        """
        try:
            return await self._attempt(query)
        except Unavailable as error:
            if not query.is_idempotent:
                raise
            return await self._repeated(query, error)

    async def position(self) -> str:
        """Return how far the primary's write-ahead log goes now, as the server writes it."""
        return str((await self.positions())["position"])

    async def positions(self) -> Row:
        """Return how far the primary's write-ahead log goes, and how far it is on the disk."""
        (row,) = await self.fetch(sql_files.load("replica/position").bind((), {}))
        return row

    def at_least(self, position: str) -> PoolExecutor:  # noqa: ARG002 - a primary has it
        """Return an executor whose reads see what was there at this position."""
        return self

    async def _attempt(self, query: Query) -> list[Row]:
        if self._settings.row_level_security:
            async with self.transaction() as transaction:
                return await transaction.fetch(query)
        async with self._connection() as connection:
            return await self._run(connection, query)

    async def _repeated(self, query: Query, error: Unavailable) -> list[Row]:
        """Run it again, after longer and longer pauses, until it succeeds or time is up.

        Those who failed together do not all come back together: see `full_jitter`.
        """
        end = time.monotonic() + self._settings.retry_timeout
        for attempt in itertools.count(1):
            pause = full_jitter(attempt, first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
            if time.monotonic() + pause > end or not is_passing(error):
                raise error
            self._tell(query, attempt, pause, error)
            await asyncio.sleep(pause)
            try:
                return await self._attempt(query)
            except (PoolExhausted, LockTimeout) as again:
                # These say that nothing was done: true of this attempt, unknown of the first.
                raise error from again
            except Unavailable as again:
                error = again
        raise AssertionError  # pragma: no cover - count() does not end

    def _tell(self, query: Query, attempt: int, pause: float, error: Unavailable) -> None:
        _log.warning("%s is run again in %.2f s: %s", query.name, pause, error)
        if self._settings.on_retry is not None:
            self._settings.on_retry(query.name, attempt, pause, error)


class ConnectionExecutor(Executor):
    """Runs statements on one connection of the caller's, inside the caller's transaction."""

    def __init__(
        self,
        connection: Connection,
        settings: Settings,
        *,
        is_ours: bool = False,
        is_lent: bool = True,
    ) -> None:
        """Borrow the connection: it is neither configured nor closed here."""
        super().__init__(settings, is_lent=is_lent)
        self._borrowed = connection
        self.is_ours = is_ours
        """Whether the transaction ends where this library began it, with what is local to it."""
        self.is_busy = False
        """Whether a task runs something on the connection now."""
        self._failure: BaseException | None = None

    @property
    def told_pid(self) -> int:
        """The process id that the connection was told at its start; a pooler makes one up."""
        return self._borrowed.get_server_pid()

    async def fetch(self, query: Query) -> list[Row]:
        """Run one statement and return its rows; remember whether it failed.

        One round trip once it is prepared. Under row-level security one more in a transaction of
        this library's, two in the caller's, and three where none is open.
        """
        with self._remembered():
            narrow = narrowing(query) if self._settings.row_level_security else None
            if narrow is None:
                return await super().fetch(query)
            with translated(self._borrowed):
                is_open = self._borrowed.is_in_transaction()
            if is_open:
                return await self._fetch_narrowed(narrow, query)
            async with self.transaction() as transaction:
                return await transaction.fetch(query)

    async def _fetch_narrowed(self, narrow: Query, query: Query) -> list[Row]:
        async with self._connection() as connection:
            try:
                await self._run(connection, narrow)
                rows = await self._run(connection, query)
            except BaseException:
                # Refused where the transaction is aborted: its end takes the setting along.
                with suppress(AsyncSvcError):
                    await self._widen(connection)
                raise
            await self._widen(connection)
            return rows

    async def _widen(self, connection: Connection) -> None:
        if not self.is_ours:  # else the caller's own statements would see this tenant
            await _to_the_end(self._run(connection, nobody()))

    async def copy(self, name: str, *, table: str, columns: Sequence[str], data: bytes) -> int:
        """Copy rows into a table; remember whether it failed."""
        with self._remembered():
            return await super().copy(name, table=table, columns=columns, data=data)

    def _owns(self, connection: Connection) -> bool:
        return self.is_ours or super()._owns(connection)

    def _remembered(self) -> _Remembered:
        return _Remembered(self)

    def remember(self, error: BaseException) -> None:
        """Keep the first error that a statement failed with."""
        self._failure = self._failure or error

    def raise_if_aborted(self) -> None:
        """Raise DatabaseError when a statement failed and so aborted the transaction."""
        if self._failure is not None:
            raise DatabaseError(
                "the transaction is rolled back, since a statement in it failed", _ABORTED
            ) from self._failure

    def _connection(self) -> _Lent:
        return _Lent(self, self._borrowed)


class _Remembered:
    """Has the executor remember what a statement fails with."""

    __slots__ = ("_executor",)

    def __init__(self, executor: ConnectionExecutor) -> None:
        self._executor = executor

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and not isinstance(error, ConcurrentUse):  # then nothing was run
            self._executor.remember(error)


class _Lent:
    """The caller's connection, for one task at a time."""

    __slots__ = ("_connection", "_executor")

    def __init__(self, executor: ConnectionExecutor, connection: Connection) -> None:
        self._executor = executor
        self._connection = connection

    async def __aenter__(self) -> Connection:
        if self._executor.is_busy:
            raise ConcurrentUse(
                "this connection or transaction is in use by another task, or by a transaction "
                "inside it; give each task its own"
            )
        self._executor.is_busy = True
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        self._executor.is_busy = False


async def _to_the_end(work: Coroutine[Any, Any, object]) -> None:
    """Do it whole, however often the task is cancelled meanwhile; it is cancelled after that."""
    working, cancelled = asyncio.create_task(work), None
    while not working.done():
        try:
            await asyncio.wait({working})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        working.exception()  # else asyncio says that nobody asked for it
        raise cancelled
    working.result()


async def _blocks(data: bytes) -> AsyncGenerator[bytes]:
    """Yield the data piece by piece.

    Of a file asyncpg would make a class for each copy, and a class is in a cycle with itself: it
    would keep the data until the garbage collector came to it, which can be long.
    """
    for begin in range(0, len(data), _COPIED_AT_ONCE):
        yield data[begin : begin + _COPIED_AT_ONCE]
