"""Which way a search goes: along the conversations in their order, or through the index.

A walk along the order of a page reads the messages of one conversation after the other, at some
10 microseconds each, and ends with the page. It is the best there is for words that are common, and
endless for those that are rare. The index finds what is rare at once, and of a common word more
than anybody asked for. Which it is, nobody knows before. So each search begins with a short walk:

- It filled the page, or came to the end of the list: done, after one round trip.
- It found some, and at that rate a walk that is not long fills the page: walk on.
- Else ask the index for the rest, behind the place where the walk ended.

Each of these is exact, so nothing but time depends on what is chosen. A conversation with very many
messages is not walked, but left to the index.

Row-level security lets no index answer what may tell of other tenants' rows. There each search is a
walk, in longer and longer parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from asyncsvc.models import Hit
from asyncsvc.repositories import SearchRepository
from asyncsvc.repositories.search import Found
from asyncsvc.validation.cursors import Position
from asyncsvc.validation.types import UNSET

if TYPE_CHECKING:
    from asyncsvc.database import Executor

NEWEST_FIRST: Final = "by_created_at_desc"
_FIRST_WALK: Final = 100
_LONGEST_WALK: Final = 400
_MESSAGES_EACH: Final = 20
_GROWTH: Final = 4
_WEEKS_OF_SOME: Final = 1
_WEEKS_OF_NONE: Final = 8
"""For how many weeks the index is asked first, after a walk that found some, or none."""
_MARGIN: Final = 1.5
"""By how much a walk goes beyond what it should need at the rate of the one before."""


@dataclass(slots=True)
class _Walk:
    """What was found so far, and how far the walk came."""

    wanted: int
    after: Position | None
    found: list[Found]
    walked: int = 0
    is_done: bool = False

    @property
    def missing(self) -> int:
        """How many are still wanted."""
        return self.wanted - len(self.found)


class Search:
    """Finds the conversations that hold keywords."""

    def __init__(self, executor: Executor) -> None:
        """Search where this executor runs."""
        self._repository = SearchRepository(executor)
        self.has_index = not executor.settings.row_level_security
        """Whether an index answers here."""

    async def newest(self, *, limit: int, after: Position | None, **filters: object) -> list[Found]:
        """Return the newest conversations with a message that holds the keywords."""
        walk = await self._walk(NEWEST_FIRST, limit, after, filters)
        if walk.is_done:
            return walk.found
        return walk.found + await self._repository.newest(
            weeks=_WEEKS_OF_SOME if walk.found else _WEEKS_OF_NONE,
            limit=walk.missing,
            **behind(walk.after),
            **filters,
        )

    async def page(
        self,
        *,
        order: str,
        limit: int,
        offset: int,
        after: Position | None,
        count_limit: int | None,
        **filters: object,
    ) -> tuple[int, list[Found]]:
        """Return the total, and one page of those that hold the keywords in any way, in any order.

        The order is one by time where there is a cursor. Whoever counts all finds all, so that
        there is nothing to be saved by a walk.
        """
        wanted = offset + limit
        if count_limit is not None and "_time_" in order and wanted <= _LONGEST_WALK:
            walk = await self._walk(order, wanted, after, filters)
            if walk.is_done:
                total = await self.count(count_limit=count_limit, **filters) if count_limit else 0
                return total, walk.found[offset:]
        return await self._repository.matching(
            order=order,
            limit=limit,
            offset=offset,
            count_limit=count_limit,
            **behind(after),
            **filters,
        )

    async def count(self, *, count_limit: int | None, **filters: object) -> int:
        """Return how many conversations hold the keywords; it goes no further than the limit."""
        total, _ = await self._repository.matching(
            order=NEWEST_FIRST, limit=0, offset=0, count_limit=count_limit, **filters
        )
        return total

    async def show(self, found: Sequence[Found], *, tenant_id: str, keywords: str) -> list[Hit]:
        """Return what these hits look like; nothing is asked for none."""
        if not found:
            return []
        return await self._repository.show(
            tenant_id=tenant_id,
            keywords=keywords,
            ids=[each.id for each in found],
            seqs=[each.seq for each in found],
        )

    async def _walk(
        self, order: str, wanted: int, after: Position | None, filters: dict[str, object]
    ) -> _Walk:
        """Walk as far as it pays; `is_done` says that nothing is left to be found."""
        walk = _Walk(wanted, after, [])
        most = _FIRST_WALK
        while most and not walk.is_done:
            part = await self._repository.walk(
                order=order,
                most_conversations=most,
                most_messages=most * _MESSAGES_EACH,
                limit=walk.missing,
                **behind(walk.after),
                **filters,
            )
            walk.found += part.found
            walk.walked += part.walked
            walk.after = part.last or walk.after
            walk.is_done = part.is_end or not walk.missing
            most = self._next_part(walk, most)
        return walk

    def _next_part(self, walk: _Walk, last: int) -> int:
        """Return how many conversations to walk on, or 0 where the index should be asked."""
        if not self.has_index:
            return last * _GROWTH
        if not walk.found or last > _FIRST_WALK:
            return 0
        needed = int(_MARGIN * walk.missing * walk.walked / len(walk.found))
        return max(needed, _FIRST_WALK + 1) if needed <= _LONGEST_WALK else 0


def behind(position: Position | None) -> dict[str, Any]:
    """Return where a page begins, as the repository takes it."""
    at, id = position or (UNSET, UNSET)
    return {"after_at": at, "after_id": id}
