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


class Folded(NamedTuple):
    """What one batch of a fold looked at and put into the index, and where the next one begins."""

    found: int
    folded: int
    last: tuple[datetime, str, int] | None


class SearchRepository(Repository):
    """The statements that find keywords, and those that fold what was written into their index."""

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
        """Return the next tenant that has something to fold."""
        (row,) = await self._rows("next_tenant", after_tenant_id=UNSET if after is None else after)
        tenant_id: str | None = row["tenant_id"]
        return tenant_id

    async def fold_messages(
        self,
        *,
        tenant_id: str,
        after: tuple[datetime, str, int] | None,
        limit: int,
        most_bytes: int,
    ) -> Folded:
        """Put one batch of messages into the index."""
        at, id, seq = after or (UNSET, UNSET, UNSET)
        (row,) = await self._rows(
            "fold_messages",
            tenant_id=tenant_id,
            after_at=at,
            after_id=id,
            after_seq=seq,
            limit=limit,
            most_bytes=most_bytes,
        )
        return _folded(row)

    async def fold_titles(
        self, *, tenant_id: str, after: tuple[datetime, str, int] | None, limit: int
    ) -> Folded:
        """Put one batch of titles into the index."""
        at, id, _ = after or (UNSET, UNSET, UNSET)
        (row,) = await self._rows(
            "fold_titles", tenant_id=tenant_id, after_at=at, after_id=id, limit=limit
        )
        return _folded(row)

    async def sort_in(self) -> None:
        """Have the server sort in what was folded."""
        await self._rows("sort_in")


def _is_by_updated_at(order: str) -> bool:
    return order.startswith("by_updated_at")


def _folded(row: Row) -> Folded:
    last = None if row["id"] is None else (row["at"], row["id"], row["seq"])
    return Folded(row["found"], row["folded"], last)
