"""`python -m benchmarks`: measures what the project claims, on a server that it starts or is given.

It needs the extra `benchmarks`, and `plot` for plots. Contenders take turns in one run, so ratios
hold on a noisy machine; seconds do not.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from types import ModuleType

from rich.console import Console

from benchmarks import (
    append,
    charts,
    importing,
    listing,
    memory,
    models,
    pool,
    pooler,
    replicas,
    results,
    retention,
    row_level_security,
    search,
    sizes,
    start,
    stats,
    verify,
)
from benchmarks.report import Report
from benchmarks.server import database, serving, settings

SUITES: dict[str, ModuleType] = {
    "start": start,
    "pool": pool,
    "verify": verify,
    "append": append,
    "models": models,
    "list": listing,
    "stats": stats,
    "import": importing,
    "search": search,
    "sizes": sizes,
    "retention": retention,
    "pooler": pooler,
    "replicas": replicas,
    "memory": memory,  # deletes what the others have made
    "row_level_security": row_level_security,  # turns row-level security on
}


def main() -> None:
    """Read the options and run the suites."""
    options = _options()
    if options.results is None:
        asyncio.run(_run(options))
        return
    results.write(options.results, options.plot)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=SUITES, action="append", help="these suites alone")
    parser.add_argument("--scale", choices=("small", "middle", "full"), default="full")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here, too")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw the figures there, as SVG")
    parser.add_argument("--results", type=Path, metavar="FILE", nargs="+", help="measure nothing,"
                        " and write RESULTS.md from what --json wrote, later files before earlier"
                        " ones; --plot draws")  # fmt: skip
    parser.add_argument("--dsn", help="a server, as a superuser, that lets 300"
                        " connect; without it, one is started, with PostgreSQL's own settings, in"
                        " the directory for temporary files")  # fmt: skip
    return parser.parse_args()


async def _run(options: argparse.Namespace) -> None:
    console = Console()
    async with serving(options.dsn) as server, database(server) as dsn:
        report = Report(console, await settings(dsn), _command(options))
        console.print(", ".join(f"{name} {value}" for name, value in report.settings.items()))
        for name, suite in SUITES.items():
            if name in (options.only or SUITES):
                console.rule(name)
                report.suite = name
                await suite.run(dsn, options.scale, report)
                if options.json is not None:  # a run takes long, and may be broken off
                    report.write(options.json)
    if options.plot is not None:
        charts.write(report.results, options.plot)


def _command(options: argparse.Namespace) -> str:
    """Return how to measure the same: where it was written does not matter."""
    only = [f"--only {name}" for name in options.only or ()]
    return " ".join(["python -m benchmarks", f"--scale {options.scale}", *only])


if __name__ == "__main__":
    main()
