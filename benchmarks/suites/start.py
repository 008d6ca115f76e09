"""Most of the import is pydantic, which collects the fields of each model.

The import of `BaseModel` in the first row is a small part of that. Validators are built at their
first use. Most of the first call is the start of a server process; the call takes {from connecting
to the first answer: connect and verify / asyncpg.connect} times as long as a bare connection. These
are the only cold measurements here: the connection, its catalog cache and the statement are new,
but the pages are in memory.

A connection keeps its prepared statements with their plans. The library's own pool keeps 20 of them
and asyncpg 100, so the memory has a limit for any number of variants. A smaller number would take
less memory, but a service with more variants would prepare them repeatedly, for 1 round trip each.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncsvc
from benchmarks.bench import Bench
from benchmarks.measuring import SelfTimed, Turn
from benchmarks.server import connected, sql, wait_until_alone

TENANT = "start"
ORDERS = ("created_at", "updated_at", "name", "round", "tokens", "duration", "thumb_up")


async def run(bench: Bench) -> None:
    """Measure the import, the first call, and the memory of a connection's server process."""
    async with asyncsvc.connect(bench.dsn) as svc:
        await svc.migrate()
        issued = await svc.tokens.create(tenant_id=TENANT, name="benchmark")
    await _imports(bench)
    await _first_calls(bench, issued.secret.get_secret_value())
    await _backend(bench)


async def _imports(bench: Bench) -> None:
    statements = {
        "asyncpg and pydantic": "import asyncpg; from pydantic import BaseModel",
        "asyncsvc": "import asyncsvc",
    }
    for statement in statements.values():
        await _import(statement)  # the first import reads from the disk and may compile
    contenders = {
        name: SelfTimed(functools.partial(_import, each)) for name, each in statements.items()
    }
    rounds = bench.choose(1, 10, 25)
    by = await bench.contest("import, in new processes", contenders, rounds=rounds)
    cost = by["asyncsvc"].cost(by["asyncpg and pydantic"])
    bench.target("import asyncsvc, against asyncpg and pydantic, time", cost, at_most=1.25)


async def _import(statement: str) -> Turn:
    """Measure the import of compiled modules, as in an installation."""
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    compiling = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, env=compiling
    )
    printed, _ = await process.communicate()
    return Turn([float(printed)], float(printed))


async def _first_calls(bench: Bench, secret: str) -> None:
    """Measure opening a pool, connecting, preparing a statement and running it once."""

    async def connect() -> None:
        async with connected(bench.dsn):
            pass

    async def verify() -> None:
        async with asyncsvc.connect(bench.dsn) as svc:
            await svc.tokens.verify(secret)

    contenders = {"asyncpg.connect": connect, "connect and verify": verify}
    rounds = bench.choose(1, 10, 30)
    title = "from connecting to the first answer"
    by = await bench.contest(title, contenders, rounds=rounds, seconds=0)
    bench.target(
        "connect to first verify, p50 ms", by["connect and verify"].latency(50), at_most=50
    )


async def _backend(bench: Bench) -> None:
    """Measure the private memory of a connection's server process after many statements."""
    count = bench.choose(20, 1_000, 1_000)
    async with connected(bench.dsn) as observer:
        await wait_until_alone(observer)
        async with asyncsvc.connect(bench.dsn, max_size=1) as svc:
            pid = await observer.fetchval(sql("other_sessions"))
            before = _allocated(pid)
            for filters in itertools.islice(itertools.cycle(_variants()), count):
                get_list = functools.partial(svc.conversations.get_list, **filters)
                await get_list(dialog_id="d", tenant_id=TENANT, total="none")
            after = _allocated(pid)
    if before is None or after is None:
        bench.remark("skipped: the memory of a server process is not readable on this system")
        return
    title = f"MiB of a connection's server process, {count:,} statements"
    bench.counts(title, {"before": round(before, 1), "after": round(after, 1)})
    bench.target(title, after, at_most=8)


def _variants() -> Iterator[Mapping[str, Any]]:
    """Yield the parameters of 896 different statements: each set of filters in each order."""
    now = datetime.now(UTC)
    filters = {
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
