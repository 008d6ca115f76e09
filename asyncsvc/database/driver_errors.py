"""Translation of the errors of asyncpg and of the network to `asyncsvc.errors`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

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

_UNIQUE_VIOLATION: Final = "23505"
_DATA_EXCEPTION: Final = "22000"
_CLASS_BY_SQLSTATE: Final[dict[str, type[AsyncSvcError]]] = {
    _UNIQUE_VIOLATION: AlreadyExists,
    "57014": StatementTimeout,  # query_canceled
    "55P03": LockTimeout,  # lock_not_available
}
_SCHEMA_MISSING: Final = {"42P01", "3F000"}
# The message or its detail quotes a value, which may be the hash of a token.
_QUOTES_VALUE: Final = {_DATA_EXCEPTION, _UNIQUE_VIOLATION}
# Connection failures, resources, shutdowns, serialization failures and deadlocks.
_UNAVAILABLE_CLASSES: Final = ("08", "53", "57P", "40")
# Those that end without intervention: of the resources only connections, not disk or memory.
_TRANSIENT_CLASSES: Final = ("08", "53300", "57P", "40")


class translate_errors:  # noqa: N801 - a context manager, named as a function
    """Raise the errors of asyncpg and of the network as `AsyncSvcError`, with their cause."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection | None = None) -> None:
        """Use the state of the connection to classify asyncpg's own errors, which have no code."""
        self._connection = connection

    def __enter__(self) -> None:
        """Enter the block."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise the translated error, if there is one."""
        if error is None:
            return
        if isinstance(error, asyncpg.PostgresError) and error.sqlstate in _QUOTES_VALUE:
            raise _from_sqlstate(error) from None
        translated = self._translate(error)
        if translated is not None:
            raise translated from error

    def _translate(self, error: BaseException) -> AsyncSvcError | None:
        match error:
            case asyncpg.PostgresError():
                return _from_sqlstate(error)
            case TimeoutError():
                return StatementTimeout("the database did not answer in time")
            case OSError():
                return Unavailable(f"the database cannot be reached: {error.strerror or error}")
            case asyncpg.InterfaceError() | asyncpg.InternalClientError():
                return self._translate_driver_error(error)
        return None

    def _translate_driver_error(self, error: Exception) -> AsyncSvcError:
        """Distinguish misuse from a lost connection."""
        if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
            return Unavailable(f"no server has the requested role: {error}")
        if isinstance(error, asyncpg.InternalClientError):
            # The server closed the connection. asyncpg has read the server's last message but not
            # yet the end of the stream, so the connection still counts as open.
            return Unavailable("the connection was lost")
        if self._connection is None:
            return PoolClosed("the pool is closed, or was never opened")
        if is_usable(self._connection):
            return ConcurrentUse(
                "the connection is in use by another task, or in a transaction begun by hand"
            )
        return Unavailable("the connection is closed")


def is_transient(error: Unavailable) -> bool:
    """Return whether the call may succeed a moment later, on another connection.

    A timeout is not transient: the caller has waited long enough.
    """
    if type(error) is not Unavailable:
        return False
    cause = error.__cause__
    return not isinstance(cause, asyncpg.PostgresError) or (cause.sqlstate or "").startswith(
        _TRANSIENT_CLASSES
    )


def is_connection_lost(error: BaseException | None) -> bool:
    """Return whether asyncpg or the network reports a lost connection with this error."""
    return isinstance(error, (ConnectionError, asyncpg.PostgresConnectionError))


def is_usable(connection: Connection) -> bool:
    """Return whether the connection is open, as far as the client knows."""
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:  # the pool has taken a lost connection back
        return False


def _from_sqlstate(error: asyncpg.PostgresError) -> AsyncSvcError:
    sqlstate, message = error.sqlstate or "", str(error.args[0]) if error.args else ""
    if sqlstate == _DATA_EXCEPTION:
        return DatabaseError("a value cannot be encoded for its column")
    if sqlstate in _CLASS_BY_SQLSTATE:
        return _CLASS_BY_SQLSTATE[sqlstate](message)
    if sqlstate.startswith(_UNAVAILABLE_CLASSES):
        return Unavailable(message)
    if sqlstate in _SCHEMA_MISSING:
        return MigrationError(f"{message}: run `await svc.migrate()` first")
    return DatabaseError(message, sqlstate)
