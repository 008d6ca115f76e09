"""The user as a condition on single conversations, and upserts."""

import asyncio

import pytest

import asyncsvc
from asyncsvc import InvalidInput, Message, NewConversation, NotFound, Turn

TURN = Turn(messages=[Message(role="user", content="hello")], tokens=2)


@pytest.fixture
async def svc(svc):
    await svc.conversations.create(tenant_id="acme", dialog_id="d", id="a", user_id="ann")
    await svc.conversations.append_message("a", TURN, tenant_id="acme", idempotency_key="first")
    return svc


async def snapshot(svc):
    return await svc.conversations.get_by_id("a", tenant_id="acme", include_messages=True)


# ------------------------------------------------------------------ the user as a condition

CALLS = {
    "get_by_id": {},
    "update_by_id": {"patch": {"name": "n"}},
    "upsert": {"new": {"dialog_id": "d", "user_id": "bob", "name": "n"}},
    "append_message": {"turn": TURN},
}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *CALLS.items(),
        ("update_by_id", {"patch": {"merge_dsl": {"a": 1}}}),
        ("update_by_id", {"patch": {"dialog_id": "e"}}),
        ("upsert", {"new": {"dialog_id": "d", "user_id": "bob"}, "patch": {"name": "n"}}),
        ("append_message", {"turn": TURN, "idempotency_key": "k"}),
        ("append_message", {"turn": TURN, "idempotency_key": "first"}),
        ("append_message", {"turn": TURN, "create": {"dialog_id": "d", "user_id": "bob"}}),
        ("append_message", {"turn": TURN, "expected_seq": 9}),
    ],
)
async def test_the_conversation_of_another_user_is_not_found(svc, name, arguments):
    before = await snapshot(svc)
    with pytest.raises(NotFound) as error:
        await getattr(svc.conversations, name)("a", tenant_id="acme", user_id="bob", **arguments)
    assert error.value.resource == "conversation"
    assert await snapshot(svc) == before


async def test_the_conversation_of_another_user_is_not_deleted(svc):
    assert await svc.conversations.delete_by_id("a", tenant_id="acme", user_id="bob") == 0
    assert await svc.conversations.delete_by_id("a", tenant_id="acme", user_id="ann") == 1
    assert await svc.conversations.delete_by_id("a", tenant_id="acme", user_id="ann") == 0


@pytest.mark.parametrize("name", CALLS)
async def test_the_owner_finds_the_conversation(svc, name):
    arguments = CALLS[name] | (
        {"new": {"dialog_id": "d", "user_id": "ann"}} if "new" in CALLS[name] else {}
    )
    await getattr(svc.conversations, name)("a", tenant_id="acme", user_id="ann", **arguments)


async def test_the_empty_user_is_a_condition(svc):
    await svc.conversations.create(tenant_id="acme", dialog_id="d", id="b")
    assert (await svc.conversations.get_by_id("b", tenant_id="acme", user_id="")).id == "b"
    with pytest.raises(NotFound):
        await svc.conversations.get_by_id("a", tenant_id="acme", user_id="")


async def test_an_owner_that_changes_while_the_call_waits_is_seen(svc):
    for arguments in ({"turn": TURN}, {"turn": TURN, "idempotency_key": "k"}):
        await svc.conversations.update_by_id("a", {"user_id": "ann"}, tenant_id="acme")
        async with svc.transaction() as tx:
            await tx.conversations.update_by_id("a", {"user_id": "bob"}, tenant_id="acme")
            append = asyncio.create_task(
                svc.conversations.append_message("a", tenant_id="acme", user_id="ann", **arguments)
            )
            await asyncio.sleep(0.1)
        with pytest.raises(NotFound):
            await append


async def test_a_new_conversation_belongs_to_the_user_of_the_call(svc):
    new = {"dialog_id": "d", "user_id": "bob"}
    with pytest.raises(InvalidInput) as error:
        await svc.conversations.append_message(
            "new", TURN, tenant_id="acme", create=new, user_id="ann"
        )
    assert error.value.field == "create.user_id"
    with pytest.raises(InvalidInput) as error:
        await svc.conversations.upsert("new", new, tenant_id="acme", user_id="ann")
    assert error.value.field == "new.user_id"
    await svc.conversations.append_message("new", TURN, tenant_id="acme", create=new, user_id="bob")
    assert (await svc.conversations.get_by_id("new", tenant_id="acme")).user_id == "bob"


