"""The chat message history of LangChain: its messages, and its runnable with a history."""

import asyncio
import warnings
from functools import partial

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables.history import RunnableWithMessageHistory

import asyncsvc
from asyncsvc import InvalidInput
from asyncsvc.integrations.langchain import ChatMessageHistory
from tests.integrations.histories import OWNER, ledger_usage

USAGE = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
MESSAGES = [
    SystemMessage("Be kind."),
    HumanMessage(
        [
            {"type": "text", "text": "Where is it?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
        ],
        name="ann",
    ),
    AIMessage(
        "I look.",
        id="run--1",
        tool_calls=[{"name": "look", "args": {"x": [1, None]}, "id": "c1"}],
        invalid_tool_calls=[{"name": "no", "args": "{", "id": "c2", "error": "cut"}],
        usage_metadata=USAGE,
        response_metadata={"model": "m", "logprobs": None},
        additional_kwargs={"refusal": None},
    ),
    ToolMessage("seen", tool_call_id="c1", artifact={"rows": [1]}, status="error"),
    FunctionMessage("old", name="look"),
    ChatMessage("Yes.", role="operator"),
    AIMessageChunk("cut of", id="run--2"),
]
STORED = [
    ("system", "Be kind.", None),
    ("user", "Where is it?", None),
    ("assistant", "I look.", "run--1"),
    ("tool", "seen", None),
    ("function", "old", None),
    ("operator", "Yes.", None),
    ("assistant", "cut of", "run--2"),
]


def history(svc, id="h1", **options):
    return ChatMessageHistory(id, svc, **OWNER | options)


async def test_messages_of_all_kinds_are_read_back_equal_and_in_order(svc):
    stored = history(svc)
    await stored.aadd_messages(MESSAGES[:3])
    await stored.aadd_messages(MESSAGES[3:])
    assert await stored.aget_messages() == MESSAGES
    messages = await svc.conversations.messages("h1", tenant_id="acme")
    assert [(each.role, each.content, each.id) for each in messages] == STORED
    row = await svc.conversations.get_by_id("h1", tenant_id="acme")
    assert (row.tokens, row.round, row.dialog_id) == (15, 1, "support")


async def test_the_usage_of_answers_is_stored_by_model(svc, pool):
    details = {
        "input_token_details": {"cache_read": 6, "cache_creation": 3, "audio": 1},
        "output_token_details": {"reasoning": 2},
    }
    answers = [
        AIMessage("a", usage_metadata=USAGE | details, response_metadata={"model_name": "m"}),
        AIMessage("b", usage_metadata=USAGE | {"input_tokens": 11, "total_tokens": 16}),
    ]
    await history(svc).aadd_messages(answers)
    assert await ledger_usage(pool) == [("m", 10, 6, 3, 5, 2, None), (None, 11, 0, 0, 5, 0, None)]
    many = [AIMessage(str(number), usage_metadata=USAGE) for number in range(33)]
    await history(svc, "h2").aadd_messages(many)
    assert (await svc.conversations.get_by_id("h2", tenant_id="acme")).tokens == 33 * 15


async def test_the_id_of_a_message_finds_it(svc):
    await history(svc).aadd_messages(MESSAGES)
    message = await svc.conversations.set_feedback("h1", "run--1", 1, tenant_id="acme")
    assert message.content == "I look."


async def test_equal_messages_and_equal_ids_are_kept(svc):
    stored = history(svc)
    answer = AIMessage("Yes.", id="run--1")
    await stored.aadd_messages([answer, answer, AIMessage("", id="i" * 129), AIMessage("", id="")])
    await stored.aadd_messages([answer])
    messages = await stored.aget_messages()
    assert [each.id for each in messages] == ["run--1", "run--1", "i" * 129, "", "run--1"]


async def test_a_limit_selects_the_newest_messages(svc):
    await history(svc).aadd_messages([HumanMessage(text) for text in "abcd"])
    for limit, expected in ((2, "cd"), (9, "abcd"), (0, ""), (None, "abcd")):
        messages = await history(svc, limit=limit).aget_messages()
        assert [each.content for each in messages] == list(expected)


@pytest.mark.parametrize(
    "call",
    [
        lambda stored: stored.messages,
        lambda stored: stored.add_messages([HumanMessage("x")]),
        lambda stored: stored.add_message(HumanMessage("x")),
        lambda stored: stored.add_user_message("x"),
        lambda stored: stored.add_ai_message("x"),
        lambda stored: stored.clear(),
    ],
)
async def test_a_call_that_would_block_is_refused(svc, call):
    stored = history(svc)
    for run in (call, lambda each: asyncio.to_thread(call, each)):
        with pytest.raises(NotImplementedError, match="await aget_messages"):
            await asyncio.ensure_future(run(stored))
    assert str(stored) == "ChatMessageHistory('h1')"


async def test_large_and_odd_results_of_tools(svc):
    large = ToolMessage("ä" * 2**20 + "end", tool_call_id="c")
    await history(svc).aadd_messages([large])
    assert await history(svc).aget_messages() == [large]
    with pytest.raises(InvalidInput):
        await history(svc).aadd_messages([ToolMessage("a", tool_call_id="c", artifact=object())])


async def test_messages_of_other_programs_are_part_of_the_history(svc):
    await history(svc).aadd_messages([HumanMessage("hi")])
    roles = ["assistant", "user", "system", "operator"]
    turn = {"messages": [{"role": role, "content": "x"} for role in roles]}
    await svc.conversations.append_message("h1", turn, tenant_id="acme")
    assert await history(svc).aget_messages() == [
        HumanMessage("hi"),
        AIMessage("x"),
        HumanMessage("x"),
        SystemMessage("x"),
        ChatMessage("x", role="operator"),
    ]


# ------------------------------------------------------------------------ the runnable of LangChain


class Model(GenericFakeChatModel):
    """A model that answers with the number of messages and the last one."""

    def _generate(self, messages, *_args, **_options):
        text = f"{len(messages)}: {messages[-1].content}"
        answer = AIMessage(text, usage_metadata=USAGE)
        self.messages = iter([answer])
        return super()._generate(messages)


def with_history(svc, *, key=None):
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Be kind."), MessagesPlaceholder("history"), ("human", "{question}")]
    )
    model = Model(messages=iter([]))
    keys = {} if key is None else {"input_messages_key": key, "history_messages_key": "history"}
    chain = model if key is None else prompt | model
    with warnings.catch_warnings(action="ignore"):  # newer versions recommend LangGraph
        return RunnableWithMessageHistory(chain, partial(history, svc), **keys)


