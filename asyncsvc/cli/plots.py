"""Bar plots of plain text, for a terminal or a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.text import Text

from asyncsvc.cli.terminal import console

_ROWS: Final = 9
_MIN_WIDTH: Final = 30


def bar_plot(title: str, labels: Sequence[str], values: Sequence[int], *, style: str) -> Text:
    """Return a plot with a bar for each value, and labels at the first, middle and last bar.

    If there are more values than cells, a bar shows the maximum of several successive values.
    """
    import plotext  # noqa: PLC0415 - the import takes 0.3 s, and `--help` does not need it

    top = max(1, *values)
    max_bars = console().width - len(f"{top:,}") - 2
    group = -(-len(values) // max_bars)
    if group > 1:
        title = f"{title}, highest of {group}"
        values = [max(values[at : at + group]) for at in range(0, len(values), group)]
        labels = labels[::group]
    # A bar takes a whole number of cells, so that all bars have the same width.
    count = len(values)
    cells = max(1, min(max_bars, max(_MIN_WIDTH, len(title))) // count)
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    plotext.terminal.limit(False, False)  # noqa: FBT003 - positional in plotext
    figure.plot_size(count * cells + len(f"{top:,}") + 2, _ROWS)
    figure.title(title)
    figure.draw(figure.bar(list(range(1, count + 1)), list(values), marker="hd", width=0.9))
    labelled = sorted({1, (count + 1) // 2, count})
    x_axis = figure.ruler("x").lim(0.5, count + 0.5).alignment(lim="edge")
    x_axis.ticks(labelled, [labels[at - 1] for at in labelled])
    figure.ruler("y").lim(0, top).alignment(lim="edge").ticks([0, top], ["0", f"{top:,}"])
    plot = Text(plotext.uncolorize(str(figure.build())), no_wrap=True)
    plot.highlight_regex(r"[▀-▟]+", style)
    return plot
