"""The cost of accepted input grows at most linearly with its size."""

import asyncio
import contextlib
import json
import sys
import time
import unicodedata
from collections.abc import Awaitable, Callable
from decimal import Decimal
from types import SimpleNamespace

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

import asyncsvc
from asyncsvc import InvalidInput, Settings
from asyncsvc.validation import json_values, nfc
from asyncsvc.validation.json_values import canonical_json, json_text
from asyncsvc.validation.nfc import to_nfc
from asyncsvc.validation.unstorable import replace_in_json

LIMIT = Settings().max_json_bytes
MARKS = [
    mark
    for mark in map(chr, range(sys.maxunicode + 1))
    if unicodedata.combining(unicodedata.normalize("NFD", mark)[0])
]
"""All characters that are sorted by their combining class, alone or decomposed."""


@pytest.fixture
async def unconnected():
    """The services on a pool without a server: any SQL raises Unavailable."""
    pool = asyncpg.create_pool("postgresql://nobody@127.0.0.1:1/none")
    return asyncsvc.AsyncSvc(pool, settings=Settings(retry_timeout=0))


def seconds(call: Callable[[], object]) -> float:
    """Return the CPU time of a call, the best of 3."""
    times = []
    for _ in range(3):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


TEXTS = {
    "one letter with marks of 2 classes": lambda n: "a" + "\u0300\u0316" * n,
    "marks that decompose": lambda n: "a" + "\u0f73" * n,
    "marks in runs of 95": lambda n: ("a" + "\u0300\u0316" * 47) * (n // 48),
    "letters with marks": lambda n: "e\u0302\u0323" * n,
    "Hangul letters": lambda n: "\u1100\u1161\u11a8" * n,
    "Hangul vowels": lambda n: "\u1161" * n,
    "Hangul ends": lambda n: "\u1100\u1161" + "\u11a8" * n,
    "words": lambda n: "Größe über " * n,
    "emoji": lambda n: "😀" * n,
}


@pytest.mark.parametrize("make", TEXTS.values(), ids=TEXTS)
def test_text_is_normalized_in_linear_time(make):
    short, long = make(4_000), make(16_000)
    assert to_nfc(long[:200]) == unicodedata.normalize("NFC", long[:200])
    assert seconds(lambda: to_nfc(long)) < 9 * seconds(lambda: to_nfc(short)) + 0.005


@pytest.mark.parametrize("make", TEXTS.values(), ids=TEXTS)
def test_text_is_normalized_in_steps(make, monkeypatch):
    """Other threads, and the event loop with them, wait for one call of Python's function."""
    lengths = [0]

    def normalize(form: str, text: str) -> str:
        lengths.append(len(text))
        return unicodedata.normalize(form, text)

    monkeypatch.setattr(nfc, "unicodedata", SimpleNamespace(**vars(unicodedata)))
    monkeypatch.setattr(nfc.unicodedata, "normalize", normalize)
    assert to_nfc(make(200_000))
    assert max(lengths) <= 2**15


@given(
    st.lists(st.sampled_from([*MARKS, *"aéㄱ한가각কা😀中 "]), max_size=300).map("".join),
    st.sampled_from(["", "\u0300" * 100]),
)
@settings(max_examples=400, deadline=None)
def test_text_in_nfc_is_that_of_python(text, run):
    assert to_nfc(text + run + text) == unicodedata.normalize("NFC", text + run + text)
    long = text * (40_000 // max(len(text), 1))
    assert unicodedata.is_normalized("NFC", to_nfc(long[:20_000]))


def test_each_mark_is_sorted_in_a_long_run():
    for mark in MARKS:
        text = "a" + ("\u0345" + mark) * 60
        assert to_nfc(text) == unicodedata.normalize("NFC", text), hex(ord(mark))


JSON = {
    "long integers beside an exponent": lambda n: [*[10**4_000 + 1] * (n // 1_000), 1e30],
    "digits in a string beside an exponent": lambda n: ["1" * n * 10, 1e30],
    "backslashes beside an exponent": lambda n: ["\\" * n, '"', 1e30],
    "backslashes beside a NUL": lambda n: ["\\" * n + "u0000"],
    "large floats": lambda n: [1e20] * n,
    "integers": lambda n: [0] * n,
    "objects": lambda n: [{}] * n,
    "keys": lambda n: {str(number): number for number in range(n)},
    "levels": lambda n: [[[[[0]]]]] * n,
}


@pytest.mark.parametrize("make", JSON.values(), ids=JSON)
async def test_json_is_checked_and_written_in_linear_time(make, unconnected):
    async def cost(value):
        times = []
        for _ in range(3):
            start = time.process_time()
            with pytest.raises(asyncsvc.Unavailable):
                await unconnected.conversations.create(tenant_id="t", dialog_id="d", dsl=value)
            times.append(time.process_time() - start)
        return min(times)

    await cost([])
    assert await cost(make(16_000)) < 9 * await cost(make(4_000)) + 0.02


@pytest.mark.parametrize("name", ["large floats", "integers", "objects", "keys", "levels"])
def test_json_is_written_in_steps(name, monkeypatch):
    """Other threads, and the event loop with them, wait for one call of the encoder."""
    lengths = []

    class Encoder(json.JSONEncoder):
        def encode(self, value: object) -> str:
            lengths.append(len(super().encode(value)))
            return super().encode(value)

    monkeypatch.setattr(json_values, "_ENCODER", Encoder(ensure_ascii=False))
    assert json_text(JSON[name](100_000))
    assert max(lengths) <= 2**15


@pytest.mark.parametrize("value", [make(30_000) for make in JSON.values()], ids=JSON)
def test_json_is_written_as_the_encoder_writes_it(value):
    assert json_text(value) == json.dumps(value, ensure_ascii=False)
    assert canonical_json(value) == json.dumps(value, ensure_ascii=False, sort_keys=True)


async def test_json_is_measured_as_the_server_returns_it(svc):
    """1e308 has 5 characters, and 311 in PostgreSQL."""
    create = svc.conversations.create
    for number in (1e308, -1e308, 1.7e16, 5e-324, 1.5e-7):
        fits = LIMIT // (len(f"{Decimal(repr(number)):f}") + 10)
        with pytest.raises(InvalidInput, match="dsl: must be at most 8388608 bytes of JSON"):
            await create(tenant_id="t", dialog_id="d", dsl=[number] * (LIMIT // len(f"{number}, ")))
        stored = await create(tenant_id="t", dialog_id="d", dsl=[number] * fits)
        assert stored.dsl == [number] * fits


@pytest.mark.parametrize(
    "text", ["1e+23 " * 50_000, '\\u0000"' * 50_000, "é😀\n" * 100_000, "a" * 2**17 + "\\" * 2**17]
)
async def test_a_long_text_in_json_is_encoded_in_pieces_and_returned_unchanged(
    svc, text, monkeypatch
):
    lengths = [0]

    class Encoder(json.JSONEncoder):
        def encode(self, value: object) -> str:
            encoded = super().encode(value)
            lengths.append(len(encoded))
            return encoded

    monkeypatch.setattr(json_values, "_ENCODER", Encoder(ensure_ascii=False, allow_nan=False))
    value = {"text": text, text: [text]}
    assert json.loads(json_values.stored_json(value)) == value
    assert json.loads(canonical_json(value)) == json.loads(json_text(value)) == value
    json_values.check_json(value, Settings())
    assert max(lengths) < 2**19
    stored = await svc.conversations.create(tenant_id="t", dialog_id="d", dsl=value)
    assert stored.dsl == value


def test_a_nul_in_a_long_text_is_rejected():
    with pytest.raises(PydanticCustomError, match="NUL"):
        json_values.check_json("a" * 2**20 + "\x00", Settings())


@pytest.mark.parametrize("levels", [30, 60])
async def test_json_that_holds_a_list_many_times_is_rejected(levels, unconnected):
    value: list[object] = []
    for _ in range(levels):
        value = [value, value]
    with pytest.raises(InvalidInput, match="dsl: must be at most 8388608 bytes of JSON"):
        await unconnected.conversations.create(tenant_id="t", dialog_id="d", dsl=value)


async def test_unknown_fields_are_rejected_at_the_first(unconnected):
    def cost(fields: int) -> float:
        wrong = {"messages": []} | {f"field{number}": 1 for number in range(fields)}

        def call() -> None:
            with pytest.raises(InvalidInput, match="field0: Extra inputs are not permitted"):
                asyncsvc.Turn.model_validate(wrong | {"messages": [{"role": "u", "content": ""}]})

        return seconds(call)

    assert cost(60_000) < cost(1) + 0.25


async def test_a_list_that_is_too_long_is_rejected_before_its_items(unconnected):
    with pytest.raises(InvalidInput, match="ids: must be at most 1000"):
        await unconnected.conversations.get_by_ids([None] * 100_000, tenant_id="t")


def test_keys_that_are_equal_after_a_replacement_cost_linear_time():
    def make(count: int) -> dict[str, object]:
        marks = (
            chr(0xD800 + number // 2_000) + chr(0xD800 + number % 2_000) for number in range(count)
        )
        return dict.fromkeys(marks, 0)

    short, long = make(4_000), make(16_000)
    assert len(replace_in_json(long)[0]) == 16_000
    assert seconds(lambda: replace_in_json(long)) < 9 * seconds(lambda: replace_in_json(short))


async def stall_share(work: Awaitable[object]) -> float:
    """Await the work; return the largest part of its time for which the event loop did not run."""
    longest, is_done = 0.0, asyncio.Event()

    async def watch() -> None:
        nonlocal longest
        last = time.perf_counter()
        while not is_done.is_set():
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    started = time.perf_counter()
    with contextlib.suppress(asyncsvc.Unavailable):
        await work
    total = time.perf_counter() - started
    is_done.set()
    await watching
    return longest / total


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_large_turn_does_not_hold_the_event_loop(unconnected, key):
    """The loop runs many times during the work, so no single step is a large part of it."""
    payload = {"n": [{"at": number, "of": [1.5, "text"]} for number in range(15_000)]}
    text = "e\u0302\u0323 and words " * 40_000
    turn = {"messages": [{"role": "user", "content": text, "payload": payload}] * 2}
    append = unconnected.conversations.append_message
    await stall_share(append("a", {"messages": turn["messages"][:1]}, tenant_id="t"))
    share = await stall_share(append("a", turn, tenant_id="t", idempotency_key=key))
    assert share < 0.3


async def test_a_cancelled_call_on_a_large_value_leaves_nothing(unconnected):
    call = unconnected.conversations.create(tenant_id="t", dialog_id="d", dsl=["a" * 10] * 80_000)
    task = asyncio.create_task(call)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
