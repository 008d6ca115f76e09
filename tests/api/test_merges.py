"""Merge patches of metadata and dsl: by an update, an upsert and an append."""

import asyncio
import contextlib
import hashlib
import json

import pytest

import asyncsvc
from asyncsvc import ConversationPatch, InvalidInput, Message, NotFound, Settings, Turn

COLUMNS = ["metadata", "dsl"]
LARGE = "x" * 600


def turn(text="hello", **more):
    return Turn(messages=[Message(role="user", content=text)], **more)


async def update(svc, column, patch):
    await svc.conversations.update_by_id("a", {f"merge_{column}": patch}, tenant_id="acme")


async def update_many(svc, column, patch):
    patches = {"a": {f"merge_{column}": patch}, "absent": {f"merge_{column}": {}}}
    assert await svc.conversations.update_many_by_id(patches, tenant_id="acme") == 1


async def upsert(svc, column, patch):
    await svc.conversations.upsert(
        "a", {"dialog_id": "d"}, patch={f"merge_{column}": patch}, tenant_id="acme"
    )


async def append(svc, column, patch):
    await svc.conversations.append_message(
        "a", turn(**{f"merge_{column}": patch}), tenant_id="acme"
    )


async def append_with_a_key(svc, column, patch):
    for _ in range(2):
        await svc.conversations.append_message(
            "a",
            turn(**{f"merge_{column}": patch}),
            tenant_id="acme",
            idempotency_key=hashlib.sha256(json.dumps(patch).encode()).hexdigest(),
        )


async def append_or_create(svc, column, patch):
    await svc.conversations.append_message(
        "a", turn(**{f"merge_{column}": patch}), tenant_id="acme", create={"dialog_id": "d"}
    )


WRITES = [update, update_many, upsert, append, append_with_a_key, append_or_create]


async def stored(svc, column, id="a"):
    return getattr(await svc.conversations.get_by_id(id, tenant_id="acme"), column)


@pytest.fixture
async def svc(svc):
    await svc.conversations.create(tenant_id="acme", dialog_id="d", id="a")
    return svc


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("write", WRITES)
async def test_members_are_set_merged_and_removed(svc, write, column):
    for patch, merged in [
        ({"a": {"x": None, "y": 1}, "b": [1, None]}, {"a": {"y": 1}, "b": [1, None]}),
        ({"a": {"z": "é"}, "b": {"c": 1.50}}, {"a": {"y": 1, "z": "é"}, "b": {"c": 1.5}}),
        ({"a": {"y": None}, "b": None, "absent": None}, {"a": {"z": "é"}}),
        ({}, {"a": {"z": "é"}}),
    ]:
        await write(svc, column, patch)
        assert await stored(svc, column) == merged
    (other,) = {*COLUMNS} - {column}
    assert await stored(svc, other) is None


async def test_a_dsl_that_is_no_object_is_replaced(svc):
    for write in WRITES:
        await svc.conversations.update_by_id("a", {"dsl": [1]}, tenant_id="acme")
        await write(svc, "dsl", {"a": 1})
        assert await stored(svc, "dsl") == {"a": 1}


async def test_both_columns_are_merged_at_once(svc):
    patch = {"merge_metadata": {"m": 1}, "merge_dsl": {"d": 1}, "name": "n"}
    await svc.conversations.update_by_id("a", patch, tenant_id="acme")
    await svc.conversations.append_message(
        "a", turn(merge_metadata={"n": 2}, merge_dsl={"e": 2}, errors="late"), tenant_id="acme"
    )
    conversation = await svc.conversations.get_by_id("a", tenant_id="acme")
    assert (conversation.metadata, conversation.dsl) == ({"m": 1, "n": 2}, {"d": 1, "e": 2})
    assert (conversation.name, conversation.errors, conversation.round) == ("n", "late", 1)


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("write", WRITES)
async def test_32_writers_of_different_members_keep_all(dsn, svc, write, column):
    """Several pools act like several processes."""
    async with contextlib.AsyncExitStack() as stack:
        pools = [
            await stack.enter_async_context(asyncsvc.connect(dsn, max_size=8)) for _ in range(4)
        ]
        await asyncio.gather(
            *(
                write(pools[writer % 4], column, {f"{writer}": writer, "all": {f"{writer}": 1}})
                for writer in range(32)
            )
        )
    members = {f"{writer}": writer for writer in range(32)}
    assert await stored(svc, column) == members | {"all": dict.fromkeys(members, 1)}


