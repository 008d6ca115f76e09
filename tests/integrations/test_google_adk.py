"""The session service of ADK: the same calls on its own services and on this one."""

import asyncio
import contextlib
import itertools
import urllib.parse
from datetime import UTC, datetime, timedelta

import pytest
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events import Event, EventActions
from google.adk.sessions import DatabaseSessionService, InMemorySessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai import types

import asyncsvc
from asyncsvc import InvalidInput, Settings, Unavailable
from asyncsvc.integrations.google_adk import SessionService
from tests.integrations.histories import counted, ledger_usage
from tests.support.wire import Fault, Wire

OWNER = {"app_name": "app", "user_id": "ann"}
ALL_STATES = {"k": 1, "app:a": {"x": 1}, "user:u": [1], "temp:t": 1}
STATES = [
    {"k": None, "o": {"a": {"b": 1}, "n": None}, "": 0, "ä": "x"},
    {"o": {"c": None}, "app:a": {"x": 1}, "app:n": None, "user:u": {"y": [1, None]}},
    {"app:a": {"z": 2}, "user:u": None, "user:": 1, "app:": 2, "k": [None], "temp:k": 1},
    {"app:user:x": 1, "user:app:x": 2, "session_id": "x", "user": 1, "appx": 2, "temperature": 3},
    {"app:a": [], "user:u": {}, "o": {}},
]


def service(svc, tenant_id="acme", **options):
    return SessionService(svc, tenant_id=tenant_id, **options)


def event(text="Hi.", author="user", delta=None, **fields):
    role = "user" if author == "user" else "model"
    content = types.Content(role=role, parts=[types.Part(text=text)])
    actions = EventActions(state_delta=dict(delta or {}))
    return Event(author=author, invocation_id="i", content=content, actions=actions, **fields)


def texts(session):
    return [each.content.parts[0].text for each in session.events]


async def get(service, session_id="s1", **config):
    return await service.get_session(
        **OWNER, session_id=session_id, config=GetSessionConfig(**config) if config else None
    )


@pytest.fixture(params=["in memory", "database"])
async def own(request, empty_dsn):
    """A session service of ADK itself."""
    if request.param == "in memory":
        yield InMemorySessionService()
    else:
        url = urllib.parse.urlsplit(empty_dsn)._replace(scheme="postgresql+asyncpg").geturl()
        async with DatabaseSessionService(url) as database:
            yield database


# ---------------------------------------------------------------- the same calls on ADK's services


async def test_states_of_all_scopes_are_equal_to_those_of_adk(own, svc):
    seen = []
    for sessions in (own, service(svc)):
        results = []
        for delta, user in itertools.product(STATES, ("ann", "bob")):
            names = {"app_name": "app", "user_id": user}
            session = await sessions.create_session(**names, session_id=None, state=dict(delta))
            results.append(session.state)
            for other in STATES:
                await sessions.append_event(session, event(delta=other))
                stored = await sessions.get_session(**names, session_id=session.id)
                results += [stored.state, [each.actions.state_delta for each in stored.events]]
            results.append(await sessions.get_user_state(**names))
        for user in ("ann", "bob", None):
            listed = await sessions.list_sessions(app_name="app", user_id=user)
            results.append([each.state for each in listed.sessions])
        results.append(await sessions.get_user_state(app_name="other", user_id="ann"))
        seen.append(results)
    assert seen[0] == seen[1]


async def test_sessions_are_read_back_equal(own, svc):
    for sessions in (own, service(svc)):
        session = await sessions.create_session(**OWNER, session_id="s1", state=dict(ALL_STATES))
        assert await get(sessions) == session
        await sessions.append_event(
            session, event(delta={"k": 2, "user:u": None}, timestamp=5.123456)
        )
        assert await get(sessions) == session
        assert session.last_update_time == 5.123456
        (listed,) = (await sessions.list_sessions(app_name="app")).sessions
        assert listed == session.model_copy(update={"events": []})


