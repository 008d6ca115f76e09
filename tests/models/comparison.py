"""Comparison of results of the model with those of the store, and settings of generated tests."""

import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from pydantic import BaseModel

import asyncsvc
from asyncsvc import Page
from tests.models.state import COUNTERS, Row

CURSOR_ORDERS = {"created_at", "updated_at"}
LONG_RUN = os.environ.get("ASYNCSVC_MODEL_EXAMPLES")


def profile(max_examples: int, **more: Any) -> settings:
    """Return the settings of a generated test: by default the same examples in each run.

    With ASYNCSVC_MODEL_EXAMPLES it runs that many random examples, and shrinks a failing example.
    """
    return settings(
        max_examples=int(LONG_RUN or max_examples),
        derandomize=LONG_RUN is None,
        phases=[Phase.generate, Phase.shrink] if LONG_RUN else [Phase.generate],
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
        **more,
    )


def differences(expected: object, actual: object, path: str = "") -> list[str]:
    """Return the differences between a result of the model and a result of the store."""
    if isinstance(expected, dict) and isinstance(actual, BaseModel):
        if expected.items() <= vars(actual).items():  # at once, since most results are equal
            return []
        return [
            line
            for name, value in expected.items()
            for line in differences(value, getattr(actual, name), f"{path}.{name}")
        ]
    if (
        isinstance(expected, list)
        and isinstance(actual, list | tuple)
        and len(expected) == len(actual)
    ):
        return [
            line
            for index, pair in enumerate(zip(expected, actual, strict=True))
            for line in differences(*pair, f"{path}[{index}]")
        ]
    return [] if expected == actual else [f"{path}: model {expected!r}, store {actual!r}"]


def totals(buckets: Iterable[Row | asyncsvc.UsageBucket]) -> dict[str, float]:
    """Return the sums of statistics."""
    rows = [dict(bucket) for bucket in buckets]
    return {name: round(sum(row[name] for row in rows), 6) for name in COUNTERS}


Read = Callable[..., Awaitable[Page[Any]]]
Pages = tuple[list[Any], set[int | None]]
"""The items of all pages, and their totals."""


async def assert_pages(
    read: Read,
    expected: list[Row],
    *,
    size: int,
    has_total: bool = True,
    has_numbers: bool = True,
    has_cursors: bool = True,
    compare: Callable[[object, object], list[str]] = differences,
) -> None:
    """Read all pages, by number and by cursor, and compare them with the items of the model."""
    results, last = [], max(-(-len(expected) // size), 1)
    if has_numbers:
        results.append(await read_by_number(read, size, last, has_cursors=has_cursors))
    if has_cursors:
        results.append(await read_by_cursor(read, size, last))
    for items, totals_read in results:
        assert compare(expected, items) == []
        assert totals_read == {len(expected) if has_total else None}


async def read_by_cursor(read: Read, size: int, last: int) -> Pages:
    """Read all pages. Assert that all pages but the last are full."""
    pages = [await read()]
    while pages[-1].next is not None:
        assert len(pages) < last
        assert len(pages[-1].items) == size
        pages.append(await read(after=pages[-1].next))
        assert pages[-1].items
    assert len(pages[-1].items) <= size
    return merge(pages)


async def read_by_number(read: Read, size: int, last: int, *, has_cursors: bool) -> Pages:
    """Read all pages and the empty page after them. Assert the size of each page."""
    pages = [await read(page_number=number) for number in range(1, last + 2)]
    items, totals_read = merge(pages)
    for number, page in enumerate(pages):
        assert page.items == items[number * size : (number + 1) * size]
        assert (page.next is not None) == (has_cursors and (number + 1) * size < len(items))
    return items, totals_read


def merge(pages: list[Page[Any]]) -> Pages:
    assert not any(page.total_capped for page in pages)
    return [item for page in pages for item in page.items], {page.total for page in pages}
