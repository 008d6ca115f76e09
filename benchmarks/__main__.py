"""Run the benchmark suites on an embedded server or on the server of `--dsn`.

The suites need the extra `benchmarks`; figures need the extra `plot`. Contenders take turns in one
run, so ratios are comparable on a noisy machine, and absolute times are not.
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
    "memory": memory,  # deletes the tenants of the other suites
    "row_level_security": row_level_security,  # turns row-level security on
}


def main() -> None:
    """Parse the options, then run the suites or write RESULTS.md."""
    options = _options()
    if options.results is None:
        asyncio.run(_run(options))
        return
    results.write(options.results, options.plot)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=SUITES, action="append", help="run only these suites")
    parser.add_argument("--scale", choices=("small", "middle", "full"), default="full")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw the figures as SVG here")
    parser.add_argument("--results", type=Path, metavar="FILE", nargs="+", help="do not measure:"
                        " write RESULTS.md from files written by --json; a suite of a later file"
                        " replaces the suite of an earlier file")  # fmt: skip
    parser.add_argument("--dsn", help="a server for the suites, with a superuser and at least 300"
                        " connections (default: start an embedded server with PostgreSQL's default"
                        " settings in a temporary directory)")  # fmt: skip
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
                if options.json is not None:  # a long run may be interrupted
                    report.write(options.json)
    if options.plot is not None:
        charts.write(report.results, options.plot)


def _command(options: argparse.Namespace) -> str:
    """Return a command that repeats this run, without its output options."""
    only = [f"--only {name}" for name in options.only or ()]
    return " ".join(["python -m benchmarks", f"--scale {options.scale}", *only])


if __name__ == "__main__":
    main()
