"""Opens the database that RAGFlow runs on, MySQL or PostgreSQL, and runs statements that read.

PostgreSQL is asyncpg's. MySQL is PyMySQL's, of the extra `ragflow`: it waits in a thread of its
own, which a cancellation ends by shutting the connection down. Neither session may write. No error
holds the URL, whose password is nobody's business.
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
from typing import Any, Final, Protocol, TypeAlias, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import asyncpg

from asyncsvc.database import sql_files, translate_errors
from asyncsvc.database.sql_files import Query
from asyncsvc.errors import AsyncSvcError, DatabaseError, InvalidInput, Unavailable

T = TypeVar("T")
Cells: TypeAlias = Mapping[str, Any]
"""A row: its cells by the names of the columns."""

_CONNECT_SECONDS: Final = 10
_READ_SECONDS: Final = 300
"""The longest that a server may take for a page: it may have to read it from a slow disk."""
_MYSQL: Final = {"mysql", "mariadb"}
_POSTGRESQL: Final = {"postgresql", "postgres"}
_MYSQL_PORT: Final = 3306
_SSL_MODES: Final = ("disabled", "preferred", "required", "verify_ca", "verify_identity")
_LOST: Final = range(2_000, 3_000)
"""The errors of MySQL's clients, as opposed to those of the server."""
_NUMBERED: Final = re.compile(r"\$(\d+)")


class Server(Protocol):
    """A connection to a source, on which one statement runs at a time."""

    @property
    def dialect(self) -> str:
        """The flag of the statements that are for this kind of server."""

    async def fetch(self, query: Query) -> list[Cells]:
        """Return the rows. Raises Unavailable or DatabaseError, which name the source."""

    async def close(self) -> None:
        """Hang up."""


async def connect(dsn: str) -> Server:
    """Open a session that reads and cannot write.

    Raises InvalidInput for what is no such URL, and for MySQL without its driver; Unavailable and
    DatabaseError where the server does not answer or refuses.
    """
    scheme, plus, _ = dsn.partition(":")[0].lower().partition("+")
    if scheme in _POSTGRESQL:
        return await _PostgreSQL.connect(f"postgresql:{dsn.partition(':')[2]}" if plus else dsn)
    if scheme in _MYSQL:
        return await _MySQL.connect(_Address.of(dsn))
    raise InvalidInput("source", "must be a URL that begins with mysql:// or postgresql://")


@contextmanager
def _named() -> Iterator[None]:
    """Say of an error that it is the source's, for there are two databases."""
    try:
        yield
    except InvalidInput:
        raise
    except Unavailable as error:
        raise Unavailable(f"the source: {error}") from error
    except AsyncSvcError as error:
        state = getattr(error, "sqlstate", None)
        raise DatabaseError(f"the source: {error}", state) from error


@dataclass(frozen=True, slots=True)
class _PostgreSQL:
    """A connection of asyncpg's. Each statement is a transaction that may only read."""

    connection: asyncpg.Connection[Any] = field(repr=False)
    dialect: str = "postgresql"

    @classmethod
    async def connect(cls, dsn: str) -> _PostgreSQL:
        with _named(), translate_errors():
            try:
                # Nothing is kept prepared and no setting sent, so that poolers do not mind.
                connection = await asyncpg.connect(
                    dsn,
                    timeout=_CONNECT_SECONDS,
                    command_timeout=_READ_SECONDS,
                    statement_cache_size=0,
                )
            except ValueError:  # asyncpg's for a DSN that it cannot read; it may quote the password
                raise InvalidInput("source", "must be a PostgreSQL URL") from None
        return cls(connection)

    async def fetch(self, query: Query) -> list[Cells]:
        with _named(), translate_errors(self.connection):
            async with self.connection.transaction(readonly=True):
                rows = await self.connection.fetch(query.text, *query.arguments)
        return [dict(row) for row in rows]

    async def close(self) -> None:
        self.connection.terminate()  # there is nothing that the server would have to be told


