"""Alerts of budgets: when a threshold is crossed, and how often it is reported."""

import asyncio
from decimal import Decimal

import pytest

import asyncsvc
from asyncsvc import BudgetExceeded, Settings
from tests.support.usage import spend


@pytest.fixture
def alerts():
    return []


@pytest.fixture
async def alerting(dsn, alerts):
    settings = Settings(on_budget=alerts.append, maintenance_interval=None)
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        yield svc


async def crossings(svc, **of):
    events = (await svc.budgets.audit(tenant_id="t", **of)).items
    return sorted(each.threshold for each in events if each.action == "budget_crossed")


async def test_maintenance_reports_each_crossing_once(alerting, alerts, pool):
    budget = await alerting.budgets.set(
        tenant_id="t", scope="user", metric="cost", limit=Decimal("0.00000001"), window="day"
    )
    expected = []
    for cost, crossed in ((4, []), (1, [50]), (1, []), (3, [80]), (5, [100]), (9, [])):
        await spend(pool, user_id="ann", cost=cost)
        await spend(pool, user_id="bob", rounds=1)
        await asyncio.gather(*(alerting.maintain() for _ in range(3)))
        expected += crossed
        assert [each.threshold for each in alerts] == expected
    assert await crossings(alerting) == [50, 80, 100]
    last = alerts[-1]
    assert (last.tenant_id, last.budget_id, last.scope, last.subject) == (
        "t", budget.id, "user", "ann"
    )  # fmt: skip
    assert (last.used, last.limit) == (Decimal("0.000000014"), Decimal("0.00000001"))
    assert last.starts_at < last.at < last.resets_at


async def test_a_new_limit_is_crossed_anew(alerting, alerts, pool):
    budget = await alerting.budgets.set(tenant_id="t", scope="tenant", metric="rounds", limit=2)
    await spend(pool, rounds=2)
    await alerting.maintain()
    assert [each.threshold for each in alerts] == [50, 80, 100]
    await alerting.budgets.raise_limit(budget.id, tenant_id="t", by=8)
    await spend(pool, rounds=3)
    await alerting.maintain()
    assert [(each.threshold, each.limit) for each in alerts[3:]] == [(50, 10)]
    await spend(pool, rounds=5)
    for _ in range(2):
        await alerting.maintain()
    assert [(each.threshold, each.limit) for each in alerts[4:]] == [(80, 10), (100, 10)]
    assert await crossings(alerting) == [50, 50, 80, 80, 100, 100]


async def test_64_tasks_cross_all_thresholds_in_one_step(alerting, alerts, pool):
    token = await alerting.tokens.create(tenant_id="t", name="key")
    await alerting.budgets.set(tenant_id="t", scope="tenant", metric="tokens", limit=10)
    await spend(pool, tokens=11)

    async def refused():
        with pytest.raises(BudgetExceeded):
            await alerting.tokens.verify(token.secret, budgets=True)

    await asyncio.gather(*(refused() for _ in range(64)), alerting.maintain())
    assert sorted(each.threshold for each in alerts) == [50, 80, 100]
    assert await crossings(alerting) == [50, 80, 100]


async def test_a_refusal_in_a_transaction_or_without_use_records_no_crossing(
    alerting, alerts, pool
):
    token = await alerting.tokens.create(tenant_id="t", name="key")
    await alerting.budgets.set(tenant_id="t", scope="tenant", metric="tokens", limit=0)
    with pytest.raises(BudgetExceeded):
        await alerting.tokens.verify(token.secret, budgets=True, record_use=False)
    async with alerting.transaction() as tx:
        with pytest.raises(BudgetExceeded):
            await tx.budgets.check(tenant_id="t")
    assert alerts == []
    with pytest.raises(BudgetExceeded):
        await alerting.budgets.check(tenant_id="t")
    assert len(alerts) == 3


async def test_the_default_of_a_replaced_budget_reports_no_crossing(alerting, alerts, pool):
    default = {"tenant_id": "t", "scope": "user", "metric": "rounds"}
    await alerting.budgets.set(**default, limit=2)
    await alerting.budgets.set(**default, subject="ann", limit=100)
    await spend(pool, user_id="ann", rounds=5)
    await spend(pool, user_id="bob", rounds=1)
    await alerting.maintain()
    assert [(each.subject, each.threshold) for each in alerts] == [("bob", 50)]


async def test_a_limit_of_0_refuses_also_after_a_withdrawal(alerting, alerts, pool):
    await alerting.budgets.set(tenant_id="t", scope="tenant", metric="tokens", limit=0)
    await spend(pool, tokens=-5)
    for _ in range(2):
        with pytest.raises(BudgetExceeded) as refused:
            await alerting.budgets.check(tenant_id="t")
        assert (refused.value.used, refused.value.limit) == (-5, 0)
    assert [alert.threshold for alert in alerts] == [50, 80, 100]
    await spend(pool, tokens=5)


async def test_an_error_of_the_hook_ends_no_call(dsn, pool, caplog):
    called = []

    def fail(alert):
        called.append((alert.limit, alert.threshold))
        raise ZeroDivisionError

    settings = Settings(on_budget=fail, maintenance_interval=None)
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        budget = await svc.budgets.set(tenant_id="t", scope="tenant", metric="rounds", limit=2)
        await spend(pool, rounds=2)
        with pytest.raises(BudgetExceeded):
            await svc.budgets.check(tenant_id="t")
        await svc.budgets.raise_limit(budget.id, tenant_id="t", by=1)
        report = await svc.maintain()
        assert (report.ledger_rows, report.failures) == (1, ())
    assert called == [(2, 50), (2, 80), (2, 100), (3, 50)]
    assert caplog.text.count("Settings.on_budget raised") == 4
