"""Usage by activity counts changes at their time, also by token. Deletions do not reduce it."""

import asyncio
import contextlib
import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from asyncsvc import ANY, InvalidInput, NotFound

TODAY = {"from_date": "2020-01-01", "to_date": "2035-01-01"}
ZONES = ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/Havana", "Australia/Lord_Howe"]
COUNTED = ("conversations", "users", "tokens", "rounds", "thumb_up", "thumb_down")


async def total(svc, tenant_id="t", **of):
    buckets = await svc.conversations.stats(
        tenant_id=tenant_id, **TODAY, basis="activity", interval="month", fill=False, **of
    )
    counted = {name: sum(getattr(bucket, name) for bucket in buckets) for name in COUNTED}
    return counted | {"duration": sum(bucket.duration for bucket in buckets)}


def turn(token_id=None, **cost):
    return {"messages": [{"role": "user", "content": "x"}], "token_id": token_id} | cost


async def test_statistics_can_be_limited_to_one_token(svc):
    chat = await svc.conversations.create(tenant_id="t", dialog_id="d", source="api")
    other = await svc.conversations.create(tenant_id="t", dialog_id="e")

    async def append(id, *token, **more):
        await svc.conversations.append_message(id, turn(*token, **more), tenant_id="t")

    await append(chat.id, "key", tokens=7, duration=0.25)
    await append(chat.id, "key", tokens=5, duration=0.5, round=0)
    await append(chat.id, "other", tokens=100)
    await append(other.id, "key", tokens=1)
    await append(other.id, tokens=30)
    await append(other.id, "key", round=0)  # no cost
    none = dict.fromkeys(COUNTED, 0)
    assert await total(svc, token_id="key") == none | {"tokens": 13, "rounds": 2, "duration": 0.75}
    assert await total(svc, token_id="key", dialog_id="d", source="api") == (
        none | {"tokens": 12, "rounds": 1, "duration": 0.75}
    )
    assert await total(svc, token_id="key", source=None) == (
        none | {"tokens": 1, "rounds": 1, "duration": 0}
    )
    assert await total(svc, token_id=None) == (
        none | {"conversations": 2, "tokens": 30, "rounds": 1, "duration": 0}
    )
    assert await total(svc) == none | {
        "conversations": 2,
        "tokens": 143,
        "rounds": 4,
        "duration": 0.75,
    }
    assert await total(svc, tenant_id="other", token_id="key") == none | {"duration": 0}


async def test_deletions_and_moves_keep_the_activity(svc):
    chat = await svc.conversations.create(tenant_id="t", dialog_id="d", user_id="u")
    await svc.conversations.append_message(chat.id, turn("key", tokens=7), tenant_id="t")
    await svc.conversations.set_feedback(chat.id, 1, 1, tenant_id="t")
    before = await total(svc)
    assert (before["conversations"], before["tokens"], before["thumb_up"]) == (1, 7, 1)
    await svc.conversations.update_by_id(chat.id, {"dialog_id": "e", "source": "s"}, tenant_id="t")
    await svc.conversations.pop_message(chat.id, tenant_id="t")
    assert await total(svc, dialog_id="d") == before
    await svc.conversations.append_message(chat.id, turn("key", tokens=3), tenant_id="t")
    assert (await total(svc, dialog_id="e", source="s"))["tokens"] == 3
    await svc.conversations.clear_messages(chat.id, tenant_id="t")
    await svc.conversations.erase_user("u", tenant_id="t")
    after = await total(svc)
    assert after == before | {"tokens": 10, "rounds": 2}
    assert not await svc.conversations.stats(
        tenant_id="t", **TODAY, basis="creation", interval="month", fill=False
    )


async def test_a_withdrawn_thumb_subtracts_one(svc):
    chat = await svc.conversations.create(tenant_id="t", dialog_id="d")
    await svc.conversations.append_message(chat.id, turn(), tenant_id="t")
    for thumb, counted in ((1, (1, 0)), (1, (1, 0)), (-1, (0, 1)), (None, (0, 0)), (None, (0, 0))):
        await svc.conversations.set_feedback(chat.id, 1, thumb, tenant_id="t")
        totals = await total(svc)
        assert (totals["thumb_up"], totals["thumb_down"]) == counted


async def test_replays_and_rolled_back_appends_record_no_usage(svc):
    chat = await svc.conversations.create(tenant_id="t", dialog_id="d")
    for token_id in ("key", "its successor"):
        await svc.conversations.append_message(
            chat.id, turn(token_id, tokens=7), tenant_id="t", idempotency_key="k"
        )
    with pytest.raises(ZeroDivisionError):
        async with svc.transaction() as tx:
            await tx.conversations.append_message(chat.id, turn(tokens=7), tenant_id="t")
            raise ZeroDivisionError
    assert (await total(svc))["tokens"] == (await total(svc, token_id="key"))["tokens"] == 7


