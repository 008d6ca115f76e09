"""Tasks that roll up usage, are killed, and declare zones."""

import asyncio
import contextlib

import asyncpg

import asyncsvc
from asyncsvc import DatabaseError, MaintenanceReport, Unavailable
from asyncsvc.repositories import UsageRepository
from tests.support.usage_run.world import LATER, TENANTS, World

MAINTENANCE = "asyncsvc-maintenance"


async def maintain(world: World) -> None:
    """Run maintenance in a loop, on connections that `kill` terminates."""

    def count(report: MaintenanceReport) -> None:
        world.roll_ups += report.ledger_rows > 0

    async with asyncsvc.connect(
        f"{world.dsn}?application_name={MAINTENANCE}",
        max_size=2,
        settings=asyncsvc.Settings(usage_retention=10**9),
    ) as svc:
        while world.left > 0:
            with contextlib.suppress(Unavailable, DatabaseError):
                await svc.maintain(on_batch=count)
            await asyncio.sleep(0.01)


async def roll_up_without_commit(world: World) -> None:
    """Roll up in transactions that never commit, one for each 200 operations."""
    while world.left > 0:
        next_one = world.left - 200
        connection = await asyncpg.connect(world.dsn)
        try:
            await connection.transaction().start()
            usage = UsageRepository(world.svc.on(connection)._executor)
            await usage.roll_up(tenant_id=world.chance.choice(TENANTS))
            await asyncio.sleep(0.05)
        finally:
            connection.terminate()
        world.kills += 1
        while world.left > max(next_one, 0):
            await asyncio.sleep(0.01)


async def kill(world: World) -> None:
    """Terminate connections of maintenance, each time after a tenant was rolled up."""
    roll_ups = -1
    while world.left > 0:
        await asyncio.sleep(world.chance.random())
        if world.roll_ups == roll_ups:
            continue
        roll_ups = world.roll_ups
        async with world.svc._executor._pool.acquire() as killer:
            world.kills += await killer.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity"
                " WHERE application_name = $1 ORDER BY random() LIMIT 1) AS chosen",
                MAINTENANCE,
            )


async def declare(world: World) -> None:
    """Declare zones during the changes."""
    begun = world.left
    for number, tz in enumerate(LATER, 1):
        while world.left > begun * (1 - number / 4):
            await asyncio.sleep(0.01)
        for tenant_id in TENANTS:
            await world.svc.conversations.declare_zone(tenant_id=tenant_id, tz=tz)
