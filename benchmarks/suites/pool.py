"""asyncpg's pool sends a second statement to reset a connection when it is released.

The library's own pool sends none, because the library's statements leave no session state. The rest
of the difference to the bare statement is the check of the token's format, its hash, and the model.
"""

from __future__ import annotations

import asyncpg

import asyncsvc
from benchmarks.bench import Bench, task_count
from benchmarks.contenders import bare, pgbench, psycopg
from benchmarks.contenders.library import connect
from benchmarks.measuring import Work
from benchmarks.server import connected

SIZE = 10  # the default of the 3 pools


async def run(bench: Bench) -> None:
    """Measure one statement through the library's own pool, asyncpg's and psycopg's."""
    dsn = bench.dsn
    async with (
        connect(dsn, max_size=SIZE) as own,
        asyncpg.create_pool(dsn, min_size=1, max_size=SIZE) as pool,
        psycopg.pooled(dsn, SIZE) as other,
        connected(dsn) as connection,
    ):
        await own.migrate()
        issued = await own.tokens.create(tenant_id="pool", name="benchmark")
        secret = issued.secret.get_secret_value()
        query, arguments = await bare.captured(connection, _verify(own.on(connection), secret))

        async def by_psycopg() -> object:
            async with other.connection() as borrowed:
                return (await psycopg.fetch(borrowed, query, arguments))[0]

        contenders: dict[str, Work] = {
            "asyncsvc on asyncpg's pool": _verify(asyncsvc.AsyncSvc(pool), secret),
            "asyncsvc's own pool": _verify(own, secret),
            "bare statement, asyncpg's pool": lambda: pool.fetchrow(query, *arguments),
            "bare statement, psycopg's pool": by_psycopg,
        }
        for tasks in (1, bench.tasks):
            by_pgbench = pgbench.contender("bare statement, pgbench", dsn, query, arguments, tasks)
            title = f"one statement through a pool of {SIZE}"
            by = await bench.contest(title, {**contenders, **by_pgbench}, tasks=tasks, answer=_id)
            ratio = by["asyncsvc's own pool"].ratio(by["asyncsvc on asyncpg's pool"])
            title = f"{title}, {task_count(tasks)}: own pool against asyncpg's"
            bench.target(title, ratio, at_least=1.4)


def _verify(svc: asyncsvc.Services, secret: str) -> Work:
    return lambda: svc.tokens.verify(secret, record_use=False)


def _id(token: asyncsvc.APIToken | asyncpg.Record | tuple[object, ...]) -> object:
    return token.id if isinstance(token, asyncsvc.APIToken) else token[0]
