"""Run the benchmark suites on an embedded server or on the server of `--dsn`.

The suites and figures need the dependency group `benchmarks`, and the suite `sessions` needs
`contenders`. Contenders take turns in one run, so ratios are comparable on a noisy machine, and
absolute times are not.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from benchmarks import charts, results, suites
from benchmarks.bench import Bench
from benchmarks.results import Document
from benchmarks.server import database, serving, settings

RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> None:
    """Parse the options, then run the suites or write RESULTS.md."""
    options = _options()
    if options.results is None:
        asyncio.run(_run(options))
    else:
        results.write(options.results, options.plot, suites, RESULTS)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--only", choices=suites.SUITES, action="append", help="run only these suites")
    add("--scale", choices=("small", "middle", "full"), default="full")
    add("--json", type=Path, metavar="FILE", help="also write the results here")
    add("--plot", type=Path, metavar="DIR", help="draw the figures as SVG here")
    add("--results", type=Path, metavar="FILE", nargs="+", help="do not measure: write RESULTS.md"
        " from files written by --json; a suite of a later file replaces the suite of an earlier"
        " file")  # fmt: skip
    add("--dsn", help="a server for the suites, with a superuser and at least 300 connections"
        " (default: start an embedded server with PostgreSQL's default settings in a temporary"
        " directory)")  # fmt: skip
    add(
        "--citus",
        metavar="DSN",
        help="the coordinator of a cluster of Citus with 2 workers, for"
        " the suite of that name, beside --dsn on the same machine",
    )
    return parser.parse_args()


async def _run(options: argparse.Namespace) -> None:
    only = options.only or list(suites.SUITES)
    async with serving(options.dsn) as server, database(server) as dsn:
        document = Document(command=_command(options), settings=await settings(dsn))
        bench = Bench(dsn, options.scale, document, coordinator=options.citus)
        bench.console.print(", ".join(f"{k} {v}" for k, v in document.settings.items()))
        for name, suite in suites.SUITES.items():
            if name in only:
                bench.console.rule(name)
                bench.suite = name
                await suite.run(bench)
                if options.json is not None:  # a long run may be interrupted
                    json = document.model_dump_json(indent=2, exclude_defaults=True)
                    options.json.write_text(json + "\n", encoding="utf-8")
    if options.plot is not None:
        charts.write(document.results, options.plot)


def _command(options: argparse.Namespace) -> str:
    """Return a command that repeats this run, without its output options."""
    only = [f"--only {name}" for name in options.only or ()]
    return " ".join(["python -m benchmarks", f"--scale {options.scale}", *only])


if __name__ == "__main__":
    main()
