"""The verification of a token, against a bare fetchrow of its row and RAGFlow's lookup."""

from __future__ import annotations

import asyncio
import functools
import itertools
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import asyncpg

import asyncsvc
from asyncsvc.services import credentials
from benchmarks.contenders.ragflow import RAGFlow
from benchmarks.contest import TASKS, spelled
from benchmarks.measuring import Contender, Measured, Work, contest
from benchmarks.report import Report
from benchmarks.server import alone, connected, connections
from benchmarks.statements import sql

TENANT = "acme"


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    tokens: int
    rounds: int
    seconds: float
    counted: int  # verifications whose writes are counted


SCALES = {
    "small": Scale(20, 2, 0.05, 200),
    "middle": Scale(200, 5, 0.2, 5_000),
    "full": Scale(1_000, 9, 0.3, 20_000),
}


async def run(dsn: str, scale: str, report: Report) -> None:
    """Measure, and add the tables to the report."""
    how = SCALES[scale]
    async with asyncsvc.connect(dsn, max_size=TASKS) as svc:
        await svc.migrate()
        tokens = [await _issued(svc) for _ in range(how.tokens)]
        flow = RAGFlow(dsn)
        try:
            await asyncio.to_thread(flow.create_tables)
            await asyncio.to_thread(flow.add_tokens, [(token, TENANT) for token in tokens])
            async with asyncpg.create_pool(dsn, min_size=0, max_size=TASKS) as pool:
                await pool.execute("VACUUM ANALYZE")
                await _same_answers(svc, pool, flow, tokens[0])
                arena = Arena(dsn, svc, pool, flow, tokens)
                for tasks in (1, TASKS):
                    await arena.held(tasks, how, report)
                    await arena.pooled(tasks, how, report)
                await arena.hot_against_many(how, report)
        finally:
            flow.close()
    await _writes(dsn, tokens, how, report)


async def _issued(svc: asyncsvc.AsyncSvc) -> str:
    issued = await svc.tokens.create(tenant_id=TENANT, name=secrets.token_hex(4), scopes=["chat"])
    return issued.secret.get_secret_value()


async def _same_answers(
    svc: asyncsvc.AsyncSvc, pool: asyncpg.Pool, flow: RAGFlow, token: str
) -> None:
    row = await pool.fetchrow(sql("bare_token"), _hash(token))
    verified = await svc.tokens.verify(token, record_use=False)
    assert row is not None  # noqa: S101 - different results are not comparable
    assert (row["id"], row["tenant_id"]) == (verified.id, verified.tenant_id)  # noqa: S101
    assert await flow.verify(token) == verified.tenant_id  # noqa: S101


def _hash(token: str) -> bytes:
    return credentials.Keyring(asyncsvc.Settings()).hash(token).token_hash


def _in_turn(tokens: Sequence[str]) -> Callable[[], str]:
    return itertools.cycle(tokens).__next__


