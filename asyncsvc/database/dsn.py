"""DSNs of a database in the form of hosting providers: URLs of PostgreSQL with parameters.

asyncpg sends an unknown parameter to the server, as a setting of the session. Here a parameter of
libpq or of another driver is applied, or rejected with its name.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from asyncsvc.errors import InvalidInput

_OF_ASYNCPG: Final = frozenset(
    {
        "database", "dbname", "gsslib", "host", "krbsrvname", "passfile", "password", "port",
        "service", "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcrl",
        "sslkey", "sslmode", "sslnegotiation", "sslpassword", "sslrootcert", "target_session_attrs",
        "user",
    }
)  # fmt: skip
"""The parameters that asyncpg applies. It sends others to the server."""
_WITHOUT_EFFECT: Final[Mapping[str, frozenset[str]]] = {
    "channel_binding": frozenset({"prefer", "disable"}),
    "client_encoding": frozenset({"utf8", "utf-8", "auto"}),
    "gssencmode": frozenset({"prefer", "disable"}),
    "load_balance_hosts": frozenset({"disable"}),
    "pgbouncer": frozenset({"false"}),
    "schema": frozenset({"public"}),
    "sslcompression": frozenset({"0", "1"}),
    "sslsni": frozenset({"1"}),
}
"""Values that request the library's own behaviour, so they have no effect."""
_REASONS: Final[Mapping[str, str]] = {
    "channel_binding": "asyncpg has no channel binding: remove it, and use sslmode=verify-full",
    "client_encoding": "the library needs UTF-8: remove it",
    "connection_limit": "use max_size of connect instead",
    "pool_timeout": "use Settings.acquire_timeout instead",
    "require_auth": "asyncpg chooses the method: remove it",
    "schema": "the tables are in the schema asyncsvc: remove it",
    "socket_timeout": "use Settings.statement_timeout instead",
    "ssl": "use sslmode instead",
    "sslaccept": "use sslmode instead",
    "statement_cache_size": "use Settings.pgbouncer instead",
}
"""The advice for each parameter that cannot be applied."""
_UNSUPPORTED: Final = _WITHOUT_EFFECT.keys() | _REASONS.keys() | {
    "gssdelegation", "hostaddr", "max_idle_connection_lifetime", "max_protocol_version",
    "min_protocol_version", "oauth_client_id", "oauth_client_secret", "oauth_issuer",
    "oauth_scope", "prepared_statement_cache_size", "replication", "requirepeer", "requiressl",
    "scram_client_key", "scram_server_key", "servicefile", "sslcertmode", "sslcrldir",
    "sslidentity", "sslkeylogfile", "uselibpqcompat",
}  # fmt: skip
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_FILES: Final = ("sslcert", "sslcrl", "sslkey", "sslrootcert")
_KEEPALIVES: Final[Mapping[str, tuple[int, str]]] = {
    "keepalives": (socket.SOL_SOCKET, "SO_KEEPALIVE"),
    "keepalives_idle": (socket.IPPROTO_TCP, "TCP_KEEPIDLE"),
    "keepalives_interval": (socket.IPPROTO_TCP, "TCP_KEEPINTVL"),
    "keepalives_count": (socket.IPPROTO_TCP, "TCP_KEEPCNT"),
    "tcp_user_timeout": (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT"),
}
"""The option of the socket for each parameter, which an operating system may not have."""
_MAX_OPTION: Final = 32_767
_MAX_MILLISECONDS: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Dsn:
    """The URL of one host for asyncpg, and the parameters that asyncpg does not support."""

    url: str
    is_pooler: bool = False
    """Whether the host is a pooler in transaction mode."""
    connect_timeout: float | None = None
    socket_options: tuple[tuple[int, int, int], ...] = ()
    """Level, option and value, as `setsockopt` takes them."""
    session_parameters: frozenset[str] = frozenset()
    """The parameters that are sent to the server."""


def parse_dsn(field: str, dsn: str) -> list[Dsn]:
    """Return each host of a DSN. The errors quote neither the DSN nor its password.

    Raises InvalidInput if the DSN is not a URL of PostgreSQL, or a parameter cannot be applied.
    """
    if not isinstance(dsn, str):
        raise InvalidInput(field, "must be a PostgreSQL URL")
    try:
        parts = urlsplit(dsn)
        parameters = dict(
            parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        )
        urls = _split_hosts(parts)
        is_valid = parts.scheme in {"postgresql", "postgres"} and all(
            url.port is None or url.port > 0 for url in urls
        )
    except ValueError:
        is_valid = False
    if not is_valid:
        raise InvalidInput(field, "must be a PostgreSQL URL") from None
    if "," in parameters.get("host", ""):
        raise InvalidInput(field, "must list its hosts before the path: //one:5432,two:5432/")
    if len(urls) > 1:  # the pool finds the primary among several hosts
        parameters.pop("target_session_attrs", None)
    applied = _apply(field, parameters)
    query = urlencode(parameters)
    return [replace(applied, url=url._replace(query=query).geturl()) for url in urls]


def _split_hosts(parts: SplitResult) -> list[SplitResult]:
    user, at, hosts = parts.netloc.rpartition("@")
    return [parts._replace(netloc=f"{user}{at}{host}") for host in hosts.split(",")]


def _apply(field: str, parameters: dict[str, str]) -> Dsn:
    """Remove the parameters that asyncpg must not get from the dict, and return their effect."""
    for name, values in _WITHOUT_EFFECT.items():
        if parameters.get(name, "").lower() in values:
            del parameters[name]
    is_pooler = parameters.pop("pgbouncer", "false").lower()
    if is_pooler not in {"true", "false"}:
        raise _error(field, "pgbouncer", "must be true or false")
    if "fallback_application_name" in parameters:
        fallback = parameters.pop("fallback_application_name")
        parameters.setdefault("application_name", fallback)
    if unsupported := sorted(parameters.keys() & _UNSUPPORTED):
        reason = _REASONS.get(unsupported[0], "is not supported: remove it")
        raise _error(field, unsupported[0], reason)
    connect_timeout = _number(field, parameters, "connect_timeout", _MAX_MILLISECONDS)
    options = _socket_options(field, parameters)
    _check_encryption(field, parameters)
    return Dsn(
        "",
        is_pooler == "true",
        connect_timeout or None,
        options,
        frozenset(parameters.keys() - _OF_ASYNCPG),
    )


def _socket_options(field: str, parameters: dict[str, str]) -> tuple[tuple[int, int, int], ...]:
    options = []
    for name, (level, constant) in _KEEPALIVES.items():
        limit = _MAX_MILLISECONDS if name == "tcp_user_timeout" else _MAX_OPTION
        value = _number(field, parameters, name, limit)
        option = getattr(socket, constant, None)
        # 0 selects the default of the operating system. For `keepalives` it means off.
        if value is not None and option is not None and (value or name == "keepalives"):
            options.append((level, option, value))
    return tuple(options)


def _number(field: str, parameters: dict[str, str], name: str, limit: int) -> int | None:
    """Remove a parameter and return its number; None if it is missing."""
    if name not in parameters:
        return None
    text = parameters.pop(name)
    if not text.isascii() or not text.isdigit() or int(text[:20]) > limit:
        raise _error(field, name, f"must be a whole number of 0 to {limit}")
    return int(text)


def _check_encryption(field: str, parameters: dict[str, str]) -> None:
    """Check `sslmode` and the files, and replace the authorities `system` by their file."""
    mode = parameters.get("sslmode")
    if mode is not None and mode not in _SSL_MODES:
        raise _error(field, "sslmode", f"must be one of {', '.join(_SSL_MODES)}")
    for name in _FILES:
        file = parameters.get(name, "")
        if file and (name, file) != ("sslrootcert", "system") and not Path(file).is_file():
            raise _error(field, name, "is not a file")
    if parameters.get("sslrootcert") != "system":
        return
    authorities = ssl.get_default_verify_paths().cafile
    if authorities is None:
        raise _error(field, "sslrootcert", "this system has no file of certificate authorities")
    if parameters.setdefault("sslmode", "verify-full") != "verify-full":
        raise _error(field, "sslrootcert", "system needs sslmode=verify-full")
    parameters["sslrootcert"] = authorities


def _error(field: str, name: str, reason: str) -> InvalidInput:
    return InvalidInput(field, f"the parameter {name}: {reason}")
