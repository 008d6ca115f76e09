"""Typed arguments that several repository methods share.

In a filter UNSET means no condition, and None means that the column is NULL. Services build these
values; only repositories turn them into the parameters and flags of SQL files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from asyncsvc.validation.cursors import Position
from asyncsvc.validation.types import UNSET, OrderBy, UnsetType

_SHORT_LIST: Final = 100
"""The rows from the start of a list within which a page is `short`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRange:
    """A half-open range of instants. UNSET: the range is open on that side."""

    from_: datetime | UnsetType = UNSET
    """The first instant of the range."""
    before: datetime | UnsetType = UNSET
    """The first instant after the range."""


ANY_TIME: Final = TimeRange()


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFilter:
    """Conditions of a usage statistic. None: usage without a source, token or model."""

    dialog_id: str | UnsetType = UNSET
    source: str | UnsetType | None = UNSET
    token_id: str | UnsetType | None = UNSET
    model: str | UnsetType | None = UNSET
    user_id: str | UnsetType = UNSET

    @property
    def dimension(self) -> str | None:
        """The dimension of the buckets that have this usage; None if there are none."""
        names = [name for name, value in self.conditions().items() if value is not UNSET]
        if not names:
            return "all"
        return names[0] if len(names) == 1 and names[0] != "user_id" else None

    def conditions(self) -> dict[str, object]:
        """Return the conditions by parameter name."""
        return {
            "dialog_id": self.dialog_id,
            "source": self.source,
            "token_id": self.token_id,
            "model": self.model,
            "user_id": self.user_id,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ListFilter:
    """Conditions of a list or search of conversations."""

    tenant_id: str
    dialog_id: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    user_id: str | UnsetType = UNSET
    exp_user_id: str | UnsetType = UNSET
    thumb: int | UnsetType = UNSET
    """1: conversations with positive feedback. -1: with negative feedback."""
    metadata: str | UnsetType = UNSET
    """Members of the metadata, as a JSON object."""
    keywords: str | UnsetType = UNSET
    """A substring of a message or of the name, normalized to NFC."""
    id_keywords: str | UnsetType = UNSET
    """The same substring without normalization, for ids and names. Ids are not normalized."""
    created: TimeRange = ANY_TIME
    updated: TimeRange = ANY_TIME

    @property
    def is_unfiltered(self) -> bool:
        """Whether only the tenant, the dialog and times are conditions."""
        return self == ListFilter(
            tenant_id=self.tenant_id,
            dialog_id=self.dialog_id,
            created=self.created,
            updated=self.updated,
        )

    @property
    def is_selective(self) -> bool:
        """Whether an id, a user, an account or metadata is a condition, so that few rows match.

        The user "" may have all conversations of a tenant.
        """
        has_owner = self.exp_user_id is not UNSET or self.user_id not in {UNSET, ""}
        return has_owner or self.id is not UNSET or self.metadata is not UNSET

    def conditions(self) -> dict[str, object]:
        """Return the conditions that apply, by parameter name."""
        values: dict[str, object] = {
            "tenant_id": self.tenant_id,
            "dialog_id": self.dialog_id,
            "id": self.id,
            "user_id": self.user_id,
            "exp_user_id": self.exp_user_id,
            "thumb": self.thumb,
            "metadata": self.metadata,
            "keywords": self.keywords,
            "id_keywords": self.id_keywords,
            "created_from": self.created.from_,
            "created_before": self.created.before,
            "updated_from": self.updated.from_,
            "updated_before": self.updated.before,
        }
        return {name: value for name, value in values.items() if value is not UNSET}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The order of a list. Ties are broken by id, in the same direction."""

    column: OrderBy = "created_at"
    descending: bool = True

    @property
    def is_by_time(self) -> bool:
        """Whether the list is ordered by a time, so that its pages have cursors."""
        return self.column in {"created_at", "updated_at"}

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of a statement that sorts by any column."""
        return (f"by_{self.column}", *(() if self.descending else ("asc",)))


NEWEST_FIRST: Final = Order()


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSlice:
    """The part of a list that one call returns, and how much of the list it counts."""

    limit: int
    """The maximum number of rows. One more than the page size shows whether a next page exists."""
    offset: int = 0
    after: Position | None = None
    """The page starts after this position. It does not reduce the total."""
    after_id: str | UnsetType = UNSET
    """The page starts after the conversation with this id, in place of a position."""
    count_limit: int | None = 0
    """The number at which counting stops. 0: no total. None: every match is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Include:
    """The parts of a conversation that are returned only on request."""

    dsl: bool = True
    messages: bool = False


WHOLE: Final = Include()


def list_flags(where: ListFilter, order: Order, page: PageSlice) -> Iterator[str]:
    """Yield the flags of a list that make its statement cheaper."""
    if where.is_selective and order.column == "updated_at":
        yield "owned"
    if where.is_unfiltered:
        if page.count_limit is None and where.created == where.updated == ANY_TIME:
            # The usage contains the total of a tenant or dialog. A capped count reads fewer rows
            # than the ledger of a store without maintenance may have.
            yield "by_usage"
        yield "unfiltered"
        if page.offset + page.limit <= _SHORT_LIST:
            yield "short"
