"""The data layer of Chainlit: the contract of its own layers, and its emitter, messages, steps."""

import asyncio
import atexit
import json
import os
import tempfile
import uuid
import warnings
from unittest.mock import AsyncMock

import pytest

# Chainlit writes its configuration into a directory when it is imported.
_directory = tempfile.TemporaryDirectory(prefix="asyncsvc-chainlit-")
atexit.register(_directory.cleanup)
os.environ.setdefault("CHAINLIT_APP_ROOT", _directory.name)

with warnings.catch_warnings(action="ignore"):
    import chainlit as cl
import chainlit.data  # noqa: E402
from chainlit.chat_context import chat_context  # noqa: E402
from chainlit.context import init_http_context, init_ws_context  # noqa: E402
from chainlit.data.acl import is_thread_author  # noqa: E402
from chainlit.data.storage_clients.base import BaseStorageClient  # noqa: E402
from chainlit.element import CustomElement, File, Text  # noqa: E402
from chainlit.session import WebsocketSession  # noqa: E402
from chainlit.socket import persist_user_session, resume_thread  # noqa: E402
from chainlit.types import Feedback, Pagination, ThreadFilter  # noqa: E402
from fastapi import HTTPException  # noqa: E402

import asyncsvc  # noqa: E402
from asyncsvc import InvalidInput, NotFound, Settings  # noqa: E402
from asyncsvc.integrations.chainlit import DataLayer  # noqa: E402
from tests.integrations.histories import OWNER, counted  # noqa: E402

AT = {"tenant_id": "acme"}


@pytest.fixture(autouse=True)
async def context():
    """A session without queues, as that of a chat platform."""
    return init_http_context(thread_id="t1")


@pytest.fixture
def layer(svc):
    return DataLayer(svc, **OWNER)


@pytest.fixture
def storage():
    client = AsyncMock(spec=BaseStorageClient)
    client.upload_file.side_effect = lambda object_key, **_: {"object_key": object_key, "url": "x"}
    client.get_read_url.side_effect = lambda key: f"https://files/{key}?signed"
    return client


def step(id="s1", thread="t1", at="2026-11-30T20:00:00.000001Z", **fields):
    return {
        "id": id, "threadId": thread, "parentId": None, "name": "bot", "type": "assistant_message",
        "input": "", "output": "In Vienna.", "metadata": {}, "createdAt": at,
        "streaming": False, "isError": False, "tags": None, "generation": None,
    } | fields  # fmt: skip


async def steps_of(layer, thread="t1"):
    return (await layer.get_thread(thread))["steps"]


async def listed(layer, first=10, cursor=None, user="ann", **filters):
    page = await layer.list_threads(
        Pagination(first=first, cursor=cursor), ThreadFilter(userId=user, **filters)
    )
    return page, [thread["id"] for thread in page.data]


# ---------------------------------------------------------------------------- users


def test_a_layer_without_services_names_the_argument():
    with pytest.raises(InvalidInput, match="svc: must be services"):
        DataLayer("postgresql://db", **OWNER)


async def test_a_user_is_created_once_and_his_metadata_replaced(layer):
    assert await layer.get_user("ann@example.org") is None
    created = await layer.create_user(cl.User("ann@example.org", metadata={"role": "admin"}))
    assert (uuid.UUID(created.id).version, created.identifier) == (5, "ann@example.org")
    assert await layer.get_user("ann@example.org") == created
    again = await layer.create_user(cl.User("ann@example.org", "Ann", metadata={"a": {"b": None}}))
    assert (again.createdAt, again.display_name) == (created.createdAt, "Ann")
    assert again.metadata == {"a": {"b": None}}
    with pytest.raises(InvalidInput):
        await layer.create_user(cl.User("x" * 129))


