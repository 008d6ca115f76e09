"""Draw the samples of a soak."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncsvc.cli.charts import write_figure
from benchmarks.reliability.samples import MEASURES
from benchmarks.reliability.soak import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS: Final = (
    "#2b6cb0", "#2c8a7d", "#7a5ab5", "#b7791f", "#3f8f4f", "#c05b5b", "#627282"
)  # fmt: skip


def write(report: Report, path: Path) -> None:
    """Draw each measure over time; the warm-up, which is not evaluated, is shaded."""
    write_figure(lambda: _figure(report), path)


def _figure(report: Report) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes half a second, and is an extra

    figure = Figure(figsize=(10, 1 + 1.35 * len(MEASURES)), layout="constrained")
    figure.suptitle(
        f"{report.operations:,} operations in {report.settings.minutes:g} minutes,"
        f" {report.cancelled:,} cancelled, {report.connections_lost:,} connections lost",
        x=0.01, ha="left", fontsize=12, fontweight="bold",
    )  # fmt: skip
    minutes = [sample.seconds / 60 for sample in report.samples]
    panels = figure.subplots(len(MEASURES), 1, sharex=True)
    for axes, measure, color in zip(panels, MEASURES, _COLORS, strict=True):
        values = [measure.value(sample) for sample in report.samples]
        axes.axvspan(0, report.evaluated[0].seconds / 60, color="#eef1f4", linewidth=0)
        axes.plot(minutes, values, color=color, linewidth=1.4)
        axes.set_title(measure.name, loc="left", fontsize=9.5)
        axes.set_ylim(0, max(1, *values) * 1.1)
        axes.locator_params(axis="y", nbins=4, integer=True)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.grid(axis="y", linewidth=0.7)
        axes.tick_params(length=0)
    panels[-1].set_xlabel("minutes")
    panels[-1].set_xlim(0, minutes[-1])
    return figure
