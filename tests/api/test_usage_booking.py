"""Usage of turns: what an append inserts into the usage ledger."""

import asyncio
import itertools
import random
from decimal import Decimal

import pytest

import asyncsvc
from asyncsvc import IdempotencyConflict, InvalidInput, Unavailable, Usage
from tests.support.wire import RESETS, Fault, Wire

USAGE = Usage(
    input_tokens=100,
    output_tokens=20,
    cached_input_tokens=60,
    cache_write_tokens=30,
    reasoning_tokens=15,
    cost=Decimal("0.0000000025"),
    model="openai/gpt-5",
)
HELPER = Usage(input_tokens=7, output_tokens=1, requests=2, model="openai/gpt-5-nano")
COLUMNS = """
    SELECT u.rounds, u.tokens, u.requests, u.input_tokens, u.cached_input_tokens,
           u.cache_write_tokens, u.output_tokens, u.reasoning_tokens, u.cost, u.model, u.unpriced,
           u.unmetered, u.duration, u.token_id, u.acting_user_id, u.user_id, u.dialog_id, u.source,
           u.is_imported,
           u.at = u.created_at AS is_of_creation
      FROM asyncsvc.usage_ledger AS u
     WHERE u.tenant_id = $1
       AND u.conversations = 0
     ORDER BY u.at, u.rounds DESC, u.duration DESC, u.model
"""


def turn(**fields: object) -> dict[str, object]:
    return {"messages": [{"role": "assistant", "content": "a"}]} | fields


@pytest.fixture
async def id(svc):
    chat = await svc.conversations.create(
        tenant_id="acme", dialog_id="d", user_id="ann", source="web"
    )
    return chat.id


@pytest.fixture
def append(svc, id):
    def run(*, key: str | None = None, **fields: object):
        return svc.conversations.append_message(
            id, turn(**fields), tenant_id="acme", idempotency_key=key
        )

    return run


@pytest.fixture
def ledger(pool):
    async def read(tenant_id: str = "acme") -> list[dict[str, object]]:
        """Return the columns of the ledger rows that are not NULL and not 0."""
        rows = await pool.fetch(COLUMNS, tenant_id)
        return [{name: value for name, value in row.items() if value} for row in rows]

    return read


OF_CONVERSATION = {"user_id": "ann", "dialog_id": "d", "source": "web"}
OF_USAGE = {
    "tokens": 120,
    "requests": 1,
    "input_tokens": 100,
    "cached_input_tokens": 60,
    "cache_write_tokens": 30,
    "output_tokens": 20,
    "reasoning_tokens": 15,
    "cost": 2,
    "model": "openai/gpt-5",
}
OF_HELPER = {
    "tokens": 8,
    "requests": 2,
    "input_tokens": 7,
    "output_tokens": 1,
    "model": "openai/gpt-5-nano",
    "unpriced": 1,
}


async def test_a_usage_is_one_row_of_the_ledger(append, ledger, svc, id):
    await append(usage=USAGE, duration=1.5, user_id="bob")
    (row,) = await ledger()
    assert row == OF_CONVERSATION | OF_USAGE | {
        "rounds": 1,
        "duration": 1_500_000,
        "acting_user_id": "bob",
    }
    assert (await svc.conversations.get_by_id(id, tenant_id="acme")).tokens == 120


async def test_a_turn_of_several_models_is_one_round(append, ledger, svc, id):
    usages = [USAGE, HELPER, HELPER]
    first = await append(usage=usages, duration=2.0, key="k")
    replay = await append(usage=usages, duration=2.0, key="k")
    assert replay == first.model_copy(update={"replayed": True})
    assert await ledger() == [
        OF_CONVERSATION | OF_USAGE | {"rounds": 1, "duration": 2_000_000},
        OF_CONVERSATION | OF_HELPER,
        OF_CONVERSATION | OF_HELPER,
    ]
    stored = await svc.conversations.get_by_id(id, tenant_id="acme")
    assert (stored.tokens, stored.round, stored.duration) == (136, 1, 2.0)
    with pytest.raises(IdempotencyConflict):
        await append(usage=usages[:2], duration=2.0, key="k")


