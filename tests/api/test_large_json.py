"""JSON that is too long for one call of Python's parser is parsed in pieces, with equal results."""

import gc
import json
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsvc import DatabaseError
from asyncsvc.database import parse_value
from asyncsvc.repositories import large_rows, session
from asyncsvc.validation import json_pieces
from asyncsvc.validation.json_pieces import LONG_JSON, parse_json
from tests.api.test_costs import JSON, seconds

TEXTS = [
    "",
    "a",
    "é😀",
    "\\",
    '"',
    "a long text, [with {odd: ] \\ characters }",
    "\ud83d",
    "\ude00",
    "\n",
]
SCALARS = st.sampled_from(
    [*TEXTS, None, True, 0, -1.5, 1e300, 5e-324, float("inf"), 10**30, "\ud83d\ude00" * 9]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(TEXTS), inner, max_size=6)
    ),
    max_leaves=60,
)
WRONG = [
    "",
    " ",
    "\xa0",
    "\ufeff",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    '"',
    "\\",
    '"a"',
    '"a":',
    "0",
    "NaN",
    "1e400",
    r"\ud83d",
    r"\ude00",
]


def parsed_in_pieces(text: str) -> object:
    """Parse JSON of any length in pieces."""
    parser = json_pieces._Parser(text)
    for _ in parser.steps():
        pass
    return parser.value()


def outcome(parse, text: str) -> str:
    """Return the value with its types and the order of its keys, or that the text is invalid."""
    try:
        return repr(parse(text))
    except ValueError:
        return "ValueError"


@pytest.fixture(params=[8, 31])
def short_pieces(request, monkeypatch):
    monkeypatch.setattr(json_pieces, "_PIECE", request.param)


@pytest.mark.usefixtures("short_pieces")
@given(VALUES, st.booleans(), st.sampled_from([None, 0, 1]))
@settings(max_examples=150, deadline=None)
def test_json_in_pieces_equals_json_of_python(value, is_ascii, indent):
    text = json.dumps(value, ensure_ascii=is_ascii, indent=indent)
    assert outcome(parsed_in_pieces, text) == outcome(json.loads, text)


@pytest.mark.usefixtures("short_pieces")
@given(VALUES, st.data())
@settings(max_examples=300, deadline=None)
def test_text_that_is_no_json_is_invalid_in_pieces_too(value, data):
    text = json.dumps(value)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, start + 3))
    damaged = text[:start] + data.draw(st.sampled_from(WRONG)) + text[end:]
    assert outcome(parsed_in_pieces, damaged) == outcome(json.loads, damaged)


@pytest.mark.usefixtures("short_pieces")
@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "b": 2, "a": [1, 2, 3, 4, 5]}',
        '{"a": {"b": [1, 2, 3]}, "a": 1}',
        '{"a long key \\" \\\\": {"another long key": "and a long text"}, "": [[[[[[1]]]]]]}',
        '{"a long key", 1}',
        '{"a": 1, [2, 3, 4, 5]: 6}',
        "[1 [2, 3, 4, 5, 6, 7, 8]]",
        '[[1, 2, 3, 4, 5, 6] "a long text"]',
        '["a long text" "b"]',
        '["a long text that does not end',
        '["a long text that ends in an escape \\',
        '["1234567\\u00"]',
        '["a long text with a control character \n"]',
        '"1234567\\ud83d\\ude00", 1',
        "[1, 2, 3, 4, 5, 6],",
        "[1, 2, 3, 4, 5, 6}",
        "[1, 2, 3, 4, 5, 6]]",
        "[" + "9" * 50 + ", 1e400, -1E-400, " + "0" * 20 + "]",
        f"[{'9' * 5_000}]",
        "1234567890.12345678901234567890",
        " " * 50,
        "",
    ],
)  # fmt: skip
def test_odd_json_in_pieces_equals_json_of_python(text):
    assert outcome(parsed_in_pieces, text) == outcome(json.loads, text)


def test_a_surrogate_pair_is_not_cut():
    for offset in range(12):
        text = json.dumps("a" * offset + "😀" * 10_000 + "\ud83d\ud83d\ude00\ude00" * 10_000)
        assert parsed_in_pieces(text) == json.loads(text)


def nested(levels: int, inside: str, opening: str = "[", closing: str = "]") -> str:
    return opening * levels + inside + closing * levels


