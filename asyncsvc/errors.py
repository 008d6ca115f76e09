"""Every error that asyncsvc raises, as one tree.

::

    AsyncSvcError
    ├── InvalidInput            a parameter is refused before any SQL; `.field` names it
    ├── NotFound                no such row for this tenant
    ├── AlreadyExists           the id is taken in this tenant
    ├── Conflict                the present state of the row does not allow it
    │   ├── IdempotencyConflict     the key was used for another turn
    │   └── StaleSequence           `expected_seq` is not the last one any more
    ├── InvalidToken            unknown, malformed, expired or revoked: never says which
    ├── InsufficientScope       the token is good and lacks a scope
    ├── ConcurrentUse           two tasks used one connection or transaction at once
    ├── Unavailable             the database did not answer; the same call may succeed later
    │   ├── PoolExhausted           no connection came free in time
    │   ├── PoolClosed              the pool is closed, or was never opened
    │   ├── StatementTimeout        the statement took too long and was cancelled
    │   ├── LockTimeout             somebody else held a row for too long
    │   └── EmbeddedServerError     the embedded server did not start or stop
    ├── DatabaseError           the server refused the statement; `.sqlstate` says why
    └── MigrationError          the schema is behind, or a migration was changed
"""

from __future__ import annotations


class AsyncSvcError(Exception):
    """The root: `except AsyncSvcError` catches whatever this library raises."""


class InvalidInput(AsyncSvcError):
    """A parameter is refused before any SQL runs.

    `field` is the parameter's name, or the path into it (`turn.messages.0.content`). The refused
    value itself is never part of the error.
    """

    def __init__(self, field: str, reason: str) -> None:
        """Name the field and say what it must be."""
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason

    def __reduce__(self) -> tuple[type[InvalidInput], tuple[str, str]]:
        """Pickle by the two arguments, not by the joined text."""
        return type(self), (self.field, self.reason)


class NotFound(AsyncSvcError):
    """The tenant has no such row; another tenant's row looks the same."""


class AlreadyExists(AsyncSvcError):
    """The tenant has a row of this id already."""


class Conflict(AsyncSvcError):
    """The write does not fit the present state of the conversation or token."""


class IdempotencyConflict(Conflict):
    """The idempotency key belongs to an earlier append of another turn."""


class StaleSequence(Conflict):
    """`expected_seq` is not the conversation's `last_seq`: somebody else appended."""


class InvalidToken(AsyncSvcError):
    """The token is not accepted: unknown, malformed, expired, revoked or of another kind."""

    def __init__(self) -> None:
        """Take no argument, so that nothing about the token can leak."""
        super().__init__("the token is not valid")

    def __reduce__(self) -> tuple[type[InvalidToken], tuple[()]]:
        """Pickle without the text, which is always the same."""
        return type(self), ()


class InsufficientScope(AsyncSvcError):
    """The token is valid and lacks a scope that was asked for."""


class ConcurrentUse(AsyncSvcError):
    """A connection or transaction was used by two tasks at once; give each task its own."""


class Unavailable(AsyncSvcError):
    """The database cannot be reached or gave up; the call may succeed when it is made again.

    Reads, `verify` and keyed appends were tried again for `Settings.retry_timeout` by then. Another
    write that ended so may have happened all the same: an append is repeated with its key.
    """


class PoolExhausted(Unavailable):
    """No connection of the pool came free, or could be opened, in `Settings.acquire_timeout`."""


class PoolClosed(Unavailable):
    """The pool is closed, as after the block of `connect`, or was never opened."""


class StatementTimeout(Unavailable):
    """The statement took longer than `Settings.statement_timeout`, or the server cancelled it."""


class LockTimeout(Unavailable):
    """Somebody else held a row for longer than `Settings.lock_timeout`; nothing was done."""


class EmbeddedServerError(Unavailable):
    """The embedded PostgreSQL could not be found, started or stopped."""


class DatabaseError(AsyncSvcError):
    """The server refused a statement for a reason that no other error here names."""

    def __init__(self, message: str, sqlstate: str | None = None) -> None:
        """Keep the SQLSTATE, so that a caller can ask for it."""
        super().__init__(message)
        self.sqlstate = sqlstate


class MigrationError(AsyncSvcError):
    """The schema is behind this version of the library, or an applied migration was changed."""
