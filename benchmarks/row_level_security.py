"""The cost of row-level security: the same calls as the tables' owner and as a restricted role."""

from __future__ import annotations

import contextlib
import secrets
import urllib.parse
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg

import asyncsvc
from benchmarks.measuring import Contender, Work, contest
from benchmarks.report import Report

TASKS = 32
TENANT = "acme"
TURN = asyncsvc.Turn(messages=[asyncsvc.Message(role="user", content="Where is my parcel?")])


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    conversations: int
    rounds: int
    seconds: float


SCALES = {
    "small": Scale(20, 2, 0.05),
    "middle": Scale(1_000, 5, 0.2),
    "full": Scale(10_000, 15, 0.4),
}


async def run(dsn: str, scale: str, report: Report) -> None:
    """Measure, and add the tables to the report."""
    how = SCALES[scale]
    async with asyncsvc.connect(
        dsn, max_size=TASKS, settings=asyncsvc.Settings(row_level_security=True)
    ) as svc:
        await svc.migrate()
    async with _restricted(dsn) as restricted, asyncsvc.connect(dsn, max_size=TASKS) as owner:
        token = await _filled(owner, how)
        sides = {"the owner": owner, "a restricted role": restricted}
        for call, work in _CALLS.items():
            assert await work(owner, token)() == await work(restricted, token)()  # noqa: S101
            for tasks in (1, TASKS):
                contenders = [
                    Contender(name, [work(svc, token)] * tasks) for name, svc in sides.items()
                ]
                measured = await contest(contenders, rounds=how.rounds, seconds=how.seconds)
                report.add(f"{call}, {tasks} task{'' if tasks == 1 else 's'}", measured)


@contextlib.asynccontextmanager
async def _restricted(dsn: str) -> AsyncIterator[asyncsvc.AsyncSvc]:
    """Yield the services with a restricted role that exists for this block."""
    role = f"asyncsvc_benchmarks_{secrets.token_hex(4)}"
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(f"CREATE ROLE {role}")
        try:
            await connection.execute(f"GRANT USAGE ON SCHEMA asyncsvc TO {role}")
            await connection.execute(
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA asyncsvc TO {role}"
            )
            restricted_dsn = urllib.parse.urlsplit(dsn)._replace(query=f"role={role}").geturl()
            settings = asyncsvc.Settings(row_level_security=True)
            async with asyncsvc.connect(restricted_dsn, max_size=TASKS, settings=settings) as svc:
                await svc.check()
                yield svc
        finally:
            await connection.execute(f"DROP OWNED BY {role}")
            await connection.execute(f"DROP ROLE {role}")
    finally:
        await connection.close()


async def _filled(svc: asyncsvc.AsyncSvc, how: Scale) -> str:
    records = [
        {
            "id": str(number),
            "dialog_id": "d",
            "messages": [message.model_dump() for message in TURN.messages],
        }
        for number in range(how.conversations)
    ]
    await svc.conversations.import_(records, tenant_id=TENANT)
    issued = await svc.tokens.create(tenant_id=TENANT, name="benchmark")
    return issued.secret.get_secret_value()


def _verify(svc: asyncsvc.AsyncSvc, token: str) -> Work:
    async def work() -> str:
        return (await svc.tokens.verify(token)).id

    return work


def _page(svc: asyncsvc.AsyncSvc, _token: str) -> Work:
    async def work() -> list[str]:
        page = await svc.conversations.get_list(
            dialog_id="d", tenant_id=TENANT, items_per_page=20, total="none"
        )
        return [item.id for item in page.items]

    return work


def _append(svc: asyncsvc.AsyncSvc, _token: str) -> Work:
    async def work() -> int:
        id = secrets.choice(("1", "2", "3", "4", "5", "6", "7", "8"))
        appended = await svc.conversations.append_message(id, TURN, tenant_id=TENANT)
        return appended.last_seq - appended.first_seq

    return work


_CALLS = {"verify": _verify, "a page of 20": _page, "append": _append}
