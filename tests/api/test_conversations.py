"""Conversations and their messages: create, read, update, delete.

Tests of lists and statistics are in other files.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

import asyncsvc
from asyncsvc import (
    AlreadyExists,
    ConversationPatch,
    InvalidInput,
    Message,
    MessagePatch,
    NewConversation,
    NotFound,
    Turn,
)


async def create(svc, *ids, dialog_id="d", **columns):
    for id in ids:
        await svc.conversations.create(tenant_id="acme", dialog_id=dialog_id, id=id, **columns)


async def append(svc, id, *texts, tenant_id="acme"):
    turn = Turn(messages=[Message(role="user", content=text) for text in texts])
    await svc.conversations.append_message(id, turn, tenant_id=tenant_id)


async def listed(svc, dialog_id="d", tenant_id="acme", **options):
    page = await svc.conversations.get_list(dialog_id=dialog_id, tenant_id=tenant_id, **options)
    return [item.id for item in page.items]


async def seqs(svc, id, **options):
    messages = await svc.conversations.messages(id, tenant_id="acme", **options)
    return [message.seq for message in messages]


async def test_create_returns_the_stored_conversation(svc):
    created_at = datetime(2020, 2, 29, 12, 30, tzinfo=UTC)
    stored = await svc.conversations.create(
        tenant_id="acme",
        dialog_id="d",
        id="my id",
        user_id="u",
        exp_user_id="e",
        name="Cafe\u0301",
        source="api",
        dsl={"components": {"a": [1, 2.5, None]}},
        version_title="v1",
        metadata={"plan": "free"},
        created_at=created_at,
    )
    assert stored == await svc.conversations.get_by_id("my id", tenant_id="acme")
    assert (stored.name, stored.created_at, stored.updated_at) == (
        "Café",
        created_at,
        created_at,
    )
    assert (stored.dsl, stored.metadata) == (
        {"components": {"a": [1, 2.5, None]}},
        {"plan": "free"},
    )
    assert (stored.round, stored.tokens, stored.last_seq, stored.messages) == (0, 0, 0, None)


async def test_the_library_keeps_no_reference_to_returned_texts(svc):
    await create(svc, "a")
    await append(svc, "a", "my password is rosebud")
    first, second = [
        (await svc.conversations.get_by_id("a", tenant_id="acme", include_messages=True)).messages
        for _ in range(2)
    ]
    assert first == second
    assert first[0].content is not second[0].content  # the JSON parser caches keys, not values


async def test_a_conversation_without_an_id_gets_a_new_one(svc):
    ids = [(await svc.conversations.create(tenant_id="acme", dialog_id="d")).id for _ in range(20)]
    assert len(set(ids)) == 20
    assert all(len(id) == 32 and int(id, 16) and id[12] == "7" for id in ids)


async def test_an_id_is_unique_within_its_tenant(svc):
    await create(svc, "a", name="first")
    with pytest.raises(AlreadyExists):
        await create(svc, "a", name="second")
    assert (await svc.conversations.get_by_id("a", tenant_id="acme")).name == "first"
    await svc.conversations.create(tenant_id="other", dialog_id="d", id="a")


async def test_an_existing_id_does_not_abort_the_callers_transaction(svc):
    await create(svc, "a")
    async with svc.transaction() as tx:
        with pytest.raises(AlreadyExists):
            await tx.conversations.create(tenant_id="acme", dialog_id="d", id="a")
        await tx.conversations.create(tenant_id="acme", dialog_id="d", id="b")
    assert await listed(svc) == ["b", "a"]


async def test_create_many_does_not_change_existing_conversations(svc):
    await create(svc, "a", name="first")
    batch = [NewConversation(dialog_id="d", id="a", name="second"), {"dialog_id": "d", "id": "b"}]
    assert await svc.conversations.create_many(batch, tenant_id="acme") == 1
    assert await svc.conversations.create_many(batch, tenant_id="acme") == 0
    assert await svc.conversations.create_many([], tenant_id="acme") == 0
    assert (await svc.conversations.get_by_id("a", tenant_id="acme")).name == "first"


async def test_get_by_id_returns_the_conversation_or_raises_not_found(svc):
    await create(svc, "a", dsl=[1])
    await append(svc, "a", "hello")
    plain = await svc.conversations.get_by_id("a", tenant_id="acme", include_dsl=False)
    assert (plain.dsl, plain.messages) == (None, None)
    whole = await svc.conversations.get_by_id("a", tenant_id="acme", include_messages=True)
    assert [message.content for message in whole.messages] == ["hello"]
    for id, tenant in (("b", "acme"), ("a", "other")):
        with pytest.raises(NotFound, match="no such conversation"):
            await svc.conversations.get_by_id(id, tenant_id=tenant)


async def test_get_by_ids_keeps_the_order_and_omits_absent_ids(svc):
    await create(svc, "a", "b", "c")
    rows = await svc.conversations.get_by_ids(["c", "x", "a", "c"], tenant_id="acme")
    assert [row.id for row in rows] == ["c", "a", "c"]
    assert await svc.conversations.get_by_ids(["a"], tenant_id="other") == []
    assert await svc.conversations.get_by_ids([], tenant_id="acme") == []


async def test_get_names_returns_one_users_conversations_newest_first(svc):
    await create(svc, "a", "b", exp_user_id="me", name="mine")
    await create(svc, "c", exp_user_id="you")
    await create(svc, "e", exp_user_id="me", dialog_id="other")
    names = await svc.conversations.get_names(dialog_id="d", exp_user_id="me", tenant_id="acme")
    assert [(name.id, name.name) for name in names] == [("b", "mine"), ("a", "mine")]
    assert (
        len(
            await svc.conversations.get_names(
                dialog_id="d", exp_user_id="me", tenant_id="acme", limit=1
            )
        )
        == 1
    )
    assert (
        await svc.conversations.get_names(dialog_id="d", exp_user_id="me", tenant_id="other") == []
    )


async def test_a_patch_sets_only_its_fields(svc):
    await create(svc, "a", name="old", source="api", user_id="u", metadata={"a": 1}, dsl=[1])
    before = await svc.conversations.get_by_id("a", tenant_id="acme")
    patched = await svc.conversations.update_by_id(
        "a", ConversationPatch(name="new", source=None, metadata={"b": 2}), tenant_id="acme"
    )
    assert patched == await svc.conversations.get_by_id("a", tenant_id="acme")
    assert patched.updated_at > before.updated_at
    changed = {"name": "new", "source": None, "metadata": {"b": 2}}
    assert patched == before.model_copy(update=changed | {"updated_at": patched.updated_at})


async def test_every_column_of_a_patch_can_be_set_and_cleared(svc):
    await create(svc, "a")
    values = {
        "name": "n",
        "source": "s",
        "version_title": "v",
        "metadata": {"a": [None]},
        "dsl": "text",
        "errors": "e",
        "user_id": "u",
        "exp_user_id": "x",
        "dialog_id": "other",
    }
    merges = {"merge_metadata", "merge_dsl"}  # see test_merges.py
    assert values.keys() | merges == ConversationPatch.model_fields.keys()
    patched = await svc.conversations.update_by_id("a", values, tenant_id="acme")
    assert patched.model_dump(include=values.keys()) == values
    cleared = dict.fromkeys(values.keys() - {"user_id", "dialog_id"})
    patched = await svc.conversations.update_by_id("a", cleared, tenant_id="acme")
    assert patched.model_dump(include=cleared.keys()) == cleared


@pytest.mark.parametrize("column", ["user_id", "dialog_id"])
async def test_a_patch_cannot_set_a_required_column_to_null(svc, column):
    with pytest.raises(InvalidInput, match=f"patch.{column}"):
        await svc.conversations.update_by_id("a", {column: None}, tenant_id="acme")


async def test_update_by_id_of_an_absent_conversation_is_not_found(svc):
    await create(svc, "a", name="mine")
    for id, tenant in (("b", "acme"), ("a", "other")):
        with pytest.raises(NotFound):
            await svc.conversations.update_by_id(id, {"name": "x"}, tenant_id=tenant)
    assert (await svc.conversations.get_by_id("a", tenant_id="acme")).name == "mine"


async def test_update_many_by_id_counts_existing_conversations(svc):
    await create(svc, "a", "b", "c", name="old")
    patches = {"a": {"name": "A"}, "b": ConversationPatch(name="B"), "x": {"name": "X"}}
    assert await svc.conversations.update_many_by_id(patches, tenant_id="acme") == 2
    rows = await svc.conversations.get_by_ids(["a", "b", "c"], tenant_id="acme")
    assert [row.name for row in rows] == ["A", "B", "old"]


async def test_updates_of_the_same_rows_in_opposite_orders_do_not_deadlock(svc):
    ids = [f"{number:02}" for number in range(30)]
    await create(svc, *ids)

    async def rename(name, order):
        patch = ConversationPatch(name=name)
        await svc.conversations.update_many_by_id(dict.fromkeys(order, patch), tenant_id="acme")

    for _ in range(10):
        await asyncio.gather(rename("one", ids), rename("two", ids[::-1]))
    rows = await svc.conversations.get_by_ids(ids, tenant_id="acme")
    assert len({row.name for row in rows}) == 1


async def test_messages_are_read_by_page(svc):
    await create(svc, "a")
    for number in range(5):
        await append(svc, "a", f"{number}", f"{number}!")
    assert await seqs(svc, "a", limit=3) == [1, 2, 3]
    assert await seqs(svc, "a", after=3, limit=3) == [4, 5, 6]
    assert await seqs(svc, "a", after=9) == [10]
    assert await seqs(svc, "a", after=10) == []
    assert await seqs(svc, "a", before=3) == [1, 2]
    assert await seqs(svc, "a", after=2, before=5) == [3, 4]
    assert await seqs(svc, "a", last=2) == [9, 10]
    assert await seqs(svc, "a", last=2, before=9) == [7, 8]
    assert await seqs(svc, "a", last=100, after=8) == [9, 10]


async def test_payloads_are_those_of_all_messages_or_of_the_last(svc):
    await create(svc, "a", "empty")
    payloads = [{"n": number, "t": "é\n"} for number in range(4)] + [{}]
    messages = [{"role": "user", "content": "x", "payload": each} for each in payloads]
    await svc.conversations.append_message("a", {"messages": messages}, tenant_id="acme")
    await svc.conversations.delete_message("a", 2, tenant_id="acme")
    del payloads[1]
    for last, expected in ((None, payloads), (0, []), (2, payloads[-2:]), (9, payloads)):
        read = await svc.conversations.payloads("a", tenant_id="acme", last=last)
        assert read == expected
    assert await svc.conversations.payloads("a", tenant_id="acme", limit=0) == []
    assert await svc.conversations.payloads("empty", tenant_id="acme") == []
    assert await svc.conversations.payloads("a", tenant_id="acme", user_id="") == payloads
    for id, tenant, user in (("b", "acme", ""), ("a", "other", ""), ("a", "acme", "ann")):
        with pytest.raises(NotFound):
            await svc.conversations.payloads(id, tenant_id=tenant, user_id=user)
    with pytest.raises(InvalidInput):
        await svc.conversations.payloads("a", tenant_id="acme", last=1, limit=1)


async def test_messages_of_an_absent_conversation_are_not_found(svc):
    await create(svc, "a")
    assert await seqs(svc, "a") == []
    for id, tenant in (("b", "acme"), ("a", "other")):
        with pytest.raises(NotFound):
            await svc.conversations.messages(id, tenant_id=tenant)


async def test_feedback_is_counted_once_and_can_be_withdrawn(svc):
    await create(svc, "a")
    await append(svc, "a", "one", "two")

    async def thumbs():
        row = await svc.conversations.get_by_id("a", tenant_id="acme")
        return row.thumb_up, row.thumb_down

    before = await svc.conversations.get_by_id("a", tenant_id="acme")
    for seq, thumb, expected in (
        (1, 1, (1, 0)),
        (1, 1, (1, 0)),
        (2, -1, (1, 1)),
        (1, -1, (0, 2)),
        (1, None, (0, 1)),
        (1, None, (0, 1)),
        (2, 1, (1, 0)),
    ):
        message = await svc.conversations.set_feedback("a", seq, thumb, tenant_id="acme")
        assert (message.seq, message.thumb) == (seq, thumb)
        assert await thumbs() == expected
    after = await svc.conversations.get_by_id("a", tenant_id="acme")
    assert after.updated_at == before.updated_at
    for id, seq, tenant in (("a", 3, "acme"), ("a", 0, "acme"), ("a", 1, "other")):
        with pytest.raises(NotFound, match="no such message"):
            await svc.conversations.set_feedback(id, seq, 1, tenant_id=tenant)


async def test_concurrent_feedback_and_appends_keep_the_counters_right(dsn):
    async with asyncsvc.connect(dsn, max_size=16) as svc:
        await create(svc, "a")
        await append(svc, "a", "one", "two", "three")
        await asyncio.gather(
            *(
                svc.conversations.set_feedback(
                    "a", 1 + number % 3, (1, -1, None)[number % 7 % 3], tenant_id="acme"
                )
                for number in range(60)
            ),
            *(append(svc, "a", "more") for _ in range(20)),
        )
        row = await svc.conversations.get_by_id("a", tenant_id="acme", include_messages=True)
    thumbs = [message.thumb for message in row.messages]
    assert (row.thumb_up, row.thumb_down) == (thumbs.count(1), thumbs.count(-1))
    assert row.last_seq == 23


async def test_update_message_sets_only_the_fields_of_the_patch(svc):
    await create(svc, "a")
    await append(svc, "a", "one")
    before = await svc.conversations.get_by_id("a", tenant_id="acme")
    edited = await svc.conversations.update_message(
        "a", 1, MessagePatch(content="e\u0301ins", reference=[1]), tenant_id="acme"
    )
    assert (edited.content, edited.reference, edited.payload) == ("éins", [1], {})
    edited = await svc.conversations.update_message(
        "a", 1, {"payload": {"x": 1}, "reference": None}, tenant_id="acme"
    )
    assert (edited.content, edited.reference, edited.payload) == ("éins", None, {"x": 1})
    after = await svc.conversations.get_by_id("a", tenant_id="acme")
    assert after.updated_at > before.updated_at
    for seq, tenant in ((2, "acme"), (1, "other")):
        with pytest.raises(NotFound, match="no such message"):
            await svc.conversations.update_message("a", seq, {"content": "x"}, tenant_id=tenant)


async def test_delete_message_withdraws_its_feedback_and_no_other_count(svc):
    await create(svc, "a")
    await append(svc, "a", "one", "two", "three")
    await svc.conversations.set_feedback("a", 2, 1, tenant_id="acme")
    assert await svc.conversations.delete_message("a", 2, tenant_id="other") == 0
    assert await svc.conversations.delete_message("a", 2, tenant_id="acme") == 1
    assert await svc.conversations.delete_message("a", 2, tenant_id="acme") == 0
    row = await svc.conversations.get_by_id("a", tenant_id="acme")
    assert (row.thumb_up, row.round, row.last_seq) == (0, 1, 3)
    assert await seqs(svc, "a") == [1, 3]


async def test_pop_message_deletes_the_newest_message(svc):
    await create(svc, "a")
    await append(svc, "a", "one", "two")
    await svc.conversations.set_feedback("a", 2, -1, tenant_id="acme")
    popped = await svc.conversations.pop_message("a", tenant_id="acme")
    assert (popped.seq, popped.content, popped.thumb) == (2, "two", -1)
    assert (await svc.conversations.get_by_id("a", tenant_id="acme")).thumb_down == 0
    assert (await svc.conversations.pop_message("a", tenant_id="acme")).seq == 1
    assert await svc.conversations.pop_message("a", tenant_id="acme") is None
    with pytest.raises(NotFound):
        await svc.conversations.pop_message("a", tenant_id="other")


async def test_concurrent_pops_delete_different_messages(dsn):
    async with asyncsvc.connect(dsn, max_size=12) as svc:
        await create(svc, "a")
        await append(svc, "a", *(str(number) for number in range(20)))
        popped = await asyncio.gather(
            *(svc.conversations.pop_message("a", tenant_id="acme") for _ in range(25))
        )
        left = await seqs(svc, "a")
    assert sorted(message.seq for message in popped if message) == list(range(1, 21))
    assert left == []


async def test_clear_messages_deletes_all_messages_of_one_conversation(svc):
    await create(svc, "a", "b")
    await append(svc, "a", "one", "two")
    await append(svc, "b", "other")
    await svc.conversations.set_feedback("a", 1, 1, tenant_id="acme")
    assert await svc.conversations.clear_messages("a", tenant_id="other") == 0
    assert await svc.conversations.clear_messages("a", tenant_id="acme") == 2
    assert await svc.conversations.clear_messages("a", tenant_id="acme") == 0
    row = await svc.conversations.get_by_id("a", tenant_id="acme")
    assert (row.thumb_up, row.round, row.last_seq) == (0, 1, 2)
    assert await seqs(svc, "b") == [1]


async def test_clear_messages_deletes_only_within_bounds(svc):
    await create(svc, "a")
    await append(svc, "a", *"abcdef")
    await svc.conversations.set_feedback("a", 4, -1, tenant_id="acme")
    cleared = partial(svc.conversations.clear_messages, "a", tenant_id="acme")
    assert await cleared(after=2, before=5) == 2
    assert await seqs(svc, "a") == [1, 2, 5, 6]
    assert (await svc.conversations.get_by_id("a", tenant_id="acme")).thumb_down == 0
    assert await cleared(before=1) == await cleared(after=6) == 0
    assert await cleared(before=2) == await cleared(after=5) == 1
    assert await seqs(svc, "a") == [2, 5]


async def test_clear_messages_takes_ids_and_times_as_bounds(svc):
    start = datetime(2026, 3, 1, tzinfo=UTC)
    messages = [
        {"id": id, "role": "user", "content": id, "created_at": start + timedelta(hours=hour)}
        for hour, id in enumerate("abcdef")
    ]
    await create(svc, "a")
    await svc.conversations.append_message("a", {"messages": messages}, tenant_id="acme")
    cleared = partial(svc.conversations.clear_messages, "a", tenant_id="acme")
    assert await cleared(after="d") == 2
    assert await cleared(after=1, before="c") == 1
    assert await cleared(after=start, before=start + timedelta(hours=3)) == 1
    for bounds in ({"after": "none"}, {"before": "none"}, {"after": 0, "before": "c"}):
        with pytest.raises(NotFound, match="message"):
            await cleared(**bounds)
    assert await seqs(svc, "a") == [1, 4]
    assert await svc.conversations.clear_messages("none", tenant_id="acme", after="a") == 0


async def test_concurrent_changes_of_messages_keep_the_invariants(dsn):
    """At the end of each test the fixture `dsn` checks `support/sql/invariants.sql`."""
    async with asyncsvc.connect(dsn, max_size=16) as svc:
        await create(svc, "a")
        await append(svc, "a", *"abcdefgh")

        async def change(number):
            await append(svc, "a", f"{number}")
            for seq in (number, number + 3):
                try:
                    await svc.conversations.set_feedback(
                        "a", seq, (1, -1)[number % 2], tenant_id="acme"
                    )
                    await svc.conversations.update_message(
                        "a", seq, {"content": "x"}, tenant_id="acme"
                    )
                except NotFound:
                    pass
            await svc.conversations.delete_message("a", number, tenant_id="acme")
            await svc.conversations.pop_message("a", tenant_id="acme")
            if number % 10 == 0:
                await svc.conversations.clear_messages("a", tenant_id="acme")

        await asyncio.gather(*(change(number) for number in range(30)))
        stored = await svc.conversations.get_by_id("a", tenant_id="acme", include_messages=True)
        assert stored.last_seq == 8 + 30
        assert stored.round == 1 + 30
        thumbs = [message.thumb for message in stored.messages]
        assert (stored.thumb_up, stored.thumb_down) == (thumbs.count(1), thumbs.count(-1))


async def test_delete_by_id_deletes_messages_and_keys_too(svc, pool):
    await create(svc, "a", "b")
    for id in "ab":
        await svc.conversations.append_message(
            id,
            Turn(messages=[Message(role="user", content="x")]),
            tenant_id="acme",
            idempotency_key="k",
        )
    assert await svc.conversations.delete_by_id("a", tenant_id="other") == 0
    assert await svc.conversations.delete_by_id("a", tenant_id="acme") == 1
    assert await svc.conversations.delete_by_id("a", tenant_id="acme") == 0
    assert await listed(svc) == ["b"]
    for table in ("message", "append_key"):
        assert await pool.fetch(f"SELECT DISTINCT conversation_id FROM asyncsvc.{table}") == [
            ("b",)
        ]


async def test_delete_by_ids_counts_the_deleted_conversations(svc):
    await create(svc, "a", "b", "c")
    assert await svc.conversations.delete_by_ids(["c", "a", "x", "a"], tenant_id="acme") == 2
    assert await svc.conversations.delete_by_ids([], tenant_id="acme") == 0
    assert await listed(svc) == ["b"]


async def test_delete_by_dialog_ids_continues_until_no_batch_is_left(svc):
    for dialog in ("d", "e", "f"):
        batch = [{"dialog_id": dialog, "id": f"{dialog}{number}"} for number in range(1000)]
        await svc.conversations.create_many(batch, tenant_id="acme")
    await svc.conversations.create(tenant_id="other", dialog_id="d", id="theirs")
    assert await svc.conversations.delete_by_dialog_ids(["d", "e"], tenant_id="acme") == 2000
    assert await svc.conversations.delete_by_dialog_ids(["d", "e"], tenant_id="acme") == 0
    assert (await svc.conversations.get_list(dialog_id="f", tenant_id="acme")).total == 1000
    assert await listed(svc, "d", "other") == ["theirs"]


async def test_a_conversation_that_changes_its_dialog_meanwhile_is_not_deleted(svc):
    await create(svc, "a", "b")
    async with svc.transaction() as tx:
        await tx.conversations.update_by_id("a", {"dialog_id": "safe"}, tenant_id="acme")
        deletion = asyncio.create_task(
            svc.conversations.delete_by_dialog_ids(["d"], tenant_id="acme")
        )
        await asyncio.sleep(0.1)
    assert await deletion == 1
    assert await listed(svc, "safe") == ["a"]


async def test_creations_of_the_same_ids_in_opposite_orders_do_not_deadlock(svc):
    batch = [{"dialog_id": "d", "id": f"{number:03}"} for number in range(200)]
    for _ in range(5):
        created = await asyncio.gather(
            *(
                svc.conversations.create_many(batch[::step], tenant_id="acme")
                for step in (1, -1, 1, -1)
            )
        )
        assert sum(created) == 200
        await svc.conversations.delete_by_dialog_ids(["d"], tenant_id="acme")


async def test_bulk_deletions_of_the_same_rows_do_not_deadlock(svc):
    for _ in range(5):
        ids = [f"{number:03}" for number in range(200)]
        batch = [{"dialog_id": "d", "id": id, "user_id": "u"} for id in ids]
        await svc.conversations.create_many(batch, tenant_id="acme")
        *deleted, receipt, report = await asyncio.gather(
            svc.conversations.delete_by_ids(ids, tenant_id="acme"),
            svc.conversations.delete_by_ids(ids[::-1], tenant_id="acme"),
            svc.conversations.delete_by_dialog_ids(["d"], tenant_id="acme"),
            svc.conversations.erase_user("u", tenant_id="acme"),
            svc.conversations.purge(timedelta(microseconds=1), tenant_id="acme"),
        )
        assert sum(deleted) + receipt.conversations + report.conversations == 200


async def test_updated_at_never_decreases_after_a_creation_in_the_future(svc):
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    await create(svc, "a", created_at=tomorrow)
    await append(svc, "a", "hello")
    row = await svc.conversations.get_by_id("a", tenant_id="acme")
    assert row.updated_at == row.created_at == tomorrow


async def test_the_dialog_of_a_conversation_cannot_be_removed(svc):
    await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
    with pytest.raises(InvalidInput, match=r"^patches\.a\.dialog_id"):
        await svc.conversations.update_many_by_id({"a": {"dialog_id": None}}, tenant_id="t")
