"""Databases of a cluster of Citus. They are created on each node, since Citus does not do that."""

from __future__ import annotations

import contextlib
import secrets
import urllib.parse
from collections.abc import AsyncIterator, Sequence

from benchmarks.server import connected, sql


async def nodes(coordinator: str) -> list[str]:
    """Return the DSNs of the coordinator and of the workers that its database names."""
    async with connected(coordinator) as connection:
        has_citus = await connection.fetchval("SELECT to_regclass('pg_dist_node') IS NOT NULL")
        workers = await connection.fetch(sql("workers")) if has_citus else []
    parts = urllib.parse.urlsplit(coordinator)
    login, at, _ = parts.netloc.rpartition("@")
    return [
        coordinator,
        *(
            parts._replace(netloc=f"{login}{at}{worker['nodename']}:{worker['nodeport']}").geturl()
            for worker in workers
        ),
    ]


async def join(coordinator: str, workers: Sequence[str]) -> None:
    """Make databases without the extension a cluster. Without workers the first has all shards."""
    for node in (coordinator, *workers):
        async with connected(node) as connection:
            await connection.execute("CREATE EXTENSION citus")
    own = _address(coordinator)
    async with connected(coordinator) as connection:
        await connection.fetch("SELECT citus_set_coordinator_host($1, $2)", *own)
        for worker in workers:
            await connection.fetch("SELECT citus_add_node($1, $2)", *_address(worker))
        if not workers:
            await connection.fetch(
                "SELECT citus_set_node_property($1, $2, 'shouldhaveshards', true)", *own
            )


@contextlib.asynccontextmanager
async def database(coordinator: str, workers: int) -> AsyncIterator[str]:
    """Yield the DSN of a new database over this number of workers, which is dropped at the end."""
    used = (await nodes(coordinator))[: workers + 1]
    name = f"asyncsvc_benchmarks_{secrets.token_hex(4)}"
    async with contextlib.AsyncExitStack() as stack:
        for node in used:
            connection = await stack.enter_async_context(connected(node))
            await connection.execute(f"CREATE DATABASE {name}")
            stack.push_async_callback(connection.execute, f"DROP DATABASE {name} WITH (FORCE)")
        own, *others = (
            urllib.parse.urlsplit(node)._replace(path=f"/{name}").geturl() for node in used
        )
        await join(own, others)
        yield own


def _address(dsn: str) -> tuple[str, int]:
    """Return host and port of a DSN."""
    parts = urllib.parse.urlsplit(dsn)
    return parts.hostname or "localhost", parts.port or 5432
