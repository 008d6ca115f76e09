"""docs/guarantees.md names existing tests, and a test for each promise."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
GUARANTEES = (TESTS.parent / "docs" / "guarantees.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(\w+/test_\w+\.py)(?:::(test_\w+))?`", GUARANTEES)))


@pytest.mark.parametrize(("module", "test"), NAMED)
def test_each_named_test_exists(module, test):
    source = (TESTS / module).read_text(encoding="utf-8")
    assert re.search(rf"^(?:async )?def {test or 'test_'}", source, re.MULTILINE)


def test_each_promise_names_a_test():
    promises = re.search(r"\| promise .*?\n\n", GUARANTEES, re.DOTALL)[0].strip().splitlines()[2:]
    assert len(promises) >= 15
    for promise in promises:
        assert re.search(r"`\w+/test_\w+\.py", promise.split("|")[3]), promise
