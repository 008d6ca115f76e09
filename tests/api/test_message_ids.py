"""Messages with ids and times of the application."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

import asyncsvc
from asyncsvc import AlreadyExists, IdempotencyConflict, InvalidInput, Message, StaleSequence, Turn

PAST = datetime(2020, 1, 2, tzinfo=UTC)


def turn(*ids: str | None, **more: object) -> Turn:
    messages = [Message(role="user", content="text", id=id) for id in ids]
    return Turn(messages=messages, **more)


@pytest.fixture
async def id(svc):
    return (await svc.conversations.create(tenant_id="acme", dialog_id="d", id="c")).id


async def ids(svc, id):
    messages = await svc.conversations.messages(id, tenant_id="acme", limit=1000)
    return [message.id for message in messages]


async def test_the_id_and_the_time_of_a_message_are_stored(svc, id):
    messages = [
        Message(role="user", content="a", id="x", created_at=PAST),
        Message(role="user", content="b"),
    ]
    await svc.conversations.append_message(id, Turn(messages=messages), tenant_id="acme")
    stored = await svc.conversations.get_by_id(id, tenant_id="acme", include_messages=True)
    first, second = stored.messages
    assert (first.seq, first.id, first.created_at) == (1, "x", PAST)
    assert (second.seq, second.id, second.created_at) == (2, None, stored.updated_at)
    assert await svc.conversations.messages(id, tenant_id="acme") == list(stored.messages)


async def test_the_order_is_that_of_seq_and_not_of_the_times(svc, id):
    for at, text in ((PAST, "first"), (PAST - timedelta(days=1), "second")):
        await svc.conversations.append_message(
            id,
            Turn(messages=[Message(role="user", content=text, created_at=at)]),
            tenant_id="acme",
        )
    messages = await svc.conversations.messages(id, tenant_id="acme")
    assert [message.content for message in messages] == ["first", "second"]


@pytest.mark.parametrize("key", [None, "k"])
async def test_an_append_with_an_id_that_exists_stores_nothing(svc, id, key):
    await svc.conversations.append_message(id, turn("x"), tenant_id="acme")
    before = await svc.conversations.get_by_id(id, tenant_id="acme", include_messages=True)
    for expected in (None, 1, 7):
        with pytest.raises(AlreadyExists):
            await svc.conversations.append_message(
                id,
                turn("new", "x", None, dsl=[1], tokens=3),
                tenant_id="acme",
                idempotency_key=key,
                expected_seq=expected,
            )
    after = await svc.conversations.get_by_id(id, tenant_id="acme", include_messages=True)
    assert after == before
    appended = await svc.conversations.append_message(
        id, turn("new"), tenant_id="acme", idempotency_key=key
    )
    assert appended.last_seq == 2
    with pytest.raises(StaleSequence):
        await svc.conversations.append_message(id, turn("newer"), tenant_id="acme", expected_seq=7)


async def test_an_id_that_exists_does_not_abort_the_transaction_of_the_caller(svc, id):
    await svc.conversations.append_message(id, turn("x"), tenant_id="acme")
    async with svc.transaction() as tx:
        with pytest.raises(AlreadyExists):
            await tx.conversations.append_message(id, turn("x"), tenant_id="acme")
        await tx.conversations.append_message(id, turn("y"), tenant_id="acme")
    assert await ids(svc, id) == ["x", "y"]


async def test_an_id_is_unique_in_its_conversation_only(svc, id):
    await svc.conversations.create(tenant_id="acme", dialog_id="d", id="other")
    await svc.conversations.create(tenant_id="globex", dialog_id="d", id=id)
    for conversation, tenant in ((id, "acme"), ("other", "acme"), (id, "globex")):
        await svc.conversations.append_message(conversation, turn("x"), tenant_id=tenant)


async def test_an_id_is_free_again_after_its_message_is_deleted(svc, id):
    for seq in (1, 2):
        await svc.conversations.append_message(id, turn("x"), tenant_id="acme")
        assert await svc.conversations.delete_message(id, seq, tenant_id="acme") == 1
    assert await ids(svc, id) == []


async def test_a_replay_of_a_turn_with_ids_is_a_replay(svc, id):
    first = await svc.conversations.append_message(
        id, turn("x", "y"), tenant_id="acme", idempotency_key="k"
    )
    replay = await svc.conversations.append_message(
        id, turn("x", "y"), tenant_id="acme", idempotency_key="k"
    )
    assert replay == first.model_copy(update={"replayed": True})
    assert await ids(svc, id) == ["x", "y"]


@pytest.mark.parametrize(
    "changes", [{"id": None}, {"id": "y"}, {"created_at": PAST}, {"id": None, "created_at": PAST}]
)
async def test_a_key_covers_the_ids_and_the_times_of_the_messages(svc, id, changes):
    message = {"role": "user", "content": "a", "id": "x", "created_at": None}
    for fields in (message, message | changes):
        sending = svc.conversations.append_message(
            id, {"messages": [fields]}, tenant_id="acme", idempotency_key="k"
        )
        if fields is message:
            await sending
            continue
        with pytest.raises(IdempotencyConflict):
            await sending


def test_the_ids_of_a_turn_must_differ():
    with pytest.raises(InvalidInput, match="unique"):
        turn("x", None, "x")


@pytest.mark.parametrize("bad", ["", "a\x00b", "\ud800", "x" * 129])
async def test_an_invalid_id_of_a_message_is_rejected(svc, id, bad):
    with pytest.raises(InvalidInput) as caught:
        await svc.conversations.append_message(id, turn(bad), tenant_id="acme")
    assert caught.value.field == "turn.messages.0.id"


@pytest.mark.parametrize("keyed", [False, True])
async def test_32_appends_of_one_id_store_exactly_one_turn(dsn, keyed):
    async with asyncsvc.connect(dsn, max_size=16) as svc:
        await svc.conversations.create(tenant_id="acme", dialog_id="d", id="c")
        outcomes = await asyncio.gather(
            *(
                svc.conversations.append_message(
                    "c",
                    turn("x", None, tokens=1),
                    tenant_id="acme",
                    idempotency_key=f"k{number}" if keyed else None,
                )
                for number in range(32)
            ),
            return_exceptions=True,
        )
        refused = [each for each in outcomes if isinstance(each, AlreadyExists)]
        (appended,) = [each for each in outcomes if isinstance(each, asyncsvc.Appended)]
        assert (len(refused), appended.last_seq) == (31, 2)
        stored = await svc.conversations.get_by_id("c", tenant_id="acme", include_messages=True)
        assert (stored.last_seq, stored.round, stored.tokens) == (2, 1, 1)
        assert [message.id for message in stored.messages] == ["x", None]


async def test_32_appends_of_one_key_and_id_store_one_turn_and_31_replays(dsn):
    async with asyncsvc.connect(dsn, max_size=16) as svc:
        await svc.conversations.create(tenant_id="acme", dialog_id="d", id="c")
        outcomes = await asyncio.gather(
            *(
                svc.conversations.append_message(
                    "c", turn("x"), tenant_id="acme", idempotency_key="k"
                )
                for _ in range(32)
            )
        )
        assert sorted(each.replayed for each in outcomes) == [False] + [True] * 31
        assert await ids(svc, "c") == ["x"]


async def test_export_and_import_keep_ids_and_times(svc, id):
    messages = [
        Message(role="user", content="a", id="x\t\\", created_at=PAST),
        Message(role="user", content="b"),
    ]
    await svc.conversations.append_message(id, Turn(messages=messages), tenant_id="acme")
    exported = [each async for each in svc.conversations.export(tenant_id="acme")]
    await svc.conversations.import_(exported, tenant_id="globex")
    copied = [each async for each in svc.conversations.export(tenant_id="globex")]
    assert copied[0].messages == exported[0].messages
    assert [each.id for each in copied[0].messages] == ["x\t\\", None]


async def test_a_record_with_a_repeated_id_is_rejected(svc):
    message = {"role": "user", "content": "a", "id": "x"}
    with pytest.raises(InvalidInput, match=r"records\.0\.messages: the id of each message"):
        await svc.conversations.import_(
            [{"id": "a", "dialog_id": "d", "messages": [message, message]}], tenant_id="acme"
        )


async def test_a_later_export_is_compared_by_the_ids_of_its_messages(svc):
    def record(*messages: tuple[str, str]) -> dict[str, object]:
        return {
            "id": "a",
            "dialog_id": "d",
            "messages": [{"role": "user", "content": text, "id": id} for id, text in messages],
        }

    await svc.conversations.import_([record(("x", "one"), ("y", "two"))], tenant_id="acme")
    grown = record(("x", "one, edited"), ("y", "two"), ("z", "three"))
    report = await svc.conversations.import_([grown], tenant_id="acme", update=True)
    assert (report.grown, report.messages_appended) == (1, 1)
    assert await ids(svc, "a") == ["x", "y", "z"]
    branch = record(("x", "one"), ("w", "other"), ("y", "two"))
    report = await svc.conversations.import_([branch], tenant_id="acme", update=True)
    assert (report.rewritten, report.messages_replaced) == (1, 2)
    assert await ids(svc, "a") == ["x", "w", "y"]