@pytest.mark.parametrize("keyed", [False, True])
async def test_32_first_turns_with_different_members_keep_all(dsn, svc, keyed):
    async with asyncsvc.connect(dsn, max_size=16) as many:
        await asyncio.gather(
            *(
                many.conversations.append_message(
                    "new",
                    turn(merge_metadata={f"{writer}": writer}),
                    tenant_id="acme",
                    create={"dialog_id": "d", "metadata": {"first": True}},
                    idempotency_key=f"{writer}" if keyed else None,
                )
                for writer in range(32)
            )
        )
    conversation = await svc.conversations.get_by_id("new", tenant_id="acme")
    members = {f"{writer}": writer for writer in range(32)}
    assert conversation.metadata == members | {"first": True}
    assert conversation.last_seq == 32


async def test_a_first_turn_is_merged_into_the_new_conversation(svc):
    await svc.conversations.append_message(
        "new",
        turn(merge_metadata={"a": None, "b": 1}, merge_dsl={"c": {"d": None}}),
        tenant_id="acme",
        create={"dialog_id": "d", "metadata": {"a": 1, "x": 2}},
    )
    assert await stored(svc, "metadata", "new") == {"x": 2, "b": 1}
    assert await stored(svc, "dsl", "new") == {"c": {}}


async def test_the_same_key_with_another_merge_is_a_conflict(svc):
    for patch in ({"merge_metadata": {"a": 1}}, {"merge_dsl": {"a": 1}}, {}):
        append = svc.conversations.append_message
        if patch == {"merge_metadata": {"a": 1}}:
            await append("a", turn(**patch), tenant_id="acme", idempotency_key="k")
            continue
        with pytest.raises(asyncsvc.IdempotencyConflict):
            await append("a", turn(**patch), tenant_id="acme", idempotency_key="k")
    assert await stored(svc, "dsl") is None


# ------------------------------------------------------------------ payloads


@pytest.fixture
async def message(svc):
    await svc.conversations.append_message(
        "a",
        Turn(messages=[Message(role="user", content="hello", id="m", payload={"a": {"x": 1}})]),
        tenant_id="acme",
    )


@pytest.mark.parametrize("key", ["m", 1])
async def test_a_payload_is_merged(svc, message, key):
    for patch, merged in [
        ({"merge_payload": {"a": {"x": None, "y": [1]}, "b": 2}}, {"a": {"y": [1]}, "b": 2}),
        ({"merge_payload": {"b": None}, "content": "new"}, {"a": {"y": [1]}}),
        ({"merge_payload": {}}, {"a": {"y": [1]}}),
    ]:
        stored = await svc.conversations.update_message("a", key, patch, tenant_id="acme")
        assert stored.payload == merged
    assert stored.content == "new"


async def test_32_writers_of_different_members_of_a_payload_keep_all(dsn, svc, message):
    async with asyncsvc.connect(dsn, max_size=16) as many:
        await asyncio.gather(
            *(
                many.conversations.update_message(
                    "a", "m", {"merge_payload": {f"{writer}": writer}}, tenant_id="acme"
                )
                for writer in range(32)
            )
        )
    (stored,) = await svc.conversations.messages("a", tenant_id="acme")
    assert stored.payload == {"a": {"x": 1}} | {f"{writer}": writer for writer in range(32)}


