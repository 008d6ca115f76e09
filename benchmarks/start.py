"""The start: the import, the first verification, and the memory of a connection."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncsvc
from benchmarks.measuring import Measured, Turn
from benchmarks.report import Report
from benchmarks.server import alone, connected
from benchmarks.statements import sql

TENANT = "start"
IMPORTED = {
    "asyncpg and pydantic": "import asyncpg; from pydantic import BaseModel",
    "asyncsvc": "import asyncsvc",
}
ORDERS = ("created_at", "updated_at", "name", "round", "tokens", "duration", "thumb_up")


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    imports: int
    connects: int
    variants: int


SCALES = {"small": Scale(2, 2, 20), "middle": Scale(10, 10, 1_000), "full": Scale(25, 30, 1_000)}


async def run(dsn: str, scale: str, report: Report) -> None:
    """Measure, and add the tables to the report."""
    how = SCALES[scale]
    async with asyncsvc.connect(dsn) as svc:
        await svc.migrate()
        issued = await svc.tokens.create(tenant_id=TENANT, name="benchmark")
    await _imports(how, report)
    await _first_calls(dsn, issued.secret.get_secret_value(), how, report)
    await _backend(dsn, how, report)


_COMPILING = {name: it for name, it in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


async def _imports(how: Scale, report: Report) -> None:
    """Measure the imports in new processes, in turns."""
    measured = {name: Measured(name) for name in IMPORTED}
    for number in range(how.imports + 1):
        for name, statement in IMPORTED.items():
            seconds = await _imported(statement)
            if number:  # the first import reads from the disk and may compile
                measured[name].add(Turn([seconds], seconds))
    report.add("import, in new processes", list(measured.values()))
    ratio = measured["asyncsvc"].cost(measured["asyncpg and pydantic"])
    report.target("import asyncsvc, against asyncpg and pydantic, time", ratio, maximum=1.25)


async def _imported(statement: str) -> float:
    """Return the seconds of an import of compiled modules, as in an installation."""
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, env=_COMPILING
    )
    printed, _ = await process.communicate()
    return float(printed)


async def _first_calls(dsn: str, secret: str, how: Scale, report: Report) -> None:
    """Measure opening a pool, connecting, preparing a statement and running it once."""
    bare, mine = Measured("asyncpg.connect"), Measured("connect and verify")
    for _ in range(how.connects):
        for each, work in ((bare, _connect(dsn)), (mine, _verify(dsn, secret))):
            began = time.perf_counter()
            await work
            seconds = time.perf_counter() - began
            each.add(Turn([seconds], seconds))
    report.add("from connecting to the first answer", [bare, mine])
    report.target("connect to first verify, p50 ms", mine.latency(50), maximum=50)


async def _connect(dsn: str) -> None:
    async with connected(dsn):
        pass


async def _verify(dsn: str, secret: str) -> None:
    async with asyncsvc.connect(dsn) as svc:
        await svc.tokens.verify(secret)


async def _backend(dsn: str, how: Scale, report: Report) -> None:
    """Measure the private memory of a connection's server process after many statements."""
    async with connected(dsn) as observer:
        await alone(observer)
        async with asyncsvc.connect(dsn, max_size=1) as svc:
            pid = await observer.fetchval(sql("other_pid"))
            before = _allocated(pid)
            get_list: Any = svc.conversations.get_list
            for filters in itertools.islice(itertools.cycle(_variants()), how.variants):
                await get_list(dialog_id="d", tenant_id=TENANT, total="none", **filters)
            after = _allocated(pid)
    if before is None or after is None:
        report.add_remark("left out: the memory of a server process, which is not readable here")
        return
    title = f"MiB of a connection's server process, {how.variants:,} statements"
    report.add_counts(title, {"at first": round(before, 1), "then": round(after, 1)})
    report.target(title, after, maximum=8)


def _variants() -> Iterator[Mapping[str, object]]:
    """Yield the parameters of 896 different statements: each set of filters in each order."""
    now = datetime.now(UTC)
    filters: dict[str, object] = {
        "id": "1", "user_id": "u", "exp_user_id": "e", "keywords": "parcel",
        "from_date": now - timedelta(days=1), "to_date": now,
    }  # fmt: skip
    for chosen in itertools.product((False, True), repeat=len(filters)):
        requested = dict(itertools.compress(filters.items(), chosen))
        for orderby, desc in itertools.product(ORDERS, (False, True)):
            yield {**requested, "orderby": orderby, "desc": desc}


def _allocated(pid: int) -> float | None:
    """Return the allocated memory of a process in MiB, or None if it is not readable.

    It excludes the server's shared buffers, which the process also maps.
    """
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:")) / 1_024
    return None
