"""RAGFlow's `CommonService`: the methods that both services share, for the rows of one tenant."""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Final, Self, TypeVar

from asyncsvc.client import Services
from asyncsvc.errors import InvalidInput, NotFound, Resource
from asyncsvc.ragflow.columns import TIME_ORDERS, column_name, select
from asyncsvc.ragflow.conditions import (
    Column,
    Condition,
    Filters,
    ValuesByColumn,
    conditions,
    values_by_column,
)
from asyncsvc.ragflow.shapes import Record
from asyncsvc.validation.dates import zone

T = TypeVar("T")

Columns = Sequence[str | Column] | None
_CREATION: Final = "create_time"
_SCOPE_SIZE: Final = 20


class CommonService(abc.ABC):
    """A service for one tenant, with local times in one zone.

    It has the methods, arguments and results of RAGFlow's `CommonService`, as coroutines. A filter
    is a column and its value, or a list of values. None matches no row, nor does a value that no
    row can have.
    """

    resource: ClassVar[Resource]
    """The name of a row in `NotFound`."""
    filter_columns: ClassVar[frozenset[str]]
    """The columns of filters and orders."""

    def __init__(self, svc: Services, *, tenant_id: str, tz: str = "UTC") -> None:
        """Wrap the services for one tenant and zone. Raises InvalidInput for an unknown zone."""
        if not isinstance(tz, str):
            raise InvalidInput("tz", "must be text")
        self._svc = svc
        self._tenant_id = tenant_id
        self._tz = tz
        self._local = zone(tz)

    # ------------------------------------------------------------------ read

    async def query(
        self,
        cols: Columns = None,
        reverse: bool | None = None,  # noqa: FBT001 - RAGFlow's positions
        order_by: str | Column | None = None,
        **filters: Any,  # noqa: ANN401 - RAGFlow's columns
    ) -> list[Record]:
        """Return all rows that match; without a filter, return none.

        Args:
            cols: The columns of the records; all by default.
            reverse: Descending order.
            order_by: The column of the order, by default the creation.
            **filters: Columns and their values.

        Raises:
            InvalidInput: A column is unknown.

        Cost:
            The cost of `get_all` for the rows of the ids or dialogs. All are held in memory.
        """
        if not filters:
            return []
        return await self._query(conditions(filters), cols, reverse, order_by)

    async def get_all(
        self,
        cols: Columns = None,
        reverse: bool | None = None,  # noqa: FBT001 - RAGFlow's positions
        order_by: str | Column | None = None,
    ) -> list[Record]:
        """Return all rows of the tenant, with the arguments of `query`.

        Cost:
            1 round trip for each 100 rows. All are held in memory.
        """
        return await self._query([], cols, reverse, order_by)

    async def get(self, **filters: Any) -> Record:  # noqa: ANN401 - RAGFlow's columns
        """Return the first row that matches, like `query`.

        Raises:
            NotFound: No row matches.
        """
        records = await self.query(**filters)
        if not records:
            raise NotFound(self.resource)
        return records[0]

    async def get_or_none(self, **filters: Any) -> Record | None:  # noqa: ANN401 - RAGFlow's columns
        """Return the first row that matches, like `query`, or None."""
        records = await self.query(**filters)
        return records[0] if records else None

    async def get_by_id(self, pid: str) -> tuple[bool, Record | None]:
        """Return whether the row exists, and the row: a conversation with all messages.

        The result is also (False, None) if the id is empty, too long or not text.

        Raises:
            Unavailable: The database does not answer. RAGFlow returns (False, None) then.

        Cost:
            The cost of `get_by_ids`.
        """
        records = await self.get_by_ids([pid])
        return bool(records), records[0] if records else None

    @abc.abstractmethod
    async def get_by_ids(self, pids: Collection[str], cols: Columns = None) -> list[Record]:
        """Return the existing rows of these ids."""

    async def filter_scope_list(
        self,
        in_key: str,
        in_filters_list: Sequence[str],
        filters: Filters | None = None,
        cols: Columns = None,
    ) -> list[Record]:
        """Return the rows whose column `in_key` has one of these values. It queries 20 at a time.

        Args:
            in_key: The column.
            in_filters_list: Its values.
            filters: Further conditions.
            cols: The columns of the records; all by default.
        """
        records: list[Record] = []
        for values in self.cut_list(in_filters_list, _SCOPE_SIZE):
            scope = [Condition(in_key, values), *(filters or [])]
            records += await self._query(scope, cols, None, None)
        return records

    @staticmethod
    def cut_list(tar_list: Sequence[T], n: int) -> list[tuple[T, ...]]:
        """Return the items in tuples of `n`; the last one may be shorter."""
        return [tuple(tar_list[start : start + n]) for start in range(0, len(tar_list), n)]

    # ----------------------------------------------------------------- write

    async def save(self, **row: Any) -> int:  # noqa: ANN401 - RAGFlow's columns
        """Store a new row; return 1. A conversation is stored with its messages.

        Raises:
            AlreadyExists: The tenant has a conversation with this id, or a token with this secret.

        Cost:
            A transaction with 1 round trip; 1 more for the messages of a conversation, and 2 for
            the beta of a token.
        """
        async with self._svc.transaction() as tx:
            await self._store(tx, [row])
        return 1

    async def insert(self, **row: Any) -> int:  # noqa: ANN401 - RAGFlow's columns
        """Store a new row with the current time and by default a new id, like `save`; return 1."""
        return await self.save(**self._new_row(row))

    async def insert_many(
        self, data_list: Sequence[Mapping[str, Any]], batch_size: int = 100
    ) -> None:
        """Store new rows with the current time in one transaction, like `save`.

        Args:
            data_list: The rows. Their times are ignored.
            batch_size: The rows of one statement, at most `Settings.max_batch_size`.

        Cost:
            A transaction with 1 round trip for each batch, and the round trips of `save` for
            messages and betas.
        """
        if not isinstance(data_list, Sequence) or not isinstance(batch_size, int) or batch_size < 1:
            raise InvalidInput("data_list", "must be a list of rows, in batches of at least 1")
        size = min(batch_size, self._svc.conversations.settings.max_batch_size)
        async with self._svc.transaction() as tx:
            for batch in self.cut_list(data_list, size):
                await self._store(tx, [self._new_row(row) for row in batch])

    @abc.abstractmethod
    async def update_by_id(self, pid: str, data: dict[str, Any]) -> int:
        """Set columns of a row; return 1, or 0 if it does not exist."""

    async def update_many_by_id(self, data_list: Sequence[dict[str, Any]]) -> None:
        """Set columns of several rows, each with its `id`, in one transaction."""
        if not isinstance(data_list, Sequence):
            raise InvalidInput("data_list", "must be a list of rows")
        async with self._svc.transaction() as tx:
            bound = self._on(tx)
            for data in data_list:
                if not isinstance(data, Mapping) or data.get("id") is None:
                    raise InvalidInput("id", "is required")
                await bound.update_by_id(data["id"], data)

    @abc.abstractmethod
    async def filter_update(self, filters: Filters, update_data: Mapping[str, Any]) -> int:
        """Set columns of all rows that match; return their number."""

    async def delete_by_id(self, pid: str) -> int:
        """Delete a row; return 1, or 0 if it did not exist."""
        return await self.delete_by_ids([pid])

    @abc.abstractmethod
    async def delete_by_ids(self, pids: Collection[str]) -> int:
        """Delete rows in one transaction; return the number of deleted rows."""

    @abc.abstractmethod
    async def filter_delete(self, filters: Filters) -> int:
        """Delete all rows that match; return their number."""

    # --------------------------------------------------------------- private

    @abc.abstractmethod
    async def _rows(self, where: ValuesByColumn) -> list[Record]:
        """Return the rows that match, oldest first."""

    @abc.abstractmethod
    async def _store(self, tx: Services, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store new rows within a transaction."""

    async def _query(
        self,
        filters: Filters,
        cols: Columns,
        reverse: bool | None,  # noqa: FBT001 - passed through
        order_by: str | Column | None,
    ) -> list[Record]:
        where = values_by_column(filters, self.filter_columns)
        column = column_name(order_by or _CREATION)
        if column not in self.filter_columns:
            raise InvalidInput(
                "order_by", f"must be one of {', '.join(sorted(self.filter_columns))}"
            )
        records = await self._rows(where) if all(where.values()) else []
        _sort(records, column, reverse=reverse is True)
        return [select(each, cols) for each in records]

    def _on(self, svc: Services) -> Self:
        """Return this service within a transaction."""
        return type(self)(svc, tenant_id=self._tenant_id, tz=self._tz)

    def _new_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row without its times."""
        if not isinstance(row, Mapping):
            raise InvalidInput("data_list", "must be a list of rows")
        return {name: value for name, value in row.items() if name not in TIME_ORDERS}

    def _check_tenant(self, tenant_id: str) -> None:
        if tenant_id != self._tenant_id:
            raise InvalidInput("tenant_id", "is not the tenant of this service")


def _sort(records: list[Record], column: str, *, reverse: bool) -> None:
    """Sort records, oldest first, by a column; NULL is the lowest value, as in MySQL."""
    if reverse:
        records.reverse()
    records.sort(
        key=lambda record: (vars(record)[column] is not None, vars(record)[column]),
        reverse=reverse,
    )
