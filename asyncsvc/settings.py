"""The settings of the services: one frozen model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, SecretBytes, ValidationInfo, field_validator

from asyncsvc.errors import Unavailable
from asyncsvc.models.budgets import BudgetAlert
from asyncsvc.models.reports import MaintenanceReport
from asyncsvc.validation.inputs import invalid_value
from asyncsvc.validation.limits import MAX_SECONDS, Limits, Seconds

_MIN_PEPPER_BYTES: Final = 32
_MAX_SERVER_SECONDS: Final = (2**31 - 1) // 1_000  # PostgreSQL counts milliseconds in 32 bits

ServerSeconds = Annotated[float, Field(ge=0.001, le=_MAX_SERVER_SECONDS)]  # 0 disables the timeout


def _check_pepper(pepper: SecretBytes) -> SecretBytes:
    if len(pepper) < _MIN_PEPPER_BYTES:
        raise invalid_value(f"must be at least {_MIN_PEPPER_BYTES} random bytes")
    return pepper


PepperVersion = Annotated[int, Field(ge=1, le=2**15 - 1)]
# Not strict, so that the settings can be parsed from JSON.
Peppers = dict[
    Annotated[PepperVersion, Field(strict=False)],
    Annotated[SecretBytes, Field(strict=False), AfterValidator(_check_pepper)],
]

QueryHook = Callable[[str, float, int, BaseException | None], None]
"""`on_query(name, seconds, rows, error)`, called after each statement. `name` is its SQL file."""
AcquireHook = Callable[[str, float, BaseException | None], None]
"""`on_acquire(pool, seconds, error)`, called after each wait for a connection of a pool. `pool` is
its name in `AsyncSvc.pool_stats`."""
RetryHook = Callable[[str, int, float, Unavailable], None]
"""`on_retry(name, attempt, pause, error)`, called before each pause of `pause` seconds. The first
`attempt` is 1."""
MaintenanceHook = Callable[[MaintenanceReport, float, BaseException | None], None]
"""`on_maintenance(report, seconds, error)`, called after each run in the background that had work
or failed. `report` is the work done, also before an `error`."""

BudgetHook = Callable[[BudgetAlert], None]
"""`on_budget(alert)`, called once when the usage of a budget first crosses 50, 80 or 100 % of its
limit in a window."""


class Settings(Limits):
    """Limits, timeouts, token formats and hooks. The defaults suit a web application.

    A hook must be fast and must not raise: it runs inside the call that it observes. Errors of
    `on_maintenance` and `on_budget` are logged.
    """

    acquire_timeout: Seconds = 5.0
    """Seconds to wait for a connection of the pool, then PoolExhausted."""
    statement_timeout: Seconds = 30.0
    """Seconds to wait for one statement, then StatementTimeout. The call ends after at most twice
    this time if the network drops all packets, since it also waits for the cancellation."""
    lock_timeout: ServerSeconds = 10.0
    """Seconds to wait for a row that another transaction has locked, then LockTimeout. Applies to
    the pool that `connect` opens. For a pool of the caller or behind a pooler, set `lock_timeout`
    of the role or the database on the server."""
    idle_transaction_timeout: ServerSeconds = 60.0
    """Seconds after which the server ends an idle transaction and releases its locks, in case its
    client has failed. Applies where `lock_timeout` does."""
    retry_timeout: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    """Seconds from the first failure in which reads, `verify` and appends with an idempotency key
    are retried, if the connection was lost or the transaction lost a race. The pauses grow. 0: no
    retries. A statement inside a transaction is never retried."""
    replica_lag: Seconds = 5.0
    """Maximum age in seconds of the data of a replica that runs lists, searches and statistics."""
    replica_timeout: Seconds = 1.0
    """Seconds to wait for a connection to a replica, and for its position. Then the primary runs
    the read."""
    key_lifetime: Annotated[Seconds, Field(le=MAX_SECONDS)] = 7 * 86_400.0
    """Minimum seconds for which an idempotency key is kept. `maintain` deletes older keys."""
    usage_retention: Annotated[Seconds, Field(le=MAX_SECONDS)] = 400 * 86_400.0
    """Seconds for which usage names persons. `maintain` then replaces them in the sums of whole UTC
    months. All other dimensions of usage stay until the tenant is deleted."""
    maintenance_interval: Annotated[Seconds, Field(le=86_400)] | None = 60.0
    """Seconds between two runs of maintenance in the background, on average. None: no runs. Only
    `connect` starts them, if the role owns the tables and row-level security does not restrict it.
    Of all processes on a database one works at a time, on 1 connection beside its pool, which is
    closed after the run. A run without work is 1 short statement. See
    docs/guides/operating.md#maintenance."""
    watch_interval: Annotated[Seconds, Field(le=86_400)] = 5.0
    """Seconds between two reads of `conversations.watch` without a notification. Notifications do
    not pass a pooler of transactions, so this is the delay behind one. See
    docs/guides/watching.md."""
    pgbouncer: Literal["transaction", "prepared"] | None = None
    """The pooler that `connect` connects to; None: no pooler. Behind a pooler the pool sends no
    session parameters. "transaction": PgBouncer or another pooler of transactions; no statement is
    prepared. "prepared": PgBouncer 1.21 or newer in transaction mode, with
    `max_prepared_statements` above 0; statements stay prepared. For "transaction" open a pool of
    your own with `statement_cache_size=0`. See docs/guides/pgbouncer.md."""
    allow_clear_text_password: bool = False
    """Whether `connect` and an import from RAGFlow send a password in clear text to a server that
    asks for it, although TLS does not verify the server. A listener on the network, or a false
    server, then learns the password."""
    row_level_security: bool = False
    """Whether each call sends its tenant to the server, for a role that row-level security
    restricts. `migrate` then enables row-level security. It adds up to 3 round trips to each call,
    see docs/guides/row-level-security.md."""
    citus: bool = False
    """Whether the tables are distributed by Citus, which the database must have. A write with
    several parts then runs whole on the node of its tenant, see docs/guides/citus.md. `verify`
    looks the tenant up in a statement of its own, on the coordinator, and reads the token on the
    node of its tenant. `connect` turns JIT off in its sessions."""
    token_prefix: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{1,9}$")] = "asv"  # noqa: S105 - public
    """The prefix of new API tokens. An underscore follows it."""
    last_used_resolution: (
        Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)] | None
    ) = 60.0
    """Minimum seconds between two updates of a token's `last_used_at`. 0: each use is recorded.
    None: no use is recorded."""
    rotation_overlap: Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)] = 86_400.0
    """Seconds for which a rotated token stays valid beside its successor, if the call passes no
    `overlap`. `max_rotation_overlap` limits it."""
    token_peppers: Annotated[Peppers, Field(max_length=3)] = Field(default_factory=dict)
    """Keys of the HMAC that hashes the secrets of tokens, by version: up to 3, each at least 32
    random bytes. Keep them outside the database, so that write access to it does not suffice to add
    a working token. All peppers of stored hashes must be here: without its pepper a token is
    invalid."""
    token_pepper_version: PepperVersion | None = None
    """The version of the pepper that hashes secrets. None: the highest version. A token is rehashed
    with it at its next use. Add a new pepper to all processes before one of them hashes with it."""
    accept_unpeppered_tokens: bool = False
    """Whether tokens that were hashed without a pepper stay valid although there are peppers. Turn
    it off when they are rehashed: write access to the database suffices to add such a token."""
    accept_foreign_tokens: bool = False
    """Whether secrets of another system's format, such as imported ones, are valid. Then each
    presented secret of 1 to 255 visible ASCII characters costs a query."""
    on_query: QueryHook | None = None
    """Called after every statement of an SQL file, not after BEGIN, COMMIT or the commands of a
    migration."""
    on_acquire: AcquireHook | None = None
    """Called after every wait for a connection of a pool, with the error if none became free. The
    wait includes the opening of a new connection."""
    on_retry: RetryHook | None = None
    """Called before every retry. The logger `asyncsvc` also logs it as a warning."""
    on_maintenance: MaintenanceHook | None = None
    """Called after each run of maintenance in the background that had work or failed. The logger
    `asyncsvc.operations.background` also logs it: at INFO, and the first failure of each kind as a
    warning."""

    on_budget: BudgetHook | None = None
    """Called when the usage of a budget first crosses 50, 80 or 100 % of its limit in a window.
    Maintenance finds that after a roll-up, so about 1 minute later, and a refused `verify` or
    `check` at once. The process that records the crossing in the audit calls it. If the process is
    killed in between, the entry stays and the call is lost."""

    @field_validator("token_pepper_version")
    @classmethod
    def _check_pepper_version(cls, version: int | None, info: ValidationInfo) -> int | None:
        if version is not None and version not in info.data.get("token_peppers", ()):
            raise invalid_value("is not a version of token_peppers")
        return version
