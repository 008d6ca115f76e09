"""With a pooler in transaction mode no statement is prepared, so the server plans each call.

"Direct, nothing prepared" shows this cost without the pooler. The rest is the cost of the
additional process.
"""

from __future__ import annotations

import asyncsvc
from benchmarks import pgbouncer
from benchmarks.bench import Bench
from benchmarks.contenders.library import connect
from benchmarks.suites import calls


async def run(bench: Bench) -> None:
    """Measure calls directly and through PgBouncer in transaction mode, if it is installed."""
    if pgbouncer.program() is None:
        bench.remark("skipped: PgBouncer is not installed")
        return
    dsn, size, unprepared = bench.dsn, bench.tasks, asyncsvc.Settings(pgbouncer=True)
    async with (
        pgbouncer.running(dsn, server_connections=size) as dsns,
        connect(dsn, max_size=size) as direct,
        connect(dsn, max_size=size, settings=unprepared) as plain,
        connect(dsns["transaction"], max_size=size, settings=unprepared) as pooled,
    ):
        await direct.migrate()
        await calls.create_conversations(direct)
        sides = {
            "direct": direct,
            "direct, nothing prepared": plain,
            "through PgBouncer": pooled,
        }
        await calls.compare(bench, sides, {"append": calls.append, "a page of 20": calls.page})
