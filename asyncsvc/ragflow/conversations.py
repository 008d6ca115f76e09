"""RAGFlow's `API4ConversationService`, on the real one."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

from asyncsvc.client import Services
from asyncsvc.database import full_jitter
from asyncsvc.errors import Conflict, InvalidInput, StaleSequence
from asyncsvc.models import Conversation, StoredMessage
from asyncsvc.ragflow import shapes
from asyncsvc.ragflow.bound import BoundService, check_columns
from asyncsvc.ragflow.conditions import Column, Filters, by_column
from asyncsvc.ragflow.shapes import KEPT, Record, shortened
from asyncsvc.ragflow.turns import append
from asyncsvc.services.common import new_id
from asyncsvc.validation.types import OrderBy

_SETTABLE: Final = frozenset(
    {"name", "source", "version_title", "dsl", "errors", "user_id", "exp_user_id", "dialog_id"}
)
_COUNTED: Final = frozenset({"tokens", "duration", "round", "thumb_up"})
_REPLACED: Final = frozenset({"dsl", "errors"})
"""What an append sets beside the messages."""
_TIMES: Final = frozenset({"create_time", "create_date", "update_time", "update_date"})
_TIME_ORDERS: Final[Mapping[str, OrderBy]] = {
    "create_time": "created_at",
    "create_date": "created_at",
    "update_time": "updated_at",
    "update_date": "updated_at",
}
_ORDERS: Final[Mapping[str, OrderBy]] = {
    **_TIME_ORDERS,
    "name": "name",
    "round": "round",
    "tokens": "tokens",
    "duration": "duration",
    "thumb_up": "thumb_up",
}
"""RAGFlow's column of an order, and the order of the service."""
_LISTS: Final = frozenset({"message", "reference"})
_COLUMNS: Final = frozenset({"id"}) | _SETTABLE | _COUNTED | _TIMES | _LISTS
_USERS: Final = frozenset({"user_id", "exp_user_id"})
_PAGE: Final = 100
_BATCH: Final = 1_000
_TAIL: Final = 20
"""How many stored messages an append looks at before it looks at all of them."""
_TOO_MUCH: Final = 10**18
_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.05


