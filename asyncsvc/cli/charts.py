"""Charts of usage as SVG or PNG, drawn by matplotlib (extra `plot`).

A chart depends only on its data, not on the display, the user's matplotlib settings, the date or
the reader's fonts. So the same numbers always produce the same file.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asyncsvc import InvalidInput, UsageBucket
from asyncsvc.cli.files import write_to
from asyncsvc.cli.runner import CommandError
from asyncsvc.cli.terminal import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FORMATS: Final = (".svg", ".png")
_BUCKET_LENGTHS: Final = {
    "hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)
}  # fmt: skip
_MAX_MONTH: Final = timedelta(days=31)
_WIDTH, _PANEL_HEIGHT, _TITLE_HEIGHT = 10.0, 1.45, 1.0
_TEXT, _MUTED, _GRID = "#1f2933", "#627282", "#e1e6eb"
_MAX_BARS: Final = 120
"""With more buckets, the bars have no gaps."""
_STYLE: Final = {
    "axes.axisbelow": True,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.h_pad": 0.09,
    "figure.constrained_layout.w_pad": 0.09,
    "figure.facecolor": "white",
    "font.size": 9,
    "grid.color": _GRID,
    "svg.fonttype": "path",
    "svg.hashsalt": "asyncsvc",
    "text.color": _TEXT,
    "text.parse_math": False,  # the name of a tenant may contain $
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
}


@dataclass(frozen=True, slots=True)
class _Series:
    title: str
    unit: str
    color: str
    values: list[float]
    below: Sequence[float] = ()


def check_plot_path(path: Path) -> None:
    """Check the suffix of the path, and that matplotlib is installed.

    Raises:
        InvalidInput: The suffix is not .svg or .png.
        CommandError: matplotlib is missing.
    """
    if path.suffix.lower() not in _FORMATS:
        raise InvalidInput("plot", "must end in .svg or .png")
    if importlib.util.find_spec("matplotlib") is None:
        raise CommandError("--plot needs an extra: pip install 'asyncsvc[plot]'")


def write_usage_chart(
    path: Path, title: str, buckets: Sequence[UsageBucket], *, interval: str, local: tzinfo
) -> None:
    """Write a chart of usage to a file. Raises CommandError if the range has no buckets."""
    if not buckets:
        raise CommandError("the range has no buckets to draw")
    write_figure(lambda: usage_figure(title, buckets, interval=interval, local=local), path)


def write_figure(draw: Callable[[], Figure], path: Path) -> None:
    """Write the figure that `draw` returns to a file, in the style of all charts."""
    image = _image(draw, path.suffix.lower().removeprefix("."))
    with write_to(path) as file:
        file.write(image)


def _image(draw: Callable[[], Figure], image_format: str) -> bytes:
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it logs about its font cache
    import matplotlib as mpl  # noqa: PLC0415 - an extra, and the import takes 0.5 s

    with mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no font has all scripts
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        figure, image = draw(), io.BytesIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        metadata = no_metadata if image_format == "svg" else {"Software": None}
        figure.savefig(image, format=image_format, dpi=160, metadata=metadata)
    if image_format == "svg":  # viewers would fetch the DTD from w3.org
        return re.sub(rb"<!DOCTYPE[^>]*>\s*", b"", image.getvalue(), count=1)
    return image.getvalue()


def usage_figure(
    title: str, buckets: Sequence[UsageBucket], *, interval: str, local: tzinfo
) -> Figure:
    """Draw a panel for each series with a value above 0; without any, draw the first series."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    edges, all_series = _bucket_edges(buckets, interval), _series(buckets)
    series = [each for each in all_series if any(each.values) or any(each.below)] or all_series[:1]
    height = _TITLE_HEIGHT + _PANEL_HEIGHT * len(series)
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.suptitle(printable(title), x=0.01, ha="left", fontsize=12, fontweight="bold")
    panels = figure.subplots(len(series), 1, sharex=True, squeeze=False)[:, 0]
    for axes, each in zip(panels, series, strict=True):
        _draw_panel(axes, each, edges)
    _label_time(panels[-1], local, edges)
    figure.align_ylabels(list(panels))
    return figure


def _series(buckets: Sequence[UsageBucket]) -> list[_Series]:
    return [
        _Series("Conversations", "conversations", "#2b6cb0", [b.conversations for b in buckets]),
        _Series("Users", "distinct users", "#2c8a7d", [b.users or 0 for b in buckets]),
        _Series("Rounds", "rounds", "#7a5ab5", [b.rounds for b in buckets]),
        _Series("Tokens", "tokens", "#b7791f", [b.tokens for b in buckets]),
        _Series(
            "Thumbs up, thumbs down below the line",
            "thumbs",
            "#3f8f4f",
            [b.thumb_up for b in buckets],
            [-b.thumb_down for b in buckets],
        ),
    ]


def _bucket_edges(buckets: Sequence[UsageBucket], interval: str) -> list[datetime]:
    """Return the start of each bucket and the end of the last one."""
    last = buckets[-1].dt
    length = _BUCKET_LENGTHS.get(interval)
    end = last + length if length else (last + _MAX_MONTH).replace(day=1)
    return [*(bucket.dt for bucket in buckets), end]


def _draw_panel(axes: Axes, series: _Series, edges: Sequence[datetime]) -> None:
    from matplotlib.dates import date2num  # noqa: PLC0415 - as above
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415 - as above

    positions = [float(date2num(edge)) for edge in edges]
    _draw_bars(axes, positions, series.values, series.color)
    if any(series.below):
        _draw_bars(axes, positions, series.below, "#c05b5b")
        axes.axhline(0, color=_MUTED, linewidth=0.6)
    axes.set_title(series.title, loc="left", fontsize=9.5, color=_TEXT)
    axes.set_ylabel(series.unit)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):,.0f}"))
    axes.grid(axis="y", linewidth=0.7)
    axes.tick_params(length=0)
    if not any(series.values) and not any(series.below):
        axes.set_ylim(0, 1)


def _draw_bars(axes: Axes, positions: Sequence[float], values: Sequence[float], color: str) -> None:
    if len(values) > _MAX_BARS:
        axes.stairs(values, positions, fill=True, color=color)
        return
    centers = [(start + end) / 2 for start, end in pairwise(positions)]
    widths = [(end - start) * 0.86 for start, end in pairwise(positions)]
    axes.bar(centers, values, widths, color=color)


def _label_time(axes: Axes, local: tzinfo, edges: Sequence[datetime]) -> None:
    from matplotlib.dates import (  # noqa: PLC0415 - as above
        AutoDateLocator,
        ConciseDateFormatter,
        date2num,
    )

    locator: Any = AutoDateLocator(tz=local)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=local))
    # A label at the very end of the range would name the next day or month.
    axes.set_xlim(float(date2num(edges[0])), float(date2num(edges[-1] - timedelta(seconds=1))))
    axes.set_xlabel(f"time in {local}")
