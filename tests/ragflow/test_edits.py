"""Tests of whole rows that are written while others write, and of their references."""

import asyncio
from typing import Any

import pytest

import asyncsvc
from asyncsvc import ragflow
from asyncsvc.repositories import SessionRepository
from tests.support.ragflow_rows import AGENT, TENANT, exchange, prologue, quoted

ANSWERS = [message for n in (1, 2, 3) for message in exchange(f"m{n}", str(n))]


def texts(session: Any) -> list[str]:
    return [message["content"] for message in session.message]


async def references(svc: asyncsvc.AsyncSvc) -> list[Any]:
    stored = await svc.conversations.messages("s1", tenant_id=TENANT, limit=1_000)
    return [each.reference for each in stored if each.role == "assistant"]


# ---------------------------------------------------------------- references


@pytest.mark.parametrize("prologues", [0, 1])
@pytest.mark.parametrize("turns", [1, 3, 30])
async def test_a_new_turn_has_its_reference_after_answers_without(svc, sessions, prologues, turns):
    first = [{"role": "assistant", "content": "Hello"}][:prologues]
    old = [message for n in range(turns) for message in exchange(f"m{n}", str(n))]
    await sessions.save(**prologue(message=first + old, reference=[]))
    _, session = await sessions.get_by_id("s1")
    session.message += exchange("new", "new")
    session.reference.append(quoted(9))
    await sessions.append_message("s1", session.to_dict())
    assert await references(svc) == [None] * (turns + prologues) + [quoted(9)]
    _, session = await sessions.get_by_id("s1")
    session.message += exchange("newer", "newer")
    session.reference.append(quoted(10))
    await sessions.append_message("s1", session.to_dict())
    assert (await references(svc))[-2:] == [quoted(9), quoted(10)]


async def test_an_edit_adds_a_turn_with_its_reference_after_answers_without(svc, sessions):
    await sessions.save(**prologue(message=ANSWERS, reference=[]))
    _, session = await sessions.get_by_id("s1")
    session.message[-1] = {**session.message[-1], "content": "again"}
    session.reference.append(quoted(3))
    await sessions.update_by_id("s1", session.to_dict())
    assert await references(svc) == [None, None, quoted(3)]


async def test_an_answer_without_a_reference_does_not_take_those_of_old_answers(svc, sessions):
    old = exchange("m1", "1") + [
        {"role": "user", "content": f"q{n}", "id": f"q{n}"} for n in range(30)
    ]
    await sessions.save(**prologue(message=old, reference=[quoted(1)]))
    _, session = await sessions.get_by_id("s1")
    session.message += exchange("new", "new")
    await sessions.append_message("s1", session.to_dict())
    assert await references(svc) == [quoted(1), None]


async def test_a_list_of_references_for_old_answers_is_set(svc, sessions):
    await sessions.save(**prologue(message=ANSWERS, reference=[]))
    await sessions.update_by_id("s1", {"reference": [quoted(n) for n in (1, 2, 3)]})
    assert await references(svc) == [quoted(1), quoted(2), quoted(3)]


# ---------------------------------------------------------------- races


async def test_an_edit_and_an_append_after_the_turn_of_another_caller_lose_nothing(sessions):
    """RAGFlow's workflows store the question by `update_by_id`, and then append the answer."""
    await sessions.save(**prologue(message=[], source="workflow"))
    _, mine = await sessions.get_by_id("s1")
    _, yours = await sessions.get_by_id("s1")
    yours.message += exchange("y", "yours")
    yours.tokens, yours.duration = 7, 1.5
    await sessions.append_message("s1", yours.to_dict())

    row = mine.to_dict()
    question, answer = exchange("m", "mine")
    row["message"].append(question)
    assert await sessions.update_by_id("s1", row) == 1
    row["message"].append(answer)
    row["reference"].append(quoted(1))
    assert await sessions.append_message("s1", row) == 1
    _, session = await sessions.get_by_id("s1")
    assert texts(session) == ["yours", "re: yours", "mine", "re: mine"]
    assert session.reference == [{"chunks": [], "doc_aggs": []}, quoted(1)]
    assert (session.tokens, session.duration, session.round) == (7, 1.5, 2)


