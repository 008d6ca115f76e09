"""RAGFlow's `API4ConversationService`."""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Collection,
    Mapping,
    MutableMapping,
    Sequence,
)
from typing import Any, Final

from asyncsvc.client import AsyncSvc, Services
from asyncsvc.errors import AlreadyExists, InvalidInput, NotFound
from asyncsvc.models import Conversation, NewConversation
from asyncsvc.ragflow.arguments import (
    is_empty_period,
    is_storable_id,
    search_text,
    storable_ids,
    stored_users,
)
from asyncsvc.ragflow.columns import (
    COLUMNS,
    COUNTERS,
    LISTS,
    SETTABLE,
    USERS,
    check_columns,
    creation_time,
    order,
    references_of,
    select,
    short,
    split_messages,
    with_short_users,
)
from asyncsvc.ragflow.common import Columns, CommonService
from asyncsvc.ragflow.conditions import Filters, ValuesByColumn, satisfies, values_by_column
from asyncsvc.ragflow.edits import RowWriter
from asyncsvc.ragflow.messages import append, attach_references
from asyncsvc.ragflow.row_state import RowState
from asyncsvc.ragflow.shapes import METADATA_KEY, Record, conversation_row, session_row
from asyncsvc.repositories import SessionRepository
from asyncsvc.repositories.session import Session, build_session
from asyncsvc.services.common import new_id
from asyncsvc.validation.types import ANY, AnyType

_PAGE_SIZE: Final = 100
_BATCH_SIZE: Final = 1_000


