"""Appending: order, counters, idempotency, expected sequence, concurrency, cancellation."""

import asyncio
import contextlib
import random
from decimal import Decimal

import asyncpg
import pytest

import asyncsvc
from asyncsvc import (
    Conflict,
    IdempotencyConflict,
    InvalidInput,
    Message,
    NotFound,
    StaleSequence,
    Turn,
    Usage,
)


def turn(*texts: str, **more: object) -> Turn:
    return Turn(messages=[Message(role="user", content=text) for text in texts], **more)


@pytest.fixture
async def id(svc):
    return (await svc.conversations.create(tenant_id="acme", dialog_id="d")).id


async def texts(svc, id):
    messages = await svc.conversations.messages(id, tenant_id="acme", limit=1000)
    return [message.content for message in messages]


async def test_all_fields_of_a_turn_are_stored(svc, id):
    appended = await svc.conversations.append_message(
        id,
        Turn(
            messages=[
                Message(role="user", content="Wie spät ist es?"),
                Message(
                    role="assistant",
                    content="四点",
                    reference=[{"chunk": 1.5}],
                    payload={"id": "m2", "parts": [None, True]},
                ),
            ],
            tokens=12,
            duration=1.25,
            errors="late",
            dsl={"graph": []},
        ),
        tenant_id="acme",
    )
    assert appended == asyncsvc.Appended(first_seq=1, last_seq=2, round=1, replayed=False)
    stored = await svc.conversations.get_by_id(id, tenant_id="acme", include_messages=True)
    assert (stored.round, stored.tokens, stored.duration) == (1, 12, 1.25)
    assert (stored.errors, stored.dsl, stored.last_seq) == ("late", {"graph": []}, 2)
    first, second = stored.messages
    assert (first.seq, first.role, first.content) == (1, "user", "Wie spät ist es?")
    assert (first.payload, first.reference, first.thumb) == ({}, None, None)
    assert second.reference == [{"chunk": 1.5}]
    assert second.payload == {"id": "m2", "parts": [None, True]}
    assert first.created_at == second.created_at == stored.updated_at > stored.created_at


async def test_a_mapping_is_accepted_as_a_turn(svc, id):
    await svc.conversations.append_message(
        id, {"messages": [{"role": "user", "content": "hello"}]}, tenant_id="acme"
    )
    assert await texts(svc, id) == ["hello"]


async def test_text_is_stored_as_nfc(svc, id):
    await svc.conversations.append_message(id, turn("e\u0301"), tenant_id="acme")
    assert await texts(svc, id) == ["\u00e9"]


async def test_a_turn_with_round_0_adds_no_round(svc, id):
    await svc.conversations.append_message(id, turn("question", round=0), tenant_id="acme")
    appended = await svc.conversations.append_message(id, turn("answer"), tenant_id="acme")
    assert (appended.round, appended.last_seq) == (1, 2)


async def test_errors_and_dsl_stay_unless_they_are_set(svc, id):
    await svc.conversations.append_message(
        id, turn("a", errors="broken", dsl=[1]), tenant_id="acme"
    )
    await svc.conversations.append_message(id, turn("b"), tenant_id="acme")
    kept = await svc.conversations.get_by_id(id, tenant_id="acme")
    assert (kept.errors, kept.dsl) == ("broken", [1])
    await svc.conversations.append_message(id, turn("c", errors=None, dsl=None), tenant_id="acme")
    cleared = await svc.conversations.get_by_id(id, tenant_id="acme")
    assert (cleared.errors, cleared.dsl) == (None, None)


async def test_durations_add_up_to_the_microsecond(svc, id):
    for _ in range(10):
        await svc.conversations.append_message(id, turn("a", duration=0.1), tenant_id="acme")
    assert (await svc.conversations.get_by_id(id, tenant_id="acme")).duration == 1.0


async def test_an_append_to_an_absent_conversation_is_not_found(svc, id):
    for key in (None, "key"):
        for expected in (None, 0):
            with pytest.raises(NotFound):
                await svc.conversations.append_message(
                    "absent",
                    turn("a"),
                    tenant_id="acme",
                    idempotency_key=key,
                    expected_seq=expected,
                )
            with pytest.raises(NotFound):
                await svc.conversations.append_message(
                    id, turn("a"), tenant_id="other", idempotency_key=key, expected_seq=expected
                )
    assert await texts(svc, id) == []


