"""What the tests of the adapters of histories share: a pool for each process, and the wire."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg

import asyncsvc
from asyncsvc import AsyncSvc
from tests.support.wire import Wire

OWNER = {"tenant_id": "acme", "dialog_id": "support"}


async def ledger_usage(pool: asyncpg.Pool) -> list[tuple[object, ...]]:
    """Return model, input, cached, written, output and reasoning tokens, and cost of each usage."""
    rows = await pool.fetch(
        "SELECT model, input_tokens, cached_input_tokens, cache_write_tokens, output_tokens,"
        "       reasoning_tokens, cost"
        "  FROM asyncsvc.usage_ledger WHERE requests IS NOT NULL ORDER BY at, input_tokens"
    )
    return [tuple(row) for row in rows]


@contextlib.asynccontextmanager
async def counted(dsn: str) -> AsyncIterator[tuple[AsyncSvc, Callable[..., Awaitable[int]]]]:
    """Yield services, and a function that returns the round trips of a call."""
    async with Wire(dsn) as wire, asyncsvc.connect(wire.dsn, max_size=1) as svc:

        async def round_trips(call: Callable[..., Awaitable[object]], *arguments: object) -> int:
            before = wire.round_trips
            await call(*arguments)
            return wire.round_trips - before

        yield svc, round_trips
