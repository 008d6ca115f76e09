"""The abstract executor: runs statements on a connection that a subclass leases."""

from __future__ import annotations

import abc
import dataclasses
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import asyncpg

from asyncsvc.cancellation import finish_despite_cancellation
from asyncsvc.database.citus import call_on_node
from asyncsvc.database.driver_errors import is_usable, translate_errors
from asyncsvc.errors import AsyncSvcError, DatabaseError, InvalidInput

if TYPE_CHECKING:
    from asyncsvc.database.connection_executor import ConnectionExecutor
    from asyncsvc.database.driver_errors import Connection
    from asyncsvc.database.listener import Listener
    from asyncsvc.database.notifier import Notifier
    from asyncsvc.database.rows import Row
    from asyncsvc.database.sql_files import Query
    from asyncsvc.settings import QueryHook, Settings

_COPY_BLOCK_SIZE: Final = 2**19
_FEATURE_NOT_SUPPORTED: Final = "0A000"
RECORD_CLASS: Final[type[Any]] = asyncpg.Record
"""The class of rows. It overrides the record class of the caller's pool."""
_NO_TIMEOUT_SECONDS: Final = 86_400.0
"""1 day: the timeout of a statement with `Timeout: none`, and of a command of a migration."""


class QueryTimer:
    """Calls `Settings.on_query` with the duration, the number of rows and the error of a statement.

    This and the other context managers of a statement are classes with slots, because each call
    enters them, and a context manager from a generator takes several times as long.
    """

    __slots__ = ("_hook", "_name", "_start", "rows")

    def __init__(self, hook: QueryHook | None, name: str) -> None:  # noqa: D107
        self._hook = hook
        self._name = name
        self._start = 0.0
        self.rows = 0

    def __enter__(self) -> Self:  # noqa: D105
        if self._hook is not None:
            self._start = time.perf_counter()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:  # noqa: D105
        if self._hook is not None:
            self._hook(self._name, time.perf_counter() - self._start, self.rows, error)


