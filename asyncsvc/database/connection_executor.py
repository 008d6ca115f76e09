"""Statements and transactions on one connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, Literal

from asyncsvc.cancellation import finish_despite_cancellation
from asyncsvc.database.borrowed import check_event_loop
from asyncsvc.database.driver_errors import translate_errors
from asyncsvc.database.executor import Executor, ping
from asyncsvc.database.poolers import keeps_prepared_statements
from asyncsvc.database.row_security import clear_tenant, set_tenant
from asyncsvc.errors import AsyncSvcError, ConcurrentUse, DatabaseError

if TYPE_CHECKING:
    from asyncpg.transaction import Transaction

    from asyncsvc.database.driver_errors import Connection
    from asyncsvc.database.rows import Row
    from asyncsvc.database.sql_files import Query
    from asyncsvc.settings import Settings

_TRANSACTION_ABORTED: Final = "25P02"


class ConnectionLease:
    """One connection, for one task at a time."""

    __slots__ = ("_connection", "_is_in_use")

    def __init__(self, connection: Connection) -> None:  # noqa: D107
        self._connection = connection
        self._is_in_use = False

    async def __aenter__(self) -> Connection:  # noqa: D105
        if self._is_in_use:
            raise ConcurrentUse(
                "this connection or transaction is in use by another task, or by a transaction "
                "inside it; give each task its own"
            )
        check_event_loop(self._connection)
        self._is_in_use = True
        return self._connection

    async def __aexit__(self, *_: object) -> None:  # noqa: D105
        self._is_in_use = False


class ConnectionExecutor(Executor):
    """Runs statements on one connection, inside the transaction that is open there."""

    def __init__(
        self,
        connection: Connection,
        settings: Settings,
        *,
        owns_connection: bool = False,
        owns_transaction: bool = False,
    ) -> None:
        """Borrow the connection. This class neither configures nor closes it.

        Args:
            connection: The connection.
            settings: The timeouts and the hooks.
            owns_connection: The caller runs no statements of its own on the connection.
            owns_transaction: This library has begun the open transaction, so settings that are
                local to the transaction end with it.
        """
        super().__init__(settings)
        self._connection = connection
        self._reusable_lease = ConnectionLease(connection)
        self._owns_connection = owns_connection
        self._owns_transaction = owns_transaction
        self._first_failure: BaseException | None = None

    def _lease(self) -> ConnectionLease:
        return self._reusable_lease

    @property
    def is_in_transaction(self) -> bool:
        """Whether the connection is in a transaction."""
        with translate_errors(self._connection):
            return self._connection.is_in_transaction()

    @property
    def reported_pid(self) -> int:
        """The process id that the server reported when the connection was opened.

        A pooler reports its own number.
        """
        return self._connection.get_server_pid()

    async def keeps_prepared_statements(self) -> bool:
        """Return whether prepared statements stay prepared. False: a pooler does not keep them."""
        async with self._lease() as connection:
            with translate_errors(connection):
                return await keeps_prepared_statements(connection)

    @asynccontextmanager
    async def transaction(
        self, *, isolation: Literal["read_committed"] | None = None
    ) -> AsyncGenerator[ConnectionExecutor]:
        """Open a transaction, or a savepoint within one. See `Executor.transaction`."""
        async with (
            self._lease() as connection,
            open_transaction(
                connection,
                self._settings,
                owns_connection=self._owns_connection,
                owns_transaction=self._owns_transaction,
                isolation=isolation,
            ) as executor,
        ):
            yield executor

    async def fetch(self, query: Query) -> list[Row]:
        """Run one statement and return its rows.

        1 round trip if the statement is prepared. Row-level security adds 1 in a transaction of
        this library, 2 in a transaction of the caller, and 3 outside of a transaction.
        """
        tenant = set_tenant(query) if self._settings.row_level_security else None
        if tenant is None:
            return await super().fetch(query)
        if self.is_in_transaction:
            return await self._fetch_for_tenant(tenant, query)
        async with self.transaction() as executor:
            return await executor.fetch(query)

    async def _fetch_for_tenant(self, tenant: Query, query: Query) -> list[Row]:
        async with self._lease() as connection:
            try:
                await self._fetch(connection, tenant)
                rows = await self._fetch(connection, query)
            except BaseException:
                # This fails in an aborted transaction. The end of the transaction resets the
                # setting.
                with suppress(AsyncSvcError):
                    await self._clear_tenant(connection)
                raise
            await self._clear_tenant(connection)
            return rows

    async def _clear_tenant(self, connection: Connection) -> None:
        """Hide the rows of the tenant from the caller's own statements."""
        if not self._owns_transaction:
            await finish_despite_cancellation(self._fetch(connection, clear_tenant()))

    async def _fetch(self, connection: Connection, query: Query) -> list[Row]:
        try:
            return await super()._fetch(connection, query)
        except BaseException as error:
            self._record_failure(error)
            raise

    async def _copy(
        self, connection: Connection, name: str, *, table: str, columns: Sequence[str], data: bytes
    ) -> int:
        try:
            return await super()._copy(connection, name, table=table, columns=columns, data=data)
        except BaseException as error:
            self._record_failure(error)
            raise

    def _record_failure(self, error: BaseException) -> None:
        if not isinstance(error, ConcurrentUse):  # then the statement did not run
            self._first_failure = self._first_failure or error

    def raise_if_aborted(self) -> None:
        """Raise DatabaseError if a statement failed and thereby aborted the transaction."""
        if self._first_failure is not None:
            raise DatabaseError(
                "the transaction is rolled back, since a statement in it failed",
                _TRANSACTION_ABORTED,
            ) from self._first_failure


