"""What holds for the histories of LangChain, the OpenAI Agents SDK and pydantic-ai."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from pydantic_ai.messages import ModelRequest, UserPromptPart

import asyncsvc
from asyncsvc import InvalidInput, NotFound, Settings, Usage
from asyncsvc.integrations.langchain import ChatMessageHistory
from asyncsvc.integrations.message_log import MessageLog
from asyncsvc.integrations.openai_agents import Session
from asyncsvc.integrations.pydantic_ai import MessageHistory
from tests.integrations.histories import OWNER, counted

RANGE = {"tenant_id": "acme", "from_date": "2020-01-01", "to_date": "2099-12-31"}


@dataclass
class Framework:
    """The class of a history, and its methods on texts of the user."""

    history: Callable[..., Any]
    add: Callable[..., Awaitable[None]]
    read: Callable[[Any], Awaitable[list[str]]]
    clear: Callable[[Any], Awaitable[None]]
    more: Callable[[Any], list[Callable[[], Awaitable[object]]]]
    """Returns further calls on a history with messages, of 1 round trip each."""

    def open(self, svc, id="h1", **options):
        return self.history(id, svc, **OWNER | options)


async def add_messages(history, *texts):
    await history.aadd_messages([HumanMessage(text) for text in texts])


async def read_messages(history):
    return [each.content for each in await history.aget_messages()]


async def add_items(session, *texts):
    await session.add_items([{"role": "user", "content": text} for text in texts])


async def read_items(session):
    return [each["content"] for each in await session.get_items()]


async def add_requests(history, *texts):
    await history.add([ModelRequest(parts=[UserPromptPart(text)]) for text in texts])


async def read_requests(history):
    return [each.parts[0].content for each in await history.load()]


def newest_messages(history):
    limited = ChatMessageHistory("h1", history._log.svc, limit=20, **OWNER)
    return [limited.aget_messages]


FRAMEWORKS = {
    "langchain": Framework(
        ChatMessageHistory, add_messages, read_messages, ChatMessageHistory.aclear, newest_messages
    ),
    "openai-agents": Framework(
        Session,
        add_items,
        read_items,
        Session.clear_session,
        lambda session: [partial(session.get_items, 20), session.pop_item],
    ),
    "pydantic-ai": Framework(
        MessageHistory,
        add_requests,
        read_requests,
        MessageHistory.clear,
        lambda history: [partial(history.load, 20)],
    ),
}


@pytest.fixture(params=FRAMEWORKS)
def framework(request) -> Framework:
    return FRAMEWORKS[request.param]


async def test_a_history_without_messages_is_empty(svc, framework):
    stored = framework.open(svc)
    await framework.add(stored)
    assert await framework.read(stored) == []
    await framework.clear(stored)
    with pytest.raises(NotFound):
        await svc.conversations.get_by_id("h1", tenant_id="acme")


async def test_clear_deletes_the_messages_of_one_history_and_keeps_its_usage(svc, framework):
    stored, other = framework.open(svc), framework.open(svc, "h2")
    await framework.add(stored, "a", "b")
    await framework.add(other, "other")
    await framework.clear(stored)
    assert await framework.read(stored) == []
    assert (await svc.conversations.get_by_id("h1", tenant_id="acme")).round == 1
    await framework.add(stored, "c")
    assert await framework.read(stored) == ["c"]
    assert await framework.read(other) == ["other"]


async def test_a_history_of_another_user_is_absent(svc, framework):
    await framework.add(framework.open(svc, user_id="ann"), "hi")
    for user_id in ("bob", ""):
        foreign = framework.open(svc, user_id=user_id)
        assert await framework.read(foreign) == []
        await framework.clear(foreign)
        with pytest.raises(NotFound):
            await framework.add(foreign, "x")
    assert await framework.read(framework.open(svc, user_id="ann")) == ["hi"]
    foreign = framework.open(svc, user_id="ann", tenant_id="globex")
    assert await framework.read(foreign) == []


async def test_32_first_writers_of_one_history_lose_nothing(svc, framework):
    await asyncio.gather(*(framework.add(framework.open(svc), f"{n}a", f"{n}b") for n in range(32)))
    stored = await framework.read(framework.open(svc))
    assert sorted(stored) == sorted(f"{n}{part}" for n in range(32) for part in "ab")
    pairs = zip(stored[::2], stored[1::2], strict=True)
    assert all(first[:-1] == second[:-1] for first, second in pairs)


async def test_text_is_stored_whole_or_rejected_or_replaced(svc, dsn, framework):
    stored, large = framework.open(svc), "ä" * 2**20 + "end"
    await framework.add(stored, large)
    assert await framework.read(stored) == [large]
    with pytest.raises(InvalidInput):
        await framework.add(stored, "a\x00")
    async with asyncsvc.connect(dsn, settings=Settings(unstorable_text="replace")) as replacing:
        await framework.add(framework.open(replacing, "h2"), "a\x00\ud800")
    assert await framework.read(framework.open(svc, "h2")) == ["a\ufffd\ufffd"]


async def test_each_call_is_one_round_trip(dsn, framework):
    async with counted(dsn) as (svc, round_trips):
        stored = framework.open(svc)
        calls = [
            partial(framework.read, stored),
            partial(framework.add, stored, "a"),
            partial(framework.add, stored, "b", "c"),
            partial(framework.read, stored),
            *framework.more(stored),
            partial(framework.clear, stored),
        ]
        for _ in range(2):  # the first calls prepare the statements
            counts = [await round_trips(call) for call in calls]
    assert counts == [1] * len(calls)


async def test_the_usage_of_more_than_32_requests_is_counted_by_model(svc):
    log = MessageLog("h1", svc, **OWNER)
    usage = Usage(input_tokens=10, output_tokens=2, cached_input_tokens=4, cost=Decimal("0.5"))
    models = ["gpt-5" if number % 4 else "gpt-5-mini" for number in range(40)]
    usages = [usage.model_copy(update={"model": model}) for model in models]
    unpriced = usages[0].model_copy(update={"cost": None})
    await log.append([{"role": "assistant", "content": "x"}], usage=[*usages, unpriced], rounds=1)
    groups = await svc.conversations.stats(interval="total", group_by="model", **RANGE)
    assert {
        each.group: (each.rounds, each.requests, each.input_tokens, each.cost, each.unpriced)
        for each in groups
        if each.group
    } == {"gpt-5": (0, 30, 300, 15, 0), "gpt-5-mini": (1, 11, 110, 5, 1)}


async def test_the_usage_of_more_than_32_models_is_counted_as_tokens(svc):
    log = MessageLog("h1", svc, **OWNER)
    usages = [Usage(input_tokens=2, output_tokens=1, model=f"m{number}") for number in range(33)]
    await log.append([{"role": "assistant", "content": "x"}], usage=usages, rounds=1)
    total = await svc.conversations.stats_total(**RANGE)
    assert (total.tokens, total.unpriced, total.rounds) == (99, 1, 1)
