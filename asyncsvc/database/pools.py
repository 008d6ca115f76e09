"""The pools that `connect` opens: one on the primary and one on each replica."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg
from asyncpg import TargetServerAttributeNotMatched
from asyncpg.connect_utils import SessionAttribute

from asyncsvc.database.borrowed import check_event_loop
from asyncsvc.database.driver_errors import translate_errors
from asyncsvc.errors import InvalidInput, StatementTimeout, Unavailable

if TYPE_CHECKING:
    from asyncsvc.database.pool_executor import Pool
    from asyncsvc.settings import Settings

_PREPARED_STATEMENTS: Final = 32
"""The number of statements that a connection keeps prepared, the most recently used ones.

A service uses about 20. Each takes 0.1 to 0.2 MiB in the server's process, and the filters of lists
alone have hundreds of variants. The next use of a dropped statement costs 1 additional round trip.
"""


class OpenedPools(NamedTuple):
    """The pools of a primary and of its replicas."""

    primary: Pool
    replicas: list[Pool]

    async def close(self) -> None:
        """Close all pools. In another event loop it raises ConcurrentUse and closes none."""
        pools = [self.primary, *self.replicas]
        for pool in pools:
            check_event_loop(pool)
        async with AsyncExitStack() as stack:
            for pool in pools:
                stack.push_async_callback(_close, pool)


async def open_pools(
    dsn: str,
    replicas: Sequence[str] | None,
    settings: Settings,
    *,
    min_size: int,
    max_size: int,
) -> OpenedPools:
    """Open a pool on the primary and a pool on each replica.

    If the DSN has several hosts, each new connection to the primary goes to the host that accepts
    writes. Each host is then also a replica, unless `replicas` names others. The pools of replicas
    open their connections later.

    Raises:
        Unavailable: The primary cannot be reached.
        InvalidInput: The DSN is not a PostgreSQL URL.
    """
    hosts = _split_hosts("dsn", dsn)
    # A single host may have any role: it can be a proxy, or the caller may want a standby.
    primary_finder = _PrimaryFinder(hosts, settings.acquire_timeout) if len(hosts) > 1 else None
    if replicas is None:
        replicas = hosts if len(hosts) > 1 else ()
    if not isinstance(replicas, Sequence):
        raise InvalidInput("replicas", "must be a sequence of PostgreSQL URLs")
    replica_dsns = [host for replica in replicas for host in _split_hosts("replicas", replica)]
    async with AsyncExitStack() as stack:
        primary = await _open_pool(
            dsn, settings, min_size=min_size, max_size=max_size, primary_finder=primary_finder
        )
        stack.push_async_callback(_close, primary)
        replica_pools = []
        for replica in replica_dsns:
            pool = await _open_pool(replica, settings, min_size=0, max_size=max_size)
            replica_pools.append(pool)
            stack.push_async_callback(_close, pool)
        stack.pop_all()
        return OpenedPools(primary, replica_pools)


async def _close(pool: Pool) -> None:
    """Close a pool."""
    with translate_errors(pool=pool):
        await pool.close()


def _split_hosts(field: str, dsn: str) -> list[str]:
    """Return a DSN for each host of a DSN. The error does not quote the DSN and its password."""
    if not isinstance(dsn, str):
        raise InvalidInput(field, "must be a PostgreSQL URL")
    try:
        parts = urlsplit(dsn)
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        if any(name == "host" and "," in value for name, value in options):
            raise InvalidInput(field, "names its hosts before the path: //one:5432,two:5432/")
        user, at, hosts = parts.netloc.rpartition("@")
        if "," in hosts:  # `_PrimaryFinder` decides which host is the primary
            options = [option for option in options if option[0] != "target_session_attrs"]
            parts = parts._replace(query=urlencode(options))
        urls = [parts._replace(netloc=f"{user}{at}{host}") for host in hosts.split(",")]
        is_valid = parts.scheme in {"postgresql", "postgres"} and all(
            url.port is None or url.port > 0 for url in urls
        )
    except ValueError:
        is_valid = False
    if not is_valid:
        raise InvalidInput(field, "must be a PostgreSQL URL") from None
    return [url.geturl() for url in urls]


async def _open_pool(
    dsn: str,
    settings: Settings,
    *,
    min_size: int,
    max_size: int,
    primary_finder: _PrimaryFinder | None = None,
) -> Pool:
    with _translate_connect_errors(), translate_errors():
        try:
            return await asyncpg.create_pool(
                dsn,
                min_size=min_size,
                max_size=max_size,
                timeout=settings.acquire_timeout,
                command_timeout=settings.statement_timeout,
                reset=_skip_reset,
                connect=asyncpg.connect if primary_finder is None else primary_finder.connect,
                **_session_options(settings),
            )
        except ValueError:  # asyncpg cannot parse the DSN, and its error may quote the password
            raise InvalidInput("dsn", "must be a PostgreSQL URL") from None


@contextmanager
def _translate_connect_errors() -> Generator[None]:
    """Translate errors whose meaning differs while a connection is opened."""
    try:
        yield
    except StatementTimeout as error:
        raise Unavailable("the server did not answer in time") from error.__cause__
    except Unavailable as error:
        if isinstance(error.__cause__, asyncpg.ProtocolViolationError):
            raise InvalidInput(
                "dsn", f"connects to a pooler, which needs Settings.pgbouncer: {error}"
            ) from error.__cause__
        raise


def _session_options(settings: Settings) -> dict[str, Any]:
    """Return the session parameters. A pooler shares sessions, so it gets none."""
    if settings.pgbouncer:
        return {"statement_cache_size": 0}
    timeouts = {
        "lock_timeout": settings.lock_timeout,
        "idle_in_transaction_session_timeout": settings.idle_transaction_timeout,
    }
    return {
        "server_settings": {name: f"{value * 1_000:.0f}ms" for name, value in timeouts.items()},
        "statement_cache_size": _PREPARED_STATEMENTS,
    }


class _PrimaryFinder:
    """Opens connections to the primary among several hosts. It tries the last known primary first.

    asyncpg can also try several hosts in order, but it has one timeout for all of them, so a host
    that drops all packets uses the time of the others. Here each host gets an equal part of the
    timeout.
    """

    def __init__(self, hosts: Sequence[str], timeout: float) -> None:
        self._hosts = list(hosts)
        self._timeout_per_host = timeout / len(hosts)

    async def connect(self, _dsn: str, **options: Any) -> asyncpg.Connection:  # noqa: ANN401 - asyncpg's
        """Open a connection to the host that accepts writes."""
        options |= {
            "timeout": self._timeout_per_host,
            "target_session_attrs": SessionAttribute.primary,
        }
        errors = list[Exception]()
        for host in tuple(self._hosts):
            try:
                connection: asyncpg.Connection = await asyncpg.connect(host, **options)
            except (OSError, asyncpg.PostgresError, TargetServerAttributeNotMatched) as error:
                errors.append(error)
            else:
                self._hosts.sort(key=lambda each: each != host)
                return connection
        raise max(errors, key=lambda error: isinstance(error, asyncpg.PostgresError))


async def _skip_reset(_connection: object) -> None:
    """Send nothing when a connection returns to its pool, which halves the number of round trips.

    At this point asyncpg has rolled back an open transaction, and no statement of this library
    leaves other state in a session.
    """
