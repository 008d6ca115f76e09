"""Consoles, safe text and tables for a terminal or a pipe.

Text from a database or a file is passed through `printable` first, because it may contain terminal
escapes, line breaks or markup.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

_MAX_WIDTH: Final = 112
_GAP: Final = 3
_INVISIBLE: Final = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
"""Unicode categories: controls, direction marks, line separators."""
_JOINERS: Final = "\u200c\u200d"
"""Joiners within words and emoji. They are invisible and harmless."""


@functools.cache
def console() -> Console:
    """Return the console on stdout, at most 112 cells wide."""
    stdout = Console(highlight=False)
    stdout.width = min(stdout.width, _MAX_WIDTH)
    return stdout


@functools.cache
def messages() -> Console:
    """Return the console on stderr, so that stdout holds only the result."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def printable(text: str) -> str:
    """Return the text on one line, without control characters."""
    return " ".join(_visible(text).split())


def printable_lines(text: str) -> Text:
    """Return the text with its lines and indentation, without other control characters."""
    lines = text.expandtabs(4).replace("\r\n", "\n").split("\n")
    return Text("\n".join(_visible(line).rstrip() for line in lines))


def _visible(text: str) -> str:
    """Replace each invisible character by a space."""
    return "".join(
        " " if unicodedata.category(char) in _INVISIBLE and char not in _JOINERS else char
        for char in text
    )


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    `right` aligns numbers. `share` is the column's part of the width that the other columns leave.
    The column is omitted if the console is narrower than `min_width`.
    """

    title: str
    right: bool = False
    share: int | None = None
    min_width: int = 0


def table(columns: Sequence[Column], rows: Iterable[Sequence[str | Text]]) -> Table:
    """Return a table with one line for each row; a long cell ends in an ellipsis."""
    grid = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    shown = [at for at, column in enumerate(columns) if column.min_width <= console().width]
    for column in (columns[at] for at in shown):
        grid.add_column(
            column.title,
            justify="right" if column.right else "left",
            ratio=column.share,
            no_wrap=True,
            overflow="ellipsis",
        )
    grid.expand = any(column.share for column in columns)
    for row in rows:
        cells = (row[at] for at in shown)
        grid.add_row(*(Text(printable(cell)) if isinstance(cell, str) else cell for cell in cells))
    return grid


def table_in_blocks(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Columns:
    """Return a long, narrow table as shorter tables side by side, as the width allows."""
    width = console().measure(table(columns, rows)).maximum + _GAP
    blocks = max(1, (console().width + _GAP) // width)
    length = max(1, -(-len(rows) // blocks))
    return side_by_side(
        [table(columns, rows[at : at + length]) for at in range(0, len(rows), length)]
    )


def side_by_side(parts: Sequence[Table | Text]) -> Columns:
    """Return tables or plots side by side, in as many rows as the width requires."""
    return Columns(parts, padding=(0, _GAP))
