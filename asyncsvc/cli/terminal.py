"""Consoles, safe text and tables for a terminal or a pipe.

Text from a database or a file is passed through `printable` first, because it may contain terminal
escapes, line breaks or markup.
"""

from __future__ import annotations

import functools
import json
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from rich import box
from rich.cells import cell_len
from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

T = TypeVar("T")

_MAX_WIDTH: Final = 140
_GAP: Final = 3
_MIN_SHARE: Final = 8
_INVISIBLE: Final = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
"""Unicode categories: controls, direction marks, line separators."""
_JOINERS: Final = "\u200c\u200d"
"""Joiners within words and emoji. They are invisible and harmless."""


@functools.cache
def console() -> Console:
    """Return the console on stdout, at most 140 cells wide."""
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


def printable_json(text: str) -> str:
    """Return JSON with escapes in place of control and direction characters.

    The value of the JSON stays the same: apart from line breaks, such characters occur only within
    its strings.
    """
    return "".join(
        _json_escape(char) if _is_invisible(char) and char != "\n" else char for char in text
    )


def _json_escape(char: str) -> str:
    return json.dumps(char)[1:-1] if char != "\x7f" else "\\u007f"


def _visible(text: str) -> str:
    """Replace each invisible character by a space."""
    return "".join(" " if _is_invisible(char) else char for char in text)


def _is_invisible(char: str) -> bool:
    return unicodedata.category(char) in _INVISIBLE and char not in _JOINERS


def say(text: str, style: str = "") -> None:
    """Print one line on stdout. It is never wrapped, so that it can be copied."""
    console().print(Text(_visible(text), style=style), soft_wrap=True)


def remark(text: str) -> None:
    """Print one line on stderr."""
    messages().print(Text(_visible(text)))


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A column of a table, with the text of its cell for an item.

    `right` aligns numbers. A column with a `share` gets this share of the remaining width, and
    its long cells are cut and end in an ellipsis. If the table is too wide, the columns with the
    highest `rank` are omitted first; a column of rank 0 is always shown.
    """

    title: str
    text_of: Callable[[T], str]
    right: bool = False
    share: int | None = None
    rank: int = 0


def table(columns: Sequence[Column[T]], items: Sequence[T]) -> Table:
    """Return a table with one line for each item."""
    cells = [[printable(column.text_of(item)) for item in items] for column in columns]
    widths = [
        _MIN_SHARE if column.share else max(map(cell_len, [column.title, *texts]))
        for column, texts in zip(columns, cells, strict=True)
    ]
    shown = list(range(len(columns)))
    while sum(widths[at] for at in shown) + _GAP * len(shown) - 1 > console().width:
        if not columns[last := max(shown, key=lambda at: columns[at].rank)].rank:
            break
        shown.remove(last)
    grid = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for at in shown:
        grid.add_column(
            columns[at].title,
            justify="right" if columns[at].right else "left",
            ratio=columns[at].share,
            min_width=widths[at],
            no_wrap=True,
            overflow="ellipsis",
        )
    grid.expand = any(column.share for column in columns)
    for row in zip(*(cells[at] for at in shown), strict=True):
        grid.add_row(*map(Text, row))
    return grid


def print_table(columns: Sequence[Column[T]], items: Sequence[T]) -> None:
    """Print a table. If its columns of rank 0 are wider than the console, so is the table."""
    console().print(table(columns, items), crop=False)


def table_in_blocks(columns: Sequence[Column[T]], items: Sequence[T]) -> Columns:
    """Split a long, narrow table into shorter tables side by side, as many as the width allows."""
    width = console().measure(table(columns, items)).maximum + _GAP
    blocks = max(1, (console().width + _GAP) // width)
    length = max(1, -(-len(items) // blocks))
    return side_by_side(
        [table(columns, items[at : at + length]) for at in range(0, len(items), length)]
    )


def side_by_side(parts: Sequence[Table | Text]) -> Columns:
    """Return tables or plots side by side, in as many rows as the width requires."""
    return Columns(parts, padding=(0, _GAP))
