"""Tests of RAGFlow's names and shapes, by the calls of RAGFlow and against its ORM."""

import asyncio
import functools
import json
import operator
import random
import urllib.parse
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import peewee
import pytest

import asyncsvc
from asyncsvc import AsyncSvc, Settings, ragflow
from asyncsvc.errors import (
    AlreadyExists,
    InvalidInput,
    InvalidToken,
    Unavailable,
)
from asyncsvc.ragflow import row_state
from asyncsvc.repositories import ConversationRepository, SessionRepository
from benchmarks.contenders import ragflow_models
from tests.support.ragflow_rows import (
    AGENT,
    BETA,
    KEYS,
    OTHER,
    SECRET,
    SHANGHAI,
    TENANT,
    exchange,
    prologue,
    quoted,
)

# ---------------------------------------------------------------- calls of RAGFlow


async def test_a_session_of_an_agent_is_created_continued_and_read(sessions):
    assert await sessions.save(**prologue()) == 1
    exists, session = await sessions.get_by_id("s1")
    assert exists
    for number in (1, 2):
        session.message += exchange(f"m{number}", f"question {number}")
        session.reference.append(quoted(number))
        session.dsl = {"graph": {"nodes": [number]}}
        session.errors = None
        assert await sessions.append_message(session.id, session.to_dict()) == 1
    total, (row,) = await sessions.get_list(AGENT, TENANT, 1, 30, "update_time", True)
    assert total == 1
    assert row.keys() == KEYS
    assert row["message"] == prologue()["message"] + exchange("m1", "question 1") + exchange(
        "m2", "question 2"
    )
    assert row["reference"] == [quoted(1), quoted(2)]
    assert row["dsl"] == {"graph": {"nodes": [2]}}
    assert (row["round"], row["source"], row["version_title"]) == (2, "agent", "v1")
    now = datetime.now(UTC)
    assert abs(row["create_time"] - now.timestamp() * 1_000) < 60_000
    assert row["create_date"] == datetime.fromtimestamp(
        row["create_time"] // 1_000, SHANGHAI
    ).replace(tzinfo=None)
    assert row["update_time"] >= row["create_time"]
    assert row["update_date"].tzinfo is None


async def test_get_list_has_ragflows_positional_arguments(sessions):
    await sessions.save(**prologue())
    await sessions.save(**prologue(id="s2", user_id="u2", exp_user_id="e2"))
    total, rows = await sessions.get_list(
        AGENT,
        TENANT,
        0,
        30,
        "update_time",
        True,
        None,
        "u2",
        False,
        None,
        "",
        None,
        exp_user_id="e2",
    )
    assert (total, [row["id"] for row in rows]) == (1, ["s2"])
    assert rows[0].keys() == KEYS - {"dsl"}
    del rows[0]["reference"]  # RAGFlow's routes do this


async def test_unset_columns_have_ragflows_empty_values(sessions):
    await sessions.save(id="empty", dialog_id=AGENT, user_id="")
    _, session = await sessions.get_by_id("empty")
    assert (session.message, session.reference, session.dsl) == ([], [], {})
    assert (session.name, session.errors, session.tokens, session.round) == (None, None, 0, 0)


async def test_saved_messages_and_references_are_returned_unchanged(sessions):
    message = [
        {"role": "assistant", "content": "prologue"},
        {"role": "user", "content": None, "files": [{"name": "a.pdf"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "parts"}], "prompt": "…"},
        {"role": "user", "content": "good", "doc_ids": ["d"]},
        {"role": "assistant", "content": "fine", "thumbup": True},
        {"role": "user", "content": "bad"},
        {"role": "assistant", "content": "oh", "thumbup": False, "feedback": "wrong"},
    ]
    await sessions.save(**prologue(message=message, reference=[quoted(1), {}, quoted(3)]))
    _, session = await sessions.get_by_id("s1")
    assert session.message == message
    assert session.reference == [quoted(1), {}, quoted(3)]
    assert session.thumb_up == 1


async def test_a_row_of_get_by_id_is_that_of_a_list(svc, sessions):
    """`get_by_id` reads the columns of messages in parts of 64, a list their JSON."""
    messages: list[dict[str, Any]] = [
        {"role": role, "content": f"{role} {n}", "payload": {"id": f"m{n}", "n": [n]}}
        for n in range(600)
        for role in ("user", "assistant")
    ]
    messages[601] |= {"thumb": -1}
    messages[1_101] |= {"reference": quoted(1), "thumb": 1}
    messages[7]["payload"] = {"content": {"not": "text"}}
    record = {"id": "s1", "dialog_id": AGENT, "dsl": {"a": 1.5}, "messages": messages}
    await svc.conversations.import_([record], tenant_id=TENANT)
    await sessions.save(**prologue(id="s2"))
    await svc.conversations.create(tenant_id=TENANT, dialog_id=AGENT, id="s3")
    _, listed = await sessions.get_list(AGENT, TENANT, 1, 9, "create_time", False)
    records = await sessions.get_by_ids(["s1", "s2", "none", "s3"])
    assert [record.to_dict() for record in records] == sorted(listed, key=lambda row: row["id"])
    assert (len(records[0].message), len(records[0].reference)) == (1_200, 600)
    assert records[0].message[7]["content"] == {"not": "text"}


async def test_a_prologue_may_have_a_reference(sessions):
    await sessions.save(**prologue(reference=[{}]))
    _, session = await sessions.get_by_id("s1")
    assert session.reference == [{}]
    session.message += exchange("m1", "what")
    session.reference.append(quoted(1))
    await sessions.append_message("s1", session.to_dict())
    _, session = await sessions.get_by_id("s1")
    assert session.reference == [{}, quoted(1)]


async def test_an_answer_without_a_reference_does_not_shift_later_references(svc, sessions):
    await sessions.save(**prologue())
    for number, reference in ((1, None), (2, quoted(2))):
        await svc.conversations.append_message(
            "s1",
            {
                "messages": [
                    {"role": "user", "content": f"{number}?"},
                    {"role": "assistant", "content": f"{number}!", "reference": reference},
                ]
            },
            tenant_id=TENANT,
        )
    _, session = await sessions.get_by_id("s1")
    assert session.reference == [{"chunks": [], "doc_aggs": []}, quoted(2)]


# ---------------------------------------------------------------- appends


async def test_concurrent_appends_keep_all_turns(sessions):
    await sessions.save(**prologue())

    async def turn(number: int) -> int:
        _, session = await sessions.get_by_id("s1")
        session.message += exchange(f"m{number}", f"question {number}")
        session.reference.append(quoted(number))
        return await sessions.append_message("s1", session.to_dict())

    assert await asyncio.gather(*(turn(number) for number in range(32))) == [1] * 32
    _, session = await sessions.get_by_id("s1")
    texts = [message["content"] for message in session.message]
    assert sorted(texts) == sorted(
        ["Hello"] + [f"{re}question {n}" for n in range(32) for re in ("", "re: ")]
    )
    assert session.round == 32
    answers = [text for text in texts if text.startswith("re: ")]
    for answer, reference in zip(answers, session.reference, strict=True):
        assert reference == quoted(int(answer.split()[-1]))


async def test_a_repeated_append_adds_nothing(sessions):
    await sessions.save(**prologue())
    _, session = await sessions.get_by_id("s1")
    session.message += exchange("m1", "once")
    for _ in range(3):
        assert await sessions.append_message("s1", session.to_dict()) == 1
    _, session = await sessions.get_by_id("s1")
    assert (len(session.message), session.round) == (3, 1)


