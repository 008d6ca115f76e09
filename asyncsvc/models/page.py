"""One page of a list."""

from __future__ import annotations

from typing import TypeVar

from asyncsvc.models.conversations import Hit

T = TypeVar("T")


class Page(tuple[int | None, list[T]]):  # noqa: SLOT001 - it has more than its slots
    """One page: a tuple of `(total, items)`, and how to go on.

    `total` is None when it was not counted; `total_capped` says that there are more than `total`.
    `next` is the cursor of the next page, or None when this one is the last or its order has no
    cursors.
    """

    next: str | None
    total_capped: bool

    def __new__(
        cls,
        total: int | None,
        items: list[T],
        *,
        next: str | None = None,
        total_capped: bool = False,
    ) -> Page[T]:
        """Make the pair, and hang the rest on it."""
        page = super().__new__(cls, (total, items))
        page.next = next
        page.total_capped = total_capped
        return page

    @property
    def total(self) -> int | None:
        """How many items all pages have together."""
        return self[0]

    @property
    def items(self) -> list[T]:
        """The items of this page, in order."""
        return self[1]

    def __getnewargs_ex__(self) -> tuple[tuple[object, ...], dict[str, object]]:
        """Copy and pickle the whole of it."""
        return tuple(self), {"next": self.next, "total_capped": self.total_capped}

    def __repr__(self) -> str:
        """Show every part, as the models do."""
        return (
            f"Page(total={self.total!r}, items={self.items!r}, next={self.next!r}, "
            f"total_capped={self.total_capped!r})"
        )


Hits = Page[Hit]
"""A page of a search."""
