"""Each parameter of each public method rejects invalid values by its name, before any SQL."""

import contextlib
import copy
import inspect
import json
import pickle
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from types import MappingProxyType
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from pydantic import BaseModel, ValidationError

import asyncsvc
from asyncsvc import (
    ConversationPatch,
    InvalidInput,
    Message,
    MessagePatch,
    NewConversation,
    Settings,
    TokenPatch,
    Turn,
)
from tests.support.registry import METHODS
from tests.support.registry.bad_values import BAD, JSON, OBJECT, nested

TURN = {"messages": [{"role": "user", "content": "hello"}]}


def turn(**message: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": "hello"} | message]}


CASES = [
    pytest.param(method, parameter, id=f"{method}-{parameter}")
    for method in METHODS
    for parameter in method.arguments()
    if parameter in BAD and parameter not in method.unchecked
]


@pytest.fixture
async def unconnected():
    """The services on a pool without a server: any SQL raises Unavailable."""
    return asyncsvc.AsyncSvc(asyncpg.create_pool("postgresql://nobody@127.0.0.1:1/none"))


STATE = """
    SELECT array(SELECT (name, setting)::text FROM pg_settings
                  WHERE source = 'session' AND setting <> reset_val ORDER BY name),
           array(SELECT locktype FROM pg_locks WHERE pid = pg_backend_pid()
                  AND locktype NOT IN ('relation', 'virtualxid')),
           array(SELECT pg_listening_channels()),
           pg_my_temp_schema(),
           array(SELECT name FROM pg_cursors),
           current_user, session_user
"""


async def test_no_call_leaves_state_in_a_session(empty_dsn):
    """Therefore a pool of `connect` does not reset a connection on its release."""
    async with asyncsvc.connect(empty_dsn, max_size=1) as svc:

        async def state():
            return tuple(await svc._executor._pool.fetchrow(STATE))

        before = await state()
        await svc.migrate()
        for method in (each for each in METHODS if each.sends_statements):
            with contextlib.suppress(asyncsvc.AsyncSvcError):
                await method.run(svc, method.arguments())
            assert await state() == before, method
        with contextlib.suppress(ZeroDivisionError):
            async with svc.transaction() as tx:
                await tx.conversations.import_([], tenant_id="t")
                raise ZeroDivisionError
        await svc.conversations.import_(
            [{"id": "x", "dialog_id": "d", "messages": []}], tenant_id="t"
        )
        assert await state() == before


@pytest.mark.parametrize("method", [each for each in METHODS if each.sends_statements], ids=str)
async def test_a_valid_call_queries_the_database(method, unconnected):
    with method.raises(asyncsvc.Unavailable):
        await method.run(unconnected, method.arguments())


@pytest.mark.parametrize(("method", "parameter"), CASES)
async def test_each_parameter_rejects_invalid_values_before_any_sql(method, parameter, unconnected):
    valid = method.arguments()
    service = method.name.partition(".")[0]
    of_service = BAD.get(f"{service}.{parameter}", BAD[parameter])
    for value in BAD.get(f"{method}.{parameter}", of_service):
        if value is None and parameter in method.accepts_none:
            continue
        with pytest.raises(InvalidInput) as caught:
            await method.run(unconnected, valid | {parameter: value})
        assert caught.value.field.split(".")[0] == parameter, value
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("turn.messages", {"messages": [TURN["messages"][0]] * 1001}),
        ("turn", {"messages": [{"role": "user", "content": "x" * 2**20}] * 33}),
        (
            "turn",
            {"messages": [{"role": "u", "content": "x" * 2**20}] * 31}
            | {"dsl": "x" * (2**20 - 2), "errors": "x" * 2**20},
        ),
        ("turn.messages.0.content", turn(content="x" * 100 * 2**20)),
        ("turn.messages.0.content", turn(content="é" * 2**20)),
        ("turn.messages.0.content", turn(content="a\x00b")),
        ("turn.messages.0.content", turn(content="\ud800")),
        ("turn.messages.0.content", turn(content=None)),
        ("turn.messages.0.role", turn(role="")),
        ("turn.messages.0.nonsense", turn(nonsense=1)),
        *(("turn.messages.0.payload", turn(payload=value)) for value in OBJECT),
        *(("turn.messages.0.reference", turn(reference=value)) for value in JSON),
        *(("turn.tokens", TURN | {"tokens": value}) for value in (-1, 10**13, 1.5, True, "1")),
        *(
            ("turn.duration", TURN | {"duration": value})
            for value in (-0.1, float("nan"), float("inf"), 10**10, "1", True)
        ),
        *(("turn.round", TURN | {"round": value}) for value in (-1, 10**7, 1.0, True)),
        *(("turn.errors", TURN | {"errors": value}) for value in (5, "\x00", "x" * 2**21)),
        *(("turn.dsl", TURN | {"dsl": value}) for value in JSON),
        ("turn.nonsense", TURN | {"nonsense": 1}),
    ],
)
async def test_an_invalid_turn_is_rejected_by_the_path_of_its_field(field, bad, unconnected):
    with pytest.raises(InvalidInput) as caught:
        await unconnected.conversations.append_message("a", bad, tenant_id="acme")
    assert caught.value.field == field