async def test_free_unpriced_and_unmetered_turns_are_told_apart(append, ledger):
    await append(usage=Usage(input_tokens=1, output_tokens=1, cost=Decimal(0)))
    await append(usage=Usage(input_tokens=1, output_tokens=1))
    await append(tokens=7)
    await append()
    await append(usage=[], round=2)
    await append(round=0)  # a question before its answer
    rows = [(row.get("unpriced"), row.get("unmetered"), row["rounds"]) for row in await ledger()]
    assert rows == [(None, None, 1), (1, None, 1), (1, None, 1), (None, 1, 1), (None, 2, 2)]


async def test_usage_without_a_round_is_booked(append, ledger):
    await append(usage=HELPER, round=0)
    assert await ledger() == [OF_CONVERSATION | OF_HELPER]


async def test_usage_belongs_to_the_first_token_of_a_family(append, ledger, svc):
    first = (await svc.tokens.create(tenant_id="acme", name="a")).token
    second = (await svc.tokens.rotate(first.id, tenant_id="acme")).token
    third = (await svc.tokens.rotate(second.id, tenant_id="acme")).token
    other = (await svc.tokens.create(tenant_id="other", name="b")).token
    foreign = (await svc.tokens.rotate(other.id, tenant_id="other")).token
    for id in (first.id, third.id, "unknown", foreign.id):
        await append(usage=HELPER, token_id=id)
        await append(tokens=5, token_id=id)
    ids = [row["token_id"] for row in await ledger()]
    assert ids == [*[first.id] * 4, *["unknown"] * 2, *[foreign.id] * 2]


async def test_the_user_of_the_conversation_is_not_stored_twice(append, ledger):
    await append(tokens=1, user_id="ann")
    await append(tokens=1, user_id="")
    first, second = await ledger()
    assert "acting_user_id" not in first
    assert second == first  # an empty acting user is stored as the empty text


async def test_an_idempotency_key_covers_the_cost_in_nano_units(append, ledger):
    def priced(cost):
        return Usage(input_tokens=1, output_tokens=1, cost=Decimal(cost))

    first = await append(usage=priced("0.0000000021"), key="k")
    again = await append(usage=priced("0.0000000019"), key="k")  # both are 2 nano units
    assert (again.replayed, again.first_seq) == (True, first.first_seq)
    with pytest.raises(IdempotencyConflict):
        await append(usage=priced("0.0000000031"), key="k")
    assert [row["cost"] for row in await ledger()] == [2]


@pytest.mark.parametrize("key", [None, "k"])
async def test_the_usage_of_a_first_turn_is_booked(svc, ledger, key):
    token = (await svc.tokens.create(tenant_id="acme", name="a")).token
    await svc.conversations.append_message(
        "new",
        turn(usage=[USAGE, HELPER], token_id=token.id, user_id="bob"),
        tenant_id="acme",
        idempotency_key=key,
        create={"dialog_id": "d", "user_id": "ann", "source": "web"},
    )
    more = {"token_id": token.id, "acting_user_id": "bob", "is_of_creation": True}
    assert await ledger() == [
        OF_CONVERSATION | OF_USAGE | more | {"rounds": 1},
        OF_CONVERSATION | OF_HELPER | more,
    ]


async def test_the_largest_usage_of_a_turn_is_stored(append, ledger, svc, id):
    largest = Usage(
        input_tokens=10**12,
        output_tokens=10**12,
        cached_input_tokens=10**12,
        reasoning_tokens=10**12,
        requests=10**12,
        cost=Decimal(1000),
        model="m" * 200,
    )
    await append(usage=[largest] * 32)
    rows = await ledger()
    assert {(row["cost"], row["tokens"]) for row in rows} == {(10**12, 2 * 10**12)}
    assert (await svc.conversations.get_by_id(id, tenant_id="acme")).tokens == 64 * 10**12


async def test_usage_beyond_the_counter_of_a_conversation_is_rejected(append, ledger, pool, id):
    await pool.execute("UPDATE asyncsvc.conversation SET tokens = 9223372036854775807 - 119")
    with pytest.raises(InvalidInput) as caught:
        await append(usage=USAGE)
    assert caught.value.field == "turn.usage"
    assert await ledger() == []
    await append(usage=USAGE.model_copy(update={"output_tokens": 19, "reasoning_tokens": 0}))
    (row,) = await ledger()
    await pool.execute("UPDATE asyncsvc.conversation SET tokens = $1", row["tokens"])


