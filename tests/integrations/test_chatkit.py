"""The store of a ChatKit server: its methods, and servers with requests of clients."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from chatkit.server import ChatKitServer, StreamingResult
from chatkit.store import AttachmentStore, NotFoundError
from chatkit.types import (
    AssistantMessageContent,
    AssistantMessageItem,
    ClientToolCallItem,
    ClosedStatus,
    EndOfTurnItem,
    FileAttachment,
    GeneratedImageItem,
    HiddenContextItem,
    ImageAttachment,
    LockedStatus,
    SDKHiddenContextItem,
    StructuredInputItem,
    TaskItem,
    Thread,
    ThreadItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemRemovedEvent,
    ThreadItemReplacedEvent,
    ThreadItemUpdatedEvent,
    ThreadMetadata,
    UserMessageItem,
    WidgetItem,
    WorkflowItem,
)
from pydantic import TypeAdapter

import asyncsvc
from asyncsvc import AlreadyExists, InvalidInput, Settings
from asyncsvc.integrations.chatkit import Store
from tests.integrations.histories import counted


class Request(NamedTuple):
    """The context of a request."""

    tenant_id: str = "acme"
    user_id: str = "ann"


ANN, BOB, OTHER = Request(), Request(user_id="bob"), Request(tenant_id="globex")
AT = datetime(2026, 11, 30, 12)  # noqa: DTZ001 - ChatKit's own times are naive
ITEM = TypeAdapter(ThreadItem)


def store_of(svc, dialog_id="support"):
    return Store[Request](svc, lambda context: context, dialog_id=dialog_id)


def thread_of(id="t1", **fields):
    return ThreadMetadata(**{"id": id, "created_at": AT} | fields)


def item(id, type="assistant_message", thread_id="t1", created_at=AT, **fields):
    if type == "assistant_message":
        fields.setdefault("content", [{"text": f"answer {id}"}])
    if type == "user_message":
        fields.setdefault("content", [{"type": "input_text", "text": f"question {id}"}])
        fields.setdefault("inference_options", {})
    fields |= {"id": id, "type": type, "thread_id": thread_id, "created_at": created_at}
    return ITEM.validate_python(fields)


ITEMS = [
    item(
        "msg_9",
        "user_message",
        content=[
            {"type": "input_text", "text": "Where is it?"},
            {"type": "input_tag", "id": "tag", "text": "#7", "data": {"a": None}, "group": "g"},
        ],
        attachments=[
            {"type": "file", "id": "f1", "name": "a.txt", "mime_type": "text/plain"}
            | {"metadata": {"source": [1]}},
            {"type": "image", "id": "f2", "name": "a.png", "mime_type": "image/png"}
            | {"preview_url": "https://example.com/a.png"},
        ],
        quoted_text="quoted",
        inference_options={"tool_choice": {"id": "look"}, "model": "m"},
    ),
    item(
        "msg_1",
        content=[
            {
                "text": "In Vienna.",
                "annotations": [
                    {
                        "type": "annotation",
                        "index": 3,
                        "source": {"type": "url", "title": "t", "url": "https://example.com"},
                    },
                    {
                        "type": "annotation",
                        "source": {"type": "entity", "id": "e", "title": "t", "data": {"x": [{}]}},
                    },
                ],
            },
            {"text": "Today."},
        ],
        created_at=AT.replace(tzinfo=UTC, microsecond=123456),
    ),
    item("tc_1", "client_tool_call", call_id="c", name="look", arguments={"a": {"b": None}}),
    item(
        "w_1",
        "widget",
        widget={
            "type": "Card",
            "children": [
                {"type": "Text", "id": "x", "value": "Hi", "weight": "medium"},
                {"type": "Col", "padding": {"x": 4}, "children": [{"type": "Divider"}]},
            ],
        },
        copy_text="a card",
    ),
    item("img_1", "generated_image", image={"id": "i", "url": "data:image/png;base64,AAAA"}),
    item("img_2", "generated_image"),
    item(
        "si_1",
        "structured_input",
        inputs=[
            {"type": "freeform", "id": "q1", "question": "Why?"},
            {"type": "multiple_choice", "id": "q2", "question": "Which?", "options": []}
            | {"answer": {"values": ["a"]}},
        ],
    ),
    item("tsk_1", "task", task={"type": "thought", "content": "Hm."}),
    item(
        "wf_1",
        "workflow",
        workflow={
            "type": "reasoning",
            "tasks": [{"type": "web_search", "queries": ["q"]}],
            "summary": {"duration": 3},
        },
    ),
    item("h_1", "hidden_context_item", content=None),
    item("h_2", "sdk_hidden_context", content="cancelled"),
    item("e_1", "end_of_turn"),
]
KINDS = {
    UserMessageItem: "user",
    AssistantMessageItem: "assistant",
    ClientToolCallItem: "tool",
    WidgetItem: "assistant",
    GeneratedImageItem: "assistant",
    StructuredInputItem: "assistant",
    TaskItem: "assistant",
    WorkflowItem: "assistant",
    HiddenContextItem: "system",
    SDKHiddenContextItem: "system",
    EndOfTurnItem: "assistant",
}


async def stored_thread(svc, *ids, **fields):
    """Store a thread with these items; return the store."""
    store = store_of(svc)
    await store.save_thread(thread_of(**fields), ANN)
    for id in ids:
        await store.add_thread_item("t1", item(id), ANN)
    return store


async def ids_of(store, after=None, limit=100, order="asc", context=ANN, id="t1"):
    page = await store.load_thread_items(id, after, limit, order, context)
    assert page.has_more == (page.after is not None)
    assert page.after in {None, page.data[-1].id if page.data else None}
    return [each.id for each in page.data], page.has_more


async def threads_of(store, after=None, limit=100, order="asc", context=ANN):
    page = await store.load_threads(limit, after, order, context)
    assert page.after == (page.data[-1].id if page.has_more else None)
    return [each.id for each in page.data], page.has_more


# ------------------------------------------------------------------------------ threads


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"title": "Parcel", "metadata": {"a": {"b": [None, 1.5]}, "ü": "x"}},
        {"title": ""},
        {"title": "n\u0303" * 600, "created_at": AT.replace(tzinfo=UTC)},
        {"status": LockedStatus(reason="r"), "allowed_image_domains": ["example.com"]},
        {"status": ClosedStatus(), "allowed_image_domains": []},
        {"created_at": datetime.now() + timedelta(days=1)},  # noqa: DTZ005 - as ChatKit's times
    ],
)
async def test_a_thread_is_read_back_equal(svc, fields):
    thread = thread_of(**fields)
    store = await stored_thread(svc, **fields)
    assert await store.load_thread("t1", ANN) == thread
    assert (await store.load_threads(1, None, "asc", ANN)).data == [thread]


async def test_a_saved_thread_replaces_the_one_before_and_keeps_its_items(svc):
    store = await stored_thread(svc, "a", title="One", metadata={"a": 1, "b": {"c": 1}})
    thread = Thread(**thread_of(title=None, metadata={"b": {"d": 1}}).model_dump(), items={})
    thread.items.data = [item("z")]
    await store.save_thread(thread, ANN)
    loaded = await store.load_thread("t1", ANN)
    assert (type(loaded), loaded.title, loaded.metadata) == (ThreadMetadata, None, {"b": {"d": 1}})
    assert await ids_of(store) == (["a"], False)


async def test_changes_of_other_programs_are_part_of_the_thread(svc):
    store = await stored_thread(svc, title="One", metadata={"a": 1})
    patch = {"name": "Two", "merge_metadata": {"b": 2}}
    await svc.conversations.update_by_id("t1", patch, tenant_id="acme")
    await svc.conversations.create(
        tenant_id="acme", dialog_id="support", user_id="ann", id="t2", dsl={"id": 1, "title": 3}
    )
    loaded = await store.load_thread("t1", ANN)
    assert (loaded.title, loaded.metadata) == ("Two", {"a": 1, "b": 2})
    assert (await store.load_thread("t2", ANN)).title is None
    page = await svc.conversations.get_list(tenant_id="acme", metadata={"a": 1})
    assert [row.id for row in page.items] == ["t1"]


async def test_threads_are_listed_by_creation_in_pages(svc):
    store = store_of(svc)
    for number in (2, 0, 3, 1):
        created = AT + timedelta(hours=min(number, 2))  # the last two at the same time
        await store.save_thread(thread_of(f"t{number}", created_at=created), ANN)
    await store.save_thread(thread_of("of bob"), BOB)
    await store_of(svc, "sales").save_thread(thread_of("sales"), ANN)
    everything = ["t0", "t1", "t2", "t3"]
    assert await threads_of(store) == (everything, False)
    assert await threads_of(store, order="desc") == (everything[::-1], False)
    assert await threads_of(store, limit=4) == (everything, False)
    assert await threads_of(store, limit=2) == (["t0", "t1"], True)
    assert await threads_of(store, limit=1, after="t1") == (["t2"], True)
    assert await threads_of(store, limit=2, after="t1") == (["t2", "t3"], False)
    assert await threads_of(store, after="t2", order="desc") == (["t1", "t0"], False)
    assert await threads_of(store, after="t3") == ([], False)
    assert await threads_of(store, after="") == (everything, False)
    assert await threads_of(store, limit=10**9) == (everything, False)
    for limit in (0, -1):
        assert await threads_of(store, limit=limit) == (["t0"], True)
    assert await threads_of(store, context=BOB) == (["of bob"], False)
    assert await threads_of(store, context=OTHER) == ([], False)
    with pytest.raises(NotFoundError):
        await store.load_threads(9, "absent", "asc", ANN)


async def test_a_deleted_thread_is_gone_with_its_items(svc):
    store = await stored_thread(svc, "a")
    await store.delete_thread("t1", BOB)
    assert await ids_of(store) == (["a"], False)
    await store.delete_thread("t1", ANN)
    await store.delete_thread("t1", ANN)
    with pytest.raises(NotFoundError, match="Thread t1 not found"):
        await store.load_thread("t1", ANN)
    assert await ids_of(store) == ([], False)
    await store.save_thread(thread_of(), ANN)
    assert await ids_of(store) == ([], False)


async def test_what_another_user_has_is_absent(svc):
    store = await stored_thread(svc, "a")
    await store.save_attachment(FILE, ANN)
    for context in (BOB, Request(user_id=""), OTHER):
        assert await ids_of(store, context=context) == ([], False)
        await store.delete_thread_item("t1", "a", context)
        await store.delete_attachment("f1", context)
        for call in (
            store.load_thread("t1", context),
            store.load_item("t1", "a", context),
            store.add_thread_item("t1", item("b"), context),
            store.save_item("t1", item("a", content=[]), context),
            store.set_feedback("t1", ["a"], "positive", context),
            store.load_attachment("f1", context),
        ):
            with pytest.raises(NotFoundError):
                await call
    for call in (store.save_thread(thread_of(title="x"), BOB), store.save_attachment(FILE, BOB)):
        with pytest.raises(NotFoundError):
            await call
    await store.save_thread(thread_of(title="of globex"), OTHER)
    assert (await store.load_thread("t1", ANN)).title is None
    assert await store.load_item("t1", "a", ANN) == item("a")
    assert await store.load_attachment("f1", ANN) == FILE


# -------------------------------------------------------------------------------- items


async def test_items_of_all_kinds_are_read_back_equal_and_in_order(svc):
    store = await stored_thread(svc)
    for each in ITEMS:
        await store.add_thread_item("t1", each, ANN)
        assert await store.load_item("t1", each.id, ANN) == each
    assert {type(each) for each in ITEMS} == set(KINDS)
    assert (await store.load_thread_items("t1", None, 99, "asc", ANN)).data == ITEMS
    assert (await store.load_thread_items("t1", None, 99, "desc", ANN)).data == ITEMS[::-1]
    messages = await svc.conversations.messages("t1", tenant_id="acme")
    assert [each.role for each in messages] == [KINDS[type(each)] for each in ITEMS]
    assert [each.content for each in messages if each.content] == [
        "Where is it?\n#7",
        "In Vienna.\nToday.",
        "a card",
        "Why?\nWhich?",
    ]
    row = await svc.conversations.get_by_id("t1", tenant_id="acme")
    assert (row.round, row.tokens, row.dialog_id, row.user_id) == (1, 0, "support", "ann")


async def test_fields_that_this_version_does_not_know_stay_in_the_store(svc):
    class Later(AssistantMessageItem):
        mood: dict[str, list[int | None]]

    class LaterThread(ThreadMetadata):
        pinned: bool

    store = await stored_thread(svc)
    later = Later(**item("a").model_dump(), mood={"x": [1, None]})
    await store.add_thread_item("t1", later, ANN)
    await store.add_thread_item("t1", later, ANN)
    await store.save_thread(LaterThread(**thread_of().model_dump(), pinned=True), ANN)
    (payload,) = await svc.conversations.payloads("t1", tenant_id="acme")
    assert Later.model_validate(payload) == later
    row = await svc.conversations.get_by_id("t1", tenant_id="acme")
    assert row.dsl["pinned"] is True
    assert (await store.load_item("t1", "a", ANN)).content == later.content
    assert await store.load_thread("t1", ANN) == thread_of()


async def test_pages_of_items(svc):
    store = await stored_thread(svc, *"dbeac")  # added at the same time of the items
    assert await ids_of(store) == ([*"dbeac"], False)
    assert await ids_of(store, limit=5) == ([*"dbeac"], False)
    assert await ids_of(store, limit=4) == ([*"dbea"], True)
    assert await ids_of(store, limit=2, after="b") == ([*"ea"], True)
    assert await ids_of(store, limit=3, after="b") == ([*"eac"], False)
    assert await ids_of(store, after="c") == ([], False)
    assert await ids_of(store, order="desc", limit=2) == ([*"ca"], True)
    assert await ids_of(store, order="desc", limit=2, after="a") == ([*"eb"], True)
    assert await ids_of(store, order="desc", limit=3, after="a") == ([*"ebd"], False)
    assert await ids_of(store, order="desc", after="d") == ([], False)
    assert await ids_of(store, after="", limit=10**6) == ([*"dbeac"], False)
    for limit in (0, -1):
        assert await ids_of(store, limit=limit) == (["d"], True)
    with pytest.raises(InvalidInput):
        await ids_of(store, limit=10**12)
    for order in ("asc", "desc"):
        with pytest.raises(NotFoundError):
            await ids_of(store, after="absent", order=order)
        assert await ids_of(store, after="d", order=order, id="absent") == ([], False)


async def test_a_deleted_item_is_gone(svc):
    store = await stored_thread(svc, *"abc")
    await store.delete_thread_item("t1", "b", ANN)
    await store.delete_thread_item("t1", "b", ANN)
    await store.delete_thread_item("absent", "b", ANN)
    assert await ids_of(store) == ([*"ac"], False)
    with pytest.raises(NotFoundError, match="Item b not found"):
        await store.load_item("t1", "b", ANN)


async def test_an_item_added_twice_is_stored_once(svc):
    store = await stored_thread(svc, *"ab")
    await store.add_thread_item("t1", item("a"), ANN)
    with pytest.raises(AlreadyExists):
        await store.add_thread_item("t1", item("a", content=[]), ANN)
    assert await ids_of(store) == ([*"ab"], False)
    assert await store.load_item("t1", "a", ANN) == item("a")
    await store.save_thread(thread_of("t2"), ANN)
    await store.add_thread_item("t2", item("a", thread_id="t2"), ANN)
    assert await ids_of(store, id="t2") == (["a"], False)


async def test_a_saved_item_keeps_its_place_or_is_the_last(svc):
    store = await stored_thread(svc, *"abc")
    changed = item("a", content=[{"text": "changed"}], created_at=AT + timedelta(days=1))
    await store.save_item("t1", changed, ANN)
    await store.save_item("t1", item("d"), ANN)
    page = await store.load_thread_items("t1", None, 9, "asc", ANN)
    assert page.data == [changed, item("b"), item("c"), item("d")]
    for call in (store.save_item, store.add_thread_item):
        with pytest.raises(NotFoundError):
            await call("absent", item("a"), ANN)


async def test_messages_of_other_programs_are_items(svc):
    store = await stored_thread(svc, "a")
    roles = ["assistant", "user", "system", "operator", "tool"]
    turn = {"messages": [{"role": role, "content": f"of {role}"} for role in roles]}
    turn["messages"][1]["id"] = "own"
    await svc.conversations.append_message("t1", turn, tenant_id="acme")
    await store.add_thread_item("t1", item("z"), ANN)
    ids = ["a", "asyncsvc:2", "own", "asyncsvc:4", "asyncsvc:5", "asyncsvc:6", "z"]
    assert await ids_of(store) == (ids, False)
    assert await ids_of(store, order="desc") == (ids[::-1], False)
    assert await ids_of(store, after="asyncsvc:2", limit=2) == (ids[2:4], True)
    assert await ids_of(store, after="own", limit=9, order="desc") == (ids[1::-1], False)
    page = await store.load_thread_items("t1", "a", 5, "asc", ANN)
    types = ["assistant_message", "user_message", "hidden_context_item"]
    assert [each.type for each in page.data] == [*types, "assistant_message", types[2]]
    assert page.data[1].content[0].text == "of user"
    assert (await store.load_item("t1", "asyncsvc:5", ANN)).content[0].text == "of operator"
    await store.delete_thread_item("t1", "asyncsvc:2", ANN)
    assert await ids_of(store, limit=2) == (["a", "own"], True)


async def test_a_long_thread_with_messages_of_other_programs_has_pages(dsn):
    async with asyncsvc.connect(dsn, settings=Settings(max_page_size=3)) as svc:
        store = await stored_thread(svc, *"abcd")
        turn = {"messages": [{"role": "user", "content": "x"}]}
        await svc.conversations.append_message("t1", turn, tenant_id="acme")
        assert await ids_of(store) == ([*"abc"], True)
        assert await ids_of(store, after="c") == (["d", "asyncsvc:5"], False)
        assert await ids_of(store, order="desc") == (["asyncsvc:5", "d", "c"], True)


async def test_large_and_odd_texts(svc, dsn):
    store = await stored_thread(svc)
    large = item("large", content=[{"text": "ä" * 2**20 + "end"}])
    await store.add_thread_item("t1", large, ANN)
    assert await store.load_item("t1", "large", ANN) == large
    odd = item("odd", content=[{"text": "a\x00"}])
    with pytest.raises(InvalidInput):
        await store.add_thread_item("t1", odd, ANN)
    async with asyncsvc.connect(dsn, settings=Settings(unstorable_text="replace")) as replacing:
        await store_of(replacing).save_item("t1", odd, ANN)
        await store_of(replacing).save_thread(thread_of(title="b\x00"), ANN)
    assert (await store.load_item("t1", "odd", ANN)).content[0].text == "a\ufffd"
    assert (await store.load_thread("t1", ANN)).title == "b\ufffd"


async def test_feedback_counts_in_the_conversation(svc):
    store = await stored_thread(svc, *"abc")
    await store.set_feedback("t1", ["a", "b"], "positive", ANN)
    await store.set_feedback("t1", ["b"], "negative", ANN)
    row = await svc.conversations.get_by_id("t1", tenant_id="acme")
    assert (row.thumb_up, row.thumb_down) == (1, 1)
    with pytest.raises(NotFoundError):
        await store.set_feedback("t1", ["z"], "negative", ANN)


async def test_generated_ids_have_128_random_bits(svc):
    store = store_of(svc)
    ids = {store.generate_thread_id(ANN) for _ in range(100)}
    assert len(ids) == 100
    assert all(len(id) == len("thr_") + 32 and id.startswith("thr_") for id in ids)
    prefixes = {"message": "msg_", "tool_call": "tc_", "task": "tsk_", "workflow": "wf_"}
    for kind, prefix in prefixes.items():
        assert store.generate_item_id(kind, thread_of(), ANN).startswith(prefix)


# -------------------------------------------------------------------------- attachments

FILE = FileAttachment(
    id="f1",
    name="ä.txt",
    mime_type="text/plain",
    metadata={"source": {"x": None}},
    upload_descriptor={"url": "https://example.com/up", "method": "PUT", "headers": {"a": "b"}},
)
IMAGE = ImageAttachment(
    id="f2", name="a.png", mime_type="image/png", preview_url="https://example.com/a.png"
)


async def test_attachments_are_read_back_equal_replaced_and_deleted(svc):
    store = store_of(svc)
    for each in (FILE, IMAGE, FILE.model_copy(update={"thread_id": "t1"})):
        await store.save_attachment(each, ANN)
        assert await store.load_attachment(each.id, ANN) == each
    await store.delete_attachment("f1", ANN)
    await store.delete_attachment("f1", ANN)
    with pytest.raises(NotFoundError):
        await store.load_attachment("f1", ANN)
    assert await store.load_attachment("f2", ANN) == IMAGE


# -------------------------------------------------------------- round trips, concurrency


async def test_round_trips(dsn):
    async with counted(dsn) as (svc, round_trips):
        store = store_of(svc)
        for id in ("warm", "counted"):
            counts = [
                await round_trips(store.save_thread, thread_of(id), ANN),
                await round_trips(store.save_thread, thread_of(id, title="x"), ANN),
                await round_trips(store.load_thread, id, ANN),
                await round_trips(store.add_thread_item, id, item("a", "user_message"), ANN),
                await round_trips(store.add_thread_item, id, item("b"), ANN),
                await round_trips(store.save_item, id, item("b"), ANN),
                await round_trips(store.save_item, id, item("c"), ANN),
                await round_trips(store.load_item, id, "a", ANN),
                await round_trips(store.load_thread_items, id, None, 20, "desc", ANN),
                await round_trips(store.load_thread_items, id, "a", 20, "asc", ANN),
                await round_trips(store.load_threads, 20, None, "desc", ANN),
                await round_trips(store.load_threads, 20, id, "desc", ANN),
                await round_trips(store.set_feedback, id, ["a"], "positive", ANN),
                await round_trips(store.delete_thread_item, id, "a", ANN),
            ]
        assert counts == [1] * len(counts)
    async with counted(dsn) as (svc, round_trips):
        store = store_of(svc)
        for id in ("warm", "counted"):
            counts = [
                await round_trips(store.save_attachment, FILE, ANN),
                await round_trips(store.load_attachment, "f1", ANN),
                await round_trips(store.delete_attachment, "f1", ANN),
                await round_trips(store.delete_thread, id, ANN),
            ]
        assert counts == [1] * len(counts)


async def test_32_writers_of_one_thread_lose_nothing(svc):
    store = store_of(svc)
    await asyncio.gather(*(store.save_thread(thread_of(), ANN) for _ in range(32)))
    await asyncio.gather(*(store.add_thread_item("t1", item(f"i{n}"), ANN) for n in range(32)))
    ids, _ = await ids_of(store)
    assert sorted(ids) == sorted(f"i{n}" for n in range(32))


async def test_32_savers_of_one_item_leave_one(svc):
    store = await stored_thread(svc, "first")
    items = [item("a", content=[{"text": f"{n}" * 50}]) for n in range(32)]
    await asyncio.gather(*(store.save_item("t1", each, ANN) for each in items))
    page = await store.load_thread_items("t1", None, 9, "asc", ANN)
    assert [each.id for each in page.data] == ["first", "a"]
    assert page.data[1] in items


async def test_32_adders_of_one_item_store_it_once(svc):
    store = await stored_thread(svc)
    await asyncio.gather(*(store.add_thread_item("t1", item("a"), ANN) for _ in range(32)))
    assert await ids_of(store) == (["a"], False)


# ------------------------------------------------------------------- servers and clients


class Server(ChatKitServer[Request]):
    """A server with a script in place of a model: it repeats the question in a streamed answer."""

    async def respond(self, thread, input_user_message, context):
        page = await self.store.load_thread_items(thread.id, None, 100, "asc", context)
        question = input_user_message.content[0].text if input_user_message else "tool"
        if question == "call a tool":
            call = {"call_id": "c", "name": "look", "arguments": {}}
            id = self.store.generate_item_id("tool_call", thread, context)
            pending = item(id, "client_tool_call", thread.id, datetime.now(UTC), **call)
            yield ThreadItemDoneEvent(item=pending)
            return
        answer = f"{len(page.data)}: {question}"
        id = self.store.generate_item_id("message", thread, context)
        fields = {"id": id, "thread_id": thread.id, "created_at": datetime.now(UTC)}
        yield ThreadItemAddedEvent(item=AssistantMessageItem(content=[], **fields))
        for part in (answer[:2], answer[2:]):
            update = {"type": "assistant_message.content_part.text_delta", "content_index": 0}
            yield ThreadItemUpdatedEvent(item_id=id, update=update | {"delta": part})
            if question == "wait":
                await asyncio.Event().wait()
        content = [AssistantMessageContent(text=answer)]
        yield ThreadItemDoneEvent(item=AssistantMessageItem(content=content, **fields))
        if question == "think again":
            hidden = HiddenContextItem(**fields | {"id": f"{id}_h"}, content={"a": [1]})
            yield ThreadItemDoneEvent(item=hidden)
            content = [AssistantMessageContent(text="again")]
            yield ThreadItemReplacedEvent(item=AssistantMessageItem(content=content, **fields))
        if question == "forget":
            yield ThreadItemRemovedEvent(item_id=id)
        if not thread.title:
            thread.title = question
            thread.metadata["turns"] = 1

    async def add_feedback(self, thread_id, item_ids, feedback, context):
        await self.store.set_feedback(thread_id, item_ids, feedback, context)


class Files(AttachmentStore[Request]):
    """The files of attachments: here none."""

    def __init__(self):
        self.deleted = []

    async def create_attachment(self, input, context):
        id = self.generate_attachment_id(input.mime_type, context)
        return FileAttachment(id=id, name=input.name, mime_type=input.mime_type)

    async def delete_attachment(self, attachment_id, context):
        self.deleted.append((attachment_id, context.user_id))


async def send(server, type, context=ANN, **params):
    """Process a request of a client; return its events, or its result."""
    result = await server.process(json.dumps({"type": type, "params": params}), context)
    if isinstance(result, StreamingResult):
        return [json.loads(event.removeprefix(b"data: ")) async for event in result]
    return json.loads(result.json)


def message(text, *attachments):
    part = {"type": "input_text", "text": text}
    return {"content": [part], "attachments": attachments, "inference_options": {}}


async def begin(server, text, *attachments, context=ANN):
    """Create a thread with a question; return its id."""
    events = await send(server, "threads.create", context, input=message(text, *attachments))
    assert not [each for each in events if each["type"] == "error"]
    return events[0]["thread"]["id"]


async def ask(server, thread_id, text, context=ANN):
    return await send(
        server, "threads.add_user_message", context, thread_id=thread_id, input=message(text)
    )


def texts_of(page):
    return [each["content"][0]["text"] for each in page["data"]]


async def test_a_thread_continues_after_a_restart(dsn):
    async with asyncsvc.connect(dsn) as svc:
        id = await begin(Server(store_of(svc)), "One?")
    async with asyncsvc.connect(dsn) as svc:
        server = Server(store_of(svc))
        events = await ask(server, id, "Two?")
        assert [each["type"] for each in events][-2:] == ["thread.item.updated", "thread.item.done"]
        thread = await send(server, "threads.get_by_id", thread_id=id)
        assert texts_of(thread["items"]) == ["One?", "1: One?", "Two?", "3: Two?"]
        assert thread["title"] == "One?"
        assert (await server.store.load_thread(id, ANN)).metadata == {"turns": 1}
        row = await svc.conversations.get_by_id(id, tenant_id="acme")
        assert (row.round, row.last_seq, row.name) == (2, 4, "One?")


async def test_requests_about_threads_and_items(svc):
    server = Server(store_of(svc))
    ids = [await begin(server, f"{number}?") for number in range(3)]
    listed = await send(server, "threads.list", limit=2)
    assert [each["id"] for each in listed["data"]] == ids[:0:-1]
    assert (listed["has_more"], listed["after"]) == (True, ids[1])
    rest = await send(server, "threads.list", after=listed["after"])
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == ([ids[0]], False)
    first = await send(server, "items.list", thread_id=ids[0], limit=1)
    assert (texts_of(first), first["has_more"]) == (["1: 0?"], True)
    rest = await send(server, "items.list", thread_id=ids[0], after=first["after"])
    assert (texts_of(rest), rest["has_more"]) == (["0?"], False)
    renamed = await send(server, "threads.update", thread_id=ids[0], title="New")
    assert renamed["title"] == "New"
    item_ids = [first["data"][0]["id"]]
    feedback = {"thread_id": ids[0], "item_ids": item_ids, "kind": "negative"}
    assert await send(server, "items.feedback", **feedback) == {}
    row = await svc.conversations.get_by_id(ids[0], tenant_id="acme")
    assert (row.name, row.thumb_down) == ("New", 1)
    assert await send(server, "threads.delete", thread_id=ids[0]) == {}
    with pytest.raises(NotFoundError):
        await send(server, "threads.get_by_id", thread_id=ids[0])
    with pytest.raises(NotFoundError):
        await ask(server, ids[1], "?", BOB)


async def test_replaced_removed_and_hidden_items(svc):
    server = Server(store_of(svc))
    id = await begin(server, "think again")
    await ask(server, id, "forget")
    stored = await server.store.load_thread_items(id, None, 9, "asc", ANN)
    assert [each.type for each in stored.data] == [
        "user_message",
        "assistant_message",
        "hidden_context_item",
        "user_message",
    ]
    assert stored.data[2].content == {"a": [1]}
    thread = await send(server, "threads.get_by_id", thread_id=id)
    assert texts_of(thread["items"]) == ["think again", "again", "forget"]


async def test_a_retry_deletes_the_items_after_the_question(svc):
    server = Server(store_of(svc))
    id = await begin(server, "One?")
    for number in range(12):
        await ask(server, id, f"{number}")
    question = (await server.store.load_thread_items(id, None, 3, "asc", ANN)).data[2]
    await send(server, "threads.retry_after_item", thread_id=id, item_id=question.id)
    thread = await send(server, "threads.get_by_id", thread_id=id)
    assert texts_of(thread["items"]) == ["One?", "1: One?", "0", "3: 0"]


async def test_the_output_of_a_client_tool_is_saved_in_its_call(svc):
    server = Server(store_of(svc))
    id = await begin(server, "call a tool")
    await send(server, "threads.add_client_tool_output", thread_id=id, result={"x": [1]})
    _, call, answer = (await server.store.load_thread_items(id, None, 9, "asc", ANN)).data
    assert (call.status, call.output, answer.content[0].text) == (
        "completed",
        {"x": [1]},
        "2: tool",
    )
    id = await begin(server, "call a tool")
    await send(server, "threads.add_user_message", thread_id=id, input=message("never mind"))


async def test_a_cancelled_stream_keeps_what_was_streamed(svc):
    server = Server(store_of(svc))
    id = await begin(server, "One?")
    request = {"thread_id": id, "input": message("wait")}
    body = json.dumps({"type": "threads.add_user_message", "params": request})
    streaming = asyncio.Event()

    async def read():
        async for event in await server.process(body, ANN):
            if b"text_delta" in event:
                streaming.set()

    task = asyncio.create_task(read())
    await asyncio.wait_for(streaming.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    *_, answer, hidden = (await server.store.load_thread_items(id, None, 9, "asc", ANN)).data
    assert (answer.content[0].text, hidden.type) == ("3:", "sdk_hidden_context")


async def test_attachments_of_a_message(svc):
    files = Files()
    server = Server(store_of(svc), files)
    created = await send(server, "attachments.create", name="a", size=3, mime_type="text/plain")
    id = await begin(server, "One?", created["id"])
    question = (await server.store.load_thread_items(id, None, 1, "asc", ANN)).data[0]
    attachment = await server.store.load_attachment(created["id"], ANN)
    assert question.attachments == [attachment]
    assert (attachment.thread_id, attachment.name) == (id, "a")
    assert await send(server, "attachments.delete", attachment_id=created["id"]) == {}
    assert files.deleted == [(created["id"], "ann")]
    with pytest.raises(NotFoundError):
        await server.store.load_attachment(created["id"], ANN)


async def test_32_threads_at_once_keep_their_own_items(svc):
    server = Server(store_of(svc))

    async def talk(number):
        context = Request(user_id=f"u{number % 8}")
        id = await begin(server, f"{number}.0", context=context)
        for turn in (1, 2):
            await ask(server, id, f"{number}.{turn}", context)
        thread = await send(server, "threads.get_by_id", context, thread_id=id)
        return texts_of(thread["items"])

    for number, texts in enumerate(await asyncio.gather(*map(talk, range(32)))):
        questions = [f"{number}.{turn}" for turn in range(3)]
        answers = [f"{2 * turn + 1}: {number}.{turn}" for turn in range(3)]
        assert texts == [each for pair in zip(questions, answers, strict=True) for each in pair]
    page = await server.store.load_threads(99, None, "asc", Request(user_id="u3"))
    assert len(page.data) == 4
