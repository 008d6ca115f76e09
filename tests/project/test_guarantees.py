"""The page of guarantees names a test for each promise, and each named test exists."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUARANTEES = (ROOT / "docs" / "explanation" / "guarantees.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(\w+)/(test_\w+)\.py(?:::(test_\w+))?`", GUARANTEES)))


@pytest.mark.parametrize(("directory", "module", "test"), NAMED)
def test_each_named_test_exists(directory, module, test):
    names = vars(importlib.import_module(f"tests.{directory}.{module}"))
    assert test in names if test else any(name.startswith("test_") for name in names)


def test_each_promise_names_a_test():
    promises = re.search(r"\| promise .*?\n\n", GUARANTEES, re.DOTALL)[0].strip().splitlines()[2:]
    assert len(promises) >= 15
    for promise in promises:
        assert re.search(r"`\w+/test_\w+\.py", promise.split("|")[3]), promise