@dataclass(frozen=True)
class Arena:
    """Runs the contests on one server with the same tokens."""

    dsn: str
    svc: asyncsvc.AsyncSvc
    pool: asyncpg.Pool
    flow: RAGFlow
    tokens: Sequence[str]

    async def contest(self, contenders: Sequence[Contender], how: Scale) -> list[Measured]:
        """Run a contest in a steady state: each token's `last_used_at` is up to 60 s old.

        So the updates of `last_used_at` are spread over time. Without this the first verification
        of each token would write, and the contest would measure the disk.
        """
        await self.pool.execute(sql("stamp_tokens"))
        await self.pool.execute("VACUUM ANALYZE asyncsvc.api_token")
        return await contest(contenders, rounds=how.rounds, seconds=how.seconds)

    async def held(self, tasks: int, how: Scale, report: Report) -> None:
        """Measure with one connection per task."""
        async with connections(self.dsn, tasks) as lent:
            for name, tokens in self._sets():
                contenders = [
                    Contender("bare fetchrow", [
                        _bare(connection, turn) for connection, turn in _each(lent, tokens)
                    ]),
                    Contender("verify", [
                        _verify(self.svc.on(connection), turn)
                        for connection, turn in _each(lent, tokens)
                    ]),
                    Contender("verify, read-only", [
                        _verify(self.svc.on(connection), turn, record_use=False)
                        for connection, turn in _each(lent, tokens)
                    ]),
                ]  # fmt: skip
                measured = await self.contest(contenders, how)
                report.add(f"held connections, {spelled(tasks)}, {name}", measured)

    async def pooled(self, tasks: int, how: Scale, report: Report) -> None:
        """Measure with a connection of a pool per operation, as in a web application."""
        for name, tokens in self._sets():
            turn = _in_turn(tokens)
            contenders = [
                Contender("bare pool.fetchrow", [_bare(self.pool, turn)] * tasks),
                Contender("verify", [_verify(self.svc, turn)] * tasks),
                Contender("as RAGFlow", [_ragflow(self.flow, turn)] * tasks),
            ]
            measured = await self.contest(contenders, how)
            report.add(f"through a pool, {spelled(tasks)}, {name}", measured)

    async def hot_against_many(self, how: Scale, report: Report) -> None:
        """Compare one token with many tokens, under concurrent verifications."""
        async with connections(self.dsn, TASKS) as lent:
            contenders = [
                Contender(name, [
                    _verify(self.svc.on(connection), turn)
                    for connection, turn in _each(lent, tokens)
                ])
                for name, tokens in reversed(self._sets())
            ]  # fmt: skip
            measured = await self.contest(contenders, how)
        report.add(f"held connections, {spelled(TASKS)}, hot against many", measured)

    def _sets(self) -> list[tuple[str, Sequence[str]]]:
        many = f"{len(self.tokens):,} tokens"
        return [("one token", self.tokens[:1]), (many, self.tokens)]


def _each(
    connections: Sequence[asyncpg.Connection], tokens: Sequence[str]
) -> Iterator[tuple[asyncpg.Connection, Callable[[], str]]]:
    turn = _in_turn(tokens)
    return ((connection, turn) for connection in connections)


def _bare(on: asyncpg.Connection | asyncpg.Pool, turn: Callable[[], str]) -> Work:
    hashed = functools.cache(_hash)
    return lambda: on.fetchrow(sql("bare_token"), hashed(turn()))


def _verify(svc: asyncsvc.Services, turn: Callable[[], str], *, record_use: bool = True) -> Work:
    return lambda: svc.tokens.verify(turn(), record_use=record_use)


def _ragflow(flow: RAGFlow, turn: Callable[[], str]) -> Work:
    return lambda: flow.verify(turn())


async def _writes(dsn: str, tokens: Sequence[str], how: Scale, report: Report) -> None:
    """Count the row writes and the WAL of many verifications of tokens that were never used."""
    for name, interval in (("interval 60 s", 60.0), ("each use", 0.0), ("never", None)):
        for which, used in (("one token", tokens[:1]), (f"{len(tokens):,} tokens", tokens)):
            async with connected(dsn) as connection:
                await connection.execute(sql("unstamp_tokens"))
                await connection.execute("VACUUM ANALYZE asyncsvc.api_token")
                await connection.execute("CHECKPOINT")
            before = await _counted(dsn)
            settings = asyncsvc.Settings(last_used_resolution=interval)
            async with asyncsvc.connect(dsn, max_size=TASKS, settings=settings) as svc:
                work = _verify(svc, _in_turn(used))
                await asyncio.gather(*(_times(how.counted // TASKS, work) for _ in range(TASKS)))
            after = await _counted(dsn)
            report.add_counts(
                f"{how.counted // TASKS * TASKS:,} verifications, last_used_at {name}, {which}",
                {"row writes": after[0] - before[0], "WAL bytes": after[1] - before[1]},
            )


async def _times(count: int, work: Work) -> None:
    for _ in range(count):
        await work()


async def _counted(dsn: str) -> tuple[int, int]:
    async with connected(dsn) as connection:
        await alone(connection)  # the end of a session flushes its statistics
        row = await connection.fetchrow(sql("token_writes"))
    assert row is not None  # noqa: S101
    return int(row[0]), int(row[1])


__all__ = ["SCALES", "Measured", "run"]