async def test_events_of_all_kinds_are_read_back_equal(own, svc):
    call = types.FunctionCall(id="c1", name="look", args={"x": [1, None], "n": None})
    response = types.FunctionResponse(id="c1", name="look", response={"place": None})
    blob = types.GroundingMetadata(search_entry_point=types.SearchEntryPoint(sdk_blob=b"\x00\xff"))
    usage = types.GenerateContentResponseUsageMetadata(total_token_count=12)
    heard = types.Transcription(text="Well?", finished=True)
    actions = EventActions(
        artifact_delta={"file": 0},
        transfer_to_agent="other",
        escalate=True,
        state_delta={"k": None},
    )
    parts = [
        types.Part(text="Thinking.", thought=True),
        types.Part(text="I look."),
        types.Part.from_bytes(data=b"\x00\xff", mime_type="image/png"),
        types.Part(function_call=call),
    ]
    events = [
        event("ä\U0001f600 é"),
        Event(author="agent", content=types.Content(role="model", parts=parts), branch="a.b"),
        Event(
            author="agent",
            content=types.Content(role="user", parts=[types.Part(function_response=response)]),
            long_running_tool_ids={"c1"},
            actions=actions,
            usage_metadata=usage,
            custom_metadata={"a": None},
        ),
        Event(author="agent", error_code="E", error_message="no", turn_complete=True),
        Event(author="user", interrupted=True, partial=False, input_transcription=heard),
        Event(author="agent", grounding_metadata=blob, content=types.Content(role="model")),
    ]
    for sessions in (own, service(svc)):
        session = await sessions.create_session(**OWNER, session_id="s1")
        for each in events:
            assert await sessions.append_event(session, each.model_copy(deep=True)) == each
        stored = await get(sessions)
        assert stored == session
        assert stored.events == events
    (row,) = (await svc.conversations.get_list(tenant_id="acme", include_messages=True)).items
    assert [(each.role, each.content) for each in row.messages] == [
        ("user", "ä\U0001f600 é"),
        ("assistant", "I look."),
        ("tool", ""),
        ("assistant", ""),
        ("user", "Well?"),
        ("assistant", ""),
    ]
    assert [each.id for each in row.messages] == [each.id for each in events]
    assert (row.tokens, row.round, row.dialog_id, row.user_id) == (12, 2, "app", "ann")


async def test_the_usage_of_events_is_stored_by_model(svc, pool):
    sessions = service(svc)
    session = await sessions.create_session(**OWNER, session_id="s1")
    usage = types.GenerateContentResponseUsageMetadata(
        prompt_token_count=20,
        cached_content_token_count=16,
        candidates_token_count=3,
        thoughts_token_count=2,
        tool_use_prompt_token_count=1,
        total_token_count=26,
    )
    answer = event("Yes.", "agent", usage_metadata=usage, model_version="gemini-2.5-flash")
    await sessions.append_event(session, answer)
    assert await ledger_usage(pool) == [("gemini-2.5-flash", 21, 16, 0, 5, 2, None)]


async def test_limits_of_events_are_those_of_adk(own, svc):
    numbers, times = (None, 0, 1, 3, 99), (None, 0.0, 1.0, 2.5, 4.0, 99.0)
    configs = [{"num_recent_events": n, "after_timestamp": t} for n in numbers for t in times]
    seen = []
    for sessions in (own, service(svc)):
        session = await sessions.create_session(**OWNER, session_id="s1")
        for second in range(1, 6):
            await sessions.append_event(session, event(str(second), timestamp=float(second)))
        seen.append([texts(await get(sessions, **each)) for each in configs])
    assert seen[0] == seen[1]


async def test_more_events_than_a_page_has(dsn):
    settings = Settings(max_page_size=3, max_batch_size=2)
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        sessions = service(svc)
        for user in "abcd":
            for _ in range(2):
                await sessions.create_session(app_name="app", user_id=user, state={"user:u": user})
        listed = (await sessions.list_sessions(app_name="app")).sessions
        assert [each.state["user:u"] for each in listed] == list("aabbccdd")
        session = await sessions.create_session(**OWNER, session_id="s1")
        for second in range(1, 9):
            await sessions.append_event(session, event(str(second), timestamp=float(second)))
        for config, expected in (
            ({}, "12345678"),
            ({"num_recent_events": 5}, "45678"),
            ({"after_timestamp": 2.0}, "2345678"),
            ({"after_timestamp": 2.0, "num_recent_events": 5}, "45678"),
            ({"after_timestamp": 7.0, "num_recent_events": 5}, "78"),
        ):
            assert texts(await get(sessions, **config)) == list(expected)