@dataclass(frozen=True, slots=True)
class _Address:
    """What a URL of MySQL says."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    ssl: Mapping[str, Any]
    """The arguments by which the driver is told what to encrypt."""

    @classmethod
    def of(cls, dsn: str) -> _Address:
        try:
            parts = urlsplit(dsn)
            port = parts.port or _MYSQL_PORT
        except ValueError:  # it quotes what it could not read, which may be the password
            raise _unreadable() from None
        database = unquote(parts.path.removeprefix("/"))
        if (
            not parts.hostname
            or not database
            or "@" in f"{parts.path}{parts.query}{parts.fragment}"
        ):
            raise _unreadable()
        return cls(
            host=parts.hostname,
            port=port,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=database,
            ssl=_encryption(parts),
        )


def _unreadable() -> InvalidInput:
    return InvalidInput(
        "source",
        "must be mysql://user:password@host:port/database; what a URL has a meaning for is written"
        " as %40 for @, %2F for /, %3A for :, %23 for #",
    )


def _encryption(parts: SplitResult) -> Mapping[str, Any]:
    """Return what the URL's `ssl-mode` and `ssl-ca` mean, as they do for MySQL's own programs."""
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
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
        raise InvalidInput("source", f"ssl-ca: {error.strerror or 'is no certificate'}") from None
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # which MySQL's own certificates do not pass
    context.check_hostname = mode == "verify_identity"
    context.verify_mode = ssl.CERT_NONE if mode == "required" else ssl.CERT_REQUIRED
    return {"ssl": context}


@dataclass(slots=True)
class _MySQL:
    """A connection of PyMySQL's."""

    driver: ModuleType
    connection: Any = field(repr=False)
    line: socket.socket = field(repr=False)
    """The driver's socket once more: to shut it down from here, whatever TLS made of the other."""
    dialect: str = "mysql"

    @classmethod
    async def connect(cls, address: _Address) -> _MySQL:
        try:
            import pymysql  # noqa: PLC0415 - the extra may be missing
            import pymysql.cursors  # noqa: PLC0415
        except ModuleNotFoundError:
            raise InvalidInput(
                "source", "is MySQL, which needs an extra: pip install 'asyncsvc[ragflow]'"
            ) from None
        with _named(), _errors_of(pymysql):
            connection = pymysql.connect(
                host=address.host,
                port=address.port,
                user=address.user,
                password=address.password,
                database=address.database,
                charset="utf8mb4",
                autocommit=True,
                read_timeout=_READ_SECONDS,
                write_timeout=_READ_SECONDS,
                cursorclass=pymysql.cursors.DictCursor,
                init_command=sql_files.load("ragflow/read_only").bind((), {}).text,
                defer_connect=True,
                **address.ssl,
            )
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    return await cls._greeted(pymysql, connection, address)
            except TimeoutError:
                raise Unavailable(
                    f"cannot be reached: no MySQL answered within {_CONNECT_SECONDS} seconds"
                ) from None

    @classmethod
    async def _greeted(cls, driver: ModuleType, connection: Any, address: _Address) -> _MySQL:  # noqa: ANN401 - PyMySQL's has no types
        line = await asyncio.to_thread(_dial, address)
        opened = cls(driver, connection, line)
        try:
            await opened.aside(lambda: connection.connect(line.dup()))
        except BaseException as error:
            line.close()
            if isinstance(error, Exception) and not isinstance(error, driver.MySQLError):
                # Over what is no greeting the driver trips in any way there is.
                raise Unavailable("cannot be reached: what answers is no MySQL") from error
            raise
        return opened

    async def fetch(self, query: Query) -> list[Cells]:
        places = [int(number) - 1 for number in _NUMBERED.findall(query.text)]
        text = _NUMBERED.sub("%s", query.text.replace("%", "%%"))
        values = [query.arguments[place] for place in places]

        def run() -> list[Cells]:
            with self.connection.cursor() as cursor:
                cursor.execute(text, values)
                return list(cursor.fetchall())

        with _named(), _errors_of(self.driver):
            return await self.aside(run)

    async def close(self) -> None:
        self.line.close()
        if self.connection.open:
            self.connection.close()

    async def aside(self, work: Callable[[], T]) -> T:
        """Call what waits for the server, in a thread; cancelled, leave when that has ended."""
        running = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            with suppress(OSError):  # it hung up already
                self.line.shutdown(socket.SHUT_RDWR)
            await asyncio.gather(running, return_exceptions=True)
            raise


def _dial(address: _Address) -> socket.socket:
    try:
        line = socket.create_connection((address.host, address.port), _CONNECT_SECONDS)
    except OSError as error:
        raise Unavailable(f"cannot be reached: {error.strerror or error}") from error
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return line


@contextmanager
def _errors_of(driver: ModuleType) -> Iterator[None]:
    """Raise the errors of MySQL's driver as ours."""
    try:
        yield
    except driver.MySQLError as error:
        number, text = error.args if len(error.args) == 2 else (None, str(error))  # noqa: PLR2004
        if isinstance(number, int) and (number in _LOST or number == 0):
            raise Unavailable(text or "the connection was lost") from error
        raise DatabaseError(text, error.sqlstate) from error
