"""Opens connections that send no password in clear text to an unverified server.

A server chooses the method of authentication. If it asks for the password in clear text, asyncpg
sends it. The guard here reads the server's request before asyncpg does.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
import struct
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

import asyncpg

from asyncsvc.database.dsn import Dsn
from asyncsvc.errors import InvalidInput

_AUTHENTICATION: Final = ord("R")
_HEADER_LENGTH: Final = 5
_MIN_LENGTH: Final = 4
_MAX_LENGTH: Final = 2**30
_OK: Final = 0
_CLEAR_TEXT: Final = 3


async def open_connection(
    dsn: Dsn,
    field: str,
    *,
    allow_clear_text: bool,
    **options: Any,  # noqa: ANN401 - asyncpg's
) -> asyncpg.Connection:
    """Open a connection of asyncpg with its options.

    Raises InvalidInput on `field` if the server asks for the password in clear text and is not
    verified, or if it rejects a parameter of the DSN.
    """
    loop = _GuardedLoop(asyncio.get_running_loop(), dsn, allow_clear_text=allow_clear_text)
    if dsn.connect_timeout is not None:
        options["timeout"] = min(dsn.connect_timeout, options["timeout"])
    options |= {"loop": loop, "connection_class": OwnConnection}
    with _translate_parameter_errors(dsn, field):
        try:
            connection: asyncpg.Connection = await asyncpg.connect(dsn.url, **options)
        except Exception:
            if loop.refused:
                raise InvalidInput(
                    field,
                    "leads to a server that asks for the password in clear text: use"
                    " sslmode=verify-full, or Settings.allow_clear_text_password",
                ) from None
            raise
    return connection


@contextmanager
def _translate_parameter_errors(dsn: Dsn, field: str) -> Generator[None]:
    """Raise InvalidInput for an error of the server that names a parameter of the DSN."""
    try:
        yield
    except asyncpg.PostgresError as error:
        named = [name for name in sorted(dsn.session_parameters) if name in str(error)]
        if named:
            raise InvalidInput(
                field, f"the parameter {named[0]}: the server rejects it: remove it"
            ) from error
        raise
    except asyncpg.ClientConfigurationError as error:
        # Only this message of asyncpg is known to quote no part of the DSN but a file.
        if "root certificate file" in str(error):
            raise InvalidInput(
                field, "the parameter sslrootcert: is required by this sslmode, and must be a file"
            ) from None
        raise


class OwnConnection(asyncpg.Connection):
    """A connection with the original event loop, not the guarded one, and names of its own."""

    __slots__ = ()

    def __init__(self, protocol: Any, transport: Any, loop: Any, *rest: Any) -> None:  # noqa: ANN401 - asyncpg's
        """Store the arguments of asyncpg."""
        super().__init__(protocol, transport, loop.real, *rest)

    def _get_unique_id(self, prefix: str) -> str:
        """Return a name that no other process uses, in place of asyncpg's number in this process.

        A pooler that passes the names of statements to the server, for example since its settings
        changed, would run the statement of another process under an equal name.
        """
        return f"__asyncpg_{prefix}_{secrets.token_hex(8)}__"


class _GuardedLoop:
    """The event loop, whose new connections are guarded until the server accepts the login."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, dsn: Dsn, *, allow_clear_text: bool
    ) -> None:
        self.real = loop
        self.refused = False
        self._dsn = dsn
        self._allow_clear_text = allow_clear_text

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of the loop
        return getattr(self.real, name)

    async def create_connection(
        self,
        factory: Callable[[], Any],
        *arguments: Any,  # noqa: ANN401 - those of the loop
        **options: Any,  # noqa: ANN401
    ) -> tuple[_GuardedTransport, Any]:
        transport, guard = await self.real.create_connection(
            lambda: _Guard(self, factory()), *arguments, **options
        )
        connected: socket.socket | None = transport.get_extra_info("socket")
        for option in self._dsn.socket_options if connected is not None else ():
            connected.setsockopt(*option)  # type: ignore[union-attr]
        return _GuardedTransport(self, transport), guard.protocol

    async def create_unix_connection(
        self, factory: Callable[[], Any], path: str
    ) -> tuple[_GuardedTransport, Any]:
        transport, guard = await self.real.create_unix_connection(
            lambda: _Guard(self, factory()), path
        )
        return _GuardedTransport(self, transport), guard.protocol

    async def start_tls(
        self,
        transport: _GuardedTransport,
        protocol: Any,  # noqa: ANN401 - asyncpg's
        *arguments: Any,  # noqa: ANN401 - those of the loop
        **options: Any,  # noqa: ANN401
    ) -> _GuardedTransport | None:
        encrypted = await self.real.start_tls(transport.real, protocol, *arguments, **options)
        return None if encrypted is None else _GuardedTransport(self, encrypted)

    def accepts_clear_text(self, transport: asyncio.BaseTransport) -> bool:
        """Return whether TLS verifies the server, or a setting allows clear text."""
        encryption = transport.get_extra_info("ssl_object")
        is_verified = encryption is not None and encryption.context.verify_mode == ssl.CERT_REQUIRED
        return self._allow_clear_text or is_verified


