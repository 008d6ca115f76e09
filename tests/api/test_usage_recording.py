"""Usage without a message: `record_usage` and `adjust_usage`."""

import asyncio
import json
from decimal import Decimal

import asyncpg
import pytest

import asyncsvc
from asyncsvc import (
    IdempotencyConflict,
    InvalidInput,
    NotFound,
    Settings,
    Unavailable,
    Usage,
    UsageAdjustment,
)
from tests.support.wire import RESETS, Fault, Wire

USAGE = Usage(input_tokens=100, output_tokens=20, cost=Decimal("0.25"), model="m")
OTHER = Usage(input_tokens=1, output_tokens=2)
ROWS = """
    SELECT u.dialog_id, u.source, coalesce(u.acting_user_id, u.user_id) AS user_id, u.token_id,
           u.tokens, u.cost, u.model, u.unpriced, u.requests, u.rounds, u.duration,
           u.created_at, u.at IS NOT NULL AS is_activity
      FROM asyncsvc.usage_ledger AS u
     WHERE u.tenant_id = 'acme'
       AND u.conversations = 0
     ORDER BY u.at, u.model
"""
OF_USAGE = {
    "tokens": 120,
    "cost": 250_000_000,
    "model": "m",
    "requests": 1,
    "is_activity": True,
}


@pytest.fixture
async def id(svc):
    chat = await svc.conversations.create(
        tenant_id="acme", dialog_id="d", user_id="ann", source="web"
    )
    return chat.id


@pytest.fixture
def ledger(pool):
    async def read() -> list[dict[str, object]]:
        """Return the columns that are not NULL, 0 or empty."""
        rows = await pool.fetch(ROWS)
        return [{name: value for name, value in row.items() if value} for row in rows]

    return read


@pytest.fixture
def record(svc):
    def run(usage: object = USAGE, **more: object):
        return svc.conversations.record_usage(usage, tenant_id="acme", **more)

    return run


async def test_usage_of_a_conversation_belongs_to_its_dialog_source_and_user(
    record, ledger, svc, id
):
    before = await svc.conversations.get_by_id(id, tenant_id="acme")
    assert await record(conversation_id=id)
    assert await record([USAGE], conversation_id=id, user_id="bob", token_id="t")
    of_conversation = OF_USAGE | {"dialog_id": "d", "source": "web", "user_id": "ann"}
    assert await ledger() == [
        of_conversation,
        of_conversation | {"user_id": "bob", "token_id": "t"},
    ]
    assert await svc.conversations.get_by_id(id, tenant_id="acme") == before


async def test_usage_without_a_conversation_belongs_to_what_the_call_names(record, ledger, svc):
    token = (await svc.tokens.create(tenant_id="acme", name="a")).token
    successor = (await svc.tokens.rotate(token.id, tenant_id="acme")).token
    assert await record()
    assert await record(dialog_id="d", source="batch", user_id="ann", token_id=successor.id)
    assert await record([OTHER, OTHER])
    of_call = {"dialog_id": "d", "source": "batch", "user_id": "ann", "token_id": token.id}
    of_other = {"tokens": 3, "requests": 1, "unpriced": 1, "is_activity": True}
    assert await ledger() == [OF_USAGE, OF_USAGE | of_call, of_other, of_other]


async def test_a_key_records_the_same_usage_once(record, ledger, id):
    assert await record(conversation_id=id, idempotency_key="k")
    assert not await record(conversation_id=id, idempotency_key="k")
    assert not await record(conversation_id=id, idempotency_key="k", token_id="rotated")
    for usage, more in (
        (OTHER, {"conversation_id": id}),
        ([USAGE, USAGE], {"conversation_id": id}),
        (USAGE, {}),
        (USAGE, {"conversation_id": id, "user_id": "bob"}),
    ):
        with pytest.raises(IdempotencyConflict):
            await record(usage, idempotency_key="k", **more)
    assert len(await ledger()) == 1


async def test_a_key_belongs_to_its_tenant(record, svc):
    assert await record(idempotency_key="k")
    assert await svc.conversations.record_usage(USAGE, tenant_id="other", idempotency_key="k")


async def test_64_equal_calls_at_once_record_the_usage_once(record, ledger):
    recorded = await asyncio.gather(*(record(idempotency_key="k") for _ in range(64)))
    assert sum(recorded) == 1
    assert len(await ledger()) == 1


