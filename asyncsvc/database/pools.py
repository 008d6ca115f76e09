"""The pools of `connect`: bounded, without a reset, and one for each server that it leads to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg
from asyncpg import TargetServerAttributeNotMatched
from asyncpg.connect_utils import SessionAttribute

from asyncsvc.database.driver_errors import translate_errors
from asyncsvc.errors import InvalidInput, StatementTimeout, Unavailable

if TYPE_CHECKING:
    from asyncsvc.database.pool_executor import Pool
    from asyncsvc.settings import Settings

_PREPARED: Final = 32
"""How many statements a connection keeps prepared, the latest used ones.

A service has some twenty. Each takes 0.1 to 0.2 MiB of the server's process, and the filters of
lists alone make hundreds of variants. One that was dropped costs a round trip more when it comes
again.
"""


@asynccontextmanager
async def open_pools(
    dsn: str,
    replicas: Sequence[str] | None,
    settings: Settings,
    *,
    min_size: int,
    max_size: int,
) -> AsyncGenerator[tuple[Pool, list[Pool]]]:
    """Open a pool on the primary and one on each replica, lend them, close them.

    Of several hosts in the DSN the primary is the one that takes writes, whenever a connection is
    opened; and each of them is a replica, unless these are given. Nothing is asked of these yet.

    Raises Unavailable when the primary cannot be reached, InvalidInput for a DSN that is none.
    """
    hosts = _hosts("dsn", dsn)
    # One that a proxy stands for decides itself; and a standby alone may be what is wanted.
    ways = None if len(hosts) == 1 else _Hosts(hosts, settings.acquire_timeout / len(hosts))
    if replicas is None:
        replicas = hosts if len(hosts) > 1 else ()
    each = [host for replica in replicas for host in _hosts("replicas", replica)]
    async with AsyncExitStack() as stack:
        primary = await _opened(dsn, settings, min_size=min_size, max_size=max_size, ways=ways)
        stack.push_async_callback(primary.close)
        others = []
        for replica in each:
            others.append(await _opened(replica, settings, min_size=0, max_size=max_size))
            stack.push_async_callback(others[-1].close)
        yield primary, others


def _hosts(field: str, dsn: str) -> list[str]:
    """Return a DSN for each host of a DSN. The error does not quote it: it may hold a password."""
    try:
        parts = urlsplit(dsn)
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        if any(name == "host" and "," in value for name, value in options):
            raise InvalidInput(field, "names its hosts before the path: //one:5432,two:5432/")
        user, at, hosts = parts.netloc.rpartition("@")
        if "," in hosts:  # which of them is wanted for what is this module's to say
            options = [option for option in options if option[0] != "target_session_attrs"]
            parts = parts._replace(query=urlencode(options))
        each = [parts._replace(netloc=f"{user}{at}{host}") for host in hosts.split(",")]
        is_ours = parts.scheme in {"postgresql", "postgres"} and all(
            one.port is None or one.port > 0 for one in each
        )
    except ValueError:
        is_ours = False
    if not is_ours:
        raise InvalidInput(field, "must be a PostgreSQL URL") from None
    return [one.geturl() for one in each]


async def _opened(
    dsn: str,
    settings: Settings,
    *,
    min_size: int,
    max_size: int,
    ways: _Hosts | None = None,
) -> Pool:
    with _connecting(), translate_errors():
        try:
            return await asyncpg.create_pool(
                dsn,
                min_size=min_size,
                max_size=max_size,
                timeout=settings.acquire_timeout,
                command_timeout=settings.statement_timeout,
                reset=_reset,
                connect=asyncpg.connect if ways is None else ways.connect,
                **_session_options(settings),
            )
        except ValueError:  # asyncpg's for a DSN that it cannot read; it may quote the password
            raise InvalidInput("dsn", "must be a PostgreSQL URL") from None


@contextmanager
def _connecting() -> Generator[None]:
    """Say of an error what it means where a connection is opened."""
    try:
        yield
    except StatementTimeout as error:
        raise Unavailable("the server did not answer in time") from error.__cause__
    except Unavailable as error:
        if isinstance(error.__cause__, asyncpg.ProtocolViolationError):
            raise InvalidInput(
                "dsn", f"leads to a pooler, which needs Settings.pgbouncer: {error}"
            ) from error.__cause__
        raise


def _session_options(settings: Settings) -> dict[str, Any]:
    """Return what bounds a session and its statements; behind a pooler no session is ours."""
    if settings.pgbouncer:
        return {"statement_cache_size": 0}
    bounds = {
        "lock_timeout": settings.lock_timeout,
        "idle_in_transaction_session_timeout": settings.idle_transaction_timeout,
    }
    return {
        "server_settings": {name: f"{value * 1_000:.0f}ms" for name, value in bounds.items()},
        "statement_cache_size": _PREPARED,
    }


class _Hosts:
    """Several hosts, of which one is the primary: the last that was is asked first.

    The driver asks them in order, too, but gives all of them together the time that one is given
    here: one that swallows everything would use it up, and no other would be asked.
    """

    def __init__(self, hosts: Sequence[str], seconds: float) -> None:
        self._hosts = list(hosts)
        self._seconds = seconds

    async def connect(self, _dsn: str, **options: Any) -> asyncpg.Connection:  # noqa: ANN401 - the driver's
        """Open a connection to the primary, whichever host that is now."""
        options |= {"timeout": self._seconds, "target_session_attrs": SessionAttribute.primary}
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


async def _reset(_connection: object) -> None:
    """Send nothing when a connection comes back, which halves the round trips of a call.

    asyncpg has rolled back by then what was open; no statement here leaves any other state in a
    session, which the tests hold them to.
    """