async def test_an_edit_after_an_append_without_messages_keeps_the_turn_of_another_caller(sessions):
    await sessions.save(**prologue(message=exchange("m1", "1")))
    _, mine = await sessions.get_by_id("s1")
    _, yours = await sessions.get_by_id("s1")
    yours.message += exchange("y", "yours")
    await sessions.append_message("s1", yours.to_dict())
    mine.errors = "no model"
    await sessions.append_message("s1", mine.to_dict())
    mine.message.pop()
    await sessions.update_by_id("s1", mine.to_dict())
    _, session = await sessions.get_by_id("s1")
    assert texts(session) == ["1", "yours", "re: yours"]


@pytest.mark.parametrize("change", ["in place", "replaced", "removed"])
async def test_a_row_whose_messages_were_changed_is_compared(sessions, change):
    """An answer that was edited is a new message, and the others are stored once."""
    await sessions.save(**prologue(message=ANSWERS))
    _, session = await sessions.get_by_id("s1")
    if change == "in place":
        session.message[-1]["content"] = "edited"
    elif change == "replaced":
        session.message[1] = {**session.message[1], "content": "edited"}
    else:
        del session.message[2:4]
    session.message += exchange("new", "new")
    await sessions.append_message("s1", session.to_dict())
    _, again = await sessions.get_by_id("s1")
    expected = [message["content"] for message in ANSWERS]
    added = [] if change == "removed" else ["edited"]
    assert texts(again) == [*expected, *added, "new", "re: new"]


async def test_messages_that_are_added_during_an_append_are_stored_by_the_next_one(sessions):
    await sessions.save(**prologue(message=[]))
    _, session = await sessions.get_by_id("s1")
    session.message += exchange("m1", "1")
    first = asyncio.create_task(sessions.append_message("s1", session.to_dict()))
    await asyncio.sleep(0)
    session.message += exchange("m2", "2")
    await first
    await sessions.append_message("s1", session.to_dict())
    _, again = await sessions.get_by_id("s1")
    assert again.message == session.message


async def test_concurrent_workflows_keep_all_turns(sessions):
    await sessions.save(**prologue(message=[], source="workflow"))

    async def turn(number: int) -> None:
        _, session = await sessions.get_by_id("s1")
        row = session.to_dict()
        question, answer = exchange(f"m{number}", str(number))
        row["message"].append(question)
        assert await sessions.update_by_id("s1", row) == 1
        row["message"].append(answer)
        assert await sessions.append_message("s1", row) == 1

    await asyncio.gather(*(turn(number) for number in range(8)))
    _, session = await sessions.get_by_id("s1")
    assert sorted(texts(session)) == sorted(f"{re}{n}" for n in range(8) for re in ("", "re: "))
    assert session.round == 8


async def test_writers_of_two_processes_keep_all_turns(dsn, svc, sessions):
    """2 pools share no queue. Rows have a state, or come from JSON; some are stored in 2 steps."""
    await sessions.save(**prologue(message=[], source="workflow"))
    async with asyncsvc.connect(dsn) as other:
        services = [sessions, ragflow.API4ConversationService(other, tenant_id=TENANT)]

        async def write(number: int) -> None:
            service = services[number % 2]
            for turn in range(3):
                id = f"{number}.{turn}"
                row = (await service.get_by_id("s1"))[1].to_dict()
                if number % 3 == 0:
                    row |= {"message": [dict(message) for message in row["message"]]}
                question, answer = exchange(id, id)
                row["message"].append(question)
                if number % 4 == 0:
                    assert await service.update_by_id("s1", row) == 1
                row["message"].append(answer)
                row["reference"].append(quoted(number))
                assert await service.append_message("s1", row) == 1

        await asyncio.gather(*(write(number) for number in range(12)))
    _, session = await sessions.get_by_id("s1")
    ids = [f"{number}.{turn}" for number in range(12) for turn in range(3)]
    assert sorted(texts(session)) == sorted([*ids, *(f"re: {id}" for id in ids)])
    assert session.round == len(ids)
    answers = [message["id"] for message in session.message if message["role"] == "assistant"]
    pairs = zip(answers, session.reference, strict=True)
    assert all(reference == quoted(int(id.split(".")[0])) for id, reference in pairs)


