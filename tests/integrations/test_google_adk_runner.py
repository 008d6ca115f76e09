"""The session service of ADK in its Runner, with a model that follows a script."""

import asyncio

import pytest
from google.adk.agents import LlmAgent, ParallelAgent, SequentialAgent
from google.adk.errors import StaleSessionError
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import Runner
from google.adk.tools import ToolContext
from google.genai import types

import asyncsvc
from asyncsvc.integrations.google_adk import SessionService

USAGE = types.GenerateContentResponseUsageMetadata(
    prompt_token_count=10, candidates_token_count=5, total_token_count=15
)


class Model(BaseLlm):
    """A model that calls the tool, then answers with the number of contents and the question."""

    model: str = "scripted"

    async def generate_content_async(self, llm_request, stream=False):
        contents = llm_request.contents
        last = contents[-1].parts[-1]
        if llm_request.tools_dict and last.function_response is None:
            part = types.Part(function_call=types.FunctionCall(name="look", args={"at": last.text}))
        else:
            questions = [part.text for each in contents for part in each.parts if part.text]
            part = types.Part(text=f"{len(contents)}: {questions[-1]}")
        if stream:
            content = types.Content(role="model", parts=[types.Part(text="…")])
            yield LlmResponse(content=content, partial=True)
        content = types.Content(role="model", parts=[part])
        yield LlmResponse(content=content, usage_metadata=USAGE)


def look(at: str, tool_context: ToolContext) -> dict[str, str | None]:
    """Look at something."""
    tool_context.state["app:last"] = {at: None}
    tool_context.state["user:" + at] = None
    tool_context.state["temp:at"] = at
    return {"seen": at, "nothing": None}


def agent(name="agent", **options):
    return LlmAgent(name=name, model=Model(), output_key=f"{name}_answer", **options)


def runner(svc, root=None):
    root = root or agent(tools=[look])
    return Runner(
        app_name="app",
        agent=root,
        session_service=SessionService(svc, tenant_id="acme"),
        auto_create_session=True,
    )


async def ask(runner, text, session_id="s1", user_id="ann"):
    message = types.Content(role="user", parts=[types.Part(text=text)])
    run = runner.run_async(user_id=user_id, session_id=session_id, new_message=message)
    events = [event async for event in run]
    return events[-1].content.parts[0].text


async def read(svc, session_id="s1", user_id="ann"):
    return await SessionService(svc, tenant_id="acme").get_session(
        app_name="app", user_id=user_id, session_id=session_id
    )


async def test_an_agent_with_a_tool_resumes_after_a_restart(dsn):
    for question, answer in (("One?", "3: One?"), ("Two?", "7: Two?")):
        async with asyncsvc.connect(dsn) as svc:
            assert await ask(runner(svc), question) == answer
    async with asyncsvc.connect(dsn) as svc:
        session = await read(svc)
        assert [event.author for event in session.events] == ["user", "agent", "agent", "agent"] * 2
        assert session.state == {
            "agent_answer": "7: Two?",
            "app:last": {"Two?": None},
            "user:One?": None,
            "user:Two?": None,
        }
        (row,) = (await svc.conversations.get_list(tenant_id="acme", keywords="7: Two")).items
        assert (row.tokens, row.round, row.last_seq) == (60, 2, 8)


async def test_32_sessions_at_once(dsn):
    settings = asyncsvc.Settings(acquire_timeout=60)  # all wait for the connections of one pool
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        app = runner(svc)
        for turn in range(2):
            await asyncio.gather(
                *(ask(app, f"{turn}.{n}?", f"s{n}", f"u{n % 4}") for n in range(32))
            )
        for n in range(32):
            session = await read(svc, f"s{n}", f"u{n % 4}")
            assert len(session.events) == 8
            questions = {key for key in session.state if key.startswith("user:")}
            assert questions == {f"user:{t}.{m}?" for t in range(2) for m in range(n % 4, 32, 4)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the class ParallelAgent
async def test_agents_in_sequence_and_in_parallel(svc):
    parallel = ParallelAgent(name="parallel", sub_agents=[agent(f"p{n}") for n in range(8)])
    root = SequentialAgent(name="all", sub_agents=[agent("first"), parallel, agent("last")])
    await ask(runner(svc, root), "One?")
    session = await read(svc)
    names = ["first", *(f"p{n}" for n in range(8)), "last"]
    assert {event.author for event in session.events} == {"user", *names}
    assert set(session.state) == {f"{name}_answer" for name in names}


async def test_a_session_that_another_process_extends_is_stale(svc):
    app = runner(svc)
    await ask(app, "One?")

    async def interrupt(callback_context, llm_request):
        session = await read(svc)
        other = session.events[0].model_copy(update={"id": "other"})
        await SessionService(svc, tenant_id="acme").append_event(session, other)

    with pytest.raises(StaleSessionError):
        await ask(runner(svc, agent(before_model_callback=interrupt)), "Two?")
    assert len((await read(svc)).events) == 6
    assert await ask(app, "Three?") == "9: Three?"


async def test_a_streamed_answer_is_stored_whole(svc):
    from google.adk.agents.run_config import RunConfig, StreamingMode

    message = types.Content(role="user", parts=[types.Part(text="One?")])
    config = RunConfig(streaming_mode=StreamingMode.SSE)
    names = {"user_id": "ann", "session_id": "s1"}
    run = runner(svc, agent()).run_async(**names, new_message=message, run_config=config)
    partial = [event.partial async for event in run]
    assert partial[0] is True
    session = await read(svc)
    assert [event.content.parts[0].text for event in session.events] == ["One?", "1: One?"]
