"""No legal sequence of calls overflows a counter or a sum."""

from datetime import UTC, datetime

import pytest

from asyncsvc import InvalidInput

MESSAGES = [{"role": "user", "content": "hello"}]
MAX_INT, MAX_TOKENS, MAX_DURATION = 2**31 - 1, 2**63 - 1, 9e12
LIMITS = {"round": MAX_INT, "tokens": MAX_TOKENS, "duration": MAX_DURATION, "last_seq": MAX_INT}


def record(id, **fields):
    return {"id": id, "dialog_id": "d", "user_id": "u", "messages": MESSAGES, **fields}


def stats(svc, **options):
    return svc.conversations.stats(
        tenant_id="t",
        from_date="2020-01-01",
        to_date="2030-01-01",
        interval="month",
        **{"basis": "creation"} | options,
    )


async def totals(svc):
    """Return the sums of all kinds of statistics: by creation, by activity, stored and counted."""
    buckets = set()
    for options in (
        {}, {"tz": "Asia/Tokyo"}, {"basis": "activity"}, {"basis": "activity", "tz": "Asia/Tokyo"},
        {"dialog_id": "d"}, {"source": None},
    ):  # fmt: skip
        (bucket,) = await stats(svc, fill=False, **options)
        buckets.add((bucket.conversations, bucket.rounds, bucket.tokens, bucket.duration))
    return buckets


async def test_sums_of_the_largest_conversations_are_right(svc):
    created_at = datetime(2026, 3, 1, tzinfo=UTC)
    records = [record(f"c{n}", created_at=created_at, **LIMITS) for n in range(5)]
    expected = {(5, 5 * MAX_INT, 5 * MAX_TOKENS, 5 * MAX_DURATION)}
    await svc.conversations.import_(records, tenant_id="t")
    assert await totals(svc) == expected
    await svc.maintain()
    assert await totals(svc) == expected
    await svc.conversations.declare_zone(tenant_id="t", tz="Asia/Tokyo")
    assert await totals(svc) == expected
    await svc.conversations.recount_usage(tenant_id="t")
    assert await totals(svc) == expected
    assert (await svc.conversations.get_list(tenant_id="t")).total == 5
    for n in range(5):
        await svc.conversations.update_by_id(f"c{n}", {"dialog_id": "e"}, tenant_id="t")
    assert await svc.conversations.delete_by_ids([f"c{n}" for n in range(4)], tenant_id="t") == 4
    await svc.maintain()
    (left,) = await stats(svc, fill=False)
    assert (left.conversations, left.tokens, left.rounds) == (1, MAX_TOKENS, MAX_INT)


@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize(
    ("counter", "turn", "field"),
    [
        ("round", {"round": 1}, "turn.round"),
        ("tokens", {"tokens": 1}, "turn.tokens"),
        ("duration", {"duration": 1.0}, "turn.duration"),
        ("last_seq", {"round": 0}, "turn.messages"),
    ],
)
async def test_an_append_beyond_a_counter_is_rejected_by_name(svc, counter, turn, field, key):
    nothing = {"round": 0, "tokens": 0, "duration": 0.0}
    added = {"last_seq": 1, **turn}[counter]
    await svc.conversations.import_(
        [
            record("full", **{counter: LIMITS[counter]}),
            record("almost", **{counter: LIMITS[counter] - added}),
        ],
        tenant_id="t",
    )
    before = await svc.conversations.get_by_id("full", tenant_id="t", include_messages=True)
    turn = {"messages": MESSAGES, **nothing, **turn}
    with pytest.raises(InvalidInput) as caught:
        await svc.conversations.append_message("full", turn, tenant_id="t", idempotency_key=key)
    assert caught.value.field == field
    after = await svc.conversations.get_by_id("full", tenant_id="t", include_messages=True)
    assert after == before

    await svc.conversations.append_message("almost", turn, tenant_id="t", idempotency_key=key)
    with pytest.raises(InvalidInput):
        await svc.conversations.append_message("almost", turn, tenant_id="t")
    if key is not None:
        again = await svc.conversations.append_message(
            "almost", turn, tenant_id="t", idempotency_key=key
        )
        assert again.replayed
