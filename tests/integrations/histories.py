"""What the tests of the adapters of histories share: a pool for each process, and the wire."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncsvc
from asyncsvc import AsyncSvc
from tests.support.wire import Wire

OWNER = {"tenant_id": "acme", "dialog_id": "support"}


@contextlib.asynccontextmanager
async def counted(dsn: str) -> AsyncIterator[tuple[AsyncSvc, Callable[..., Awaitable[int]]]]:
    """Yield services, and a function that returns the round trips of a call."""
    async with Wire(dsn) as wire, asyncsvc.connect(wire.dsn, max_size=1) as svc:

        async def round_trips(call: Callable[..., Awaitable[object]], *arguments: object) -> int:
            before = wire.round_trips
            await call(*arguments)
            return wire.round_trips - before

        yield svc, round_trips