class API4ConversationService(BoundService):
    """Conversations of one tenant, by RAGFlow's method names, with its arguments and results.

    Rows are dicts and `Record`s of RAGFlow's columns; local times are of the zone `tz`. Arguments
    that RAGFlow takes for "any" when they are empty are so here. What is wrong raises the errors of
    the real service, and so does a database that does not answer. A `tenant_id` that is passed must
    be the one that the service is bound to.
    """

    # ------------------------------------------------------------------ read

    async def get_list(
        self,
        dialog_id: str,
        tenant_id: str,
        page_number: int,
        items_per_page: int,
        orderby: str,
        desc: bool,  # noqa: FBT001 - positions are RAGFlow's
        id: str | None = None,
        user_id: str | None = None,
        include_dsl: bool = True,  # noqa: FBT001, FBT002 - as above
        keywords: str | None = "",
        from_date: str | None = None,
        to_date: str | None = None,
        exp_user_id: str | None = None,
    ) -> tuple[int, list[dict[str, Any]]]:
        """Return how many conversations match, and one page of them as rows, with their messages.

        Without the dsl the key is not there. Page 0 is the first one.

        It costs what `get_list` of the real service costs with all messages of the page.
        """
        self._check_tenant(tenant_id)
        page = await self._svc.conversations.get_list(
            dialog_id,
            self._tenant_id,
            page_number or 1,
            items_per_page,
            _order(orderby),
            desc,
            id or None,
            _user(user_id),
            include_dsl,
            keywords or "",
            from_date or None,
            to_date or None,
            exp_user_id=_user(exp_user_id),
            include_messages=True,
            tz=self._tz,
        )
        rows = [shapes.conversation(item, self._local) for item in page.items]
        if not include_dsl:
            for row in rows:
                del row["dsl"]
        return page.total or 0, rows

    async def get_names(self, dialog_id: str, exp_user_id: str) -> list[dict[str, Any]]:
        """Return id and name of a person's conversations, newest first: the newest 1,000."""
        names = await self._svc.conversations.get_names(
            dialog_id, _short(exp_user_id), tenant_id=self._tenant_id
        )
        return [{"id": each.id, "name": each.name} for each in names]

    async def get_by_id(self, pid: str) -> tuple[bool, Record | None]:
        """Return whether there is such a conversation, and it, with all its messages.

        One round trip. Raises Unavailable where RAGFlow answers that there is none.
        """
        records = await self.get_by_ids([pid])
        return bool(records), records[0] if records else None

    async def get_by_ids(
        self, pids: Sequence[str], cols: Sequence[str | Column] | None = None
    ) -> list[Record]:
        """Return the conversations that there are, with all their messages. One round trip."""
        found = await self._svc.conversations.get_by_ids(
            pids, tenant_id=self._tenant_id, include_messages=True
        )
        return [self._record(each, cols) for each in found]

    async def query(
        self,
        cols: Sequence[str | Column] | None = None,
        reverse: bool | None = None,  # noqa: FBT001 - as above
        order_by: str | Column | None = None,
        **filters: Any,  # noqa: ANN401 - RAGFlow's
    ) -> list[Record]:
        """Return all conversations of a `dialog_id` or `id`, also by `user_id` and `exp_user_id`.

        In the order of a column, which is the creation unless given. It walks along the dialog,
        100 conversations a round trip, and holds them all: `get_list` and `export` of the real
        service do not.
        """
        if unknown := filters.keys() - {"id", "dialog_id", *_USERS}:
            raise InvalidInput(min(unknown), "is no filter: id, dialog_id, user_id, exp_user_id")
        if (id := filters.pop("id", None)) is not None:
            found = await self.get_by_ids([id])
            kept = [each for each in found if vars(each).items() >= filters.items()]
            return [_only(each, cols) for each in kept]
        if "dialog_id" not in filters:
            raise InvalidInput("dialog_id", "or id must be given")
        orderby = _name(order_by or "create_time")
        walk = self._walk(orderby, desc=reverse is True, whole=True, **_with_users(filters))
        return [self._record(each, cols) async for each in walk]

    async def _walk(
        self,
        orderby: str = "create_time",
        *,
        desc: bool = False,
        whole: bool,
        **filters: Any,  # noqa: ANN401 - the service checks them
    ) -> AsyncIterator[Conversation]:
        """Yield a dialog's conversations; `whole` is with dsl and messages."""
        size = min(_PAGE, self._svc.conversations.settings.max_page_size)
        number, after = 1, None
        while True:
            page = await self._svc.conversations.get_list(
                tenant_id=self._tenant_id,
                page_number=number,
                items_per_page=size,
                orderby=_order(orderby),
                desc=desc,
                after=after,
                total="none",
                include_dsl=whole,
                include_messages=whole,
                **filters,
            )
            for item in page.items:
                yield item
            is_last = page.next is None if orderby in _TIME_ORDERS else len(page.items) < size
            if is_last:
                return
            after = page.next
            number += after is None  # only orders by time have cursors

    async def stats(
        self, tenant_id: str, from_date: str, to_date: str, source: str | None = None
    ) -> list[dict[str, Any]]:
        """Return a row for each day that has a conversation, the days in order.

        `source=None` means those without a source. `dt` is the local midnight, `duration` in
        seconds, `round` the mean of a conversation. One round trip.
        """
        self._check_tenant(tenant_id)
        buckets = await self._svc.conversations.stats(
            self._tenant_id, from_date, to_date, source or None, tz=self._tz, fill=False
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

    async def save(self, **row: Any) -> int:  # noqa: ANN401 - RAGFlow's
        """Store a new conversation with its messages, under the id given; return 1.

        Raises AlreadyExists. Two round trips in a transaction of two more, without messages one.
        """
        check_columns(row, _COLUMNS)
        if not row.get("dialog_id"):
            raise InvalidInput("dialog_id", "must be given")
        given = {name: row[name] for name in _SETTABLE - {"errors"} if row.get(name) is not None}
        created = _with_users(given)
        if too_long := {name: it for name, it in given.items() if it != created[name]}:
            created["metadata"] = {KEPT: too_long}
        async with self._svc.transaction() as tx:
            stored = await tx.conversations.create(
                id=row.get("id"),
                tenant_id=self._tenant_id,
                created_at=self._created_at(row),
                **created,
            )
            messages = _taken_apart(row)
            counted = {name: row[name] for name in _COUNTED - {"thumb_up"} if row.get(name)}
            if messages:
                turn = {"round": 0, **counted}
                await self._append(tx, stored.id, turn, messages, expected_seq=0)
            elif counted:
                raise InvalidInput(min(counted), "is counted by appends: there are no messages")
            if row.get("errors"):
                await tx.conversations.update_by_id(
                    stored.id, {"errors": row["errors"]}, tenant_id=self._tenant_id
                )
        return 1

    def _created_at(self, row: Mapping[str, Any]) -> datetime | None:
        """Return when a row was created: by its milliseconds or else its date, a local one."""
        if row.get("create_time") is not None or row.get("create_date") is None:
            return _instant(row.get("create_time"))
        try:
            date = datetime.fromisoformat(str(row["create_date"]))
        except ValueError:
            raise InvalidInput("create_date", "must be a date and a time") from None
        return date if date.tzinfo else date.replace(tzinfo=self._local)

    async def insert(self, **row: Any) -> int:  # noqa: ANN401 - RAGFlow's
        """Store a new conversation as of now, with a new id unless one is given; return 1."""
        kept = {name: value for name, value in row.items() if name not in _TIMES}
        return await self.save(**{"id": new_id(), **kept})

    async def append_message(self, id: str, conversation: MutableMapping[str, Any]) -> int:
        """Store what a whole conversation has that is not stored yet; return 1, or 0 without one.

        New are the messages behind those that both begin with. What somebody else has appended
        meanwhile stays, and what has an id and is stored already is not stored twice. The rounds
        grow by 1, tokens and duration by what the given ones exceed the stored ones; `dsl` and
        `errors` replace the stored ones. All else stays as it is: that is `update_by_id`. Called
        again, it adds nothing.

        Three round trips whatever the length, one more where others append too, and a read of all
        messages where the conversation does not end as the given one says. Where others were
        faster it begins again after a short pause, for `Settings.retry_timeout`; then it raises
        Conflict.
        """
        if not isinstance(conversation, MutableMapping):
            raise InvalidInput("conversation", "must be a dict of columns")
        conversation.update(_now(self._local))
        end = time.monotonic() + self._svc.conversations.settings.retry_timeout
        for attempt in itertools.count(1):
            try:
                return await self._catch_up(id, conversation)
            except StaleSequence:
                # At random, so that those who met do not meet again.
                pause = full_jitter(attempt, base=_FIRST_PAUSE, cap=_LONGEST_PAUSE)
            if time.monotonic() + pause > end:
                break
            await asyncio.sleep(pause)
        raise Conflict("the conversation kept changing; try again")

    async def _catch_up(self, id: str, conversation: Mapping[str, Any]) -> int:
        """Store what is new, or raise StaleSequence where somebody else has appended meanwhile."""
        stored = await self._stored(id)
        if stored is None:
            return 0
        new = await self._new(stored, _taken_apart(conversation, stored))
        replaced = {name: conversation[name] for name in _REPLACED & conversation.keys()}
        if new:
            turn = _growth(stored, conversation) | replaced
            await self._append(self._svc, id, turn, new, expected_seq=stored.last_seq)
        elif replaced:
            await self.update_by_id(id, replaced)
        return 1

    async def _stored(self, id: str) -> Conversation | None:
        found = await self._svc.conversations.get_by_ids(
            [id], tenant_id=self._tenant_id, include_dsl=False
        )
        return found[0] if found else None

    async def _new(self, stored: Conversation, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return which of the messages of a whole conversation are not stored."""
        tail = await self._svc.conversations.messages(
            stored.id, tenant_id=self._tenant_id, last=_TAIL
        )
        tail = [message for message in tail if message.seq <= stored.last_seq]
        if len(given) >= stored.last_seq and _ends(given[: stored.last_seq], tail):
            return given[stored.last_seq :]
        (whole,) = await self._svc.conversations.get_by_ids(
            [stored.id], tenant_id=self._tenant_id, include_dsl=False, include_messages=True
        )
        messages = [each for each in whole.messages or () if each.seq <= stored.last_seq]
        common = _common(messages, given)
        others = messages[common:]
        return [each for each in given[common:] if not shapes.is_known(others, each)]

    async def _append(
        self,
        svc: Services,
        id: str,
        turn: Mapping[str, Any],
        messages: Sequence[Mapping[str, Any]],
        *,
        expected_seq: int,
    ) -> None:
        await append(svc, id, turn, messages, tenant_id=self._tenant_id, expected_seq=expected_seq)

    async def update_by_id(self, pid: str, data: Mapping[str, Any]) -> int:
        """Set the columns given; return 1, or 0 where there is no such conversation.

        `message` replaces the messages: those that both begin with stay, and get the references,
        thumbs and whatever else is given. Times are ignored. Counters cannot be set: those that are
        as stored may be there, others raise InvalidInput. Messages cost a transaction, and a round
        trip for each that goes or changes. Raises StaleSequence where somebody appends meanwhile.
        """
        check_columns(data, _COLUMNS, "data")
        patch = _with_users({name: data[name] for name in _SETTABLE & data.keys()})
        async with self._svc.transaction() as tx:
            if data.keys() & (_LISTS | _COUNTED):
                found = await tx.conversations.get_by_ids(
                    [pid], tenant_id=self._tenant_id, include_messages=True
                )
                for stored in found:
                    await self._set_messages(tx, stored, data)
            return await tx.conversations.update_many_by_id({pid: patch}, tenant_id=self._tenant_id)

    async def _set_messages(
        self, tx: Services, stored: Conversation, data: Mapping[str, Any]
    ) -> None:
        row = shapes.conversation(stored, self._local)
        for name in _COUNTED & data.keys():
            if data[name] != row[name]:
                raise InvalidInput(name, "is counted, and cannot be set")
        if data.keys() & _LISTS:
            await self._replace(tx, stored, _taken_apart({**row, **data}, stored))

    async def _replace(
        self, tx: Services, stored: Conversation, given: list[dict[str, Any]]
    ) -> None:
        messages = stored.messages or ()
        common = _common(messages, given)
        for message, each in zip(messages[:common], given, strict=False):
            await self._change(tx, stored.id, message, each)
        for message in messages[common:]:
            await tx.conversations.delete_message(stored.id, message.seq, tenant_id=self._tenant_id)
        if new := given[common:]:
            await self._append(tx, stored.id, {"round": 0}, new, expected_seq=stored.last_seq)

    async def _change(
        self, tx: Services, id: str, message: StoredMessage, given: Mapping[str, Any]
    ) -> None:
        """Set what a message that stays has beside its text: its reference, payload and thumb."""
        wanted = {"reference": given.get("reference"), "payload": given["payload"]}
        patch = {name: it for name, it in wanted.items() if it != getattr(message, name)}
        if patch:
            await tx.conversations.update_message(id, message.seq, patch, tenant_id=self._tenant_id)
        if given["thumb"] != message.thumb:
            await tx.conversations.set_feedback(
                id, message.seq, given["thumb"], tenant_id=self._tenant_id
            )

    async def update_many_by_id(self, data_list: Sequence[Mapping[str, Any]]) -> None:
        """Set the columns given of each conversation, named by its `id`, in one transaction."""
        async with self._svc.transaction() as tx:
            bound = API4ConversationService(tx, tenant_id=self._tenant_id, tz=self._tz)
            for data in data_list:
                check_columns(data, _COLUMNS, "data_list")
                if data.get("id") is None:
                    raise InvalidInput("id", "must be given")
                await bound.update_by_id(data["id"], data)

    async def filter_update(self, filters: Filters, update_data: Mapping[str, Any]) -> int:
        """Set columns of all conversations that match; return how many.

        The filters are on `id`, `dialog_id`, `user_id` and `exp_user_id`, one of the first two
        among them. In batches of 1,000.
        """
        check_columns(update_data, _SETTABLE)
        ids, changed = await self._matching(filters), 0
        for batch in self._batches(ids):
            changed += await self._svc.conversations.update_many_by_id(
                dict.fromkeys(batch, _with_users(update_data)), tenant_id=self._tenant_id
            )
        return changed

    # ---------------------------------------------------------------- delete

    async def delete_by_id(self, pid: str) -> int:
        """Delete a conversation; return 1, or 0 where there was none. One round trip."""
        return await self._svc.conversations.delete_by_id(pid, tenant_id=self._tenant_id)

    async def delete_by_ids(self, pids: Sequence[str]) -> int:
        """Delete conversations; return how many there were. One round trip."""
        return await self._svc.conversations.delete_by_ids(pids, tenant_id=self._tenant_id)

    async def delete_by_dialog_ids(self, dialog_ids: Sequence[str]) -> int:
        """Delete all conversations of these dialogs; return how many there were."""
        return await self._svc.conversations.delete_by_dialog_ids(
            dialog_ids, tenant_id=self._tenant_id
        )

    async def filter_delete(self, filters: Filters) -> int:
        """Delete all conversations that match; return how many. As `filter_update`."""
        deleted = 0
        for batch in self._batches(await self._matching(filters)):
            deleted += await self.delete_by_ids(batch)
        return deleted

    # ------------------------------------------------------------- what they share

    async def _matching(self, filters: Filters) -> list[str]:
        """Return the ids of the conversations that the filters leave."""
        wanted = by_column(filters, {"id", "dialog_id", *_USERS})
        for column in _USERS & wanted.keys():
            wanted[column] = tuple(map(shortened, wanted[column]))
        if "id" in wanted:
            found = await self._svc.conversations.get_by_ids(
                wanted["id"], tenant_id=self._tenant_id, include_dsl=False
            )
        elif "dialog_id" in wanted:
            found = [
                each
                for dialog_id in wanted["dialog_id"]
                async for each in self._walk(dialog_id=dialog_id, whole=False)
            ]
        else:
            raise InvalidInput("filters", "must be on id or dialog_id, too")
        return [
            each.id
            for each in found
            if all(getattr(each, column) in values for column, values in wanted.items())
        ]

    def _batches(self, ids: Sequence[str]) -> Iterator[Sequence[str]]:
        size = min(_BATCH, self._svc.conversations.settings.max_batch_size)
        for begin in range(0, len(ids), size):
            yield ids[begin : begin + size]

    def _record(self, stored: Conversation, cols: Sequence[str | Column] | None) -> Record:
        return _only(Record(**shapes.conversation(stored, self._local)), cols)


def _order(column: str) -> OrderBy:
    """Return the service's order for a column of RAGFlow."""
    if not isinstance(column, str) or column not in _ORDERS:
        raise InvalidInput("orderby", f"must be one of {', '.join(_ORDERS)}")
    return _ORDERS[column]


def _user(user_id: str | None) -> str | None:
    """Return a filter for a user; an empty one is for any."""
    return _short(user_id) if user_id else None


def _short(user_id: Any) -> Any:  # noqa: ANN401 - what is no text, the service refuses
    return shortened(user_id) if isinstance(user_id, str) else user_id


def _with_users(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns with the ids of users that can be stored."""
    return {name: _short(it) if name in _USERS else it for name, it in columns.items()}


def _taken_apart(
    row: Mapping[str, Any], stored: Conversation | None = None
) -> list[dict[str, Any]]:
    """Return the messages of a row, each with its reference, which one without an answer is not.

    References that are no list are refused, but for those that the stored row has.
    """
    given, references = row.get("message") or [], row.get("reference") or []
    if not isinstance(given, list) or not all(isinstance(each, Mapping) for each in given):
        raise InvalidInput("message", "must be a list of objects")
    messages = [shapes.split(each) for each in given]
    if isinstance(references, list):
        shapes.attach(messages, references)
    elif stored is None or references != shapes.kept_reference(stored):
        raise InvalidInput("reference", "must be a list, with one for each answer")
    return messages


def _growth(stored: Conversation, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a whole conversation cost more than is stored."""
    return {
        "tokens": max(0, _number(given, "tokens") - stored.tokens),
        "duration": max(0.0, _number(given, "duration") - stored.duration),
    }


def _number(row: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - int or float
    value = row.get(name) or 0
    # NaN is not below anything, and what is far above cannot be subtracted from.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _TOO_MUCH:
        raise InvalidInput(name, "must be a number that can be counted")
    return value


def _ends(given: Sequence[Mapping[str, Any]], tail: Sequence[StoredMessage]) -> bool:
    """Say whether messages end with the stored ones: by ids, for a text may be said twice."""
    return len(tail) == min(len(given), _TAIL) and all(
        shapes.is_same(message, each) and (each["payload"].get("id") or len(tail) == len(given))
        for message, each in zip(tail, given[len(given) - len(tail) :], strict=True)
    )


def _common(messages: Sequence[StoredMessage], given: Sequence[Mapping[str, Any]]) -> int:
    """Return how many messages both begin with."""
    pairs = zip(messages, given, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: shapes.is_same(*pair), pairs))


def _instant(milliseconds: object) -> datetime | None:
    if milliseconds is None:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1_000, UTC)  # type: ignore[operator]
    except (TypeError, ValueError, OverflowError, OSError):
        raise InvalidInput("create_time", "must be milliseconds since 1970") from None


def _now(local: tzinfo) -> dict[str, Any]:
    now = shapes.times(datetime.now(UTC), datetime.now(UTC), local)
    return {name: now[name] for name in ("update_time", "update_date")}


def _only(record: Record, cols: Sequence[str | Column] | None) -> Record:
    if not cols:
        return record
    wanted = [_name(each) for each in cols]
    if unknown := set(wanted) - vars(record).keys():
        raise InvalidInput("cols", f"{min(unknown)} is no column")
    return Record(**{name: vars(record)[name] for name in wanted})


def _name(column: str | Column) -> str:
    return column.name if isinstance(column, Column) else column