async def test_the_id_of_a_user_stands_for_his_identifier(svc, layer):
    user = await layer.create_user(cl.User("ann@example.org"))
    await layer.update_thread("t1", "Parcel", user_id=user.id)
    await layer.create_step(step(metadata={"favorite": True}))
    thread = await layer.get_thread("t1")
    assert (thread["userId"], thread["userIdentifier"]) == (user.id, user.identifier)
    assert await layer.get_thread_author("t1") == user.identifier
    page, threads = await listed(layer, user=user.id)
    assert (threads, page.data[0]["userId"]) == (["t1"], user.id)
    assert [each["id"] for each in await layer.get_favorite_steps(user.id)] == ["s1"]
    assert (await svc.conversations.get_by_id("t1", **AT)).user_id == "ann@example.org"


async def test_users_and_threads_of_tenants_are_different(svc, layer):
    other = DataLayer(svc, tenant_id="globex", dialog_id="support")
    await layer.create_user(cl.User("ann"))
    await layer.update_thread("t1", user_id="ann")
    assert await other.get_user("ann") is None
    assert await other.get_thread("t1") is None
    assert await other.get_thread_author("t1") == ""


async def test_the_erasure_of_a_user_deletes_his_threads_and_his_record(svc, layer):
    await layer.create_user(cl.User("ann"))
    await layer.update_thread("t1", user_id="ann")
    await layer.create_step(step(metadata={"favorite": True}))
    await svc.conversations.erase_user("ann", **AT)
    assert await layer.get_user("ann") is None
    assert await layer.get_thread("t1") is None
    assert await layer.get_favorite_steps("ann") == []


# ---------------------------------------------------------------------------- threads


async def test_a_thread_has_an_author_and_nobody_else_passes_the_check(layer, monkeypatch):
    monkeypatch.setattr(chainlit.data, "_data_layer", layer)
    monkeypatch.setattr(chainlit.data, "_data_layer_initialized", True)
    await layer.update_thread("t1", "Parcel", user_id="ann", tags=["a"])
    assert await layer.get_thread_author("t1") == "ann"
    assert await is_thread_author("ann", "t1")
    for user, thread, status in (("bob", "t1", 401), ("ann", "t2", 404)):
        with pytest.raises(HTTPException) as caught:
            await is_thread_author(user, thread)
        assert caught.value.status_code == status
    thread = await layer.get_thread("t1")
    assert (thread["name"], thread["userIdentifier"]) == ("Parcel", "ann")
    assert (thread["tags"], thread["metadata"]) == (["a"], {})
    assert (thread["steps"], thread["elements"]) == ([], [])
    assert json.loads(json.dumps(thread)) == thread


async def test_metadata_is_merged_key_by_key_and_none_removes_a_key(layer):
    async def metadata():
        return (await layer.get_thread("t1"))["metadata"]

    await layer.update_thread("t1", metadata={"a": {"x": 1, "y": None}, "b": [1], "gone": None})
    assert await metadata() == {"a": {"x": 1, "y": None}, "b": [1]}
    await layer.update_thread("t1", metadata={"a": {"z": 2}, "b": None, "c": "\u0394"})
    assert await metadata() == {"a": {"z": 2}, "c": "\u0394"}
    await layer.update_thread("t1", name="New")
    await layer.update_thread("t1", metadata={})
    await layer.update_thread("t1")
    assert await metadata() == {"a": {"z": 2}, "c": "\u0394"}
    assert (await layer.get_thread("t1"))["name"] == "New"
    await layer.update_thread("t1", metadata={"name": "By metadata"})
    assert (await layer.get_thread("t1"))["name"] == "By metadata"
    await layer.update_thread("t1", name="x" * 300, user_id="ann", tags=[])
    thread = await layer.get_thread("t1")
    assert (thread["name"], thread["userIdentifier"], thread["tags"]) == ("x" * 255, "ann", [])


async def test_32_writers_of_metadata_keep_all_keys(dsn):
    async with asyncsvc.connect(dsn, max_size=16) as svc:
        layer = DataLayer(svc, **OWNER)
        await asyncio.gather(
            *(layer.update_thread("t1", metadata={f"k{n}": {"n": n}}) for n in range(32))
        )
        thread = await layer.get_thread("t1")
        assert thread["metadata"] == {f"k{n}": {"n": n} for n in range(32)}


