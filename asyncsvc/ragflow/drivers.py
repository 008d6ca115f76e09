"""Connections to the database of RAGFlow, MySQL or PostgreSQL, which only read.

PostgreSQL is read with asyncpg. MySQL is read with PyMySQL, of the extra `ragflow`, in a thread;
cancelling a call shuts its socket down, which ends the thread. No error contains the URL, because
the URL contains the password.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import asyncpg

from asyncsvc.cancellation import finish_despite_cancellation
from asyncsvc.database import sql_files, translate_errors
from asyncsvc.database.connecting import open_connection
from asyncsvc.database.dsn import parse_dsn
from asyncsvc.database.sql_files import Query
from asyncsvc.errors import AsyncSvcError, DatabaseError, InvalidInput, Unavailable
from asyncsvc.ragflow.mysql_guard import guarded_connection_class

T = TypeVar("T")
Cells: TypeAlias = Mapping[str, Any]
"""The cells of a row by the names of their columns."""
Dialect = Literal["mysql", "postgresql"]
"""The flag that selects the lines of a statement for this kind of server."""

_CONNECT_SECONDS: Final = 10
_READ_SECONDS: Final = 300
"""The time-out of one statement: a page may come from a slow disk."""
_SCHEMES: Final[Mapping[str, Dialect]] = {
    "mysql": "mysql",
    "mariadb": "mysql",
    "postgresql": "postgresql",
    "postgres": "postgresql",
}
_MYSQL_PORT: Final = 3306
_SSL_MODES: Final = ("disabled", "preferred", "required", "verify_ca", "verify_identity")
_CLIENT_ERRORS: Final = range(2_000, 3_000)
"""The error numbers of MySQL's client library; the server has others."""
_GENERAL_ERROR: Final = "HY000"
"""MySQL's SQLSTATE for errors without a specific one."""
_PARAMETER: Final = re.compile(r"\$(\d+)")


class Connection(Protocol):
    """A connection to a source. It runs one statement at a time."""

    @property
    def dialect(self) -> Dialect:
        """The kind of server."""

    async def fetch(self, query: Query) -> list[Cells]:
        """Return the rows. Raises Unavailable or DatabaseError, whose text names the source."""

    async def close(self) -> None:
        """Close the connection."""


async def connect(dsn: str, *, allow_clear_text: bool = False) -> Connection:
    """Open a read-only session.

    `allow_clear_text` allows sending the password in clear text to an unverified server.

    Raises:
        InvalidInput: `dsn` is not a URL of MySQL or PostgreSQL, or the driver for MySQL is not
            installed.
        Unavailable: The server does not answer.
        DatabaseError: The server rejects the login.
    """
    scheme, colon, rest = dsn.partition(":")
    name, plus, _ = scheme.lower().partition("+")  # mysql+pymysql, as SQLAlchemy writes it
    match _SCHEMES.get(name):
        case "mysql":
            return await _MySQLConnection.open(
                _parse_mysql_url(dsn), allow_clear_text=allow_clear_text
            )
        case "postgresql":
            url = f"postgresql{colon}{rest}" if plus else dsn
            return await _PostgreSQLConnection.open(url, allow_clear_text=allow_clear_text)
    raise InvalidInput("source", "must be a URL that begins with mysql:// or postgresql://")


@contextmanager
def _naming_the_source() -> Iterator[None]:
    """Prefix errors of the source, because an import uses 2 databases."""
    try:
        yield
    except InvalidInput:
        raise
    except Unavailable as error:
        raise Unavailable(f"the source: {error}") from error
    except AsyncSvcError as error:
        # For a missing table, the translated error would advise a migration of this library.
        cause = error.__cause__ if isinstance(error.__cause__, asyncpg.PostgresError) else error
        sqlstate = getattr(cause, "sqlstate", None) or _GENERAL_ERROR
        raise DatabaseError(f"the source: {cause.args[0]}", sqlstate) from error


@dataclass(frozen=True, slots=True)
class _PostgreSQLConnection:
    """A connection of asyncpg. Each statement is a read-only transaction."""

    connection: asyncpg.Connection[Any] = field(repr=False)
    dialect: Dialect = "postgresql"

    @classmethod
    async def open(cls, dsn: str, *, allow_clear_text: bool) -> _PostgreSQLConnection:
        hosts = parse_dsn("source", dsn)
        if len(hosts) > 1:
            raise InvalidInput("source", "must name one host")
        with _naming_the_source(), translate_errors():
            try:
                # Without prepared statements and session settings it works behind any pooler.
                connection = await open_connection(
                    hosts[0],
                    "source",
                    allow_clear_text=allow_clear_text,
                    timeout=_CONNECT_SECONDS,
                    command_timeout=_READ_SECONDS,
                    statement_cache_size=0,
                )
            except ValueError:  # asyncpg cannot parse the DSN; its message may quote the password
                raise InvalidInput("source", "must be a PostgreSQL URL") from None
        return cls(connection)

    async def fetch(self, query: Query) -> list[Cells]:
        with _naming_the_source(), translate_errors(self.connection):
            async with self.connection.transaction(readonly=True):
                rows = await self.connection.fetch(query.text, *query.arguments)
        return [dict(row) for row in rows]

    async def close(self) -> None:
        self.connection.terminate()


def _parse_mysql_url(dsn: str) -> SplitResult:
    invalid = InvalidInput(
        "source",
        "must be mysql://user:password@host:port/database; characters with a meaning in a URL are"
        " written as %40 for @, %2F for /, %3A for :, %23 for #",
    )
    try:
        url = urlsplit(dsn)
        _ = url.port
    except ValueError:  # its message quotes the unreadable part, which may be the password
        raise invalid from None
    has_password_after_host = "@" in f"{url.path}{url.query}{url.fragment}"
    if not url.hostname or not url.path.removeprefix("/") or has_password_after_host:
        raise invalid
    return url