async def test_an_append_with_a_stale_row_stores_no_message_twice(sessions):
    await sessions.save(**prologue())
    mine, yours = [(await sessions.get_by_id("s1"))[1] for _ in range(2)]
    yours.message += exchange("y", "yours")
    await sessions.append_message("s1", yours.to_dict())
    for number in (1, 2):
        mine.message += exchange(f"m{number}", f"mine {number}")
        await sessions.append_message("s1", mine.to_dict())
    _, session = await sessions.get_by_id("s1")
    assert [message["content"] for message in session.message] == [
        "Hello", "yours", "re: yours", "mine 1", "re: mine 1", "mine 2", "re: mine 2",
    ]  # fmt: skip
    assert session.round == 3


async def test_an_append_keeps_columns_that_another_caller_set(sessions):
    await sessions.save(**prologue())
    _, stale = await sessions.get_by_id("s1")
    await sessions.update_by_id("s1", {"name": "renamed", "source": "workflow"})
    stale.message += exchange("m1", "?")
    await sessions.append_message("s1", stale.to_dict())
    _, session = await sessions.get_by_id("s1")
    assert (session.name, session.source) == ("renamed", "workflow")


async def test_an_append_counts_tokens_and_duration_and_sets_the_update_time(sessions):
    await sessions.save(**prologue())
    _, session = await sessions.get_by_id("s1")
    row = session.to_dict() | {"tokens": 70, "duration": 1.5, "update_time": 0}
    row["message"] = row["message"] + exchange("m1", "?")
    await sessions.append_message("s1", row)
    assert row["update_time"] > session.update_time - 60_000
    assert row["update_date"].tzinfo is None
    _, session = await sessions.get_by_id("s1")
    assert (session.tokens, session.duration) == (70, 1.5)


async def test_an_append_to_a_missing_conversation_returns_0(sessions):
    assert await sessions.append_message("none", prologue()) == 0


async def test_an_append_without_a_message_sets_the_dsl_and_the_error(sessions):
    await sessions.save(**prologue())
    _, session = await sessions.get_by_id("s1")
    assert await sessions.append_message("s1", session.to_dict() | {"errors": "no model"}) == 1
    _, session = await sessions.get_by_id("s1")
    assert (session.errors, session.round) == ("no model", 0)


@pytest.fixture
async def recorded(dsn):
    """Services, and the names and numbers of rows of their statements."""
    read: list[tuple[str, int]] = []
    settings = Settings(on_query=lambda name, _, rows, __: read.append((name, rows)))
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        yield ragflow.API4ConversationService(svc, tenant_id=TENANT), read


async def long_session(svc) -> None:
    messages = [
        {"role": role, "content": f"{role} {n}", "payload": {"id": f"m{n}"}}
        for n in range(2_000)
        for role in ("user", "assistant")
    ]
    record = {"id": "long", "dialog_id": AGENT, "messages": messages}
    await svc.conversations.import_([record], tenant_id=TENANT)


async def test_an_append_to_a_row_of_get_by_id_reads_nothing(svc, recorded):
    sessions, read = recorded
    await long_session(svc)
    # The second time positions in the list differ from seq.
    for number in range(2):
        _, session = await sessions.get_by_id("long")
        for turn in range(2):
            session.message += exchange(f"new {number} {turn}", "new")
            read.clear()
            assert await sessions.append_message("long", session.to_dict()) == 1
            assert read == [("conversation/append_message", 1)]
        _, again = await sessions.get_by_id("long")
        assert again.message == session.message
        await svc.conversations.delete_message("long", 7, tenant_id=TENANT)
    assert len((await sessions.get_by_id("long"))[1].message) == 4_007


async def test_an_append_after_a_lost_race_reads_the_new_messages_alone(svc, recorded):
    sessions, read = recorded
    await long_session(svc)
    _, session = await sessions.get_by_id("long")
    _, other = await sessions.get_by_id("long")
    shared = exchange("shared", "of both")
    other.message += [*shared, *exchange("other", "of the other")]
    await sessions.append_message("long", other.to_dict())
    session.message += [*shared, *exchange("mine", "mine")]
    read.clear()
    assert await sessions.append_message("long", session.to_dict()) == 1
    assert [each for each in read if each[1]] == [
        ("session/lock", 1), ("message/get_list", 4), ("conversation/append_message", 1),
    ]  # fmt: skip
    session.message += [*exchange("other", "of the other"), *exchange("last", "last")]
    assert await sessions.append_message("long", session.to_dict()) == 1
    _, stored = await sessions.get_by_id("long")
    assert [message["id"] for message in stored.message[4_000:]] == [
        "shared", "shared", "other", "other", "mine", "mine", "last", "last",
    ]  # fmt: skip


@pytest.mark.parametrize("remembered", [1_000, 5])
async def test_callers_of_one_process_append_without_a_read(recorded, monkeypatch, remembered):
    monkeypatch.setattr(row_state, "_MAX_REMEMBERED", remembered)
    sessions, read = recorded
    await sessions.save(**prologue())
    rows = [(await sessions.get_by_id("s1"))[1] for _ in range(8)]
    shared = exchange("shared", "of all")
    for number, row in enumerate(rows):
        row.message += [*shared, *exchange(f"m{number}", str(number))]
    read.clear()
    assert await asyncio.gather(
        *(sessions.append_message("s1", row.to_dict()) for row in rows)
    ) == [1] * 8  # fmt: skip
    appends = [each for each in read if each[0] != "message/get_list"]
    assert appends == [("conversation/append_message", 1)] * 8
    assert (len(read) == 8) == (remembered == 1_000)
    _, session = await sessions.get_by_id("s1")
    assert len(session.message) == 1 + 2 + 2 * 8
    assert session.round == 8


async def test_an_edit_after_a_contended_append_keeps_the_turns_of_others(sessions):
    await sessions.save(**prologue(message=exchange("m0", "0")))
    rows = [(await sessions.get_by_id("s1"))[1] for _ in range(3)]
    for number, row in enumerate(rows):
        row.message += exchange(f"m{number + 1}", str(number + 1))
    await asyncio.gather(*(sessions.append_message("s1", row.to_dict()) for row in rows))
    for row in rows:
        assert await sessions.update_by_id("s1", row.to_dict()) == 1
    _, session = await sessions.get_by_id("s1")
    assert sorted(message["content"] for message in session.message) == sorted(
        f"{re}{number}" for number in range(4) for re in ("", "re: ")
    )


async def test_an_append_of_a_row_from_json_reads_only_the_last_messages(svc, recorded):
    sessions, read = recorded
    await long_session(svc)
    row = (await sessions.get_by_id("long"))[1].to_dict()
    row = row | {"message": [*row["message"], *exchange("new", "new")]}
    read.clear()
    assert await sessions.append_message("long", row) == 1
    assert [name for name, rows in read if rows] == [
        "session/lock", "message/get_list", "conversation/append_message",
    ]  # fmt: skip
    assert sum(rows for _, rows in read) < 30
    assert len((await sessions.get_by_id("long"))[1].message) == 4_002