async def test_a_thread_is_deleted_with_all_that_it_has(svc, layer, storage):
    layer = DataLayer(svc, storage_client=storage, **OWNER)
    await layer.update_thread("t1", user_id="ann")
    await layer.create_step(step(metadata={"favorite": True}))
    await layer.create_element(Text(name="a.txt", id="e1", content="text", for_id="s1"))
    await layer.delete_thread("t1")
    storage.delete_file.assert_awaited_once_with("threads/t1/files/e1")
    assert await layer.get_thread("t1") is None
    assert await layer.get_element("t1", "e1") is None
    assert await layer.get_favorite_steps("ann") == []
    await layer.delete_thread("t1")


# ---------------------------------------------------------------------------- lists


async def filled(layer, count=5):
    for number in range(count):
        await layer.update_thread(f"t{number}", f"Parcel {number}", user_id="ann")
        await layer.create_step(step(f"s{number}", f"t{number}", output=f"number {number}"))
    await layer.update_thread("theirs", "Parcel", user_id="bob")


async def test_threads_are_listed_page_by_page_latest_first(layer):
    await filled(layer)
    page, ids = await listed(layer, 2)
    assert ids == ["t4", "t3"]
    info = page.pageInfo
    assert (info.hasNextPage, info.startCursor, info.endCursor) == (True, "t4", "t3")
    assert page.to_dict()["data"][0]["name"] == "Parcel 4"
    page, ids = await listed(layer, 2, "t3")
    assert ids == ["t2", "t1"]
    page, ids = await listed(layer, 2, "t1")
    assert (ids, page.pageInfo.hasNextPage) == (["t0"], False)
    assert (await listed(layer, 10, "absent"))[1] == []
    assert (await listed(layer, user="eve"))[1] == []
    assert (await listed(layer, 10**9))[1] == ["t4", "t3", "t2", "t1", "t0"]
    assert len((await listed(layer, user=None))[1]) == 6
    assert (await listed(layer, user=""))[1] == []
    for first in (0, -1):
        with pytest.raises(InvalidInput):
            await listed(layer, first)
    await layer.update_thread("t0", name="Again")
    assert (await listed(layer, 1))[1] == ["t0"]


async def test_threads_are_listed_by_text_and_by_feedback(layer):
    await filled(layer)
    assert (await listed(layer, search="parcel 3"))[1] == ["t3"]
    assert (await listed(layer, search="NUMBER 2"))[1] == ["t2"]
    await layer.upsert_feedback(Feedback(forId="s1", threadId="t1", value=1))
    await layer.upsert_feedback(Feedback(forId="s2", threadId="t2", value=0))
    assert (await listed(layer, feedback=1))[1] == ["t1"]
    assert (await listed(layer, feedback=0))[1] == ["t2"]


# ---------------------------------------------------------------------------- steps


async def test_a_step_is_read_back_whole_with_fields_of_later_versions(layer, svc):
    stored = step(metadata={"a": None}, new={"of": [None, 1.5]}, tags=["x"], output="\u00e9")
    await layer.create_step(stored)
    assert await steps_of(layer) == [stored]
    (message,) = await svc.conversations.messages("t1", **AT)
    assert (message.id, message.role, message.content) == ("s1", "assistant", "\u00e9")
    await layer.create_step(step("s2", type="tool", output="", input="{}"))
    assert (await svc.conversations.get_message("t1", "s2", **AT)).role == "tool"


async def test_an_empty_field_does_not_overwrite_a_step(layer):
    run = {"type": "run", "name": "", "output": "", "input": ""}
    await layer.create_step(step(type="tool", metadata={"a": {"b": 1}}, input="in", isError=True))
    await layer.update_step(step(metadata={}, **run) | {"isError": None})
    (stored,) = await steps_of(layer)
    assert (stored["output"], stored["input"], stored["name"]) == ("In Vienna.", "in", "bot")
    assert (stored["metadata"], stored["type"]) == ({"a": {"b": 1}}, "tool")
    await layer.update_step(step(metadata={"c": 2}, output="Bye.", isError=False))
    (stored,) = await steps_of(layer)
    assert (stored["metadata"], stored["output"], stored["isError"]) == ({"c": 2}, "Bye.", False)