class _GuardedTransport:
    """A transport whose next protocol is guarded."""

    def __init__(self, loop: _GuardedLoop, real: Any) -> None:  # noqa: ANN401 - any transport
        self.real = real
        self.write = real.write  # each request calls it
        self._loop = loop

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of the transport
        return getattr(self.real, name)

    def set_protocol(self, protocol: Any) -> None:  # noqa: ANN401 - asyncpg's
        guard = _Guard(self._loop, protocol)
        guard.transport = self.real
        self.real.set_protocol(guard)


class _Guard(asyncio.Protocol):
    """Passes all data to the protocol of asyncpg, unless the server asks for clear text."""

    def __init__(self, loop: _GuardedLoop, protocol: Any) -> None:  # noqa: ANN401 - asyncpg's
        self.protocol = protocol
        self.transport: Any = None
        self._loop = loop
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.protocol.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        try:
            is_accepted = self._is_accepted()
        except ValueError:
            is_accepted = False
        if is_accepted:
            self.protocol.data_received(data)
        else:
            self.transport.abort()

    def _is_accepted(self) -> bool:
        """Return whether asyncpg may read the messages. Ends the guard after the login."""
        while (method := self._next_method()) is not None:
            if method == _CLEAR_TEXT and not self._loop.accepts_clear_text(self.transport):
                self._loop.refused = True
                return False
            if method == _OK:
                self.transport.set_protocol(self.protocol)
                return True
        return True

    def _next_method(self) -> int | None:
        """Return the method of the next message of authentication, if it is complete enough.

        Other messages are skipped. Each begins with a type and a length. Raises ValueError for a
        length that asyncpg could read in another way.
        """
        while len(self._rest) >= _HEADER_LENGTH:
            kind, length = struct.unpack_from("!BI", self._rest)
            if not _MIN_LENGTH <= length <= _MAX_LENGTH:
                raise ValueError(length)
            if kind != _AUTHENTICATION:
                if len(self._rest) < length + 1:
                    return None
                self._rest = self._rest[length + 1 :]
                continue
            if len(self._rest) < _HEADER_LENGTH + 4:
                return None
            (method,) = struct.unpack_from("!I", self._rest, _HEADER_LENGTH)
            if len(self._rest) < length + 1 and method not in {_OK, _CLEAR_TEXT}:
                return None
            self._rest = self._rest[length + 1 :]
            return int(method)
        return None

    def eof_received(self) -> bool | None:
        return self.protocol.eof_received()  # type: ignore[no-any-return]

    def connection_lost(self, error: Exception | None) -> None:
        self.protocol.connection_lost(error)

    def pause_writing(self) -> None:
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        self.protocol.resume_writing()
