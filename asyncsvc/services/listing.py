"""Lists and searches of conversations."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from asyncsvc.errors import InvalidInput
from asyncsvc.models import Conversation, ConversationName, DialogSummary, Hit, Page
from asyncsvc.repositories.query import (
    ANY_TIME,
    NEWEST_FIRST,
    Include,
    ListFilter,
    Order,
    PageSlice,
    TimeRange,
)
from asyncsvc.repositories.search import Match
from asyncsvc.services.common import ConversationServiceBase, row_or_not_found, unset_if_any
from asyncsvc.services.search import Search
from asyncsvc.validation import cursors
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.cursors import Item, Position
from asyncsvc.validation.dates import instants
from asyncsvc.validation.json_values import canonical_json
from asyncsvc.validation.types import (
    ANY,
    UNSET,
    Cursor,
    DateLike,
    Id,
    Keywords,
    Members,
    OrAny,
    OrderBy,
    PageNumber,
    PageSize,
    SearchText,
    Thumb,
    Total,
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


class ConversationListing(ConversationServiceBase):
    """Lists and searches of conversations."""

    def __init__(self, executor: Executor, settings: Settings) -> None:
        """Run on this executor."""
        super().__init__(executor, settings)
        self._search = Search(executor)

    @validated
    async def get_list(
        self,
        *,
        tenant_id: Id,
        dialog_id: OrAny[Id] = ANY,
        page_number: PageNumber = 1,
        items_per_page: PageSize = 30,
        orderby: OrderBy = "created_at",
        desc: bool = True,
        id: OrAny[Id] = ANY,
        user_id: OrAny[UserId] = ANY,
        include_dsl: bool = True,
        keywords: Keywords = "",
        from_date: DateLike | None = None,
        to_date: DateLike | None = None,
        exp_user_id: OrAny[Id] = ANY,
        thumb: OrAny[Thumb] = ANY,
        metadata: OrAny[Members] = ANY,
        after: Cursor | None = None,
        after_id: Id | None = None,
        total: Total = "exact",
        include_messages: bool = False,
        tz: Zone = "UTC",
    ) -> Page[Conversation]:
        r"""Return one page of the conversations of a tenant, newest first by default.

        Pages are addressed by number or by cursor. Ties are broken by id, so pages ordered by
        `created_at` neither overlap nor skip a conversation. In a list ordered by `updated_at`, an
        updated conversation moves to the front.

        Args:
            dialog_id: Only conversations of this dialog; ANY for the whole tenant.
            page_number: From 1. The page ends within the first `Settings.max_page_window` items.
            items_per_page: At most `Settings.max_page_size`.
            orderby: The column of the order.
            desc: Descending order; otherwise ascending.
            id: Only this conversation; ANY for all conversations.
            user_id: Only conversations of this user; ANY for all users.
            include_dsl: Return `dsl`; otherwise it is None.
            keywords: Case-insensitive substring of id, name or a message; `%`, `_` and `\` are
                literal. Empty: no condition.
            from_date: Lower bound of `updated_at` if ordered by it, otherwise of `created_at`. See
                `asyncsvc.validation.dates`.
            to_date: Upper bound, inclusive; a date is the whole day in `tz`.
            exp_user_id: Only conversations that this account explores; ANY for all accounts.
            thumb: 1 for conversations with positive feedback, -1 with negative; ANY for all.
            metadata: Only conversations whose metadata has these members, each a text, a number, a
                boolean or None, of at most 64 KiB; ANY or `{}` for all conversations.
            after: `next` of the previous page, for the same filters and the same order by time.
            after_id: Begin after the conversation with this id, in an order by time. It must belong
                to `user_id`, and need not match the other filters. It does not change the total.
            total: "exact" counts every match, "capped" stops at 10,000, "none" does not count. The
                cursor does not change the total.
            include_messages: Return all messages of each conversation; otherwise None.
            tz: The time zone of dates without a time.

        Returns:
            The page: `items`, `total` and the cursor `next`.

        Raises:
            InvalidInput: A value is out of range, or the cursor belongs to other filters, or two
                of cursor, `after_id` and page number come together.
            NotFound: The tenant or the user has no conversation `after_id`; on a replica also if it
                is newer than the replica.

        Cost:
            1 round trip, no locks, one snapshot; 2 with messages, which are read after the page:
            each conversation as it is then, from one snapshot. With `keywords` 1 to 4 round trips,
            see `asyncsvc.services.search`, and 1 more with `after_id`. By cursor or `after_id`: the
            rows of the page, on the index of its order. By number: also the rows of the pages
            before. Other orders sort the whole list, and so does `updated_at` with `user_id`,
            `exp_user_id` or `metadata`: all conversations that match. `metadata` reads the matches
            by an index; under row-level security it reads the list in its order until the page is
            full, as `thumb` does. "exact" with filters: every match. A total without filters: 1 row
            for each month, and the changes of usage since the last `maintain`.
        """
        if page_number * items_per_page > self._settings.max_page_window:
            raise InvalidInput("page_number", "is too large: use the cursor `next` of a page")
        if page_number != 1 and not (after is after_id is None):
            raise InvalidInput("page_number", "cannot be combined with a cursor or after_id")
        if after is not None and after_id is not None:
            raise InvalidInput("after_id", "cannot be combined with a cursor")
        order = Order(column=orderby, descending=desc)
        start, end = instants(from_date, to_date, tz)
        period = TimeRange(from_=start, before=end)
        where = ListFilter(
            tenant_id=tenant_id,
            dialog_id=unset_if_any(dialog_id),
            id=unset_if_any(id),
            user_id=unset_if_any(user_id),
            exp_user_id=unset_if_any(exp_user_id),
            thumb=unset_if_any(thumb),
            metadata=UNSET if metadata is ANY or not metadata else canonical_json(metadata),
            keywords=unicodedata.normalize("NFC", keywords) if keywords else UNSET,
            id_keywords=keywords or UNSET,
            created=ANY_TIME if orderby == "updated_at" else period,
            updated=period if orderby == "updated_at" else ANY_TIME,
        )
        filters = cursors.fingerprint({"order": orderby, "desc": desc, **where.conditions()})
        page = PageSlice(
            limit=items_per_page + 1,
            offset=(page_number - 1) * items_per_page,
            after=self._position(after, order, filters),
            after_id=UNSET if after_id is None else after_id,
            count_limit=_COUNT_LIMITS[total],
        )
        count, items, cursor = await self._read_page(
            where, order, page, Include(dsl=include_dsl, messages=include_messages), filters
        )
        return _build_page(items, count, total, cursor)

    async def _read_page(
        self, where: ListFilter, order: Order, page: PageSlice, include: Include, filters: str
    ) -> tuple[int, list[Conversation], str | None]:
        """Return the total, the conversations of one page and the cursor of the next page."""
        size = page.limit - 1
        if page.after_id is not UNSET and not order.is_by_time:
            raise InvalidInput("after_id", "requires an order by time: use page numbers")
        if where.keywords is UNSET or not self._search.has_index:
            listed = await self._repository.get_list(
                where, order=order, page=page, include_dsl=include.dsl and not include.messages
            )
            count, items = row_or_not_found(listed, "conversation")
            cursor = cursors.next_cursor(items, size, _position_in(order), filters)
            items = items[:size]
            ids = [item.id for item in items] if include.messages else []
        else:
            page = await self._with_position(page, where, order)
            count, matches = await self._search.page(where, order=order, page=page)
            cursor = cursors.next_cursor(matches, size, Match.position, filters)
            items, ids = [], [match.id for match in matches[:size]]
        if ids:
            items = await self._repository.get_by_ids(
                tenant_id=where.tenant_id, ids=ids, include=include
            )
        return count, items, cursor if order.is_by_time else None

    async def _with_position(self, page: PageSlice, where: ListFilter, order: Order) -> PageSlice:
        """Return the page with the position of the conversation after which it starts."""
        if page.after_id is UNSET:
            return page
        conversations = await self._repository.get_by_ids(
            tenant_id=where.tenant_id,
            ids=[page.after_id],
            include=Include(dsl=False),
            user_id=where.user_id,
        )
        anchor = self._first(conversations)
        return replace(page, after=_position_in(order)(anchor), after_id=UNSET)

    def _position(self, cursor: str | None, order: Order, filters: str) -> Position | None:
        """Return the position after which the page starts; None for the first page."""
        if cursor is None:
            return None
        if not order.is_by_time:
            raise InvalidInput("after", "requires an order by time: use page numbers")
        return cursors.decode_cursor(cursor, filters, self._settings)

    @validated
    async def search(
        self,
        keywords: SearchText,
        *,
        tenant_id: Id,
        dialog_id: OrAny[Id] = ANY,
        user_id: OrAny[UserId] = ANY,
        after: Cursor | None = None,
        limit: PageSize = 20,
        total: Total = "none",
    ) -> Page[Hit]:
        """Return the newest conversations with a message that contains the keywords.

        The search is complete: it includes the latest append. `AsyncSvc.maintain` makes it fast.

        Args:
            keywords: Substring of 1 to 512 characters, in any script. Upper and lower case are
                equal by the rules of the database.
            dialog_id: Only conversations of this dialog; ANY for the whole tenant.
            user_id: Only conversations of this user; ANY for all users.
            after: `next` of the previous page, with the same filters.
            limit: At most `Settings.max_page_size`.
            total: Count of conversations: "exact" counts every match, "capped" stops at 10,000,
                "none" does not count. The cursor does not change the total.

        Returns:
            The page. Each hit has the first message that contains the keywords, with a snippet.

        Raises:
            InvalidInput: A value is out of range, or the cursor belongs to other filters.

        Cost:
            1 round trip to scan the newest conversations, and 1 more each for a second scan, for
            the index, for the snippets and for the count. Each has its own snapshot; no locks.
            Frequent keywords cost the scan, others the matches in the index; "exact" costs every
            match. See `asyncsvc.services.search`.
        """
        where = ListFilter(
            tenant_id=tenant_id,
            dialog_id=unset_if_any(dialog_id),
            user_id=unset_if_any(user_id),
            keywords=keywords,
        )
        filters = cursors.fingerprint({"order": "search", **where.conditions()})
        position = self._position(after, NEWEST_FIRST, filters)
        matches = await self._search.newest(where, limit=limit + 1, after=position)
        hits = await self._search.snippets(matches[:limit], tenant_id=tenant_id, keywords=keywords)
        count = 0
        if total != "none":
            count = await self._search.count(where, count_limit=_COUNT_LIMITS[total])
        cursor = cursors.next_cursor(matches, limit, Match.position, filters)
        return _build_page(hits, count, total, cursor)

    @validated
    async def list_dialogs(
        self, *, tenant_id: Id, after: Cursor | None = None, limit: PageSize = 100
    ) -> Page[DialogSummary]:
        """Return one page of the dialogs that have conversations, in the order of their ids.

        Args:
            after: The `next` of the previous page.
            limit: At most `Settings.max_page_size`.

        Returns:
            The page, with the number of conversations of each dialog and the time of the last
            update in it, and the cursor `next`. Its `total` is None.

        Raises:
            InvalidInput: A value is out of range, or the cursor belongs to another list.

        Cost:
            1 round trip, no locks. For each dialog 2 entries of an index and 1 row for each month;
            and the changes of usage since the last `maintain`. It does not depend on the number of
            conversations.
        """
        filters = cursors.fingerprint({"order": "dialogs", "tenant_id": tenant_id})
        position = None if after is None else cursors.decode_cursor(after, filters, self._settings)
        dialogs = await self._repository.list_dialogs(
            tenant_id=tenant_id,
            after_id=UNSET if position is None else position.id,
            limit=limit + 1,
        )
        following = cursors.next_cursor(
            dialogs, limit, lambda dialog: Position(dialog.updated_at, dialog.dialog_id), filters
        )
        return Page(total=None, items=dialogs[:limit], next=following)

    @validated
    async def get_names(
        self,
        *,
        tenant_id: Id,
        exp_user_id: Id,
        dialog_id: OrAny[Id] = ANY,
        limit: PageSize = 1_000,
    ) -> list[ConversationName]:
        """Return id and name of the conversations of a person, newest first.

        Args:
            exp_user_id: The account that explores an agent.
            dialog_id: Only conversations of this dialog; ANY for all dialogs.
            limit: At most `Settings.max_page_size`.

        Returns:
            At most `limit` ids and names.

        Raises:
            InvalidInput: A value is out of range.

        Cost:
            1 round trip, no locks. Reads the person's conversations in all dialogs, newest first,
            until it has `limit` conversations of this dialog.
        """
        return await self._repository.get_names(
            tenant_id=tenant_id,
            dialog_id=unset_if_any(dialog_id),
            exp_user_id=exp_user_id,
            limit=limit,
        )


def _position_in(order: Order) -> Callable[[Conversation], Position]:
    """Return the function from a conversation to its position in an order by time."""
    if order.column == "updated_at":
        return lambda item: Position(item.updated_at, item.id)
    return lambda item: Position(item.created_at, item.id)


def _build_page(items: list[Item], count: int, total: Total, next: str | None) -> Page[Item]:
    """Build a page whose total is as exact as requested."""
    is_capped = total == "capped" and count > TOTAL_CAP
    return Page(
        total=None if total == "none" else TOTAL_CAP if is_capped else count,
        items=items,
        next=next,
        total_capped=is_capped,
    )