async def test_a_step_is_whole_in_whatever_order_its_tasks_run(layer):
    first = step(type="run", output="", end=None)
    last = step(type="run", output="Done.", end="2026-11-30T20:00:09Z", isError=True)
    await layer.update_step(dict(last))
    await layer.create_step(dict(first))
    assert await steps_of(layer) == [last]


async def test_steps_are_ordered_by_their_time_and_not_by_their_arrival(layer):
    for id, at in (("c", "00:02Z"), ("a", "00:00.5Z"), ("b", "00:01Z"), ("z", "00:00Z")):
        await layer.create_step(step(id, at=f"2026-11-30T20:{at}"))
    assert [each["id"] for each in await steps_of(layer)] == ["z", "a", "b", "c"]


async def test_a_step_without_a_thread_is_that_of_its_id(layer):
    await layer.create_step(step())
    await layer.update_step({"id": "s1", "type": "run", "output": "New."})
    assert (await steps_of(layer))[0]["output"] == "New."
    with pytest.raises(NotFound):
        await layer.update_step({"id": "absent", "type": "run", "output": "New."})


async def test_a_message_of_the_user_counts_one_round(layer, svc):
    question = step("q", type="user_message", output="Where?")
    for create in (layer.create_step, layer.create_step, layer.update_step):
        await create(dict(question))
    await layer.create_step(step())
    row = await svc.conversations.get_by_id("t1", **AT)
    assert (row.round, row.last_seq, row.dialog_id) == (1, 2, "support")


async def test_a_deleted_step_takes_its_elements_and_feedback_along(svc, storage):
    layer = DataLayer(svc, storage_client=storage, **OWNER)
    for id in ("s1", "s2"):
        await layer.create_step(step(id))
        await layer.create_element(Text(name="a", id=f"e-{id}", content="text", for_id=id))
    await layer.upsert_feedback(Feedback(forId="s1", threadId="t1", value=1))
    await layer.delete_step("s1")
    await layer.delete_step("absent")
    thread = await layer.get_thread("t1")
    assert [each["id"] for each in thread["steps"]] == ["s2"]
    assert [each["id"] for each in thread["elements"]] == ["e-s2"]
    storage.delete_file.assert_awaited_once_with("threads/t1/files/e-s1")
    assert (await svc.conversations.get_by_id("t1", **AT)).thumb_up == 0


async def test_messages_of_other_programs_are_steps_too(layer, svc):
    await layer.create_step(step(at="2020-01-01T00:00:00Z"))
    message = {"role": "assistant", "content": "I take over.", "payload": {"operator": "eve"}}
    await svc.conversations.append_message("t1", {"messages": [message]}, **AT)
    first, second = await steps_of(layer)
    assert first["id"] == "s1"
    assert (second["type"], second["output"]) == ("assistant_message", "I take over.")
    assert cl.Message.from_dict(second).content == "I take over."


async def test_large_and_unstorable_outputs(layer, svc, dsn):
    await layer.create_step(step(output="\u00e4" * 2**20))
    assert (await steps_of(layer))[0]["output"] == "\u00e4" * 2**20
    with pytest.raises(InvalidInput):
        await layer.create_step(step("s2", output="a\x00"))
    async with asyncsvc.connect(dsn, settings=Settings(unstorable_text="replace")) as replacing:
        await DataLayer(replacing, **OWNER).create_step(step("s2", "t2", output="a\x00\ud800"))
    assert (await steps_of(layer, "t2"))[0]["output"] == "a\ufffd\ufffd"


# ---------------------------------------------------------------------------- feedback, favourites