async def test_a_rejected_append_changes_no_row(svc):
    await svc.conversations.create(tenant_id="acme", dialog_id="d", id="a")
    await svc.conversations.append_message("a", TURN, tenant_id="acme")
    before = await svc.conversations.get_by_id("a", tenant_id="acme", include_messages=True)
    for bad in (turn(content="\x00"), turn(payload={"x": nested(100)}), TURN | {"tokens": -1}):
        with pytest.raises(InvalidInput):
            await svc.conversations.append_message("a", bad, tenant_id="acme")
    after = await svc.conversations.get_by_id("a", tenant_id="acme", include_messages=True)
    assert after == before


async def test_an_input_is_validated_by_the_limits_of_the_service_that_uses_it(dsn):
    long = Turn(messages=[Message(role="user", content="x" * 100)])
    for limit, fits in ((99, False), (100, True)):
        async with asyncsvc.connect(dsn, settings=Settings(max_message_bytes=limit)) as svc:
            id = (await svc.conversations.create(tenant_id="acme", dialog_id="d")).id
            if fits:
                await svc.conversations.append_message(id, long, tenant_id="acme")
            else:
                with pytest.raises(InvalidInput, match=r"turn\.messages\.0\.content"):
                    await svc.conversations.append_message(id, long, tenant_id="acme")


async def test_json_of_64_levels_and_the_longest_ids_are_stored(svc):
    deep, id = nested(64), "界" * 128
    stored = await svc.conversations.create(tenant_id=id, dialog_id=id, id=id, dsl=deep)
    assert stored.dsl == deep
    assert (await svc.conversations.get_by_id(id, tenant_id=id)).id == id


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Message(role="user"),
        lambda: Message(role="user", content=5),
        lambda: Message(role="user", content="a", nonsense=1),
        lambda: Turn(messages=[]),
        lambda: ConversationPatch(user_id=None),
        lambda: MessagePatch(payload=[]),
        NewConversation,
        lambda: TokenPatch(scopes="read"),
        lambda: Settings(max_page_size=0),
        lambda: Settings(acquire_timeout=-1),
        lambda: Settings(token_prefix="Not One"),
        lambda: Settings(nonsense=1),
    ],
)
def test_an_invalid_input_raises_invalid_input_at_its_construction(wrong):
    with pytest.raises(InvalidInput):
        wrong()


async def test_a_call_with_wrong_parameters_raises_type_error(unconnected):
    svc = unconnected
    for wrong in (
        lambda: svc.conversations.get_list(dialog_id="d"),
        lambda: svc.conversations.get_list(dialog_id="d", tenant_id="acme", nonsense=1),
        lambda: svc.conversations.get_by_id("a", "acme"),
        lambda: svc.tokens.create(name="n"),
    ):
        with pytest.raises(TypeError):
            await wrong()