async def test_a_row_of_a_transaction_that_rolled_back_is_stored(svc, sessions):
    await sessions.save(**prologue())
    _, session = await sessions.get_by_id("s1")
    with pytest.raises(ZeroDivisionError):
        async with svc.transaction() as tx:
            bound = ragflow.API4ConversationService(tx, tenant_id=TENANT)
            session.message += exchange("m1", "1")
            await bound.append_message("s1", session.to_dict())
            _, read = await bound.get_by_id("s1")
            raise ZeroDivisionError
    await svc.conversations.append_message(
        "s1", {"messages": [{"role": "user", "content": "2", "payload": {"id": "m2"}}]},
        tenant_id=TENANT,
    )  # fmt: skip
    for row in (session, read):
        assert await sessions.append_message("s1", row.to_dict()) == 1
    _, session = await sessions.get_by_id("s1")
    assert [message["content"] for message in session.message] == ["Hello", "2", "1", "re: 1"]


FIRST = exchange("m1", "one") + exchange("m2", "two")
SECOND = exchange("s1", "second one") + exchange("s2", "second two")


@pytest.mark.parametrize(
    "stored",
    [FIRST[:2], SECOND[:2], SECOND, SECOND + FIRST[2:]],
    ids=["the start of the row", "fewer messages", "as many messages", "more messages"],
)
@pytest.mark.parametrize(
    "new",
    [exchange("m3", "3"), [{**exchange("m3", "3")[0], "thumbup": True}], []],
    ids=["a turn", "a message with a thumb", "nothing"],
)
@pytest.mark.parametrize(
    "columns", [{"message", "update_time", "errors"}, {"message", "update_time"}]
)
async def test_a_row_of_a_session_that_was_stored_again_is_compared_with_it(
    sessions, stored, new, columns
):
    await sessions.save(**prologue(message=FIRST))
    _, session = await sessions.get_by_id("s1")
    await sessions.delete_by_id("s1")
    await sessions.save(**prologue(message=stored))
    session.message += new
    row = {name: value for name, value in session.to_dict().items() if name in columns}
    for _ in range(2):
        assert await sessions.append_message("s1", row) == 1
        _, again = await sessions.get_by_id("s1")
        assert again.message == stored + [each for each in FIRST + new if each not in stored]


async def test_rows_from_before_and_after_a_session_was_stored_again_are_both_stored(sessions):
    await sessions.save(**prologue(message=FIRST))
    _, first = await sessions.get_by_id("s1")
    await sessions.delete_by_id("s1")
    await sessions.save(**prologue(message=SECOND))
    _, second = await sessions.get_by_id("s1")
    first.message += exchange("m3", "three")
    second.message += exchange("s3", "second three")
    rows = [second.to_dict(), first.to_dict()]
    assert await asyncio.gather(*(sessions.append_message("s1", row) for row in rows)) == [1, 1]
    _, again = await sessions.get_by_id("s1")
    assert again.message == second.message + first.message


async def test_appends_succeed_although_others_keep_appending(svc, sessions):
    await sessions.save(**prologue())
    is_done = asyncio.Event()

    async def interfere() -> None:
        other = {"messages": [{"role": "user", "content": "me first"}]}
        while not is_done.is_set():
            await svc.conversations.append_message("s1", other, tenant_id=TENANT)

    others = [asyncio.create_task(interfere()) for _ in range(3)]
    _, session = await sessions.get_by_id("s1")
    for number in range(10):
        session.message += exchange(f"read {number}", "read")
        assert await sessions.append_message("s1", session.to_dict()) == 1
        row = prologue(message=exchange(f"built {number}", "built"))
        assert await sessions.append_message("s1", row) == 1
        assert await sessions.update_by_id("s1", session.to_dict()) == 1
    is_done.set()
    await asyncio.gather(*others)
    _, session = await sessions.get_by_id("s1")
    ids = [message["id"] for message in session.message if "id" in message]
    expected = [f"{kind} {number}" for number in range(10) for kind in ("read", "built")]
    assert sorted(ids) == sorted(expected * 2)
    assert session.round >= 20


@pytest.mark.parametrize("step", ["append", "lock after a lost race", "lock"])
async def test_an_append_to_a_conversation_that_is_deleted_meanwhile_returns_0(
    svc, sessions, monkeypatch, step
):
    await sessions.save(**prologue(message=exchange("m1", "1")))
    _, session = await sessions.get_by_id("s1")
    session.message += exchange("m2", "2")
    row = session.to_dict()
    if step == "lock after a lost race":
        other = {"messages": [{"role": "user", "content": "me first"}]}
        await svc.conversations.append_message("s1", other, tenant_id=TENANT)
    elif step == "lock":
        row = row | {"message": [*session.message]}
    service, name = (
        (ConversationRepository, "append_message")
        if step == "append"
        else (SessionRepository, "lock")
    )
    method = getattr(service, name)
    deleted = []

    async def delete_and_call(self, *arguments: Any, **options: Any):
        deleted.append(await svc.conversations.delete_by_id("s1", tenant_id=TENANT))
        return await method(self, *arguments, **options)

    monkeypatch.setattr(service, name, delete_and_call)
    assert await sessions.append_message("s1", row) == 0
    assert deleted[0] == 1


# ---------------------------------------------------------------- changes, deletions, queries


async def test_update_by_id_sets_columns(sessions):
    await sessions.save(**prologue())
    assert await sessions.update_by_id("s1", {"name": "n", "dsl": {"a": 1}, "update_time": 0}) == 1
    assert await sessions.update_by_id("none", {"name": "n"}) == 0
    _, session = await sessions.get_by_id("s1")
    assert (session.name, session.dsl) == ("n", {"a": 1})
    assert session.update_time > 0


async def test_update_by_id_accepts_a_whole_row(sessions):
    await sessions.save(**prologue())
    _, session = await sessions.get_by_id("s1")
    session.message += exchange("m1", "one") + exchange("m2", "two")
    session.reference += [quoted(1), quoted(2)]
    await sessions.append_message("s1", session.to_dict())
    _, session = await sessions.get_by_id("s1")
    session.message[3:] = exchange("m3", "three")
    session.reference = [quoted(9), quoted(3)]
    session.name = "edited"
    assert await sessions.update_by_id("s1", session.to_dict()) == 1
    _, session = await sessions.get_by_id("s1")
    assert session.message[1:] == exchange("m1", "one") + exchange("m3", "three")
    assert session.reference == [quoted(9), quoted(3)]
    assert (session.name, session.round) == ("edited", 1)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"round": 7}, "round"),
        ({"tokens": 7}, "tokens"),
        ({"folder_id": "x"}, "folder_id"),
        ({"message": {}, "reference": 1, "thumb_up": 3}, "thumb_up"),
        ({"message": "text"}, "message"),
        ({"message": [1]}, "message"),
    ],
)
async def test_update_by_id_rejects_columns_that_cannot_be_set(sessions, data, field):
    await sessions.save(**prologue())
    with pytest.raises(InvalidInput) as caught:
        await sessions.update_by_id("s1", data)
    assert caught.value.field == field
    _, session = await sessions.get_by_id("s1")
    assert session.to_dict()["message"] == prologue()["message"]


async def test_a_failed_save_stores_nothing(sessions):
    await sessions.save(**prologue())
    with pytest.raises(AlreadyExists):
        await sessions.save(**prologue(message=[]))
    with pytest.raises(InvalidInput, match="message"):
        await sessions.save(**prologue(id="s2", message=[{"role": "user", "content": "\0"}]))
    assert await sessions.get_by_id("s2") == (False, None)
    with pytest.raises(InvalidInput, match="create_time"):
        await sessions.save(**prologue(id="s2", create_time="yesterday"))
    with pytest.raises(InvalidInput, match="round"):
        await sessions.save(**prologue(id="s2", message=[], round=3))


