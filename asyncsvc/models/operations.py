"""Results of migrations, the doctor and query plans."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from asyncsvc.models.base import Model


class Migration(Model):
    """A numbered migration: applied when `applied_at` is set, pending otherwise."""

    version: int
    name: str
    checksum: str
    applied_at: datetime | None = None


class SQLStatement(Model):
    """A statement of `sql/` in one variant, as the server receives it.

    `parameters` are `$1`, `$2`, ... in order. `optional` are the names of all variants: optional
    parameters, flags and orders.
    """

    name: str
    header: str
    text: str
    parameters: tuple[str, ...]
    optional: tuple[str, ...]


class Plan(Model):
    """PostgreSQL's plan for a statement, with the value of each parameter as a literal."""

    name: str
    text: str
    values: dict[str, str | None]
    lines: tuple[str, ...]


Level = Literal["ok", "note", "warning", "problem"]


class Finding(Model):
    """One result of `AsyncSvc.doctor`."""

    check: str
    """What was examined, for example "clock" or "indexes"."""
    level: Level
    """ "ok", or how urgent the advice is."""
    observed: str
    """What the check observed."""
    advice: str | None = None
    """What to do. None if the level is "ok"."""