@pytest.mark.parametrize("key", [None, "k"])
async def test_the_usage_of_a_missing_conversation_is_not_recorded(record, ledger, svc, key):
    await svc.conversations.create(tenant_id="other", dialog_id="d", id="foreign")
    for id in ("absent", "foreign"):
        with pytest.raises(NotFound):
            await record(conversation_id=id, idempotency_key=key)
    assert await ledger() == []
    assert await record(idempotency_key=key)  # the key was not used


async def test_a_replay_needs_no_conversation(record, svc, id):
    assert await record(conversation_id=id, idempotency_key="k")
    await svc.conversations.delete_by_id(id, tenant_id="acme")
    assert not await record(conversation_id=id, idempotency_key="k")


@pytest.mark.parametrize("more", [{"dialog_id": "d"}, {"source": "web"}])
async def test_a_conversation_excludes_another_dialog_or_source(record, id, more):
    with pytest.raises(InvalidInput) as caught:
        await record(conversation_id=id, **more)
    assert caught.value.field in more


async def test_a_call_without_usage_is_rejected(record, ledger):
    with pytest.raises(InvalidInput):
        await record([])
    assert await ledger() == []


async def test_usage_of_a_transaction_that_is_rolled_back_is_not_recorded(svc, ledger):
    class Abort(Exception):
        pass

    with pytest.raises(Abort):
        async with svc.transaction() as tx:
            await tx.conversations.record_usage(USAGE, tenant_id="acme", idempotency_key="k")
            raise Abort
    assert await ledger() == []
    assert await svc.conversations.record_usage(USAGE, tenant_id="acme", idempotency_key="k")


@pytest.mark.parametrize("fault", RESETS)
async def test_usage_is_recorded_once_whenever_the_connection_breaks(dsn, svc, ledger, fault):
    async with Wire(dsn) as wire, asyncsvc.connect(wire.dsn) as wired:

        async def record(key: str) -> bool:
            async with asyncio.timeout(60):
                while True:
                    try:
                        return await wired.conversations.record_usage(
                            [USAGE, OTHER], tenant_id="acme", idempotency_key=key
                        )
                    except Unavailable:
                        await asyncio.sleep(0.01)

        await record("prepares the statement")
        for number in range(4):
            injection = wire.inject(fault, "/record ")
            assert await record(f"{number}") is (fault not in {Fault.LOSE_REPLY, Fault.CUT_REPLY})
            assert injection.count == 1
    assert len(await ledger()) == 2 * 5


async def test_keys_expire_and_are_deleted_with_their_tenant(dsn, svc, pool: asyncpg.Pool, record):
    keys = "SELECT count(*) FROM asyncsvc.usage_key"
    for number in range(5):
        await record(idempotency_key=f"{number}")
    await pool.execute(
        "UPDATE asyncsvc.usage_key SET created_at = now() - interval '8 days' WHERE key < '3'"
    )
    assert (await svc.maintain()).append_keys == 3
    assert (await svc.maintain()).append_keys == 0
    assert await pool.fetchval(keys) == 2
    async with asyncsvc.connect(dsn, settings=Settings(key_lifetime=1e-3)) as short_lived:
        assert (await short_lived.maintain()).append_keys == 2
    await record(idempotency_key="k")
    await svc.conversations.delete_tenant(tenant_id="acme")
    assert await pool.fetchval(keys) == 0


# ------------------------------------------------------------------ corrections

AUDIT = "SELECT action, actor, subject, detail::text AS detail FROM asyncsvc.usage_audit"
BILLED = {"actor": "ops", "reason": "wrong price"}


@pytest.fixture
def adjust(svc):
    def run(adjustment: object, **more: object):
        return svc.conversations.adjust_usage(adjustment, tenant_id="acme", **BILLED | more)

    return run


async def test_a_correction_is_a_row_of_the_ledger_and_of_the_audit(adjust, ledger, pool, svc):
    token = (await svc.tokens.create(tenant_id="acme", name="a")).token
    successor = (await svc.tokens.rotate(token.id, tenant_id="acme")).token
    correction = UsageAdjustment(
        rounds=1, requests=-2, output_tokens=7, total_tokens=3, cost=Decimal("-0.5"), unpriced=-1,
        model="m",
    )  # fmt: skip
    assert await adjust(correction, dialog_id="d", user_id="ann", token_id=successor.id)
    assert await adjust({"cost": Decimal("0.0000000025")})
    first, second = await ledger()
    assert first == {
        "dialog_id": "d", "user_id": "ann", "token_id": token.id, "rounds": 1, "requests": -2,
        "tokens": 10, "cost": -500_000_000, "unpriced": -1, "model": "m", "is_activity": True,
    }  # fmt: skip
    assert second == {"cost": 2, "is_activity": True}
    rows = [tuple(row) for row in await pool.fetch(f"{AUDIT} ORDER BY at, id")]
    assert [row[:3] for row in rows] == [("adjust", "ops", "ann"), ("adjust", "ops", None)]
    assert [json.loads(row[3]) for row in rows] == [
        {
            "rounds": 1, "requests": -2, "output_tokens": 7, "total_tokens": 3, "model": "m",
            "cost": "-0.500000000", "unpriced": -1, "dialog_id": "d", "reason": "wrong price",
            "token_id": successor.id,
        },
        {"cost": "0.000000002", "reason": "wrong price"},
    ]  # fmt: skip