async def test_save_keeps_the_creation_time_and_the_counters(sessions):
    await sessions.save(
        **prologue(create_time=1_600_000_000_123, tokens=5, duration=0.5, round=2, errors="e")
    )
    _, session = await sessions.get_by_id("s1")
    assert (session.create_time, session.tokens, session.duration) == (1_600_000_000_123, 5, 0.5)
    assert (session.round, session.errors) == (2, "e")
    assert str(session.create_date) == "2020-09-13 20:26:40"


async def test_insert_sets_the_id_and_the_current_time(sessions):
    await sessions.insert(dialog_id=AGENT, user_id="u", create_time=1)
    (session,) = await sessions.query(dialog_id=AGENT)
    assert len(session.id) == 32
    assert session.create_time > 1_600_000_000_000


async def test_queries_and_filters_match_the_right_conversations(sessions):
    for number in range(3):
        await sessions.save(**prologue(id=f"s{number}", user_id=f"u{number % 2}"))
    await sessions.save(**prologue(id="elsewhere", dialog_id="agent-2"))
    by_time = await sessions.query(dialog_id=AGENT, reverse=True, order_by="create_time")
    assert [each.id for each in by_time] == ["s2", "s1", "s0"]
    column = ragflow.API4Conversation
    by_column = await sessions.query(dialog_id=AGENT, user_id="u0", order_by=column.update_time)
    assert [each.id for each in by_column] == ["s0", "s2"]
    (only,) = await sessions.query(cols=["id"], id="s1", dialog_id=AGENT)
    assert only.to_dict() == {"id": "s1"}
    assert await sessions.query(id="s1", dialog_id="agent-2") == []
    assert [each.id for each in await sessions.get_by_ids(["s2", "none", "s0"])] == ["s2", "s0"]
    assert await sessions.get_names(AGENT, "nobody") == []
    assert await sessions.query() == []
    assert [each.id for each in await sessions.query(user_id="u1")] == ["s1", "elsewhere"]
    with pytest.raises(InvalidInput):
        await sessions.query(dialog_id=AGENT, status="1")

    update = {"name": "filed"}
    assert (
        await sessions.filter_update([column.dialog_id == AGENT, column.user_id == "u0"], update)
        == 2
    )
    assert [each.name for each in await sessions.query(dialog_id=AGENT)] == ["filed", "", "filed"]
    assert await sessions.filter_delete([column.id.in_(["s0", "s1"]), column.user_id == "u1"]) == 1
    assert await sessions.filter_delete([column.dialog_id.in_([AGENT, "agent-2"])]) == 3
    assert await sessions.filter_delete([column.create_time == 1]) == 0
    for filters in ([], [True], [ragflow.APIToken.token == "x"]):
        with pytest.raises(InvalidInput):
            await sessions.filter_delete(filters)


async def test_a_query_returns_all_pages_in_every_order(svc, sessions):
    await svc.conversations.import_(
        (
            {"id": f"{n:03}", "dialog_id": AGENT, "name": f"n{-n % 7}", "messages": []}
            for n in range(250)
        ),
        tenant_id=TENANT,
    )
    for order in ("create_time", "update_time", "name"):
        rows = await sessions.query(dialog_id=AGENT, order_by=order)
        assert sorted(each.id for each in rows) == [f"{n:03}" for n in range(250)], order


@pytest.mark.parametrize("count", [100, 200, 300])
async def test_queries_and_filters_read_all_pages_if_the_last_page_is_full(svc, sessions, count):
    ids = [f"{n:03}" for n in range(count)]
    rows = ({"id": id, "dialog_id": AGENT, "messages": []} for id in ids)
    await svc.conversations.import_(rows, tenant_id=TENANT)
    for order in ("create_time", "update_date", "name"):
        for reverse in (False, True):
            rows = await sessions.query(["id"], dialog_id=AGENT, order_by=order, reverse=reverse)
            assert sorted(each.id for each in rows) == ids, order
    filters = [ragflow.API4Conversation.dialog_id == AGENT]
    assert await sessions.filter_update(filters, {"name": "filed"}) == count
    assert await sessions.filter_delete(filters) == count


async def test_deletions_return_the_number_of_deleted_conversations(sessions):
    for number in range(4):
        await sessions.save(**prologue(id=f"s{number}", dialog_id=f"agent-{number // 2}"))
    assert await sessions.delete_by_id("s0") == 1
    assert await sessions.delete_by_id("s0") == 0
    assert await sessions.delete_by_ids(["s0", "s1"]) == 1
    assert await sessions.delete_by_dialog_ids(["agent-0", "agent-1"]) == 2


async def test_update_many_by_id_is_one_transaction(sessions):
    for number in range(2):
        await sessions.save(**prologue(id=f"s{number}"))
    await sessions.update_many_by_id([{"id": f"s{n}", "name": f"n{n}"} for n in range(2)])
    assert [each.name for each in await sessions.get_by_ids(["s0", "s1"])] == ["n0", "n1"]
    with pytest.raises(InvalidInput):
        await sessions.update_many_by_id([{"id": "s0", "name": "x"}, {"id": "s1", "round": 9}])
    assert (await sessions.get_by_id("s0"))[1].name == "n0"


# ---------------------------------------------------------------- invalid arguments


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def text(content: object) -> dict[str, Any]:
    return {"message": [{"role": "user", "content": content}]}


COLUMN = ragflow.API4Conversation
LONG = "x" * 200 + "\ud800"
BAD_CALLS = {
    "tokens as text": lambda s: s.append_message("s1", {**text("q"), "tokens": "7"}),
    "duration as text": lambda s: s.append_message("s1", {**text("q"), "duration": "x"}),
    "duration NaN": lambda s: s.append_message("s1", {**text("q"), "duration": float("nan")}),
    "duration infinite": lambda s: s.append_message("s1", {**text("q"), "duration": float("inf")}),
    "tokens huge": lambda s: s.append_message("s1", {**text("q"), "tokens": 10**400}),
    "no JSON": lambda s: s.append_message("s1", text(object())),
    "no JSON, saved": lambda s: s.save(**prologue(id="s2", **text(object()))),
    "deep": lambda s: s.append_message("s1", text(deep(100_000))),
    "deep payload": lambda s: s.update_by_id("s1", {"message": [{"x": deep(100_000)}]}),
    "append None": lambda s: s.append_message("s1", None),
    "update None": lambda s: s.update_by_id("s1", None),
    "update unknown columns": lambda s: s.update_by_id("s1", {5: 1, "x": 2}),
    "update without id": lambda s: s.update_many_by_id([{"name": "n"}]),
    "update many with None": lambda s: s.update_many_by_id([None]),
    "update many of None": lambda s: s.update_many_by_id(None),
    "save user 5": lambda s: s.save(**prologue(id="s2", user_id=5)),
    "save a long user": lambda s: s.save(**prologue(id="s2", exp_user_id=LONG)),
    "delete by filter None": lambda s: s.filter_delete(None),
    "update by filter None": lambda s: s.filter_update(None, {"name": "n"}),
    "update by filter with None": lambda s: s.filter_update([COLUMN.dialog_id == AGENT], None),
    "update object": lambda s: s.update_by_id("s1", {"reference": {"chunks": [1]}}),
    "save object": lambda s: s.save(**prologue(id="s2", reference={"chunks": [1]})),
    "append object": lambda s: s.append_message("s1", text("q") | {"reference": {"chunks": [1]}}),
    "create_date": lambda s: s.save(**prologue(id="s2", create_date="yesterday")),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_CALLS)
