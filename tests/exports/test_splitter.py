"""An array is split into the bytes of its elements, even if an element is invalid."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsvc.exports import UnreadableError
from asyncsvc.exports.json_values import parse_object
from asyncsvc.exports.splitter import ArraySplitter


def split(raw: bytes, size: int = 2**20, max_bytes: int = 2**26):
    splitter = ArraySplitter(max_bytes)
    elements = list(splitter.split(raw[at : at + size] for at in range(0, len(raw), size)))
    return splitter, elements


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=5), st.integers(1, 9), st.sampled_from([None, 1]), st.booleans())
def test_the_elements_equal_those_of_json_for_any_blocks(values, size, indent, ascii_only):
    raw = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    splitter, elements = split(raw, size)
    assert [json.loads(each.raw.decode(errors="surrogatepass")) for each in elements] == values
    assert [each.number for each in elements] == list(range(1, len(values) + 1))
    assert not splitter.has_rest


@given(st.binary(max_size=60), st.integers(1, 9))
def test_any_bytes_give_elements(raw, size):
    _, elements = split(b"[" + raw, size)
    assert sum(len(each.raw) for each in elements) <= len(raw)


BAD = [
    b'{"a": "\\ude00"', b'{"a": "\xff"}', b'{"a": NaN}', b'{"a": ' + b"9" * 5_000 + b"}",
    b"nope", b'{"a": "\\x"}', b"5", b"",
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD[1:])
def test_an_invalid_element_does_not_affect_the_others(bad):
    _, elements = split(b'[{"n": 1}, ' + bad + b', {"n": 2}]')
    assert [elements[0].raw, elements[-1].raw] == [b'{"n": 1}', b'{"n": 2}']
    assert len(elements) == (3 if bad else 2)


def test_an_array_that_ends_early_yields_its_complete_elements():
    splitter, elements = split(b'[{"n": 1}, {"n": 2}, {"n": "cut')
    assert [each.raw for each in elements] == [b'{"n": 1}', b'{"n": 2}']
    assert splitter.has_rest
    splitter, elements = split(b'[{"n": 1}] {"n": 2}')
    assert (len(elements), splitter.has_rest) == (1, True)


def test_a_long_element_is_skipped_and_not_kept():
    _, elements = split(b'[1, "' + b"x" * 2**22 + b'", 2]', max_bytes=2**20)
    assert [(each.raw, each.reason) for each in elements] == [
        (b"1", None), (b"", "is longer than 1 MiB"), (b"2", None),
    ]  # fmt: skip


def cpu(work) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


@pytest.mark.parametrize(
    "unit", [b'"' + b"x" * 1_000 + b'",', rb'"\\\"\u00e4",', b"[[]],", b'{"a":{}},']
)
def test_the_scan_is_linear(unit):
    def once(count: int):
        raw = b"[[" + unit * count + b"0]]"
        return lambda: split(raw, 2**16)

    count = 2**17 // len(unit)
    small = min(cpu(once(count)) for _ in range(3))
    assert cpu(once(16 * count)) < 64 * max(small, 0.01)


def test_too_many_values_are_refused_before_they_are_parsed():
    for item in (b"0,", b"{},", b"[],"):
        with pytest.raises(UnreadableError, match="more than 1,000,000 values"):
            parse_object(b'{"messages":[' + item * 1_100_000 + b"0]}")
    text = json.dumps({"prose": "a, b, [c], {d}" * 400_000}).encode()
    assert len(parse_object(text)["prose"]) == 5_600_000


def test_any_depth_can_be_parsed():
    depth = 20_000
    raw = b'{"a":' * depth + b'[1, "x", {"b": null, "c": [true]}]' + b"}" * depth
    value: object = parse_object(raw)
    for _ in range(depth):
        value = value["a"]
    assert value == [1, "x", {"b": None, "c": [True]}]
    for bad in (raw[:-1], raw + b"5", raw.replace(b"true", b"tru"), raw.replace(b"1,", b"1")):
        with pytest.raises(UnreadableError):
            parse_object(bad)


def test_nan_is_invalid_or_counted():
    raw = b'{"a": NaN, "b": [Infinity, -Infinity]}'
    with pytest.raises(UnreadableError, match="NaN"):
        parse_object(raw)
    counted = []
    assert parse_object(raw, nan=lambda: counted.append(1)) == {"a": None, "b": [None, None]}
    assert len(counted) == 3