async def test_the_list_is_in_the_order_of_updates(own, svc):
    seen = []
    for sessions in (own, service(svc)):
        for id, user, second in (("b", "x", 3), ("c", "x", 1), ("a", "y", 2), ("d", "w", 2)):
            names = {"app_name": "app", "user_id": user}
            session = await sessions.create_session(**names, session_id=id)
            await sessions.append_event(session, event(timestamp=float(second)))
        await sessions.create_session(app_name="other", user_id="x", session_id="e")
        seen.append(
            [
                [(each.id, each.events) for each in (await listed).sessions]
                for listed in (
                    sessions.list_sessions(app_name="app"),
                    sessions.list_sessions(app_name="app", user_id="x"),
                    sessions.list_sessions(app_name="app", user_id="absent"),
                    sessions.list_sessions(app_name="none"),
                )
            ]
        )
    assert seen[0] == seen[1]
    assert [id for id, _ in seen[1][0]] == ["c", "d", "a", "b"]


async def test_equal_ids_of_other_users_and_apps_are_other_sessions(own, svc):
    names = [(app, user) for app in ("app", "app2") for user in ("ann", "ann2", "")]
    for sessions in (own, service(svc), service(svc, "globex")):
        for app, user in names:
            session = await sessions.create_session(app_name=app, user_id=user, session_id="s1")
            await sessions.append_event(session, event(app + user))
        await sessions.delete_session(app_name="app", user_id="ann", session_id="s1")
        for app, user in names:
            stored = await sessions.get_session(app_name=app, user_id=user, session_id="s1")
            assert (stored and texts(stored)) == (None if (app, user) == names[0] else [app + user])


async def test_a_deleted_session_is_gone_and_the_states_of_its_user_stay(own, svc):
    for sessions in (own, service(svc)):
        session = await sessions.create_session(**OWNER, session_id="s1", state=dict(ALL_STATES))
        await sessions.append_event(session, event())
        for _ in range(2):
            await sessions.delete_session(**OWNER, session_id="s1")
        assert await get(sessions) is None
        assert await sessions.get_user_state(**OWNER) == {"u": [1]}
        with pytest.raises(SessionNotFoundError, match=r"Session (s1|none) not found\."):
            await sessions.append_event(session, event())
        again = await sessions.create_session(**OWNER, session_id="s1")
        assert again.state == {"app:a": {"x": 1}, "user:u": [1]}
        assert again.events == []


async def test_an_id_is_used_once_and_a_missing_one_is_chosen(own, svc):
    for sessions in (own, service(svc)):
        first = await sessions.create_session(**OWNER, session_id="s1", state={"app:a": 1})
        with pytest.raises(AlreadyExistsError):
            await sessions.create_session(**OWNER, session_id="s1", state={"k": 2, "app:a": 2})
        assert await get(sessions) == first
        chosen = [await sessions.create_session(**OWNER) for _ in range(2)]
        assert len({each.id for each in chosen}) == 2
        assert await get(sessions, chosen[0].id) == chosen[0]


async def test_temporary_values_and_partial_events_are_not_stored(own, svc):
    for sessions in (own, service(svc)):
        session = await sessions.create_session(**OWNER, session_id="s1", state={"temp:a": 1})
        assert session.state == {}
        partial = event(partial=True, delta={"temp:b": 1, "k": 1})
        assert await sessions.append_event(session, partial) is partial
        assert session.events == []
        appended = await sessions.append_event(session, event(delta={"temp:c": 1, "k": 2}))
        assert appended.actions.state_delta == {"k": 2}
        assert session.state == {"temp:c": 1, "k": 2}
        stored = await get(sessions)
        assert (stored.state, stored.events) == ({"k": 2}, session.events)


async def test_values_that_are_no_json_are_stored_as_by_adk(own, svc):
    states = {}
    for name, sessions in (("own", own), ("ours", service(svc))):
        session = await sessions.create_session(**OWNER, session_id="s1")
        await sessions.append_event(session, event(delta={"f": len, "s": {1}, "user:t": (1, 2)}))
        states[name] = (await get(sessions)).state
    if isinstance(own, DatabaseSessionService):
        assert states["own"] == states["ours"]
    assert states["ours"] == {"f": "<built-in function len>", "s": [1], "user:t": [1, 2]}


# ------------------------------------------------------------------------------- stale sessions


