"""The cost of PgBouncer in transaction mode per call, if PgBouncer is installed."""

from __future__ import annotations

import secrets

import asyncsvc
from benchmarks import pgbouncer
from benchmarks.contest import EFFORTS, ContestRunner, spelled
from benchmarks.measuring import Contender, Work
from benchmarks.report import Report

TENANT = "pooled"
CONVERSATIONS = 64
TURN = asyncsvc.Turn(messages=[asyncsvc.Message(role="user", content="Where is my parcel?")])


async def run(dsn: str, scale: str, report: Report) -> None:
    """Measure, and add the tables to the report."""
    if pgbouncer.program() is None:
        report.add_remark("left out: PgBouncer, which is not installed")
        return
    runner = ContestRunner(dsn, report, EFFORTS[scale])
    tasks = runner.effort.tasks
    async with (
        pgbouncer.running(dsn, server_connections=tasks) as dsns,
        asyncsvc.connect(dsn, max_size=tasks) as direct,
        asyncsvc.connect(
            dsns["transaction"], max_size=tasks, settings=asyncsvc.Settings(pgbouncer=True)
        ) as pooled,
    ):
        await direct.migrate()
        live = [{"id": str(number), "dialog_id": "d"} for number in range(CONVERSATIONS)]
        await direct.conversations.create_many(live, tenant_id=TENANT)
        unprepared = asyncsvc.Settings(pgbouncer=True)
        async with asyncsvc.connect(dsn, max_size=tasks, settings=unprepared) as plain:
            sides = {
                "direct": direct,
                "direct, nothing prepared": plain,
                "through PgBouncer": pooled,
            }
            for call, work in {"append": _append, "a page of 20": _page}.items():
                for count in (1, tasks):
                    contenders = [
                        Contender(name, [work(svc)] * count) for name, svc in sides.items()
                    ]
                    await runner.contest(f"{call}, {spelled(count)}", contenders)


def _append(svc: asyncsvc.AsyncSvc) -> Work:
    async def work() -> None:
        id = str(secrets.randbelow(CONVERSATIONS))
        await svc.conversations.append_message(id, TURN, tenant_id=TENANT)

    return work


def _page(svc: asyncsvc.AsyncSvc) -> Work:
    async def work() -> None:
        await svc.conversations.get_list(
            dialog_id="d", tenant_id=TENANT, items_per_page=20, total="none"
        )

    return work
