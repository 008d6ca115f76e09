"""The pools that `connect` opens: on the primary, on each replica, and for maintenance."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import asyncpg
from asyncpg import TargetServerAttributeNotMatched
from asyncpg.connect_utils import SessionAttribute

from asyncsvc.database import citus
from asyncsvc.database.borrowed import check_event_loop
from asyncsvc.database.connecting import OwnConnection, open_connection
from asyncsvc.database.driver_errors import translate_errors
from asyncsvc.database.dsn import Dsn, parse_dsn
from asyncsvc.database.poolers import PREPARED_ADVICE, keeps_prepared_statements
from asyncsvc.errors import InvalidInput, StatementTimeout, Unavailable

if TYPE_CHECKING:
    from asyncsvc.database.pool_executor import Pool
    from asyncsvc.settings import Settings

_PREPARED_STATEMENTS: Final = 20
"""The number of statements that a connection keeps prepared, the most recently used ones.

A service uses about 12, maintenance 18. Each takes 0.1 to 0.4 MiB in the server's process, and the
filters of lists alone have hundreds of variants. The next use of a dropped statement costs 1
additional round trip.
"""
_MAINTENANCE_IDLE_SECONDS: Final = 1.0
"""The connection of maintenance is closed if it has been idle for so long."""


class OpenedPools(NamedTuple):
    """The pools of a primary, of its replicas, and of maintenance."""

    primary: Pool
    replicas: list[Pool]
    maintenance: Pool
    """On the primary: 1 connection, which is open during a run."""

    def check_event_loop(self) -> None:
        """Raise ConcurrentUse if the pools belong to another event loop."""
        check_event_loop(self.primary)

    async def close(self) -> None:
        """Close all pools."""
        async with AsyncExitStack() as stack:
            for pool in (self.primary, *self.replicas, self.maintenance):
                stack.push_async_callback(_close, pool)


async def open_pools(
    dsn: str,
    replicas: Sequence[str] | None,
    settings: Settings,
    *,
    min_size: int,
    max_size: int,
) -> OpenedPools:
    """Open a pool on the primary, a pool on each replica and the pool of maintenance.

    If the DSN has several hosts, each new connection to the primary goes to the host that accepts
    writes. Each host is then also a replica, unless `replicas` names others. The pools of replicas
    and of maintenance open their connections later.

    Raises:
        Unavailable: The primary cannot be reached.
        InvalidInput: The DSN is not a PostgreSQL URL.
    """
    hosts = parse_dsn("dsn", dsn)
    # A single host may have any role: it can be a proxy, or the caller may want a standby.
    if replicas is None:
        replica_hosts = hosts if len(hosts) > 1 else []
    elif isinstance(replicas, Sequence):
        replica_hosts = [host for replica in replicas for host in parse_dsn("replicas", replica)]
    else:
        raise InvalidInput("replicas", "must be a sequence of PostgreSQL URLs")
    async with AsyncExitStack() as stack:
        primary = await _open_pool("dsn", hosts, settings, min_size=min_size, max_size=max_size)
        stack.push_async_callback(_close, primary)
        replica_pools = []
        for host in replica_hosts:
            pool = await _open_pool("replicas", [host], settings, min_size=0, max_size=max_size)
            replica_pools.append(pool)
            stack.push_async_callback(_close, pool)
        maintenance = await _open_pool(
            "dsn",
            hosts,
            settings,
            min_size=0,
            max_size=1,
            max_inactive_connection_lifetime=_MAINTENANCE_IDLE_SECONDS,
        )
        stack.pop_all()
        return OpenedPools(primary, replica_pools, maintenance)


async def _close(pool: Pool) -> None:
    """Close a pool."""
    with translate_errors(pool=pool):
        await pool.close()


async def _open_pool(
    field: str,
    hosts: Sequence[Dsn],
    settings: Settings,
    *,
    min_size: int,
    max_size: int,
    max_inactive_connection_lifetime: float = 300.0,
) -> Pool:
    opener = _Opener(field, hosts, settings)
    options = _session_options(settings, is_pooler=any(host.is_pooler for host in hosts))
    options["connect"] = opener.open if len(hosts) == 1 else opener.open_primary
    with _translate_connect_errors(field, options), translate_errors():
        try:
            return await asyncpg.create_pool(
                hosts[0].url,
                min_size=min_size,
                max_size=max_size,
                max_inactive_connection_lifetime=max_inactive_connection_lifetime,
                timeout=settings.acquire_timeout,
                command_timeout=settings.statement_timeout,
                reset=_skip_reset,
                connection_class=OwnConnection,
                **options,
            )
        except ValueError:  # asyncpg cannot parse the DSN, and its error may quote the password
            raise InvalidInput(field, "must be a PostgreSQL URL") from None


@contextmanager
def _translate_connect_errors(field: str, options: Mapping[str, Any]) -> Generator[None]:
    """Translate errors whose meaning differs while a connection is opened."""
    try:
        yield
    except StatementTimeout as error:
        raise Unavailable("the server did not answer in time") from error.__cause__
    except Unavailable as error:
        is_rejected = isinstance(error.__cause__, asyncpg.ProtocolViolationError)
        if is_rejected and "server_settings" in options:
            raise InvalidInput(
                field, f"connects to a pooler, which needs Settings.pgbouncer: {error}"
            ) from error.__cause__
        raise


def _session_options(settings: Settings, *, is_pooler: bool) -> dict[str, Any]:
    """Return the session parameters. A pooler shares sessions, so it gets none."""
    prepared = {
        "statement_cache_size": _PREPARED_STATEMENTS,
        "max_cacheable_statement_size": 0,  # statements of any length
    }
    if settings.pgbouncer == "prepared":
        return prepared
    if settings.pgbouncer == "transaction" or is_pooler:
        return {"statement_cache_size": 0}
    timeouts = {
        "lock_timeout": settings.lock_timeout,
        "idle_in_transaction_session_timeout": settings.idle_transaction_timeout,
    }
    parameters = {name: f"{value * 1_000:.0f}ms" for name, value in timeouts.items()}
    if settings.citus:
        parameters |= citus.SESSION_PARAMETERS
    return {
        "server_settings": parameters,
        **prepared,
    }


class _Opener:
    """Opens connections to one host, or to the primary among several hosts.

    asyncpg can also try several hosts in order, but it has one timeout for all of them, so a host
    that drops all packets uses the time of the others. Here each host gets an equal part of the
    timeout, and the last known primary is tried first.
    """

    def __init__(self, field: str, hosts: Sequence[Dsn], settings: Settings) -> None:
        self._field = field
        self._hosts = list(hosts)
        self._timeout_per_host = settings.acquire_timeout / len(hosts)
        self._allow_clear_text = settings.allow_clear_text_password
        self._keeps_prepared = settings.pgbouncer == "prepared"

    async def open(self, _url: str, **options: Any) -> asyncpg.Connection:  # noqa: ANN401 - asyncpg's
        """Open a connection to the only host."""
        return await self._connect(self._hosts[0], options)

    async def open_primary(self, _url: str, **options: Any) -> asyncpg.Connection:  # noqa: ANN401 - asyncpg's
        """Open a connection to the host that accepts writes."""
        options |= {
            "timeout": self._timeout_per_host,
            "target_session_attrs": SessionAttribute.primary,
        }
        errors = list[Exception]()
        for host in tuple(self._hosts):
            try:
                connection = await self._connect(host, options)
            except (OSError, asyncpg.PostgresError, TargetServerAttributeNotMatched) as error:
                errors.append(error)
            else:
                self._hosts.sort(key=lambda each: each != host)
                return connection
        raise max(errors, key=lambda error: isinstance(error, asyncpg.PostgresError))

    async def _connect(self, host: Dsn, options: Mapping[str, Any]) -> asyncpg.Connection:
        connection = await open_connection(
            host, self._field, allow_clear_text=self._allow_clear_text, **options
        )
        if self._keeps_prepared:
            await self._check_pooler(connection, options["timeout"])
        return connection

    async def _check_pooler(self, connection: asyncpg.Connection, seconds: float) -> None:
        """Check that prepared statements are kept. Closes the connection otherwise."""
        is_kept = False
        try:
            async with asyncio.timeout(seconds):
                is_kept = await keeps_prepared_statements(connection)
        finally:
            if not is_kept:
                connection.terminate()
        if not is_kept:
            raise InvalidInput(
                self._field,
                f"connects to a pooler that keeps no prepared statements: {PREPARED_ADVICE}",
            )


async def _skip_reset(_connection: object) -> None:
    """Send nothing when a connection returns to its pool, which halves the number of round trips.

    At this point asyncpg has rolled back an open transaction, and no statement of this library
    leaves other state in a session.
    """