async def test_feedback_is_one_for_each_step_and_can_be_deleted(layer, svc):
    await layer.create_step(step())
    first = await layer.upsert_feedback(Feedback(forId="s1", threadId="t1", value=0, comment="no"))
    second = await layer.upsert_feedback(Feedback(forId="s1", value=1, id=first))
    assert first == second
    await layer.update_step(step(output="Edited.", feedback=None))
    (stored,) = await steps_of(layer)
    assert stored["feedback"] == {"forId": "s1", "id": first, "value": 1, "comment": None}
    row = await svc.conversations.get_by_id("t1", **AT)
    assert (row.thumb_up, row.thumb_down) == (1, 0)
    assert await layer.delete_feedback(first)
    assert "feedback" not in (await steps_of(layer))[0]
    for unknown in ("", "f1", "[]", "{}", '["t1", "absent"]', "[1, 2]", '["t1", null]'):
        assert not await layer.delete_feedback(unknown)
    with pytest.raises(NotFound):
        await layer.upsert_feedback(Feedback(forId="absent", value=1))


async def test_favourites_are_those_of_the_user_newest_first(layer):
    for number, user in enumerate(["ann", "ann", "bob"]):
        await layer.update_thread(f"t{number}", user_id=user)
        await layer.create_step(step(f"s{number}", f"t{number}", f"2026-11-30T20:00:0{number}Z"))
        await layer.set_step_favorite(step(f"s{number}", f"t{number}"), favorite=True)
    favorites = await layer.get_favorite_steps("ann")
    assert [each["id"] for each in favorites] == ["s1", "s0"]
    assert favorites[0]["metadata"] == {"favorite": True}
    changed = await layer.set_step_favorite(favorites[0], favorite=False)
    assert changed["metadata"] == {"favorite": False}
    await layer.delete_step("s0")
    assert await layer.get_favorite_steps("ann") == []
    assert [each["id"] for each in await layer.get_favorite_steps("bob")] == ["s2"]


# ---------------------------------------------------------------------------- elements


async def test_elements_are_stored_without_storage(layer, caplog):
    await layer.create_element(Text(name="a.txt", id="e1", content="text", for_id="s1"))
    await layer.create_element(Text(name="b.txt", id="e2", url="https://b", for_id="s1"))
    custom = CustomElement(name="c", id="e3", props={"a": {"x": 1}}, for_id="s1")
    await layer.create_element(custom)
    custom.props = {"a": {"y": None}}
    await layer.create_element(custom)
    await layer.create_element(Text(name="d", id="e4", content="of no step"))
    assert "'a.txt'" in caplog.text
    elements = {each["id"]: each for each in (await layer.get_thread("t1"))["elements"]}
    assert elements.keys() == {"e1", "e2", "e3"}
    assert elements["e3"]["props"] == {"a": {"y": None}}
    assert elements["e2"] == await layer.get_element("t1", "e2")
    assert (elements["e2"]["url"], elements["e2"]["forId"]) == ("https://b", "s1")
    await layer.delete_element("e2", "t1")
    await layer.delete_element("e3")
    await layer.delete_element("absent", "t1")
    await layer.delete_element("e1", "absent")
    assert [each["id"] for each in (await layer.get_thread("t1"))["elements"]] == ["e1"]
    assert await layer.get_element("t1", "absent") is None
    assert await layer.get_element("absent", "e1") is None


async def test_files_of_elements_are_in_the_storage_of_the_application(svc, storage, tmp_path):
    layer = DataLayer(svc, storage_client=storage, **OWNER)
    (tmp_path / "a.bin").write_bytes(b"\x00\x01")
    file = File(name='a "1".bin', id="e1", path=str(tmp_path / "a.bin"), for_id="s1")
    await layer.create_element(file)
    storage.upload_file.assert_awaited_once_with(
        object_key="threads/t1/files/e1",
        data=b"\x00\x01",
        mime="application/octet-stream",
        overwrite=True,
        content_disposition="attachment; filename*=UTF-8''a%20%221%22.bin",
    )
    element = await layer.get_element("t1", "e1")
    assert element["url"] == "https://files/threads/t1/files/e1?signed"
    assert (await layer.get_thread("t1"))["elements"] == [element]
    storage.get_read_url.side_effect = OSError
    assert (await layer.get_element("t1", "e1"))["url"] is None
    await layer.delete_element("e1", "t1")
    storage.delete_file.assert_awaited_once_with("threads/t1/files/e1")
    storage.upload_file.side_effect = lambda **_: {}
    with pytest.raises(ValueError, match="has not stored"):
        await layer.create_element(file)
    assert await layer.get_element("t1", "e1") is None
    assert await layer.build_debug_url() == ""
    await layer.close()
    storage.close.assert_awaited_once_with()
    assert await layer.get_thread("t1")  # the services are open


