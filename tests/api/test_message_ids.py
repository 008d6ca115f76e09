"""Messages with ids and times of the application."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import pytest

import asyncsvc
from asyncsvc import (
    AlreadyExists,
    Conflict,
    IdempotencyConflict,
    InvalidInput,
    Message,
    NotFound,
    Settings,
    StaleSequence,
    Turn,
)
from tests.support.registry.counting import until_blocked

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


async def test_a_lost_race_for_an_id_names_the_id_and_not_the_index(svc, id):
    async with svc.transaction() as tx:
        await tx.conversations.append_message(id, turn("x"), tenant_id="acme")
        late = asyncio.create_task(
            svc.conversations.append_message(id, turn("x"), tenant_id="acme")
        )
        await until_blocked(svc)
    with pytest.raises(AlreadyExists, match=r"^the conversation has a message with this id$"):
        await late


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
        (first,) = [each for each in outcomes if not each.replayed]
        replays = [each for each in outcomes if each.replayed]
        assert replays == [first.model_copy(update={"replayed": True})] * 31
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


# ---------------------------------------------------------------- by seq or id


@pytest.fixture
async def three(svc, id):
    """The id of a conversation of "ann" with the messages x, y and z."""
    await svc.conversations.update_by_id(id, {"user_id": "ann"}, tenant_id="acme")
    await svc.conversations.append_message(id, turn("x", "y", "z"), tenant_id="acme")
    return id


@pytest.mark.parametrize("key", [2, "y"])
async def test_a_message_is_addressed_by_seq_or_id(svc, three, key):
    conversations, at = svc.conversations, {"tenant_id": "acme"}
    assert (await conversations.get_message(three, key, **at)).id == "y"
    rated = await conversations.set_feedback(three, key, 1, **at)
    assert (rated.seq, rated.id, rated.thumb) == (2, "y", 1)
    edited = await conversations.update_message(three, key, {"content": "new"}, **at)
    assert (edited.seq, edited.id, edited.content, edited.thumb) == (2, "y", "new", 1)
    assert await conversations.get_message(three, key, **at) == edited
    assert (await conversations.get_by_id(three, **at)).thumb_up == 1
    assert await conversations.delete_message(three, key, **at) == 1
    assert await conversations.delete_message(three, key, **at) == 0
    assert (await conversations.get_by_id(three, **at)).thumb_up == 0
    assert await ids(svc, three) == ["x", "z"]
    for call in (
        conversations.get_message(three, key, **at),
        conversations.set_feedback(three, key, 1, **at),
        conversations.update_message(three, key, {}, **at),
    ):
        with pytest.raises(NotFound) as caught:
            await call
        assert caught.value.resource == "message"


async def test_text_of_digits_is_an_id_and_not_a_seq(svc, three):
    with pytest.raises(NotFound):
        await svc.conversations.get_message(three, "2", tenant_id="acme")
    await svc.conversations.append_message(three, turn("2"), tenant_id="acme")
    assert (await svc.conversations.get_message(three, "2", tenant_id="acme")).seq == 4


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"after": "m1"}, [2, 3, 4, 5]),
        ({"before": "m2"}, [0, 1]),
        ({"after": "m0", "before": "m2"}, [1]),
        ({"after": 1, "before": "m2"}, [1]),
        ({"after": "m2", "before": "m0"}, []),
        ({"after": "m5"}, []),
        ({"before": "m4", "last": 2}, [2, 3]),
        ({"after": "m0", "limit": 1}, [1]),
        ({"after": 2, "limit": 2}, [2, 3]),
        ({"after": "m0", "before": 5, "limit": 9}, [1, 2, 3]),
        ({"limit": 1}, [0]),
        ({"after": PAST}, [1, 2, 3, 4, 5]),
        ({"before": PAST}, []),
        ({"after": PAST - timedelta(hours=1), "before": "m1"}, [0]),
        ({"after": PAST + timedelta(minutes=90), "before": "m5"}, [2, 3, 4]),
    ],
)
async def test_the_bounds_of_messages(svc, id, bounds, expected):
    messages = [
        Message(
            role="user",
            content="",
            id=f"m{n}",
            created_at=PAST + timedelta(hours=n),
            payload={"n": n},
        )
        for n in range(6)
    ]
    await svc.conversations.append_message(id, Turn(messages=messages), tenant_id="acme")
    within = {"tenant_id": "acme"} | bounds
    page = await svc.conversations.messages(id, **within)
    assert [message.payload["n"] for message in page] == expected
    payloads = await svc.conversations.payloads(id, **within)
    assert [payload["n"] for payload in payloads] == expected
    if not {"last", "limit"} & bounds.keys():
        iterating = svc.conversations.iter_messages(id, **within)
        assert [message.payload["n"] async for message in iterating] == expected


async def test_times_are_exclusive_bounds_on_created_at(svc, id):
    for day in (3, 1, 2):
        at = PAST + timedelta(days=day)
        message = Message(role="user", content="", id=str(day), created_at=at)
        await svc.conversations.put_message(id, message, tenant_id="acme")
    bounds = {"after": PAST + timedelta(days=1), "before": PAST + timedelta(days=4)}
    page = await svc.conversations.messages(id, tenant_id="acme", **bounds)
    assert [message.id for message in page] == ["3", "2"]
    assert [
        message.id
        async for message in svc.conversations.iter_messages(id, tenant_id="acme", **bounds)
    ] == ["3", "2"]


@pytest.mark.parametrize("bounds", [{"after": "absent"}, {"before": "absent", "after": "x"}])
async def test_an_unknown_id_as_a_bound_is_not_found(svc, three, bounds):
    for conversation, resource in ((three, "message"), ("absent", "conversation")):
        for read in (svc.conversations.messages, svc.conversations.payloads):
            with pytest.raises(NotFound) as caught:
                await read(conversation, tenant_id="acme", **bounds)
            assert caught.value.resource == resource
        with pytest.raises(NotFound) as caught:
            async for _ in svc.conversations.iter_messages(
                conversation, tenant_id="acme", **bounds
            ):
                pass
        assert caught.value.resource == resource


async def test_an_iteration_returns_a_long_conversation_in_chunks(svc, id):
    names: list[str] = []
    settings = asyncsvc.Settings(on_query=lambda name, *_: names.append(name))
    sizes = [1] * 700 + [600_000] * 5 + [1] * 10
    for start in range(0, len(sizes), 100):
        messages = [Message(role="user", content="a" * size) for size in sizes[start : start + 100]]
        await svc.conversations.append_message(id, Turn(messages=messages), tenant_id="acme")
    observed = asyncsvc.AsyncSvc(svc._executor._pool, settings=settings)
    lengths = [
        len(message.content)
        async for message in observed.conversations.iter_messages(id, tenant_id="acme")
    ]
    assert lengths == sizes
    assert names[0] == "message/get_bounds"
    # 64 messages, 256, 380 and 2 long ones, 2 long ones, 8 messages, 3.
    assert names[1:] == ["message/get_chunk"] * 6


async def test_an_iteration_does_not_return_what_is_appended_meanwhile(svc, three):
    read = []
    async for message in svc.conversations.iter_messages(three, tenant_id="acme"):
        await svc.conversations.append_message(three, turn(None), tenant_id="acme")
        read.append(message.id)
    assert read == ["x", "y", "z"]


# ---------------------------------------------------------------- put_message


async def test_put_message_appends_a_new_message_without_usage(svc, three):
    before = await svc.conversations.get_by_id(three, tenant_id="acme")
    message = Message(role="tool", content="cafe\u0301", id="w", payload={"a": 1}, reference=[2])
    stored = await svc.conversations.put_message(three, message, tenant_id="acme")
    assert (stored.seq, stored.id, stored.role, stored.content) == (4, "w", "tool", "caf\u00e9")
    assert (stored.payload, stored.reference, stored.thumb) == ({"a": 1}, [2], None)
    after = await svc.conversations.get_by_id(three, tenant_id="acme")
    assert (after.last_seq, after.round, after.tokens) == (4, before.round, before.tokens)
    assert after.updated_at == stored.created_at > before.updated_at
    assert await svc.conversations.get_message(three, "w", tenant_id="acme") == stored
    appended = await svc.conversations.append_message(three, turn(None), tenant_id="acme")
    assert appended.first_seq == 5


async def test_put_message_replaces_a_message_and_keeps_seq_thumb_and_time(svc, three):
    before = await svc.conversations.set_feedback(three, "y", -1, tenant_id="acme")
    stored = await svc.conversations.put_message(
        three, {"id": "y", "role": "tool", "content": "new"}, tenant_id="acme"
    )
    assert (stored.seq, stored.thumb, stored.created_at) == (2, -1, before.created_at)
    assert (stored.role, stored.content, stored.payload) == ("tool", "new", {})
    timed = await svc.conversations.put_message(
        three, {"id": "y", "role": "tool", "content": "new", "created_at": PAST}, tenant_id="acme"
    )
    assert timed == stored.model_copy(update={"created_at": PAST})
    conversation = await svc.conversations.get_by_id(three, tenant_id="acme")
    assert (conversation.last_seq, conversation.thumb_down) == (3, 1)
    hits = await svc.conversations.search("new", tenant_id="acme")
    assert [hit.seq for hit in hits.items] == [2]


async def test_put_message_needs_an_id_and_a_conversation(svc, three):
    message = Message(role="user", content="a", id="w")
    with pytest.raises(NotFound) as caught:
        await svc.conversations.put_message("absent", message, tenant_id="acme")
    assert caught.value.resource == "conversation"
    with pytest.raises(InvalidInput, match=r"^message\.id: "):
        await svc.conversations.put_message(
            three, {"role": "user", "content": "a"}, tenant_id="acme"
        )


async def test_put_message_does_not_exceed_the_last_seq(svc, three, pool):
    await pool.execute("UPDATE asyncsvc.conversation SET last_seq = 2147483647")
    with pytest.raises(InvalidInput, match=r"^message: "):
        await svc.conversations.put_message(
            three, {"role": "user", "content": "a", "id": "w"}, tenant_id="acme"
        )
    await pool.execute("UPDATE asyncsvc.conversation SET last_seq = 3")


async def test_put_message_patches_an_existing_message(svc, three):
    put = svc.conversations.put_message
    message = Message(role="tool", content="new", id="w", payload={"a": {"b": 1}}, reference=[2])
    patch = {"merge_payload": {"a": {"b": None, "c": 2}}}
    stored = await put(three, message, patch=patch, tenant_id="acme")
    assert (stored.seq, stored.payload) == (4, {"a": {"b": 1}})
    patched = await put(
        three, Message(role="user", content="no", id="w"), patch=patch, tenant_id="acme"
    )
    assert patched == stored.model_copy(update={"payload": {"a": {"c": 2}}})
    patch = {"content": "edited", "payload": {}, "reference": None}
    patched = await put(three, message, patch=patch, tenant_id="acme")
    changes = {"content": "edited", "payload": {}, "reference": None}
    assert patched == stored.model_copy(update=changes)
    assert await put(three, message, patch={}, tenant_id="acme") == patched
    assert (await svc.conversations.get_by_id(three, tenant_id="acme")).last_seq == 4


async def created(svc):
    """Return the number of conversations that the statistics count."""
    now = datetime.now(UTC)
    buckets = await svc.conversations.stats(
        from_date=now - timedelta(days=1), to_date=now + timedelta(days=1), tenant_id="acme"
    )
    return sum(bucket.conversations for bucket in buckets)


async def test_put_message_creates_the_conversation_that_is_missing(svc):
    new = {"dialog_id": "d", "user_id": "ann", "name": "Parcel", "metadata": {"a": 1}, "dsl": [1]}
    message = {"role": "user", "content": "a", "id": "x"}
    mine = {"tenant_id": "acme", "user_id": "ann"}
    stored = await svc.conversations.put_message("c", message, create=new, **mine)
    row = await svc.conversations.get_by_id("c", tenant_id="acme")
    assert (row.dialog_id, row.user_id, row.name, row.dsl) == ("d", "ann", "Parcel", [1])
    assert (row.last_seq, row.round, row.metadata) == (1, 0, {"a": 1})
    assert (stored.seq, row.updated_at) == (1, row.created_at)
    again = await svc.conversations.put_message(
        "c", message | {"id": "y"}, create=new | {"name": "other"}, **mine
    )
    assert again.seq == 2
    assert (await svc.conversations.get_by_id("c", tenant_id="acme")).name == "Parcel"
    assert await created(svc) == 1
    page = await svc.conversations.get_list(
        tenant_id="acme", orderby="updated_at", keywords="parcel"
    )
    assert [each.id for each in page.items] == ["c"]
    with pytest.raises(NotFound):
        await svc.conversations.put_message(
            "c", message, create=new | {"user_id": "bob"}, tenant_id="acme", user_id="bob"
        )
    with pytest.raises(InvalidInput, match=r"^create\.id: "):
        await svc.conversations.put_message("c", message, create=new | {"id": "e"}, **mine)


async def test_a_merge_into_a_message_that_is_too_large_changes_nothing(dsn):
    async with asyncsvc.connect(dsn, settings=Settings(max_json_bytes=1_000)) as svc:
        at = {"tenant_id": "acme"}
        await svc.conversations.create(dialog_id="d", id="c", **at)
        message = Message(role="user", content="a", id="x", payload={"a": "x" * 600})
        before = await svc.conversations.put_message("c", message, **at)
        merge = {"b": "x" * 600}
        with pytest.raises(InvalidInput, match=r"^patch\.merge_payload: .* 1000 bytes"):
            await svc.conversations.put_message("c", message, patch={"merge_payload": merge}, **at)
        with pytest.raises(InvalidInput, match=r"^merge_payload: .* 1000 bytes"):
            await svc.conversations.set_feedback("c", "x", 1, merge_payload=merge, **at)
        assert await svc.conversations.get_message("c", "x", **at) == before
        row = await svc.conversations.get_by_id("c", **at)
        assert row.thumb_up == 0


async def test_feedback_merges_into_the_payload(svc, three):
    at = {"tenant_id": "acme"}
    comment = {"feedback": {"comment": "right"}}
    rated = await svc.conversations.set_feedback(three, "y", 1, merge_payload=comment, **at)
    assert (rated.thumb, rated.payload) == (1, comment)
    rated = await svc.conversations.set_feedback(three, 2, -1, **at)
    assert (rated.thumb, rated.payload) == (-1, comment)
    removed = await svc.conversations.set_feedback(
        three, "y", None, merge_payload={"feedback": None}, **at
    )
    assert (removed.thumb, removed.payload) == (None, {})
    row = await svc.conversations.get_by_id(three, **at)
    assert (row.thumb_up, row.thumb_down) == (0, 0)


async def test_32_first_writers_of_one_message_each_add_their_part(dsn):
    async with asyncsvc.connect(dsn, max_size=16) as svc:

        async def put(number):
            part = {str(number): number}
            return await svc.conversations.put_message(
                "c",
                {"role": "user", "content": "a", "id": "x", "payload": part},
                patch={"merge_payload": part},
                create={"dialog_id": "d"},
                tenant_id="acme",
            )

        await asyncio.gather(*map(put, range(32)))
        (message,) = await svc.conversations.messages("c", tenant_id="acme")
        assert message.payload == {str(number): number for number in range(32)}
        assert await created(svc) == 1


async def test_32_puts_of_one_id_make_one_message_and_no_error(dsn):
    async with asyncsvc.connect(dsn, max_size=16) as svc:
        await svc.conversations.create(tenant_id="acme", dialog_id="d", id="c")
        stored = await asyncio.gather(
            *(
                svc.conversations.put_message(
                    "c", {"role": "user", "content": str(n), "id": "x"}, tenant_id="acme"
                )
                for n in range(32)
            )
        )
        assert {message.seq for message in stored} == {1}
        (message,) = await svc.conversations.messages("c", tenant_id="acme")
        assert message in stored


async def test_concurrent_puts_appends_and_deletions_of_one_id_leave_no_gap(dsn):
    async with asyncsvc.connect(dsn, max_size=16) as svc:
        await svc.conversations.create(tenant_id="acme", dialog_id="d", id="c")

        async def work(number: int) -> None:
            at = {"tenant_id": "acme"}
            for _ in range(5):
                if number % 3 == 0:
                    message = {"role": "user", "content": "put", "id": "x"}
                    await svc.conversations.put_message("c", message, **at)
                elif number % 3 == 1:
                    with contextlib.suppress(AlreadyExists, Conflict):
                        await svc.conversations.append_message("c", turn("x", None), **at)
                else:
                    await svc.conversations.delete_message("c", "x", **at)

        await asyncio.gather(*map(work, range(24)))
        stored = await svc.conversations.get_by_id("c", tenant_id="acme", include_messages=True)
        assert [each.id for each in stored.messages].count("x") <= 1
        assert max(each.seq for each in stored.messages) <= stored.last_seq


# ---------------------------------------------------------------- find_message


async def test_find_message_returns_the_message_and_its_conversation(svc, three):
    newest = await svc.conversations.find_message("y", tenant_id="acme")
    assert newest.conversation == await svc.conversations.get_by_id(three, tenant_id="acme")
    assert newest.message == await svc.conversations.get_message(three, "y", tenant_id="acme")
    for tenant, more in (
        ("globex", {}),
        ("acme", {"user_id": "bob"}),
        ("acme", {"dialog_id": "other"}),
    ):
        with pytest.raises(NotFound, match="message"):
            await svc.conversations.find_message("y", tenant_id=tenant, **more)


async def test_find_message_returns_the_newest_of_several(svc):
    for number, conversation in enumerate("bca"):
        await svc.conversations.create(
            tenant_id="acme", dialog_id=f"d{number}", id=conversation, user_id=conversation
        )
        message = Message(role="user", content="", id="x", created_at=PAST + timedelta(number % 2))
        await svc.conversations.put_message(conversation, message, tenant_id="acme")

    async def find(**filters: str) -> str:
        newest = await svc.conversations.find_message("x", tenant_id="acme", **filters)
        return newest.conversation.id

    assert [await find(), await find(user_id="b"), await find(dialog_id="d2")] == ["c", "b", "a"]


# ---------------------------------------------------------------- the owner


@pytest.mark.parametrize("user", ["bob", ""])
async def test_another_user_does_not_find_the_messages(svc, three, user):
    mine = {"tenant_id": "acme", "user_id": user}
    message = Message(role="user", content="a", id="x")
    before = await svc.conversations.get_by_id(three, tenant_id="acme", include_messages=True)
    conversations = svc.conversations
    for call in (
        conversations.messages(three, **mine),
        conversations.messages(three, after="x", **mine),
        anext(conversations.iter_messages(three, **mine)),
        conversations.get_message(three, 1, **mine),
        conversations.get_message(three, "x", **mine),
        conversations.append_message(three, turn("w"), **mine),
        conversations.append_message(three, turn("x"), idempotency_key="k", **mine),
        conversations.put_message(three, message, **mine),
        conversations.set_feedback(three, "x", 1, **mine),
        conversations.update_message(three, 1, {"content": "b"}, **mine),
        conversations.pop_message(three, **mine),
    ):
        with pytest.raises(NotFound):
            await call
    assert await conversations.delete_message(three, "x", **mine) == 0
    assert await conversations.clear_messages(three, **mine) == 0
    after = await conversations.get_by_id(three, tenant_id="acme", include_messages=True)
    assert after == before


async def test_the_owner_changes_and_reads_the_messages(svc, three):
    mine = {"tenant_id": "acme", "user_id": "ann"}
    conversations = svc.conversations
    await conversations.append_message(three, turn("w"), idempotency_key="k", **mine)
    replay = await conversations.append_message(three, turn("w"), idempotency_key="k", **mine)
    assert replay.replayed
    assert (await conversations.pop_message(three, **mine)).id == "w"
    assert [each.id async for each in conversations.iter_messages(three, **mine)] == ["x", "y", "z"]
    assert await conversations.clear_messages(three, **mine) == 3
