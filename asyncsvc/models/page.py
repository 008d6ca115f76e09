"""One page of a list."""

from __future__ import annotations

from typing import TypeVar

from asyncsvc.models.conversations import Hit

T = TypeVar("T")


class Page(tuple[int | None, list[T]]):  # noqa: SLOT001 - it has attributes
    """One page of a list: the tuple `(total, items)`, with the cursor of the next page."""

    next: str | None
    """The cursor of the next page; None if this page is the last, or its order has no cursors."""
    total_capped: bool
    """Whether counting stopped at `total`, so that there are more items."""

    def __new__(
        cls,
        total: int | None,
        items: list[T],
        *,
        next: str | None = None,
        total_capped: bool = False,
    ) -> Page[T]:
        """Build a page."""
        page = super().__new__(cls, (total, items))
        page.next = next
        page.total_capped = total_capped
        return page

    @property
    def total(self) -> int | None:
        """The number of items of all pages; None if they were not counted."""
        return self[0]

    @property
    def items(self) -> list[T]:
        """The items of this page, in order."""
        return self[1]

    def __getnewargs_ex__(self) -> tuple[tuple[object, ...], dict[str, object]]:
        """Include all attributes in copies and pickles."""
        return tuple(self), {"next": self.next, "total_capped": self.total_capped}

    def __repr__(self) -> str:
        """Show all attributes."""
        return (
            f"Page(total={self.total!r}, items={self.items!r}, next={self.next!r}, "
            f"total_capped={self.total_capped!r})"
        )


Hits = Page[Hit]
"""A page of a search."""
