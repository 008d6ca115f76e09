"""Conversations that PostgreSQL cannot return as one text: reads, exports and imports in parts."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from asyncsvc import ImportReport
from asyncsvc.database import parse_value
from asyncsvc.repositories import large_rows
from asyncsvc.services import transfer
from tests.support.command_line import run_and_measure

COUNT = 60


@pytest.fixture
def small_limits(monkeypatch):
    monkeypatch.setattr(transfer, "_MAX_BYTES", 300)


def record(id: str, count: int) -> dict[str, object]:
    messages = [
        {
            "role": "user", "content": f"text {at} " + "é" * (at % 7 * 9),
            "payload": {"at": at, "x": "y" * (at % 5 * 11)}, "reference": [at], "seq": 2 * at + 1,
        }
        for at in range(count)
    ]  # fmt: skip
    return {
        "id": id,
        "dialog_id": "d",
        "messages": messages,
        "tokens": 7,
        "last_seq": 2 * count + 3,
    }


RECORDS = [record("a", 2), record("b", COUNT), record("c", 5), record("d", 0)]


async def exported(svc, **options):
    return [each async for each in svc.conversations.export(tenant_id="t", **options)]


async def test_whole_reads_have_every_message(svc, small_limits):
    await svc.conversations.import_(RECORDS, tenant_id="t")
    page = await svc.conversations.get_list(
        tenant_id="t", include_messages=True, orderby="name", desc=False
    )
    by_ids = await svc.conversations.get_by_ids(list("abcd"), tenant_id="t", include_messages=True)
    whole = await exported(svc)
    assert [each.id for each in whole] == list("abcd")
    assert whole == by_ids == sorted(page.items, key=lambda each: each.id)
    for conversation, expected in zip(whole, RECORDS, strict=True):
        assert [each.content for each in conversation.messages] == [
            each["content"] for each in expected["messages"]
        ]
        assert [each.seq for each in conversation.messages] == [
            each["seq"] for each in expected["messages"]
        ]


async def test_the_parts_of_an_export_join_to_equal_conversations(svc, small_limits):
    await svc.conversations.import_(RECORDS, tenant_id="t")
    await svc.conversations.set_feedback("b", 101, 1, tenant_id="t")
    parts = await exported(svc, split=True)
    of_b = [each for each in parts if each.id == "b"]
    assert len(of_b) > 10
    assert [message.seq for each in of_b for message in each.messages] == [
        2 * at + 1 for at in range(COUNT)
    ]
    assert [each.last_seq for each in of_b[:-1]] == [each.messages[-1].seq for each in of_b[:-1]]
    await svc.conversations.import_(parts, tenant_id="copy", update=True)
    originals = await exported(svc)
    copies = [each async for each in svc.conversations.export(tenant_id="copy")]
    assert [each.model_copy(update={"tenant_id": "t"}) for each in copies] == originals
    again = await svc.conversations.import_(parts, tenant_id="copy", update=True)
    assert again == ImportReport(present=len(parts), older=again.older)


async def test_an_interrupted_import_of_parts_can_be_continued(svc, small_limits):
    await svc.conversations.import_(RECORDS, tenant_id="t")
    parts = [each for each in await exported(svc, split=True) if each.id == "b"]
    await svc.conversations.import_(parts[:5], tenant_id="copy", update=True)
    await svc.conversations.import_(parts, tenant_id="copy", update=True)
    copy = await svc.conversations.get_by_id("b", tenant_id="copy", include_messages=True)
    assert len(copy.messages) == COUNT


async def test_a_long_conversation_is_moved_in_little_memory(svc, dsn, tmp_path):
    turn = {"messages": [{"role": "user", "content": "a" * (2**20 - 1)}] * 10}
    await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
    for _ in range(16):
        await svc.conversations.append_message("a", turn, tenant_id="t")
    await svc.conversations.create(tenant_id="t", dialog_id="d", id="b")
    file = tmp_path / "out.jsonl.gz"
    for command in (
        ["export", "--tenant", "t", "-o", str(file)],
        ["import", str(file), "--tenant", "copy", "--json"],
    ):
        peak, done = await asyncio.to_thread(run_and_measure, [*command, "--dsn", dsn])
        assert (done.returncode, peak < 450) == (0, True), (
            command
        )  # a whole conversation of 160 MiB takes 1 GiB
    report = json.loads(done.stdout)
    assert (report["conversations"], report["messages"] + report["messages_appended"]) == (2, 160)


@pytest.fixture
def steps(monkeypatch):
    """The number of rows of each step of a read."""
    steps: list[int] = []

    def recorded(build: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
        def build_and_record(*arguments: Any, **columns: Any) -> list[Any]:
            steps.append(len(built := build(*arguments, **columns)))
            return built

        return build_and_record

    async def parse_and_record(text: str, column: str) -> Any:
        values = await parse_value(text, column)
        if isinstance(values, list):  # otherwise it is one long payload
            steps.append(len(values))
        return values

    for name in ("build_models_of_columns", "build_models"):
        monkeypatch.setattr(large_rows, name, recorded(getattr(large_rows, name)))
    monkeypatch.setattr(large_rows, "parse_value", parse_and_record)
    return steps


async def test_large_reads_are_built_in_steps(svc, steps):
    """The event loop runs between two steps. Texts may look like the separators of JSON."""
    odd = [', \n {"seq":1}', "}, \n {", '"\\', "\n" * 50, "x" * 70_000]
    messages = [
        {"role": "user", "content": odd[number % 5], "payload": {"n": [odd[number % 5]] * 3}}
        for number in range(100)
    ]
    conversation = {"id": "a", "dialog_id": "d", "messages": messages}
    await svc.conversations.import_([conversation], tenant_id="t")
    steps.clear()
    read = {"tenant_id": "t", "include_messages": True}
    whole = await svc.conversations.get_by_id("a", **read)
    assert [(each.content, each.payload["n"]) for each in whole.messages] == [
        (message["content"], message["payload"]["n"]) for message in messages
    ]
    assert (await svc.conversations.get_list(**read)).items == [whole]
    assert [each async for each in svc.conversations.export(tenant_id="t")] == [whole]
    assert await svc.conversations.messages("a", tenant_id="t") == list(whole.messages)
    payloads = await svc.conversations.payloads("a", tenant_id="t")
    assert payloads == [each.payload for each in whole.messages]
    # A step ends with a message of over 64 KiB. Each of 3 reads of the whole conversation also
    # ends one with the message 63, and the list builds the conversation alone.
    assert sorted(steps) == [1, *[2] * 3, *[3] * 3, *[5] * 97]


async def test_a_page_of_large_states_is_built_in_steps(svc, steps):
    for number in range(10):
        await svc.conversations.create(
            tenant_id="t", dialog_id="d", id=str(number), dsl=["x" * 70_000]
        )
    steps.clear()
    _, items = await svc.conversations.get_list(tenant_id="t")
    assert await svc.conversations.get_by_ids([each.id for each in items], tenant_id="t") == items
    assert steps == [1] * 20


async def test_small_reads_are_built_in_one_step(svc, monkeypatch):
    await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
    turn = {"messages": [{"role": "user", "content": "hi"}] * 3}
    await svc.conversations.append_message("a", turn, tenant_id="t")
    whole = await svc.conversations.get_by_id("a", tenant_id="t", include_messages=True)
    monkeypatch.setattr(large_rows, "in_turns", None)
    assert await svc.conversations.messages("a", tenant_id="t") == list(whole.messages)
