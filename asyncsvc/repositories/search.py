"""`sql/search`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from asyncsvc.models import Hit
from asyncsvc.repositories.base import Repository, build_models
from asyncsvc.validation.cursors import Position
from asyncsvc.validation.types import UNSET

if TYPE_CHECKING:
    from asyncsvc.database import Row


class Found(NamedTuple):
    """A conversation that holds the keywords: when it was created or updated, and in which message.

    `seq` is 0 where its id or its name holds them, and where no message was asked for.
    """

    id: str
    at: datetime
    seq: int = 0


class Walked(NamedTuple):
    """What a walk found, how many conversations it looked at, and where it ended.

    `last` is the time and the id of the last, None where it looked at none.
    """

    found: list[Found]
    walked: int
    last: Position | None
    is_end: bool


class IndexPosition(NamedTuple):
    """The position of a message or title in the order in which maintenance indexes them."""

    at: datetime
    """The creation of the conversation."""
    id: str
    """The id of the conversation."""
    seq: int
    """The seq of the message; 0 for a title."""


class IndexedBatch(NamedTuple):
    """The result of indexing one batch of messages or titles."""

    indexed: int
    """The number of texts added. Texts that another session holds are skipped."""
    last: IndexPosition | None
    """The position of the last text of the batch; None if no text was left."""


class SearchRepository(Repository):
    """The search for keywords, and the maintenance of its index."""

    folder = "search"

    async def walk(
        self,
        *,
        order: str,
        most_conversations: int,
        most_messages: int,
        limit: int,
        **filters: object,
    ) -> Walked:
        """Look for the keywords in the next conversations of a page's order."""
        rows = await self._rows(
            "walk",
            *(["recent"] if _is_by_updated_at(order) else []),
            "newest_first" if order.endswith("_desc") else "oldest_first",
            most_conversations=most_conversations,
            most_messages=most_messages,
            limit=limit,
            **filters,
        )
        end = rows[0]
        last = None if end["walked_id"] is None else Position(end["walked_at"], end["walked_id"])
        found = [Found(row["id"], row["at"], row["seq"]) for row in rows if row["id"] is not None]
        return Walked(found, end["walked"], last, end["is_end"])

    async def newest(self, *, weeks: int, limit: int, **filters: object) -> list[Found]:
        """Return the newest conversations with a message that holds the keywords."""
        rows = await self._rows("newest", weeks=weeks, limit=limit, **filters)
        return [Found(**row) for row in rows]

    async def matching(
        self, *, order: str, limit: int, offset: int, count_limit: int | None, **filters: object
    ) -> tuple[int, list[Found]]:
        """Return the total, and the page in the order of this flag."""
        rows = await self._rows(
            "matching",
            order,
            by_updated_at=_is_by_updated_at(order),
            limit=limit,
            offset=offset,
            count_limit=count_limit,
            **filters,
        )
        found = [Found(row["id"], row["at"]) for row in rows if row["id"] is not None]
        return rows[0]["total"], found

    async def show(
        self, *, tenant_id: str, keywords: str, ids: Sequence[str], seqs: Sequence[int]
    ) -> list[Hit]:
        """Return what these hits look like, in their order."""
        rows = await self._rows("show", tenant_id=tenant_id, keywords=keywords, ids=ids, seqs=seqs)
        return build_models(Hit, rows)

    async def next_tenant(self, *, after: str | None) -> str | None:
        """Return the next tenant with messages or titles outside the index, ordered by id."""
        (row,) = await self._rows("next_tenant", after_tenant_id=UNSET if after is None else after)
        tenant_id: str | None = row["tenant_id"]
        return tenant_id

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


def _is_by_updated_at(order: str) -> bool:
    return order.startswith("by_updated_at")


def _indexed_batch(row: Row) -> IndexedBatch:
    last = None if row["id"] is None else IndexPosition(row["at"], row["id"], row["seq"])
    return IndexedBatch(row["indexed"], last)
