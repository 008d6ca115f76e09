"""Tables and plots for a terminal, which stay readable in a pipe.

Whatever comes from a database or a file goes through `plain` first: text of strangers must not
steer the terminal, break a line, or be taken for markup.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

_WIDEST = 112
_UNSEEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}  # controls, direction marks, line separators
_JOINERS = "\u200c\u200d"  # parts of words and of emoji, which steer nothing
_PANEL_ROWS = 9
_LEAST_PLOT = 30
_GAP = 3


@functools.cache
def console() -> Console:
    """Return the console on stdout: as wide as the terminal, though never too wide to read."""
    made = Console(highlight=False)
    made.width = min(made.width, _WIDEST)
    return made


def plain(text: str) -> str:
    """Return the text on one line, without what a terminal would obey instead of showing."""
    return " ".join(_seen(text).split())


def as_written(text: str) -> Text:
    """Return a text with its lines and indentation, without what a terminal would obey."""
    lines = text.expandtabs(4).replace("\r\n", "\n").split("\n")
    return Text("\n".join(_seen(line).rstrip() for line in lines))


def around(text: str, word: str, *, before: int = 24) -> Text:
    """Return the text from shortly before the word on, with the word highlighted."""
    text = plain(text)
    start = max(text.lower().find(word.lower()), 0)
    begin = start
    while begin and cell_len(text[begin - 1 : start]) <= before:
        begin -= 1
    snippet = Text(("…" if begin else "") + text[begin:])
    snippet.highlight_words([word], "bold yellow", case_sensitive=False)
    return snippet


def _seen(text: str) -> str:
    """Return the text with a space for each character that shows nothing."""
    return "".join(
        " " if unicodedata.category(char) in _UNSEEN and char not in _JOINERS else char
        for char in text
    )


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    `right` is for numbers; `share` is the part it gets of the room that the others leave. It is
    left out where the console is narrower than `least_width`.
    """

    title: str
    right: bool = False
    share: int | None = None
    least_width: int = 0


def table(columns: Sequence[Column], rows: Iterable[Sequence[str | Text]]) -> Table:
    """Return a table of one line a row; what does not fit ends in an ellipsis."""
    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    shown = [at for at, column in enumerate(columns) if column.least_width <= console().width]
    for column in (columns[at] for at in shown):
        made.add_column(
            column.title,
            justify="right" if column.right else "left",
            ratio=column.share,
            no_wrap=True,
            overflow="ellipsis",
        )
    made.expand = any(column.share for column in columns)
    for row in rows:
        cells = (row[at] for at in shown)
        made.add_row(*(Text(plain(cell)) if isinstance(cell, str) else cell for cell in cells))
    return made


def in_blocks(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Table:
    """Return a long, narrow table as some shorter ones beside each other, as the width allows."""
    width = console().measure(table(columns, rows)).maximum + _GAP
    blocks = max(1, (console().width + _GAP) // width)
    length = max(1, -(-len(rows) // blocks))
    return beside([table(columns, rows[at : at + length]) for at in range(0, len(rows), length)])


def beside(parts: Sequence[Table | Text]) -> Table:
    """Put tables or plots beside each other."""
    grid = Table.grid(padding=(0, _GAP, 0, 0))
    grid.add_row(*parts)
    return grid


def in_rows(plots: Sequence[Text]) -> Group:
    """Put plots beside each other, as many as the width allows, in as many rows as that takes."""
    rows, room = list[list[Text]](), 0
    for plot in plots:
        width = console().measure(plot).maximum + _GAP
        if not rows or width > room + _GAP:
            rows.append([])
            room = console().width
        rows[-1].append(plot)
        room -= width
    return Group(*(beside(row) for row in rows))


def bars(title: str, labels: Sequence[str], values: Sequence[int], *, style: str) -> Text:
    """Return a plot with a bar for each value; first, middle and last are labelled.

    Where there are more values than cells, a bar is the highest of some that follow each other.
    """
    import plotext  # noqa: PLC0415 - takes a third of a second, which `--help` need not wait

    top = max(1, *values)
    room = console().width - len(f"{top:,}") - 2
    together = -(-len(values) // room)
    if together > 1:
        title = f"{title}, highest of {together}"
        values = [max(values[at : at + together]) for at in range(0, len(values), together)]
        labels = labels[::together]
    # A whole number of cells for each bar, or else their widths would differ.
    count = len(values)
    cells = max(1, min(room, max(_LEAST_PLOT, len(title))) // count)
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    plotext.terminal.limit(False, False)  # noqa: FBT003 - positional there
    figure.plot_size(count * cells + len(f"{top:,}") + 2, _PANEL_ROWS)
    figure.title(title)
    places = list(range(1, count + 1))
    figure.draw(figure.bar(places, list(values), marker="hd", width=0.9))
    marked = sorted({1, (count + 1) // 2, count})
    across = figure.ruler("x").lim(0.5, count + 0.5).alignment(lim="edge")
    across.ticks(marked, [labels[place - 1] for place in marked])
    figure.ruler("y").lim(0, top).alignment(lim="edge").ticks([0, top], ["0", f"{top:,}"])
    plot = Text(plotext.uncolorize(str(figure.build())), no_wrap=True)
    plot.highlight_regex(r"[▀-▟]+", style)
    return plot
