"""Faults of other systems that count usage, as tests. Nothing that happens later changes a sum."""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from asyncsvc import BudgetExceeded
from tests.support.usage import (
    DIMENSIONS,
    EVER,
    budget_differences,
    random_usage,
    set_budgets,
    spend,
    sums_of,
)

SUBJECTS = {"user_id": "u1", "dialog_id": "d1"}


async def spend_in_conversations(svc, chance: random.Random, token_id: str) -> list[str]:
    """Append 1,000 turns of several models, persons and tokens to 20 conversations."""
    ids = []
    for number in range(20):
        chat = await svc.conversations.create(
            tenant_id="t", dialog_id=f"d{number % 3}", user_id=f"u{number % 4}",
            source=(None, "web")[number % 2],
        )  # fmt: skip
        ids.append(chat.id)

    async def append() -> None:
        for _ in range(100):
            turn = {
                "messages": [{"role": "user", "content": "x"}],
                "usage": [random_usage(chance) for _ in range(chance.choice((1, 3)))],
                "user_id": chance.choice((None, "u1", "u5")),
                "token_id": chance.choice((None, token_id, "k")),
            }
            await svc.conversations.append_message(chance.choice(ids), turn, tenant_id="t")

    await asyncio.gather(*(append() for _ in range(10)))
    return ids


async def usage_of(svc, token_id: str) -> dict[tuple, object]:
    """Return the sums of each group in each dimension, and what each budget has used."""
    usage: dict[tuple, object] = {}
    for dimension in DIMENSIONS:
        groups = await svc.conversations.stats(
            tenant_id="t", **EVER, interval="total", group_by=dimension, top=1_000
        )
        for group in groups:
            usage[dimension, group.group] = sums_of([group])
            if group.group is not None:
                one = await svc.conversations.stats_total(
                    tenant_id="t", **EVER, **{dimension: group.group}
                )
                assert sums_of([one]) == sums_of([group])
    for status in await svc.budgets.status(tenant_id="t", token_id=token_id, **SUBJECTS):
        usage[status.scope, status.window] = (status.subject, status.metric, status.used)
    return usage


@pytest.mark.parametrize("is_rolled_up", [True, False])
async def test_deletions_change_no_sum_and_no_budget(svc, is_rolled_up):
    token = await svc.tokens.create(tenant_id="t", name="key")
    await set_budgets(svc, "t")
    ids = await spend_in_conversations(svc, random.Random(1), token.token.id)
    if is_rolled_up:
        await svc.maintain()
    before = await usage_of(svc, token.token.id)
    assert len(before) > 30
    tenant, at_once = {"tenant_id": "t"}, timedelta(microseconds=1)
    for change in (
        lambda: svc.conversations.clear_messages(ids[0], **tenant),
        lambda: svc.conversations.pop_message(ids[1], **tenant),
        lambda: svc.conversations.delete_by_id(ids[2], **tenant),
        lambda: svc.conversations.delete_by_ids(ids[3:6], **tenant),
        lambda: svc.conversations.purge(at_once, dialog_id="d0", **tenant),
        lambda: svc.conversations.purge(at_once, user_id="u1", **tenant),
        lambda: svc.conversations.purge(at_once, **tenant),
        lambda: svc.tokens.revoke(token.token.id, **tenant),
        svc.maintain,
        lambda: svc.conversations.recount_usage(**tenant),
    ):
        await change()
        assert await usage_of(svc, token.token.id) == before
    assert (await svc.conversations.get_list(**tenant)).total == 0


async def test_an_erasure_changes_one_name_and_no_sum(svc):
    token = await svc.tokens.create(tenant_id="t", name="key")
    await set_budgets(svc, "t")
    await spend_in_conversations(svc, random.Random(2), token.token.id)
    before = await usage_of(svc, token.token.id)
    await svc.conversations.erase_user("u5", tenant_id="t")
    after = await usage_of(svc, token.token.id)
    (erased,) = (key for key in after if str(key[1]).startswith("erased-"))
    assert after.pop(erased) == before.pop(("user_id", "u5"))
    assert after == before
    assert await budget_differences(svc, svc._executor._pool, "t", user_id="u1") == []


