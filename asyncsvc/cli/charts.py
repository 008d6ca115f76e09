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
from operator import attrgetter
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
_GROUP_COLORS: Final = (
    "#2b6cb0", "#dd8a2e", "#2c8a7d", "#b4466b", "#7a5ab5", "#9aa83a", "#63a8d8"
)  # fmt: skip
"""The colors of the first groups. The others are one group."""
_OTHER_COLOR: Final = "#a9b4bf"
_MAX_NAME: Final = 40
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
    parts: Sequence[tuple[str, Sequence[float]]]
    """Colors and values, from the bottom to the top."""
    below: Sequence[float] = ()

    @property
    def is_empty(self) -> bool:
        return not any(map(any, [*(values for _, values in self.parts), self.below]))


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    color: str
    buckets: Sequence[Sequence[UsageBucket]]
    """The buckets of the group at each time."""


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
    path: Path,
    title: str,
    buckets: Sequence[UsageBucket],
    *,
    interval: str,
    local: tzinfo,
    is_grouped: bool,
) -> None:
    """Write a chart of usage to a file. Raises CommandError if the range has no buckets."""
    if not buckets:
        raise CommandError("the range has no buckets to draw")
    write_figure(
        lambda: usage_figure(title, buckets, interval=interval, local=local, is_grouped=is_grouped),
        path,
    )


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
    title: str,
    buckets: Sequence[UsageBucket],
    *,
    interval: str,
    local: tzinfo,
    is_grouped: bool = False,
) -> Figure:
    """Draw a panel for each series with a value above 0; without any, draw the first series.

    With groups the bars are stacked, and there are no panels of users and thumbs.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    times = list(dict.fromkeys(bucket.dt for bucket in buckets))
    groups = _groups(buckets, times) if is_grouped else []
    edges = _bucket_edges(times, interval)
    all_series = _stacked_series(groups) if is_grouped else _series(buckets)
    series = [each for each in all_series if not each.is_empty] or all_series[:1]
    height = _TITLE_HEIGHT + _PANEL_HEIGHT * len(series)
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.suptitle(printable(title), x=0.01, ha="left", fontsize=12, fontweight="bold")
    panels = figure.subplots(len(series), 1, sharex=True, squeeze=False)[:, 0]
    for axes, each in zip(panels, series, strict=True):
        _draw_panel(axes, each, edges)
    _label_time(panels[-1], local, edges)
    figure.align_ylabels(list(panels))
    if groups:
        _draw_legend(figure, groups)
    return figure


def _series(buckets: Sequence[UsageBucket]) -> list[_Series]:
    up, down = "#3f8f4f", "Thumbs up, thumbs down below the line"
    return [
        _Series(
            "Conversations", "conversations", [("#2b6cb0", [b.conversations for b in buckets])]
        ),
        _Series("Users", "distinct users", [("#2c8a7d", [b.users or 0 for b in buckets])]),
        _Series("Rounds", "rounds", [("#7a5ab5", [b.rounds for b in buckets])]),
        _Series("Tokens", "tokens", [("#b7791f", [b.tokens for b in buckets])]),
        _Series("Cost", "cost", [("#b4466b", [float(b.cost or 0) for b in buckets])]),
        _Series(
            down,
            "thumbs",
            [(up, [b.thumb_up for b in buckets])],
            [-b.thumb_down for b in buckets],
        ),
    ]


def _groups(buckets: Sequence[UsageBucket], times: Sequence[datetime]) -> list[_Group]:
    """Return the first groups by rank, and the others as one group."""
    keys = list(dict.fromkeys((bucket.is_other, bucket.group) for bucket in buckets))
    first = [key for key in keys if not key[0]][: len(_GROUP_COLORS)]
    names = {key: "none" if key[1] is None else _shortened(key[1]) for key in first}
    colors = dict(zip(first, _GROUP_COLORS, strict=False))
    places, other = {time: at for at, time in enumerate(times)}, (True, None)
    parts: dict[tuple[bool, str | None], list[list[UsageBucket]]] = {}
    for bucket in buckets:
        key = (bucket.is_other, bucket.group)
        part = parts.setdefault(key if key in names else other, [[] for _ in times])
        part[places[bucket.dt]].append(bucket)
    return [
        _Group(names.get(key, "other"), colors.get(key, _OTHER_COLOR), parts[key])
        for key in [*first, *([other] if other in parts else [])]
    ]


def _shortened(name: str) -> str:
    name = printable(name)
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"


def _stacked_series(groups: Sequence[_Group]) -> list[_Series]:
    counters = (
        ("Cost", "cost", lambda bucket: float(bucket.cost or 0)),
        ("Tokens", "tokens", attrgetter("tokens")),
        ("Rounds", "rounds", attrgetter("rounds")),
        ("Conversations", "conversations", attrgetter("conversations")),
    )
    return [
        _Series(
            title,
            unit,
            [
                (group.color, [sum(map(value_of, buckets)) for buckets in group.buckets])
                for group in groups
            ],
        )
        for title, unit, value_of in counters
    ]


def _bucket_edges(times: Sequence[datetime], interval: str) -> list[datetime]:
    """Return the start of each bucket and the end of the last one."""
    last = times[-1]
    length = _BUCKET_LENGTHS.get(interval)
    end = last + length if length else (last + _MAX_MONTH).replace(day=1)
    return [*times, end]


def _draw_panel(axes: Axes, series: _Series, edges: Sequence[datetime]) -> None:
    from matplotlib.dates import date2num  # noqa: PLC0415 - as above
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415 - as above

    positions = [float(date2num(edge)) for edge in edges]
    bottoms = [0.0] * len(edges[1:])
    for color, values in series.parts:
        tops = [bottom + value for bottom, value in zip(bottoms, values, strict=True)]
        _draw_bars(axes, positions, bottoms, tops, color)
        bottoms = tops
    if any(series.below):
        _draw_bars(axes, positions, [0.0] * len(series.below), series.below, "#c05b5b")
        axes.axhline(0, color=_MUTED, linewidth=0.6)
    axes.set_title(series.title, loc="left", fontsize=9.5, color=_TEXT)
    axes.set_ylabel(series.unit)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=series.unit != "cost"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):,.12g}"))
    axes.grid(axis="y", linewidth=0.7)
    axes.tick_params(length=0)
    if series.is_empty:
        axes.set_ylim(0, 1)


def _draw_bars(
    axes: Axes,
    positions: Sequence[float],
    bottoms: Sequence[float],
    tops: Sequence[float],
    color: str,
) -> None:
    if len(tops) > _MAX_BARS:
        axes.stairs(tops, positions, baseline=bottoms, fill=True, color=color)
        return
    centers = [(start + end) / 2 for start, end in pairwise(positions)]
    widths = [(end - start) * 0.86 for start, end in pairwise(positions)]
    heights = [top - bottom for bottom, top in zip(bottoms, tops, strict=True)]
    axes.bar(centers, heights, widths, bottoms, color=color)


def _draw_legend(figure: Figure, groups: Sequence[_Group]) -> None:
    from matplotlib.patches import Patch  # noqa: PLC0415 - as above

    legend = figure.legend(
        [Patch(color=group.color) for group in groups],
        [" "] * len(groups),
        loc="outside lower left",
        ncols=4,
        frameon=False,
    )
    for text, group in zip(legend.get_texts(), groups, strict=True):
        text.set_text(group.name)  # a label would be omitted if it starts with an underscore


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
