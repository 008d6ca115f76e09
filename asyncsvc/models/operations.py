"""Results of migrations, the doctor and query plans."""

from __future__ import annotations

from typing import Literal

from asyncsvc.models.base import Model
from asyncsvc.models.columns import Timestamp


class Migration(Model):
    """A numbered migration: applied when `applied_at` is set, pending otherwise."""

    version: int
    """The number of the file, from 1."""
    name: str
    """The name of the file without number and suffix."""
    checksum: str
    """The SHA-256 of its commands, as hex digits."""
    applied_at: Timestamp | None = None
    """When it was applied. None: it is pending."""


MigrationKind = Literal["transaction", "concurrent", "backfill"]
Waiting = Literal["none", "writes", "reads and writes"]


class TableLock(Model):
    """A lock that a migration takes on a table that exists already."""

    table: str
    """The table, without its schema."""
    mode: str
    """PostgreSQL's name of the mode, such as "ACCESS EXCLUSIVE"."""
    waiting: Waiting
    """The statements of the application that wait while the migration holds the lock."""


class MigrationStep(Model):
    """A pending migration: its locks, and an estimate of its duration on this store.

    A migration may be interrupted at any time, and `migrate` then continues. The kind
    determines the point of continuation.
    """

    version: int
    """The number of the file, from 1."""
    name: str
    """The name of the file without number and suffix."""
    kind: MigrationKind
    """ "transaction": short statements; an interruption leaves nothing applied. "concurrent": an
    index or a validation that reads a table beside reads and writes; it is repeated from its start.
    "backfill": changes rows in short transactions, and continues after the last one."""
    locks: tuple[TableLock, ...]
    """The locks on existing tables. A step of the kind "transaction" waits at most 0.1 s for a lock
    in each attempt, and holds it for a few milliseconds."""
    rows: int
    """The rows of the tables, by the server's statistics."""
    rows_done: int
    """The rows that an interrupted backfill has changed."""
    bytes: int
    """The size of the tables with their indexes."""
    seconds: float
    """The estimated duration, from a measured rate. A slow disk or a busy server takes longer."""
    oldest_release: str | None
    """The oldest release of the library that can run after the step; None: the previous one."""


class MigrationProgress(Model):
    """The progress of a backfill after a batch."""

    version: int
    """The number of the file."""
    name: str
    """The name of the file without number and suffix."""
    rows: int
    """The rows that it has changed, also before an interruption."""


class SQLStatement(Model):
    """A statement of `sql/` in one variant, as the server receives it."""

    name: str
    """The folder and the name of the file, such as "conversation/get_list"."""
    header: str
    """The comment at the start of the file."""
    text: str
    """The statement, with `$1`, `$2`, ... for its parameters."""
    parameters: tuple[str, ...]
    """The names of `$1`, `$2`, ..., in order."""
    optional: tuple[str, ...]
    """The names that select a variant: optional parameters, flags and orders."""


class Plan(Model):
    """PostgreSQL's plan for a statement, with the value of each parameter as a literal."""

    name: str
    """The folder and the name of the file, such as "conversation/get_list"."""
    text: str
    """The statement in the variant that was planned."""
    values: dict[str, str | None]
    """The value of each parameter, as a literal of PostgreSQL."""
    lines: tuple[str, ...]
    """The lines of EXPLAIN."""


class PoolStats(Model):
    """The connections of a pool at one moment."""

    name: str
    """ "primary", "replica 1", "replica 2" and so on in the order of the replicas, or "maintenance"
    for the pool that `connect` opens for maintenance in the background."""
    size: int
    """The number of open connections."""
    idle: int
    """The number of open connections that no call uses."""
    max_size: int
    """The maximum number of open connections."""


Level = Literal["ok", "note", "warning", "problem"]


class Finding(Model):
    """One result of `AsyncSvc.doctor`."""

    check: str
    """The subject of the check, for example "clock" or "indexes"."""
    level: Level
    """ "ok", or the urgency of the advice."""
    observed: str
    """The observation of the check."""
    advice: str | None = None
    """The advice. None if the level is "ok"."""
