"""Lists and searches of conversations."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from asyncsvc.errors import (
    InvalidInput,
)
from asyncsvc.models import (
    Conversation,
    ConversationName,
    Hits,
    Page,
)
from asyncsvc.repositories.search import Found
from asyncsvc.services.common import (
    ConversationServiceBase,
    given,
    wanted,
)
from asyncsvc.services.search import Search, behind
from asyncsvc.validation import cursors
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.cursors import Item, Position
from asyncsvc.validation.dates import instants
from asyncsvc.validation.types import (
    ANY,
    UNSET,
    Cursor,
    DateLike,
    Id,
    Keywords,
    OrAny,
    OrderBy,
    PageNumber,
    PageSize,
    SearchText,
    Total,
    UnsetType,
    UserId,
    Zone,
)

if TYPE_CHECKING:
    from asyncsvc.database import Executor
    from asyncsvc.settings import Settings


TOTAL_CAP: Final = 10_000
_COUNT_LIMITS: Final[Mapping[str, int | None]] = {
    "exact": None,
    "capped": TOTAL_CAP + 1,
    "none": 0,
}
_CURSOR_COLUMNS: Final = frozenset({"created_at", "updated_at"})


class ConversationListing(ConversationServiceBase):
    """Lists and searches of conversations."""

    def __init__(self, executor: Executor, settings: Settings) -> None:
        """Run on this executor."""
        super().__init__(executor, settings)
        self._search = Search(executor)

    @validated
    async def get_list(
        self,
        dialog_id: Id,
        tenant_id: Id,
        page_number: PageNumber = 1,
        items_per_page: PageSize = 30,
        orderby: OrderBy = "created_at",
        desc: bool = True,  # noqa: FBT001, FBT002 - positional as in RAGFlow
        id: Id | None = None,
        user_id: UserId | None = None,
        include_dsl: bool = True,  # noqa: FBT001, FBT002 - as above
        keywords: Keywords = "",
        from_date: DateLike | None = None,
        to_date: DateLike | None = None,
        *,
        exp_user_id: Id | None = None,
        after: Cursor | None = None,
        total: Total = "exact",
        include_messages: bool = False,
        tz: Zone = "UTC",
    ) -> Page[Conversation]:
        r"""Return one page of a dialog's conversations, by number or behind the cursor `after`.

        Ties are broken by id, so pages by creation neither overlap nor lose a row. By update time
        a conversation that is written to meanwhile moves to the front. `next` of a page is the
        cursor of the one after it, in the orders by time; it belongs to its filters and order.

        Filters that are None do not apply. `keywords` is a case-insensitive substring of id, name
        or message text, where `%`, `_` and `\` are literal. The dates bound the update time when
        ordered by it, else the creation; `asyncsvc.validation.dates` says what they mean. `total`
        ignores the cursor: "exact" counts every match, "capped" stops at 10,000, "none" does not
        count.
        `include_messages` brings all messages of each conversation.

        Raises InvalidInput for a cursor of other filters, or one together with a page number.
        One round trip, one snapshot, no locks; with keywords as many as `search`. By cursor it
        costs the page and what its filters pass over, by number what the pages before cost too,
        each on the index of its order; "exact" costs every match, so a walk by cursor wants "none";
        orders other than time sort the dialog.
        """
        if page_number * items_per_page > self._settings.max_page_window:
            raise InvalidInput("page_number", "is too far: go on by the cursor of a page")
        if after is not None and page_number != 1:
            raise InvalidInput("page_number", "cannot be combined with a cursor")
        column = orderby
        order = f"by_{column}_{'desc' if desc else 'asc'}"
        filters = {
            "id": given(id),
            "user_id": given(user_id),
            "exp_user_id": given(exp_user_id),
            "keywords": unicodedata.normalize("NFC", keywords) if keywords else UNSET,
            "id_keywords": keywords or UNSET,  # ids are kept as given
            **_time_filters(column, *instants(from_date, to_date, tz)),
        }
        belongs_to = cursors.fingerprint(
            {"tenant_id": tenant_id, "dialog_id": dialog_id, "order": order, **filters}
        )
        asked: dict[str, Any] = {
            "tenant_id": tenant_id,
            "dialog_id": dialog_id,
            "limit": items_per_page + 1,
            "offset": (page_number - 1) * items_per_page,
            "count_limit": _COUNT_LIMITS[total],
            **filters,
        }
        included: dict[str, Any] = {
            "include_dsl": include_dsl,
            "include_messages": include_messages,
        }
        place = self._after(after, column, belongs_to)
        if keywords and self._search.has_index:
            counted, found = await self._search.page(order=order, after=place, **asked)
            items = []
            if ids := [each.id for each in found[:items_per_page]]:
                items = await self._conversations.get_by_ids(
                    tenant_id=tenant_id, ids=ids, **included
                )
            following = cursors.next_cursor(found, items_per_page, _place_of, belongs_to)
        else:
            flags = [order, *(["recent"] if column == "updated_at" else [])]
            if total != "none" and all(value is UNSET for value in filters.values()):
                flags.append("unfiltered")
            counted, items = await self._conversations.get_list(
                flags=flags, **asked, **behind(place), **included
            )
            place_of = partial(_place, column=column)
            following = cursors.next_cursor(items, items_per_page, place_of, belongs_to)
        if column not in _CURSOR_COLUMNS:
            following = None
        return _page(items[:items_per_page], counted, total, following)

    def _after(self, cursor: str | None, column: str, belongs_to: str) -> Position | None:
        """Return where the page begins."""
        if cursor is None:
            return None
        if column not in _CURSOR_COLUMNS:
            raise InvalidInput("after", "does not go with this order: use page numbers")
        return cursors.decode_cursor(cursor, belongs_to, self._settings)

    @validated
    async def search(
        self,
        tenant_id: Id,
        keywords: SearchText,
        *,
        dialog_id: OrAny[Id] = ANY,
        user_id: OrAny[UserId] = ANY,
        after: Cursor | None = None,
        limit: PageSize = 20,
        total: Total = "none",
    ) -> Hits:
        """Return the newest conversations in which a message holds the keywords, with that message.

        They are any substring of what was written, a single character included, in any script;
        upper and lower case are the same, as the database has them. It finds everything there is,
        the newest append included, at any time; `AsyncSvc.maintain` makes it fast. `next` is the
        cursor of the page behind this one; it belongs to its filters. `total` counts conversations,
        whatever the cursor: "exact" each, "capped" up to 10,000, "none" does not count.

        Raises InvalidInput for a cursor of other filters. One round trip for a walk along the
        newest conversations, one more where it goes on, one more where the index is asked, one more
        to show what was found, one more for a total; each is a snapshot of its own, and there are
        no locks. Words that are common cost that walk, others what the index finds of them; "exact"
        costs every match. `asyncsvc.services.search` says more.
        """
        filters = {
            "tenant_id": tenant_id,
            "dialog_id": wanted(dialog_id),
            "user_id": wanted(user_id),
            "keywords": keywords,
        }
        belongs_to = cursors.fingerprint({"order": "search", **filters})
        found = await self._search.newest(
            limit=limit + 1, after=self._after(after, "created_at", belongs_to), **filters
        )
        hits = await self._search.show(found[:limit], tenant_id=tenant_id, keywords=keywords)
        counted = 0
        if total != "none":
            counted = await self._search.count(count_limit=_COUNT_LIMITS[total], **filters)
        following = cursors.next_cursor(found, limit, _place_of, belongs_to)
        return _page(hits, counted, total, following)

    @validated
    async def get_names(
        self, dialog_id: Id, exp_user_id: Id, *, tenant_id: Id, limit: PageSize = 1_000
    ) -> list[ConversationName]:
        """Return id and name of a person's conversations in a dialog, newest first.

        One round trip, no locks; it reads the dialog from its newest conversation on until
        `limit` of this person are found.
        """
        return await self._conversations.get_names(
            tenant_id=tenant_id, dialog_id=dialog_id, exp_user_id=exp_user_id, limit=limit
        )


def _time_filters(
    column: str, since: datetime | UnsetType, until: datetime | UnsetType
) -> dict[str, object]:
    """Return the bounds on the time that a list is ordered by, or else on the creation."""
    time = "updated" if column == "updated_at" else "created"
    return {f"{time}_from": since, f"{time}_before": until}


def _place_of(found: Found) -> Position:
    """Return where what a search found stands in the order of its page."""
    return Position(found.at, found.id)


def _place(item: Conversation, column: str) -> Position:
    """Return where a conversation stands in the order of a list."""
    return Position(item.updated_at if column == "updated_at" else item.created_at, item.id)


def _page(items: list[Item], counted: int, total: Total, following: str | None) -> Page[Item]:
    """Make the page of items, with as much of a total as was asked for."""
    return Page(
        None if total == "none" else min(counted, TOTAL_CAP) if total == "capped" else counted,
        items,
        next=following,
        total_capped=total == "capped" and counted > TOTAL_CAP,
    )