async def test_a_replay_returns_the_first_result_and_adds_nothing(svc, id):
    first = await svc.conversations.append_message(
        id, turn("a", "b"), tenant_id="acme", idempotency_key="k"
    )
    await svc.conversations.append_message(id, turn("c"), tenant_id="acme")
    replay = await svc.conversations.append_message(
        id, turn("a", "b"), tenant_id="acme", idempotency_key="k"
    )
    assert replay == first.model_copy(update={"replayed": True})
    assert await texts(svc, id) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "other",
    [
        turn("a", "c"),
        turn("a"),
        turn("a", "b", tokens=1),
        turn("a", "b", duration=0.5),
        turn("a", "b", round=0),
        turn("a", "b", errors=None),
        turn("a", "b", dsl=None),
        turn("a", "b", user_id=""),
        turn("a", "b", usage=Usage(input_tokens=0, output_tokens=0)),
        Turn(messages=[Message(role="user", content="a"), Message(role="tool", content="b")]),
        Turn(
            messages=[
                Message(role="user", content="a"),
                Message(role="user", content="b", payload={"id": 1}),
            ]
        ),
    ],
)
async def test_the_same_key_with_another_turn_is_a_conflict(svc, id, other):
    await svc.conversations.append_message(
        id, turn("a", "b"), tenant_id="acme", idempotency_key="k"
    )
    with pytest.raises(IdempotencyConflict):
        await svc.conversations.append_message(id, other, tenant_id="acme", idempotency_key="k")
    assert await texts(svc, id) == ["a", "b"]


USAGE = Usage(input_tokens=5, output_tokens=3, cost=Decimal("0.0000000025"), model="m")


@pytest.mark.parametrize(
    "other",
    [
        None,
        [],
        [USAGE, USAGE],
        *(
            USAGE.model_copy(update=changes)
            for changes in (
                {"input_tokens": 6},
                {"cached_input_tokens": 1},
                {"cache_write_tokens": 1},
                {"reasoning_tokens": 1},
                {"requests": 2},
                {"cost": None},
                {"cost": Decimal("0.000000003")},
                {"model": None},
            )
        ),
    ],
)
async def test_the_same_key_with_another_usage_is_a_conflict(svc, id, other):
    await svc.conversations.append_message(
        id, turn("a", usage=USAGE), tenant_id="acme", idempotency_key="k"
    )
    same = Usage(input_tokens=5, output_tokens=3, cost=Decimal("0.000000002"), model="m")
    replay = await svc.conversations.append_message(
        id, turn("a", usage=[same]), tenant_id="acme", idempotency_key="k"
    )
    assert replay.replayed
    with pytest.raises(IdempotencyConflict):
        await svc.conversations.append_message(
            id, turn("a", usage=other), tenant_id="acme", idempotency_key="k"
        )
    stored = await svc.conversations.get_by_id(id, tenant_id="acme")
    assert (stored.tokens, stored.round) == (8, 1)


async def test_a_key_belongs_to_its_conversation(svc, id):
    other = (await svc.conversations.create(tenant_id="acme", dialog_id="d")).id
    for conversation in (id, other):
        appended = await svc.conversations.append_message(
            conversation, turn(conversation), tenant_id="acme", idempotency_key="k"
        )
        assert not appended.replayed


@pytest.mark.parametrize("key", [None, "k"])
async def test_expected_seq_must_be_the_last_seq(svc, id, key):
    await svc.conversations.append_message(
        id, turn("a", "b"), tenant_id="acme", expected_seq=0, idempotency_key=key
    )
    for stale in (0, 1, 3):
        with pytest.raises(StaleSequence):
            await svc.conversations.append_message(
                id,
                turn("c"),
                tenant_id="acme",
                expected_seq=stale,
                idempotency_key=key and f"{key}{stale}",
            )
    await svc.conversations.append_message(id, turn("c"), tenant_id="acme", expected_seq=2)
    assert await texts(svc, id) == ["a", "b", "c"]


async def test_a_replay_ignores_expected_seq(svc, id):
    for _ in range(2):
        appended = await svc.conversations.append_message(
            id, turn("a"), tenant_id="acme", expected_seq=0, idempotency_key="k"
        )
    assert appended.replayed


async def test_a_rejected_append_does_not_use_its_key(svc, id):
    with pytest.raises(StaleSequence):
        await svc.conversations.append_message(
            id, turn("a"), tenant_id="acme", expected_seq=5, idempotency_key="k"
        )
    appended = await svc.conversations.append_message(
        id, turn("a"), tenant_id="acme", idempotency_key="k"
    )
    assert not appended.replayed


