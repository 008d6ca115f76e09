"""The facade: the services on a pool, on a connection or inside one transaction."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from asyncsvc.database import (
    ConnectionExecutor,
    Executor,
    PoolExecutor,
    ReplicatedExecutor,
    check_connection,
    open_pools,
)
from asyncsvc.errors import ConcurrentUse, InvalidInput
from asyncsvc.models import Backlog, Finding, MaintenanceReport, Plan, PoolStats
from asyncsvc.operations import doctor, maintenance, query_plans
from asyncsvc.operations.background import BackgroundMaintenance
from asyncsvc.operations.schema_methods import SchemaMethods
from asyncsvc.services import (
    API4ConversationService,
    APITokenService,
    BudgetService,
    RecordService,
)
from asyncsvc.settings import Settings
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.types import Names

if TYPE_CHECKING:
    from asyncsvc.database import Connection, OpenedPools, Pool

_POSITION: Final = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")


class Services:
    """The services on one executor, and transactions over all of them."""

    def __init__(self, executor: Executor, settings: Settings) -> None:
        """Internal. Use `asyncsvc.connect`, `AsyncSvc`, `AsyncSvc.on` or `transaction`."""
        self._executor = executor
        self._settings = settings
        self._tokens = APITokenService(executor, settings)
        self._conversations = API4ConversationService(executor, settings)
        self._records = RecordService(executor, settings)
        self._budgets = BudgetService(executor, settings)

    @property
    def settings(self) -> Settings:
        """The limits, timeouts and hooks."""
        return self._settings

    @property
    def tokens(self) -> APITokenService:
        """The service of API tokens."""
        return self._tokens

    @property
    def conversations(self) -> API4ConversationService:
        """The service of conversations, messages and usage."""
        return self._conversations

    @property
    def records(self) -> RecordService:
        """The service of records: data that is not a conversation."""
        return self._records

    @property
    def budgets(self) -> BudgetService:
        """The service of budgets: limits of usage."""
        return self._budgets

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Services]:
        """Open one transaction over all services, or a savepoint inside an open transaction.

        The end of the block commits; an error in the block rolls back. One task at a time may use
        the services of the block.

        Returns:
            A context manager that yields the services of the transaction.

        Raises:
            PoolExhausted: No connection became free within `Settings.acquire_timeout`.
            DatabaseError: A statement in the block failed and the block caught its error. The
                transaction is rolled back.

        Cost:
            2 round trips besides those of the block; 3 on a connection of the caller. The
            transaction holds its connection and its row locks until the end of the block.
        """
        async with self._executor.transaction() as executor:
            yield Services(executor, self._settings)


class AsyncSvc(Services, SchemaMethods):
    """The services on a pool of the caller. They neither close nor configure the pool.

    No maintenance runs in the background: call `maintain` about once a minute, or run
    `asyncsvc maintain`.
    """

    _executor: PoolExecutor

    def __init__(
        self, pool: Pool, *, replicas: Sequence[Pool] = (), settings: Settings | None = None
    ) -> None:
        """Borrow the pool. No connection is used before the first call.

        Args:
            pool: A pool on the primary.
            replicas: Pools on hot standbys, one server for each pool. Lists, searches and
                statistics then run on a replica that is at most `Settings.replica_lag` behind. All
                other statements run on the primary, and so do these if there is no such replica.
            settings: Limits, timeouts and hooks.

        Raises:
            InvalidInput: A parameter is no pool, or `settings` are no `Settings`.
        """
        settings = _settings_or_default(settings)
        executor = (
            ReplicatedExecutor(pool, settings, replicas)
            if replicas
            else PoolExecutor(pool, settings)
        )
        super().__init__(executor, settings)
        self._pools: OpenedPools | None = None
        self._maintenance_executor: PoolExecutor | None = None
        self._maintenance: BackgroundMaintenance | None = None

    async def close(self) -> None:
        """Close the pools that `connect` opened. Pools of the caller stay open.

        It cancels the maintenance in the background, and waits for the calls that use a connection.
        A later call raises PoolClosed, and so does a `watch` that is waiting.

        Raises:
            ConcurrentUse: The pools belong to another event loop.

        Cost:
            No round trip.
        """
        if self._pools is None:
            return
        self._pools.check_event_loop()
        try:
            await self._executor.listener.close()
            if self._maintenance is not None:
                await self._maintenance.stop()
        finally:
            await self._pools.close()

    def pool_stats(self) -> tuple[PoolStats, ...]:
        """Return the present numbers of connections of each pool.

        Any thread may call it.

        Returns:
            The primary's pool, the pools of the replicas, and the pool for maintenance in the
            background, if `connect` opened the pools.

        Cost:
            No round trip. Reads the state of each connection in this process.
        """
        own = self._maintenance_executor
        return (*self._executor.pool_stats(), *(own.pool_stats() if own is not None else ()))

    async def position(self) -> str:
        """Return the present position of the primary, for `at_least`.

        The position is after each commit that precedes this call. It is a short text, such as
        `16/B374D848`, that can be sent in a cookie or a message.

        Returns:
            The position.

        Cost:
            1 round trip.
        """
        return (await self._executor.positions()).position

    def at_least(self, position: str) -> Services:
        """Return the services for reads that see each commit before `position`.

        Use it to read your own writes: call `position()` after a write, and read with that
        position. Each read then runs on a replica that has replayed the position, or on the
        primary.

        Args:
            position: The result of `position()`.

        Returns:
            The services.

        Raises:
            InvalidInput: `position` is not a position.

        Cost:
            No round trip. Each read on a replica costs 1 more.
        """
        if not isinstance(position, str) or not _POSITION.fullmatch(position):
            raise InvalidInput("position", "must be a result of position()")
        return Services(self._executor.at_least(position), self._settings)

    def on(self, connection: Connection) -> Services:
        """Return the services on one connection of the caller, inside the caller's transaction.

        The services never end the caller's transaction and leave no state in the session. Their
        `transaction` is a savepoint, or commits if the caller has no open transaction. One task at
        a time may use the services.

        Args:
            connection: A connection of asyncpg, for example of a pool.

        Returns:
            The services.

        Raises:
            InvalidInput: `connection` is not a connection of asyncpg.

        Cost:
            No round trip.
        """
        check_connection("connection", connection)
        return Services(ConnectionExecutor(connection, self._settings), self._settings)

    @validated
    async def maintain(
        self, *, on_batch: Callable[[MaintenanceReport], None] | None = None
    ) -> MaintenanceReport:
        """Delete expired idempotency keys, roll up usage and index new texts, of all tenants.

        Statistics, totals and searches are correct without maintenance, but slower. The services of
        `connect` call it in the background if their role owns the tables. Otherwise call it once a
        minute, from any process. Calls may overlap and may be cancelled at any time: each batch is
        committed.

        Args:
            on_batch: Called after each batch with the report so far.

        Returns:
            The numbers of deleted keys (older than `Settings.key_lifetime`), of ledger rows that
            were rolled up, and of indexed messages and titles; and the failures. If the statement
            of a tenant fails or times out, the other tenants are processed, and then the rest of
            this tenant in smaller batches.

        Raises:
            DatabaseError: The role does not own the tables or row-level security restricts it.
            MigrationError: The schema does not exist.

        Cost:
            1 round trip to check the role. Keys: for each 1,000 keys 1 round trip, and 1 for each
            of their tenants; 1 to find no more. Usage: for each 100 tenants 1 round trip, and 1 or
            2 for each of them, 4 or 5 if a tenant has so many new conversations that it is
            recounted, 1 more if it has budgets; 1 to find no more, and 1 at the end. Texts: for
            each tenant 3 round trips, and 1 for each 2,000 texts or 2 MiB; for each 20,000 texts,
            at the start and at the end, 1 to flush the new entries of the index. 1 to record the
            run. No append waits.
        """
        return await maintenance.maintain(self._executor, on_batch)

    async def backlog(self) -> Backlog:
        """Count the rows of all tenants that maintenance has not processed yet.

        Returns:
            The numbers of rows, each at most 10,000, and the age of the last complete run.

        Raises:
            DatabaseError: The role does not own the tables or row-level security restricts it.
            MigrationError: The schema does not exist.

        Cost:
            1 round trip, no locks. Reads at most 10,000 entries of each kind.
        """
        return await maintenance.backlog(self._executor)

    async def doctor(self) -> list[Finding]:
        """Examine the server and the schema, and return findings with advice.

        A check that cannot run is a finding. The checks also run before the first `migrate`.

        Returns:
            The findings, in the order of the checks.

        Cost:
            17 round trips in sequence, read-only; 2 more on Citus, which asks each worker.
        """
        return await doctor.examine(self._executor)

    @validated
    async def explain(
        self,
        name: str,
        *,
        present: Names = (),
        values: Mapping[str, str | None] = {},
    ) -> Plan:
        r"""Return PostgreSQL's plan for a statement of `sql/`. The statement is not executed.

        Args:
            name: The statement, for example "conversation/get_list".
            present: The optional parameters and flags of the variant, and at most one order;
                without an order, the first one of the file.
            values: Values of parameters, which are then present, as literals of PostgreSQL: times
                as ISO 8601, arrays as `{a,b}`, bytes as `\x0a`. Other parameters get a sample value
                of their type.

        Returns:
            The statement, the value of each parameter and the lines of EXPLAIN.

        Raises:
            InvalidInput: The statement does not have a name, a value does not fit its type, or
                PostgreSQL has no plan for the statement, as for DDL.

        Cost:
            At most 5 round trips.
        """
        return await query_plans.explain(self._executor, name, present, values)


def connect(
    dsn: str,
    *,
    replicas: Sequence[str] | None = None,
    settings: Settings | None = None,
    min_size: int = 1,
    max_size: int = 10,
) -> Connecting:
    """Open a pool and return the services on it. The services own the pool and close it.

    They also run maintenance in the background, see `Settings.maintenance_interval`.

    `async with connect(dsn) as svc:` closes the pool at the end of the block. After
    `svc = await connect(dsn)` the caller awaits `svc.close()`.

    Args:
        dsn: A PostgreSQL URL, such as `postgresql://user:password@host:5432/database`. With several
            hosts (`postgresql://user@one:5432,two:5432/database`) the primary is the one that
            accepts writes, also after a failover, and all of them are replicas.
        replicas: The URLs of the replicas, instead of the hosts of `dsn`. `()` means no replicas.
            See `AsyncSvc`.
        settings: Limits, timeouts and hooks.
        min_size: Connections that stay open on the primary.
        max_size: Maximum number of connections of each pool. Each replica has a pool, which opens
            its connections on demand.

    Returns:
        An object to await or to enter by `async with`.

    Raises:
        Unavailable: The primary cannot be reached.
        InvalidInput: `dsn` is not a PostgreSQL URL, or a size is out of range.

    Cost:
        The opening of `min_size` connections.
    """
    return Connecting(partial(_connect, dsn, replicas, settings, min_size, max_size))


class Connecting:
    """The result of `connect`: await it, or enter it by `async with`. Each use opens a new pool.

    One block at a time can enter it, since the end of the block closes the pool of that block.
    """

    def __init__(self, open_: Callable[[], Coroutine[Any, Any, AsyncSvc]]) -> None:
        """Internal. Use `asyncsvc.connect`."""
        self._open = open_
        self._is_entered = False
        self._svc: AsyncSvc | None = None

    def __await__(self) -> Generator[Any, None, AsyncSvc]:
        """Open the pool and return the services. The caller closes them."""
        return self._open().__await__()

    async def __aenter__(self) -> AsyncSvc:
        """Open the pool and return the services.

        Raises:
            ConcurrentUse: Another block has entered this object. Call `connect` for each block.
        """
        if self._is_entered:
            raise ConcurrentUse("another block is open: call connect for each block")
        self._is_entered = True
        try:
            self._svc = await self._open()
        except BaseException:
            self._is_entered = False
            raise
        return self._svc

    async def __aexit__(self, *_: object) -> None:
        """Close the pool."""
        svc, self._svc = self._svc, None
        self._is_entered = False
        if svc is not None:
            await svc.close()


async def _connect(
    dsn: str,
    replicas: Sequence[str] | None,
    settings: Settings | None,
    min_size: int,
    max_size: int,
) -> AsyncSvc:
    settings = _settings_or_default(settings)
    are_numbers = isinstance(min_size, int) and isinstance(max_size, int)
    if not are_numbers or not 0 <= min_size <= max_size or max_size == 0:
        raise InvalidInput("max_size", "must be at least 1, and min_size 0 to max_size")
    pools = await open_pools(dsn, replicas, settings, min_size=min_size, max_size=max_size)
    svc = AsyncSvc(pools.primary, replicas=pools.replicas, settings=settings)
    svc._pools = pools  # noqa: SLF001 - only `connect` opens pools
    if settings.maintenance_interval is not None:
        # Its role is not restricted, so no statement needs a tenant. The next run is its retry.
        own = settings.model_copy(update={"row_level_security": False, "retry_timeout": 0})
        worker = PoolExecutor(pools.maintenance, own, "maintenance")
        svc._maintenance_executor = worker  # noqa: SLF001
        svc._maintenance = BackgroundMaintenance(  # noqa: SLF001
            PoolExecutor(pools.primary, own), worker, settings.maintenance_interval
        )
        svc._maintenance.start()  # noqa: SLF001
    return svc


def _settings_or_default(settings: Settings | None) -> Settings:
    if settings is None:
        return Settings()
    if not isinstance(settings, Settings):
        raise InvalidInput("settings", "must be asyncsvc.Settings")
    return settings
