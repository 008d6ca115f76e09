"""The facade: both services on a pool, on a connection, or inside one transaction."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from asyncsvc.database import (
    ConnectionExecutor,
    Executor,
    PoolExecutor,
    ReplicatedExecutor,
    open_pools,
)
from asyncsvc.errors import InvalidInput
from asyncsvc.models import Finding, MaintenanceReport, Migration, Plan
from asyncsvc.operations import doctor, maintenance, migrations, query_plans
from asyncsvc.services import API4ConversationService, APITokenService
from asyncsvc.settings import Settings

if TYPE_CHECKING:
    from asyncsvc.database import Connection, Pool

_POSITION: Final = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")


class Services:
    """Both services, where their statements run, and transactions over both."""

    def __init__(self, executor: Executor, settings: Settings) -> None:
        """Use `asyncsvc.connect`, `AsyncSvc`, `AsyncSvc.on` or `transaction` instead."""
        self._executor = executor
        self._settings = settings
        self._tokens = APITokenService(executor, settings)
        self._conversations = API4ConversationService(executor, settings)

    @property
    def tokens(self) -> APITokenService:
        """The API tokens."""
        return self._tokens

    @property
    def conversations(self) -> API4ConversationService:
        """The conversations, their messages and usage."""
        return self._conversations

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Services]:
        """Open one transaction over both services, or a savepoint where one is open already.

        Leaving the block commits, an error in it rolls back. One task at a time may use what it
        yields. It holds a connection, and each row lock, until the block is left.
        """
        async with self._executor.transaction() as executor:
            yield Services(executor, self._settings)


class AsyncSvc(Services):
    """The services on a pool of the caller's, which is never closed or configured."""

    _executor: PoolExecutor

    def __init__(
        self, pool: Pool, *, replicas: Sequence[Pool] = (), settings: Settings | None = None
    ) -> None:
        """Borrow the pool. It costs nothing: no connection is taken before the first call.

        `replicas` are pools that each lead to one hot standby of the server. Lists, searches and
        statistics then come from one that is at most `Settings.replica_lag` behind, or from the
        primary where there is none; all else from the primary.
        """
        settings = settings or Settings()
        executor = (
            ReplicatedExecutor(pool, settings, replicas)
            if replicas
            else PoolExecutor(pool, settings)
        )
        super().__init__(executor, settings)

    async def position(self) -> str:
        """Return how far the primary has come, for `at_least`: all that was committed is before it.

        It is a short text, as `16/B374D848`, which may travel with a caller: in a cookie, or a
        message. One round trip.
        """
        return await self._executor.position()

    def at_least(self, position: str) -> Services:
        """Return the services for a caller who is to see what was there at this position.

        A caller who has written may take the `position` after that along: a replica then answers
        only if it has it, which costs one round trip more, else the primary does. It costs nothing
        to make. Raises InvalidInput for what is no position.
        """
        if not isinstance(position, str) or not _POSITION.fullmatch(position):
            raise InvalidInput("position", "must be one that position() returned")
        return Services(self._executor.at_least(position), self._settings)

    def on(self, connection: Connection) -> Services:
        """Return the services on one connection of the caller's, in the caller's transaction.

        They never end a transaction of the caller's and leave no state. Their own `transaction` is
        a savepoint inside it, and commits where none is open; where a statement of the caller's own
        failed meanwhile, leaving it raises DatabaseError and rolls back. One task at a time may use
        them.
        """
        return Services(ConnectionExecutor(connection, self._settings), self._settings)

    async def migrate(self, *, citus: bool = False) -> list[Migration]:
        """Bring the schema up to date; return what this call applied, nothing when it was.

        `citus` distributes the tables by tenant over the nodes of Citus, with the rows that are
        there; give it each time, for tables that are new. See docs/scale.md.

        Any number of processes may call it at once. It needs the right to create; a deployment
        that may not write calls `check`. With `Settings.row_level_security` it turns that
        on, for good. Raises MigrationError when an applied migration was changed since, and
        where there is no Citus; InvalidInput for Citus and row-level security together.
        """
        return await migrations.migrate(self._executor, citus=citus)

    async def applied(self) -> list[Migration]:
        """Return the applied migrations, oldest first. At most two round trips that only read."""
        return await migrations.applied(self._executor)

    async def pending(self) -> list[Migration]:
        """Return the migrations that are not applied. At most two round trips that only read."""
        return await migrations.pending(self._executor)

    async def check(self) -> None:
        """Raise MigrationError unless the schema is up to date. As `pending`, it only reads.

        With `Settings.row_level_security` it raises too unless that holds for this role.
        """
        await migrations.check(self._executor)

    async def maintain(
        self, *, on_batch: Callable[[MaintenanceReport], None] | None = None
    ) -> MaintenanceReport:
        """Forget old idempotency keys, and fold usage and what was written.

        It returns how many keys, older than `Settings.key_lifetime`, are gone, how many rows of the
        usage ledger were rolled up, and how many messages and titles into the search index.
        Statistics, totals and searches are right before, too, but slower: call it once a minute or
        so. It can run anywhere, at any time, many at once, and be broken off; it works for all
        tenants.

        One round trip looks at the role's rights. Then it works for all tenants in batches, each a
        commit; `on_batch` gets the report so far. For 1,000 keys that is one round trip, one more
        for each tenant of a batch, and one to find no more. For 2,000 texts, or 2 MiB of them, it
        is one; for each tenant two more to find no other, and one for the next tenant; for 20,000
        texts, at the beginning and in the end one has the server sort them in. The usage of a
        tenant is one or two, five where so many conversations are new that all are counted anew;
        for 100 tenants, and to find no other, it is one, and one in the end. It waits for no row
        lock but where two count anew, and appends wait for none of its own.

        Raises DatabaseError for a role that row-level security restricts or that does not own the
        tables, since it is of all tenants: run it as their owner. MigrationError before the schema
        is there.
        """
        return await maintenance.maintain(self._executor, on_batch)

    async def doctor(self) -> list[Finding]:
        """Look at the server and the schema, and return what was found, and what to do about it.

        It only reads, also where nothing was migrated; a check that cannot be made is a finding.
        Some fifteen round trips, one after the other.
        """
        return await doctor.examine(self._executor)

    async def explain(
        self,
        name: str,
        *,
        present: Collection[str] = (),
        values: Mapping[str, object] | None = None,
    ) -> Plan:
        r"""Return PostgreSQL's plan for a statement of `sql/`, as "conversation/get_list".

        `present` names the flags and optional parameters of the variant, and one order; without an
        order it is the first in the file. `values` are for parameters, which are then present; text
        is converted to the parameter's type: times as ISO 8601, lists as JSON, bytes as `\x0a`.
        A parameter without a value gets one of its type.

        Nothing is executed. Raises InvalidInput for what the statement does not have, for a wrong
        value, and for commands that have no plan, such as DDL. At most four round trips.
        """
        return await query_plans.explain(
            self._executor, self._settings, name, present, {} if values is None else values
        )


@asynccontextmanager
async def connect(
    dsn: str,
    *,
    replicas: Sequence[str] | None = None,
    settings: Settings | None = None,
    min_size: int = 1,
    max_size: int = 10,
) -> AsyncGenerator[AsyncSvc]:
    """Open a pool of `min_size` to `max_size` connections, lend the services on it, close it.

    `dsn` is a PostgreSQL URL, as `postgresql://user:password@host:5432/database`. It may have
    several hosts, as `postgresql://user@one:5432,two:5432/database`: the one that takes writes is
    the primary, also after another was promoted, and the others may answer what a replica may (see
    `AsyncSvc`). `replicas` are the URLs of these where they are not among its hosts; `()` is none.
    Each has a pool of up to `max_size` connections, opened when they are needed.

    Raises Unavailable when the primary cannot be reached, InvalidInput for a DSN that is none.
    """
    if not 0 <= min_size <= max_size or max_size == 0:
        raise InvalidInput("max_size", "must be at least 1, and min_size 0 to max_size")
    settings = settings or Settings()
    async with open_pools(dsn, replicas, settings, min_size=min_size, max_size=max_size) as (
        primary,
        others,
    ):
        yield AsyncSvc(primary, replicas=others, settings=settings)