async def test_a_seq_is_not_used_twice(svc, id):
    await svc.conversations.append_message(id, turn("a", "b"), tenant_id="acme")
    await svc.conversations.clear_messages(id, tenant_id="acme")
    appended = await svc.conversations.append_message(id, turn("c"), tenant_id="acme")
    assert appended.first_seq == 3


@pytest.mark.parametrize("keyed", [False, True])
async def test_32_writers_on_one_conversation_lose_nothing(dsn, keyed):
    async with asyncsvc.connect(dsn, max_size=16) as svc:
        id = (await svc.conversations.create(tenant_id="acme", dialog_id="d")).id

        async def write(writer):
            for number in range(10):
                await svc.conversations.append_message(
                    id,
                    turn(f"{writer}-{number} question", f"{writer}-{number} answer", tokens=2),
                    tenant_id="acme",
                    idempotency_key=f"{writer}-{number}" if keyed else None,
                )

        await asyncio.gather(*(write(writer) for writer in range(32)))
        stored = await svc.conversations.get_by_id(id, tenant_id="acme", include_messages=True)
    assert (stored.round, stored.tokens, stored.last_seq) == (320, 640, 640)
    assert [message.seq for message in stored.messages] == list(range(1, 641))
    pairs = [message.content.removesuffix(" question") for message in stored.messages[::2]]
    assert [m.content for m in stored.messages[1::2]] == [f"{pair} answer" for pair in pairs]
    for writer in range(32):  # the turns of each writer are in its order
        mine = [pair for pair in pairs if pair.startswith(f"{writer}-")]
        assert mine == [f"{writer}-{number}" for number in range(10)]
    times = [message.created_at for message in stored.messages]
    assert times == sorted(times)


async def test_32_writers_on_several_pools_with_and_without_keys_leave_no_gap(dsn):
    """Several pools act like several processes. Half of the turns have a key and are sent twice."""
    async with contextlib.AsyncExitStack() as stack:
        pools = [
            await stack.enter_async_context(asyncsvc.connect(dsn, max_size=4)) for _ in range(4)
        ]
        id = (await pools[0].conversations.create(tenant_id="acme", dialog_id="d")).id

        async def append(writer, number):
            return await pools[writer % 4].conversations.append_message(
                id,
                turn(f"{writer % 16} {number} q", f"{writer % 16} {number} a", tokens=1),
                tenant_id="acme",
                # The writers 0 to 15 and 16 to 31 send the same turns under the same keys.
                idempotency_key=f"{writer % 16} {number}" if number % 2 else None,
            )

        async def write(writer):
            return [await append(writer, number) for number in range(10)]

        written = await asyncio.gather(*(write(writer) for writer in range(32)))
        stored = await pools[0].conversations.get_by_id(id, tenant_id="acme", include_messages=True)
    results = [result for each in written for result in each]
    turns = 32 * 5 + 16 * 5
    assert sum(result.replayed for result in results) == 16 * 5
    assert (stored.round, stored.tokens, stored.last_seq) == (turns, turns, 2 * turns)
    assert [message.seq for message in stored.messages] == list(range(1, 2 * turns + 1))
    contents = [message.content for message in stored.messages]
    assert [text[:-1] for text in contents[::2]] == [text[:-1] for text in contents[1::2]]
    first = [result for result in results if not result.replayed]
    assert sorted(result.round for result in first) == list(range(1, turns + 1))
    assert sorted(result.first_seq for result in first) == list(range(1, 2 * turns, 2))


async def test_concurrent_replays_append_once(dsn):
    async with asyncsvc.connect(dsn, max_size=16) as svc:
        id = (await svc.conversations.create(tenant_id="acme", dialog_id="d")).id
        results = await asyncio.gather(
            *(
                svc.conversations.append_message(
                    id, turn("a"), tenant_id="acme", idempotency_key="k", expected_seq=0
                )
                for _ in range(50)
            )
        )
        assert sorted(result.replayed for result in results) == [False] + [True] * 49
        assert {(result.first_seq, result.round) for result in results} == {(1, 1)}
        assert await texts(svc, id) == ["a"]


