"""The forms in which the adapters store the ids and the states of frameworks."""

import datetime as dt
import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from asyncsvc.integrations.packing import pack_id, unwrap_values, wrap_values

PARTS = ["", ",", '"', '","', "\\", "[", "]", "\0", "é", "e\u0301", "a b ", "x" * 200, "x" * 201]


def test_different_parts_have_different_ids():
    packed = [
        pack_id(*parts) for count in (1, 2, 3) for parts in itertools.product(PARTS, repeat=count)
    ]
    assert len(set(packed)) == len(packed)
    assert all(1 <= len(each) <= 128 and "\0" not in each for each in packed)


def test_an_id_is_readable_and_the_same_in_each_version():
    assert pack_id("app", "ann", "s1") == '["app","ann","s1"]'
    digest = "4e7d5fb3a8aefa868471abd6aa0125d55193e1d987b883999e53c631c0353937"
    assert pack_id("x" * 200) == "sha256:" + digest


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_any_text_is_a_storable_id(parts):
    packed = pack_id(*parts)
    assert 1 <= len(packed) <= 128
    assert "\0" not in packed
    if not packed.startswith("sha256:"):
        assert json.loads(packed) == parts


def test_values_are_read_back_equal():
    state = {"none": None, "object": {"a": {"b": None}}, "list": [], "text": "é", "": 1.5}
    assert wrap_values(state)["none"] == [None]
    assert unwrap_values(json.loads(json.dumps(wrap_values(state)))) == state


def test_values_without_a_form_in_json_are_texts():
    state = {"date": dt.date(2026, 1, 2), "set": {1}, "function": len}
    assert unwrap_values(wrap_values(state)) == {
        "date": "2026-01-02",
        "set": [1],
        "function": "<built-in function len>",
    }