def config(id):
    return {"configurable": {"session_id": id}}


async def test_a_chain_resumes_after_a_restart(dsn):
    for question, answer in (("One?", "2: One?"), ("Two?", "4: Two?")):
        async with asyncsvc.connect(dsn) as svc:
            chain = with_history(svc, key="question")
            result = await chain.ainvoke({"question": question}, config("h1"))
            assert result.content == answer
    async with asyncsvc.connect(dsn) as svc:
        messages = await history(svc).aget_messages()
        assert [each.content for each in messages] == ["One?", "2: One?", "Two?", "4: Two?"]
        row = await svc.conversations.get_by_id("h1", tenant_id="acme")
        assert (row.tokens, row.round) == (30, 2)


async def test_a_model_with_a_history_of_messages(svc):
    chain = with_history(svc)
    assert (await chain.ainvoke([HumanMessage("One?")], config("h1"))).content == "1: One?"
    assert (await chain.ainvoke([HumanMessage("Two?")], config("h1"))).content == "3: Two?"
    assert len(await history(svc).aget_messages()) == 4


async def test_a_streamed_chain_stores_the_whole_answer(svc):
    chain = with_history(svc, key="question")
    parts = [part.content async for part in chain.astream({"question": "One?"}, config("h1"))]
    assert "".join(parts) == "2: One?"
    messages = await history(svc).aget_messages()
    assert [each.content for each in messages] == ["One?", "2: One?"]


async def test_a_chain_that_would_block_is_refused(svc):
    chain = with_history(svc, key="question")
    with pytest.raises(NotImplementedError, match="ainvoke"):
        chain.invoke({"question": "One?"}, config("h1"))
    assert await history(svc).aget_messages() == []


async def test_32_histories_at_once_keep_their_own_messages(svc):
    chain = with_history(svc, key="question")

    async def talk(number):
        for turn in range(3):
            await chain.ainvoke({"question": f"{number}.{turn}"}, config(f"h{number}"))
        return await history(svc, f"h{number}").aget_messages()

    for number, messages in enumerate(await asyncio.gather(*map(talk, range(32)))):
        assert [each.content for each in messages[1::2]] == [
            f"{2 * turn + 2}: {number}.{turn}" for turn in range(3)
        ]


async def test_32_runs_of_one_history_lose_nothing(svc):
    chain = with_history(svc, key="question")
    await asyncio.gather(*(chain.ainvoke({"question": f"q{n}"}, config("h1")) for n in range(32)))
    messages = await history(svc).aget_messages()
    questions = [each.content for each in messages if each.type == "human"]
    assert sorted(questions) == sorted(f"q{n}" for n in range(32))
    assert len(messages) == 64
