"""Behind a pooler that keeps no prepared statements the server plans each call again.

"Direct, nothing prepared" shows this cost without the pooler. The rest is the cost of the
additional process. Each PgBouncer has 20 server connections, its default.
"""

from __future__ import annotations

import contextlib
from typing import Final

import asyncsvc
from benchmarks import pgbouncer
from benchmarks.bench import Bench
from benchmarks.contenders.library import connect
from benchmarks.suites import calls

SERVER_CONNECTIONS: Final = 20
"""PgBouncer's default. Fewer connections limit how many commits share one write to the disk."""


async def run(bench: Bench) -> None:
    """Measure calls directly and through PgBouncer in transaction mode, if it is installed."""
    if pgbouncer.program() is None:
        bench.remark("skipped: PgBouncer is not installed")
        return
    dsn, size, unprepared = bench.dsn, bench.tasks, asyncsvc.Settings(pgbouncer="transaction")
    async with (
        contextlib.AsyncExitStack() as stack,
        pgbouncer.running(dsn, server_connections=SERVER_CONNECTIONS) as dsns,
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
        if pgbouncer.can_keep_statements():
            sides["through PgBouncer, prepared"] = await _open_prepared(stack, dsn, size)
        else:
            bench.remark("without prepared statements: PgBouncer is older than 1.21")
        await calls.compare(bench, sides, {"append": calls.append, "a page of 20": calls.page})


async def _open_prepared(
    stack: contextlib.AsyncExitStack, dsn: str, size: int
) -> asyncsvc.AsyncSvc:
    """Connect through a PgBouncer that keeps prepared statements."""
    dsns = await stack.enter_async_context(
        pgbouncer.running(dsn, server_connections=SERVER_CONNECTIONS, max_prepared_statements=200)
    )
    settings = asyncsvc.Settings(pgbouncer="prepared")
    return await stack.enter_async_context(
        connect(dsns["transaction"], max_size=size, settings=settings)
    )