async def test_an_imported_conversation_counts_once_at_its_creation(svc):
    created = datetime(2024, 5, 1, 10, 7, tzinfo=UTC)
    record = {
        "id": "a", "dialog_id": "d", "source": "s", "tokens": 9, "duration": 1.5, "round": 4,
        "created_at": created,
        "messages": [
            {"role": "user", "content": "x", "thumb": 1},
            {"role": "user", "content": "y", "thumb": -1},
        ],
    }  # fmt: skip
    for _ in range(2):
        await svc.conversations.import_([record, record | {"id": "b"}], tenant_id="t")
    (bucket,) = await svc.conversations.stats(
        tenant_id="t",
        from_date="2024-05-01T10:00Z",
        to_date="2024-05-01T10:15Z",
        basis="activity",
        interval="hour",
        fill=False,
    )
    assert (bucket.conversations, bucket.tokens, bucket.duration, bucket.rounds) == (2, 18, 3.0, 8)
    assert (bucket.thumb_up, bucket.thumb_down, bucket.round) == (2, 2, 4.0)
    assert bucket.dt == created.replace(minute=0)


@pytest.mark.parametrize(
    ("since", "until", "count"),
    [
        ("10:15:00Z", "10:29:59Z", 1),
        ("10:29:59Z", "10:29:59Z", 1),
        ("10:00:00Z", "10:15:00Z", 1),
        ("10:00:00Z", "10:14:59Z", 0),
        ("10:30:00Z", "11:00:00Z", 0),
    ],
)
async def test_a_range_is_widened_to_quarter_hours(svc, since, until, count):
    created = datetime(2024, 5, 1, 10, 22, tzinfo=UTC)
    await svc.conversations.create(tenant_id="t", dialog_id="d", created_at=created)
    buckets = await svc.conversations.stats(
        tenant_id="t",
        from_date=f"2024-05-01T{since}",
        to_date=f"2024-05-01T{until}",
        basis="activity",
        fill=False,
    )
    assert sum(bucket.conversations for bucket in buckets) == count


@pytest.mark.parametrize("year", [2, 1969, 1999, 2000, 9998])
async def test_a_quarter_hour_starts_at_its_instant_in_any_year(svc, year):
    start = datetime(year, 12, 30, 23, 45, tzinfo=UTC)
    created = [start, start - timedelta(microseconds=1), start + timedelta(microseconds=1)]
    await svc.conversations.create_many(
        [{"dialog_id": "d", "created_at": each} for each in created], tenant_id="t"
    )
    (bucket,) = await svc.conversations.stats(
        tenant_id="t",
        from_date=start,
        to_date=start + timedelta(minutes=14),
        basis="activity",
        interval="hour",
        fill=False,
    )
    assert bucket.conversations == 2


async def test_concurrent_writers_lose_no_usage(svc):
    chats = [
        await svc.conversations.create(tenant_id="t", dialog_id=f"d{number % 3}")
        for number in range(6)
    ]
    drawn = random.Random(4)
    expected = Counter()

    async def work(number):
        for _ in range(15):
            chat, token = drawn.choice(chats), drawn.choice(["a", "b", None])
            tokens = drawn.randrange(1, 9)
            appended = await svc.conversations.append_message(
                chat.id, turn(token, tokens=tokens, duration=0.000_001), tenant_id="t"
            )
            expected[chat.dialog_id, token] += tokens
            with contextlib.suppress(NotFound):  # another task deleted the message
                await svc.conversations.set_feedback(
                    chat.id, appended.last_seq, drawn.choice([1, -1, None]), tenant_id="t"
                )
            if drawn.random() < 0.2:
                await svc.conversations.pop_message(chat.id, tenant_id="t")

    await asyncio.gather(*(work(number) for number in range(8)))
    for dialog_id in ("d0", "d1", "d2", ANY):
        for token_id in ("a", "b", None, ANY):
            appended = sum(
                tokens for (dialog, token), tokens in expected.items()
                if dialog_id in {ANY, dialog} and token_id in {ANY, token}
            )  # fmt: skip
            totals = await total(svc, dialog_id=dialog_id, token_id=token_id)
            assert totals["tokens"] == appended
    assert (await total(svc))["rounds"] == 8 * 15
    assert (await total(svc))["duration"] == pytest.approx(8 * 15e-6)


async def test_statistics_by_creation_reject_a_token(svc):
    with pytest.raises(InvalidInput, match="token_id: applies to usage by activity"):
        await svc.conversations.stats(tenant_id="t", **TODAY, basis="creation", token_id="key")
    with pytest.raises(InvalidInput, match=r"^turn\.token_id"):
        await svc.conversations.append_message("a", turn(""), tenant_id="t")
