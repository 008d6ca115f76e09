"""Budgets: what they count, which ones apply, and when they refuse."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import asyncpg
import pytest

import asyncsvc
from asyncsvc import BudgetExceeded, InvalidInput
from tests.support.usage import spend

NANO = Decimal("0.000000001")
METRICS = {
    "cost": ({"cost": 1}, NANO),
    "tokens": ({"tokens": 1}, 1),
    "uncached_tokens": ({"tokens": 5, "cached_input_tokens": 4}, 1),
    "rounds": ({"rounds": 1}, 1),
}
"""The smallest usage of each metric, as columns of the ledger and as an amount."""
SUBJECTS = {
    "tenant": {},
    "token": {"token_id": "key"},
    "user": {"user_id": "ann"},
    "dialog": {"dialog_id": "d"},
}
ALL = {"token_id": "key", "user_id": "ann", "dialog_id": "d"}


async def issue(svc, tenant_id="t", **fields):
    return await svc.tokens.create(name="key", tenant_id=tenant_id, **fields)


@pytest.fixture
async def key(svc, pool):
    """Create the token "key" of the tenant t."""
    await issue(svc)
    await pool.execute("UPDATE asyncsvc.api_token SET id = 'key', family_id = 'key'")
    await pool.execute("UPDATE asyncsvc.api_token_hash SET token_id = 'key'")
    await pool.execute("UPDATE asyncsvc.token_audit SET token_id = 'key'")


def subject_of(scope):
    return next(iter(SUBJECTS[scope].values()), None)


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scope", SUBJECTS)
@pytest.mark.parametrize("is_default", [False, True])
async def test_a_budget_is_spent_when_its_usage_reaches_its_limit(
    svc, pool, scope, metric, is_default
):
    columns, unit = METRICS[metric]
    subject = None if is_default else subject_of(scope)
    budget = await svc.budgets.set(
        tenant_id="t", scope=scope, subject=subject, metric=metric, limit=2 * unit, window="hour"
    )
    subjects_of_scope = {"tenant_id": "t", **SUBJECTS[scope]}
    for spent in range(4):
        (status,) = await svc.budgets.status(**subjects_of_scope)
        assert (status.used, status.limit) == (spent * unit, 2 * unit)
        assert status.remaining == max(2 - spent, 0) * unit
        assert status.subject == subject_of(scope)
        assert status.is_default == (is_default and scope != "tenant")
        if spent < 2:
            assert await svc.budgets.check(**subjects_of_scope) == status
        else:
            with pytest.raises(BudgetExceeded) as refused:
                await svc.budgets.check(**subjects_of_scope)
            error = refused.value
            assert (error.budget_id, error.scope, error.subject) == (
                budget.id, scope, subject_of(scope)
            )  # fmt: skip
            assert (error.metric, error.used, error.limit) == (metric, spent * unit, 2 * unit)
            assert (error.window, error.resets_at) == ("hour", status.resets_at)
        await spend(pool, **SUBJECTS[scope], **columns)
        await spend(pool, token_id="other", user_id="other", dialog_id="other")
        if spent == 1:
            await svc.maintain()


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scope", SUBJECTS)
async def test_a_limit_of_0_refuses_all(svc, scope, metric):
    await svc.budgets.set(
        tenant_id="t", scope=scope, subject=subject_of(scope), metric=metric, limit=0
    )
    with pytest.raises(BudgetExceeded) as refused:
        await svc.budgets.check(tenant_id="t", **SUBJECTS[scope])
    assert (refused.value.used, refused.value.limit) == (0, 0)
    others = [each for name, each in SUBJECTS.items() if name != scope]
    if scope != "tenant":
        for other in others:
            assert await svc.budgets.check(tenant_id="t", **other) is None
    assert await svc.budgets.check(tenant_id="globex", **ALL) is None


async def test_amounts_are_written_without_exponent_and_places_that_are_not_theirs(svc, pool):
    cost = await svc.budgets.set(tenant_id="t", scope="tenant", limit=Decimal("250.0"))
    assert str(cost.limit) == "250"
    (status,) = await svc.budgets.status(tenant_id="t")
    assert (str(status.used), str(status.remaining)) == ("0", "250")
    await svc.budgets.set(tenant_id="t", scope="tenant", metric="tokens", limit=2_000)
    await spend(pool, tokens=2_500)
    with pytest.raises(BudgetExceeded, match=r"tokens 2500 of 2000$"):
        await svc.budgets.check(tenant_id="t")


@pytest.mark.parametrize("spent", SUBJECTS)
async def test_no_budget_may_be_spent_and_the_error_names_the_spent_one(svc, pool, spent):
    token = await issue(svc)
    subjects = {"token": token.token.id, "user": "ann", "dialog": "d"}
    for scope in SUBJECTS:
        await svc.budgets.set(
            tenant_id="t", scope=scope, subject=subjects.get(scope), metric="tokens",
            limit=3 if scope == spent else 10,
        )  # fmt: skip
    await spend(pool, token_id=token.token.id, user_id="ann", dialog_id="d", tokens=3)
    with pytest.raises(BudgetExceeded) as refused:
        await svc.tokens.verify(token.secret, budgets=True, user_id="ann", dialog_id="d")
    assert (refused.value.scope, refused.value.subject) == (spent, subjects.get(spent))
    assert (await svc.tokens.verify(token.secret)).id == token.token.id


async def test_verify_returns_the_token_with_the_tightest_budget(svc, pool):
    token = await issue(svc)
    verified = await svc.tokens.verify(token.secret, budgets=True)
    assert verified.budget is None
    assert dict(verified) == {**dict(token.token), "budget": None}
    for metric, limit in (("tokens", 100), ("rounds", 10), ("cost", Decimal("0.5"))):
        await svc.budgets.set(tenant_id="t", scope="tenant", metric=metric, limit=limit)
    await spend(pool, tokens=10, rounds=2, cost=50_000_000)
    verified = await svc.tokens.verify(token.secret, budgets=True)
    assert (verified.budget.metric, verified.budget.used, verified.budget.remaining) == (
        "rounds", 2, 8
    )  # fmt: skip
    statuses = await svc.budgets.status(tenant_id="t")
    assert statuses[0].metric == "rounds"
    assert {each.metric: each.used for each in statuses}["cost"] == Decimal("0.05")


async def test_a_token_of_a_dialog_has_the_budget_of_its_dialog(svc, pool):
    token = await issue(svc, dialog_id="d")
    await svc.budgets.set(tenant_id="t", scope="dialog", subject="d", metric="rounds", limit=1)
    await spend(pool, dialog_id="d", rounds=1)
    for dialog_id in (None, "other"):
        with pytest.raises(BudgetExceeded):
            await svc.tokens.verify(token.secret, budgets=True, dialog_id=dialog_id)


async def test_an_own_budget_replaces_the_default_of_its_metric_and_window(svc, pool):
    async def used(user_id):
        statuses = await svc.budgets.status(tenant_id="t", user_id=user_id)
        return sorted((each.limit, each.used, each.is_default) for each in statuses)

    default = {"tenant_id": "t", "scope": "user", "metric": "rounds"}
    await svc.budgets.set(**default, limit=1, window="day")
    await svc.budgets.set(**default, limit=9, window="month")
    await spend(pool, user_id="ann", rounds=2)
    await spend(pool, user_id="bob", rounds=3)
    assert await used("new") == [(1, 0, True), (9, 0, True)]
    own = await svc.budgets.set(**default, subject="ann", limit=5, window="day")
    assert await used("ann") == [(5, 2, False), (9, 2, True)]
    assert await used("bob") == [(1, 3, True), (9, 3, True)]
    await svc.maintain()
    await spend(pool, user_id="ann", rounds=1)
    assert await used("ann") == [(5, 3, False), (9, 3, True)]
    assert await svc.budgets.delete(own.id, tenant_id="t") == 1
    assert await svc.budgets.delete(own.id, tenant_id="t") == 0
    assert await used("ann") == [(1, 3, True), (9, 3, True)]
    assert await used("") == []
    assert await used(None) == []


async def test_a_rotation_does_not_free_a_budget(svc, pool):
    first = await issue(svc)
    await svc.budgets.set(
        tenant_id="t", scope="token", subject=first.token.id, metric="rounds", limit=1
    )
    await spend(pool, token_id=first.token.id, rounds=1)
    second = await svc.tokens.rotate(first.token.id, tenant_id="t", overlap=timedelta(days=1))
    for issued in (first, second):
        with pytest.raises(BudgetExceeded) as refused:
            await svc.tokens.verify(issued.secret, budgets=True)
        assert refused.value.subject == first.token.id
    (status,) = await svc.budgets.status(tenant_id="t", token_id=second.token.id)
    assert (status.subject, status.used) == (first.token.id, 1)
    again = await svc.budgets.set(
        tenant_id="t", scope="token", subject=second.token.id, metric="rounds", limit=5
    )
    assert again.subject == first.token.id
    assert len((await svc.budgets.list(tenant_id="t")).items) == 1


async def test_the_windows_are_those_of_the_zone(svc, pool):
    now = datetime.now(UTC)
    for window in ("hour", "day", "week", "month"):
        for tz in ("UTC", "Asia/Kathmandu", "America/Havana"):
            await svc.budgets.set(
                tenant_id=tz, scope="tenant", metric="rounds", limit=9, window=window, tz=tz
            )
    for tz in ("UTC", "Asia/Kathmandu", "America/Havana"):
        for status in await svc.budgets.status(tenant_id=tz):
            assert status.starts_at <= now < status.resets_at
            start, label = status.starts_at, "SELECT date_trunc($1, $2::timestamptz, $3)"
            before = start - timedelta(microseconds=1)
            labels = [
                await pool.fetchval(label, status.window, at, tz) for at in (start, now, before)
            ]
            assert labels[0] == labels[1] > labels[2]
            await spend(pool, tenant_id=tz, rounds=1, at=start)
            await spend(pool, tenant_id=tz, rounds=1, at=start - timedelta(microseconds=1))
    for tz in ("UTC", "Asia/Kathmandu", "America/Havana"):
        before = {each.window: each.used for each in await svc.budgets.status(tenant_id=tz)}
        assert 1 <= before["hour"] <= before["day"] <= before["month"] < 8
        await svc.maintain()
        after = {each.window: each.used for each in await svc.budgets.status(tenant_id=tz)}
        assert after == before


async def test_each_budget_of_a_metric_counts_the_window_of_its_zone(svc, pool):
    of = {"tenant_id": "t", "user_id": "ann"}
    for scope, tz in (("tenant", "UTC"), ("user", "Asia/Kathmandu"), ("dialog", "UTC")):
        await svc.budgets.set(
            tenant_id="t", scope=scope, metric="rounds", limit=99, window="day", tz=tz
        )
    starts = {each.starts_at for each in await svc.budgets.status(**of, dialog_id="d")}
    assert len(starts) == 2
    usages = [(max(starts), "ann", 1), (min(starts), "ann", 2), (max(starts), "bob", 4)]
    for at, user_id, rounds in usages:
        await spend(pool, at=at, user_id=user_id, dialog_id="d", rounds=rounds)
    statuses = await svc.budgets.status(**of, dialog_id="d")
    assert {each.scope for each in statuses} == {"tenant", "user", "dialog"}
    for each in statuses:
        assert each.used == sum(
            rounds
            for at, user_id, rounds in usages
            if at >= each.starts_at and (each.scope != "user" or user_id == "ann")
        )


async def test_a_total_counts_from_its_begin(svc, pool):
    now = datetime.now(UTC)
    await spend(pool, rounds=1)
    await spend(pool, rounds=2, at=now - timedelta(days=3))
    await svc.maintain()
    budget = {"tenant_id": "t", "scope": "tenant", "metric": "rounds", "window": "total"}
    first = await svc.budgets.set(**budget, limit=10)
    (status,) = await svc.budgets.status(tenant_id="t")
    assert (status.used, status.resets_at, status.starts_at) == (0, None, first.since)
    assert now <= first.since
    await spend(pool, rounds=4)
    await svc.maintain()
    await spend(pool, rounds=8)
    (status,) = await svc.budgets.status(tenant_id="t")
    assert status.used == 12
    same = await svc.budgets.set(**budget, limit=20)
    assert (same.id, same.since) == (first.id, first.since)
    (status,) = await svc.budgets.status(tenant_id="t")
    assert (status.used, status.limit) == (12, 20)
    past = await svc.budgets.set(**budget, limit=20, since=now - timedelta(days=1))
    assert past.since == past.since.replace(
        minute=past.since.minute // 15 * 15, second=0, microsecond=0
    )
    (status,) = await svc.budgets.status(tenant_id="t")
    assert status.used == 13
    await svc.budgets.set(**budget, limit=20, since=now + timedelta(days=1))
    assert (await svc.budgets.status(tenant_id="t"))[0].used == 0


async def test_a_budget_counts_the_whole_present_window(svc, pool):
    await spend(pool, user_id="ann", rounds=3)
    await svc.maintain()
    await spend(pool, user_id="ann", rounds=4)
    for scope in ("tenant", "user"):
        await svc.budgets.set(tenant_id="t", scope=scope, metric="rounds", limit=9, window="week")
    assert [each.used for each in await svc.budgets.status(tenant_id="t", user_id="ann")] == [7, 7]
    await svc.budgets.set(
        tenant_id="t", scope="tenant", metric="rounds", limit=9, window="week", tz="Asia/Tokyo"
    )
    await svc.maintain()
    assert len(await svc.budgets.status(tenant_id="t", user_id="ann")) == 2


async def test_imports_never_count(svc, pool):
    await svc.budgets.set(tenant_id="t", scope="tenant", metric="rounds", limit=1)
    await spend(pool, rounds=100, is_imported=True)
    assert (await svc.budgets.check(tenant_id="t")).used == 0
    await svc.maintain()
    assert (await svc.budgets.check(tenant_id="t")).used == 0
    await svc.budgets.set(tenant_id="t", scope="tenant", metric="rounds", limit=1, window="day")
    assert [each.used for each in await svc.budgets.status(tenant_id="t")] == [0, 0]


async def test_deletion_purge_and_clearing_change_no_budget(svc):
    await svc.budgets.set(tenant_id="t", scope="dialog", metric="tokens", limit=10**6)
    for number in range(6):
        chat = await svc.conversations.create(tenant_id="t", dialog_id="d", user_id="ann")
        turn = {"messages": [{"role": "user", "content": "x"}], "tokens": 100}
        await svc.conversations.append_message(chat.id, turn, tenant_id="t")
        if number % 2:
            await svc.maintain()
    page = await svc.conversations.get_list(tenant_id="t", dialog_id="d")
    ids = [each.id for each in page.items]
    await svc.conversations.clear_messages(ids[0], tenant_id="t")
    await svc.conversations.pop_message(ids[1], tenant_id="t")
    await svc.conversations.delete_by_id(ids[2], tenant_id="t")
    await svc.conversations.delete_by_ids(ids[3:5], tenant_id="t")
    await svc.conversations.erase_user("ann", tenant_id="t")
    assert (await svc.budgets.check(tenant_id="t", dialog_id="d")).used == 600
    await svc.maintain()
    assert (await svc.budgets.check(tenant_id="t", dialog_id="d")).used == 600


async def test_the_errors_of_a_token_come_before_those_of_its_budgets(svc):
    token = await issue(svc, scopes=["read"])
    await svc.budgets.set(tenant_id="t", scope="tenant", limit=0)
    with pytest.raises(asyncsvc.InsufficientScope):
        await svc.tokens.verify(token.secret, scopes=["write"], budgets=True)
    with pytest.raises(BudgetExceeded):
        await svc.tokens.verify(token.secret, scopes=["read"], budgets=True)
    assert (await svc.tokens.get_by_id(token.token.id, tenant_id="t")).last_used_at is not None
    await svc.tokens.revoke(token.token.id, tenant_id="t")
    with pytest.raises(asyncsvc.InvalidToken):
        await svc.tokens.verify(token.secret, budgets=True)


async def test_budgets_are_read_on_the_primary(dsn, pool):
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as unused:
        svc = asyncsvc.AsyncSvc(pool, replicas=[unused])
        token = await issue(svc)
        await svc.budgets.set(tenant_id="t", scope="tenant", metric="rounds", limit=1)
        await unused.close()
        await svc.tokens.verify(token.secret, budgets=True)
        await svc.budgets.check(tenant_id="t")
        await svc.budgets.list(tenant_id="t")


async def test_usage_of_ended_windows_is_deleted(svc, pool):
    now = datetime.now(UTC)
    for window in ("hour", "total"):
        await svc.budgets.set(
            tenant_id="t", scope="user", metric="rounds", limit=9, window=window,
            since=now - timedelta(days=9) if window == "total" else None,
        )  # fmt: skip
    for hours in range(5):
        await spend(pool, user_id="ann", rounds=1, at=now - timedelta(hours=hours))
    await svc.maintain()
    rows = await pool.fetch("SELECT used FROM asyncsvc.budget_usage ORDER BY used")
    assert [row["used"] for row in rows] == [1, 1, 5]
    for row in await pool.fetch(
        "SELECT window_start FROM asyncsvc.budget_usage WHERE used = 1 ORDER BY 1"
    ):
        await pool.execute(
            "UPDATE asyncsvc.budget_usage SET window_start = $1 WHERE window_start = $2",
            row["window_start"] - timedelta(hours=3),
            row["window_start"],
        )
    await spend(pool, user_id="bob", rounds=1)
    await svc.maintain()
    rows = await pool.fetch("SELECT subject, used FROM asyncsvc.budget_usage ORDER BY 1, 2")
    assert [tuple(row) for row in rows] == [("ann", 5), ("bob", 1), ("bob", 1)]


async def test_erasure_replaces_the_user_and_keeps_the_amounts(svc, pool):
    own = await svc.budgets.set(
        tenant_id="t", scope="user", subject="ann", metric="rounds", limit=3
    )
    await svc.budgets.set(tenant_id="t", scope="user", metric="rounds", limit=9, window="day")
    await svc.budgets.set(tenant_id="t", scope="dialog", subject="ann", metric="rounds", limit=9)
    await svc.budgets.set(tenant_id="t", scope="tenant", metric="rounds", limit=9)
    await spend(pool, user_id="ann", dialog_id="ann", rounds=3)
    await svc.maintain()
    await svc.conversations.erase_user("ann", tenant_id="t")
    statuses = await svc.budgets.status(tenant_id="t", user_id="ann", dialog_id="ann")
    assert {(each.scope, each.used) for each in statuses} == {
        ("user", 0), ("dialog", 3), ("tenant", 3)
    }  # fmt: skip
    (budget,) = [
        each for each in (await svc.budgets.list(tenant_id="t")).items if each.id == own.id
    ]
    assert budget.subject not in {"ann", None}
    events = (await svc.budgets.audit(tenant_id="t", budget_id=own.id)).items
    assert {each.subject for each in events} == {budget.subject}
    assert len(events) == 4
    sums = await pool.fetch("SELECT subject, used FROM asyncsvc.budget_usage ORDER BY 1")
    assert [row["used"] for row in sums] == [3, 3, 3, 3]
    assert [row["subject"] for row in sums].count("ann") == 1


async def test_the_deletion_of_a_tenant_deletes_its_budgets(svc, pool):
    for tenant_id in ("t", "globex"):
        await svc.budgets.set(tenant_id=tenant_id, scope="tenant", metric="rounds", limit=1)
        await spend(pool, tenant_id=tenant_id, rounds=1)
    await svc.maintain()
    receipt = await svc.conversations.delete_tenant(tenant_id="t")
    assert receipt.usage_rows > 0
    for table in ("budget", "budget_usage", "usage_audit"):
        tenants = await pool.fetch(f"SELECT DISTINCT tenant_id FROM asyncsvc.{table}")
        assert [row["tenant_id"] for row in tenants] == ["globex"], table


@pytest.mark.parametrize("subject", ["user_id", "dialog_id"])
async def test_a_verification_without_budgets_refuses_their_subjects(svc, subject):
    issued = await svc.tokens.create(tenant_id="t", name="n")
    with pytest.raises(InvalidInput, match=f"^{subject}: .*budgets=True"):
        await svc.tokens.verify(issued.secret, **{subject: "ann"})
