"""The session of the OpenAI Agents SDK: the contract of its own stores, and its runner."""

import asyncio
from types import SimpleNamespace
from unittest import mock

import agents
import pytest
from agents import Agent, RunConfig, Runner, SessionSettings, function_tool
from agents.extensions.memory import EncryptedSession
from agents.memory import OpenAIResponsesCompactionSession
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from agents.usage import Usage

import asyncsvc
from asyncsvc import InvalidInput, NotFound, Settings
from asyncsvc.integrations.openai_agents import Session
from asyncsvc.integrations.openai_agents.compaction import CompactionSnapshot
from tests.integrations.histories import OWNER

QUESTION = {"role": "user", "content": "Where is my parcel?"}
ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "In Vienna.", "annotations": [], "logprobs": []}],
}
ITEMS = [
    QUESTION,
    {"role": "user", "content": [{"type": "input_text", "text": "And this?"},
                                 {"type": "input_image", "image_url": "data:image/png;base64,AA"}]},
    {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Look."}]},
    {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"x": 1}', "id": "f"},
    {"type": "function_call_output", "call_id": "c1", "output": "seen"},
    {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text",
                                                                 "text": "listed"}]},
    {"type": "compaction", "encrypted_content": "abc", "new": {"of": [None, 1.5, True, 2**60]}},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot."}]},
    ANSWER,
]  # fmt: skip
TEXTS = ["Where is my parcel?", "And this?", "Look.", "", "seen", "listed", "", "I cannot.",
         "In Vienna."]  # fmt: skip
ROLES = ["user", "user", "assistant", "assistant", "tool", "tool", "assistant", "assistant",
         "assistant"]  # fmt: skip


def session(svc, id="s1", **options):
    return Session(id, svc, **OWNER | options)


def texts(*contents):
    return [{"role": "user", "content": content} for content in contents]


def contents(items):
    return [item["content"] for item in items]


async def test_it_implements_the_protocol_of_the_sdk(svc):
    assert isinstance(session(svc), agents.Session)


async def test_items_of_all_kinds_are_read_back_equal_and_in_order(svc):
    stored = session(svc)
    await stored.add_items(ITEMS)
    await stored.add_items([QUESTION])
    assert await stored.get_items() == [*ITEMS, QUESTION]
    messages = await svc.conversations.messages("s1", tenant_id="acme")
    assert [each.content for each in messages[:-1]] == TEXTS
    assert [each.role for each in messages[:-1]] == ROLES
    hits = await svc.conversations.search("vienna", tenant_id="acme")
    assert [each.id for each in hits.items] == ["s1"]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(None, "abcd"), (2, "cd"), (4, "abcd"), (9, "abcd"), (0, ""), (-1, "")],
)
async def test_a_limit_selects_the_newest_items(svc, limit, expected):
    stored = session(svc)
    await stored.add_items(texts(*"abcd"))
    assert contents(await stored.get_items(limit)) == list(expected)
    assert contents(await stored.get_items(limit=limit)) == list(expected)


@pytest.mark.parametrize("settings", [SessionSettings(limit=3), {"limit": 3}])
async def test_the_settings_of_the_session_are_the_default_limit(svc, settings):
    stored = session(svc, session_settings=settings)
    assert stored.session_settings == SessionSettings(limit=3)
    await stored.add_items(texts(*"abcde"))
    assert contents(await stored.get_items()) == list("cde")
    assert contents(await stored.get_items(1)) == ["e"]
    stored.session_settings = None
    assert len(await stored.get_items()) == 5


async def test_a_misspelled_option_of_the_session_is_rejected(svc):
    with pytest.raises(TypeError, match="Unknown session settings"):
        session(svc, session_settings={"limt": 3})


async def test_pop_returns_and_deletes_the_newest_item(svc):
    stored, other = session(svc), session(svc, "s2")
    assert await stored.pop_item() is None
    await stored.add_items([QUESTION, ANSWER])
    await other.add_items(texts("other"))
    assert await session(svc, user_id="bob").pop_item() is None
    assert await stored.pop_item() == ANSWER
    assert await stored.get_items() == [QUESTION]
    assert await stored.pop_item() == QUESTION
    assert await stored.pop_item() is None
    assert contents(await other.get_items()) == ["other"]


