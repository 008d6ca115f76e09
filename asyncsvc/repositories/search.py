"""The statements of `sql/search`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from asyncsvc.database import build_model, build_models, build_value, build_values
from asyncsvc.models import Hit, Model
from asyncsvc.models.columns import Timestamp
from asyncsvc.repositories.base import Repository
from asyncsvc.repositories.query import ListFilter, Order, PageSlice
from asyncsvc.validation.cursors import Position
from asyncsvc.validation.types import UNSET

if TYPE_CHECKING:
    from asyncsvc.database import Row


class Match(Model):
    """A conversation that contains the keywords."""

    id: str
    """The id of the conversation."""
    at: Timestamp
    """`updated_at` if the page is ordered by it, otherwise `created_at`."""
    seq: int = 0
    """The `seq` of the first message with the keywords. 0: the id or name has them, or unknown."""

    def position(self) -> Position:
        """Return the position in a list ordered by time."""
        return Position(self.at, self.id)


class Scan(Model):
    """The result of scanning conversations in page order."""

    matches: list[Match]
    """The matches, in page order."""
    scanned: int
    """The number of scanned conversations."""
    last_at: Timestamp | None
    """The time of the last scanned conversation; None if there was none."""
    last_id: str | None
    """The id of the last scanned conversation."""
    is_end: bool
    """Whether the list ends with the last scanned conversation."""

    @property
    def last(self) -> Position | None:
        """The position of the last scanned conversation; None if there was none."""
        if self.last_at is None or self.last_id is None:
            return None
        return Position(self.last_at, self.last_id)


class IndexPosition(NamedTuple):
    """The position of a message or title in the order in which maintenance indexes them."""

    at: Timestamp
    """The creation time of the conversation."""
    id: str
    """The id of the conversation."""
    seq: int
    """The seq of the message; 0 for a title."""


class IndexedBatch(NamedTuple):
    """The result of indexing one batch of messages or titles."""

    indexed: int
    """The number of added texts. Texts that another session has locked are skipped."""
    last: IndexPosition | None
    """The position of the last text of the batch; None if no text was left."""


class SearchRepository(Repository):
    """The search for keywords, and the maintenance of its index."""

    folder = "search"

    async def scan(
        self,
        where: ListFilter,
        *,
        order: Order,
        after: Position | None,
        limit: int,
        max_conversations: int,
        max_messages: int,
    ) -> Scan:
        """Search the next conversations of an order by time, without the search index."""
        rows = await self._rows(
            "scan",
            *(["by_updated_at"] if order.column == "updated_at" else []),
            "descending" if order.descending else "ascending",
            **where.conditions(),
            after_at=UNSET if after is None else after.at,
            after_id=UNSET if after is None else after.id,
            limit=limit,
            max_conversations=max_conversations,
            max_messages=max_messages,
        )
        matches = [dict(row.items()) for row in rows if row["id"] is not None]
        return build_model(Scan, {**dict(rows[0].items()), "matches": matches})

    async def newest_matches(
        self, where: ListFilter, *, after: Position | None, limit: int, weeks: int
    ) -> list[Match]:
        """Search messages by the index, newest conversation first.

        The statement reads the last `weeks` weeks first. The filter has a tenant and keywords, and
        may have a dialog and a user.
        """
        rows = await self._rows(
            "newest_matches",
            **where.conditions(),
            after_at=UNSET if after is None else after.at,
            after_id=UNSET if after is None else after.id,
            limit=limit,
            weeks=weeks,
        )
        return build_models(Match, rows)

    async def match_page(
        self, where: ListFilter, *, order: Order, page: PageSlice
    ) -> tuple[int, list[Match]]:
        """Return the total and one page of the matches in any order, by the index."""
        rows = await self._rows(
            "match_page",
            *order.flags,
            **where.conditions(),
            after_at=UNSET if page.after is None else page.after.at,
            after_id=UNSET if page.after is None else page.after.id,
            limit=page.limit,
            offset=page.offset,
            count_limit=page.count_limit,
        )
        matches = build_models(Match, (row for row in rows if row["id"] is not None))
        return build_value(int, rows[0], "total"), matches

    async def snippets(
        self, matches: Sequence[Match], *, tenant_id: str, keywords: str
    ) -> list[Hit]:
        """Return the matches as hits, each with a snippet of its message, in the given order."""
        rows = await self._rows(
            "snippets",
            tenant_id=tenant_id,
            keywords=keywords,
            ids=[match.id for match in matches],
            seqs=[match.seq for match in matches],
        )
        return build_models(Hit, rows)

    async def next_tenants(self, *, after: str | None) -> list[str]:
        """Return the next tenants with messages or titles outside the index, ordered by id.

        One tenant at a time, on Citus up to 1,000, since each call reads all shards there.
        """
        rows = await self._rows(
            "next_tenants",
            *(["many"] if self._executor.settings.citus else []),
            after_tenant_id=UNSET if after is None else after,
        )
        with_tenant = [row for row in rows if row["tenant_id"] is not None]
        return build_values(str, with_tenant, "tenant_id")

    async def index_messages(
        self, *, tenant_id: str, after: IndexPosition | None, limit: int, max_bytes: int
    ) -> IndexedBatch:
        """Add the next batch of a tenant's messages to the index."""
        (row,) = await self._rows(
            "index_messages",
            tenant_id=tenant_id,
            after_at=UNSET if after is None else after.at,
            after_id=UNSET if after is None else after.id,
            after_seq=UNSET if after is None else after.seq,
            limit=limit,
            max_bytes=max_bytes,
        )
        return _indexed_batch(row)

    async def next_message(
        self, *, tenant_id: str, after: IndexPosition | None
    ) -> IndexPosition | None:
        """Return the position of a tenant's next unindexed message; None if none is left."""
        rows = await self._rows(
            "next_message",
            tenant_id=tenant_id,
            after_at=UNSET if after is None else after.at,
            after_id=UNSET if after is None else after.id,
            after_seq=UNSET if after is None else after.seq,
        )
        return build_model(IndexPosition, rows[0]) if rows else None

    async def index_titles(
        self, *, tenant_id: str, after: IndexPosition | None, limit: int
    ) -> IndexedBatch:
        """Add the next batch of a tenant's titles to the index."""
        (row,) = await self._rows(
            "index_titles",
            tenant_id=tenant_id,
            after_at=UNSET if after is None else after.at,
            after_id=UNSET if after is None else after.id,
            limit=limit,
        )
        return _indexed_batch(row)

    async def flush_pending_list(self) -> None:
        """Move the entries on the pending lists of both indexes into their trees."""
        await self._rows("flush_pending_list")


def _indexed_batch(row: Row) -> IndexedBatch:
    values = dict(row.items())
    indexed = values.pop("indexed")
    return build_model(
        IndexedBatch, {"indexed": indexed, "last": None if values["id"] is None else values}
    )
