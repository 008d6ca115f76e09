"""Command line of the reliability runs.

It needs the dependency group `benchmarks`, and starts a server of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from pydantic import BaseModel

from asyncsvc.cli.charts import check_plot_path
from asyncsvc.cli.output import print_pairs
from asyncsvc.cli.progress import progress_bar
from asyncsvc.cli.runner import Exit, asynchronous, run_app
from asyncsvc.cli.terminal import Column, print_table, printable
from benchmarks.reliability import chart, crash, limits, mixed, mixed_chart, soak
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
Plot: TypeAlias = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="Draw the samples into this .svg or .png."),
]


@app.command("crash")
@asynchronous
async def _crash(
    *,
    kills: Annotated[int, typer.Option(min=0, help="The number of kills.")] = 20,
    writers: Annotated[int, typer.Option(min=1, max=64, help="Writer processes.")] = 8,
    client: Annotated[
        bool, typer.Option("--client", help="Kill some of the writers instead of the server.")
    ] = False,
    seed: Seed = 1,
    json: Json = None,
) -> Exit:
    """Kill the server or its clients repeatedly with SIGKILL while writers append with keys.

    The report contains the numbers of lost turns, duplicated turns and wrong counters.
    """
    settings = crash.Settings(kills=kills, writers=writers, clients=client, seed=seed)
    with progress_bar("killing writers" if client else "killing the server", kills) as bar:
        report = await crash.crash(
            settings, lambda kills, turns: bar.show(f"{kills} kills, {turns:,} turns", kills)
        )
    _print({**report.summary, **report.verdict.model_dump()})
    failures = [f"{count} {name}" for name, count in report.verdict.failures.items()]
    return _end(report, json, failures)


@app.command("soak")
@asynchronous
async def _soak(
    *,
    minutes: Annotated[float, typer.Option(min=0.01, help="The duration of the load.")] = 10,
    tasks: Annotated[int, typer.Option(min=1, max=256, help="Tasks that call the library.")] = 12,
    seed: Seed = 1,
    plot: Plot = None,
    json: Json = None,
) -> Exit:
    """Call the whole public API for a long time, with cancelled calls and lost connections.

    It fails if memory, tasks, open files or connections grow, or on an unexpected error.
    """
    if plot is not None:
        check_plot_path(plot)
    with progress_bar("soaking", minutes * 60) as bar:
        report = await soak.soak(
            soak.Settings(minutes=minutes, tasks=tasks, seed=seed),
            lambda now, done: bar.show(f"{now:,.0f} s, {done:,} operations", now),
        )
    _print(report.summary)
    columns: list[Column[Figure]] = [
        Column("when idle", lambda each: each.name),
        Column("first quarter", lambda each: f"{each.first:,.1f}", right=True),
        Column("last quarter", lambda each: f"{each.last:,.1f}", right=True),
        Column("per hour", lambda each: f"{each.per_hour:,.1f}", right=True),
        Column("maximum", lambda each: f"{each.maximum:,.1f}", right=True),
    ]
    print_table(columns, report.figures)
    if plot is not None:
        chart.write(report, plot)
    return _end(report, json, report.failures)


@app.command("mixed")
@asynchronous
async def _mixed(
    *,
    minutes: Annotated[
        float, typer.Option(min=0.01, help="The duration of the load beside the large tenant.")
    ] = 60,
    alone: Annotated[
        float | None,
        typer.Option(min=0.01, help="The minutes of the small tenants alone.  [default: a tenth]"),
    ] = None,
    rate: Annotated[float, typer.Option(min=1, help="Calls of small tenants per second.")] = 40,
    large: Annotated[
        int, typer.Option(min=100, help="Conversations of the large tenant.")
    ] = 1_000_000,
    tenants: Annotated[int, typer.Option(min=1, help="The number of small tenants.")] = 10_000,
    small: Annotated[int, typer.Option(min=1, help="Conversations of a small tenant.")] = 10,
    dsn: Annotated[
        str | None,
        typer.Option(
            help="A database that is empty, or loaded by an earlier run of the same sizes, with"
            " a superuser (default: start an embedded server)."
        ),
    ] = None,
    seed: Seed = 1,
    plot: Plot = None,
    json: Json = None,
) -> Exit:
    """Run many small tenants beside a large one; measure latency, backlog and sizes.

    It fails if a p99 of the small tenants is more than 3 times that alone, if maintenance is late
    by more than 180 s, or if a large table or index has more than 1.3 times its fresh size per row.
    """
    if plot is not None:
        check_plot_path(plot)
    alone = minutes / 10 if alone is None else alone
    settings = mixed.Settings(
        minutes=minutes,
        alone=alone,
        rate=rate,
        large=large,
        tenants=tenants,
        small=small,
        seed=seed,
    )
    with progress_bar("mixing", (minutes + alone) * 60) as bar:
        report = await mixed.mixed(settings, dsn, bar.show)
    _print(report.summary)
    _print_mixed(report)
    if plot is not None:
        mixed_chart.write(report, plot)
    return _end(report, json, report.failures)


def _print_mixed(report: mixed.Report) -> None:
    """Print the latencies and the sizes of a mixed run."""
    operations: list[Column[mixed.Operation]] = [
        Column("small tenants", lambda each: each.name),
        Column("calls", lambda each: f"{each.calls:,}", right=True),
        Column("alone p50, ms", lambda each: f"{each.alone_p50:.1f}", right=True),
        Column("p99", lambda each: f"{each.alone_p99:.1f}", right=True),
        Column("beside p50, ms", lambda each: f"{each.mixed_p50:.1f}", right=True),
        Column("p99", lambda each: f"{each.mixed_p99:.1f}", right=True),
        Column("ratio", lambda each: f"{each.ratio:.2f}", right=True),
    ]
    print_table(operations, report.operations)
    large: list[Column[mixed.LargeOperation]] = [
        Column("large tenant", lambda each: each.name),
        Column("calls", lambda each: f"{each.calls:,}", right=True),
        Column("p50, ms", lambda each: f"{each.p50:.1f}", right=True),
        Column("p99, ms", lambda each: f"{each.p99:.1f}", right=True),
    ]
    print_table(large, report.large_operations)
    relations: list[Column[mixed.Relation]] = [
        Column("relation", lambda each: each.name),
        Column("fresh MiB", lambda each: f"{each.fresh_bytes / 2**20:,.1f}", right=True),
        Column("MiB", lambda each: f"{each.bytes / 2**20:,.1f}", right=True),
        Column("fresh rows", lambda each: f"{each.fresh_rows:,}", right=True),
        Column("rows", lambda each: f"{each.rows:,}", right=True),
        Column("growth per row", lambda each: f"{each.growth:.2f}", right=True),
    ]
    print_table(relations, report.large_relations)


@app.command("limits")
@asynchronous
async def _limits() -> None:
    """Append the largest inputs, and read as much; show time, stall of the loop and memory."""
    measurements = await limits.measure()
    columns: list[Column[limits.Measurement]] = [
        Column("call", lambda each: each.call),
        Column("time, s", lambda each: f"{each.seconds:.2f}", right=True),
        Column("stall, ms", lambda each: f"{each.stall * 1_000:.0f}", right=True),
        Column("memory, MiB", lambda each: f"{each.memory:.0f}", right=True),
    ]
    print_table(columns, measurements)


def _print(values: Mapping[str, object]) -> None:
    """Print names and values, one per line."""
    print_pairs(
        {
            name.replace("_", " "): f"{value:,}" if isinstance(value, int) else str(value)
            for name, value in values.items()
        }
    )


def _end(report: BaseModel, file: Path | None, failures: list[str]) -> Exit:
    """Write the report, print the failures and return the exit code."""
    if file is not None:
        file.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    for failure in failures:
        typer.echo(f"benchmarks.reliability: {printable(failure)}", err=True)
    return Exit.FAILED if failures else Exit.DONE


if __name__ == "__main__":
    sys.exit(run_app(app))
