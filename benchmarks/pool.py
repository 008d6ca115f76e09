"""One statement through the library's own pool, asyncpg's pool and psycopg's pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

import asyncsvc
from benchmarks.contenders import bare, pgbench, psycopg
from benchmarks.contest import EFFORTS, ContestRunner, Effort, spelled
from benchmarks.measuring import Competitor, Contender, Work, agree
from benchmarks.report import Report
from benchmarks.server import connected

SIZE = 10  # the default of the 3 pools
TENANT = "pool"


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    effort: Effort


SCALES = {name: Scale(effort) for name, effort in EFFORTS.items()}


async def run(dsn: str, scale: str, report: Report) -> None:
    """Measure, and add the tables to the report."""
    runner = ContestRunner(dsn, report, SCALES[scale].effort)
    async with asyncsvc.connect(dsn, max_size=SIZE) as own:
        await own.migrate()
        issued = await own.tokens.create(tenant_id=TENANT, name="benchmark")
        secret = issued.secret.get_secret_value()
        async with connected(dsn) as connection:
            held = _verify(own.on(connection), secret)
            query, arguments = await bare.captured(connection, held)
        async with (
            asyncpg.create_pool(dsn, min_size=1, max_size=SIZE) as pool,
            psycopg.pooled(dsn, SIZE) as other,
        ):

            async def by_psycopg() -> object:
                async with other.connection() as lent:
                    return (await psycopg.fetch(lent, query, arguments))[0]

            ways: dict[str, Work] = {
                "asyncsvc on asyncpg's pool": _verify(asyncsvc.AsyncSvc(pool), secret),
                "asyncsvc's own pool": _verify(own, secret),
                "bare statement, asyncpg's pool": lambda: pool.fetchrow(query, *arguments),
                "bare statement, psycopg's pool": by_psycopg,
            }
            await agree("a token", {name: _id(work) for name, work in ways.items()})
            for count in (1, runner.effort.tasks):
                alone = pgbench.alone("bare statement, pgbench", dsn, query, arguments, count)
                contenders = [Contender(name, [work] * count) for name, work in ways.items()]
                await _contest(runner, count, [*contenders, *alone])


async def _contest(runner: ContestRunner, count: int, contenders: Sequence[Competitor]) -> None:
    title = f"one statement through a pool of {SIZE}, {spelled(count)}"
    borrowed, own, *_ = await runner.contest(title, contenders)
    runner.report.target(f"{title}: own pool against asyncpg's", own.ratio(borrowed), minimum=1.4)


def _verify(svc: asyncsvc.Services, secret: str) -> Work:
    return lambda: svc.tokens.verify(secret, record_use=False)


def _id(work: Work) -> Work:
    async def id() -> object:
        row = await work()
        if isinstance(row, asyncsvc.APIToken):
            return row.id
        return row["id"] if isinstance(row, asyncpg.Record) else row[0]  # type: ignore[index]

    return id
