"""Command line of the reliability runs.

It needs the extra `benchmarks`, and `plot` for a plot. It starts a server of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from pydantic import BaseModel

from asyncsvc.cli.charts import check_plot_path
from asyncsvc.cli.progress import progress_bar
from asyncsvc.cli.runner import Exit, run
from asyncsvc.cli.terminal import Column, console, printable, table
from benchmarks.reliability import chart
from benchmarks.reliability import crash as crashing
from benchmarks.reliability import soak as soaking
from benchmarks.reliability.samples import Figure

app = typer.Typer(
    name="python -m benchmarks.reliability",
    help="Test the library under crashes, cancellations and lost connections.",
    epilog="Exit codes: 0 no failure; 1 a failure, or the run was not possible; 2 wrong usage;"
    " 130 Ctrl-C.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
Json: TypeAlias = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write the report here.")
]
Seed: TypeAlias = Annotated[int, typer.Option(help="The seed of the random load.")]


@app.command()
def crash(
    *,
    kills: Annotated[int, typer.Option(min=0, help="The number of kills.")] = 20,
    writers: Annotated[int, typer.Option(min=1, max=64, help="Writer processes.")] = 8,
    client: Annotated[
        bool, typer.Option("--client", help="Kill some of the writers instead of the server.")
    ] = False,
    seed: Seed = 1,
    json: Json = None,
) -> None:
    """Kill the server or its clients repeatedly with SIGKILL while writers append with keys.

    The report counts lost and duplicated turns, and wrong counters.
    """
    settings = crashing.Settings(kills=kills, writers=writers, clients=client, seed=seed)
    run(_crash(settings, json))


@app.command()
def soak(
    *,
    minutes: Annotated[float, typer.Option(min=0.01, help="The duration of the load.")] = 10,
    tasks: Annotated[int, typer.Option(min=1, max=256, help="Tasks that call the library.")] = 12,
    seed: Seed = 1,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw the samples into this .svg or .png."),
    ] = None,
    json: Json = None,
) -> None:
    """Call the whole public API for a long time, with cancelled calls and lost connections.

    It fails if memory, tasks, open files or connections grow, or on an unexpected error.
    """
    run(_soak(soaking.Settings(minutes=minutes, tasks=tasks, seed=seed), plot, json))


async def _soak(settings: soaking.Settings, plot: Path | None, json: Path | None) -> Exit:
    if plot is not None:
        check_plot_path(plot)
    seconds = settings.minutes * 60
    with progress_bar("soaking", seconds) as bar:
        report = await soaking.soak(
            settings, lambda now, calls: bar.show(f"{now:,.0f} s, {calls:,} calls", now)
        )
    _print(
        {
            "PostgreSQL": report.server["server_version"],
            "minutes": settings.minutes,
            "calls": report.operations,
            "cancelled": report.cancelled,
            "connections lost": report.connections_lost,
            "retried by the library": report.retries,
            "errors": ", ".join(f"{count:,} {name}" for name, count in report.errors.items()),
        }
    )
    _print_figures(report.figures)
    if plot is not None:
        chart.write(report, plot)
    _write(report, json)
    return _ended(report.failures)


def _print_figures(figures: Sequence[Figure]) -> None:
    titles = ("first quarter", "last quarter", "per hour", "maximum")
    columns = [Column("when idle"), *(Column(title, right=True) for title in titles)]
    rows = [
        (each.name, *(f"{n:,.1f}" for n in (each.first, each.last, each.per_hour, each.maximum)))
        for each in figures
    ]
    console().print(table(columns, rows))


async def _crash(settings: crashing.Settings, json: Path | None) -> Exit:
    what = "killing writers" if settings.clients else "killing the server"
    with progress_bar(what, settings.kills) as bar:
        report = await crashing.crash(
            settings, lambda kills, turns: bar.show(f"{kills} kills, {turns:,} turns", kills)
        )
    _print({**_done(report), **report.verdict.model_dump()})
    _write(report, json)
    return _ended([f"{count} {name}" for name, count in report.verdict.failures.items()])


def _done(report: crashing.Report) -> dict[str, object]:
    """Return the rows of the summary table."""
    return {
        "PostgreSQL": report.server["server_version"],
        "on": ", ".join(name for name, value in report.server.items() if value == "on"),
        "seconds": report.seconds,
        "kills": report.settings.kills,
        "processes killed": report.processes_killed,
        "maximum attempts of a start": report.max_start_attempts,
        "maximum outage, s": report.max_outage,
        "retried by the library": report.retries,
        "errors raised to writers": sum(report.repeats.values()),
        "stored but acknowledged by a replay": report.replayed,
    }


def _print(values: dict[str, object]) -> None:
    """Print names and values, one per line."""
    rows = [
        (name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
        for name, value in values.items()
    ]
    console().print(table([Column("what"), Column("", share=1)], rows))


def _ended(failures: list[str]) -> Exit:
    for failure in failures:
        typer.echo(f"benchmarks.reliability: {printable(failure)}", err=True)
    return Exit.FAILED if failures else Exit.DONE


def _write(report: BaseModel, file: Path | None) -> None:
    if file is not None:
        file.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app()
