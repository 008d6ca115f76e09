"""Most of a verification is the round trip.

The second largest cost is Python: the hash of the secret, the checks of the row, and the model.
RAGFlow makes 2 queries in a new thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg

import asyncsvc
from asyncsvc.services import credentials
from benchmarks.bench import Bench, Contenders
from benchmarks.contenders.library import connect
from benchmarks.contenders.ragflow import RAGFlow
from benchmarks.measuring import Work
from benchmarks.server import activity, connected, connections, sql, updates, wait_until_alone

TENANT = "acme"
Next: TypeAlias = Callable[[], str]
"""Returns the next of several secrets."""


async def run(bench: Bench) -> None:
    """Measure verifications of one token and of many, and count their writes."""
    async with (
        connect(bench.dsn, max_size=bench.tasks) as svc,
        asyncpg.create_pool(bench.dsn, min_size=0, max_size=bench.tasks) as pool,
    ):
        await svc.migrate()
        secrets = [await _issued(svc) for _ in range(bench.choose(20, 200, 1_000))]
        with contextlib.closing(RAGFlow(bench.dsn)) as flow:
            flow.add_tokens(secrets, TENANT)
            suite = _Suite(bench, svc, pool, flow, secrets)
            for tasks in (1, bench.tasks):
                await suite.held(tasks)
                await suite.pooled(tasks)
            await suite.hot_against_many()
    await suite.writes()


async def _issued(svc: asyncsvc.AsyncSvc) -> str:
    issued = await svc.tokens.create(tenant_id=TENANT, name="benchmark", scopes=["chat"])
    return issued.secret.get_secret_value()


@dataclass(frozen=True)
class _Suite:
    bench: Bench
    svc: asyncsvc.AsyncSvc
    pool: asyncpg.Pool
    flow: RAGFlow
    secrets: Sequence[str]

    @property
    def sets(self) -> dict[str, Sequence[str]]:
        return {"one token": self.secrets[:1], f"{len(self.secrets):,} tokens": self.secrets}

    async def held(self, tasks: int) -> None:
        """Measure with one connection per task."""
        async with connections(self.bench.dsn, tasks) as held:
            on = [self.svc.on(connection) for connection in held]
            for name, secrets in self.sets.items():
                turn = itertools.cycle(secrets).__next__
                contenders = {
                    "bare fetchrow": [_bare(connection, turn) for connection in held],
                    "verify": [_verify(svc, turn) for svc in on],
                    "verify, read-only": [_verify(svc, turn, record_use=False) for svc in on],
                }
                await self._contest(f"held connections, {name}", contenders, tasks, secrets)

    async def pooled(self, tasks: int) -> None:
        """Measure with a connection of a pool per operation, as in a web application."""
        for name, secrets in self.sets.items():
            turn = itertools.cycle(secrets).__next__
            contenders: dict[str, Work] = {
                "bare pool.fetchrow": _bare(self.pool, turn),
                "verify": _verify(self.svc, turn),
                "as RAGFlow": functools.partial(_by_ragflow, self.flow, turn),
            }
            await self._contest(f"through a pool, {name}", contenders, tasks, secrets)

    async def hot_against_many(self) -> None:
        """Compare one token with many tokens, under concurrent verifications."""
        tasks = self.bench.tasks
        async with connections(self.bench.dsn, tasks) as held:
            contenders = {}
            for name, secrets in reversed(self.sets.items()):
                turn = itertools.cycle(secrets).__next__
                contenders[name] = [_verify(self.svc.on(connection), turn) for connection in held]
            await self._contest(
                "held connections, hot against many", contenders, tasks, self.secrets
            )

    async def _contest(
        self, title: str, contenders: Contenders, tasks: int, secrets: Sequence[str]
    ) -> None:
        """Run a contest in a steady state: each token's `last_used_at` is up to 60 s old.

        Therefore the updates of `last_used_at` are spread over time. Otherwise the first
        verification of each token would write, and the contest would measure the disk.
        """
        await self.pool.execute(sql("set_last_used"), 60.0)
        await self.pool.execute("VACUUM ANALYZE asyncsvc.api_token")
        answer = _tenant if len(secrets) == 1 else None
        await self.bench.contest(title, contenders, tasks=tasks, answer=answer)

    async def writes(self) -> None:
        """Count the row writes and the WAL of verifications of tokens that were never used."""
        tasks = self.bench.tasks
        each = self.bench.choose(200, 5_000, 20_000) // tasks
        for name, resolution in (("interval 60 s", 60.0), ("each use", 0.0), ("never", None)):
            for which, secrets in self.sets.items():
                async with connected(self.bench.dsn) as connection:
                    await connection.execute(sql("set_last_used"), None)
                    await connection.execute("VACUUM ANALYZE asyncsvc.api_token")
                    await connection.execute("CHECKPOINT")
                before = await self._written()
                settings = asyncsvc.Settings(last_used_resolution=resolution)
                async with connect(self.bench.dsn, max_size=tasks, settings=settings) as svc:
                    verify = _verify(svc, itertools.cycle(secrets).__next__)
                    await asyncio.gather(*(_repeat(verify, each) for _ in range(tasks)))
                rows, wal = await self._written()
                self.bench.counts(
                    f"{each * tasks:,} verifications, last_used_at {name}, {which}",
                    {"row writes": rows - before[0], "WAL bytes": wal - before[1]},
                )

    async def _written(self) -> tuple[int, int]:
        """Return the updates of tokens and the bytes of WAL so far."""
        async with connected(self.bench.dsn) as connection:
            await wait_until_alone(connection)  # the end of a session flushes its statistics
            updated, _ = await updates(connection, "asyncsvc.api_token")
            return updated, (await activity(connection)).wal


def _bare(on: asyncpg.Connection | asyncpg.Pool, turn: Next) -> Work:
    keyring = credentials.Keyring(asyncsvc.Settings())
    hashed = functools.cache(lambda secret: keyring.hash(secret).token_hash)
    return lambda: on.fetchrow(sql("bare_token"), hashed(turn()))


def _verify(svc: asyncsvc.Services, turn: Next, *, record_use: bool = True) -> Work:
    return lambda: svc.tokens.verify(turn(), record_use=record_use)


async def _by_ragflow(flow: RAGFlow, turn: Next) -> str:
    return await flow.verify(turn())


def _tenant(answer: Any) -> str:  # noqa: ANN401 - a model, a row or RAGFlow's tenant
    if isinstance(answer, str):
        return answer
    return str(answer["tenant_id"] if isinstance(answer, asyncpg.Record) else answer.tenant_id)


async def _repeat(work: Work, count: int) -> None:
    for _ in range(count):
        await work()
