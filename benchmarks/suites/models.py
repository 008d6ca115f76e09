"""Most of the time of a page is the server's, which reads and sends the rows.

Then pydantic builds all models in 1 call. A dict per row is the lower bound for a result in Python.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import asyncpg

from benchmarks import data
from benchmarks.bench import Bench, Point
from benchmarks.contenders import bare
from benchmarks.contenders.library import connect
from benchmarks.measuring import Work
from benchmarks.server import connected


async def run(bench: Bench) -> None:
    """Measure a page as models, against the same rows as dicts."""
    tenant = data.of_size(bench.choose(200, 10_000, 10_000))
    async with connect(bench.dsn) as svc, connected(bench.dsn) as connection:
        await svc.migrate()
        await data.fill(bench, tenant, "asyncsvc")
        for items in bench.choose((20, 100), (20, 100, 1_000), (20, 100, 1_000)):
            page = functools.partial(
                svc.on(connection).conversations.get_list,
                tenant_id=tenant.name, dialog_id=tenant.dialog,
                items_per_page=items, total="none", include_dsl=False,
            )  # fmt: skip
            query, arguments = await bare.captured(connection, page)

            contenders: dict[str, Work] = {
                "dicts": functools.partial(_dicts, connection, query, arguments),
                "asyncsvc's models": page,
            }
            title, point = f"a page of {items:,}", Point("models", items)
            by = await bench.contest(
                f"{title}, held connection", contenders,
                tasks=1, point=point, answer=functools.partial(_ids, items),
            )  # fmt: skip
            cost = by["asyncsvc's models"].cost(by["dicts"])
            bench.target(f"{title}, models against dicts", cost, at_most=1.5)


async def _dicts(
    connection: asyncpg.Connection, query: str, arguments: Sequence[object]
) -> list[dict[str, object]]:
    return [dict(row) for row in await connection.fetch(query, *arguments)]


def _ids(items: int, page: object) -> list[str]:
    return data.ids(page)[:items]  # a further row shows that there is a next page