async def test_an_erasure_during_roll_ups_and_appends_loses_nothing(svc, pool):
    await set_budgets(svc, "t")
    chance, total = random.Random(3), Counter()

    async def write() -> None:
        for _ in range(30):
            usage = random_usage(chance)
            await svc.conversations.record_usage(
                usage, tenant_id="t", user_id="u1", dialog_id="d1", source="s"
            )
            total["tokens"] += usage.tokens
            total["requests"] += usage.requests

    async def erase() -> None:
        for _ in range(10):
            await svc.conversations.erase_user("u1", tenant_id="t")
            assert await budget_differences(svc, pool, "other", **SUBJECTS) == []

    await asyncio.gather(
        *(write() for _ in range(4)), erase(), erase(), *(svc.maintain() for _ in range(8))
    )
    await svc.conversations.erase_user("u1", tenant_id="t")
    groups = await svc.conversations.stats(
        tenant_id="t", **EVER, interval="total", group_by="user_id", top=1_000
    )
    assert all(group.group.startswith("erased-") for group in groups)
    assert sum(group.tokens for group in groups) == total["tokens"]
    assert sum(group.requests for group in groups) == total["requests"]
    assert await budget_differences(svc, pool, "t", **SUBJECTS) == []
    for table in ("usage_ledger", "usage_quarter_hour", "usage_user_month", "budget_usage"):
        assert not await pool.fetchval(
            f"SELECT count(*) FROM asyncsvc.{table} AS r WHERE to_jsonb(r)::text LIKE '%\"u1\"%'"
        )


async def test_sums_beyond_64_bits_neither_stop_budgets_nor_other_tenants(svc, pool):
    largest = 2**63 - 1
    for tenant_id in ("t", "other"):
        for metric in ("cost", "tokens", "uncached_tokens"):
            await svc.budgets.set(
                tenant_id=tenant_id, scope="user", metric=metric, limit=10**12, window="day"
            )
    for _ in range(5):
        await spend(pool, user_id="ann", tokens=largest, cost=largest)
    await spend(pool, tenant_id="other", user_id="ann", tokens=1, cost=1)
    for _ in range(2):
        used = {
            each.metric: each.used
            for each in await svc.budgets.status(tenant_id="t", user_id="ann")
        }
        assert used == {
            "cost": Decimal(5 * largest).scaleb(-9),
            "tokens": 5 * largest,
            "uncached_tokens": 5 * largest,
        }
        with pytest.raises(BudgetExceeded):
            await svc.budgets.check(tenant_id="t", user_id="ann")
        await svc.maintain()
        status = await svc.budgets.check(tenant_id="other", user_id="ann")
        assert (status.limit, status.used) in {
            (10**12, 1), (10**12, Decimal("0.000000001"))
        }  # fmt: skip
    assert await pool.fetchval("SELECT count(*) FROM asyncsvc.usage_ledger") == 0


# ---------------------------------------------------------------- odd sequences of budgets


async def test_maintenance_finds_a_limit_of_0_after_a_withdrawal(svc):
    await svc.budgets.set(tenant_id="t", scope="tenant", limit=0)
    await svc.conversations.adjust_usage(
        {"cost": Decimal(-5)}, tenant_id="t", actor="ops", reason="refund"
    )
    await svc.maintain()
    events = (await svc.budgets.audit(tenant_id="t")).items
    crossings = [each.threshold for each in events if each.action == "budget_crossed"]
    assert sorted(crossings) == [50, 80, 100]
    with pytest.raises(BudgetExceeded):
        await svc.budgets.check(tenant_id="t")


async def test_a_withdrawal_gives_back_what_was_used(svc):
    await svc.budgets.set(tenant_id="t", scope="tenant", limit=100)
    usage = {"input_tokens": 90, "output_tokens": 10, "cost": Decimal(100)}
    await svc.conversations.record_usage(usage, tenant_id="t")
    with pytest.raises(BudgetExceeded):
        await svc.budgets.check(tenant_id="t")
    await svc.conversations.adjust_usage(
        {"cost": Decimal(-150)}, tenant_id="t", actor="ops", reason="refund"
    )
    for _ in range(2):
        status = await svc.budgets.check(tenant_id="t")
        assert (status.used, status.remaining, status.limit) == (-50, 150, 100)
        await svc.maintain()


async def test_a_spent_budget_is_found_beside_a_nearly_spent_one_of_a_large_limit(svc, pool):
    """The shares of both round to 1; the spent one must refuse."""
    limit = 10**12
    token = await svc.tokens.create(tenant_id="t", name="key")
    await svc.budgets.set(tenant_id="t", scope="tenant", limit=limit, window="total")
    await svc.budgets.set(tenant_id="t", scope="user", metric="rounds", limit=1, window="hour")
    left = limit * 10**9 - 1
    while left:
        cost = min(left, 9 * 10**18)
        left -= cost
        await spend(pool, user_id="other", cost=cost)
    assert (await svc.budgets.check(tenant_id="t")).remaining == Decimal("0.000000001")
    await spend(pool, user_id="ann", rounds=1)
    with pytest.raises(BudgetExceeded, match="rounds"):
        await svc.budgets.check(tenant_id="t", user_id="ann")
    with pytest.raises(BudgetExceeded, match="rounds"):
        await svc.tokens.verify(token.secret, budgets=True, user_id="ann")