async def test_a_cursor_of_another_query_is_rejected(svc):
    for number in range(3):
        await svc.conversations.create(tenant_id="acme", dialog_id="d", id=str(number))
    after = (
        await svc.conversations.get_list(dialog_id="d", tenant_id="acme", items_per_page=1)
    ).next
    for dialog, tenant, options in (
        ("e", "acme", {}),
        ("d", "other", {}),
        ("d", "acme", {"desc": False}),
        ("d", "acme", {"orderby": "updated_at"}),
        ("d", "acme", {"orderby": "name"}),
        ("d", "acme", {"user_id": "u"}),
        ("d", "acme", {"keywords": "k"}),
        ("d", "acme", {"from_date": "2026-01-01"}),
    ):
        with pytest.raises(InvalidInput, match=r"^after: "):
            await svc.conversations.get_list(
                dialog_id=dialog, tenant_id=tenant, after=after, **options
            )
    with pytest.raises(InvalidInput, match=r"^page_number: "):
        await svc.conversations.get_list(
            dialog_id="d", tenant_id="acme", page_number=2, after=after
        )


def forged(cursor: str, **parts: object) -> str:
    """Return the cursor with other parts and the same fingerprint."""
    text = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    return urlsafe_b64encode(json.dumps(text | parts).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "parts",
    [
        {"id": "\x00"},
        {"id": "\udfff"},
        {"id": ""},
        {"id": "x" * 129},
        {"id": None},
        {"at": "0001-01-01T00:00:00+14:00"},
        {"at": "9999-12-31T23:59:59-14:00"},
        {"at": "2026-11-22T10:00:00"},
        {"at": "infinity"},
        {"at": 1e400},
        {"more": 1},
    ],
)
async def test_a_forged_cursor_does_not_reach_the_server(svc, parts):
    for number in range(2):
        await svc.conversations.create(tenant_id="acme", dialog_id="d", id=str(number))
        await svc.tokens.create(tenant_id="acme", name="n")
    listed = await svc.conversations.get_list(dialog_id="d", tenant_id="acme", items_per_page=1)
    with pytest.raises(InvalidInput, match="after"):
        await svc.conversations.get_list(
            dialog_id="d", tenant_id="acme", after=forged(listed.next, **parts)
        )
    tokens = await svc.tokens.get_list(tenant_id="acme", limit=1)
    with pytest.raises(InvalidInput, match="after"):
        await svc.tokens.get_list(tenant_id="acme", after=forged(tokens.next, **parts))


async def test_pages_work_with_the_longest_ids_and_with_special_characters(svc):
    for odd in ("\x01" * 128, "😀" * 128):
        for tie in ("a", "b"):
            await svc.conversations.create(tenant_id="acme", dialog_id=odd, id=odd[:-1] + tie)
        first = await svc.conversations.get_list(dialog_id=odd, tenant_id="acme", items_per_page=1)
        second = await svc.conversations.get_list(
            dialog_id=odd, tenant_id="acme", items_per_page=1, after=first.next
        )
        assert [item.id[-1] for item in first.items + second.items] == ["b", "a"]
        assert second.next is None


async def test_instants_of_any_offset_are_stored(svc):
    odd = datetime(1900, 1, 1, tzinfo=ZoneInfo("Europe/Amsterdam"))  # 20 minutes and some seconds
    stored = await svc.conversations.create(tenant_id="acme", dialog_id="d", created_at=odd)
    assert stored.created_at == odd
    issued = await svc.tokens.create(tenant_id="acme", name="n", expires_at=odd)
    assert issued.token.expires_at == odd
    patched = await svc.tokens.update_by_id(issued.token.id, {"expires_at": odd}, tenant_id="acme")
    assert patched.expires_at == odd


@pytest.mark.parametrize(
    "value",
    [
        *(1e16, 1e22, 1e23, -1.5e300, 1e308, 5e-324, -0.0, 0.1, 1.0, 1, True, 10**4000),
        *("1e+23", 'quo"te 1e+23', "\\u0000", "\\\\", "\u2028", {}, [], {"": [None]}),
    ],
)
async def test_json_values_are_returned_unchanged(svc, value):
    stored = await svc.conversations.create(tenant_id="acme", dialog_id="d", dsl=[value])
    assert stored.dsl == [value]
    assert type(stored.dsl[0]) is type(value)