@pytest.mark.parametrize("fault", RESETS)
async def test_usage_is_booked_once_whenever_the_connection_breaks(dsn, svc, id, ledger, fault):
    async with Wire(dsn) as wire, asyncsvc.connect(wire.dsn) as wired:

        async def append(key: str) -> asyncsvc.Appended:
            async with asyncio.timeout(60):
                while True:
                    try:
                        return await wired.conversations.append_message(
                            id, turn(usage=[USAGE, HELPER]), tenant_id="acme", idempotency_key=key
                        )
                    except Unavailable:
                        await asyncio.sleep(0.01)

        await append("prepares the statement")
        for number in range(4):
            injection = wire.inject(fault, "/append_message ")
            appended = await append(f"{number}")
            assert injection.count == 1
            assert appended.round == number + 2
            assert appended.replayed is (fault in {Fault.LOSE_REPLY, Fault.CUT_REPLY})
    rows = await ledger()
    assert sum(row["tokens"] for row in rows) == 5 * 128
    assert len(rows) == 10


async def test_1000_cuts_at_random_bytes_lose_and_repeat_no_usage(dsn, svc, id):
    """Each turn has a model of its own, so its group shows whether it is counted once."""
    cuts, chance, numbers = 1_000, random.Random(1), itertools.count()
    settings = asyncsvc.Settings(retry_timeout=0)
    acknowledged: dict[str, int] = {}
    async with (
        Wire(dsn) as wire,
        asyncsvc.connect(wire.dsn, max_size=8, settings=settings) as wired,
    ):
        wire.cut_at = lambda length: chance.randint(0, length)

        async def work() -> None:
            while wire.fault_count < cuts:
                number = next(numbers)
                usage = {"input_tokens": number, "output_tokens": 1, "model": f"m{number}"}
                while True:
                    try:
                        await wired.conversations.append_message(
                            id, turn(usage=usage), tenant_id="acme", idempotency_key=f"{number}"
                        )
                    except Unavailable:
                        continue
                    acknowledged[f"m{number}"] = number + 1
                    break

        wire.inject_at_random(seed=2, share=0.75)
        async with asyncio.timeout(300):
            await asyncio.gather(*(work() for _ in range(8)))
    assert wire.fault_count >= cuts
    ever = {"from_date": "2020-01-01", "to_date": "2035-01-01"}
    for _ in range(2):
        groups = await svc.conversations.stats(
            tenant_id="acme", **ever, interval="total", group_by="model", top=1_000
        )
        counted = {each.group: (each.rounds, each.tokens) for each in groups if each.rounds}
        assert counted == {model: (1, tokens) for model, tokens in acknowledged.items()}
        total = await svc.conversations.stats_total(tenant_id="acme", **ever)
        assert total.tokens == sum(acknowledged.values())
        assert total.rounds == len(acknowledged)
        await svc.maintain()
    chat = await svc.conversations.get_by_id(id, tenant_id="acme")
    assert (chat.round, chat.tokens) == (total.rounds, total.tokens)


async def test_a_tool_loop_is_one_round_with_the_usage_of_each_model(append, svc):
    usages = [USAGE, HELPER.model_copy(update={"requests": 1}), USAGE]
    for _ in range(2):
        await append(usage=usages, key="k")
    for _ in range(2):
        groups = await svc.conversations.stats(
            tenant_id="acme",
            from_date="2020-01-01",
            to_date="2035-01-01",
            interval="total",
            group_by="model",
        )
        counted = {each.group: (each.requests, each.tokens, each.unpriced) for each in groups}
        assert counted["openai/gpt-5"] == (2, 240, 0)
        assert counted["openai/gpt-5-nano"] == (1, 8, 1)
        assert sum(each.requests for each in groups) == 3
        assert sum(each.rounds for each in groups) == 1
        assert sum(each.cost for each in groups) == Decimal("0.000000004")
        await svc.maintain()
