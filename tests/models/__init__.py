"""A model of the store in plain Python, and the tests that compare the store with it."""

import pytest

pytest.register_assert_rewrite("tests.models.comparison", "tests.models.model")