def _encryption(url: SplitResult) -> Mapping[str, Any]:
    """Return the driver's arguments for `ssl-mode` and `ssl-ca`, named as in MySQL's programs."""
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    certificates = options.pop("ssl-ca", None)
    mode = options.pop("ssl-mode", "verify_ca" if certificates else "preferred").lower()
    if options or mode not in _SSL_MODES:
        modes = ", ".join(_SSL_MODES)
        raise InvalidInput("source", f"takes the options ssl-ca and ssl-mode, one of {modes}")
    if mode == "preferred":
        return {}
    if mode == "disabled":
        return {"ssl_disabled": True}
    try:
        context = ssl.create_default_context(cafile=certificates)
    except OSError as error:
        reason = error.strerror or "is not a certificate"
        raise InvalidInput("source", f"ssl-ca: {reason}") from None
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # MySQL's own certificates violate it
    context.check_hostname = mode == "verify_identity"
    context.verify_mode = ssl.CERT_NONE if mode == "required" else ssl.CERT_REQUIRED
    return {"ssl": context}


@dataclass(frozen=True, slots=True)
class _MySQLConnection:
    """A connection of PyMySQL, whose calls block and run in a thread."""

    driver: ModuleType
    connection: Any = field(repr=False)
    duplicate: socket.socket = field(repr=False)
    """A duplicate of the driver's socket, which can be shut down even while TLS wraps the other."""
    dialect: Dialect = "mysql"

    @classmethod
    async def open(cls, url: SplitResult, *, allow_clear_text: bool) -> _MySQLConnection:
        try:
            import pymysql  # noqa: PLC0415 - the extra may be missing
            import pymysql.cursors  # noqa: PLC0415
        except ModuleNotFoundError:
            raise InvalidInput(
                "source", "is MySQL, which needs an extra: pip install 'asyncsvc[ragflow]'"
            ) from None
        host, port = url.hostname or "", url.port or _MYSQL_PORT
        with _naming_the_source(), _translate_mysql_errors(pymysql):
            connection = guarded_connection_class(pymysql)(
                host=host,
                port=port,
                user=unquote(url.username or ""),
                password=unquote(url.password or ""),
                database=unquote(url.path.removeprefix("/")),
                charset="utf8mb4",
                autocommit=True,
                read_timeout=_READ_SECONDS,
                write_timeout=_READ_SECONDS,
                cursorclass=pymysql.cursors.DictCursor,
                init_command=sql_files.load("ragflow/read_only").bind((), {}).text,
                defer_connect=True,
                **_encryption(url),
            )
            connection.allows_clear_text = allow_clear_text
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    opened = cls(pymysql, connection, await asyncio.to_thread(_dial, host, port))
                    await opened._log_in()
            except TimeoutError:
                raise Unavailable(
                    f"cannot be reached: no MySQL answered within {_CONNECT_SECONDS} seconds"
                ) from None
        return opened

    async def _log_in(self) -> None:
        try:
            await self._in_thread(lambda: self.connection.connect(self.duplicate.dup()))
        except BaseException:
            self.duplicate.close()
            raise

    async def fetch(self, query: Query) -> list[Cells]:
        places = [int(number) - 1 for number in _PARAMETER.findall(query.text)]
        text = _PARAMETER.sub("%s", query.text.replace("%", "%%"))
        values = [query.arguments[place] for place in places]

        def run() -> list[Cells]:
            self.connection.start_answer()
            with self.connection.cursor() as cursor:
                cursor.execute(text, values)
                return list(cursor.fetchall())

        with _naming_the_source(), _translate_mysql_errors(self.driver):
            try:
                async with asyncio.timeout(_READ_SECONDS):
                    return await self._in_thread(run)
            except TimeoutError:
                raise Unavailable(f"did not answer within {_READ_SECONDS} seconds") from None

    async def close(self) -> None:
        self.duplicate.close()
        if self.connection.open:
            self.connection.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run a blocking call. A cancellation ends the connection, and waits for the thread.

        The driver raises errors of any type if it cannot read an answer.
        """
        call = asyncio.to_thread(work)
        try:
            return await finish_despite_cancellation(call, on_cancel=self._shut_down)
        except (self.driver.MySQLError, AsyncSvcError, TimeoutError):
            raise
        except Exception as error:
            self._shut_down()
            raise Unavailable("the server is not MySQL, or its answer is damaged") from error

    def _shut_down(self) -> None:
        with suppress(OSError):  # the server closed the connection first
            self.duplicate.shutdown(socket.SHUT_RDWR)


def _dial(host: str, port: int) -> socket.socket:
    try:
        dialed = socket.create_connection((host, port), _CONNECT_SECONDS)
    except OSError as error:
        raise Unavailable(f"cannot be reached: {error.strerror or error}") from error
    dialed.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    dialed.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return dialed


@contextmanager
def _translate_mysql_errors(driver: ModuleType) -> Iterator[None]:
    """Raise the errors of PyMySQL as Unavailable or DatabaseError."""
    try:
        yield
    except driver.MySQLError as error:
        number, text = error.args if len(error.args) == 2 else (None, str(error))  # noqa: PLR2004
        if isinstance(number, int) and (number in _CLIENT_ERRORS or number == 0):
            raise Unavailable(text or "the connection was lost") from error
        raise DatabaseError(text, error.sqlstate or _GENERAL_ERROR) from error