async def test_only_one_of_many_appends_with_the_same_expected_seq_succeeds(dsn):
    async with asyncsvc.connect(dsn, max_size=16) as svc:
        id = (await svc.conversations.create(tenant_id="acme", dialog_id="d")).id
        outcomes = await asyncio.gather(
            *(
                svc.conversations.append_message(
                    id, turn(str(number)), tenant_id="acme", expected_seq=0
                )
                for number in range(30)
            ),
            return_exceptions=True,
        )
    assert sum(isinstance(outcome, asyncsvc.Appended) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, StaleSequence) for outcome in outcomes) == 29


async def test_a_replay_waits_for_the_first_append_to_end(svc, id):
    async with svc.transaction() as tx:
        await tx.conversations.append_message(id, turn("a"), tenant_id="acme", idempotency_key="k")
        replay = asyncio.create_task(
            svc.conversations.append_message(id, turn("a"), tenant_id="acme", idempotency_key="k")
        )
        await asyncio.sleep(0.1)
        assert not replay.done()
    assert (await replay).replayed


async def test_a_replay_appends_if_the_first_append_was_rolled_back(svc, id):
    with pytest.raises(ZeroDivisionError):
        async with svc.transaction() as tx:
            await tx.conversations.append_message(
                id, turn("a"), tenant_id="acme", idempotency_key="k"
            )
            replay = asyncio.create_task(
                svc.conversations.append_message(
                    id, turn("a"), tenant_id="acme", idempotency_key="k"
                )
            )
            await asyncio.sleep(0.1)
            raise ZeroDivisionError
    assert not (await replay).replayed
    assert await texts(svc, id) == ["a"]


async def test_an_append_that_waits_for_a_deletion_is_not_found(svc, id):
    async with svc.transaction() as tx:
        await tx.conversations.delete_by_id(id, tenant_id="acme")
        append = asyncio.create_task(
            svc.conversations.append_message(id, turn("a"), tenant_id="acme", idempotency_key="k")
        )
        await asyncio.sleep(0.1)
    with pytest.raises(NotFound):
        await append


async def test_a_conversation_that_keeps_changing_is_a_conflict(svc, id, monkeypatch):
    """Each time the append reads why it was rejected, the reason is gone. It tries 3 times."""
    attempts = []

    async def reject(**_):
        attempts.append(1)

    monkeypatch.setattr(svc.conversations._repository, "append_message", reject)
    with pytest.raises(Conflict, match="kept changing"):
        await svc.conversations.append_message(id, turn("a"), tenant_id="acme")
    assert len(attempts) == 3


async def test_a_cancelled_append_is_complete_or_absent_and_can_be_replayed(dsn):
    rng = random.Random(7)
    async with asyncsvc.connect(dsn, max_size=8) as svc:
        id = (await svc.conversations.create(tenant_id="acme", dialog_id="d")).id

        async def append(number):
            return await svc.conversations.append_message(
                id,
                turn(f"{number} q", f"{number} a"),
                tenant_id="acme",
                idempotency_key=str(number),
            )

        async def cancelled(number):
            task = asyncio.create_task(append(number))
            await asyncio.sleep(rng.random() * 0.01)
            task.cancel()
            await asyncio.wait([task])

        await asyncio.gather(*(cancelled(number) for number in range(100)))
        stored = await svc.conversations.get_by_id(id, tenant_id="acme", include_messages=True)
        assert len(stored.messages) == stored.last_seq == 2 * stored.round
        await asyncio.gather(*(append(number) for number in range(100)))
        stored = await svc.conversations.get_by_id(id, tenant_id="acme", include_messages=True)
    assert (stored.round, stored.last_seq) == (100, 200)
    assert sorted(m.content for m in stored.messages) == sorted(
        f"{number} {half}" for number in range(100) for half in "qa"
    )


async def test_the_pool_has_all_its_connections_after_cancellations(dsn, pool):
    svc = asyncsvc.AsyncSvc(pool)
    id = (await svc.conversations.create(tenant_id="acme", dialog_id="d")).id
    for milliseconds in range(20):
        task = asyncio.create_task(
            svc.conversations.append_message(id, turn("a"), tenant_id="acme")
        )
        await asyncio.sleep(milliseconds / 2_000)
        task.cancel()
        await asyncio.wait([task])
    async with asyncio.timeout(5):  # the release of the last connection may still run
        while pool.get_idle_size() < pool.get_size():
            await asyncio.sleep(0.01)
    connection = await asyncpg.connect(dsn)
    open_transactions = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
    )
    await connection.close()
    assert open_transactions == 0


