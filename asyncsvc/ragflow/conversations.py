"""RAGFlow's `API4ConversationService`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from asyncsvc.client import Services
from asyncsvc.database import backoff
from asyncsvc.errors import Conflict, InvalidInput, NotFound, StaleSequence
from asyncsvc.models import Conversation, StoredMessage
from asyncsvc.ragflow.base import TenantService
from asyncsvc.ragflow.columns import (
    COLUMNS,
    COUNTERS,
    LISTS,
    SET_BY_APPEND,
    SETTABLE,
    TIME_ORDERS,
    USERS,
    check_columns,
    column_name,
    counter,
    creation_time,
    order,
    select,
    short,
    split_messages,
    with_short_users,
)
from asyncsvc.ragflow.conditions import Column, Filters, values_by_column
from asyncsvc.ragflow.messages import MessageFields, append, common_length, new_messages
from asyncsvc.ragflow.shapes import METADATA_KEY, Record, conversation_row, short_user_id, times
from asyncsvc.services.common import new_id
from asyncsvc.validation.types import ANY

_PAGE_SIZE: Final = 100
_BATCH_SIZE: Final = 1_000
_FIRST_PAUSE: Final = 0.001
_MAX_PAUSE: Final = 0.05


class API4ConversationService(TenantService):
    """Conversations of one tenant, with RAGFlow's methods, arguments and results.

    Rows are dicts or `Record`s with RAGFlow's columns, and local times are in the zone `tz`. As in
    RAGFlow, an empty argument of a list means any value. Invalid arguments and a database that does
    not answer raise the errors of the service that does the work. A `tenant_id` argument must be
    the tenant of this service.
    """

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

        Page 0 is the first page, too. Without `include_dsl` rows have no key "dsl".

        Cost:
            That of `get_list` of the service, with all messages of the page.
        """
        self._check_tenant(tenant_id)
        page = await self._svc.conversations.get_list(
            dialog_id=dialog_id,
            tenant_id=self._tenant_id,
            page_number=page_number or 1,
            items_per_page=items_per_page,
            orderby=order(orderby),
            desc=desc,
            id=id or ANY,
            user_id=short(user_id) if user_id else ANY,
            include_dsl=include_dsl,
            keywords=keywords or "",
            from_date=from_date or None,
            to_date=to_date or None,
            exp_user_id=short(exp_user_id) if exp_user_id else ANY,
            include_messages=True,
            tz=self._tz,
        )
        rows = [conversation_row(item, self._local) for item in page.items]
        if not include_dsl:
            for row in rows:
                del row["dsl"]
        return page.total or 0, rows

    async def get_names(self, dialog_id: str, exp_user_id: str) -> list[dict[str, Any]]:
        """Return id and name of a person's newest 1,000 conversations, newest first."""
        names = await self._svc.conversations.get_names(
            dialog_id=dialog_id, exp_user_id=short(exp_user_id), tenant_id=self._tenant_id
        )
        return [{"id": each.id, "name": each.name} for each in names]

    async def get_by_id(self, pid: str) -> tuple[bool, Record | None]:
        """Return whether the conversation exists, and its row with all messages. 1 round trip.

        Raises:
            Unavailable: The database does not answer. RAGFlow returns (False, None) then.
        """
        records = await self.get_by_ids([pid])
        return bool(records), records[0] if records else None

    async def get_by_ids(
        self, pids: Sequence[str], cols: Sequence[str | Column] | None = None
    ) -> list[Record]:
        """Return the rows of existing conversations, with all messages. 1 round trip."""
        stored = await self._svc.conversations.get_by_ids(
            pids, tenant_id=self._tenant_id, include_messages=True
        )
        return [self._record(each, cols) for each in stored]

    async def query(
        self,
        cols: Sequence[str | Column] | None = None,
        reverse: bool | None = None,  # noqa: FBT001 - RAGFlow's positions
        order_by: str | Column | None = None,
        **filters: Any,  # noqa: ANN401 - RAGFlow's columns
    ) -> list[Record]:
        """Return all conversations that match; prefer `get_list` or `export` of the service.

        Args:
            cols: The columns of the records; all by default.
            reverse: Descending order.
            order_by: The column of the order, by default the creation.
            **filters: `dialog_id` or `id`, and optionally `user_id` and `exp_user_id`.

        Cost:
            1 round trip for an id, otherwise 1 for each 100 conversations. All are held in memory.
        """
        if unknown := filters.keys() - {"id", "dialog_id", *USERS}:
            raise InvalidInput(min(unknown), "is no filter: id, dialog_id, user_id, exp_user_id")
        if (id := filters.pop("id", None)) is not None:
            records = await self.get_by_ids([id])
            matching = [each for each in records if vars(each).items() >= filters.items()]
            return [select(each, cols) for each in matching]
        if "dialog_id" not in filters:
            raise InvalidInput("dialog_id", "or id must be given")
        column = column_name(order_by or "create_time")
        walk = self._walk(
            column,
            dialog_id=filters["dialog_id"],
            user_id=short(filters.get("user_id")),
            exp_user_id=short(filters.get("exp_user_id")),
            desc=reverse is True,
            whole=True,
        )
        return [self._record(each, cols) async for each in walk]

    async def stats(
        self, tenant_id: str, from_date: str, to_date: str, source: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the usage of each day that has a conversation, in order. 1 round trip.

        `source=None` selects conversations without a source. `dt` is the local midnight,
        `duration` is in seconds, and `round` is the mean of the conversations.
        """
        self._check_tenant(tenant_id)
        buckets = await self._svc.conversations.stats(
            tenant_id=self._tenant_id,
            from_date=from_date,
            to_date=to_date,
            source=source or None,
            tz=self._tz,
            fill=False,
        )
        return [
            {
                "dt": bucket.dt.replace(tzinfo=None),
                "pv": bucket.pv,
                "uv": bucket.uv,
                "tokens": bucket.tokens,
                "duration": bucket.duration,
                "round": bucket.round,
                "thumb_up": bucket.thumb_up,
            }
            for bucket in buckets
        ]

    # ----------------------------------------------------------------- write

    async def save(self, **row: Any) -> int:  # noqa: ANN401 - RAGFlow's columns
        """Store a new conversation with its messages; return 1.

        Raises:
            AlreadyExists: The tenant has a conversation with this id.

        Cost:
            A transaction with 1 round trip, with messages 2.
        """
        check_columns(row, COLUMNS)
        if not row.get("dialog_id"):
            raise InvalidInput("dialog_id", "must be given")
        users = {name: row[name] for name in USERS if row.get(name) is not None}
        too_long = {name: user for name, user in users.items() if short(user) != user}
        async with self._svc.transaction() as tx:
            stored = await tx.conversations.create(
                id=row.get("id"),
                tenant_id=self._tenant_id,
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
            messages = split_messages(row)
            counted = {name: row[name] for name in COUNTERS - {"thumb_up"} if row.get(name)}
            if messages:
                await append(
                    tx,
                    stored.id,
                    {"round": 0, **counted},
                    messages,
                    tenant_id=self._tenant_id,
                    expected_seq=0,
                )
            elif counted:
                raise InvalidInput(min(counted), "is counted by appends: there are no messages")
            if row.get("errors"):
                await tx.conversations.update_by_id(
                    stored.id, {"errors": row["errors"]}, tenant_id=self._tenant_id
                )
        return 1

    async def insert(self, **row: Any) -> int:  # noqa: ANN401 - RAGFlow's columns
        """Store a new conversation with the current time and by default a new id; return 1."""
        columns = {name: value for name, value in row.items() if name not in TIME_ORDERS}
        return await self.save(**{"id": new_id(), **columns})

    async def append_message(self, id: str, conversation: MutableMapping[str, Any]) -> int:
        """Store the new messages of a whole conversation; return 1, or 0 if it does not exist.

        New messages follow the part that the conversation has in common with the stored one.
        Messages that others appended meanwhile remain, and a message with an id is not stored
        twice. `round` grows by 1, `tokens` and `duration` by what they exceed the stored ones.
        `dsl` and `errors` replace the stored ones; other columns do not change. Called again, it
        adds nothing.

        Args:
            id: The conversation.
            conversation: The row. Its `update_time` and `update_date` are set to the current time.

        Raises:
            Conflict: Others kept appending for `Settings.retry_timeout`.

        Cost:
            3 round trips regardless of the length, 1 more for each retry, and a read of all
            messages if the stored conversation is not the start of this one.
        """
        if not isinstance(conversation, MutableMapping):
            raise InvalidInput("conversation", "must be a dict of columns")
        now = datetime.now(UTC)
        columns = times(now, now, self._local)
        conversation.update({name: columns[name] for name in ("update_time", "update_date")})
        timeout = self._svc.conversations.settings.retry_timeout
        pauses = backoff(timeout, base=_FIRST_PAUSE, cap=_MAX_PAUSE)
        for pause in itertools.chain([0.0], pauses):
            await asyncio.sleep(pause)
            try:
                return await self._append_new_messages(id, conversation)
            except NotFound:
                return 0
            except StaleSequence:
                continue
        raise Conflict("the conversation kept changing; try again")

    async def _append_new_messages(self, id: str, conversation: Mapping[str, Any]) -> int:
        """Append once. Raises NotFound, and StaleSequence if another caller appended meanwhile."""
        before = await self._svc.conversations.get_by_id(
            id, tenant_id=self._tenant_id, include_dsl=False
        )
        new = await new_messages(
            self._svc,
            id,
            split_messages(conversation, before),
            tenant_id=self._tenant_id,
            last_seq=before.last_seq,
        )
        columns = {name: conversation[name] for name in SET_BY_APPEND & conversation.keys()}
        if new:
            turn = {
                "tokens": max(0, counter(conversation, "tokens") - before.tokens),
                "duration": max(0.0, counter(conversation, "duration") - before.duration),
                **columns,
            }
            await append(
                self._svc,
                id,
                turn,
                new,
                tenant_id=self._tenant_id,
                expected_seq=before.last_seq,
            )
        elif columns:
            await self.update_by_id(id, columns)
        return 1

    async def update_by_id(self, pid: str, data: Mapping[str, Any]) -> int:
        """Set columns; return 1, or 0 if the conversation does not exist.

        `message` replaces the messages: those at the start that are equal remain, with the new
        references, thumbs and other values. Times are ignored.

        Raises:
            InvalidInput: A counter differs from the stored one, because counters cannot be set.
            StaleSequence: Another caller appends at the same time.

        Cost:
            A transaction with 1 round trip; with messages or counters 2, and 1 for each message
            that is deleted or changed.
        """
        check_columns(data, COLUMNS, "data")
        patch = with_short_users({name: data[name] for name in SETTABLE & data.keys()})
        async with self._svc.transaction() as tx:
            if data.keys() & (LISTS | COUNTERS):
                conversations = await tx.conversations.get_by_ids(
                    [pid], tenant_id=self._tenant_id, include_messages=True
                )
                for stored in conversations:
                    await self._set_messages(tx, stored, data)
            return await tx.conversations.update_many_by_id({pid: patch}, tenant_id=self._tenant_id)

    async def _set_messages(
        self, tx: Services, stored: Conversation, data: Mapping[str, Any]
    ) -> None:
        row = conversation_row(stored, self._local)
        for name in COUNTERS & data.keys():
            if data[name] != row[name]:
                raise InvalidInput(name, "is counted, and cannot be set")
        if not data.keys() & LISTS:
            return
        new = split_messages({**row, **data}, stored)
        old = stored.messages or ()
        common = common_length(old, new)
        for message, fields in zip(old[:common], new, strict=False):
            await self._set_message(tx, stored.id, message, fields)
        for message in old[common:]:
            await tx.conversations.delete_message(stored.id, message.seq, tenant_id=self._tenant_id)
        if new[common:]:
            await append(
                tx,
                stored.id,
                {"round": 0},
                new[common:],
                tenant_id=self._tenant_id,
                expected_seq=stored.last_seq,
            )

    async def _set_message(
        self, tx: Services, id: str, message: StoredMessage, fields: MessageFields
    ) -> None:
        """Set the reference, payload and thumb of a message whose text remains."""
        columns = {"reference": fields.get("reference"), "payload": fields["payload"]}
        patch = {name: it for name, it in columns.items() if it != getattr(message, name)}
        if patch:
            await tx.conversations.update_message(id, message.seq, patch, tenant_id=self._tenant_id)
        if fields["thumb"] != message.thumb:
            await tx.conversations.set_feedback(
                id, message.seq, fields["thumb"], tenant_id=self._tenant_id
            )

    async def update_many_by_id(self, data_list: Sequence[Mapping[str, Any]]) -> None:
        """Set columns of several conversations, each with its `id`, in one transaction."""
        if not isinstance(data_list, Sequence):
            raise InvalidInput("data_list", "must be a list of rows")
        async with self._svc.transaction() as tx:
            bound = API4ConversationService(tx, tenant_id=self._tenant_id, tz=self._tz)
            for data in data_list:
                check_columns(data, COLUMNS, "data_list")
                if data.get("id") is None:
                    raise InvalidInput("id", "must be given")
                await bound.update_by_id(data["id"], data)

    async def filter_update(self, filters: Filters, update_data: Mapping[str, Any]) -> int:
        """Set columns of all conversations that match, in batches of 1,000; return their number.

        Args:
            filters: On `id` or `dialog_id`, and optionally `user_id` and `exp_user_id`.
            update_data: The columns.
        """
        check_columns(update_data, SETTABLE)
        patch, changed = with_short_users(update_data), 0
        for batch in self._batches(await self._matching(filters)):
            changed += await self._svc.conversations.update_many_by_id(
                dict.fromkeys(batch, patch), tenant_id=self._tenant_id
            )
        return changed

    # ---------------------------------------------------------------- delete

    async def delete_by_id(self, pid: str) -> int:
        """Delete a conversation; return 1, or 0 if it did not exist. 1 round trip."""
        return await self._svc.conversations.delete_by_id(pid, tenant_id=self._tenant_id)

    async def delete_by_ids(self, pids: Sequence[str]) -> int:
        """Delete conversations; return the number of those that existed. 1 round trip."""
        return await self._svc.conversations.delete_by_ids(pids, tenant_id=self._tenant_id)

    async def delete_by_dialog_ids(self, dialog_ids: Sequence[str]) -> int:
        """Delete all conversations of these dialogs; return their number."""
        return await self._svc.conversations.delete_by_dialog_ids(
            dialog_ids, tenant_id=self._tenant_id
        )

    async def filter_delete(self, filters: Filters) -> int:
        """Delete all conversations that match, like `filter_update`; return their number."""
        deleted = 0
        for batch in self._batches(await self._matching(filters)):
            deleted += await self.delete_by_ids(batch)
        return deleted

    # --------------------------------------------------------------- private

    async def _matching(self, filters: Filters) -> list[str]:
        """Return the ids of the conversations that match."""
        values = values_by_column(filters, {"id", "dialog_id", *USERS})
        for column in USERS & values.keys():
            values[column] = tuple(map(short_user_id, values[column]))
        if "id" in values:
            stored = await self._svc.conversations.get_by_ids(
                values["id"], tenant_id=self._tenant_id, include_dsl=False
            )
        elif "dialog_id" in values:
            stored = [
                each
                for dialog_id in values["dialog_id"]
                async for each in self._walk(dialog_id=dialog_id, whole=False)
            ]
        else:
            raise InvalidInput("filters", "must be on id or dialog_id, too")
        return [
            each.id
            for each in stored
            if all(getattr(each, column) in allowed for column, allowed in values.items())
        ]

    async def _walk(
        self,
        orderby: str = "create_time",
        *,
        dialog_id: str,
        user_id: str | None = None,
        exp_user_id: str | None = None,
        desc: bool = False,
        whole: bool,
    ) -> AsyncIterator[Conversation]:
        """Yield the conversations of a dialog; `whole` includes dsl and messages."""
        size = min(_PAGE_SIZE, self._svc.conversations.settings.max_page_size)
        number, after = 1, None
        while True:
            page = await self._svc.conversations.get_list(
                dialog_id=dialog_id,
                tenant_id=self._tenant_id,
                page_number=number,
                items_per_page=size,
                orderby=order(orderby),
                desc=desc,
                user_id=ANY if user_id is None else user_id,
                exp_user_id=ANY if exp_user_id is None else exp_user_id,
                after=after,
                total="none",
                include_dsl=whole,
                include_messages=whole,
            )
            for item in page.items:
                yield item
            if page.next is None if orderby in TIME_ORDERS else len(page.items) < size:
                return
            after = page.next
            number += after is None  # only orders by time have cursors

    def _batches(self, ids: Sequence[str]) -> Iterator[Sequence[str]]:
        size = min(_BATCH_SIZE, self._svc.conversations.settings.max_batch_size)
        for begin in range(0, len(ids), size):
            yield ids[begin : begin + size]

    def _record(self, stored: Conversation, cols: Sequence[str | Column] | None) -> Record:
        return select(Record(**conversation_row(stored, self._local)), cols)