async def test_no_write_of_usage_reads_or_writes_a_budget(svc, pool):
    """Another session locks the tables of budgets while usage is stored in each way."""
    await set_budgets(svc, "t")
    usage = {"input_tokens": 7, "output_tokens": 0, "cost": Decimal("0.5"), "model": "m"}
    of = {"tenant_id": "t", **SUBJECTS}
    turn = {"messages": [{"role": "user", "content": "x"}], "usage": usage, "user_id": "u1"}
    async with pool.acquire() as locking, locking.transaction():
        await locking.execute(
            "LOCK TABLE asyncsvc.budget, asyncsvc.budget_usage IN ACCESS EXCLUSIVE MODE"
        )
        await svc.conversations.create(**of, id="a")
        for key in (None, "k", "k"):
            await svc.conversations.append_message("a", turn, tenant_id="t", idempotency_key=key)
        await svc.conversations.append_message("b", turn, tenant_id="t", create={"dialog_id": "d1"})
        await svc.conversations.record_usage(usage, **of)
        await svc.conversations.adjust_usage(
            {"cost": Decimal("0.5")}, **of, actor="ops", reason="late"
        )
    used = {each.metric: each.used for each in await svc.budgets.status(**of)}
    assert (used["cost"], used["tokens"], used["rounds"]) == (Decimal("2.5"), 28, 3)


async def test_concurrent_calls_of_set_make_one_budget(svc, pool):
    of = {"tenant_id": "t", "scope": "user", "metric": "tokens", "window": "day"}

    async def set_one(number: int) -> str:
        tz = ("UTC", "Asia/Tokyo")[number % 2]
        return (await svc.budgets.set(**of, limit=number, tz=tz)).id

    async def write() -> None:
        for _ in range(40):
            await spend(pool, user_id="ann", tokens=1)

    ids, *_ = await asyncio.gather(
        asyncio.gather(*(set_one(number) for number in range(32))),
        write(),
        *(svc.maintain() for _ in range(8)),
    )
    assert len(set(ids)) == 1
    (status,) = await svc.budgets.status(tenant_id="t", user_id="ann")
    assert status.used == 40
    events = (await svc.budgets.audit(tenant_id="t")).items
    assert [each.action for each in events].count("set_budget") == 32
    await asyncio.gather(
        *(svc.budgets.raise_limit(ids[0], tenant_id="t", by=1_000) for _ in range(32))
    )
    (raised,) = await svc.budgets.status(tenant_id="t", user_id="ann")
    assert raised.limit == status.limit + 32_000


async def test_a_tenant_starts_anew_after_its_deletion(svc, pool):
    for _ in range(2):
        assert await svc.budgets.status(tenant_id="t", user_id="u1") == []
        await set_budgets(svc, "t")
        token = await svc.tokens.create(tenant_id="t", name="key")
        usage = {"input_tokens": 7, "output_tokens": 0, "cost": Decimal("0.5")}
        kept = {"tenant_id": "t", "user_id": "u1", "token_id": token.token.id}
        assert await svc.conversations.record_usage(usage, **kept, idempotency_key="k")
        await svc.maintain()
        assert await svc.conversations.record_usage(usage, **kept)
        used = {
            each.metric: each.used
            for each in await svc.budgets.status(**kept)
            if each.window == "day"
        }
        assert used["cost"] == 1
        assert await budget_differences(svc, pool, **kept) == []
        await svc.conversations.delete_tenant(tenant_id="t")
        total = await svc.conversations.stats_total(tenant_id="t", **EVER)
        assert (total.tokens, total.cost, total.users) == (0, 0, 0)


async def test_imports_of_this_month_change_statistics_and_no_budget(svc, pool):
    await set_budgets(svc, "t")
    now = datetime.now(UTC)
    record = {"dialog_id": "d1", "user_id": "u1", "created_at": now, "round": 2}
    message = {"role": "user", "content": "x"}
    records = [{**record, "id": f"c{n}", "tokens": 5, "messages": [message]} for n in range(5)]
    usage = {"input_tokens": 50, "output_tokens": 5, "cost": Decimal("0.25"), "model": "m"}
    records += [
        {**record, "id": f"d{n}", "usage": [usage], "messages": [message]} for n in range(5)
    ]
    await svc.conversations.import_(records, tenant_id="t")
    turn = {"messages": [message], "usage": {"input_tokens": 1, "output_tokens": 1}}
    await svc.conversations.append_message("c0", turn, tenant_id="t")
    for _ in range(2):
        total = await svc.conversations.stats_total(tenant_id="t", **EVER)
        assert (total.tokens, total.cost, total.rounds) == (5 * 60 + 2, Decimal("1.25"), 21)
        for status in await svc.budgets.status(tenant_id="t", **SUBJECTS):
            assert status.used == {"cost": 0, "rounds": 1}.get(status.metric, 2)
        assert await budget_differences(svc, pool, "t", **SUBJECTS) == []
        await svc.maintain()
    await svc.conversations.recount_usage(tenant_id="t")
    for window, tz in (("day", "Asia/Tokyo"), ("month", "Asia/Tokyo")):
        await svc.budgets.set(
            tenant_id="t", scope="tenant", metric="rounds", limit=9, window=window, tz=tz
        )
    assert await budget_differences(svc, pool, "t", **SUBJECTS) == []


