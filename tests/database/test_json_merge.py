"""`asyncsvc.json_merge_v1` is the merge patch of RFC 7396, in linear time."""

import asyncio
import json
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models.comparison import profile
from tests.models.state import merge

MERGE = "SELECT asyncsvc.json_merge_v1($1::text::jsonb, $2::text::jsonb)::text"
RFC_EXAMPLES = [
    ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
    ('{"a":"b"}', '{"a":null}', "{}"),
    ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
    ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
    ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
    ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
    ('["a","b"]', '["c","d"]', '["c","d"]'),
    ('{"a":"b"}', '["c"]', '["c"]'),
    ('{"a":"foo"}', "null", "null"),
    ('{"a":"foo"}', '"bar"', '"bar"'),
    ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
    ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
    ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
]
"""Appendix A of the RFC: value, patch, result."""
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3)
KEYS = st.sampled_from("abc") | TEXTS
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([0.1, -1.5, 1e-7]) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def chain(levels: int, leaf: object) -> str:
    return '{"a": ' * levels + json.dumps(leaf) + "}" * levels


@pytest.mark.parametrize(("target", "patch", "result"), RFC_EXAMPLES)
async def test_an_example_of_the_rfc(pool, target, patch, result):
    assert json.loads(await pool.fetchval(MERGE, target, patch)) == json.loads(result)


def test_any_values_are_merged_as_in_the_rfc(dsn):
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(dsn))

        @profile(300)
        @given(JSON, JSON)
        def check(target: Any, patch: Any) -> None:
            merging = connection.fetchval(MERGE, json.dumps(target), json.dumps(patch))
            assert json.loads(runner.run(merging)) == merge(target, patch)

        try:
            check()
        finally:
            runner.run(connection.close())


async def test_null_is_an_empty_value_and_no_patch(pool):
    assert await pool.fetchval(MERGE, None, '{"a": {"b": null, "c": 1}}') == '{"a": {"c": 1}}'
    assert await pool.fetchval(MERGE, '{"a": 1}', None) is None


async def test_numbers_keep_all_their_digits(pool):
    number = "1.10" + "0" * 50 + "1"
    assert await pool.fetchval(MERGE, f'{{"a": {number}}}', '{"b": 1}') == (
        f'{{"a": {number}, "b": 1}}'
    )


@pytest.mark.parametrize("levels", [1, 64, 200])
async def test_a_value_of_any_depth_is_merged(pool, levels):
    large = [1] * 20_000
    merged = await pool.fetchval(
        MERGE, chain(levels, {"kept": large, "gone": 1}), chain(levels, {"gone": None, "new": 2})
    )
    assert json.loads(merged) == json.loads(chain(levels, {"kept": large, "new": 2}))


async def test_a_patch_that_is_deeper_than_the_stack_is_an_error(pool):
    levels = 5_000
    with pytest.raises(asyncpg.StatementTooComplexError):
        await pool.fetchval(MERGE, "{}", chain(levels, 1))


async def test_objects_of_many_members_are_merged(pool):
    members = {f"{number}": {"a": number} for number in range(5_000)}
    patch = {key: {"b": 1, "a": None} for key in members}
    merged = json.loads(await pool.fetchval(MERGE, json.dumps(members), json.dumps(patch)))
    assert merged == {key: {"b": 1} for key in members}
