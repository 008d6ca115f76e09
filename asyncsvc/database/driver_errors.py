"""Translation of the errors of asyncpg and of the network to `asyncsvc.errors`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import asyncpg

from asyncsvc.database.borrowed import is_open
from asyncsvc.database.rows import CODEC_ADVICE, DATATYPE_MISMATCH
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

    from asyncsvc.database.pool_executor import Pool

    Connection: TypeAlias = asyncpg.Connection[Any] | PoolConnectionProxy[Any]

_UNIQUE_VIOLATION: Final = "23505"
_DATA_EXCEPTION: Final = "22000"
_INTERNAL_ERROR: Final = "XX000"
_CLASS_BY_SQLSTATE: Final[dict[str, type[AsyncSvcError]]] = {
    _UNIQUE_VIOLATION: AlreadyExists,
    "57014": StatementTimeout,  # query_canceled
    "55P03": LockTimeout,  # lock_not_available
}
LOST_STATEMENT: Final = {"26000", "42P05"}
"""A prepared statement does not exist or exists already, since a pooler switched the connection."""
_SCHEMA_MISSING: Final = {"42P01", "3F000"}
_TEXT_BY_INDEX: Final = {"message_id_idx": "the conversation has a message with this id"}
# The message or its detail quotes a value, which may be the hash of a token.
_QUOTES_VALUE: Final = {_DATA_EXCEPTION, _UNIQUE_VIOLATION}
# Connection failures, resources, shutdowns, serialization failures and deadlocks.
_UNAVAILABLE_CLASSES: Final = ("08", "53", "57P", "40")
# A COPY of Citus to a shard, also one of an INSERT, reports an error of a node without its code.
_CODE_BY_TEXT: Final = {
    "duplicate key value violates unique constraint": _UNIQUE_VIOLATION,
    "canceling statement due to lock timeout": "55P03",
    "canceling statement due to": "57014",
    "deadlock detected": "40P01",
    "terminating connection due to": "57P01",
}
# Citus reports the constraint of a shard, whose name ends in a number, in the message only.
_CONSTRAINT: Final = re.compile(r'"(\w+)"$')
_SHARD: Final = re.compile(r"_\d+$")
# Citus reports a lost node with a code of its own, and the text of libpq.
_LOST_NODE_CODES: Final = {_INTERNAL_ERROR, "58030"}
_LOST_NODE: Final = (
    "server closed the connection unexpectedly",
    "could not receive data from server",
    "could not send data to server",
    "no connection to the server",
    "failed to COPY to shard",
    "failure on connection marked as essential",
)
# Failures that end without intervention. Of the resources these are connections, not disk or
# memory.
_TRANSIENT_CLASSES: Final = ("08", "53300", "57P", "40")


class translate_errors:  # noqa: N801 - a context manager, named as a function
    """Raise the errors of asyncpg and of the network as `AsyncSvcError`, with their cause.

    Errors of the caller's codecs and callbacks have no cause: their text may quote a value.
    """

    __slots__ = ("_connection", "_pool")

    def __init__(self, connection: Connection | None = None, *, pool: Pool | None = None) -> None:
        """Use the state of the connection or pool to classify asyncpg's errors without a code."""
        self._connection = connection
        self._pool = pool

    def __enter__(self) -> None:
        """Enter the block."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise the translated error, if there is one."""
        if error is None:
            return
        if isinstance(error, asyncpg.PostgresError) and _sqlstate(error) in _QUOTES_VALUE:
            raise _from_sqlstate(error) from None
        translated = self._translate(error)
        if translated is not None:
            raise translated from error
        if isinstance(error, Exception) and not isinstance(error, AsyncSvcError):
            raise self._foreign_error(error) from None

    def _translate(self, error: BaseException) -> AsyncSvcError | None:
        match error:
            case asyncpg.PostgresError():
                return _from_sqlstate(error)
            case TimeoutError():
                return StatementTimeout("the database did not answer in time")
            case OSError():
                return Unavailable(f"the database cannot be reached: {error.strerror or error}")
            case asyncpg.InternalClientError():
                return _from_internal_error(error)
            case asyncpg.InterfaceError():
                return self._misuse()
        return None

    def _misuse(self) -> AsyncSvcError | None:
        """Return the error for a pool or connection that cannot be used in its state."""
        if self._connection is not None:
            if is_usable(self._connection):
                return ConcurrentUse(
                    "the connection is in use by another task, or in a transaction begun by hand"
                )
            return Unavailable("the connection is closed, or was released to its pool")
        if self._pool is not None and not is_open(self._pool):
            return PoolClosed("the pool is closed or was never opened: await it before use")
        return None

    def _foreign_error(self, error: Exception) -> AsyncSvcError:
        """Return the error for an exception of a codec, a callback or an argument of the caller."""
        name = type(error).__name__
        if self._connection is not None:
            return DatabaseError(
                f"a codec of the connection failed with {name}: {CODEC_ADVICE}", DATATYPE_MISMATCH
            )
        return Unavailable(
            f"no connection can be opened: the DSN, an argument or a callback of the pool failed"
            f" with {name}"
        )