async def test_invalid_arguments_raise_invalid_input_and_change_nothing(sessions, name):
    await sessions.save(**prologue())
    before = (await sessions.get_by_id("s1"))[1].to_dict()
    with pytest.raises(InvalidInput):
        await BAD_CALLS[name](sessions)
    assert (await sessions.get_by_id("s1"))[1].to_dict() == before
    assert await sessions.get_by_id("s2") == (False, None)


def test_values_and_zones_that_are_not_text_raise_invalid_input():
    for values in (None, 5, [5], "text"):
        with pytest.raises(InvalidInput):
            ragflow.API4Conversation.user_id.in_(values)
    with pytest.raises(InvalidInput, match="tz"):
        ragflow.API4ConversationService(None, tenant_id=TENANT, tz=5)


async def test_a_whole_row_with_an_old_reference_object_is_accepted(svc, sessions):
    old = {"chunks": [1]}
    row = {"id": "s1", "dialog_id": AGENT, "messages": []}
    kept = {"metadata": {"ragflow": {"reference": old}}}
    await svc.conversations.import_([row | kept], tenant_id=TENANT)
    _, session = await sessions.get_by_id("s1")
    assert session.reference == old
    session.message += exchange("m", "?")
    assert await sessions.append_message("s1", session.to_dict()) == 1
    assert await sessions.update_by_id("s1", session.to_dict() | {"round": 1}) == 1
    assert (await sessions.get_by_id("s1"))[1].reference == old


async def test_save_uses_the_local_date_without_milliseconds(sessions):
    text = "2020-09-13 20:26:40"
    for id, date in (("s1", datetime.fromisoformat(text)), ("s2", text)):
        await sessions.save(**prologue(id=id, create_date=date))
        _, session = await sessions.get_by_id(id)
        assert session.create_time == 1_600_000_000_000


# ---------------------------------------------------------------- tenants and failures


async def test_another_tenant_sees_and_changes_nothing(svc, sessions):
    await sessions.save(**prologue())
    others = ragflow.API4ConversationService(svc, tenant_id=OTHER)
    assert await others.get_by_id("s1") == (False, None)
    assert await others.append_message("s1", prologue()) == 0
    assert await others.update_by_id("s1", {"name": "mine"}) == 0
    assert await others.update_by_id("s1", {"message": []}) == 0
    assert await others.delete_by_dialog_ids([AGENT]) == 0
    assert await others.query(dialog_id=AGENT) == []
    for call in (
        others.get_list(AGENT, TENANT, 1, 30, "create_time", True),
        others.stats(TENANT, "2026-01-01", "2026-01-02"),
    ):
        with pytest.raises(InvalidInput, match="tenant_id"):
            await call
    assert (await sessions.get_by_id("s1"))[1].name == ""


async def test_a_lost_database_raises_unavailable(dsn):
    pool = await asyncpg.create_pool(dsn, min_size=1)
    sessions = ragflow.API4ConversationService(AsyncSvc(pool), tenant_id=TENANT)
    await pool.close()
    with pytest.raises(Unavailable):
        await sessions.get_by_id("s1")


async def test_an_unknown_order_or_zone_is_rejected(svc, sessions):
    with pytest.raises(InvalidInput, match="orderby"):
        await sessions.get_list(AGENT, TENANT, 1, 30, "message", True)
    with pytest.raises(InvalidInput, match="tz"):
        ragflow.API4ConversationService(svc, tenant_id=TENANT, tz="Mars/Base")


async def test_calls_run_in_the_transaction_of_the_caller(svc, dsn):
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            bound = ragflow.API4ConversationService(svc.on(connection), tenant_id=TENANT)
            await bound.save(**prologue())
            await bound.append_message("s1", prologue(message=exchange("m", "q")))
            assert (await bound.get_by_id("s1"))[0]
        raise AssertionError
    except AssertionError:
        pass
    finally:
        await connection.close()
    free = ragflow.API4ConversationService(svc, tenant_id=TENANT)
    assert len((await free.get_by_id("s1"))[1].message) == 3


# ---------------------------------------------------------------- comparison with RAGFlow's ORM


class Peewee:
    """The queries of RAGFlow's `get_list`, `get_names` and `stats`, with its ORM."""

    def __init__(self, dsn: str) -> None:
        parts = urllib.parse.urlsplit(dsn)
        self.database = peewee.PostgresqlDatabase(
            parts.path[1:],
            host=parts.hostname,
            port=parts.port,
            user=parts.username,
            password=urllib.parse.unquote(parts.password or ""),
        )
        _, _, self.dialog, self.table = ragflow_models.on(self.database)
        self.database.execute_sql("CREATE SCHEMA ragflow")
        self.database.create_tables([self.dialog, self.table])

    def get_list(self, dialog_id: str, page: int, size: int, orderby: str, desc: bool, **filters):
        table, query = self.table, self.table.select().where(self.table.dialog_id == dialog_id)
        for name in ("id", "user_id", "exp_user_id"):
            if filters.get(name):
                query = query.where(getattr(table, name) == filters[name])
        if word := filters.get("keywords"):
            columns = (table.id, table.name, table.message)
            parts = [peewee.fn.LOWER(column).contains(word.lower()) for column in columns]
            escaped = json.dumps(word.lower())[1:-1]  # as the messages are stored
            parts.append(peewee.fn.LOWER(table.message).contains(escaped))
            query = query.where(functools.reduce(operator.or_, parts))
        date = table.update_date if orderby.startswith("update_") else table.create_date
        if filters.get("from_date"):
            query = query.where(date >= bound(filters["from_date"], "00:00:00"))
        if filters.get("to_date"):
            query = query.where(date <= bound(filters["to_date"], "23:59:59"))
        column = getattr(table, orderby)
        ordered = query.order_by(column.desc() if desc else column.asc())
        return query.count(), list(ordered.paginate(page, size).dicts())

    def get_names(self, dialog_id: str, exp_user_id: str):
        table = self.table
        query = table.select(table.id, table.name).where(
            table.dialog_id == dialog_id, table.exp_user_id == exp_user_id
        )
        return list(query.order_by(table.create_date.desc()).dicts())

    def stats(self, tenant_id: str, from_date: str, to_date: str, source: str | None):
        table, dialog, fn = self.table, self.dialog, peewee.fn
        day = table.create_date.truncate("day")
        query = table.select(
            day.alias("dt"),
            fn.COUNT(table.id).alias("pv"),
            fn.COUNT(table.user_id.distinct()).alias("uv"),
            fn.SUM(table.tokens).alias("tokens"),
            fn.SUM(table.duration).alias("duration"),
            fn.AVG(table.round).alias("round"),
            fn.SUM(table.thumb_up).alias("thumb_up"),
        )
        of_tenant = (table.dialog_id == dialog.id) & (dialog.tenant_id == tenant_id)
        query = query.join(dialog, on=of_tenant).where(
            table.create_date >= from_date,
            table.create_date <= bound(to_date, "23:59:59"),
            table.source == source,
        )
        return list(query.group_by(day).dicts())


def bound(date: str, time: str) -> str:
    if "T" in date:
        moment = datetime.fromisoformat(date).astimezone(SHANGHAI)
        return moment.strftime("%Y-%m-%d %H:%M:%S")
    return f"{date} {time}" if len(date) == 10 else date