async def test_budgets_that_change_during_roll_ups_equal_statistics(svc, pool):
    """Budgets of 3 zones are set and deleted while usage is recorded, rolled up and recounted."""
    await set_budgets(svc, "t")
    zones = ("UTC", "Asia/Tokyo", "America/Havana")

    async def write() -> None:
        for _ in range(10):
            await svc.conversations.record_usage(
                {"input_tokens": 1, "output_tokens": 0, "cost": Decimal("0.1")},
                tenant_id="t", **SUBJECTS,
            )  # fmt: skip

    async def change(number: int) -> None:
        for step in range(4):
            budget = await svc.budgets.set(
                tenant_id="t", scope="user", subject=("u1", None)[number % 2], metric="tokens",
                limit=10**9, window="month", tz=zones[(number + step) % 3],
            )  # fmt: skip
            if number % 4 == 0:
                await svc.budgets.delete(budget.id, tenant_id="t")

    await asyncio.gather(
        *(write() for _ in range(10)),
        *(change(number) for number in range(16)),
        *(svc.maintain() for _ in range(6)),
        svc.conversations.declare_zone("Asia/Tokyo", tenant_id="t"),
        svc.conversations.recount_usage(tenant_id="t"),
    )
    for _ in range(2):
        assert await budget_differences(svc, pool, "t", **SUBJECTS) == []
        total = await svc.conversations.stats_total(tenant_id="t", **EVER)
        assert (total.tokens, total.cost) == (100, 10)
        await svc.maintain()


async def test_all_tokens_of_a_rotation_spend_one_budget_at_once(svc):
    await svc.budgets.set(tenant_id="t", scope="token", metric="tokens", limit=1_000)
    ids = [(await svc.tokens.create(tenant_id="t", name="key")).token.id]
    for _ in range(5):
        issued = await svc.tokens.rotate(ids[-1], tenant_id="t", overlap=timedelta(hours=1))
        ids.append(issued.token.id)
    usage = {"input_tokens": 1, "output_tokens": 0}
    await asyncio.gather(
        *(svc.conversations.record_usage(usage, tenant_id="t", token_id=id) for id in ids * 10),
        svc.maintain(),
        svc.maintain(),
    )
    for id in ids:
        (status,) = await svc.budgets.status(tenant_id="t", token_id=id)
        total = await svc.conversations.stats_total(tenant_id="t", **EVER, token_id=id)
        assert (status.subject, status.used, total.tokens) == (ids[0], 60, 60)


async def test_the_largest_usages_and_corrections_add_up(svc, pool):
    await set_budgets(svc, "t")
    tokens, subjects = 10**12, {**SUBJECTS, "token_id": "k"}
    usage = {
        "input_tokens": tokens, "output_tokens": tokens, "cached_input_tokens": tokens,
        "reasoning_tokens": tokens, "requests": tokens, "cost": Decimal(1_000),
    }  # fmt: skip
    await svc.conversations.record_usage([usage] * 32, tenant_id="t", **subjects)
    for sign in (1, -1, -1, 1, 1):
        adjustment = {
            "input_tokens": sign * tokens, "output_tokens": sign * tokens,
            "total_tokens": sign * tokens, "cost": Decimal(sign * 10**6),
            "rounds": sign * (2**31 - 1), "unpriced": sign * (2**31 - 1),
        }  # fmt: skip
        await svc.conversations.adjust_usage(
            adjustment, tenant_id="t", actor="a", reason="r", **subjects
        )
        assert await budget_differences(svc, pool, "t", **subjects) == []
    await svc.maintain()
    await svc.conversations.recount_usage(tenant_id="t")
    assert await budget_differences(svc, pool, "t", **subjects) == []
    for dimension in DIMENSIONS:
        (group,) = await svc.conversations.stats(
            tenant_id="t", **EVER, interval="total", group_by=dimension
        )
        assert (group.tokens, group.cost) == (67 * tokens, 32_000 + 10**6)
        assert (group.rounds, group.unpriced) == (2**31 - 1, 2**31 - 1)