async def test_concurrent_pops_return_each_item_once(svc):
    await session(svc).add_items(texts(*(str(number) for number in range(20))))
    popped = await asyncio.gather(*(session(svc).pop_item() for _ in range(32)))
    assert sorted(int(item["content"]) for item in popped if item) == list(range(20))


async def test_equal_items_and_equal_ids_are_kept(svc):
    stored = session(svc)
    await stored.add_items([ANSWER, ANSWER])
    await stored.add_items([ANSWER])
    assert await stored.get_items() == [ANSWER] * 3


async def test_items_of_a_session_around_this_one_are_read_back_equal(svc):
    encrypted = EncryptedSession("s1", session(svc), encryption_key="key")
    await encrypted.add_items(ITEMS)
    assert await encrypted.get_items() == ITEMS
    assert await encrypted.get_items(2) == ITEMS[-2:]
    assert await encrypted.pop_item() == ITEMS[-1]
    other = session(svc, "s2")
    await other.add_items([{"zip": "abc"}, QUESTION, {}])
    assert await other.get_items() == [{"zip": "abc"}, QUESTION, {}]
    assert await other.pop_item() == {}


async def test_the_first_items_create_the_conversation(svc):
    stored = session(svc, user_id="ann", token_id="t1")
    await stored.add_items([QUESTION])
    row = await svc.conversations.get_by_id("s1", tenant_id="acme")
    assert (row.dialog_id, row.user_id, row.round) == ("support", "ann", 1)
    await stored.add_items([ANSWER])
    row = await svc.conversations.get_by_id("s1", tenant_id="acme")
    assert (row.round, row.last_seq) == (1, 2)


async def test_more_items_than_a_batch_are_stored_at_once_or_not_at_all(dsn):
    async with asyncsvc.connect(dsn, settings=Settings(max_batch_size=10)) as svc:
        many = texts(*(str(number) for number in range(35)))
        await session(svc).add_items(many)
        assert await session(svc).get_items() == many
        with pytest.raises(InvalidInput):
            await session(svc).add_items([*many, {"role": "user", "content": "a\x00"}])
        assert await session(svc).get_items() == many
        row = await svc.conversations.get_by_id("s1", tenant_id="acme")
        assert row.round == 1


async def test_a_large_output_is_stored_whole(svc):
    output = {"type": "function_call_output", "call_id": "c", "output": "ä" * 2**20 + "end"}
    await session(svc).add_items([output])
    assert await session(svc).get_items() == [output]
    assert await session(svc).pop_item() == output


@pytest.mark.parametrize("count", [1, 1_200])
async def test_messages_of_other_programs_are_items_too(svc, count):
    stored = session(svc)
    await stored.add_items([ANSWER])
    message = {"role": "assistant", "content": "I take over.", "payload": {"operator": "eve"}}
    for start in range(0, count, 1_000):
        turn = {"messages": [message] * min(1_000, count - start)}
        await svc.conversations.append_message("s1", turn, tenant_id="acme")
    item = {"role": "assistant", "content": "I take over."}
    assert await stored.get_items() == [ANSWER, *[item] * count]
    assert await stored.get_items(1) == [item]
    assert await stored.pop_item() == item


async def test_a_session_works_inside_a_transaction_of_the_application(svc):
    with pytest.raises(ZeroDivisionError):
        async with svc.transaction() as tx:
            await session(tx).add_items([QUESTION])
            assert await session(tx).get_items() == [QUESTION]
            raise ZeroDivisionError
    assert await session(svc).get_items() == []