# ------------------------------------------------------------------ create

NEW = {
    "dialog_id": "d",
    "user_id": "u",
    "exp_user_id": "e",
    "name": "title",
    "source": "web",
    "dsl": {"graph": [1]},
    "version_title": "v",
    "metadata": {"label": "l"},
}


@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize("expected_seq", [None, 0])
async def test_the_first_turn_creates_its_conversation(svc, key, expected_seq):
    appended = await svc.conversations.append_message(
        "new",
        turn("a", "b", tokens=3, duration=0.5),
        tenant_id="acme",
        idempotency_key=key,
        expected_seq=expected_seq,
        create=NEW,
    )
    assert appended == asyncsvc.Appended(first_seq=1, last_seq=2, round=1, replayed=False)
    stored = await svc.conversations.get_by_id("new", tenant_id="acme", include_messages=True)
    assert {name: getattr(stored, name) for name in NEW} == NEW
    assert (stored.round, stored.tokens, stored.duration, stored.last_seq) == (1, 3, 0.5, 2)
    assert [(message.seq, message.content) for message in stored.messages] == [(1, "a"), (2, "b")]
    assert stored.messages[0].created_at == stored.updated_at == stored.created_at
    for orderby in ("created_at", "updated_at"):
        page = await svc.conversations.get_list(tenant_id="acme", orderby=orderby)
        assert [each.id for each in page.items] == ["new"]
    for keywords in ("title", "b"):
        page = await svc.conversations.get_list(tenant_id="acme", keywords=keywords)
        assert [each.id for each in page.items] == ["new"]


async def test_the_dsl_and_the_errors_of_the_first_turn_replace_those_of_the_conversation(svc):
    await svc.conversations.append_message(
        "new", turn("a", dsl=[2], errors="late"), tenant_id="acme", create=NEW
    )
    stored = await svc.conversations.get_by_id("new", tenant_id="acme")
    assert (stored.dsl, stored.errors) == ([2], "late")
    await svc.conversations.append_message(
        "empty", turn("a", dsl=None, errors=None), tenant_id="acme", create=NEW
    )
    stored = await svc.conversations.get_by_id("empty", tenant_id="acme")
    assert (stored.dsl, stored.errors) == (None, None)


@pytest.mark.parametrize("key", [None, "k"])
async def test_an_existing_conversation_keeps_its_columns(svc, id, key):
    before = await svc.conversations.get_by_id(id, tenant_id="acme")
    for number, expected_seq in enumerate((0, 1, None)):
        await svc.conversations.append_message(
            id,
            turn("a"),
            tenant_id="acme",
            idempotency_key=key and f"{key}{number}",
            expected_seq=expected_seq,
            create=NEW,
        )
    after = await svc.conversations.get_by_id(id, tenant_id="acme")
    assert {name: getattr(after, name) for name in NEW} == {
        name: getattr(before, name) for name in NEW
    }
    assert (after.created_at, after.round) == (before.created_at, 3)


async def test_a_replay_of_the_first_turn_creates_nothing(svc):
    first, replay = [
        await svc.conversations.append_message(
            "new", turn("a"), tenant_id="acme", idempotency_key="k", create=NEW
        )
        for _ in range(2)
    ]
    assert replay == first.model_copy(update={"replayed": True})
    with pytest.raises(IdempotencyConflict):
        await svc.conversations.append_message(
            "new", turn("b"), tenant_id="acme", idempotency_key="k", create=NEW
        )
    assert await texts(svc, "new") == ["a"]


async def test_a_conversation_that_had_messages_is_not_created_again(svc, id):
    await svc.conversations.append_message(id, turn("a", "b"), tenant_id="acme")
    await svc.conversations.delete_by_id(id, tenant_id="acme")
    for key in (None, "k"):
        with pytest.raises(NotFound):
            await svc.conversations.append_message(
                id,
                turn("c"),
                tenant_id="acme",
                idempotency_key=key,
                expected_seq=2,
                create=NEW,
            )
    with pytest.raises(NotFound):
        await svc.conversations.get_by_id(id, tenant_id="acme")


async def test_create_checks_expected_seq_of_an_existing_conversation(svc, id):
    await svc.conversations.append_message(id, turn("a", "b"), tenant_id="acme")
    with pytest.raises(StaleSequence):
        await svc.conversations.append_message(
            id, turn("c"), tenant_id="acme", expected_seq=0, create=NEW
        )
    assert await texts(svc, id) == ["a", "b"]


