"""With row-level security each call opens a transaction and sets its tenant first.

The cost is that of the additional round trips.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
import urllib.parse
from collections.abc import AsyncIterator

import asyncsvc
from benchmarks.bench import Bench
from benchmarks.contenders.library import connect
from benchmarks.measuring import Work
from benchmarks.server import connected
from benchmarks.suites import calls


async def run(bench: Bench) -> None:
    """Measure calls as the tables' owner and as a restricted role."""
    settings = asyncsvc.Settings(row_level_security=True)
    async with connect(bench.dsn, settings=settings) as svc:
        await svc.migrate()
    async with (
        _restricted(bench) as restricted,
        connect(bench.dsn, max_size=bench.tasks) as owner,
    ):
        await calls.create_conversations(owner)
        size = bench.choose(20, 1_000, 10_000)
        messages = [message.model_dump() for message in calls.TURN.messages]
        records = (
            {"id": f"old{number}", "dialog_id": "d", "messages": messages} for number in range(size)
        )
        await owner.conversations.import_(records, tenant_id=calls.TENANT)
        issued = await owner.tokens.create(tenant_id=calls.TENANT, name="benchmark")
        verify = functools.partial(_verify, issued.secret.get_secret_value())
        await calls.compare(
            bench,
            {"the owner": owner, "a restricted role": restricted},
            {"verify": verify, "a page of 20": calls.page, "append": calls.append},
            rounds=bench.choose(2, 5, 15),
        )


@contextlib.asynccontextmanager
async def _restricted(bench: Bench) -> AsyncIterator[asyncsvc.AsyncSvc]:
    """Yield the services with a restricted role that exists for this block."""
    role = f"asyncsvc_benchmarks_{secrets.token_hex(4)}"
    dsn = urllib.parse.urlsplit(bench.dsn)._replace(query=f"role={role}").geturl()
    settings = asyncsvc.Settings(row_level_security=True)
    async with connected(bench.dsn) as connection:
        await connection.execute(f"CREATE ROLE {role}")
        try:
            await connection.execute(
                f"GRANT USAGE ON SCHEMA asyncsvc TO {role};"
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA asyncsvc TO {role}"
            )
            async with connect(dsn, max_size=bench.tasks, settings=settings) as svc:
                await svc.check()
                yield svc
        finally:
            await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def _verify(secret: str, svc: asyncsvc.Services) -> Work:
    async def work() -> str:
        return (await svc.tokens.verify(secret)).id

    return work