async def test_a_cancelled_call_is_applied_or_not(svc):
    for number in range(20):
        task = asyncio.create_task(session(svc).add_items(texts(f"{number}a", f"{number}b")))
        await asyncio.sleep(number * 0.000_2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
            raise asyncio.CancelledError
    stored = contents(await session(svc).get_items())
    assert all(each[:-1] + "b" in stored for each in stored)
    assert len(stored) == len(set(stored))


# -------------------------------------------------------------------------- the runner of the SDK


@function_tool
async def look(place: str) -> str:
    return f"{place}: found"


@function_tool(needs_approval=True)
async def pay(amount: int) -> str:
    return "paid"


def step(*output, tokens=15):
    output_tokens = min(tokens, 5)
    usage = Usage(
        requests=1, input_tokens=tokens - output_tokens, output_tokens=output_tokens,
        total_tokens=tokens,
    )  # fmt: skip
    return ModelStep(output=list(output), usage=usage)


def agent(*steps):
    return Agent(name="support", model=ScriptedModel(steps=list(steps)), tools=[look, pay])


async def run(agent, question, stored, *, streamed=False, **options):
    if not streamed:
        return await Runner.run(agent, question, session=stored, **options)
    result = Runner.run_streamed(agent, question, session=stored, **options)
    async for _ in result.stream_events():
        pass
    return result


@pytest.fixture(autouse=True)
def no_tracing(monkeypatch):
    """Without it the SDK sends traces to its vendor."""
    agents.set_tracing_disabled(True)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_run_resumes_after_a_restart(dsn, streamed):
    async with asyncsvc.connect(dsn) as svc:
        bot = agent(step(assistant_message("San Francisco")))
        await run(bot, "Where is the bridge?", session(svc), streamed=streamed)
    async with asyncsvc.connect(dsn) as svc:
        bot = agent(step(assistant_message("California")))
        result = await run(bot, "In which state?", session(svc), streamed=streamed)
        assert result.final_output == "California"
        seen = bot.model.calls[-1].input
        assert seen[0]["content"] == "Where is the bridge?"
        assert seen[1]["content"][0]["text"] == "San Francisco"
        assert len(await session(svc).get_items()) == 4


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_tokens_and_rounds_of_a_run_are_counted_once(svc, streamed):
    bot = agent(
        step(function_call("look", {"place": "depot"}, call_id="c1"), tokens=100),
        step(assistant_message("Found."), tokens=10),
        step(assistant_message("Bye."), tokens=7),
    )
    stored = session(svc)
    await run(bot, "Where?", stored, streamed=streamed)
    row = await svc.conversations.get_by_id("s1", tenant_id="acme")
    assert (row.tokens, row.round, row.last_seq) == (110, 1, 4)
    await run(bot, "Bye", stored, streamed=streamed)
    row = await svc.conversations.get_by_id("s1", tenant_id="acme")
    assert (row.tokens, row.round, row.last_seq) == (117, 2, 6)


def step_of_model(model, *output):
    """Return a step of a model as those of LiteLLM and any-llm are: its items name it."""
    for item in output:
        item.provider_data = {"model": model, "response_id": "r"}
    details = {
        "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
        "output_tokens_details": {"reasoning_tokens": 5},
    }
    usage = Usage(requests=1, input_tokens=100, output_tokens=20, total_tokens=120, **details)
    return ModelStep(output=list(output), usage=usage)


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_usage_of_a_run_is_counted_by_request_and_model(svc, streamed):
    look_up = function_call("look", {"place": "depot"}, call_id="c1")
    bot = agent(
        step_of_model("openai/a", look_up),
        step_of_model("openai/b", assistant_message("Found.")),
        step(assistant_message("Bye."), tokens=7),
    )
    await run(bot, "Where?", session(svc), streamed=streamed)
    await run(bot, "Bye", session(svc), streamed=streamed)
    groups = await svc.conversations.stats(
        tenant_id="acme", from_date="2000-01-01", to_date="2099-12-31", interval="total",
        group_by="model",
    )  # fmt: skip
    counted = {
        each.group: (each.requests, each.input_tokens, each.cached_input_tokens,
                     each.cache_write_tokens, each.output_tokens, each.reasoning_tokens)
        for each in groups
    }  # fmt: skip
    assert counted["openai/a"] == counted["openai/b"] == (1, 100, 60, 10, 20, 5)
    assert counted[None] == (1, 2, 0, 0, 5, 0)
    row = await svc.conversations.get_by_id("s1", tenant_id="acme")
    assert (row.tokens, row.round) == (247, 2)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_run_that_waits_for_an_approval_resumes_in_another_process(dsn, streamed):
    async with asyncsvc.connect(dsn) as svc:
        bot = agent(
            step(function_call("look", {"place": "depot"}, call_id="c1"), tokens=100),
            step(function_call("pay", {"amount": 5}, call_id="c2"), tokens=20),
        )
        result = await run(bot, "Pay it", session(svc), streamed=streamed)
        paused = result.to_state().to_json()
    async with asyncsvc.connect(dsn) as svc:
        bot = agent(step(assistant_message("Paid."), tokens=3))
        state = await agents.RunState.from_json(bot, paused)
        for interruption in state.get_interruptions():
            state.approve(interruption)
        result = await run(bot, state, session(svc), streamed=streamed)
        assert result.final_output == "Paid."
        kinds = [item.get("type", "message") for item in await session(svc).get_items()]
        call = ["function_call", "function_call_output"]
        assert kinds == ["message", *call, *call, "message"]
        row = await svc.conversations.get_by_id("s1", tenant_id="acme")
        assert (row.tokens, row.round) == (123, 1)


async def test_the_limit_of_a_run_overrides_that_of_the_session(svc):
    stored = session(svc, session_settings=SessionSettings(limit=100))
    await stored.add_items(texts(*(str(number) for number in range(10))))
    bot = agent(step(assistant_message("Yes.")))
    await run(bot, "New", stored, run_config=RunConfig(session_settings=SessionSettings(limit=2)))
    assert contents(bot.model.calls[-1].input) == ["8", "9", "New"]


async def test_32_sessions_at_once_keep_their_own_items(svc):
    async def talk(number):
        stored = session(svc, f"s{number}")
        for turn in range(3):
            bot = agent(step(assistant_message(f"{number}.{turn}")))
            await run(bot, f"question {turn}", stored)
        return await stored.get_items()

    results = await asyncio.gather(*map(talk, range(32)))
    for number, items in enumerate(results):
        answers = [item["content"][0]["text"] for item in items[1::2]]
        assert answers == [f"{number}.{turn}" for turn in range(3)]


# ---------------------------------------------------------------------------- compaction

SUMMARY = {"type": "compaction", "id": "cmp_1", "encrypted_content": "summary"}


class Compactor:
    """The client of a compaction. It answers with a summary, after another program's turn."""

    def __init__(self, before=None):
        self.responses = self
        self.inputs = []
        self._before = before

    async def compact(self, **arguments):
        self.inputs.append(arguments["input"])
        if self._before is not None:
            await self._before()
        return SimpleNamespace(output=[SUMMARY], usage=None)


def compacting(svc, client, **options):
    return OpenAIResponsesCompactionSession(
        "s1",
        session(svc, **options),
        client=client,
        compaction_mode="input",
        should_trigger_compaction=lambda context: len(context["compaction_candidate_items"]) > 1,
    )


async def test_a_run_compacts_what_its_model_has_seen_and_keeps_older_items(svc):
    await session(svc).add_items(texts("old 1", "old 2", "old 3"))
    client = Compactor()
    bot = agent(
        step(function_call("look", {"place": "depot"}, call_id="c1")),
        step(assistant_message("Found.")),
    )
    await run(bot, "Where?", compacting(svc, client, session_settings={"limit": 1}))
    (seen,) = client.inputs
    assert [each.get("content") for each in seen[:2]] == ["old 3", "Where?"]
    assert await session(svc).get_items() == [*texts("old 1", "old 2"), SUMMARY]


async def test_a_compaction_keeps_what_another_program_has_appended_meanwhile(svc):
    async def interrupt():
        await session(svc).add_items(texts("meanwhile"))

    bot = agent(
        step(function_call("look", {"place": "depot"}, call_id="c1")),
        step(assistant_message("Found.")),
    )
    await run(bot, "Where?", compacting(svc, Compactor(interrupt)))
    items = await session(svc).get_items()
    assert [items[0]["content"], items[-1]["content"], len(items)] == ["Where?", "meanwhile", 5]


async def test_a_manual_compaction_replaces_all_items_or_none(svc, monkeypatch):
    await session(svc).add_items([QUESTION, ANSWER, *texts("more")])
    compacted = compacting(svc, Compactor())
    await compacted.run_compaction({"force": True})
    assert await session(svc).get_items() == [SUMMARY]
    await session(svc).add_items([QUESTION])
    items = [SUMMARY, {"role": "user", "content": "a\x00"}]
    with pytest.raises(InvalidInput):
        await session(svc)._atomic_replace_items(items)
    assert await session(svc).get_items() == [SUMMARY, QUESTION]


async def test_a_compaction_does_not_bypass_a_subclass_that_changes_items(svc):
    class Loud(Session):
        async def get_items(self, limit=None, *, wrapper=None):
            items = await super().get_items(limit, wrapper=wrapper)
            return [{**each, "content": each["content"].upper()} for each in items]

    loud = Loud("s1", svc, **OWNER)
    await loud.add_items(texts("a"))
    assert await loud._get_compaction_snapshot(5) is None
    assert not await loud._atomic_replace_items([SUMMARY])
    assert contents(await loud.get_items()) == ["A"]


async def test_a_replacement_deletes_the_oldest_items_that_are_expired(svc):
    stored = session(svc)
    await stored.add_items(texts("old 1", "old 2", "live", "old 3", "new"))

    def is_expired(item):
        return item["content"].startswith("old")

    snapshot = await stored._get_compaction_snapshot(1, prune_prefix=is_expired)
    assert await snapshot.replace_suffix(0, [SUMMARY])
    assert await stored.get_items() == [*texts("live", "old 3"), SUMMARY]


async def test_an_encrypted_session_is_compacted_too(svc):
    bot = agent(
        step(function_call("look", {"place": "depot"}, call_id="c1")),
        step(assistant_message("Found.")),
    )
    encrypted = EncryptedSession("s1", compacting(svc, Compactor()), encryption_key="key")
    await run(bot, "Where?", encrypted)
    assert await encrypted.get_items() == [SUMMARY]
    assert [item["__enc__"] for item in await session(svc).get_items()] == [1]


async def test_a_snapshot_replaces_only_unchanged_items(svc):
    stored = session(svc)
    await stored.add_items(texts(*"abcd"))
    snapshot = await stored._get_compaction_snapshot(3)
    assert (contents(snapshot.items), snapshot.complete) == (list("bcd"), False)
    await svc.conversations.update_message("s1", 3, {"content": "edited"}, tenant_id="acme")
    assert not await snapshot.replace_suffix(1, [SUMMARY])
    assert contents(await stored.get_items()) == list("abcd")
    assert await snapshot.replace_suffix(2, [SUMMARY, QUESTION])
    assert await stored.get_items() == [*texts(*"abc"), SUMMARY, QUESTION]
    assert not await snapshot.replace_suffix(2, [SUMMARY])
    assert not await snapshot.replace_suffix(3, [SUMMARY])
    assert await (await stored._get_compaction_snapshot(2)).replace_suffix(1, [])
    assert await stored.get_items() == [*texts(*"abc"), SUMMARY]
    whole = await stored._get_compaction_snapshot(5)
    assert (len(whole.items), whole.complete) == (4, True)
    await svc.conversations.delete_by_id("s1", tenant_id="acme")
    assert not await whole.replace_suffix(0, [SUMMARY])
    assert await stored._get_compaction_snapshot(5) == CompactionSnapshot([], True, mock.ANY)
    assert await stored._get_compaction_snapshot(1_000) is None
    with pytest.raises(NotFound):
        await svc.conversations.get_by_id("s1", tenant_id="acme")
