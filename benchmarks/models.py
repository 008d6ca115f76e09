"""The cost of building models: a page as models against the same rows as dicts."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import asyncpg

import asyncsvc
from benchmarks import data
from benchmarks.contenders import bare
from benchmarks.contest import EFFORTS, ContestRunner, Effort
from benchmarks.measuring import Contender, Work, agree
from benchmarks.report import Place, Report
from benchmarks.server import connected


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    conversations: int
    items: tuple[int, ...]
    effort: Effort


SCALES = {
    "small": Scale(200, (20, 100), EFFORTS["small"]),
    "middle": Scale(10_000, (20, 100, 1_000), EFFORTS["middle"]),
    "full": Scale(10_000, (20, 100, 1_000), EFFORTS["full"]),
}


async def run(dsn: str, scale: str, report: Report) -> None:
    """Measure, and add the tables to the report."""
    how = SCALES[scale]
    tenant = data.of_size(how.conversations)
    runner = ContestRunner(dsn, report, how.effort)
    async with asyncsvc.connect(dsn) as svc, connected(dsn) as connection:
        await svc.migrate()
        await data.fill(dsn, tenant, data.LIBRARY, report)
        for items in how.items:
            page = functools.partial(
                svc.on(connection).conversations.get_list,
                tenant_id=tenant.name, dialog_id=tenant.dialog,
                items_per_page=items, total="none", include_dsl=False,
            )  # fmt: skip
            await _contest(runner, connection, page, items)


async def _contest(
    runner: ContestRunner, connection: asyncpg.Connection, page: Work, items: int
) -> None:
    query, arguments = await bare.captured(connection, page)

    async def dicts() -> list[dict[str, object]]:
        return [dict(row) for row in await connection.fetch(query, *arguments)]

    async def ids_of_dicts() -> list[object]:  # 1 more row shows that there is a next page
        return [row["id"] for row in (await dicts())[:items]]

    async def ids_of_models() -> list[object]:
        result = await page()
        assert isinstance(result, asyncsvc.Page)  # noqa: S101
        return [item.id for item in result.items]

    await agree(f"a page of {items}", {"dicts": ids_of_dicts, "models": ids_of_models})
    contenders = [Contender("dicts", [dicts]), Contender("asyncsvc's models", [page])]
    title = f"a page of {items:,}, held connection, 1 task"
    plain, models = await runner.contest(title, contenders, place=Place("models", items))
    runner.report.target(
        f"a page of {items:,}, models against dicts", models.cost(plain), maximum=1.5
    )