# ---------------------------------------------------------------------------- cost


async def test_the_round_trips_of_each_operation(dsn):
    async with counted(dsn) as (svc, round_trips):
        layer = DataLayer(svc, **OWNER)
        page = (Pagination(first=20), ThreadFilter(userId="ann"))
        for id in ("warm", "t1"):
            text = Text(thread_id=id, name="a", id="e1", url="https://a", for_id="s1")
            question = step("q", id, type="user_message")
            feedback = Feedback(forId="s1", threadId=id, value=1, comment="right")
            counts = {
                "create message": await round_trips(layer.create_step, question),
                "create": await round_trips(layer.create_step, step("s1", id)),
                "create thread": await round_trips(layer.create_step, step("s", f"new {id}")),
                "update": await round_trips(layer.update_step, step("s1", id, output="More.")),
                "feedback": await round_trips(layer.upsert_feedback, feedback),
                "thread": await round_trips(layer.update_thread, id, "N", None, {"a": 1}, ["t"]),
                "element": await round_trips(layer.create_element, text),
                "get element": await round_trips(layer.get_element, id, "e1"),
                "user": await round_trips(layer.create_user, cl.User("ann")),
                "get user": await round_trips(layer.get_user, "ann"),
                "author": await round_trips(layer.get_thread_author, id),
            }
            more = {
                "get": await round_trips(layer.get_thread, id),
                "thread of a user": await round_trips(layer.update_thread, id, "N", "ann"),
                "list": await round_trips(layer.list_threads, *page),
            }
            await many_steps(svc, id)
            more |= {
                "get long": await round_trips(layer.get_thread, id),
                "delete feedback": await round_trips(layer.delete_feedback, f'["{id}", "s1"]'),
                "delete element": await round_trips(layer.delete_element, "e1", id),
                "delete step": await round_trips(layer.delete_step, "s1"),
                "delete thread": await round_trips(layer.delete_thread, id),
            }
        assert counts == dict.fromkeys(counts, 1)
        assert more.pop("delete feedback") == 1
        assert more == dict.fromkeys(more, 2)


async def many_steps(svc, id):
    for start in range(0, 2_000, 1_000):
        fields = {"threadId": id, "metadata": [{}], "createdAt": "2026"}
        payloads = [fields | {"n": n} for n in range(start, start + 1_000)]
        messages = [{"role": "tool", "content": "", "payload": each} for each in payloads]
        await svc.conversations.append_message(id, {"messages": messages}, **AT)


# ---------------------------------------------------------------------------- Chainlit's program


class Browser:
    """A session with a socket that keeps what Chainlit emits, and answers to questions."""

    def __init__(self, user, thread_id=None):
        self.emitted = []
        self.session = WebsocketSession(
            id=str(uuid.uuid4()), socket_id=str(uuid.uuid4()), emit=self._emit,
            emit_call=AsyncMock(), user_env={}, client_type="webapp", user=user,
            thread_id=thread_id,
        )  # fmt: skip

    async def _emit(self, event, data):
        self.emitted.append((event, data))

    async def ask(self, text, answer):
        """Send a message as the browser does; the program runs a tool and answers."""
        emitter = init_ws_context(self.session).emitter
        payload = {"id": str(uuid.uuid4()), "name": "user", "type": "user_message", "output": text}
        await emitter.process_message({"message": payload | {"createdAt": None}})
        async with cl.Step(name="look", type="tool") as tool:
            tool.input = {"question": text}
            tool.output = answer
        message = cl.Message("")
        for word in answer.split():
            await message.stream_token(word + " ")
        message.elements = [cl.Text(name="source", content="of " + answer)]
        await message.send()
        await until_idle()
        return message


