"""Draw the samples of a soak."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncsvc.cli.charts import write_figure
from benchmarks.reliability.samples import MEASURES, Measure, Sample
from benchmarks.reliability.soak import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _PANEL, _HEAD = 10.0, 1.35, 1.0
_INK, _SHADE = "#1f2933", "#eef1f4"
_COLORS: Final = (
    "#2b6cb0", "#2c8a7d", "#7a5ab5", "#b7791f", "#3f8f4f", "#c05b5b", "#627282"
)  # fmt: skip


def write(report: Report, path: Path) -> None:
    """Draw each measure over time; the warm-up, which is not evaluated, is shaded."""
    write_figure(lambda: _figure(report), path)


def _figure(report: Report) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes half a second, and is an extra

    figure = Figure(figsize=(_WIDTH, _HEAD + _PANEL * len(MEASURES)), layout="constrained")
    figure.suptitle(
        f"{report.operations:,} calls in {report.settings.minutes:g} minutes,"
        f" {report.cancelled:,} cancelled, {report.connections_lost:,} connections lost",
        x=0.01, ha="left", fontsize=12, fontweight="bold",
    )  # fmt: skip
    panels = figure.subplots(len(MEASURES), 1, sharex=True, squeeze=False)[:, 0]
    warm = report.evaluated[0].seconds / 60
    for axes, measure, color in zip(panels, MEASURES, _COLORS, strict=True):
        axes.axvspan(0, warm, color=_SHADE, linewidth=0)
        _draw(axes, measure, report.samples, color)
    panels[-1].set_xlabel("minutes")
    panels[-1].set_xlim(0, report.samples[-1].seconds / 60)
    return figure


def _draw(axes: Axes, measure: Measure, samples: Sequence[Sample], color: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415 - as above

    values = [measure.value(sample) for sample in samples]
    axes.plot([sample.seconds / 60 for sample in samples], values, color=color, linewidth=1.4)
    axes.set_title(measure.name, loc="left", fontsize=9.5, color=_INK)
    axes.set_ylim(0, max(1, *values) * 1.1)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(axis="y", linewidth=0.7)
    axes.tick_params(length=0)