class Executor(abc.ABC):
    """Runs statements and transactions on connections."""

    def __init__(self, settings: Settings) -> None:
        """Take the timeouts and the hooks from the settings."""
        self._settings = settings

    @property
    def settings(self) -> Settings:
        """The settings of the statements."""
        return self._settings

    @property
    def is_in_transaction(self) -> bool:
        """Whether the statements run inside a transaction that is open already."""
        return False

    @property
    def listener(self) -> Listener:
        """The connection that receives notifications. Raises InvalidInput if there is no pool."""
        raise InvalidInput("watch", "needs the services of a pool, not of a connection")

    @property
    def notifier(self) -> Notifier | None:
        """Notifies of committed appends. None: the statement of an append notifies itself."""
        return None

    @abc.abstractmethod
    def _lease(self) -> AbstractAsyncContextManager[Connection]:
        """Return a context manager that yields a connection for one statement or transaction."""

    @abc.abstractmethod
    def transaction(
        self, *, isolation: Literal["read_committed"] | None = None
    ) -> AbstractAsyncContextManager[ConnectionExecutor]:
        """Open a transaction, or a savepoint within one, and yield its executor.

        The end of the block commits. An error rolls back. If a statement in the block failed, the
        end of the block also rolls back and raises DatabaseError, because PostgreSQL answers COMMIT
        with a rollback and no error. 2 round trips in addition to those of the block; 3 if the
        caller uses the connection too.
        """

    async def fetch(self, query: Query) -> list[Row]:
        """Run one statement and return its rows.

        1 round trip if the statement is prepared; a pool of the caller adds 1 for its reset.
        """
        async with self._lease() as connection:
            return await self._fetch(connection, query)

    async def _fetch(self, connection: Connection, query: Query) -> list[Row]:
        with QueryTimer(self._settings.on_query, query.name) as timer, translate_errors(connection):
            timeout = (
                _NO_TIMEOUT_SECONDS if query.has_no_timeout else self._settings.statement_timeout
            )
            try:
                if query.shard_of or (self._settings.citus and query.is_for_one_node):
                    query = await call_on_node(connection, query, timeout)
                rows = await connection.fetch(
                    query.text, *query.arguments, timeout=timeout, record_class=RECORD_CLASS
                )
            except BaseException:
                await self._close_statement(connection)
                raise
            timer.rows = len(rows)
        return rows

    async def copy(self, name: str, *, table: str, columns: Sequence[str], data: bytes) -> int:
        """Copy rows into a table of the schema, all or none; return their number.

        1 round trip. Raises DatabaseError under row-level security, where PostgreSQL has no COPY.

        Args:
            name: The name that `Settings.on_query` receives.
            table: The name of the table, without its schema.
            columns: The columns, in the order of the data.
            data: The rows in the text format of COPY, to which no codec of the connection applies.
        """
        try:
            async with self._lease() as connection:
                return await self._copy(connection, name, table=table, columns=columns, data=data)
        except DatabaseError as error:
            if error.sqlstate != _FEATURE_NOT_SUPPORTED:
                raise
            raise DatabaseError(
                "COPY is not possible under row-level security: import as the owner of the tables",
                _FEATURE_NOT_SUPPORTED,
            ) from error

    async def _copy(
        self, connection: Connection, name: str, *, table: str, columns: Sequence[str], data: bytes
    ) -> int:
        with QueryTimer(self._settings.on_query, name) as timer, translate_errors(connection):
            status = await connection.copy_to_table(
                table,
                schema_name="asyncsvc",
                columns=list(columns),
                source=_blocks(data),
                timeout=self._settings.statement_timeout,
            )
            timer.rows = int(status.removeprefix("COPY "))
        return timer.rows

    async def parameter_types(self, query: Query) -> list[str]:
        """Return PostgreSQL's name of the type of each parameter, such as `int4` or `text[]`.

        2 or 3 round trips. The statement is prepared and not executed.
        """
        async with self._lease() as connection:
            with translate_errors(connection):
                timeout = self._settings.statement_timeout
                try:
                    prepared = await connection.prepare(query.text, name="", timeout=timeout)
                finally:
                    await self._close_statement(connection)
                return [each.name for each in prepared.get_parameters()]

    async def explain(self, query: Query) -> list[str]:
        """Return the lines of the plan that PostgreSQL would use for these arguments.

        1 round trip if the statement is prepared. It runs EXPLAIN without ANALYZE, so the statement
        itself is not executed.
        """
        explain = dataclasses.replace(query, text=f"EXPLAIN {query.text}", is_for_one_node=False)
        return [str(row["QUERY PLAN"]) for row in await self.fetch(explain)]

    async def execute(self, command: str) -> None:
        """Run one command of a migration, which may take long, for example to build an index."""
        async with self._lease() as connection:
            with translate_errors(connection):
                await connection.execute(command, timeout=_NO_TIMEOUT_SECONDS)

    async def _close_statement(self, connection: Connection) -> None:
        """Make the server close a statement that was parsed but perhaps not executed.

        asyncpg sends a statement that is new to a connection in 2 parts. If the call ends between
        them, by a cancellation or a value that cannot be encoded, the statement stays open on the
        server with its snapshot and its locks. The next statement closes it.
        """
        if is_usable(connection) and not connection.is_in_transaction():
            with suppress(AsyncSvcError):
                await finish_despite_cancellation(ping(connection, self._settings))


async def ping(connection: Connection, settings: Settings) -> None:
    """Run an empty query. Raises if the connection is lost or the transaction is aborted."""
    with translate_errors(connection):
        await connection.execute("SELECT", timeout=settings.acquire_timeout)


async def _blocks(data: bytes) -> AsyncGenerator[bytes]:
    """Yield the data in blocks.

    asyncpg also accepts a file, but then it creates a class for each copy. A class refers to
    itself, so the data would stay in memory until the garbage collector runs.
    """
    for start in range(0, len(data), _COPY_BLOCK_SIZE):
        yield data[start : start + _COPY_BLOCK_SIZE]
