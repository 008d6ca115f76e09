"""One run of all tasks."""

import asyncio
import random

import asyncsvc
from asyncsvc import ANY
from tests.support.usage import set_budgets
from tests.support.usage_run.checkers import check, check_activity, check_often, connected
from tests.support.usage_run.maintenance import declare, kill, maintain, roll_up_without_commit
from tests.support.usage_run.world import DECLARED, TENANTS, ZONES, World
from tests.support.usage_run.writers import Writer


async def run(dsn: str, operations: int, seed: int) -> World:
    # A declaration waits for the recount of another one, which may take long on a busy machine.
    settings = asyncsvc.Settings(lock_timeout=300, usage_retention=10**9)
    async with asyncsvc.connect(dsn, max_size=24, settings=settings) as svc:
        world = World(svc, dsn, random.Random(seed), operations)
        for tenant_id in TENANTS:
            for tz in DECLARED:
                await svc.conversations.declare_zone(tenant_id=tenant_id, tz=tz)
            await set_budgets(svc, tenant_id)
        async with asyncio.TaskGroup() as group:
            for number in range(16):
                group.create_task(Writer(world, number).work())
            for work in (
                maintain, maintain, roll_up_without_commit, kill, declare, check_often, check_often
            ):  # fmt: skip
                group.create_task(work(world))
        questions = [
            {"from_date": "2023-06-01", "to_date": "2026-03-31", "source": source,
             "basis": "creation", "interval": interval, "dialog_id": dialog_id, "tz": tz}
            for source in (ANY, None, "web") for dialog_id in (ANY, "d1")
            for interval in ("day", "week", "month") for tz in ZONES
        ]  # fmt: skip
        # First with ledger rows that are not rolled up, then without.
        async with connected(world) as connection:
            for _ in range(0 if world.wrong else 2):
                for tenant_id in TENANTS:
                    await check(world, connection, tenant_id, questions)
                    await check_activity(world, tenant_id)
                await svc.maintain()
    return world