# ------------------------------------------------------------------ upsert

NEW = {
    "dialog_id": "e",
    "user_id": "ann",
    "exp_user_id": "x",
    "name": "title",
    "source": "web",
    "dsl": {"graph": [1]},
    "version_title": "v",
    "metadata": {"label": "l"},
}


async def test_an_upsert_creates_a_missing_conversation(svc):
    created = await svc.conversations.upsert("new", NEW, tenant_id="acme", patch={"name": "other"})
    assert {name: getattr(created, name) for name in NEW} == NEW
    assert (created.id, created.last_seq, created.messages) == ("new", 0, None)
    assert created.created_at == created.updated_at
    assert created == await svc.conversations.get_by_id("new", tenant_id="acme")
    for orderby in ("created_at", "updated_at"):
        page = await svc.conversations.get_list(tenant_id="acme", dialog_id="e", orderby=orderby)
        assert [each.id for each in page.items] == ["new"]
    page = await svc.conversations.get_list(tenant_id="acme", keywords="title")
    assert [each.id for each in page.items] == ["new"]


async def test_an_upsert_sets_the_columns_that_it_names(svc):
    before = await snapshot(svc)
    await svc.conversations.update_by_id("a", {"source": "api"}, tenant_id="acme")
    for new in ({"dialog_id": "e", "name": "n"}, NewConversation(dialog_id="e", name="n")):
        stored = await svc.conversations.upsert("a", new, tenant_id="acme")
        assert (stored.name, stored.source, stored.user_id) == ("n", "api", "ann")
        assert (stored.dialog_id, stored.created_at) == ("d", before.created_at)
        assert (stored.last_seq, stored.tokens) == (1, 2)
    stored = await svc.conversations.upsert("a", NEW, tenant_id="acme")
    assert {name: getattr(stored, name) for name in NEW} == NEW | {"dialog_id": "d"}
    page = await svc.conversations.get_list(tenant_id="acme", keywords="title")
    assert [each.id for each in page.items] == ["a"]


async def test_an_upsert_applies_its_patch_to_an_existing_conversation(svc):
    patch = {"merge_metadata": {"a": 1}, "errors": "late"}
    for _ in range(2):
        stored = await svc.conversations.upsert("a", NEW, tenant_id="acme", patch=patch)
    assert (stored.metadata, stored.errors, stored.name) == ({"a": 1}, "late", None)


async def test_a_patch_of_an_upsert_moves_the_conversation_with_its_messages(svc, pool):
    patch = {"dialog_id": "e"}
    stored = await svc.conversations.upsert("a", NEW, tenant_id="acme", patch=patch)
    assert (stored.dialog_id, stored.name) == ("e", None)
    assert await pool.fetchval("SELECT dialog_id FROM asyncsvc.message") == "e"
    created = await svc.conversations.upsert("new", NEW, tenant_id="acme", patch={"dialog_id": "f"})
    assert created.dialog_id == "e"


async def test_32_upserts_at_once_make_one_conversation(dsn, svc):
    async with asyncsvc.connect(dsn, max_size=16) as many:
        await asyncio.gather(
            *(
                many.conversations.upsert(
                    "new",
                    NEW | {"metadata": {"first": writer}},
                    tenant_id="acme",
                    patch={"merge_metadata": {f"{writer}": writer}},
                )
                for writer in range(32)
            )
        )
        metadata = (await many.conversations.get_by_id("new", tenant_id="acme")).metadata
        page = await many.conversations.get_list(tenant_id="acme", dialog_id="e")
        buckets = await many.conversations.stats(
            tenant_id="acme", from_date="2020-01-01", to_date="2100-01-01", interval="month"
        )
    first = metadata.pop("first")
    assert metadata == {f"{writer}": writer for writer in range(32) if writer != first}
    assert page.total == 1
    assert sum(each.conversations for each in buckets) == 2  # with conversation a


async def test_an_upsert_that_waits_for_a_deletion_creates_the_conversation_again(svc):
    async with svc.transaction() as tx:
        await tx.conversations.delete_by_id("a", tenant_id="acme")
        upsert = asyncio.create_task(svc.conversations.upsert("a", NEW, tenant_id="acme"))
        await asyncio.sleep(0.1)
    assert (await upsert).last_seq == 0