def is_transient(error: Unavailable) -> bool:
    """Return whether the call may succeed a moment later, on another connection.

    A timeout is not transient: the caller has waited long enough.
    """
    if type(error) is not Unavailable:
        return False
    cause = error.__cause__
    if isinstance(cause, asyncpg.PostgresError):
        return _sqlstate(cause).startswith(_TRANSIENT_CLASSES) or _is_node_lost(cause)
    return cause is not None


def is_connection_lost(error: BaseException | None) -> bool:
    """Return whether this error of asyncpg or the network reports a lost connection."""
    return isinstance(error, (ConnectionError, asyncpg.PostgresConnectionError))


def is_usable(connection: Connection) -> bool:
    """Return whether the connection is open, as far as the client knows."""
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:  # the pool has taken a lost connection back
        return False


def _is_node_lost(error: asyncpg.PostgresError) -> bool:
    """Return whether a coordinator of Citus reports a lost connection to a node."""
    return error.sqlstate in _LOST_NODE_CODES and str(error).startswith(_LOST_NODE)


def _from_internal_error(error: asyncpg.InternalClientError) -> Unavailable:
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return Unavailable(f"no server has the requested role: {error}")
    # The server closed the connection. asyncpg has read the server's last message but not yet the
    # end of the stream, so the connection still counts as open.
    return Unavailable("the connection was lost")


def _sqlstate(error: asyncpg.PostgresError) -> str:
    """Return the code of an error; for an error of a node that has none, by its text."""
    sqlstate = error.sqlstate or _INTERNAL_ERROR
    if sqlstate != _INTERNAL_ERROR:
        return sqlstate
    codes = (code for text, code in _CODE_BY_TEXT.items() if str(error).startswith(text))
    return next(codes, sqlstate)


def _from_sqlstate(error: asyncpg.PostgresError) -> AsyncSvcError:
    sqlstate, message = _sqlstate(error), str(error.args[0]) if error.args else ""
    if sqlstate == _DATA_EXCEPTION:
        return DatabaseError(
            "a value cannot be encoded for its column: if the connection has a codec"
            " (set_type_codec) for this type, remove it or pass another connection",
            sqlstate,
        )
    if sqlstate in _CLASS_BY_SQLSTATE:
        quoted = _CONSTRAINT.search(message)
        constraint = error.constraint_name or (quoted[1] if quoted else "")
        text = _TEXT_BY_INDEX.get(_SHARD.sub("", constraint), message)
        return _CLASS_BY_SQLSTATE[sqlstate](text)
    if sqlstate.startswith(_UNAVAILABLE_CLASSES) or _is_node_lost(error):
        return Unavailable(message)
    if sqlstate in _SCHEMA_MISSING:
        return MigrationError(f"{message}: run `await svc.migrate()` first")
    if sqlstate in LOST_STATEMENT:
        message += ": a pooler keeps no prepared statements, see Settings.pgbouncer"
    return DatabaseError(message, sqlstate)
