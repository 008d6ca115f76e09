"""Results of migrations, the doctor and query plans."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from asyncsvc.models.base import Row


class Migration(Row):
    """A numbered migration: applied when `applied_at` is set, pending otherwise."""

    version: int
    name: str
    checksum: str
    applied_at: datetime | None = None


class Argument(Row):
    """A parameter of a statement: its type in PostgreSQL, and the value it was explained with.

    `is_given` tells what a caller chose from what was put in its place.
    """

    name: str
    type: str
    value: object
    is_given: bool


class Plan(Row):
    """What PostgreSQL would do for a statement, and with which values it was asked."""

    name: str
    text: str
    arguments: tuple[Argument, ...]
    lines: tuple[str, ...]


Level = Literal["ok", "note", "warning", "problem"]


class Finding(Row):
    """One result of `AsyncSvc.doctor`."""

    check: str
    """What was examined, for example "clock" or "indexes"."""
    level: Level
    """ "ok", or how urgent the advice is."""
    observed: str
    """What the check observed."""
    advice: str | None = None
    """What to do. None if the level is "ok"."""
