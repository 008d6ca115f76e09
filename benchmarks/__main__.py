"""`python -m benchmarks`: measures what the project claims, on a server that it starts or is given.

It needs the extra `benchmarks`. Contenders take turns in one run, so ratios hold on a noisy
machine; seconds do not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import secrets
import tempfile
import urllib.parse
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
from rich.console import Console

from asyncsvc import embedded
from benchmarks import rls, verify
from benchmarks.report import Report

SUITES = {"verify": verify, "rls": rls}  # the last one turns row-level security on
OPTIONS = {"max_connections": "200"}
TOLD = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers")


def main() -> None:
    """Read the options and run the suites."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=SUITES, help="this suite alone")
    parser.add_argument("--scale", choices=("small", "full"), default="full")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here, too")
    parser.add_argument("--dsn", help="a server whose role may create databases; without it, one"
                        " is started, with the settings PostgreSQL has by itself")  # fmt: skip
    options = parser.parse_args()
    asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> None:
    console = Console()
    async with _database(options.dsn) as dsn:
        report = Report(console, await _settings(dsn))
        console.print(", ".join(f"{name} {value}" for name, value in report.settings.items()))
        for name, suite in SUITES.items():
            if options.only in {None, name}:
                console.rule(name)
                await suite.run(dsn, options.scale, report)
    if options.json is not None:
        report.write(options.json)


@contextlib.asynccontextmanager
async def _database(dsn: str | None) -> AsyncIterator[str]:
    """Lend a new, empty database, on the server of the DSN or on one that is started."""
    async with contextlib.AsyncExitStack() as stack:
        if dsn is None:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="asyncsvc-benchmarks-"))
            server = await stack.enter_async_context(
                embedded.running(Path(place) / "data", options=OPTIONS)
            )
            dsn = server.dsn
        name = f"asyncsvc_benchmarks_{secrets.token_hex(4)}"
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(f"CREATE DATABASE {name}")
            try:
                yield urllib.parse.urlsplit(dsn)._replace(path=f"/{name}").geturl()
            finally:
                await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        finally:
            await connection.close()


async def _settings(dsn: str) -> dict[str, str]:
    connection = await asyncpg.connect(dsn)
    try:
        told = {name: str(await connection.fetchval(f"SHOW {name}")) for name in TOLD}
    finally:
        await connection.close()
    return told | {"cores": str(os.cpu_count()), "python": platform.python_version()}


if __name__ == "__main__":
    main()