async def test_any_mapping_is_accepted_as_an_input(svc):
    frozen = MappingProxyType({"messages": [MappingProxyType({"role": "user", "content": "x"})]})
    id = (await svc.conversations.create(tenant_id="acme", dialog_id="d")).id
    await svc.conversations.append_message(id, frozen, tenant_id="acme")
    (message,) = await svc.conversations.messages(id, tenant_id="acme")
    assert message.content == "x"


async def test_a_name_whose_nfc_exceeds_the_limit_is_rejected(unconnected):
    with pytest.raises(InvalidInput, match="name: must be 0 to 512 characters in Unicode"):
        await unconnected.conversations.create(tenant_id="a", dialog_id="d", name="\ufb2c" * 512)


async def test_a_range_that_ends_before_its_start_is_rejected(unconnected):
    svc = unconnected
    for start, end in (
        ("2026-02-02", "2026-02-01"),
        ("2026-02-01T00:00:01", "2026-02-01T00:00:00"),
    ):
        with pytest.raises(InvalidInput, match="from_date: must not be after the end"):
            await svc.conversations.stats(tenant_id="acme", from_date=start, to_date=end)
        with pytest.raises(InvalidInput, match="from_date: must not be after the end"):
            await svc.conversations.get_list(
                dialog_id="d", tenant_id="acme", from_date=start, to_date=end
            )


async def test_the_number_of_buckets_is_limited(svc):
    with pytest.raises(InvalidInput, match="to_date: must be within 10000 buckets"):
        await svc.conversations.stats(
            tenant_id="acme", from_date="2020-01-01", to_date="2026-01-01", interval="hour"
        )
    assert (
        len(
            await svc.conversations.stats(
                tenant_id="acme", from_date="2000-01-01", to_date="2026-12-31"
            )
        )
        == 9862
    )


def test_results_can_be_copied_and_pickled():
    page = asyncsvc.Page(total=10_000, items=["a"], next="cursor", total_capped=True)
    for twin in (copy.copy(page), copy.deepcopy(page), pickle.loads(pickle.dumps(page))):
        assert twin == page
        assert (tuple(twin), twin.next, twin.total_capped) == ((10_000, ["a"]), "cursor", True)
    assert str(pickle.loads(pickle.dumps(asyncsvc.InvalidToken()))) == "the token is not valid"


def test_an_error_survives_pickling():
    error = pickle.loads(pickle.dumps(InvalidInput("tenant_id", "must be text")))
    assert (error.field, error.reason, str(error)) == (
        "tenant_id",
        "must be text",
        "tenant_id: must be text",
    )


PUBLIC_MODELS = [
    model
    for model in map(vars(asyncsvc).__getitem__, asyncsvc.__all__)
    if isinstance(model, type) and issubclass(model, BaseModel)
]


@pytest.mark.parametrize("model", PUBLIC_MODELS, ids=lambda model: model.__name__)
def test_each_field_of_a_public_model_has_a_description(model):
    assert all(field.description for field in model.model_fields.values())
    assert all(f"\n{name}: " in inspect.getdoc(model) for name in model.model_fields)
    inspect.signature(model)


def test_a_page_unpacks_and_serializes():
    page = asyncsvc.Page(total=3, items=[1, 2], next="cursor")
    total, items = page
    assert (total, items) == (3, [1, 2])
    assert page.model_dump() == {
        "total": 3,
        "items": [1, 2],
        "next": "cursor",
        "total_capped": False,
    }
    with pytest.raises(ValidationError):
        page.total = 4


async def test_none_in_a_filter_is_rejected_with_the_name_of_any(svc):
    with pytest.raises(InvalidInput, match=r"user_id: .* ANY"):
        await svc.conversations.get_list(tenant_id="t", user_id=None)
    page = await svc.tokens.get_list(tenant_id="t", dialog_id=None)  # the column can be NULL
    assert page.items == []
