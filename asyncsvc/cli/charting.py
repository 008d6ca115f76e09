"""Charts of usage as SVG or PNG, by matplotlib, which the extra `plot` brings.

A chart depends on nothing but what it shows: no window, no settings of the user's, no date, no
fonts of the reader's. So the same numbers are the same file.
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

from asyncsvc.cli.drawing import plain
from asyncsvc.cli.files import replacing
from asyncsvc.cli.running import CommandError, Exit
from asyncsvc.models import UsageBucket

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS: Final = (".svg", ".png")
_STEPS: Final = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}
_LONGEST_MONTH: Final = timedelta(days=31)
_WIDTH, _PANEL, _HEAD = 10.0, 1.45, 1.0
_INK, _QUIET, _GRID = "#1f2933", "#627282", "#e1e6eb"
_BARS: Final = 120
"""The most buckets whose bars are drawn apart; more would only shimmer."""
_LOOK: Final = {
    "axes.axisbelow": True,
    "axes.edgecolor": _QUIET,
    "axes.labelcolor": _QUIET,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.h_pad": 0.09,
    "figure.constrained_layout.w_pad": 0.09,
    "figure.facecolor": "white",
    "font.size": 9,
    "grid.color": _GRID,
    "svg.fonttype": "path",
    "svg.hashsalt": "asyncsvc",
    "text.color": _INK,
    "text.parse_math": False,  # a tenant may be called $1$
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
}


@dataclass(frozen=True, slots=True)
class Chart:
    """What a chart shows."""

    title: str
    interval: str
    local: tzinfo
    buckets: Sequence[UsageBucket]


@dataclass(frozen=True, slots=True)
class _Series:
    title: str
    unit: str
    color: str
    values: list[float]
    below: list[float] | None = None


def refuse_what_cannot_be_drawn(path: Path) -> None:
    """Raise CommandError for an ending that is none of ours, and without matplotlib."""
    if path.suffix.lower() not in ENDINGS:
        raise CommandError(f"{path}: --plot writes .svg or .png", Exit.MISUSED)
    if importlib.util.find_spec("matplotlib") is None:
        raise CommandError("--plot needs an extra: pip install 'asyncsvc[plot]'")


def write(chart: Chart, path: Path) -> None:
    """Draw the chart into a file, which appears when it is complete."""
    save(lambda: _figure(chart), path)


def save(make: Callable[[], Figure], path: Path) -> None:
    """Draw the figure that is made, in the look of all charts, into a file."""
    image = _drawn(make, path.suffix.lower().removeprefix("."))
    try:
        with replacing(path) as file:
            file.write(image)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror or error}") from error


def _drawn(make: Callable[[], Figure], form: str) -> bytes:
    """Return the image, drawn without a window."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of its font cache
    import matplotlib as mpl  # noqa: PLC0415 - takes half a second, and is an extra

    with mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a title in a script that no font here has
        mpl.rcdefaults()
        mpl.rcParams.update(_LOOK)
        figure, image = make(), io.BytesIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        metadata = nothing if form == "svg" else {"Software": None}
        figure.savefig(image, format=form, dpi=160, metadata=metadata)
    if form == "svg":  # its document type would be looked up at the W3C
        return re.sub(rb"<!DOCTYPE[^>]*>\s*", b"", image.getvalue(), count=1)
    return image.getvalue()


def _figure(chart: Chart) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    series = _series(chart.buckets)
    height = _HEAD + _PANEL * len(series)
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.suptitle(plain(chart.title), x=0.01, ha="left", fontsize=12, fontweight="bold")
    panels = figure.subplots(len(series), 1, sharex=True, squeeze=False)[:, 0]
    edges = _edges(chart)
    for axes, each in zip(panels, series, strict=True):
        _draw(axes, each, edges)
    _label_time(panels[-1], chart.local, edges)
    figure.align_ylabels(list(panels))
    return figure


def _series(buckets: Sequence[UsageBucket]) -> list[_Series]:
    return [
        _Series("Conversations (pv)", "conversations", "#2b6cb0", [b.pv for b in buckets]),
        _Series("Users (uv)", "distinct users", "#2c8a7d", [b.uv for b in buckets]),
        _Series("Rounds", "rounds", "#7a5ab5", [b.rounds for b in buckets]),
        _Series("Tokens", "tokens", "#b7791f", [b.tokens for b in buckets]),
        _Series(
            "Thumbs up, and down below the line",
            "thumbs",
            "#3f8f4f",
            [b.thumb_up for b in buckets],
            [-b.thumb_down for b in buckets],
        ),
    ]


def _edges(chart: Chart) -> list[datetime]:
    """Return where each bucket begins, and where the last one ends."""
    last = chart.buckets[-1].dt
    step = _STEPS.get(chart.interval)
    end = last + step if step else (last + _LONGEST_MONTH).replace(day=1)
    return [*(bucket.dt for bucket in chart.buckets), end]


def _draw(axes: Axes, series: _Series, edges: Sequence[datetime]) -> None:
    from matplotlib.dates import date2num  # noqa: PLC0415 - as above
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415 - as above

    places = [float(date2num(edge)) for edge in edges]
    _fill(axes, places, series.values, series.color)
    if series.below is not None:
        _fill(axes, places, series.below, "#c05b5b")
        axes.axhline(0, color=_QUIET, linewidth=0.6)
    axes.set_title(series.title, loc="left", fontsize=9.5, color=_INK)
    axes.set_ylabel(series.unit)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):,.0f}"))
    axes.grid(axis="y", linewidth=0.7)
    axes.tick_params(length=0)
    if not any(series.values) and not any(series.below or ()):
        axes.set_ylim(0, 1)


def _fill(axes: Axes, places: Sequence[float], values: Sequence[float], color: str) -> None:
    if len(values) > _BARS:
        axes.stairs(values, places, fill=True, color=color)
        return
    middles = [(start + end) / 2 for start, end in pairwise(places)]
    widths = [(end - start) * 0.86 for start, end in pairwise(places)]
    axes.bar(middles, values, widths, color=color)


def _label_time(axes: Axes, local: tzinfo, edges: Sequence[datetime]) -> None:
    from matplotlib.dates import (  # noqa: PLC0415 - as above
        AutoDateLocator,
        ConciseDateFormatter,
        date2num,
    )

    locator: Any = AutoDateLocator(tz=local)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=local))
    axes.set_xlim(float(date2num(edges[0])), float(date2num(edges[-1])))
    axes.set_xlabel(f"time in {local}")