SHAPES = {name: lambda n, make=make: json.dumps(make(n)) for name, make in JSON.items()} | {
    "a long text": lambda n: json.dumps("words \n" * n),
    "a long key": lambda n: json.dumps({"k" * 8 * n: 0}),
    "brackets": lambda n: nested(1, ", ".join([nested(60, "0")] * (n // 10))),
    "brackets in open brackets": lambda n: nested(60, ", ".join([nested(60, "0")] * (n // 10))),
    "long texts in brackets": lambda n: nested(
        1, ", ".join([nested(60, json.dumps("a" * 9_000))] * (n // 500))
    ),
    "long lists in objects": lambda n: nested(
        1, ", ".join([nested(60, json.dumps([0] * 3_000), '{"a": ', "}")] * (n // 500))
    ),
    "objects with texts": lambda n: json.dumps([{"text": "word " * 100, "n": [{}]}] * (n // 50)),
}


@pytest.fixture
def no_collections():
    """Collect no garbage: the time of a collection depends on the objects of all tests."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collections")
@pytest.mark.parametrize("make", SHAPES.values(), ids=SHAPES)
def test_json_is_parsed_in_pieces_in_linear_time(make):
    short, long = make(16_000), make(64_000)
    assert parsed_in_pieces(long) == json.loads(long)
    assert (
        seconds(lambda: parsed_in_pieces(long))
        < 9 * seconds(lambda: parsed_in_pieces(short)) + 0.02
    )


@pytest.mark.parametrize("make", SHAPES.values(), ids=SHAPES)
async def test_the_parser_gets_short_pieces(make, monkeypatch):
    """Other threads, and the event loop with them, wait for one call of the parser."""
    lengths = []

    def loads(text: str) -> object:
        lengths.append(len(text))
        return json.loads(text)

    text = make(150_000)
    monkeypatch.setattr(json_pieces, "json", SimpleNamespace(loads=loads))
    assert await parse_json(text) == json.loads(text)
    assert max(lengths) <= 2**15
    assert sum(lengths) < 1.5 * len(text) + 1_000


async def test_short_json_is_parsed_at_once(monkeypatch):
    monkeypatch.setattr(json_pieces, "in_turns", None)
    assert await parse_json(json.dumps(["a" * 100_000])) == ["a" * 100_000]


@pytest.mark.parametrize("text", ["[0]" * 100_000, "[" * 140_000, "[" + "0, " * 100_000])
async def test_long_text_of_a_codec_that_is_no_json_is_an_error_of_the_library(text):
    with pytest.raises(DatabaseError, match="the column payload ") as caught:
        await parse_value(text, "payload")
    assert caught.value.__cause__ is caught.value.__context__ is None


# ---------------------------------------------------------------- reads

LONG = {
    "n": [0, 1.5, 10**30, None, {}] * 5_000,
    "text": 'words, "quotes", \\ [brackets} and 😀\n' * 10_000,
    "deep": [[[[[["é"]]]]]] * 2_000,
    "": {str(number): [number] for number in range(5_000)},
}
AT = {"tenant_id": "t"}


@pytest.fixture
def lengths(monkeypatch):
    """The lengths of the JSON that the validators of models parse."""
    lengths: list[int] = []

    def recorded(build):
        def record_and_build(kind, values, *arguments, **columns):
            texts = [values] if isinstance(values, str) else json_texts(kind, values, columns)
            lengths.extend(map(len, filter(None, texts)))
            return build(kind, values, *arguments, **columns)

        return record_and_build

    for module in (large_rows, session):
        for name in ("build_model", "build_models", "build_models_of_columns"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, recorded(getattr(module, name)))
    return lengths


def json_texts(model, values, columns):
    """Return the JSON of a row or of rows."""
    rows = values if isinstance(values, list) else [values]
    names = large_rows._JSON_COLUMNS.get(model, ())
    return [text for name in names for text in columns.get(name, [row[name] for row in rows])]


async def test_long_json_of_conversations_is_read_in_pieces(svc, lengths):
    conversations = svc.conversations
    new = {"id": "a", "dialog_id": "d", "metadata": LONG, "dsl": [LONG]}
    created = await conversations.create(**new, **AT)
    assert (created.metadata, created.dsl) == (LONG, [LONG])
    updated = await conversations.update_by_id("a", {"merge_metadata": {"x": LONG}}, **AT)
    assert updated.metadata == LONG | {"x": LONG}
    assert await conversations.get_by_id("a", **AT) == updated
    assert (await conversations.get_list(**AT)).items == [updated]
    assert max(lengths) <= LONG_JSON


async def test_long_json_of_messages_is_read_in_pieces(svc, lengths):
    conversations = svc.conversations
    message = {"id": "m", "role": "user", "content": "x", "payload": LONG, "reference": [LONG]}
    turn = {"messages": [{"role": "user", "content": "before"}, message]}
    await conversations.append_message("a", turn, create={"dialog_id": "d", "dsl": LONG}, **AT)
    stored = await conversations.get_message("a", "m", **AT)
    assert (stored.payload, stored.reference) == (LONG, [LONG])
    assert (await conversations.find_message("m", **AT)).message == stored
    assert (await conversations.messages("a", **AT))[1:] == [stored]
    assert await conversations.payloads("a", **AT) == [{}, LONG]
    assert [each async for each in conversations.iter_messages("a", **AT)][1:] == [stored]
    whole = await conversations.get_by_id("a", include_messages=True, **AT)
    assert (whole.dsl, whole.messages[1:]) == (LONG, (stored,))
    assert [each async for each in conversations.export(**AT)] == [whole]
    assert await conversations.update_message("a", "m", {"content": "x"}, **AT) == stored
    assert await conversations.set_feedback("a", "m", None, **AT) == stored
    assert await conversations.put_message("a", message, **AT) == stored
    assert await conversations.pop_message("a", **AT) == stored
    assert max(lengths) <= LONG_JSON


async def test_long_json_of_sessions_records_and_tokens_is_read_in_pieces(svc, lengths):
    message = {"role": "user", "content": "x", "payload": LONG, "reference": [LONG]}
    new = {"id": "a", "dialog_id": "d", "dsl": LONG}
    await svc.conversations.import_([{**new, "messages": [message]}], **AT)
    repository = session.SessionRepository(svc._executor)
    (whole,) = await repository.get_by_ids(session.build_session, tenant_id="t", ids=["a"])
    assert (whole.conversation.dsl, whole.payloads, whole.references) == (LONG, [LONG], [[LONG]])
    assert (await svc.records.put("k", "a", LONG, **AT)).data == LONG
    assert (await svc.records.get("k", "a", **AT)).data == LONG
    issued = await svc.tokens.create(name="n", metadata=LONG, **AT)
    assert issued.token.metadata == LONG
    assert (await svc.tokens.verify(issued.secret)).metadata == LONG
    assert (await svc.tokens.get_list(**AT)).items[0].metadata == LONG
    await svc.tokens.update_by_id(issued.token.id, {"metadata": LONG}, **AT)
    assert (await svc.tokens.audit(**AT)).items[0].detail["metadata"] == LONG
    assert max(lengths) <= LONG_JSON