@asynccontextmanager
async def open_transaction(
    connection: Connection,
    settings: Settings,
    *,
    owns_connection: bool,
    owns_transaction: bool,
    isolation: Literal["read_committed"] | None = None,
) -> AsyncGenerator[ConnectionExecutor]:
    """Open a transaction on a connection that is leased. See `Executor.transaction`."""
    with translate_errors(connection):
        executor = ConnectionExecutor(
            connection,
            settings,
            owns_connection=owns_connection,
            owns_transaction=owns_transaction or not connection.is_in_transaction(),
        )
        transaction = connection.transaction(isolation=isolation)
    await _begin(transaction, connection, settings)
    try:
        yield executor
        executor.raise_if_aborted()
        if not owns_connection:  # a statement of the caller may have failed
            await ping(connection, settings)
    except BaseException:
        # If the rollback fails, the connection is lost, and the first error is more useful.
        with suppress(AsyncSvcError):
            await finish_despite_cancellation(_roll_back(transaction, connection, settings))
        raise
    async with _statement_timeout(connection, settings):
        await transaction.commit()


async def _begin(transaction: Transaction, connection: Connection, settings: Settings) -> None:
    """Begin the transaction despite cancellation, since a partial BEGIN cannot be undone."""

    async def start() -> None:
        async with _statement_timeout(connection, settings):
            await transaction.start()

    try:
        await finish_despite_cancellation(start())
    except asyncio.CancelledError:
        with suppress(AsyncSvcError):
            await finish_despite_cancellation(_roll_back(transaction, connection, settings))
        raise


async def _roll_back(transaction: Transaction, connection: Connection, settings: Settings) -> None:
    async with _statement_timeout(connection, settings):
        await transaction.rollback()


@asynccontextmanager
async def _statement_timeout(connection: Connection, settings: Settings) -> AsyncGenerator[None]:
    """Apply `Settings.statement_timeout`. asyncpg's own timeout of BEGIN and COMMIT may be none."""
    with translate_errors(connection):
        async with asyncio.timeout(settings.statement_timeout):
            yield