async def test_a_session_that_lacks_newer_events_is_stale(own, svc):
    if isinstance(own, InMemorySessionService):
        pytest.skip("it accepts stale sessions")
    for sessions in (own, service(svc)):
        first = await sessions.create_session(**OWNER, session_id="s1")
        second = await get(sessions)
        await sessions.append_event(first, event("a", delta={"k": 1, "app:a": 1}))
        with pytest.raises(StaleSessionError, match="modified in storage"):
            await sessions.append_event(second, event("b", delta={"k": 2, "app:a": 2}))
        assert (second.events, second.state) == ([], {})
        await sessions.append_event(first, event("c"))
        stored = await get(sessions)
        assert (texts(stored), stored.state) == (["a", "c"], {"k": 1, "app:a": 1})
        await sessions.append_event(stored, event("d"))


async def test_a_session_of_other_means_is_stale_without_the_last_event(own, svc):
    if isinstance(own, InMemorySessionService):
        pytest.skip("it accepts stale sessions")
    for sessions in (own, service(svc)):
        session = await sessions.create_session(**OWNER, session_id="s1")
        old = Session.model_validate_json(session.model_dump_json())
        for second in (1, 2):
            await sessions.append_event(
                session, event(str(second), timestamp=session.last_update_time + 1)
            )
        copied = Session.model_validate_json(session.model_dump_json())
        await sessions.append_event(copied, event("3", timestamp=session.last_update_time + 1))
        earlier = session.model_copy(update={"last_update_time": 0.0, "events": copied.events})
        earlier._storage_update_marker = None
        await sessions.append_event(earlier, event("4", timestamp=copied.last_update_time + 1))
        with pytest.raises(StaleSessionError):
            await sessions.append_event(old, event("5"))
        assert texts(await get(sessions)) == ["1", "2", "3", "4"]
        unknown = Session(id="none", app_name="app", user_id="ann")
        with pytest.raises(SessionNotFoundError, match=r"Session (s1|none) not found\."):
            await sessions.append_event(unknown, event())


async def test_appends_of_one_session_object_are_stored_in_its_order(own, svc):
    for sessions in (own, service(svc)):
        session = await sessions.create_session(**OWNER, session_id="s1")
        await asyncio.gather(
            *(sessions.append_event(session, event(str(n), timestamp=float(n))) for n in range(32))
        )
        stored = await get(sessions)
        assert texts(stored) == texts(session)
        assert sorted(map(int, texts(session))) == list(range(32))


async def test_of_32_stale_sessions_one_appends(svc):
    sessions = service(svc)
    await sessions.create_session(**OWNER, session_id="s1")
    loaded = [await get(service(svc)) for _ in range(32)]
    results = await asyncio.gather(
        *(service(svc).append_event(each, event(str(n))) for n, each in enumerate(loaded)),
        return_exceptions=True,
    )
    stale = [each for each in results if isinstance(each, StaleSessionError)]
    assert len(stale) == 31
    assert len((await get(sessions)).events) == 1


async def test_32_writers_of_all_states_lose_no_key(svc):
    async def write(number):
        sessions = service(svc)
        session = await sessions.create_session(
            **OWNER, session_id=f"s{number}", state={f"app:c{number}": None}
        )
        for turn in range(3):
            key = f"{number}.{turn}"
            delta = {f"app:{key}": {"a": None}, f"user:{key}": None, key: [number]}
            await sessions.append_event(session, event(delta=delta))

    await asyncio.gather(*map(write, range(32)))
    keys = [f"{number}.{turn}" for number in range(32) for turn in range(3)]
    for number in range(32):
        state = (await get(service(svc), f"s{number}")).state
        expected = {f"app:c{each}": None for each in range(32)}
        expected |= {f"app:{key}": {"a": None} for key in keys}
        expected |= {f"user:{key}": None for key in keys}
        assert state == expected | {f"{number}.{turn}": [number] for turn in range(3)}


# ------------------------------------------------------------------- ids, limits, other programs


async def test_an_equal_event_is_stored_once(svc):
    sessions = service(svc)
    session = await sessions.create_session(**OWNER, session_id="s1")
    first = event("a", id="e1", delta={"k": 1})
    await sessions.append_event(session, first)
    await sessions.append_event(session, event("b", id="e2"))
    assert await sessions.append_event(session, first.model_copy(deep=True)) == first
    assert texts(session) == texts(await get(sessions)) == ["a", "b"]
    await sessions.append_event(session, event("c"))