async def test_the_audit_of_corrections_forgets_an_erased_person(adjust, svc):
    await adjust({"output_tokens": 3}, user_id="ann")
    await svc.conversations.erase_user("ann", tenant_id="acme")
    (entry,) = (await svc.budgets.audit(tenant_id="acme")).items
    assert (entry.action, entry.actor, entry.detail["reason"]) == ("adjust", "ops", "wrong price")
    assert "ann" not in entry.model_dump_json()


async def test_the_audits_keep_an_erased_person_as_actor(adjust, svc):
    issued = await svc.tokens.create(tenant_id="acme", name="key", actor="ann")
    await adjust({"output_tokens": 3}, actor="ann", user_id="bob")
    await svc.budgets.set(tenant_id="acme", scope="user", subject="ann", limit=1, actor="ann")
    await svc.conversations.erase_user("ann", tenant_id="acme")
    changed, adjusted = (await svc.budgets.audit(tenant_id="acme")).items
    (created,) = (await svc.tokens.audit(tenant_id="acme")).items
    assert (changed.actor, adjusted.actor, created.actor) == ("ann", "ann", "ann")
    assert created.token_id == issued.token.id
    assert changed.subject.startswith("erased-")
    assert adjusted.subject == "bob"


async def test_a_key_corrects_once(adjust, record, ledger, pool):
    correction = {"output_tokens": 3}
    assert await adjust(correction, idempotency_key="k")
    assert not await adjust(correction, idempotency_key="k")
    for changes in ({"actor": "bob"}, {"reason": "other"}, {"user_id": "ann"}):
        with pytest.raises(IdempotencyConflict):
            await adjust(correction, idempotency_key="k", **changes)
    with pytest.raises(IdempotencyConflict):
        await adjust({"output_tokens": 4}, idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        await record(idempotency_key="k")
    assert len(await ledger()) == len(await pool.fetch(AUDIT)) == 1


@pytest.mark.parametrize("correction", [{}, {"model": "m"}, {"rounds": 0, "cost": Decimal(0)}])
async def test_a_correction_must_change_a_counter(adjust, pool, correction):
    with pytest.raises(InvalidInput):
        await adjust(correction)
    assert await pool.fetch(AUDIT) == []


async def test_corrections_of_a_tenant_are_deleted_with_it(adjust, pool, svc):
    await adjust({"output_tokens": 3}, idempotency_key="k")
    await svc.maintain()
    await svc.conversations.delete_tenant(tenant_id="acme")
    assert await pool.fetch(AUDIT) == []


async def test_recorded_usage_is_rolled_up(record, adjust, svc):
    await record()
    await adjust({"output_tokens": 3})
    month = {"from_date": "2020-01-01", "to_date": "2035-01-01", "interval": "month"}
    for _ in range(2):
        buckets = await svc.conversations.stats(tenant_id="acme", basis="activity", **month)
        assert sum(bucket.tokens for bucket in buckets) == 123
        assert sum(bucket.rounds for bucket in buckets) == 0
        await svc.maintain()


@pytest.mark.parametrize("dimension", ["dialog_id", "source", "user_id", "token_id"])
async def test_usage_that_belongs_to_the_tenant_alone_has_no_group(record, svc, id, dimension):
    await record(conversation_id=id)
    await record(OTHER)
    for _ in range(2):
        groups = await svc.conversations.stats(
            tenant_id="acme",
            from_date="2020-01-01",
            to_date="2035-01-01",
            interval="total",
            group_by=dimension,
        )
        tokens = {bucket.group: bucket.tokens for bucket in groups}
        named = {"dialog_id": "d", "source": "web", "user_id": "ann"}.get(dimension)
        assert tokens == ({named: 120, None: 3} if named else {None: 123})
        await svc.maintain()