class API4ConversationService(CommonService):
    """Conversations of one tenant, with RAGFlow's methods, arguments and results.

    Rows are dicts or `Record`s with RAGFlow's columns, and local times are in the zone `tz`. As in
    RAGFlow, an empty argument of a list means any value. Invalid arguments and a database that does
    not answer raise the errors of the service that does the work. A `tenant_id` argument must be
    the tenant of this service.
    """

    resource = "conversation"
    filter_columns = COLUMNS - LISTS - {"dsl"}

    # ------------------------------------------------------------------ read

    async def get_list(
        self,
        dialog_id: str,
        tenant_id: str,
        page_number: int,
        items_per_page: int,
        orderby: str,
        desc: bool,  # noqa: FBT001 - RAGFlow's positions
        id: str | None = None,
        user_id: str | None = None,
        include_dsl: bool = True,  # noqa: FBT001, FBT002 - RAGFlow's positions
        keywords: str | None = "",
        from_date: str | None = None,
        to_date: str | None = None,
        exp_user_id: str | None = None,
    ) -> tuple[int, list[dict[str, Any]]]:
        """Return the number of matching conversations, and one page of rows with their messages.

        Page 0 is also the first page. Without `include_dsl` the rows have no key "dsl". Only the
        first 512 characters of `keywords` count. A page after `Settings.max_page_window` rows is
        empty.

        Cost:
            The cost of `get_list` of the service, with all messages of the page.
        """
        self._check_tenant(tenant_id)
        requested = {"user_id": user_id, "exp_user_id": exp_user_id}
        users = stored_users({name: user for name, user in requested.items() if user})
        text = search_text(keywords or "")
        if (
            not is_storable_id(dialog_id)
            or (id and not is_storable_id(id))
            or users is None
            or text is None
            or is_empty_period(from_date or None, to_date or None, self._tz)
        ):
            return 0, []
        is_beyond = self._is_beyond(page_number, items_per_page)
        page = await self._svc.conversations.get_list(
            dialog_id=dialog_id,
            tenant_id=self._tenant_id,
            page_number=1 if is_beyond else page_number or 1,
            items_per_page=1 if is_beyond else items_per_page,
            orderby=order(orderby),
            desc=desc,
            id=id or ANY,
            user_id=users.get("user_id", ANY),
            include_dsl=include_dsl,
            keywords=text,
            from_date=from_date or None,
            to_date=to_date or None,
            exp_user_id=users.get("exp_user_id", ANY),
            include_messages=not is_beyond,
            tz=self._tz,
        )
        items = [] if is_beyond else page.items
        rows = [conversation_row(item, self._local) for item in items]
        if not include_dsl:
            for row in rows:
                del row["dsl"]
        return page.total or 0, rows

    async def get_names(self, dialog_id: str, exp_user_id: str) -> list[dict[str, Any]]:
        """Return id and name of the user's newest 1,000 conversations, newest first."""
        users = stored_users({"exp_user_id": exp_user_id})
        if users is None or not is_storable_id(dialog_id):
            return []
        names = await self._svc.conversations.get_names(
            dialog_id=dialog_id, tenant_id=self._tenant_id, exp_user_id=users["exp_user_id"]
        )
        return [{"id": each.id, "name": each.name} for each in names]

    async def get_by_ids(self, pids: Collection[str], cols: Columns = None) -> list[Record]:
        """Return the rows of existing conversations, with all messages.

        Cost:
            1 round trip for each 1,000 ids.
        """
        repository = SessionRepository(self._svc._executor)  # noqa: SLF001 - of the same library
        sessions = list[Session]()
        for batch in self._batches(storable_ids(pids, "pids")):
            sessions += await repository.get_by_ids(
                build_session, tenant_id=self._tenant_id, ids=batch
            )
        records = [Record(**session_row(each, self._local)) for each in sessions]
        if not isinstance(self._svc, AsyncSvc):  # a transaction of the caller may roll back
            for record in records:
                record.message.state = None
        return [select(each, cols) for each in records]

    async def stats(
        self, tenant_id: str, from_date: str, to_date: str, source: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the usage of each day that has a conversation, in order. 1 round trip.

        `source=None` selects conversations without a source. `dt` is the local midnight,
        `duration` is in seconds, and `round` is the mean of the conversations.
        """
        self._check_tenant(tenant_id)
        if is_empty_period(from_date, to_date, self._tz):
            return []
        buckets = await self._svc.conversations.stats(
            tenant_id=self._tenant_id,
            from_date=from_date,
            to_date=to_date,
            source=source or None,
            basis="creation",
            tz=self._tz,
            fill=False,
        )
        return [
            {
                "dt": bucket.dt.replace(tzinfo=None),
                "pv": bucket.conversations,
                "uv": bucket.users,
                "tokens": bucket.tokens,
                "duration": bucket.duration,
                "round": bucket.round,
                "thumb_up": bucket.thumb_up,
            }
            for bucket in buckets
        ]

    # ----------------------------------------------------------------- write

    async def append_message(self, id: str, conversation: MutableMapping[str, Any]) -> int:
        """Store the new messages of a whole conversation; return 1, or 0 if it does not exist.

        The new messages begin after the common start of the conversation and the stored one.
        Messages that others appended meanwhile remain, and a message with an id is not stored
        twice. `round` grows by 1, `tokens` and `duration` by their excess over the stored values.
        `dsl` and `errors` replace the stored values; other columns do not change. A repeated call
        adds nothing.

        Args:
            id: The conversation.
            conversation: The row. If it has new messages, its `update_time` and `update_date` are
                set to the current time, or to a time before the messages of others that it lacks.

        Cost:
            1 round trip if the row is that of `get_by_id`, its new messages have no thumbs, and no
            other caller appended since; otherwise a transaction that locks the conversation, with 2
            round trips more to read what the row lacks, and a read of all messages if the stored
            conversation is not the start of a row that another call built. Concurrent writers wait
            for each other.
        """
        if not isinstance(conversation, MutableMapping):
            raise InvalidInput("conversation", "must be a dict of columns")
        if not is_storable_id(id):
            return 0
        try:
            await RowWriter(self._svc, self._tenant_id, self._local).append(id, conversation)
        except NotFound:
            return 0
        return 1

    async def update_by_id(self, pid: str, data: MutableMapping[str, Any]) -> int:
        """Set columns; return 1, or 0 if the conversation does not exist.

        `message` replaces the messages: those at the start that are equal remain, with the new
        references, thumbs and other values. Messages that others stored after the `update_time` of
        `data` remain, too. Counters are not set.

        Args:
            pid: The conversation.
            data: The columns. With messages its `update_time` and `update_date` are set as by
                `append_message`; other times are ignored.

        Raises:
            InvalidInput: There is no `update_time`, and a counter differs from the stored one:
                counters cannot be set.

        Cost:
            A transaction with 1 round trip; with counters 2; with messages 3, and 1 for each
            message that is deleted or changed. With messages it locks the conversation first, so
            concurrent writers wait.
        """
        check_columns(data, COLUMNS, "data")
        if not is_storable_id(pid):
            return 0
        patch = with_short_users({name: data[name] for name in SETTABLE & data.keys()})
        state = None
        async with self._svc.transaction() as tx:
            if data.keys() & (LISTS | COUNTERS):
                state = await self._replace(tx, pid, data)
            changed = await tx.conversations.update_many_by_id(
                {pid: patch}, tenant_id=self._tenant_id
            )
        if state is not None:
            RowWriter(self._svc, self._tenant_id, self._local).remember(data, state)
        return changed

    async def _replace(
        self, tx: Services, id: str, data: MutableMapping[str, Any]
    ) -> RowState | None:
        """Check the counters and replace the messages of a conversation, if it exists."""
        writer = RowWriter(tx, self._tenant_id, self._local)
        has_messages = bool(data.keys() & LISTS)
        if has_messages and await writer.lock(id) is None:
            return None
        conversations = await tx.conversations.get_by_ids(
            [id], tenant_id=self._tenant_id, include_messages=has_messages
        )
        for stored in conversations:
            self._check_counters(stored, data)
            if has_messages:
                return await writer.replace(stored, data)
        return None

    def _check_counters(self, stored: Conversation, data: Mapping[str, Any]) -> None:
        """Raise InvalidInput if the data sets a counter.

        A row with a version is a copy that may be older than the stored counters.
        """
        row = conversation_row(stored, self._local)
        for name in COUNTERS & data.keys():
            if "update_time" not in data and data[name] != row[name]:
                raise InvalidInput(name, "is counted, and cannot be set")

    async def filter_update(self, filters: Filters, update_data: Mapping[str, Any]) -> int:
        """Set columns of all conversations that match, in batches of 1,000; return their number.

        Args:
            filters: Conditions on columns of the row. Those on `id`, `dialog_id`, `user_id` and
                `exp_user_id` limit the rows that are read.
            update_data: The columns.
        """
        check_columns(update_data, SETTABLE)
        patch, changed = with_short_users(update_data), 0
        for batch in self._batches(await self._matching_ids(filters)):
            changed += await self._svc.conversations.update_many_by_id(
                dict.fromkeys(batch, patch), tenant_id=self._tenant_id
            )
        return changed

    # ---------------------------------------------------------------- delete

    async def delete_by_ids(self, pids: Collection[str]) -> int:
        """Delete conversations in one transaction; return the number of deleted ones.

        Cost:
            A transaction with 1 round trip for each 1,000 ids.
        """
        deleted = 0
        async with self._svc.transaction() as tx:
            for batch in self._batches(storable_ids(pids, "pids")):
                deleted += await tx.conversations.delete_by_ids(batch, tenant_id=self._tenant_id)
        return deleted

    async def delete_by_dialog_ids(self, dialog_ids: Collection[str]) -> int:
        """Delete all conversations of these dialogs; return their number."""
        deleted = 0
        for batch in self._batches(storable_ids(dialog_ids, "dialog_ids")):
            deleted += await self._svc.conversations.delete_by_dialog_ids(
                batch, tenant_id=self._tenant_id
            )
        return deleted

    async def filter_delete(self, filters: Filters) -> int:
        """Delete all conversations that match, like `filter_update`; return their number."""
        deleted = 0
        for batch in self._batches(await self._matching_ids(filters)):
            deleted += await self._svc.conversations.delete_by_ids(batch, tenant_id=self._tenant_id)
        return deleted

    # --------------------------------------------------------------- private

    async def _store(self, tx: Services, rows: Sequence[Mapping[str, Any]]) -> None:
        new = [self._new_conversation(row) for row in rows]
        if await tx.conversations.create_many(new, tenant_id=self._tenant_id) < len(new):
            raise AlreadyExists("the tenant has a conversation with this id")
        for conversation, row in zip(new, rows, strict=True):
            await self._store_messages(tx, str(conversation.id), row)

    def _new_conversation(self, row: Mapping[str, Any]) -> NewConversation:
        check_columns(row, COLUMNS)
        if not row.get("dialog_id"):
            raise InvalidInput("dialog_id", "is required")
        users = {name: row[name] for name in USERS if row.get(name) is not None}
        too_long = {name: user for name, user in users.items() if short(user) != user}
        return NewConversation(
            id=new_id() if row.get("id") is None else row["id"],
            dialog_id=row["dialog_id"],
            user_id=short(users.get("user_id", "")),
            exp_user_id=short(users.get("exp_user_id")),
            name=row.get("name"),
            source=row.get("source"),
            dsl=row.get("dsl"),
            version_title=row.get("version_title"),
            metadata={METADATA_KEY: too_long} if too_long else None,
            created_at=creation_time(row, self._local),
        )

    async def _store_messages(self, tx: Services, id: str, row: Mapping[str, Any]) -> None:
        """Store the messages, counters and errors of a new conversation."""
        messages = split_messages(row)
        attach_references(messages, references_of(row))
        counted = {name: row[name] for name in COUNTERS - {"thumb_up"} if row.get(name)}
        if messages:
            turn = {"round": 0, **counted}
            await append(tx, id, turn, messages, tenant_id=self._tenant_id, expected_seq=0)
        elif counted:
            raise InvalidInput(min(counted), "is counted by appends, and there are no messages")
        if row.get("errors"):
            await tx.conversations.update_by_id(
                id, {"errors": row["errors"]}, tenant_id=self._tenant_id
            )

    async def _rows(self, where: ValuesByColumn) -> list[Record]:
        records = [self._record(each) async for each in self._candidates(where, whole=True)]
        return [record for record in records if satisfies(vars(record), where)]

    async def _matching_ids(self, filters: Filters) -> list[str]:
        where = values_by_column(filters, self.filter_columns)
        if not where:
            raise InvalidInput("filters", "must contain a condition")
        return [
            each.id
            async for each in self._candidates(where, whole=False)
            if satisfies(conversation_row(each, self._local), where)
        ]

    async def _candidates(
        self, where: ValuesByColumn, *, whole: bool
    ) -> AsyncIterator[Conversation]:
        """Yield the conversations of the ids, or of the dialogs and one user, oldest first.

        `whole` includes dsl and messages. Other conditions are not applied.
        """
        if "id" in where:
            for batch in self._batches(storable_ids(where["id"], "id")):
                for stored in await self._svc.conversations.get_by_ids(
                    batch, tenant_id=self._tenant_id, include_dsl=whole, include_messages=whole
                ):
                    yield stored
            return
        users = stored_users(
            {name: where[name][0] for name in USERS & where.keys() if len(where[name]) == 1}
        )
        if users is None:
            return
        dialogs = storable_ids(where["dialog_id"], "dialog_id") if "dialog_id" in where else [ANY]
        for dialog_id in dialogs:
            async for stored in self._walk(dialog_id, users, whole=whole):
                yield stored

    async def _walk(
        self, dialog_id: str | AnyType, users: Mapping[str, str], *, whole: bool
    ) -> AsyncIterator[Conversation]:
        """Yield the conversations of a dialog, oldest first."""
        size = min(_PAGE_SIZE, self._svc.conversations.settings.max_page_size)
        after = None
        while True:
            page = await self._svc.conversations.get_list(
                dialog_id=dialog_id,
                tenant_id=self._tenant_id,
                items_per_page=size,
                desc=False,
                user_id=users.get("user_id", ANY),
                exp_user_id=users.get("exp_user_id", ANY),
                after=after,
                total="none",
                include_dsl=whole,
                include_messages=whole,
            )
            for item in page.items:
                yield item
            if page.next is None:
                return
            after = page.next

    def _is_beyond(self, page_number: int, items_per_page: int) -> bool:
        """Return whether a page begins after the last row that a list may contain."""
        window = self._svc.conversations.settings.max_page_window
        is_number = isinstance(page_number, int) and isinstance(items_per_page, int)
        return is_number and page_number * items_per_page > window

    def _batches(self, ids: Sequence[str]) -> list[tuple[str, ...]]:
        return self.cut_list(ids, min(_BATCH_SIZE, self._svc.conversations.settings.max_batch_size))

    def _record(self, stored: Conversation) -> Record:
        return Record(**conversation_row(stored, self._local))
