"""Results of commands: JSON documents, lists of names and values, counts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import BaseModel
from rich.table import Table
from rich.text import Text

from asyncsvc.cli.terminal import Column, console, printable, table


def print_json(value: object) -> None:
    """Print one indented JSON document: models as their fields, times as ISO 8601."""
    print(json.dumps(value, default=_jsonable, ensure_ascii=False, indent=2))  # noqa: T201


def print_pairs(pairs: Mapping[str, str]) -> None:
    """Print one name and value a line; a long value continues below itself."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs.items():
        grid.add_row(name, Text(printable(value)))
    console().print(grid)


def print_page(
    noun: str, columns: Sequence[Column], rows: Sequence[Sequence[str]], after: str | None
) -> None:
    """Print one page of a list, and the option for the next page if there is one."""
    console().print(table(columns, rows) if rows else f"no {noun}")
    if after is not None:
        print_next_page(f"--after {after}")


def print_next_page(option: str) -> None:
    """Print the option that gets the next page."""
    console().print(Text(f"The next page: the same command with {option}"), soft_wrap=True)


def counted(count: int, noun: str) -> str:
    """Return a count and its noun, in the plural unless the count is 1."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _jsonable(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(type(value).__name__)
