"""Draw the results: one figure per operation, its time or memory by the size of the data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from asyncsvc.cli.charts import check_plot_path, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Results: TypeAlias = Sequence[Mapping[str, Any]]
Lines: TypeAlias = dict[str, list[tuple[float, float]]]

_COLORS: Final = {
    "asyncsvc": "#2b6cb0",
    "SQLAlchemy": "#b7791f",
    "as RAGFlow": "#c05b5b",
    "bare": "#627282",
    "plain": "#627282",
    "COPY": "#627282",
    "dicts": "#627282",
    "ILIKE": "#627282",
}
_OTHERS: Final = ("#2b6cb0", "#2c8a7d", "#7a5ab5", "#3f8f4f")
_STYLES: Final = ("-", "--", ":", "-.")
_GAP: Final = 0.052
"""The minimum distance of labels, as a fraction of the height."""


@dataclass(frozen=True)
class Kind:
    """The titles of a figure and its axes."""

    title: str
    sizes: str
    values: str = "milliseconds, median"


KINDS: Final[Mapping[str, Kind]] = {
    "append": Kind("Append a turn of two messages, 1 task", "messages in the conversation"),
    "append by many": Kind("Append, many tasks at once", "messages in the conversation"),
    "page": Kind("A page of 20 conversations by creation", "page"),
    "recent page": Kind("A page of 20 conversations by recent activity", "page"),
    "total": Kind("A page with its total", "conversations in the dialog"),
    "models": Kind("A page as models, and as dicts", "conversations on the page"),
    "usage": Kind("A year of usage by day", "conversations of the tenant"),
    "search": Kind("Search, a page of 20", "messages of the tenant"),
    "import": Kind("Import", "messages", "milliseconds a message"),
    "memory": Kind("Export and purge", "conversations of the tenant", "MiB, peak"),
}


def write(results: Results, directory: Path) -> list[Path]:
    """Draw each figure for which there are results; return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    return [_write(name, results, directory) for name in figures(results)]


def figures(results: Results) -> list[str]:
    """Return the names of the figures for which there are results, in their order."""
    return list(dict.fromkeys(result["figure"] for result in results if "figure" in result))


def title(name: str) -> str:
    """Return the title of a figure."""
    return _kind(name).title


def _kind(name: str) -> Kind:
    return KINDS.get(name) or Kind(name, "size")


def path(name: str, directory: Path) -> Path:
    """Return the file of a figure."""
    return directory / f"{name.replace(' ', '-')}.svg"


def _write(name: str, results: Results, directory: Path) -> Path:
    file = path(name, directory)
    check_plot_path(file)
    kind = _kind(name)
    lines = _lines([result for result in results if result.get("figure") == name])
    write_figure(lambda: _figure(kind, lines), file)
    return file


def _lines(results: Results) -> Lines:
    """Return the points of each contender, by size."""
    lines: Lines = {}
    for result in sorted(results, key=lambda result: float(result["size"])):
        for name, value in _values(result):
            if value > 0:
                lines.setdefault(name, []).append((result["size"], value))
    return lines


def _values(result: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    yield from result.get("counted", {}).items()
    for row in result.get("contenders", ()):
        yield row["contender"], row["p50_ms"]


def _figure(kind: Kind, lines: Lines) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes half a second, and is an extra

    figure = Figure(figsize=(9.0, 5.0), layout="constrained")
    figure.suptitle(kind.title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_yscale("log")
    for points, (color, style) in zip(lines.values(), _looks(lines), strict=True):
        sizes, values = zip(*points, strict=True)
        axes.plot(sizes, values, style, color=color, marker="o", markersize=4, linewidth=1.6)
    _scale(axes, kind, lines)
    _label(axes, lines)
    return figure


def _looks(names: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Return a color per system, and a line style per variant of the system."""
    others = itertools.cycle(_OTHERS)
    used: dict[str, int] = {}
    for name in names:
        color = next((c for start, c in _COLORS.items() if name.startswith(start)), None)
        color = color or next(others)
        yield color, _STYLES[used.get(color, 0) % len(_STYLES)]
        used[color] = used.get(color, 0) + 1


def _scale(axes: Axes, kind: Kind, lines: Lines) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator  # noqa: PLC0415

    sizes = sorted({size for points in lines.values() for size, _ in points})
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
    axes.set_xlabel(kind.sizes)
    axes.set_ylabel(kind.values)
    low, high = axes.get_ylim()
    decades = math.floor(math.log10(low)), math.ceil(math.log10(high))
    axes.set_ylim(10 ** decades[0], 10 ** decades[1])
    axes.grid(axis="y", which="major", linewidth=0.7)
    axes.tick_params(length=0, which="both")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _label(axes: Axes, lines: Lines) -> None:
    """Label each line at its end, without overlaps."""
    low, high = (math.log10(limit) for limit in axes.get_ylim())
    last = max(points[-1][0] for points in lines.values())
    ends = {
        name: (math.log10(points[-1][1]) - low) / (high - low)
        for name, points in lines.items()
        if points[-1][0] == last
    }
    heights = _spread(ends)
    for (name, points), (color, _) in zip(lines.items(), _looks(lines), strict=True):
        if name in ends:
            axes.annotate(
                name, points[-1], xytext=(1.05, heights[name]), textcoords="axes fraction",
                va="center",
                color=color, fontsize=9, arrowprops=_leader(color),
            )  # fmt: skip
        else:  # a line that ends before the others has its label at its own end
            axes.annotate(
                name, points[-1], xytext=(4, -10), textcoords="offset points", color=color,
                fontsize=8,
            )  # fmt: skip


def _leader(color: str) -> dict[str, Any]:
    return {
        "arrowstyle": "-", "color": color, "linewidth": 0.6, "relpos": (0, 0.5),
        "shrinkA": 2, "shrinkB": 3,
    }  # fmt: skip


def _spread(ends: Mapping[str, float]) -> dict[str, float]:
    """Return heights that are at least `_GAP` apart, each close to its original height.

    Labels that are too close form a block, which is centered on their mean height.
    """
    names = sorted(ends, key=lambda name: ends[name])
    blocks: list[list[float]] = []
    for index, name in enumerate(names):
        blocks.append([ends[name] - index * _GAP])
        while len(blocks) > 1 and mean(blocks[-2]) > mean(blocks[-1]):
            above = blocks.pop()
            blocks[-1] += above
    places = [mean(block) for block in blocks for _ in block]
    return {
        name: place + index * _GAP
        for index, (name, place) in enumerate(zip(names, places, strict=True))
    }
