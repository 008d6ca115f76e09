"""What asyncpg and the network raise, as errors of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg

from asyncsvc.errors import (
    AlreadyExists,
    AsyncSvcError,
    ConcurrentUse,
    DatabaseError,
    LockTimeout,
    MigrationError,
    PoolClosed,
    StatementTimeout,
    Unavailable,
)

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = asyncpg.Connection[Any] | PoolConnectionProxy[Any]

_UNIQUE_VIOLATION = "23505"
_NOT_ENCODED = "22000"
_BY_NAME = {
    _UNIQUE_VIOLATION: AlreadyExists,
    "57014": StatementTimeout,  # query_canceled
    "55P03": LockTimeout,  # lock_not_available
}
_NO_SUCH_TABLE = {"42P01", "3F000"}
# Their text, or its detail, quotes a value, which may be the hash of a token.
_QUOTING = {_NOT_ENCODED, _UNIQUE_VIOLATION}
# Connection failures, resources, shutdowns, serialization failures, deadlocks.
_UNAVAILABLE = ("08", "53", "57P", "40")
# Those of them that pass by themselves: of the resources only connections, no disk or memory.
_PASSING = ("08", "53300", "57P", "40")


class translate_errors:  # noqa: N801 - it reads as what it does
    """Raises asyncpg's errors and the network's as ours, with the original as their cause."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection | None = None) -> None:
        """Judge by this connection what asyncpg's own errors mean."""
        self._connection = connection

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise what stands for the error, if it is one of those."""
        if error is None:
            return
        if isinstance(error, asyncpg.PostgresError) and error.sqlstate in _QUOTING:
            raise _by_sqlstate(error) from None
        ours = self._ours(error)
        if ours is not None:
            raise ours from error

    def _ours(self, error: BaseException) -> AsyncSvcError | None:
        match error:
            case asyncpg.PostgresError():
                return _by_sqlstate(error)
            case TimeoutError():
                return StatementTimeout("the database did not answer in time")
            case OSError():
                return Unavailable(f"the database cannot be reached: {error.strerror or error}")
            case asyncpg.InterfaceError() | asyncpg.InternalClientError():
                return self._of_the_driver(error)
        return None

    def _of_the_driver(self, error: Exception) -> AsyncSvcError:
        """Tell misuse from a lost connection, for which the driver has no codes."""
        if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
            return Unavailable(f"no server is what was asked for: {error}")
        if isinstance(error, asyncpg.InternalClientError):
            # The server hung up, and the driver has read its farewell but not yet the end: the
            # connection still counts as open.
            return Unavailable("the connection was lost")
        if self._connection is None:
            return PoolClosed("the pool is closed, or was never opened")
        if is_usable(self._connection):
            return ConcurrentUse(
                "the connection is in use by another task, or in a transaction begun by hand"
            )
        return Unavailable("the connection is closed")


def is_transient(error: Unavailable) -> bool:
    """Whether what failed may succeed a moment later, on another connection.

    A time-out is none of these: whoever waited that long is not to wait again.
    """
    if type(error) is not Unavailable:
        return False
    cause = error.__cause__
    return not isinstance(cause, asyncpg.PostgresError) or (cause.sqlstate or "").startswith(
        _PASSING
    )


def is_connection_lost(error: BaseException | None) -> bool:
    """Whether this is what the driver or the network says of a lost connection."""
    return isinstance(error, (ConnectionError, asyncpg.PostgresConnectionError))


def is_usable(connection: Connection) -> bool:
    """Whether a connection can be asked something, as far as is known here."""
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:  # a pool takes a lost connection back from its borrower
        return False


def _by_sqlstate(error: asyncpg.PostgresError) -> AsyncSvcError:
    sqlstate, message = error.sqlstate or "", str(error.args[0]) if error.args else ""
    if sqlstate == _NOT_ENCODED:
        return DatabaseError("a value cannot be encoded for its column")
    if sqlstate in _BY_NAME:
        return _BY_NAME[sqlstate](message)
    if sqlstate.startswith(_UNAVAILABLE):
        return Unavailable(message)
    if sqlstate in _NO_SUCH_TABLE:
        return MigrationError(f"{message}: run `await svc.migrate()` first")
    return DatabaseError(message, sqlstate)
