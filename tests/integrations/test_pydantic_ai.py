"""The message history of pydantic-ai: its messages, and its agents."""

import asyncio
from datetime import UTC, datetime

from pydantic_ai import Agent
from pydantic_ai.messages import (
    BinaryContent,
    DocumentUrl,
    ImageUrl,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RequestUsage

import asyncsvc
from asyncsvc.integrations.pydantic_ai import MessageHistory
from tests.integrations.histories import OWNER, ledger_usage

TestModel.__test__ = False

AT = datetime(2026, 11, 30, 12, tzinfo=UTC)
MESSAGES = [
    ModelRequest(
        parts=[
            SystemPromptPart("Be kind."),
            UserPromptPart(
                [
                    "Where is it?",
                    ImageUrl("https://example.com/a.png"),
                    DocumentUrl("https://example.com/a.pdf", identifier="doc"),
                    BinaryContent(b"\x00\xff", media_type="application/pdf"),
                ]
            ),
        ],
        instructions="Answer.",
        metadata={"a": 1},
    ),
    ModelResponse(
        parts=[
            ThinkingPart("Hm.", signature="s"),
            TextPart("I look."),
            ToolCallPart("look", {"x": [1, None]}, "c1"),
        ],
        usage=RequestUsage(input_tokens=5, output_tokens=7, details={"reasoning": 3}),
        model_name="m",
        timestamp=AT,
        provider_details={"finish": "stop"},
    ),
    ModelRequest(parts=[ToolReturnPart("look", {"place": "Vienna"}, "c1", timestamp=AT)]),
    ModelRequest(parts=[ToolReturnPart("look", "again", "c1", outcome="failed", timestamp=AT)]),
    ModelRequest(parts=[SystemPromptPart("Now in German.")]),
    ModelResponse(parts=[TextPart("In Wien."), TextPart("Heute.")], timestamp=AT),
]


def history(svc, id="h1", **options):
    return MessageHistory(id, svc, **OWNER | options)


def dump(messages):
    return ModelMessagesTypeAdapter.dump_python(messages, mode="json")


def prompts(*contents):
    return [ModelRequest(parts=[UserPromptPart(content)]) for content in contents]


async def test_messages_of_all_kinds_are_read_back_equal_and_in_order(svc):
    stored = history(svc)
    await stored.add(MESSAGES[:2], tokens=12)
    await stored.add(MESSAGES[2:])
    assert dump(await stored.load()) == dump(MESSAGES)
    assert dump(await stored.load(2)) == dump(MESSAGES[-2:])
    assert await stored.load(0) == []
    messages = await svc.conversations.messages("h1", tenant_id="acme")
    assert [(each.role, each.content) for each in messages] == [
        ("user", "Where is it?"),
        ("assistant", "I look."),
        ("tool", '{"place":"Vienna"}'),
        ("tool", "again"),
        ("system", ""),
        ("assistant", "In Wien.\nHeute."),
    ]
    row = await svc.conversations.get_by_id("h1", tenant_id="acme")
    assert (row.tokens, row.round, row.dialog_id) == (12, 1, "support")


async def test_messages_of_other_programs_are_part_of_the_history(svc):
    await history(svc).add(prompts("hi"))
    roles = ["assistant", "user", "system", "operator"]
    turn = {"messages": [{"role": role, "content": f"of {role}"} for role in roles]}
    await svc.conversations.append_message("h1", turn, tenant_id="acme")
    loaded = await history(svc).load()
    assert [(each.kind, each.parts[0].part_kind, each.parts[0].content) for each in loaded] == [
        ("request", "user-prompt", "hi"),
        ("response", "text", "of assistant"),
        ("request", "user-prompt", "of user"),
        ("request", "system-prompt", "of system"),
        ("request", "user-prompt", "of operator"),
    ]


# ------------------------------------------------------------------------- agents of pydantic-ai


def repeating() -> tuple[Agent, list[int]]:
    """Return an agent that repeats the question, and the numbers of messages that it has seen."""
    seen = []

    def answer(messages, _info):
        seen.append(len(messages))
        return ModelResponse(
            parts=[TextPart(f"You asked: {messages[-1].parts[-1].content}")],
            usage=RequestUsage(input_tokens=10, output_tokens=1),
        )

    return Agent(FunctionModel(answer)), seen


async def test_a_run_resumes_after_a_restart(dsn):
    agent, seen = repeating()
    for question in ("One?", "Two?"):
        async with asyncsvc.connect(dsn) as svc:
            stored = history(svc)
            result = await agent.run(question, message_history=await stored.load())
            await stored.save(result)
    async with asyncsvc.connect(dsn) as svc:
        assert seen == [1, 3]
        assert dump(await history(svc).load()) == dump(result.all_messages())
        row = await svc.conversations.get_by_id("h1", tenant_id="acme")
        assert (row.tokens, row.round, row.last_seq) == (22, 2, 4)


async def test_the_usage_of_a_run_is_stored_by_model(svc, pool):
    def answer(_messages, _info):
        usage = RequestUsage(
            input_tokens=10, cache_read_tokens=6, cache_write_tokens=3, output_tokens=4,
            details={"reasoning_tokens": 2},
        )  # fmt: skip
        return ModelResponse(parts=[TextPart("Yes.")], usage=usage, model_name="m")

    result = await Agent(FunctionModel(answer)).run("Well?")
    await history(svc).save(result)
    ((model, *counts),) = await ledger_usage(pool)
    assert (model is not None, counts) == (True, [10, 6, 3, 4, 2, None])


async def test_a_run_with_a_tool_is_one_round_and_all_of_its_tokens(svc):
    agent = Agent(TestModel())

    @agent.tool_plain
    def look(place: str) -> str:
        return f"{place}: found"

    stored = history(svc)
    result = await agent.run("Where?", message_history=await stored.load())
    await stored.save(result)
    assert dump(await stored.load()) == dump(result.all_messages())
    row = await svc.conversations.get_by_id("h1", tenant_id="acme")
    assert (row.tokens, row.round, row.last_seq) == (result.usage.total_tokens, 1, 4)


async def test_a_streamed_run_is_saved_after_its_end(svc):
    agent = Agent(TestModel(custom_output_text="In Vienna."))
    stored = history(svc)
    async with agent.run_stream("Where?", message_history=await stored.load()) as result:
        assert await result.get_output() == "In Vienna."
    await stored.save(result)
    assert dump(await stored.load()) == dump(result.all_messages())


async def test_32_histories_at_once_keep_their_own_messages(svc):
    agent, _ = repeating()

    async def talk(number):
        stored = history(svc, f"h{number}")
        for turn in range(3):
            question = f"{number}.{turn}"
            await stored.save(await agent.run(question, message_history=await stored.load()))
        return await stored.load()

    for number, messages in enumerate(await asyncio.gather(*map(talk, range(32)))):
        answers = [message.parts[0].content for message in messages[1::2]]
        assert answers == [f"You asked: {number}.{turn}" for turn in range(3)]