async def test_a_payload_beyond_the_limit_is_invalid_and_changes_nothing(small, message):
    update = small.conversations.update_message
    await update("a", "m", {"merge_payload": {"b": LARGE}}, tenant_id="acme")
    before = await small.conversations.messages("a", tenant_id="acme")
    async with small.transaction() as tx:
        with pytest.raises(InvalidInput) as error:
            await tx.conversations.update_message(
                "a", "m", {"merge_payload": {"c": LARGE}, "content": "new"}, tenant_id="acme"
            )
        assert error.value.field == "patch.merge_payload"
        assert await tx.conversations.messages("a", tenant_id="acme") == before
    for id, user_id in (("none", asyncsvc.ANY), ("m", "another")):
        with pytest.raises(NotFound):
            await update(
                "a", id, {"merge_payload": {"c": LARGE}}, tenant_id="acme", user_id=user_id
            )


async def test_a_merge_into_a_message_that_comes_and_goes_is_stored_or_not_found(svc, message):
    api, at, merge = svc.conversations, {"tenant_id": "acme"}, {"merge_payload": {"b": 1}}
    new = {"role": "user", "content": "", "id": "n"}

    async def put_and_delete() -> None:
        for _ in range(100):
            await api.put_message("a", new, patch=merge, **at)
            await api.delete_message("a", "n", **at)

    async def repeat(write) -> None:
        while not changes.done():
            with contextlib.suppress(NotFound):
                await write()

    changes = asyncio.create_task(put_and_delete())
    await asyncio.gather(
        changes,
        repeat(lambda: api.update_message("a", "n", merge, **at)),
        repeat(lambda: api.set_feedback("a", "n", 1, **merge, **at)),
    )


def test_a_payload_is_not_both_replaced_and_merged():
    with pytest.raises(InvalidInput) as error:
        asyncsvc.MessagePatch(payload={}, merge_payload={})
    assert error.value.field == "merge_payload"


# ------------------------------------------------------------------ limits


@pytest.fixture
async def small(dsn, svc):
    """Services whose JSON has at most 1,000 bytes."""
    async with asyncsvc.connect(dsn, settings=Settings(max_json_bytes=1_000)) as small:
        yield small


FIELDS = {
    update: "patch",
    update_many: "patches.a",
    upsert: "patch",
    append: "turn",
    append_with_a_key: "turn",
    append_or_create: "turn",
}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("write", WRITES)
async def test_a_result_beyond_the_limit_is_invalid_and_changes_nothing(small, write, column):
    await write(small, column, {"a": LARGE})
    before = await small.conversations.get_by_id("a", tenant_id="acme", include_messages=True)
    with pytest.raises(InvalidInput, match="1000 bytes") as error:
        await write(small, column, {"b": LARGE})
    assert error.value.field == f"{FIELDS[write]}.merge_{column}"
    after = await small.conversations.get_by_id("a", tenant_id="acme", include_messages=True)
    assert after == before
    await write(small, column, {"a": None, "b": LARGE})  # also under the key of the rejected call
    assert await stored(small, column) == {"b": LARGE}


async def test_a_result_of_exactly_the_limit_is_stored(small):
    await update(small, "metadata", {"a": "x" * 500})
    rest = 1_000 - len(json.dumps({"a": "x" * 500, "b": ""}))
    with pytest.raises(InvalidInput):
        await update(small, "metadata", {"b": "x" * (rest + 1)})
    await update(small, "metadata", {"b": "x" * rest})
    assert len(json.dumps(await stored(small, "metadata"))) == 1_000


