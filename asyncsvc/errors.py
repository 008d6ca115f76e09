"""The errors of asyncsvc.

```text
AsyncSvcError
├── InvalidInput            a parameter was rejected before any SQL; `.field` names it
├── NotFound                the tenant has no such row; `.resource` names its kind
├── AlreadyExists           the tenant already has a row with this id
├── Conflict                the state of the row does not allow the write
│   ├── IdempotencyConflict     the key was used for another turn
│   └── StaleSequence           `expected_seq` is not the present `last_seq`
├── InvalidToken            the token is unknown, malformed, expired or revoked
├── InsufficientScope       the token is valid and lacks a scope
├── BudgetExceeded          a budget is spent; its attributes name the budget
├── ConcurrentUse           2 tasks used one connection, or 2 event loops used one pool
├── Unavailable             the database did not answer; a later call may succeed
│   ├── PoolExhausted           no connection became free in time
│   ├── PoolClosed              the pool is closed or was never opened
│   ├── StatementTimeout        the statement took too long and was cancelled
│   ├── LockTimeout             another transaction held a row for too long
│   └── EmbeddedServerError     the embedded server did not start or stop
├── DatabaseError           the server rejected the statement; `.sqlstate` has the reason
└── MigrationError          the schema is not up to date, or a migration was changed
```
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from datetime import datetime

Resource: TypeAlias = Literal["conversation", "message", "token", "record", "budget"]
"""The kinds of rows that a method looks up."""


class AsyncSvcError(Exception):
    """The base of all errors of this library."""


class InvalidInput(AsyncSvcError):
    """A parameter was rejected before any SQL ran.

    Attributes:
        field: The name of the parameter, or the path to a part of it, such as
            `turn.messages.0.content`.
        reason: The rule that the value breaks. It never quotes the value.
    """

    def __init__(self, field: str, reason: str) -> None:
        """Take the name of the field and the rule that its value breaks."""
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason

    def __reduce__(self) -> tuple[type[InvalidInput], tuple[str, str]]:
        """Pickle both arguments instead of the joined text."""
        return type(self), (self.field, self.reason)


class NotFound(AsyncSvcError):
    """The tenant has no such row. The error is the same if another tenant has one.

    Attributes:
        resource: The kind of the missing row: "conversation", "message", "token", "record" or
            "budget". "message" also if the conversation of the message is missing.
    """

    def __init__(self, resource: Resource) -> None:
        """Take the kind of the missing row."""
        super().__init__(f"no such {resource}")
        self.resource: Resource = resource

    def __reduce__(self) -> tuple[type[NotFound], tuple[Resource]]:
        """Pickle the kind instead of the text."""
        return type(self), (self.resource,)


class AlreadyExists(AsyncSvcError):
    """The tenant already has a row with this id."""


class Conflict(AsyncSvcError):
    """The state of the conversation or token does not allow the write."""


class IdempotencyConflict(Conflict):
    """The idempotency key belongs to an earlier append of another turn."""


class StaleSequence(Conflict):
    """`expected_seq` is not the conversation's `last_seq`: another append came first."""


class InvalidToken(AsyncSvcError):
    """The token is unknown, malformed, expired, revoked or of another kind.

    The error is the same in all cases, so it reveals nothing about the token.
    """

    def __init__(self) -> None:
        """Take no argument."""
        super().__init__("the token is not valid")

    def __reduce__(self) -> tuple[type[InvalidToken], tuple[()]]:
        """Pickle without the text, which is constant."""
        return type(self), ()


class InsufficientScope(AsyncSvcError):
    """The token is valid and lacks a required scope."""


class BudgetExceeded(AsyncSvcError):
    """A budget is spent: its usage has reached its limit. Of several it is the tightest one.

    Attributes:
        budget_id: The id of the budget.
        scope: "tenant", "token", "user" or "dialog".
        subject: The user, the dialog, or the first token of the rotated ones. None for a tenant.
        metric: "cost", "tokens", "uncached_tokens" or "rounds".
        used: The usage in the present window, a Decimal for a cost.
        limit: The limit.
        window: "hour", "day", "week", "month" or "total".
        resets_at: The end of the present window. None for "total".
    """

    def __init__(
        self,
        budget_id: str,
        scope: str,
        subject: str | None,
        metric: str,
        used: Decimal | int,
        limit: Decimal | int,
        window: str,
        resets_at: datetime | None,
    ) -> None:
        """Take the budget and its usage."""
        amounts = f"{Decimal(used):f} of {Decimal(limit):f}"
        super().__init__(f"a budget of the {scope} is spent: {metric} {amounts}")
        self.budget_id = budget_id
        self.scope = scope
        self.subject = subject
        self.metric = metric
        self.used = used
        self.limit = limit
        self.window = window
        self.resets_at = resets_at

    def __reduce__(self) -> tuple[type[BudgetExceeded], tuple[object, ...]]:
        """Pickle the attributes instead of the text, in the order of the arguments."""
        return type(self), tuple(vars(self).values())


class ConcurrentUse(AsyncSvcError):
    """2 tasks used one connection or transaction, or 2 event loops used one pool.

    The statement did not run. Give each task a connection and each event loop a pool of its own.
    """


class Unavailable(AsyncSvcError):
    """The database could not be reached or did not finish the call. A later call may succeed.

    Reads, `verify` and appends with an idempotency key were retried for `Settings.retry_timeout`.
    The outcome of any other write is unknown. An append with an idempotency key can be repeated
    safely.
    """


class PoolExhausted(Unavailable):
    """No connection became free or could be opened within `Settings.acquire_timeout`.

    The statement did not run.
    """


class PoolClosed(Unavailable):
    """The pool is closed, for example after the block of `connect`, or was never opened."""


class StatementTimeout(Unavailable):
    """The statement exceeded `Settings.statement_timeout`, or the server cancelled it."""


class LockTimeout(Unavailable):
    """Another transaction held a row for longer than `Settings.lock_timeout`.

    The statement did nothing.
    """


class EmbeddedServerError(Unavailable):
    """The embedded PostgreSQL was not found, or did not start or stop."""


class DatabaseError(AsyncSvcError):
    """The server rejected a statement for a reason that no other error describes.

    Attributes:
        sqlstate: The SQLSTATE of the server, such as "42501" (insufficient_privilege). If this
            library detects the failure, the SQLSTATE of PostgreSQL for the same condition: "22000"
            for a value that cannot be encoded, "25P02" for a transaction that is rolled back
            because a statement in it failed, "42501" for maintenance under row-level security,
            "42804" for a column that a codec of the connection decodes to another type. "XX000" if
            the server sent none.
    """

    def __init__(self, message: str, sqlstate: str) -> None:
        """Take the message and the SQLSTATE."""
        super().__init__(message)
        self.sqlstate = sqlstate

    def __reduce__(self) -> tuple[type[DatabaseError], tuple[str, str]]:
        """Pickle both arguments."""
        return type(self), (str(self), self.sqlstate)


class MigrationError(AsyncSvcError):
    """The schema is not up to date with this version, or an applied migration was changed."""
