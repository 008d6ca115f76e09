"""Search conversations: scan them in page order first, then read the search index.

A scan reads the conversations in the order of the page, about 10 microseconds a message, and stops
when the page is full. For a frequent keyword it is the fastest method; for a rare keyword it reads
the whole list. The index finds a rare keyword quickly, but it returns more matches of a frequent
keyword than a page needs. The frequency is unknown in advance, so each search starts with a short
scan:

- If the page is full or the list ended, the search is complete, after 1 round trip.
- If at the rate of matches so far a scan of at most 400 conversations fills the page, it scans
  again.
- Otherwise it reads the index for the conversations after the last scanned one.

Each step is exact, so the choice affects only the time. A scan ends before a conversation with too
many messages, so that the index searches that conversation.

With row-level security PostgreSQL cannot use the search index. Each search is then a series of
scans, each 4 times as long as the previous one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from asyncsvc.models import Hit
from asyncsvc.repositories import SearchRepository
from asyncsvc.repositories.query import NEWEST_FIRST, ListFilter, Order, PageSlice
from asyncsvc.repositories.search import Match
from asyncsvc.validation.cursors import Position

if TYPE_CHECKING:
    from asyncsvc.database import Executor

_FIRST_SCAN: Final = 100
"""The number of conversations that the first scan reads."""
_MAX_SCAN: Final = 400
"""The maximum number of conversations that the second scan reads."""
_MESSAGES_PER_CONVERSATION: Final = 20
"""A scan of n conversations reads at most 20 n messages."""
_GROWTH: Final = 4
_MARGIN: Final = 1.5
"""The second scan reads 1.5 times the conversations that the page needs at the rate of matches."""
_WEEKS_AFTER_MATCHES: Final = 1
_WEEKS_WITHOUT_MATCHES: Final = 8
"""The number of weeks that the index reads first, after scans with and without matches."""


@dataclass(slots=True, kw_only=True)
class _Progress:
    """The state of a series of scans."""

    limit: int
    after: Position | None
    matches: list[Match] = field(default_factory=list)
    scanned: int = 0
    is_done: bool = False
    """Whether the page is full or the list ended."""

    @property
    def missing(self) -> int:
        """The number of matches that the page still needs."""
        return self.limit - len(self.matches)


class Search:
    """Finds the conversations that contain keywords."""

    def __init__(self, executor: Executor) -> None:
        """Run the searches on this executor."""
        self._repository = SearchRepository(executor)
        self.has_index = not executor.settings.row_level_security
        """Whether searches can read the search index."""

    async def newest(self, where: ListFilter, *, limit: int, after: Position | None) -> list[Match]:
        """Return the newest conversations with a message that contains the keywords."""
        scanned = await self._scan(where, order=NEWEST_FIRST, limit=limit, after=after)
        if scanned.is_done:
            return scanned.matches
        return scanned.matches + await self._repository.newest_matches(
            where,
            after=scanned.after,
            limit=scanned.missing,
            weeks=_WEEKS_AFTER_MATCHES if scanned.matches else _WEEKS_WITHOUT_MATCHES,
        )

    async def page(
        self, where: ListFilter, *, order: Order, page: PageSlice
    ) -> tuple[int, list[Match]]:
        """Return the total and one page of the conversations that contain the keywords.

        An exact total needs every match, so a scan would save nothing.
        """
        limit = page.offset + page.limit
        if page.count_limit is not None and order.is_by_time and limit <= _MAX_SCAN:
            scanned = await self._scan(where, order=order, limit=limit, after=page.after)
            if scanned.is_done:
                total = 0
                if page.count_limit:
                    total = await self.count(where, count_limit=page.count_limit)
                return total, scanned.matches[page.offset :]
        return await self._repository.match_page(where, order=order, page=page)

    async def count(self, where: ListFilter, *, count_limit: int | None) -> int:
        """Count the conversations that contain the keywords, up to a limit; None for all."""
        total, _ = await self._repository.match_page(
            where, order=NEWEST_FIRST, page=PageSlice(limit=0, count_limit=count_limit)
        )
        return total

    async def snippets(
        self, matches: Sequence[Match], *, tenant_id: str, keywords: str
    ) -> list[Hit]:
        """Return the matches as hits with snippets. Without matches there is no query."""
        if not matches:
            return []
        return await self._repository.snippets(matches, tenant_id=tenant_id, keywords=keywords)

    async def _scan(
        self, where: ListFilter, *, order: Order, limit: int, after: Position | None
    ) -> _Progress:
        """Scan while a scan is faster than the index."""
        progress = _Progress(limit=limit, after=after)
        size = _FIRST_SCAN
        while size and not progress.is_done:
            scan = await self._repository.scan(
                where,
                order=order,
                after=progress.after,
                limit=progress.missing,
                max_conversations=size,
                max_messages=size * _MESSAGES_PER_CONVERSATION,
            )
            progress.matches += scan.matches
            progress.scanned += scan.scanned
            progress.after = scan.last or progress.after
            progress.is_done = scan.is_end or not progress.missing
            size = self._next_size(progress, size)
        return progress

    def _next_size(self, progress: _Progress, size: int) -> int:
        """Return the size of the next scan, or 0 if the index is faster."""
        if not self.has_index:
            return size * _GROWTH
        if not progress.matches or size > _FIRST_SCAN:
            return 0
        needed = int(_MARGIN * progress.missing * progress.scanned / len(progress.matches))
        return max(needed, _FIRST_SCAN + 1) if needed <= _MAX_SCAN else 0
