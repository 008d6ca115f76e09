"""Budgets while usage is stored, rolled up and read at once."""

import asyncio
from datetime import timedelta

import pytest

import asyncsvc
from asyncsvc import BudgetExceeded, Settings
from tests.support.usage import SUBJECTS, spend

ALL = {"token_id": "key", "user_id": "ann", "dialog_id": "d"}


async def test_tasks_that_verify_wait_and_append_overspend_by_at_most_their_number(dsn):
    tasks, limit = 64, 100
    settings = Settings(maintenance_interval=0.2)
    async with asyncsvc.connect(dsn, max_size=8, settings=settings) as svc:
        token = await svc.tokens.create(tenant_id="t", name="key")
        chat = await svc.conversations.create(tenant_id="t", dialog_id="d", user_id="ann")
        await svc.budgets.set(tenant_id="t", scope="token", metric="rounds", limit=limit)
        turn = {
            "messages": [{"role": "user", "content": "x"}],
            "token_id": token.token.id,
            "tokens": 7,
        }
        appended = 0

        async def work():
            nonlocal appended
            while True:
                try:
                    await svc.tokens.verify(token.secret, budgets=True)
                except BudgetExceeded:
                    return
                await asyncio.sleep(0.005)
                await svc.conversations.append_message(chat.id, turn, tenant_id="t")
                appended += 1

        async with asyncio.timeout(120):
            await asyncio.gather(*(work() for _ in range(tasks)))
        assert limit <= appended < limit + tasks
        (status,) = await svc.budgets.status(tenant_id="t", token_id=token.token.id)
        assert status.used == appended
        for _ in range(2):  # also after the next rotation
            async with asyncsvc.connect(dsn, max_size=1) as other:
                for services in (svc, other):
                    with pytest.raises(BudgetExceeded) as refused:
                        await services.tokens.verify(token.secret, budgets=True)
                    assert (refused.value.used, refused.value.limit) == (appended, limit)
            token = await svc.tokens.rotate(token.token.id, tenant_id="t")


async def run_beside(work, *others):
    """Repeat other coroutines until the work is done."""
    is_done = False

    async def repeat(other):
        while not is_done:
            await other()

    tasks = [asyncio.create_task(repeat(other)) for other in others]
    try:
        await work
    finally:
        is_done = True
        await asyncio.gather(*tasks)


async def test_the_usage_equals_a_recount_at_every_moment(svc, pool):
    """Roll-ups, recounts and changes of the budget run while usage is written and read."""
    budget = {"tenant_id": "t", "metric": "rounds", "limit": 10**9}
    for scope in SUBJECTS:
        await svc.budgets.set(**budget, scope=scope)
    written = 0

    async def used():
        statuses = await svc.budgets.status(tenant_id="t", **ALL)
        return {each.used for each in statuses if each.window == "month"}

    async def write():
        nonlocal written
        for _ in range(60):
            await spend(pool, **ALL, rounds=1)
            written += 1

    async def change():
        for window in ("month", "hour"):
            for tz in ("UTC", "Asia/Kathmandu"):
                await svc.budgets.set(**budget, scope="user", window=window, tz=tz)

    async def read():
        before = written
        (seen,) = await used()
        assert before <= seen <= written + 8

    writers = asyncio.gather(*(write() for _ in range(8)))
    await run_beside(writers, change, read, read, svc.maintain, svc.maintain)
    assert await used() == {480}
    await svc.maintain()
    assert await used() == {480}


@pytest.mark.parametrize("tz", ["UTC", "Asia/Kathmandu", "Australia/Lord_Howe"])
async def test_turns_at_a_border_of_windows_count_in_one_of_them(svc, pool, tz):
    """4 maintainers run while usage is written on both sides of a border."""
    await svc.budgets.set(
        tenant_id="t", scope="tenant", metric="rounds", limit=10**9, window="hour", tz=tz
    )
    border = (await svc.budgets.status(tenant_id="t"))[0].starts_at

    async def write(number):
        for step in range(20):
            shift = timedelta(microseconds=step if number % 2 else -1 - step)
            await spend(pool, rounds=1, at=border + shift)

    writers = asyncio.gather(*(write(number) for number in range(16)))
    await run_beside(writers, *(4 * [svc.maintain]))
    await svc.maintain()
    (status,) = await svc.budgets.status(tenant_id="t")
    assert (status.starts_at, status.used) == (border, 160) or status.starts_at > border
    total = await pool.fetchval("SELECT sum(used) FROM asyncsvc.budget_usage")
    assert total == 320 or status.starts_at > border