async def test_no_patch_of_a_call_is_applied_if_one_merge_is_too_large(small):
    await small.conversations.create(tenant_id="acme", dialog_id="d", id="b")
    await update(small, "metadata", {"a": LARGE})
    patches = {
        "a": {"merge_metadata": {"b": LARGE}},
        "b": {"name": "new", "merge_dsl": {"a": 1}},
    }
    with pytest.raises(InvalidInput) as error:
        await small.conversations.update_many_by_id(patches, tenant_id="acme")
    assert error.value.field == "patches.a.merge_metadata"
    other = await small.conversations.get_by_id("b", tenant_id="acme")
    assert (other.name, other.dsl) == (None, None)


async def test_the_dialog_stays_if_the_merge_is_too_large(small):
    await update(small, "dsl", {"a": LARGE})
    with pytest.raises(InvalidInput):
        await small.conversations.update_by_id(
            "a", {"dialog_id": "e", "merge_dsl": {"b": LARGE}}, tenant_id="acme"
        )
    assert await stored(small, "dialog_id") == "d"


@pytest.mark.parametrize("write", WRITES)
async def test_a_transaction_continues_after_a_merge_that_was_too_large(small, write):
    await update(small, "metadata", {"a": LARGE})
    async with small.transaction() as tx:
        with pytest.raises(InvalidInput):
            await write(tx, "metadata", {"b": LARGE})
        await write(tx, "metadata", {"c": 1})
    assert await stored(small, "metadata") == {"a": LARGE, "c": 1}


@pytest.mark.parametrize("column", COLUMNS)
async def test_a_first_turn_may_replace_a_large_member(small, column):
    """Together the member and its successor exceed the limit."""
    for number in range(2):
        large = f"{number}".ljust(len(LARGE))
        await small.conversations.append_message(
            "new",
            turn(**{f"merge_{column}": {"a": large}}),
            tenant_id="acme",
            create={"dialog_id": "d", column: {"a": LARGE}},
        )
        assert await stored(small, column, "new") == {"a": large}


async def test_a_first_turn_beyond_the_limit_creates_nothing(small):
    for column in COLUMNS:
        with pytest.raises(InvalidInput) as error:
            await small.conversations.append_message(
                "new",
                turn(**{f"merge_{column}": {"b": LARGE}}),
                tenant_id="acme",
                create={"dialog_id": "d", column: {"a": LARGE}},
            )
        assert error.value.field == f"turn.merge_{column}"
    with pytest.raises(NotFound):
        await small.conversations.get_by_id("new", tenant_id="acme")


def nested(levels, leaf):
    return {"a": nested(levels - 1, leaf)} if levels else leaf


@pytest.mark.parametrize("write", WRITES)
async def test_a_result_is_at_most_as_deep_as_the_limit(svc, write):
    deepest = Settings().max_json_depth
    await write(svc, "dsl", nested(deepest - 1, {"x": 1}))
    await write(svc, "dsl", nested(deepest - 1, {"y": 2}))
    assert await stored(svc, "dsl") == nested(deepest - 1, {"x": 1, "y": 2})
    with pytest.raises(InvalidInput, match=r"merge_dsl.*levels deep"):
        await write(svc, "dsl", nested(deepest + 1, 1))


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_is_not_both_replaced_and_merged(column):
    with pytest.raises(InvalidInput) as error:
        ConversationPatch(**{column: {}, f"merge_{column}": {}})
    assert error.value.field == f"merge_{column}"


def test_a_turn_does_not_replace_and_merge_the_dsl():
    with pytest.raises(InvalidInput) as error:
        turn(dsl={}, merge_dsl={})
    assert error.value.field == "merge_dsl"


async def test_a_merge_waits_for_the_value_of_an_open_transaction(svc):
    for write in WRITES:
        await svc.conversations.update_by_id("a", {"metadata": None}, tenant_id="acme")
        async with svc.transaction() as tx:
            await update(tx, "metadata", {"first": 1})
            waiting = asyncio.create_task(write(svc, "metadata", {f"{write.__name__}": 2}))
            await asyncio.sleep(0.1)
            assert not waiting.done()
        await waiting
        assert await stored(svc, "metadata") == {"first": 1, write.__name__: 2}
