"""The limits and time-outs that a caller may change, in one frozen place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

from pydantic import AfterValidator, Field, SecretBytes, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from asyncsvc.errors import Unavailable
from asyncsvc.validation.limits import MAX_SECONDS, Limits, Seconds

_MIN_PEPPER_BYTES: Final = 32
_LONGEST_BOUND: Final = (2**31 - 1) // 1_000  # the server counts milliseconds in 32 bits

ServerSeconds = Annotated[float, Field(ge=0.001, le=_LONGEST_BOUND)]  # to the server 0 is no bound


def _check_pepper(pepper: SecretBytes) -> SecretBytes:
    if len(pepper) < _MIN_PEPPER_BYTES:
        raise PydanticCustomError("refused", f"must be at least {_MIN_PEPPER_BYTES} random bytes")
    return pepper


PepperVersion = Annotated[int, Field(ge=1, le=2**15 - 1)]
# Not strict, so that the settings can be read from JSON.
Peppers = dict[
    Annotated[PepperVersion, Field(strict=False)],
    Annotated[SecretBytes, Field(strict=False), AfterValidator(_check_pepper)],
]

QueryHook = Callable[[str, float, int, BaseException | None], None]
"""`on_query(name, seconds, rows, error)`, called after each statement, `name` as its file's."""
RetryHook = Callable[[str, int, float, Unavailable], None]
"""`on_retry(name, attempt, pause, error)`, called before each pause, in seconds; attempt counts."""


class Settings(Limits):
    """Limits, time-outs and formats. The defaults suit a web application.

    A hook must be quick and must not raise: it runs within the call that it watches.
    """

    acquire_timeout: Seconds = 5.0
    """Seconds to wait for a connection of the pool."""
    statement_timeout: Seconds = 30.0
    """Seconds to wait for a statement; twice as long where the network swallows everything, since
    the cancellation is waited for too."""
    lock_timeout: ServerSeconds = 10.0
    """Seconds to wait for a row that another transaction holds, in a pool of `connect`'s own. The
    pool of an application, and one behind a pooler, has what the server's role or database says."""
    idle_transaction_timeout: ServerSeconds = 60.0
    """Seconds until the server ends a transaction that does nothing, with its locks: its client may
    be gone. It holds where `lock_timeout` does."""
    retry_timeout: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    """Seconds in which a read, a `verify` or a keyed append whose connection was lost, or that lost
    a race, is begun again, after growing pauses; 0 never. Nothing within a transaction is."""
    replica_lag: Seconds = 5.0
    """Seconds by which a replica may be behind that answers lists, searches and statistics."""
    replica_timeout: Seconds = 1.0
    """Seconds to wait for a connection to a replica, and for what it says of how far it is; then
    the primary is asked."""
    key_lifetime: Annotated[Seconds, Field(le=MAX_SECONDS)] = 7 * 86_400.0
    """Seconds for which an idempotency key is remembered at least, until `maintain` forgets it."""
    pgbouncer: bool = False
    """Whether `connect` speaks to PgBouncer, or its like, that pools transactions: the pool then
    keeps no prepared statements and gives the server no parameters at its start. An application
    that lends a pool opens it with `statement_cache_size=0` itself."""
    row_level_security: bool = False
    """Whether each call tells the server its tenant, for a role that row-level security restricts;
    `migrate` then turns that on. See docs/guarantees.md, also for what it costs."""
    token_prefix: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{1,9}$")] = "asv"  # noqa: S105 - public
    """The prefix of new API tokens. An underscore follows it."""
    last_used_resolution: (
        Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)] | None
    ) = 60.0
    """Seconds between two stamps of a token's `last_used_at`. 0: each use is stamped. None: no use
    is stamped."""
    token_peppers: Annotated[Peppers, Field(max_length=3)] = Field({})
    """Keys of the HMAC that hashes the secrets of tokens, by version: up to 3, each at least 32
    random bytes. Keep them outside the database, so that write access to it does not suffice to add
    a working token. All peppers of stored hashes must be here: without its pepper a token is
    invalid."""
    token_pepper_version: PepperVersion | None = None
    """The version that hashes secrets from now on. None: the highest. A token is rehashed with it
    at its next use. Add a new pepper to all processes before one of them hashes with it."""
    accept_unpeppered_tokens: bool = False
    """Whether tokens that were hashed without a pepper stay valid although there are peppers. Turn
    it off once they are rehashed: write access to the database suffices to add such a token."""
    accept_foreign_tokens: bool = False
    """Whether secrets of another system's format, such as imported ones, are valid. Then each
    presented secret of 1 to 255 visible ASCII characters costs a query."""
    on_query: QueryHook | None = None
    """Watches every statement of a SQL file; not BEGIN, COMMIT or a migration's commands."""
    on_retry: RetryHook | None = None
    """Watches what is tried again. The logger `asyncsvc` says it too, as a warning."""

    @field_validator("token_pepper_version")
    @classmethod
    def _check_pepper_version(cls, version: int | None, info: ValidationInfo) -> int | None:
        if version is not None and version not in info.data.get("token_peppers", ()):
            raise PydanticCustomError("refused", "is not a version of token_peppers")
        return version
