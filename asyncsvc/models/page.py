"""One page of a list."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Generic, TypeVar

from asyncsvc.validation.inputs import Described

T = TypeVar("T")


class Page(Described, Generic[T]):
    """One page of a list. It unpacks: `total, items = page`."""

    # The parts of an unpacked page are Any for a type checker: only tuples unpack with types.

    total: int | None
    """The number of items of all pages; None if they were not counted."""
    items: list[T]
    """The items of this page, in order."""
    next: str | None = None
    """The cursor of the next page; None if this page is the last, or its order has no cursors."""
    total_capped: bool = False
    """Whether counting stopped at `total`, so that there are more items."""

    def __iter__(self) -> Generator[Any]:
        """Iterate over `total` and `items`, so that a page unpacks to both."""
        yield self.total
        yield self.items