WORDS = ["parcel", "Straße", "REFUND", "50%", "a_b", "c:\\d", "退款", "it's"]


def rows_of_ragflow(seed: int) -> Iterator[dict[str, Any]]:
    """Yield rows as RAGFlow writes them; each is created and updated in another second."""
    chance = random.Random(seed)
    begin = datetime(2026, 3, 1, tzinfo=UTC)
    seconds = chance.sample(range(6 * 86_400), 60)
    for number, second in enumerate(seconds):
        created = begin + timedelta(seconds=second)
        updated = created + timedelta(hours=chance.randrange(72), seconds=number)
        turns = [
            message
            for turn in range(chance.randrange(4))
            for message in exchange(f"m{turn}", f"{chance.choice(WORDS)} {chance.choice(WORDS)}")
        ]
        yield {
            "id": f"{seed:02}{number:04}",
            "name": chance.choice([*WORDS, "", None]),
            "dialog_id": chance.choice(["d1", "d1", "d2"]),
            "user_id": chance.choice(["u1", "u2", "u3"]),
            "exp_user_id": chance.choice(["e1", "e2", None]),
            "message": turns,
            "reference": [quoted(n) for n in range(len(turns) // 2)],
            "tokens": 0 if not turns else chance.randrange(1_000),
            "source": chance.choice(["agent", None]),
            "dsl": chance.choice([{}, {"graph": {"a": 1}}]),
            "duration": 0.0 if not turns else chance.randrange(1_000) / 8,
            "round": len(turns) // 2,
            "thumb_up": 0,
            "errors": chance.choice([None, "failed"]),
            "version_title": chance.choice([None, "v1"]),
            "create_time": int(created.timestamp() * 1_000),
            "create_date": created.astimezone(SHANGHAI).replace(tzinfo=None),
            "update_time": int(updated.timestamp() * 1_000),
            "update_date": updated.astimezone(SHANGHAI).replace(tzinfo=None),
        }


def record(row: dict[str, Any]) -> dict[str, Any]:
    messages = [ragflow.messages.split(message) for message in row["message"]]
    ragflow.messages.attach_references(messages, row["reference"])
    kept = ("id", "name", "dialog_id", "user_id", "exp_user_id", "source", "tokens", "duration",
            "round", "errors", "version_title")  # fmt: skip
    return {name: row[name] for name in kept} | {
        "dsl": row["dsl"] or None,
        "messages": messages,
        "created_at": datetime.fromtimestamp(row["create_time"] / 1_000, UTC),
        "updated_at": datetime.fromtimestamp(row["update_time"] / 1_000, UTC),
    }


@pytest.mark.parametrize("seed", range(3))
async def test_lists_names_and_stats_answer_as_ragflow_does(svc, dsn, sessions, seed):
    oracle, chance = Peewee(dsn), random.Random(seed)
    rows = list(rows_of_ragflow(seed))
    oracle.dialog.insert_many([{"id": id, "tenant_id": TENANT} for id in ("d1", "d2")]).execute()
    oracle.table.insert_many(rows).execute()
    await svc.conversations.import_([record(row) for row in rows], tenant_id=TENANT)
    try:
        compared = 0
        for _ in range(120):
            filters = {
                "id": chance.choice([None, None, None, rows[0]["id"]]),
                "user_id": chance.choice([None, "", "u1", "u9"]),
                "exp_user_id": chance.choice([None, None, "e1"]),
                "keywords": chance.choice(["", None, *WORDS, "e: p", rows[1]["id"][:4]]),
                "from_date": chance.choice([None, "", "2026-03-02", "2026-03-03 12:00:00",
                                            "2026-03-02T20:00:00Z"]),
                "to_date": chance.choice([None, "2026-03-05", "2026-03-06 09:30:00",
                                          "2026-03-05T01:02:03+02:00"]),
            }  # fmt: skip
            page = chance.choice([1, 1, 2]), chance.choice([3, 10, 30])
            order = (
                chance.choice(["create_time", "create_date", "update_time"]),
                chance.random() < 0.5,
            )
            dialog_id = chance.choice(["d1", "d2", "d3"])
            expected = oracle.get_list(dialog_id, *page, *order, **filters)
            answered = await sessions.get_list(dialog_id, TENANT, *page, *order, **filters)
            assert answered == expected, (dialog_id, page, order, filters)
            compared += len(expected[1])
        assert compared > 100
        for exp_user_id in ("e1", "e2", "e3"):
            names = oracle.get_names("d1", exp_user_id)
            assert await sessions.get_names("d1", exp_user_id) == names
        for source in (None, "agent"):
            for since, until in (
                ("2026-03-01", "2026-03-09"),
                ("2026-03-02 00:00:00", "2026-03-04 08:00:00"),
                ("2026-01-01", "2026-01-02"),
            ):
                days = sorted(oracle.stats(TENANT, since, until, source), key=lambda day: day["dt"])
                assert await sessions.stats(TENANT, since, until, source) == [
                    day | {"round": pytest.approx(float(day["round"]))} for day in days
                ]
    finally:
        oracle.database.execute_sql("DROP SCHEMA ragflow CASCADE")
        oracle.database.close()


async def test_a_row_can_be_sent_as_json(sessions):
    await sessions.save(**prologue())
    _, (row,) = await sessions.get_list(AGENT, TENANT, 1, 1, "create_date", False)
    assert json.loads(json.dumps(row, default=str))["create_date"] == str(row["create_date"])


# ---------------------------------------------------------------- tokens


async def test_a_token_is_stored_found_and_removed(tokens):
    row = {
        "tenant_id": TENANT,
        "token": SECRET,
        "beta": BETA,
        "create_time": 1,
        "update_time": None,
    }
    assert await tokens.save(**row) == 1
    with pytest.raises(AlreadyExists):
        await tokens.save(**row)
    (row,) = await tokens.query(token=SECRET)
    (listed,) = await tokens.query(tenant_id=TENANT)
    assert row.token == listed.token
    assert SECRET not in str(listed)
    assert listed.hint == SECRET[: len(listed.hint)]
    assert listed.beta == BETA[: len(listed.beta)]
    assert listed.update_time is None
    assert await tokens.query(token=BETA) == []
    assert len(await tokens.query(beta=BETA)) == 1
    assert await tokens.used(SECRET) == 1
    assert await tokens.used("ragflow-" + "x" * 32) == 0
    assert (await tokens.get_all())[0].update_time is not None

    column = ragflow.APIToken
    assert await tokens.filter_delete([column.tenant_id == TENANT, column.token == SECRET]) == 1
    assert await tokens.query(token=SECRET) == []
    assert await tokens.filter_delete([column.token == SECRET]) == 0
    assert await tokens.delete_by_tenant_id(TENANT) == 2


async def test_a_missing_beta_is_created_only_once(tokens):
    """RAGFlow's route creates a missing beta and writes the whole row back."""
    await tokens.save(token=SECRET)
    column = ragflow.APIToken
    for _ in range(2):
        rows = [each.to_dict() for each in await tokens.query(tenant_id=TENANT)]
        for row in rows:
            if not row["beta"]:
                row["beta"] = BETA
            filters = [column.tenant_id == TENANT, column.token == row["token"]]
            assert await tokens.filter_update(filters, row) == 1
    assert len(await tokens.query(beta=BETA)) == 1
    assert await tokens.delete_by_tenant_id(TENANT) == 2


async def test_a_beta_is_replaced_and_revoked_with_its_row(tokens):
    other = SECRET[:-1] + "2"
    await tokens.save(token=SECRET, beta=BETA, dialog_id="d1")
    await tokens.save(token=other, beta=BETA[:-1] + "3")
    column = ragflow.APIToken
    newer = "N" + BETA[1:]
    assert await tokens.filter_update([column.token == SECRET], {"beta": newer}) == 1
    assert await tokens.query(beta=BETA) == []
    assert [each.dialog_id for each in await tokens.query(beta=newer)] == ["d1"]
    shown = {each.hint: each.beta for each in await tokens.query(dialog_id="d1")}
    assert shown == {SECRET[:12]: newer[: len(BETA)][:4]}
    with pytest.raises(AlreadyExists):  # the other row has this beta
        await tokens.filter_update([column.token == SECRET], {"beta": BETA[:-1] + "3"})
    assert len(await tokens.query(beta=newer)) == 1

    assert await tokens.filter_delete([column.token == SECRET]) == 1
    assert await tokens.query(beta=newer) == []
    assert len(await tokens.query(beta=BETA[:-1] + "3")) == 1
    assert len(await tokens.query(token=other)) == 1


async def test_a_filter_by_dialog_returns_the_tokens_of_the_dialog(tokens):
    await tokens.save(token=SECRET, dialog_id="d1", source="dialog")
    await tokens.save(token=SECRET[:-1] + "2", dialog_id="d2")
    (row,) = await tokens.query(dialog_id="d1")
    assert (row.dialog_id, row.source) == ("d1", "dialog")
    column = ragflow.APIToken
    assert await tokens.filter_update([column.token == SECRET], {"dialog_id": "d2"}) == 1
    assert await tokens.query(dialog_id="d1") == []
    assert await tokens.filter_delete([column.dialog_id == "d2"]) == 2


async def test_similar_rows_do_not_share_their_betas(tokens):
    """Two rows of one second may have equal times and hints."""
    secrets = [SECRET[:-1] + n for n in "123"]
    betas = [n + BETA[1:] for n in "123"]
    for secret, beta in zip(secrets, betas, strict=True):
        await tokens.save(token=secret, beta=beta, create_time=1)
    column = ragflow.APIToken
    assert {row.beta for row in await tokens.get_all()} == {beta[:4] for beta in betas}
    (token,) = await tokens.query(token=secrets[0])
    beta = await tokens._svc.tokens.verify(betas[0], kind="beta")
    assert beta.metadata == {"ragflow": {"row": token.token}}
    assert (await tokens._svc.tokens.verify(secrets[0])).metadata == {}
    assert await tokens.filter_delete([column.token == secrets[0]]) == 1
    assert [len(await tokens.query(beta=each)) for each in betas] == [0, 1, 1]
    assert await tokens.filter_delete([column.token == token.token]) == 0


async def test_an_update_of_a_token_rejects_columns_that_cannot_be_set(tokens):
    await tokens.save(token=SECRET, beta=BETA, dialog_id="d1")
    (row,) = await tokens.get_all()
    filters = [ragflow.APIToken.token == SECRET]
    for wrong in (
        None, {"name": "n"}, {"tenant_id": OTHER}, {"token": "another"}, {"token": []},
        {"status": "0"},
    ):  # fmt: skip
        with pytest.raises(InvalidInput):
            await tokens.filter_update(filters, wrong)
    assert await tokens.get_all() == [row]
    whole = row.to_dict() | {"dialog_id": "d2"}
    assert await tokens.filter_update(filters, whole) == 1
    assert await tokens.filter_update(filters, whole | {"token": SECRET}) == 1
    assert [each.dialog_id for each in await tokens.query(beta=BETA)] == ["d2"]


async def test_a_row_is_stored_whole_or_not_at_all(tokens):
    await tokens.save(beta=BETA)
    with pytest.raises(AlreadyExists):
        await tokens.save(token=SECRET, beta=BETA)
    assert await tokens.query(token=SECRET) == []


async def test_a_beta_moves_with_its_row_to_another_dialog(tokens):
    await tokens.save(token=SECRET, beta=BETA, dialog_id="d1", source="dialog")
    await tokens.save(token=SECRET[:-1] + "2", beta="2" * 32, dialog_id="d1")
    column = ragflow.APIToken
    update = {"dialog_id": "d2", "source": "agent"}
    assert await tokens.filter_update([column.token == SECRET], update) == 1
    (beta,) = await tokens.query(beta=BETA)
    assert (beta.dialog_id, beta.source) == ("d2", "agent")
    assert (await tokens.query(beta="2" * 32))[0].dialog_id == "d1"
    newer = {"beta": "3" * 32, "dialog_id": "d3"}
    assert await tokens.filter_update([column.token == SECRET], newer) == 1
    (beta,) = await tokens.query(beta="3" * 32)
    assert (beta.dialog_id, beta.source) == ("d3", "agent")


async def test_filter_delete_by_dialog_revokes_only_its_rows(tokens):
    alike = [SECRET[:-1] + n for n in "123"]
    betas = [n * 32 for n in "12345"]
    await tokens.save(token=alike[0], beta=betas[0], dialog_id="d1")
    await tokens.save(token=alike[1], beta=betas[1], dialog_id="d1")
    await tokens.save(token=alike[2], beta=betas[2], dialog_id="d2")
    await tokens.save(beta=betas[3], dialog_id="d1")
    await tokens.save(beta=betas[4], dialog_id="d2")
    services = tokens._svc.tokens
    for secret, dialog_id in (
        (betas[1], "d2"),
        (betas[2], "d1"),
    ):  # not the dialogs of their tokens
        beta = await services.verify(secret, kind="beta")
        await services.update_by_id(beta.id, {"dialog_id": dialog_id}, tenant_id=TENANT)
    column = ragflow.APIToken
    assert await tokens.filter_delete([column.dialog_id == "d1"]) == 3
    assert [len(await tokens.query(token=each)) for each in alike] == [0, 0, 1]
    assert [len(await tokens.query(beta=each)) for each in betas] == [0, 0, 1, 0, 1]
    assert await tokens.filter_delete([column.tenant_id == TENANT]) == 2
    assert [len(await tokens.query(beta=each)) for each in betas] == [0] * 5


async def test_a_beta_is_revoked_with_its_rotated_token(tokens):
    await tokens.save(token=SECRET, beta=BETA, dialog_id="d1")
    (row,) = await tokens.get_all()
    for _ in range(2):
        rotated = await tokens._svc.tokens.rotate(row.token, tenant_id=TENANT, overlap=timedelta(0))
        (row,) = await tokens.get_all()
        assert (row.token, row.beta) == (rotated.token.id, BETA[:4])
    assert await tokens.filter_delete([ragflow.APIToken.token == row.token]) == 1
    assert await tokens.query(beta=BETA) == []


async def test_tokens_of_another_tenant_do_not_exist(tokens):
    await tokens.save(token=SECRET)
    others = ragflow.APITokenService(tokens._svc, tenant_id=OTHER)
    assert await others.query(token=SECRET) == []
    assert await others.get_all() == []
    column = ragflow.APIToken
    assert await others.filter_delete([column.token == SECRET]) == 0
    (mine,) = await tokens.get_all()
    assert await others.filter_update([column.token == mine.token], {"source": "x"}) == 0
    for call in (
        others.query(tenant_id=TENANT),
        others.save(tenant_id=TENANT, token=SECRET),
        others.delete_by_tenant_id(TENANT),
        others.filter_delete([column.tenant_id == TENANT]),
    ):
        with pytest.raises(InvalidInput, match="tenant_id"):
            await call
    for filters in ([], [ragflow.API4Conversation.id == "x"]):
        with pytest.raises(InvalidInput, match="filters"):
            await tokens.filter_delete(filters)
    with pytest.raises(InvalidInput, match="filters"):
        await tokens.filter_update([column.tenant_id == TENANT], {"source": "x"})
    with pytest.raises(InvalidInput, match="token"):
        await tokens.save(tenant_id=TENANT)


async def test_secrets_of_ragflow_need_accept_foreign_tokens(svc):
    tokens = ragflow.APITokenService(svc, tenant_id=TENANT)
    with pytest.raises(InvalidInput, match="accept_foreign_tokens"):
        await tokens.save(token=SECRET)
    with pytest.raises(InvalidToken):
        await svc.tokens.verify(SECRET)


# ---------------------------------------------------------------- single cases


async def test_a_thumb_is_stored_with_its_message_or_neither(sessions, monkeypatch):
    await sessions.save(**prologue())
    _, session = await sessions.get_by_id("s1")
    session.message += exchange("m", "?")
    session.message[-1]["thumbup"] = True

    async def broken(*_, **__):
        raise Unavailable("the connection was lost")

    with monkeypatch.context() as patch:
        patch.setattr(asyncsvc.API4ConversationService, "set_feedback", broken)
        with pytest.raises(Unavailable):
            await sessions.append_message("s1", session.to_dict())
    assert len((await sessions.get_by_id("s1"))[1].message) == 1
    assert await sessions.append_message("s1", session.to_dict()) == 1
    _, again = await sessions.get_by_id("s1")
    assert (again.message, again.thumb_up) == (session.message, 1)


async def test_users_with_long_ids_are_found_and_returned_with_these_ids(sessions):
    one, two = "x" * 200 + "1", "x" * 200 + "2"
    await sessions.save(**prologue(user_id=one, exp_user_id=two))
    await sessions.save(**prologue(id="s2", user_id=two))
    _, session = await sessions.get_by_id("s1")
    assert (session.user_id, session.exp_user_id) == (one, two)
    listed = await sessions.get_list(AGENT, TENANT, 1, 9, "create_time", True, user_id=one)
    assert [each["id"] for each in listed[1]] == ["s1"]
    assert [each["id"] for each in await sessions.get_names(AGENT, two)] == ["s1"]
    assert [each.id for each in await sessions.query(dialog_id=AGENT, user_id=two)] == ["s2"]
    assert [each.id for each in await sessions.query(id="s1", user_id=one)] == ["s1"]
    assert await sessions.update_by_id("s1", session.to_dict()) == 1
    assert (await sessions.get_by_id("s1"))[1].user_id == one
    column = ragflow.API4Conversation
    assert (
        await sessions.filter_update(
            [column.dialog_id == AGENT, column.user_id == one], {"user_id": "short"}
        )
        == 1
    )
    assert (await sessions.get_by_id("s1"))[1].user_id == "short"


async def test_feedback_in_a_whole_row_is_stored(sessions):
    await sessions.save(**prologue(message=exchange("m", "?")))
    _, session = await sessions.get_by_id("s1")
    session.message[1] |= {"thumbup": False, "feedback": "wrong"}
    assert await sessions.update_by_id("s1", session.to_dict()) == 1
    _, again = await sessions.get_by_id("s1")
    assert again.message == session.message
    del session.message[1]["thumbup"]
    await sessions.update_by_id("s1", session.to_dict() | {"thumb_up": again.thumb_up})
    assert "thumbup" not in (await sessions.get_by_id("s1"))[1].message[1]


@pytest.mark.parametrize(
    "odd",
    [
        {"role": "user", "content": [{"type": "text", "text": "hi", "n": 1e5}]},
        {"role": "user", "content": {"z": 1, "a": 2}},
        {"role": None, "content": "no role"},
        {"role": "r" * 33, "content": "a long one"},
        {"content": "none at all"},
        {"role": "user", "content": "odd id", "id": {"a": [1]}},
    ],
)
async def test_a_message_of_an_unusual_shape_is_stored_once(sessions, odd):
    await sessions.save(**prologue(message=[odd, *exchange("m0", "first")]))
    for number in (1, 2):
        _, session = await sessions.get_by_id("s1")
        session.message += exchange(f"m{number}", "next")
        await sessions.append_message("s1", session.to_dict())
    _, session = await sessions.get_by_id("s1")
    assert session.message[0] == {"role": "unknown"} | odd
    assert len(session.message) == 7


async def test_a_turn_is_kept_if_messages_without_ids_were_deleted(svc, sessions):
    pings = [{"role": role, "content": "ping"} for _ in range(20) for role in ("user", "assistant")]
    await sessions.save(**prologue(message=pings))
    for seq in (1, 2):
        await svc.conversations.delete_message("s1", seq, tenant_id=TENANT)
    _, session = await sessions.get_by_id("s1")
    session.message += pings[:2]
    await sessions.append_message("s1", session.to_dict())
    assert len((await sessions.get_by_id("s1"))[1].message) == 40


async def test_a_reference_belongs_to_its_answer_although_an_earlier_answer_has_none(svc, sessions):
    await sessions.save(**prologue(message=exchange("m1", "1"), reference=[quoted(1)]))
    turn = {"messages": [{"role": "user", "content": "2"}, {"role": "assistant", "content": "2!"}]}
    await svc.conversations.append_message("s1", turn, tenant_id=TENANT)
    _, session = await sessions.get_by_id("s1")
    session.message += exchange("m3", "3")
    session.reference.append(quoted(3))
    await sessions.append_message("s1", session.to_dict())
    answers = [m.reference for m in await svc.conversations.messages("s1", tenant_id=TENANT)][1::2]
    assert answers == [quoted(1), None, quoted(3)]


async def test_all_filters_on_tokens_apply(tokens):
    await tokens.save(token=SECRET, dialog_id="d2")
    column = ragflow.APIToken
    for filters in (
        [column.token == SECRET, column.dialog_id == "d1"],
        [column.tenant_id.in_([])],
        [column.tenant_id == TENANT, column.dialog_id.in_([])],
    ):
        assert await tokens.filter_delete(filters) == 0
    assert await tokens.query(token=SECRET, dialog_id="d1") == []
    assert len(await tokens.query(token=SECRET, dialog_id="d2")) == 1
    with pytest.raises(InvalidInput):
        await tokens.filter_delete([column.dialog_id == None])  # noqa: E711 - as with peewee


async def test_a_token_of_another_tenant_is_not_marked_as_used(tokens):
    await tokens.save(token=SECRET)
    assert await ragflow.APITokenService(tokens._svc, tenant_id=OTHER).used(SECRET) == 0
    assert (await tokens.get_all())[0].update_time is None


async def test_pages_and_batches_respect_small_limits(dsn):
    settings = Settings(max_page_size=2, max_batch_size=2)
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        sessions = ragflow.API4ConversationService(svc, tenant_id=TENANT)
        for number in range(5):
            await sessions.save(**prologue(id=f"s{number}"))
        assert len(await sessions.query(dialog_id=AGENT)) == 5
        column = ragflow.API4Conversation.dialog_id
        assert await sessions.filter_delete([column == AGENT]) == 5
