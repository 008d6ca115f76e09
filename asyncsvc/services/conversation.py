"""Conversations, their messages, and how much they were used."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from asyncsvc import paging
from asyncsvc.dates import bucket_start, first_instant, instants, zone
from asyncsvc.errors import (
    AlreadyExists,
    AsyncSvcError,
    Conflict,
    IdempotencyConflict,
    InvalidInput,
    NotFound,
    StaleSequence,
)
from asyncsvc.fields import (
    ANY,
    EARLIEST,
    UNSET,
    Age,
    AgeBy,
    AnyType,
    Cursor,
    DateLike,
    Id,
    IdempotencyKey,
    Ids,
    Instant,
    Interval,
    Json,
    JsonObject,
    Keywords,
    Label,
    Name,
    OrAny,
    OrderBy,
    PageNumber,
    PageSize,
    Seq,
    Sought,
    Source,
    Thumb,
    Total,
    UsageBy,
    UserId,
    Zone,
)
from asyncsvc.models import (
    Appended,
    Conversation,
    ConversationName,
    ConversationPatches,
    ConversationPatchLike,
    ErasureReceipt,
    Hits,
    LoadReport,
    MessagePatchLike,
    NewConversation,
    NewConversations,
    Page,
    PurgeReport,
    Records,
    StoredMessage,
    Turn,
    TurnLike,
    UsageBucket,
    microseconds,
)
from asyncsvc.paging import Item, Place
from asyncsvc.repositories import (
    ConversationRepository,
    MessageRepository,
    ServerRepository,
    UsageRepository,
)
from asyncsvc.repositories.conversation import Purged
from asyncsvc.repositories.search import Found
from asyncsvc.services.common import CommonService, columns, found, given, new_id, wanted
from asyncsvc.services.loading import Load
from asyncsvc.services.searching import Search, behind
from asyncsvc.services.usage import declare_zone, known_zone, recount
from asyncsvc.validation import validated

if TYPE_CHECKING:
    from asyncsvc.executor import Executor
    from asyncsvc.settings import Settings


MOST_COUNTED: Final = 10_000
_COUNT_LIMITS: Final[Mapping[str, int | None]] = {
    "exact": None,
    "capped": MOST_COUNTED + 1,
    "none": 0,
}
_SECONDS: Final[Mapping[str, int]] = {
    "hour": 3_600,
    "day": 86_400,
    "week": 7 * 86_400,
    "month": 31 * 86_400,
}
_CANONICAL: Final = json.JSONEncoder(sort_keys=True)
_CURSOR_COLUMNS: Final = frozenset({"create_time", "update_time"})
_DELETED_AT_ONCE = 1_000
# An append that commits meanwhile waits until what such a batch has written is on the disk.
_CONVERSATIONS_AT_ONCE = 50
_MESSAGES_AT_ONCE = 500
_READ_AT_ONCE = 500
_MESSAGES_READ_AT_ONCE = 10_000
_BYTES_AT_ONCE = 2**23
_APPEND_ATTEMPTS = 3


class API4ConversationService(CommonService):
    """Conversations of many tenants: create, append, list, count, change, delete.

    Each method is bound to one tenant; another tenant's id behaves as one that does not exist.
    Wrong values raise InvalidInput before any SQL. The database's failures raise Unavailable when a
    repeat may succeed (for reads and keyed appends the library made it), else DatabaseError; a
    missing schema raises MigrationError. Round trips are
    those of the statements; a pool of yours adds one, after the answer, to reset the connection.
    """

    def __init__(self, executor: Executor, settings: Settings) -> None:
        """Run on this executor; see `asyncsvc.connect` and `asyncsvc.AsyncSvc` for callers."""
        super().__init__(executor, settings)
        self._conversations = ConversationRepository(executor)
        self._messages = MessageRepository(executor)
        self._search = Search(executor)
        self._usage = UsageRepository(executor)
        self._server = ServerRepository(executor)

    # ---------------------------------------------------------------- create

    @validated
    async def create(
        self,
        *,
        tenant_id: Id,
        dialog_id: Id,
        id: Id | None = None,
        user_id: UserId = "",
        exp_user_id: Id | None = None,
        name: Name | None = None,
        source: Source | None = None,
        dsl: Json = None,
        version_title: Label | None = None,
        metadata: JsonObject | None = None,
        created_at: Instant | None = None,
    ) -> Conversation:
        """Create a conversation and return it; without an `id` it gets a new one.

        `created_at` is for what happened elsewhere before; without it the server's clock decides.

        Raises AlreadyExists when the tenant has this id. One round trip; locks the new row.
        """
        conversation = NewConversation(
            dialog_id=dialog_id,
            id=id,
            user_id=user_id,
            exp_user_id=exp_user_id,
            name=name,
            source=source,
            dsl=dsl,
            version_title=version_title,
            metadata=metadata,
            created_at=created_at,
        )
        created = await self._conversations.create_many(
            tenant_id=tenant_id, records=[_record(conversation)]
        )
        if not created:
            raise AlreadyExists("the tenant has a conversation of this id")
        return created[0]

    @validated
    async def create_many(self, conversations: NewConversations, *, tenant_id: Id) -> int:
        """Create conversations and return how many were new; ids that exist are left as they are.

        So it can be repeated, when each has an id. One round trip; locks the new rows.
        """
        created = await self._conversations.create_many(
            tenant_id=tenant_id, records=[_record(conversation) for conversation in conversations]
        )
        return len(created)

    # ------------------------------------------------------------------ read

    @validated
    async def get_list(
        self,
        dialog_id: Id,
        tenant_id: Id,
        page_number: PageNumber = 1,
        items_per_page: PageSize = 30,
        orderby: OrderBy = "create_time",
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
        ordered by it, else the creation; `asyncsvc.dates` says what they mean. `total` ignores the
        cursor: "exact" counts every match, "capped" stops at 10,000, "none" does not count.
        `include_messages` brings all messages of each conversation.

        Raises InvalidInput for a cursor of other filters, or one together with a page number.
        One round trip, one snapshot, no locks; with keywords as many as `search`. By cursor it
        costs the page and what its filters pass over, by number what the pages before cost too,
        each on the index of its order; "exact" costs every match, so a walk by cursor wants "none";
        orders other than time sort the dialog.
        """
        if page_number * items_per_page > self._settings.page_window:
            raise InvalidInput("page_number", "is too far: go on by the cursor of a page")
        if after is not None and page_number != 1:
            raise InvalidInput("page_number", "cannot be combined with a cursor")
        column = orderby.replace("_date", "_time")
        order = f"by_{column}_{'desc' if desc else 'asc'}"
        filters = {
            "id": given(id),
            "user_id": given(user_id),
            "exp_user_id": given(exp_user_id),
            "keywords": unicodedata.normalize("NFC", keywords) if keywords else UNSET,
            "id_keywords": keywords or UNSET,  # ids are kept as given
            **_time_filters(column, *instants(from_date, to_date, tz)),
        }
        belongs_to = paging.fingerprint(
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
            following = paging.following(found, items_per_page, _place_of, belongs_to)
        else:
            flags = [order, *(["recent"] if column == "update_time" else [])]
            if total != "none" and all(value is UNSET for value in filters.values()):
                flags.append("unfiltered")
            counted, items = await self._conversations.get_list(
                flags=flags, **asked, **behind(place), **included
            )
            place_of = partial(_place, column=column)
            following = paging.following(items, items_per_page, place_of, belongs_to)
        if column not in _CURSOR_COLUMNS:
            following = None
        return _page(items[:items_per_page], counted, total, following)

    def _after(self, cursor: str | None, column: str, belongs_to: str) -> Place | None:
        """Return where the page begins."""
        if cursor is None:
            return None
        if column not in _CURSOR_COLUMNS:
            raise InvalidInput("after", "does not go with this order: use page numbers")
        position = paging.decode(cursor, belongs_to, self._settings)
        return position.at, position.id

    @validated
    async def search(
        self,
        tenant_id: Id,
        keywords: Sought,
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
        costs every match. `asyncsvc.services.searching` says more.
        """
        filters = {
            "tenant_id": tenant_id,
            "dialog_id": wanted(dialog_id),
            "user_id": wanted(user_id),
            "keywords": keywords,
        }
        belongs_to = paging.fingerprint({"order": "search", **filters})
        found = await self._search.newest(
            limit=limit + 1, after=self._after(after, "create_time", belongs_to), **filters
        )
        hits = await self._search.show(found[:limit], tenant_id=tenant_id, keywords=keywords)
        counted = 0
        if total != "none":
            counted = await self._search.count(count_limit=_COUNT_LIMITS[total], **filters)
        following = paging.following(found, limit, _place_of, belongs_to)
        return _page(hits, counted, total, following)

    @validated
    async def get_by_id(
        self,
        id: Id,
        *,
        tenant_id: Id,
        include_dsl: bool = True,
        include_messages: bool = False,
    ) -> Conversation:
        """Return one conversation, with all its messages where they are asked for.

        Raises NotFound. One round trip on the primary key, no locks.
        """
        rows = await self._conversations.get_by_ids(
            tenant_id=tenant_id,
            ids=[id],
            include_dsl=include_dsl,
            include_messages=include_messages,
        )
        return found(rows[0] if rows else None, "conversation")

    @validated
    async def get_by_ids(
        self,
        ids: Ids,
        *,
        tenant_id: Id,
        include_dsl: bool = True,
        include_messages: bool = False,
    ) -> list[Conversation]:
        """Return conversations in the order of their ids; one that does not exist is left out.

        One round trip on the primary key, no locks.
        """
        return await self._conversations.get_by_ids(
            tenant_id=tenant_id,
            ids=ids,
            include_dsl=include_dsl,
            include_messages=include_messages,
        )

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

    @validated
    async def messages(
        self,
        id: Id,
        *,
        tenant_id: Id,
        after_seq: Seq | None = None,
        before_seq: Seq | None = None,
        last: PageSize | None = None,
        limit: PageSize = 100,
    ) -> list[StoredMessage]:
        """Return messages in the order of `seq`: the first `limit`, or the `last` so many.

        `after_seq` and `before_seq` bound them and are not included. The page after this one is
        `after_seq=` its last seq; the page before it is `before_seq=` its first seq together with
        `last`, which takes the place of `limit`.

        Raises NotFound without such a conversation. One round trip on the primary key, no locks;
        it costs the messages returned, wherever in the conversation they are.
        """
        messages = await self._messages.get_list(
            tenant_id=tenant_id,
            id=id,
            after_seq=given(after_seq),
            before_seq=given(before_seq),
            limit=limit if last is None else last,
            order="first" if last is None else "last",
        )
        return found(messages, "conversation")

    # ---------------------------------------------------------------- append

    @validated
    async def append_message(
        self,
        id: Id,
        turn: TurnLike,
        *,
        tenant_id: Id,
        idempotency_key: IdempotencyKey | None = None,
        expected_seq: Seq | None = None,
    ) -> Appended:
        """Append the messages of a turn and bump the conversation's counters, all or nothing.

        With an `idempotency_key` a replay of the same turn returns the first answer and adds
        nothing. Pass one: when the connection is lost the append is made again for you, and a call
        whose outcome is unknown all the same (a cancelled task) can be made again. With
        `expected_seq`, the `last_seq` that the caller saw, it only appends when nobody else has
        since; a replay does not mind.

        Raises NotFound; IdempotencyConflict when the key was used for another turn; StaleSequence;
        Conflict when the conversation kept changing. One round trip, two when it raises or replays,
        at most six in a race. A key is remembered for `Settings.key_lifetime`. It locks the
        conversation's row to the end of the transaction; the cost does not depend on the
        conversation's length.
        """
        turn = cast("Turn", turn)
        key = None if idempotency_key is None else (idempotency_key, _body_hash(turn))
        for _ in range(_APPEND_ATTEMPTS):
            appended = await self._append(tenant_id, id, turn, key, expected_seq)
            if appended is not None:
                return appended
            refusal = await self._conversations.explain_append(
                tenant_id=tenant_id, id=id, key=idempotency_key
            )
            if refusal is None:
                raise NotFound("no such conversation")
            if refusal.first is not None:
                if key is None or refusal.body_hash != key[1]:
                    raise IdempotencyConflict("the idempotency key was used for another turn")
                return refusal.first
            if expected_seq not in {None, refusal.present_seq}:
                raise StaleSequence(
                    f"expected_seq is {expected_seq}, the last one is {refusal.present_seq}"
                )
            # What refused it is gone: the conversation was made meanwhile, or its last_seq came to
            # be the expected one.
        raise Conflict("the conversation kept changing; try again")

    async def _append(
        self,
        tenant_id: str,
        id: str,
        turn: Turn,
        key: tuple[str, bytes] | None,
        expected_seq: int | None,
    ) -> Appended | None:
        expected = given(expected_seq)
        if key is None:
            return await self._conversations.append_message(
                tenant_id=tenant_id, id=id, turn=turn, expected_seq=expected
            )
        return await self._conversations.append_message_once(
            tenant_id=tenant_id,
            id=id,
            turn=turn,
            expected_seq=expected,
            key=key[0],
            body_hash=key[1],
        )

    # ---------------------------------------------------------------- change

    @validated
    async def update_by_id(
        self, id: Id, patch: ConversationPatchLike, *, tenant_id: Id
    ) -> Conversation:
        """Set columns of a conversation and return it as it is now; it counts as updated.

        Raises NotFound. One round trip, four where `dialog_id` is set, since messages go along to
        another dialog; locks the row to the end of the transaction.
        """
        updated = await self._update(tenant_id, {id: columns(patch)})
        return found(updated[0] if updated else None, "conversation")

    @validated
    async def update_many_by_id(self, patches: ConversationPatches, *, tenant_id: Id) -> int:
        """Set columns of conversations, each by its own patch; return how many there were.

        One round trip, four where a `dialog_id` is set, since messages go along to another dialog;
        locks the rows in the order of their ids, to the end of the transaction.
        """
        updated = await self._update(
            tenant_id, {id: columns(patch) for id, patch in patches.items()}
        )
        return len(updated)

    async def _update(
        self, tenant_id: str, patches: Mapping[str, Mapping[str, object]]
    ) -> list[Conversation]:
        """Set columns; what moves to another dialog takes its messages along."""
        moving = [id for id, patch in patches.items() if "dialog_id" in patch]
        if not moving:
            return await self._conversations.update_many_by_id(tenant_id=tenant_id, patches=patches)
        async with self._executor.transaction() as executor:
            updated = await ConversationRepository(executor).update_many_by_id(
                tenant_id=tenant_id, patches=patches
            )
            await MessageRepository(executor).move(tenant_id=tenant_id, ids=moving)
        return updated

    @validated
    async def set_feedback(
        self, id: Id, seq: Seq, thumb: Thumb | None, *, tenant_id: Id
    ) -> StoredMessage:
        """Judge a message with thumb 1 or -1, or withdraw it with None; return the message.

        The conversation's counters follow, also when many judge at once. Its update time stays.

        Raises NotFound. One round trip; locks the conversation's row, then the message's.
        """
        message = await self._messages.set_thumb(tenant_id=tenant_id, id=id, seq=seq, thumb=thumb)
        return found(message, "message")

    @validated
    async def update_message(
        self, id: Id, seq: Seq, patch: MessagePatchLike, *, tenant_id: Id
    ) -> StoredMessage:
        """Edit a message and return it as it is now; its conversation counts as updated.

        Raises NotFound. One round trip; locks the conversation's row, then the message's.
        """
        message = await self._messages.update(
            tenant_id=tenant_id, id=id, seq=seq, patch=columns(patch)
        )
        return found(message, "message")

    # ---------------------------------------------------------------- delete

    @validated
    async def delete_message(self, id: Id, seq: Seq, *, tenant_id: Id) -> int:
        """Delete a message and withdraw its thumb; return 1, or 0 where there was none.

        Its seq is not used again. One round trip; locks the conversation's row, then the
        message's.
        """
        return await self._messages.delete(tenant_id=tenant_id, id=id, seq=seq)

    @validated
    async def pop_message(self, id: Id, *, tenant_id: Id) -> StoredMessage | None:
        """Take the last message off and return it, or None where there is none left.

        Raises NotFound without such a conversation. One round trip; locks the conversation's row,
        then the message's. Two that pop at once get two messages.
        """
        popped = found(await self._messages.pop(tenant_id=tenant_id, id=id), "conversation")
        return popped[0] if popped else None

    @validated
    async def clear_messages(self, id: Id, *, tenant_id: Id) -> int:
        """Delete all messages of a conversation, withdraw their thumbs, return how many.

        It is 0 also where there is no such conversation.

        One round trip; locks the conversation's row, then the messages'.
        """
        return await self._messages.clear(tenant_id=tenant_id, id=id)

    @validated
    async def delete_by_id(self, id: Id, *, tenant_id: Id) -> int:
        """Delete a conversation with its messages; return 1, or 0 where there was none.

        One round trip; locks the row. It costs the messages deleted.
        """
        return await self._conversations.delete_by_ids(tenant_id=tenant_id, ids=[id])

    @validated
    async def delete_by_ids(self, ids: Ids, *, tenant_id: Id) -> int:
        """Delete conversations with their messages; return how many there were.

        One round trip, one transaction; locks the rows in the order of their ids.
        """
        return await self._conversations.delete_by_ids(tenant_id=tenant_id, ids=ids)

    @validated
    async def delete_by_dialog_ids(self, dialog_ids: Ids, *, tenant_id: Id) -> int:
        """Delete all conversations of these dialogs; return how many there were.

        In batches of 1,000, one round trip and (outside `transaction`) one commit each: when it
        fails half-way, what was deleted stays deleted, and calling again goes on.
        """
        deleted, found_all = 0, True
        while found_all:
            batch = await self._conversations.delete_by_dialog_ids(
                tenant_id=tenant_id, dialog_ids=dialog_ids, batch=_DELETED_AT_ONCE
            )
            deleted += batch.deleted
            found_all = batch.found == _DELETED_AT_ONCE
        return deleted

    @validated
    async def delete_by_user(
        self,
        user_id: Id,
        *,
        tenant_id: Id,
        on_batch: Callable[[ErasureReceipt], None] | None = None,
    ) -> ErasureReceipt:
        """Delete everything of a person, as they have the right to ask; return a receipt.

        That is each conversation that names them as `user_id` or as `exp_user_id`, with its
        messages and keys. Statistics by creation follow, since they count what exists.

        In batches of some 50 conversations or 500 messages, one round trip and (outside
        `transaction`) one commit each, and one more to see that nothing of the person is left;
        `on_batch` gets the receipt so far. When it fails half-way, what was deleted stays deleted,
        and calling again goes on. Each batch locks its rows.
        """
        receipt = None
        while True:
            erased = await self._conversations.delete_by_user(
                tenant_id=tenant_id,
                user_id=user_id,
                limit=_CONVERSATIONS_AT_ONCE,
                most_messages=_MESSAGES_AT_ONCE,
            )
            receipt = ErasureReceipt(
                tenant_id=tenant_id,
                user_id=user_id,
                conversations=erased.conversations + (receipt.conversations if receipt else 0),
                messages=erased.messages + (receipt.messages if receipt else 0),
                append_keys=erased.append_keys + (receipt.append_keys if receipt else 0),
                erased_at=erased.at,
            )
            if not erased.found:
                return receipt
            if on_batch is not None:
                on_batch(receipt)

    @validated
    async def purge(
        self,
        older_than: Age,
        *,
        tenant_id: Id,
        dialog_id: OrAny[Id] = ANY,
        by: AgeBy = "update_time",
        dry_run: bool = False,
        tz: Zone = "UTC",
        on_batch: Callable[[PurgeReport], None] | None = None,
    ) -> PurgeReport:
        """Delete a tenant's conversations, or a dialog's, that are older than an age or a date.

        `older_than` is a timedelta, counted back from now by the server's clock, or the date or
        instant itself, before which; `by` says whether since the last update or the creation.
        `dry_run` counts and deletes nothing.

        In batches of at most 50 conversations and some 500 messages, two round trips (one in a
        dry run) and (outside `transaction`) one commit each, one more to find no other, and one
        before for the clock where an age is given; `on_batch` gets the report so far. When it fails
        half-way, what was deleted stays deleted, and calling again goes on. It waits for no lock:
        what somebody else holds is skipped, and a conversation that is written to meanwhile stays.
        It reads the tenant's, or the dialog's, part of one index once.
        """
        before = await self._instant_before(older_than, tz)
        report = PurgeReport(before=before, dry_run=dry_run)
        last = None
        while old := await self._conversations.find_old(
            by=by,
            tenant_id=tenant_id,
            dialog_id=wanted(dialog_id),
            before=before,
            after=last,
            limit=_CONVERSATIONS_AT_ONCE,
            most_messages=_MESSAGES_AT_ONCE,
            count_messages=dry_run,
        ):
            last = old[-1]
            purged = (
                Purged(len(old), sum(each.messages for each in old))
                if dry_run
                else await self._conversations.delete_old(
                    by=by, tenant_id=tenant_id, ids=[each.id for each in old], before=before
                )
            )
            report = report.model_copy(
                update={
                    "conversations": report.conversations + purged.conversations,
                    "messages": report.messages + purged.messages,
                    "skipped": report.skipped + len(old) - purged.conversations,
                }
            )
            if on_batch is not None:
                on_batch(report)
        return report

    async def _instant_before(self, older_than: Age, tz: str) -> datetime:
        """Return the instant that what is old was before."""
        zone(tz)  # checked, whether it is needed or not
        if isinstance(older_than, timedelta):
            now = await self._server.clock()
            return now - min(older_than, now - EARLIEST)
        return first_instant("older_than", older_than, tz)

    # ------------------------------------------------------------------- move

    async def export(
        self, *, tenant_id: str, dialog_id: str | AnyType = ANY, user_id: str | AnyType = ANY
    ) -> AsyncGenerator[Conversation]:
        """Iterate over the whole conversations of a tenant, or of a dialog or user of it.

        Each has its `dsl` and all messages, as they were at one moment, and goes into `load` as it
        is. A tenant's come in the order of their ids, others by creation. Whatever is there from
        the beginning to the end comes exactly once.

        Raises InvalidInput at the first step. One round trip a page, of at most 500 conversations,
        some 10,000 messages and 8 MiB, or one conversation, and one more to find no other; no
        locks, and no connection is held between pages. It costs what it returns: the primary key
        serves a tenant, the index by creation a dialog, that by user a user.
        """
        last = None
        while page := await self._export_page(
            tenant_id=tenant_id, dialog_id=dialog_id, user_id=user_id, after=last
        ):
            for conversation in page:
                yield conversation
            last = page[-1]

    @validated
    async def _export_page(
        self,
        *,
        tenant_id: Id,
        dialog_id: OrAny[Id],
        user_id: OrAny[UserId],
        after: Conversation | None,
    ) -> list[Conversation]:
        return await self._conversations.export(
            tenant_id=tenant_id,
            dialog_id=wanted(dialog_id),
            user_id=wanted(user_id),
            after=after,
            limit=_READ_AT_ONCE,
            most_messages=_MESSAGES_READ_AT_ONCE,
            most_bytes=_BYTES_AT_ONCE,
        )

    @validated
    async def load(
        self,
        records: Records,
        *,
        tenant_id: Id,
        on_refused: Callable[[int, AsyncSvcError], None] | None = None,
    ) -> LoadReport:
        """Store whole conversations: what `export` yields, records, or equal mappings.

        A conversation that is there already is left as it is, so a load can be made again: it adds
        nothing twice, and goes on where it was broken off. A record that is wrong raises
        InvalidInput; one whose id is there, but not with these messages, raises AlreadyExists.
        With `on_refused` either is handed to that, with the record's place from 0 on, and the rest
        goes in. Nobody's clock but the server's fills in what a record does not say.

        In batches of some 5,000 messages, each a transaction of its own of four round trips (within
        the caller's, a savepoint of five), messages by COPY; one more round trip for a batch of
        which a part was there. It locks the new rows. It holds one batch in memory, or one
        conversation where that is larger. Raises DatabaseError for a role that row-level security
        restricts, since there is no COPY then: load as the owner of the tables.
        """
        return await Load(self._executor, self._settings, tenant_id, on_refused).run(records)

    # ----------------------------------------------------------------- usage

    @validated
    async def stats(
        self,
        tenant_id: Id,
        from_date: DateLike,
        to_date: DateLike,
        source: OrAny[Source | None] = ANY,
        *,
        by: UsageBy = "created",
        interval: Interval = "day",
        dialog_id: OrAny[Id] = ANY,
        token_id: OrAny[Id | None] = ANY,
        tz: Zone = "UTC",
        fill: bool = True,
    ) -> list[UsageBucket]:
        """Return the usage of a tenant as buckets of an hour, day, week (from Monday) or month.

        `by="created"` books a conversation on the instant it was created: a recount of what
        exists, exact at any moment, right in any zone across its clock changes.

        `by="activity"` books what happened when it did, and keeps it whatever is deleted later: a
        creation, what a turn cost, a thumb (withdrawn, it counts one less on that day). What `load`
        stores is booked on its creation. Users are not kept, so uv is 0. The range is widened to
        quarters of an hour. `token_id` is that of the turns, None for those without one.

        `source=None` means conversations without a source, ANY all of them. With `fill` empty
        buckets are there too. The first and the last bucket hold what of them is in range;
        `asyncsvc.dates` says what the dates mean.

        Raises InvalidInput for a range longer than `Settings.buckets` buckets, a month taken as 31
        days, and for a `token_id` by creation. One round trip, no locks. In UTC and the zones that
        `declare_zone` named, days, weeks and months cost a row each, and what happened since the
        last `maintain`; a part of one at either end of the range, hours, and other zones cost the
        conversations in them, or the quarters of an hour and tokens by activity.
        """
        # Both are given: the parameters take no None.
        since, until = cast("tuple[datetime, datetime]", instants(from_date, to_date, tz))
        longest = (
            _SECONDS[interval] * self._settings.buckets + _SECONDS["hour"]
        )  # a clock goes back
        if (until - since).total_seconds() > longest:
            raise InvalidInput("to_date", f"must be within {self._settings.buckets} buckets")
        if by == "created" and token_id is not ANY:
            raise InvalidInput("token_id", 'is known by="activity" only')
        asked: dict[str, Any] = {
            "label": partial(bucket_start, local=zone(tz), hourly=interval == "hour"),
            "tenant_id": tenant_id,
            "range_from": since,
            "range_before": until,
            "interval": interval,
            "tz": tz,
            "fill": fill,
            "dialog_id": wanted(dialog_id),
            "source": wanted(source),
            "flags": [
                f"{name}_is_null"
                for name, value in (("source", source), ("token_id", token_id))
                if value is None
            ],
        }
        if token_id is not ANY:
            asked["flags"].append("by_quarter")
        with known_zone():
            if by == "created":
                return await self._usage.stats_by_created(**asked)
            return await self._usage.stats_by_activity(**asked, token_id=wanted(token_id))

    @validated
    async def declare_zone(self, tenant_id: Id, tz: Zone) -> bool:
        """Make the statistics of a tenant fast in a zone; return False where they were already.

        What they say does not change. UTC needs no declaration. Each zone costs `maintain` as much
        as the first.

        Raises InvalidInput for a zone that is not known, LockTimeout where somebody else folds for
        longer than `Settings.lock_timeout`. Five round trips, three where it was declared already;
        in a transaction, where it keeps others from folding this tenant's usage, and no append
        waits. It counts all conversations of the tenant, in all zones.
        """
        zone(tz)
        return await declare_zone(self._executor, tenant_id, tz)

    @validated
    async def recount_usage(self, tenant_id: Id) -> int:
        """Count the sums behind a tenant's statistics anew; return how many bookings were folded.

        Needed when the server got new rules for a zone, whose days then begin elsewhere.

        Five round trips; locks and cost are those of `declare_zone`.
        """
        return await recount(self._executor, tenant_id)


def _record(conversation: NewConversation | Mapping[str, object]) -> dict[str, object]:
    record = columns(conversation)
    return record | {"id": record["id"] or new_id()}


def _time_filters(column: str, since: datetime | None, until: datetime | None) -> dict[str, object]:
    """Return the bounds on the time that a list is ordered by, or else on the creation."""
    time = "updated" if column == "update_time" else "created"
    return {f"{time}_from": given(since), f"{time}_before": given(until)}


def _place_of(found: Found) -> Place:
    """Return where what a search found stands in the order of its page."""
    return found.at, found.id


def _place(item: Conversation, column: str) -> Place:
    """Return where a conversation stands in the order of a list."""
    return item.updated_at if column == "update_time" else item.created_at, item.id


def _page(items: list[Item], counted: int, total: Total, following: str | None) -> Page[Item]:
    """Make the page of items, with as much of a total as was asked for."""
    return Page(
        None if total == "none" else min(counted, MOST_COUNTED) if total == "capped" else counted,
        items,
        next=following,
        total_capped=total == "capped" and counted > MOST_COUNTED,
    )


def _body_hash(turn: Turn) -> bytes:
    """Return the SHA-256 by which a replay is told from another turn under the same key."""
    # Made again with the successor of a rotated token, it is still the same turn.
    messages = [[each.role, each.content, each.reference, each.payload] for each in turn.messages]
    replaced = {
        name: value for name in ("errors", "dsl") if (value := getattr(turn, name)) is not UNSET
    }
    body = [messages, turn.tokens, microseconds(turn.duration), turn.round, replaced]
    return hashlib.sha256(_CANONICAL.encode(body).encode()).digest()
