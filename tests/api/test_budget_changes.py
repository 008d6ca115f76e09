"""Changes of budgets: what can be set, how they are found, and what the audit records."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from asyncsvc import InvalidInput, NotFound


async def test_any_token_of_a_family_finds_its_budget(svc):
    first = (await svc.tokens.create(name="key", tenant_id="t")).token.id
    second = (await svc.tokens.rotate(first, tenant_id="t")).token.id
    other = (await svc.tokens.create(name="key", tenant_id="t")).token.id
    budget = await svc.budgets.set(tenant_id="t", scope="token", subject=second, limit=1)
    user = await svc.budgets.set(tenant_id="t", scope="user", subject=first, limit=1)

    async def listed(tenant_id="t", **of):
        page = await svc.budgets.list(tenant_id=tenant_id, **of)
        return {each.id for each in page.items}

    assert await listed(subject=second) == {budget.id}
    assert await listed(subject=second, scope="token") == {budget.id}
    assert await listed(subject=second, scope="user") == set()
    assert await listed(subject=first) == {budget.id, user.id}
    assert await listed(subject=other) == await listed(tenant_id="globex", subject=second) == set()
    await svc.tokens.delete_by_id(first, tenant_id="t")
    assert await listed(subject=second) == {budget.id}
    again = await svc.budgets.set(tenant_id="t", scope="token", subject=first, limit=2)
    assert (again.id, again.subject) == (budget.id, first)


async def test_a_budget_of_a_token_needs_a_token_of_the_tenant(svc):
    token = (await svc.tokens.create(name="key", tenant_id="globex")).token.id
    for subject in (token, "absent"):
        with pytest.raises(NotFound) as missing:
            await svc.budgets.set(tenant_id="t", scope="token", subject=subject, limit=1)
        assert missing.value.resource == "token"
    assert (await svc.budgets.list(tenant_id="t")).items == []
    assert (await svc.budgets.audit(tenant_id="t")).items == []


async def test_concurrent_raises_all_count(svc):
    budget = await svc.budgets.set(tenant_id="t", scope="tenant", limit=Decimal("0.1"))
    await asyncio.gather(
        *(svc.budgets.raise_limit(budget.id, tenant_id="t", by=Decimal("0.1")) for _ in range(9))
    )
    raised = await svc.budgets.raise_limit(budget.id, tenant_id="t", by=1, actor="ann")
    assert (raised.limit, raised.id) == (2, budget.id)
    with pytest.raises(NotFound):
        await svc.budgets.raise_limit(budget.id, tenant_id="globex", by=1)
    rounds = await svc.budgets.set(tenant_id="t", scope="tenant", metric="rounds", limit=1)
    with pytest.raises(InvalidInput, match="must be whole"):
        await svc.budgets.raise_limit(rounds.id, tenant_id="t", by=Decimal("0.5"))


@pytest.mark.parametrize(("metric", "highest"), [("cost", 10**12), ("tokens", 10**15)])
async def test_a_limit_is_raised_to_the_highest_that_can_be_set(svc, metric, highest):
    budget = await svc.budgets.set(tenant_id="t", scope="tenant", metric=metric, limit=highest - 1)
    with pytest.raises(InvalidInput, match=f"^by: raises the limit above {highest:,}$"):
        await svc.budgets.raise_limit(budget.id, tenant_id="t", by=2)
    raised = await svc.budgets.raise_limit(budget.id, tenant_id="t", by=1)
    assert raised.limit == highest
    again = await svc.budgets.set(tenant_id="t", scope="tenant", metric=metric, limit=raised.limit)
    assert again.id == budget.id


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("subject", {"subject": "x"}),
        ("limit", {"metric": "tokens", "limit": Decimal(1)}),
        ("limit", {"limit": Decimal("0.0000000001")}),
        ("limit", {"limit": 1.5}),
        ("limit", {"limit": -1}),
        ("limit", {"limit": True}),
        ("limit", {"limit": Decimal("NaN")}),
        ("limit", {"limit": 10**12 + 1}),
        ("since", {"since": datetime.now(UTC)}),
        ("tz", {"tz": "Mars/Olympus"}),
    ],
)
async def test_values_that_do_not_fit_are_rejected(svc, field, values):
    with pytest.raises(InvalidInput) as rejected:
        await svc.budgets.set(**{"tenant_id": "t", "scope": "tenant", "limit": 1} | values)
    assert rejected.value.field == field


async def test_lists_are_paged_and_filtered(svc):
    for number in range(5):
        await svc.budgets.set(tenant_id="t", scope="user", subject=f"u{number}", limit=number)
    await svc.budgets.set(tenant_id="t", scope="user", limit=1)
    await svc.budgets.set(tenant_id="t", scope="tenant", limit=1)
    budgets, after = [], None
    while True:
        page = await svc.budgets.list(tenant_id="t", after=after, limit=3)
        budgets += page.items
        after = page.next
        if after is None:
            break
    assert len({each.id for each in budgets}) == 7
    of_user = await svc.budgets.list(tenant_id="t", scope="user", subject="u3")
    assert [each.limit for each in of_user.items] == [3]
    defaults = await svc.budgets.list(tenant_id="t", subject=None)
    assert {each.scope for each in defaults.items} == {"user", "tenant"}
    assert (await svc.budgets.list(tenant_id="globex")).items == []


async def test_changes_of_budgets_are_in_the_audit(svc):
    budget = await svc.budgets.set(
        tenant_id="t", scope="user", subject="ann", limit=Decimal("1.5"), actor="ops"
    )
    await svc.budgets.set(tenant_id="t", scope="user", subject="ann", limit=2, actor="ops")
    await svc.budgets.raise_limit(budget.id, tenant_id="t", by=Decimal("0.25"), actor="boss")
    await svc.budgets.delete(budget.id, tenant_id="t")
    events = (await svc.budgets.audit(tenant_id="t", budget_id=budget.id)).items
    assert [(each.action, each.actor, each.detail["limit"]) for each in events] == [
        ("delete_budget", None, "2.25"),
        ("raise_limit", "boss", "2.25"),
        ("set_budget", "ops", "2"),
        ("set_budget", "ops", "1.5"),
    ]
    assert events[2].detail["previous_limit"] == "1.5"
    assert {each.subject for each in events} == {"ann"}
    named = [[each.detail[name] for name in ("scope", "metric", "window")] for each in events]
    assert named == [["user", "cost", "month"]] * 4
    first = await svc.budgets.audit(tenant_id="t", limit=3)
    rest = await svc.budgets.audit(tenant_id="t", limit=3, after=first.next)
    assert [*first.items, *rest.items] == events
    assert (await svc.budgets.audit(tenant_id="globex")).items == []
