"""What commands print that is no drawing: JSON for a pipe, and rows of name and value."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo

from pydantic import BaseModel
from rich.table import Table
from rich.text import Text

from asyncsvc.cli.drawing import console, plain


def print_json(value: object) -> None:
    """Print one JSON document, indented; models as their fields, times as ISO 8601."""
    print(json.dumps(value, default=_jsonable, ensure_ascii=False, indent=2))  # noqa: T201


def print_pairs(pairs: Mapping[str, str | Text]) -> None:
    """Print a name and a value a line; a long value goes on below itself."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs.items():
        grid.add_row(name, Text(plain(value)) if isinstance(value, str) else value)
    console().print(grid)


def many(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural where it has to be."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def when(moment: datetime | None, local: tzinfo) -> str:
    """Return a moment in a zone, to the minute; a dash where there is none."""
    return "-" if moment is None else f"{moment.astimezone(local):%Y-%m-%d %H:%M}"


def _jsonable(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(type(value).__name__)