async def test_other_events_with_an_equal_id_are_stored(svc):
    sessions = service(svc)
    session = await sessions.create_session(**OWNER, session_id="s1")
    same = [event(text, id="e1", delta={"app:" + text: 1}) for text in "abc"]
    odd = [event("d"), event("e", id="i" * 129), event("f", id="i" * 128)]
    odd[0].id = ""
    for each in same + odd:
        await sessions.append_event(session, each)
    stored = await get(sessions)
    assert texts(stored) == list("abcdef")
    assert [each.id for each in stored.events[:3]] == ["e1"] * 3
    assert [len(each.id) for each in stored.events[4:]] == [129, 128]
    assert stored.state == {"app:a": 1, "app:b": 1, "app:c": 1}


async def test_an_append_can_be_repeated_after_a_lost_reply(dsn):
    for name, delta in (("append_message", {"k": 1}), ("COMMIT", {"app:a": 1})):
        async with Wire(dsn) as wire, asyncsvc.connect(wire.dsn) as svc:
            sessions = service(svc, name)
            session = await sessions.create_session(**OWNER, session_id="s1")
            lost = event("a", delta=delta)
            injection = wire.inject(Fault.LOSE_REPLY, name)
            with pytest.raises(Unavailable):
                await sessions.append_event(session, lost)
            assert injection.count == 1
            assert session.events == []
            await sessions.append_event(session, lost)
            await sessions.append_event(session, event("b"))
            assert await get(sessions) == session
            assert texts(session) == ["a", "b"]


async def test_a_cancelled_append_leaves_the_session_usable(svc):
    sessions = service(svc)
    session = await sessions.create_session(**OWNER, session_id="s1")
    async with svc.transaction() as tx:
        blocking = await get(service(tx))
        await service(tx).append_event(blocking, event("first"))
        waiting = asyncio.create_task(sessions.append_event(session, event("second")))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
    assert session.events == []
    with pytest.raises(StaleSessionError):
        await sessions.append_event(session, event("third"))
    assert texts(await get(sessions)) == ["first"]


@pytest.mark.parametrize("id", ["a b", "a/b", '["x"]', "ä" * 128, "\U0001f600", "x" * 400])
async def test_odd_ids(svc, id):
    sessions = service(svc)
    name = id[:128]
    session = await sessions.create_session(app_name=name, user_id=name, session_id=id)
    await sessions.append_event(session, event())
    assert session.id == id
    assert await sessions.get_session(app_name=name, user_id=name, session_id=id) == session
    assert await sessions.get_session(app_name=name, user_id=name, session_id=id + "x") is None


async def test_whitespace_around_an_id_is_ignored(svc):
    for sessions in (InMemorySessionService(), service(svc)):
        created = await sessions.create_session(**OWNER, session_id=" s1\n", state={"k": 1})
        assert created.id == "s1"
        assert await get(sessions, "s1") == await get(sessions, " s1 ") == created
        with pytest.raises(AlreadyExistsError):
            await sessions.create_session(**OWNER, session_id="s1 ")
        assert (await sessions.create_session(**OWNER, session_id="  ")).id.strip()
        await sessions.delete_session(**OWNER, session_id=" s1")
        assert await get(sessions, "s1") is None


async def test_large_and_odd_events(svc, dsn):
    sessions = service(svc)
    session = await sessions.create_session(**OWNER, session_id="s1")
    await sessions.append_event(session, event("ä" * 2**20 + "end"))
    assert await get(sessions) == session
    for odd in (event("a\x00"), event(delta={"app:a\x00": 1}), event(delta={"k": float("nan")})):
        with pytest.raises(InvalidInput):
            await sessions.append_event(session, odd)
    with pytest.raises(InvalidInput):
        await sessions.create_session(app_name="", user_id="ann")
    async with asyncsvc.connect(dsn, settings=Settings(unstorable_text="replace")) as replacing:
        await service(replacing).append_event(session, event("a\x00"))
    assert texts(await get(sessions))[1:] == ["a\ufffd"]