async def until_idle():
    """Wait for the tasks in which Chainlit stores."""
    for _ in range(3):  # a task may start another one
        others = asyncio.all_tasks() - {asyncio.current_task()}
        names = ("_create", "init_thread", "flush", "wrapper", "update_step", "create_")
        storing = [t for t in others if any(name in repr(t.get_coro()) for name in names)]
        await asyncio.gather(*storing)


@pytest.fixture
def use(monkeypatch, tmp_path):
    monkeypatch.setattr("chainlit.config.FILES_DIRECTORY", tmp_path)

    def use(layer):
        monkeypatch.setattr(chainlit.data, "_data_layer", layer)
        monkeypatch.setattr(chainlit.data, "_data_layer_initialized", True)
        return layer

    return use


async def test_a_chat_is_stored_and_resumes_in_another_process(dsn, use):
    async with asyncsvc.connect(dsn) as svc:
        layer = use(DataLayer(svc, **OWNER))
        user = await layer.create_user(cl.User("ann"))
        browser = Browser(user)
        thread_id = browser.session.thread_id
        init_ws_context(browser.session)
        await cl.Message("Welcome.").send()
        await until_idle()
        assert await layer.get_thread(thread_id) is None  # queued until the user's message
        message = await browser.ask("Where is it?", "In Vienna.")
        await layer.upsert_feedback(Feedback(forId=message.id, value=1))
        session = {"chat_settings": {"model": "m"}, "memory": ["a"]}
        await persist_user_session(thread_id, session)
    async with asyncsvc.connect(dsn) as svc:
        layer = use(DataLayer(svc, **OWNER))
        browser = Browser(await layer.get_user("ann"), thread_id)
        init_ws_context(browser.session)
        thread = await resume_thread(browser.session)
        kinds = [each["type"] for each in thread["steps"]]
        assert kinds == ["assistant_message", "user_message", "tool", "assistant_message"]
        texts = [each["output"] for each in thread["steps"]]
        assert texts == ["Welcome.", "Where is it?", "In Vienna.", "In Vienna. "]
        assert thread["steps"][-1]["feedback"]["value"] == 1
        (element,) = thread["elements"]
        assert (element["name"], element["forId"]) == ("source", message.id)
        assert (thread["name"], thread["userIdentifier"]) == ("Where is it?", "ann")
        assert browser.session.chat_settings == {"model": "m"}
        for each in thread["steps"]:
            if "message" in each["type"]:
                chat_context.add(cl.Message.from_dict(each))
        browser.session.has_first_interaction = True
        await browser.ask("And now?", "At your door.")
        row = await svc.conversations.get_by_id(thread_id, **AT)
        assert (row.round, row.last_seq, row.user_id) == (2, 7, "ann")
        assert (await listed(layer))[1] == [thread_id]


async def test_32_chats_at_once_keep_their_own_steps(dsn, use):
    async with asyncsvc.connect(dsn, max_size=16) as svc:
        layer = use(DataLayer(svc, **OWNER))
        user = await layer.create_user(cl.User("ann"))
        browsers = [Browser(user) for _ in range(32)]

        async def chat(number):
            for turn in range(2):
                await browsers[number].ask(f"question {turn}", f"answer {number}.{turn}")
                browsers[number].session.has_first_interaction = True

        await asyncio.gather(*(asyncio.create_task(chat(n)) for n in range(32)))
        await until_idle()
        for number, browser in enumerate(browsers):
            steps = await steps_of(layer, browser.session.thread_id)
            texts = [each["output"].strip() for each in steps]
            answers = [[f"question {n}"] + 2 * [f"answer {number}.{n}"] for n in range(2)]
            assert texts == answers[0] + answers[1]