async def test_a_regenerated_answer_replaces_the_old_one_and_keeps_other_turns(sessions):
    await sessions.save(**prologue(message=exchange("m1", "1"), reference=[quoted(1)]))
    _, mine = await sessions.get_by_id("s1")
    _, yours = await sessions.get_by_id("s1")
    yours.message += exchange("y", "yours")
    yours.reference.append(quoted(2))
    await sessions.append_message("s1", yours.to_dict())
    row = mine.to_dict()
    row["message"].pop()
    row["reference"].pop()
    await sessions.update_by_id("s1", row)
    row["message"].append({"role": "assistant", "content": "better", "id": "m1"})
    row["reference"].append(quoted(3))
    await sessions.append_message("s1", row)
    _, session = await sessions.get_by_id("s1")
    assert texts(session) == ["1", "yours", "re: yours", "better"]
    assert session.reference == [quoted(2), quoted(3)]


async def test_a_session_can_be_regenerated_again_and_again_with_one_record(sessions):
    await sessions.save(**prologue(message=exchange("m1", "1"), reference=[quoted(1)]))
    _, session = await sessions.get_by_id("s1")
    for number in range(3):
        session.message.pop()
        assert await sessions.update_by_id("s1", session.to_dict()) == 1
        session.message.append({"role": "assistant", "content": f"try {number}", "id": "m1"})
        assert await sessions.append_message("s1", session.to_dict()) == 1
    session.name = "renamed"
    assert await sessions.update_by_id("s1", session.to_dict()) == 1
    _, session = await sessions.get_by_id("s1")
    assert texts(session) == ["1", "try 2"]
    assert (session.name, session.round) == ("renamed", 3)


async def test_an_edit_and_a_concurrent_append_wait_for_each_other(svc, sessions, monkeypatch):
    await sessions.save(**prologue(message=exchange("m1", "1")))
    _, session = await sessions.get_by_id("s1")
    other = {"messages": [{"role": "user", "content": "me too", "payload": {"id": "o"}}]}
    append = asyncsvc.API4ConversationService.append_message
    tasks = []

    async def meanwhile(self, id: str, *arguments: Any, **options: Any):
        if not tasks:
            call = append(svc.conversations, id, other, tenant_id=TENANT)
            tasks.append(asyncio.create_task(call))
            await asyncio.sleep(0.05)
        return await append(self, id, *arguments, **options)

    session.message += exchange("m2", "2")
    monkeypatch.setattr(asyncsvc.API4ConversationService, "append_message", meanwhile)
    assert await sessions.update_by_id("s1", session.to_dict()) == 1
    await asyncio.gather(*tasks)
    _, session = await sessions.get_by_id("s1")
    assert texts(session) == ["1", "re: 1", "2", "re: 2", "me too"]


async def test_an_edit_of_a_session_that_is_deleted_meanwhile_returns_0(svc, sessions, monkeypatch):
    await sessions.save(**prologue(message=exchange("m1", "1")))
    lock = SessionRepository.lock

    async def delete_and_lock(self, *, tenant_id: str, id: str):
        await svc.conversations.delete_by_id(id, tenant_id=TENANT)
        return await lock(self, tenant_id=tenant_id, id=id)

    monkeypatch.setattr(SessionRepository, "lock", delete_and_lock)
    messages = exchange("m1", "1") + exchange("m2", "2")
    assert await sessions.update_by_id("s1", {"message": messages}) == 0
    assert await sessions.query(dialog_id=AGENT) == []
