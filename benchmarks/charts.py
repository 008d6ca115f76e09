"""Draw the results: one figure per operation, its time or memory by the size of the data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from asyncsvc.cli.charts import check_plot_path, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchmarks.results import Result

Lines: TypeAlias = dict[str, list[tuple[float, float]]]

_COLORS: Final = {
    "asyncsvc": "#2b6cb0",
    "SQLAlchemy": "#b7791f",
    "as RAGFlow": "#c05b5b",
    **dict.fromkeys(("bare", "plain", "COPY", "dicts", "ILIKE"), "#627282"),
}
_OTHER_COLORS: Final = ("#2b6cb0", "#2c8a7d", "#7a5ab5", "#3f8f4f")
_STYLES: Final = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Kind:
    """The titles of a figure and its axes."""

    title: str
    sizes: str
    values: str = "milliseconds, median"


KINDS: Final[Mapping[str, Kind]] = {
    "append": Kind("Append a turn of two messages, 1 task", "messages in the conversation"),
    "append by many": Kind("Append, concurrent tasks", "messages in the conversation"),
    "page": Kind("A page of 20 conversations by creation", "page"),
    "recent page": Kind("A page of 20 conversations by recent activity", "page"),
    "total": Kind("A page with its total", "conversations in the dialog"),
    "models": Kind("A page as models, and as dicts", "conversations on the page"),
    "usage": Kind("A year of usage by day", "conversations of the tenant"),
    "search": Kind("Search, a page of 20", "messages of the tenant"),
    "import": Kind("Import", "messages", "milliseconds per message"),
    "memory": Kind("Export and purge", "conversations of the tenant", "MiB, peak"),
}


def write(results: Sequence[Result], directory: Path) -> None:
    """Draw each figure for which there are results."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in figures(results):
        check_plot_path(path(name, directory))
        write_figure(_drawing(name, results), path(name, directory))


def figures(results: Sequence[Result]) -> list[str]:
    """Return the names of the figures for which there are results, in their order."""
    return list(dict.fromkeys(each.figure for each in results if each.figure is not None))


def path(name: str, directory: Path) -> Path:
    """Return the file of a figure."""
    return directory / f"{name.replace(' ', '-')}.svg"


def _drawing(name: str, results: Sequence[Result]) -> Callable[[], Figure]:
    lines: Lines = {}
    for result in sorted((r for r in results if r.figure == name), key=lambda r: r.size):
        values = result.counted | {row.contender: row.p50_ms for row in result.contenders}
        for line, value in values.items():
            if value > 0:
                lines.setdefault(line, []).append((result.size, value))
    return lambda: _figure(KINDS[name], lines)


def _figure(kind: Kind, lines: Lines) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes half a second, and is an extra

    figure = Figure(figsize=(9.0, 5.0), layout="constrained")
    figure.suptitle(kind.title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    axes = figure.subplots()
    for (name, points), (color, style) in zip(lines.items(), _line_styles(lines), strict=True):
        sizes, values = zip(*points, strict=True)
        axes.loglog(
            sizes, values, style, label=name, color=color, marker="o", markersize=4, linewidth=1.6
        )
    _scale(axes, kind, sorted({size for points in lines.values() for size, _ in points}))
    _add_legend(axes, lines)
    return figure


def _line_styles(names: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the color and the line style of each name: a color per system, a style per variant."""
    others = itertools.cycle(_OTHER_COLORS)
    styles = {color: itertools.cycle(_STYLES) for color in (*_COLORS.values(), *_OTHER_COLORS)}
    for name in names:
        color = next((c for start, c in _COLORS.items() if name.startswith(start)), None)
        color = color or next(others)
        yield color, next(styles[color])


def _scale(axes: Axes, kind: Kind, sizes: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator  # noqa: PLC0415

    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    low, high = (math.log10(limit) for limit in axes.get_ylim())
    axes.set_ylim(10 ** math.floor(low), 10 ** math.ceil(high))
    axes.set_xlabel(kind.sizes)
    axes.set_ylabel(kind.values)
    axes.grid(axis="y", which="major", linewidth=0.7)
    axes.tick_params(length=0, which="both")


def _add_legend(axes: Axes, lines: Lines) -> None:
    """Name the lines to the right of the figure, in the order of their ends."""
    handles, names = axes.get_legend_handles_labels()
    ends = {name: lines[name][-1][1] for name in names}
    ordered = sorted(zip(names, handles, strict=True), key=lambda each: -ends[each[0]])
    axes.legend(
        [handle for _, handle in ordered],
        [name for name, _ in ordered],
        loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, handlelength=3,
    )  # fmt: skip