async def test_the_id_of_create_is_that_of_the_call(svc):
    with pytest.raises(InvalidInput) as error:
        await svc.conversations.append_message(
            "new", turn("a"), tenant_id="acme", create=NEW | {"id": "other"}
        )
    assert error.value.field == "create.id"
    await svc.conversations.append_message(
        "new", turn("a"), tenant_id="acme", create=NEW | {"id": "new"}
    )
    assert await texts(svc, "new") == ["a"]


async def test_create_never_sees_the_conversation_of_another_tenant(svc, id):
    await svc.conversations.append_message(id, turn("theirs"), tenant_id="other", create=NEW)
    assert await texts(svc, id) == []
    stored = await svc.conversations.get_by_id(id, tenant_id="other")
    assert (stored.name, stored.last_seq) == ("title", 1)


@pytest.mark.parametrize("keyed", [False, True])
async def test_32_first_turns_at_once_make_one_conversation_and_lose_nothing(dsn, keyed):
    """Several pools act like several processes. With a key, each turn is sent twice."""
    async with contextlib.AsyncExitStack() as stack:
        pools = [
            await stack.enter_async_context(asyncsvc.connect(dsn, max_size=8)) for _ in range(4)
        ]

        async def append(writer):
            number = writer % 16 if keyed else writer
            return await pools[writer % 4].conversations.append_message(
                "new",
                turn(f"{number} q", f"{number} a", tokens=2),
                tenant_id="acme",
                idempotency_key=f"{number}" if keyed else None,
                create=NEW,
            )

        results = await asyncio.gather(*(append(writer) for writer in range(32)))
        stored = await pools[0].conversations.get_by_id(
            "new", tenant_id="acme", include_messages=True
        )
        buckets = await pools[0].conversations.stats(
            tenant_id="acme", from_date="2020-01-01", to_date="2100-01-01", interval="month"
        )
    turns = 16 if keyed else 32
    assert sum(result.replayed for result in results) == 32 - turns
    assert (stored.round, stored.tokens, stored.last_seq) == (turns, 2 * turns, 2 * turns)
    assert [message.seq for message in stored.messages] == list(range(1, 2 * turns + 1))
    contents = [message.content for message in stored.messages]
    assert sorted(contents[::2]) == sorted(f"{number} q" for number in range(turns))
    assert [text[:-1] for text in contents[::2]] == [text[:-1] for text in contents[1::2]]
    assert [
        (each.conversations, each.tokens, each.rounds) for each in buckets if each.conversations
    ] == [(1, 2 * turns, turns)]


async def test_32_equal_first_turns_with_one_key_are_one_turn(dsn):
    async with asyncsvc.connect(dsn, max_size=16) as svc:
        results = await asyncio.gather(
            *(
                svc.conversations.append_message(
                    "new", turn("a"), tenant_id="acme", idempotency_key="k", create=NEW
                )
                for _ in range(32)
            )
        )
        assert sorted(result.replayed for result in results) == [False] + [True] * 31
        assert await texts(svc, "new") == ["a"]


async def test_a_first_turn_that_waits_for_a_deletion_creates_the_conversation_again(svc, id):
    for key in (None, "k"):
        async with svc.transaction() as tx:
            await tx.conversations.delete_by_id(id, tenant_id="acme")
            append = asyncio.create_task(
                svc.conversations.append_message(
                    id, turn("a"), tenant_id="acme", idempotency_key=key, create=NEW
                )
            )
            await asyncio.sleep(0.1)
        assert (await append).first_seq == 1
        assert await texts(svc, id) == ["a"]


async def test_a_first_turn_that_waits_for_a_rolled_back_one_creates_the_conversation(svc):
    with pytest.raises(ZeroDivisionError):
        async with svc.transaction() as tx:
            await tx.conversations.append_message("new", turn("a"), tenant_id="acme", create=NEW)
            append = asyncio.create_task(
                svc.conversations.append_message("new", turn("b"), tenant_id="acme", create=NEW)
            )
            await asyncio.sleep(0.1)
            raise ZeroDivisionError
    assert (await append).first_seq == 1
    assert await texts(svc, "new") == ["b"]


async def test_a_turn_without_messages_is_invalid():
    with pytest.raises(InvalidInput, match="messages"):
        Turn(messages=[])
