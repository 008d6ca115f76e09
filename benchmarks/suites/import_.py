"""The lower bound of an import is COPY into tables with their indexes, the first row.

The library also validates each record and each message, and writes the search index.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from benchmarks import child_process
from benchmarks.bench import Bench, Point
from benchmarks.contenders import bare, stores
from benchmarks.measuring import Measured, Turn, Work, agree
from benchmarks.server import connected, sql

CONTENDERS: Mapping[str, tuple[str, str]] = {
    "COPY by psycopg": ("copy", child_process.COPY_SCHEMA),
    "asyncsvc": ("import_", "asyncsvc"),
    "SQLAlchemy": ("insert", "orm"),
}
"""The call of `child_process` and the schema of each contender."""


async def run(bench: Bench) -> None:
    """Measure imports of whole conversations: messages per second and peak memory."""
    async with stores.opened(bench, 1):
        await bare.create_tables(bench.dsn, child_process.COPY_SCHEMA)
    peaks = [
        (await _import(bench, count))["asyncsvc"]
        for count in bench.choose((20,), (1_000, 4_000), (1_000, 10_000))
    ]
    title = "peak memory of the largest import against the smallest, asyncsvc"
    bench.target(title, peaks[-1] / peaks[0], at_most=1.2)


async def _import(bench: Bench, count: int) -> dict[str, float]:
    """Import the same records with each contender; return the peaks of memory."""
    by, peaks = {name: Measured() for name in CONTENDERS}, dict.fromkeys(CONTENDERS, 0.0)
    messages = count * child_process.MESSAGES
    for number in range(bench.choose(1, 3, 3)):
        tenant, contenders = f"import{count}-{number}", dict[str, Work]()
        for name, (work, schema) in CONTENDERS.items():
            with bench.working(f"{messages:,} messages, {name}, round {number + 1}"):
                spent = await child_process.measured(work, bench.dsn, tenant, count)
            by[name].add(Turn([spent.seconds / messages] * messages, spent.seconds))
            peaks[name] = max(peaks[name], round(spent.peak, 1))
            contenders[name] = functools.partial(_imported, bench.dsn, schema, tenant)
        await agree(f"an import of {messages}", contenders)
    title = f"import of {messages:,} messages"
    process = f"{title}, each in a new process, in messages"
    bench.table(process, by, point=Point("import", messages))
    bench.counts(f"peak MiB of an {title}", peaks)
    return peaks


async def _imported(dsn: str, schema: str, tenant: str) -> tuple[object, ...]:
    """Return the counts and the digest of a tenant's messages in a schema."""
    async with connected(dsn, schema) as connection:
        (row,) = await connection.fetch(sql("imported"), tenant)
    return tuple(row)