async def test_conversations_and_messages_of_other_programs(svc):
    sessions = service(svc)
    session = await sessions.create_session(**OWNER, session_id="s1")
    for dsl in (None, {}, [1]):
        await svc.conversations.create(tenant_id="acme", dialog_id="app", user_id="ann", dsl=dsl)
    assert [each.id for each in (await sessions.list_sessions(app_name="app")).sessions] == ["s1"]
    await sessions.append_event(session, event("Hello."))
    (row,) = (await svc.conversations.get_list(tenant_id="acme", keywords="Hello")).items
    turn = {
        "messages": [{"role": "user", "content": "b", "id": "m"}, {"role": "op", "content": "c"}]
    }
    await svc.conversations.append_message(row.id, turn, tenant_id="acme")
    stored = await get(sessions)
    authors = [(each.id, each.author, each.content.role) for each in stored.events[1:]]
    assert authors == [("m", "user", "user"), ("3", "op", "model")]
    assert texts(stored) == ["Hello.", "b", "c"]
    with pytest.raises(StaleSessionError):
        await sessions.append_event(session, event("d"))
    await sessions.append_event(stored, event("d"))


async def test_the_erasure_of_a_user_erases_the_state(svc):
    sessions = service(svc)
    for user in ("ann", "bob"):
        names = {"app_name": "app", "user_id": user}
        await sessions.create_session(**names, session_id="s1", state=dict(ALL_STATES))
    await svc.conversations.erase_user("ann", tenant_id="acme")
    assert await get(sessions) is None
    assert await sessions.get_user_state(**OWNER) == {}
    (left,) = (await sessions.list_sessions(app_name="app")).sessions
    assert left.state == {"k": 1, "app:a": {"x": 1}, "user:u": [1]}


async def test_usage_is_attributed_to_the_token(svc):
    sessions = service(svc, token_id="t1")
    session = await sessions.create_session(**OWNER)
    await sessions.append_event(session, event())
    now = datetime.now(UTC)
    period = {"from_date": now - timedelta(days=1), "to_date": now + timedelta(days=1)}
    for token_id, rounds in (("t1", 1), ("t2", 0)):
        buckets = await svc.conversations.stats(
            tenant_id="acme", token_id=token_id, basis="activity", **period
        )
        assert sum(each.rounds for each in buckets) == rounds


async def test_sessions_in_a_transaction_of_the_application(svc):
    with contextlib.suppress(ZeroDivisionError):
        async with svc.transaction() as tx:
            session = await service(tx).create_session(**OWNER, session_id="s1", state={"app:a": 1})
            await service(tx).append_event(session, event(delta={"user:u": 1}))
            assert await get(service(tx)) == session
            raise ZeroDivisionError
    assert await get(service(svc)) is None
    assert await service(svc).get_user_state(**OWNER) == {}


async def test_round_trips(dsn):
    async with counted(dsn) as (svc, round_trips):
        sessions = service(svc)

        async def create(id, state=None):
            return await sessions.create_session(**OWNER, session_id=id, state=state)

        async def append(session, **delta):
            await sessions.append_event(session, event(delta=delta))

        async def read(id, **config):
            await get(sessions, id, **config)

        for id in ("warm", "counted"):
            session = await create(id + "0")
            counts = {
                "create": await round_trips(create, id + "1"),
                "create with all states": await round_trips(create, id + "2", dict(ALL_STATES)),
                "append": await round_trips(append, session),
                "append with state": await round_trips(lambda s: append(s, k=1), session),
                "append with the user's": await round_trips(
                    lambda s: append(s, **{"user:a": 1}), session
                ),
                "append with all": await round_trips(lambda s: append(s, **ALL_STATES), session),
                "get": await round_trips(read, id + "0"),
                "get the last 20": await round_trips(
                    lambda s: read(s, num_recent_events=20), id + "0"
                ),
                "get no event": await round_trips(lambda s: read(s, num_recent_events=0), id + "0"),
                "list": await round_trips(lambda: sessions.list_sessions(app_name="app")),
                "state": await round_trips(lambda: sessions.get_user_state(**OWNER)),
                "delete": await round_trips(
                    lambda s: sessions.delete_session(**OWNER, session_id=s), id + "0"
                ),
            }
        assert counts == {
            "create": 2,
            "create with all states": 6,
            "append": 1,
            "append with state": 1,
            "append with the user's": 4,
            "append with all": 5,
            "get": 3,
            "get the last 20": 3,
            "get no event": 2,
            "list": 2,
            "state": 1,
            "delete": 1,
        }
