"""Draw the samples of a mixed run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncsvc.cli.charts import write_figure
from benchmarks.reliability.mixed import Report, Sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS: Final[dict[str, tuple[str, Callable[[Sample], float]]]] = {
    "p99 of the small tenants, ms": ("#2b6cb0", lambda sample: sample.p99),
    "rows that maintenance has not processed": ("#2c8a7d", lambda sample: sample.backlog),
    "age of these rows, at most, s": ("#7a5ab5", lambda sample: sample.age),
    "size of all tables and indexes, MiB": ("#b7791f", lambda sample: sample.bytes / 2**20),
}


def write(report: Report, path: Path) -> None:
    """Draw the latency, the backlog and the sizes over time."""
    write_figure(lambda: _figure(report), path)


def _figure(report: Report) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes half a second, and is an extra

    settings = report.settings
    figure = Figure(figsize=(10, 1 + 1.35 * len(_PANELS)), layout="constrained")
    figure.suptitle(
        f"{settings.tenants:,} small tenants beside one of {settings.large:,} conversations",
        x=0.01, ha="left", fontsize=12, fontweight="bold",
    )  # fmt: skip
    minutes = [sample.seconds / 60 for sample in report.samples]
    panels = figure.subplots(len(_PANELS), 1, sharex=True)
    for axes, (title, (color, value)) in zip(panels, _PANELS.items(), strict=True):
        values = [value(sample) for sample in report.samples]
        axes.plot(minutes, values, color=color, linewidth=1.4)
        axes.set_title(title, loc="left", fontsize=9.5)
        axes.set_ylim(0, max(1, *values) * 1.1)
        axes.locator_params(axis="y", nbins=4)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.grid(axis="y", linewidth=0.7)
        axes.tick_params(length=0)
    panels[-1].set_xlabel("minutes beside the large tenant")
    panels[-1].set_xlim(0, minutes[-1])
    return figure
