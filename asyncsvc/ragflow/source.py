"""Reads RAGFlow's tables in pages, in the order of their keys, and holds one page in memory.

Each page is a separate statement instead of a part of a cursor: MySQL disconnects clients that
read slowly, and a page can start after any key. Columns that this version of RAGFlow lacks are
omitted.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from asyncsvc.database import sql_files
from asyncsvc.errors import DatabaseError, InvalidInput
from asyncsvc.ragflow.drivers import Cells, Connection, connect
from asyncsvc.validation.types import UNSET, UnsetType

CONVERSATIONS: Final = "api_4_conversation"
TOKENS: Final = "api_token"
_DIALOGS: Final = "dialog"
_AGENTS: Final = "user_canvas"
MAX_ROW_BYTES: Final = 2**26
"""Longer conversations are not read, so that no row can fill the memory."""
_DATA_EXCEPTION: Final = "22000"
"""The SQLSTATE of rows that are not as expected."""
_PAGE_ROWS: Final = 500
_PAGE_BYTES: Final = 2**22


_REQUIRED: Final = {
    CONVERSATIONS: ("id", "dialog_id", "user_id", "message"),
    _DIALOGS: ("id", "tenant_id"),
    _AGENTS: ("id", "user_id"),
    TOKENS: ("tenant_id", "token"),
}
"""The columns that a readable table must have."""
_DEPENDS_ON: Final = {CONVERSATIONS: (CONVERSATIONS, _DIALOGS), TOKENS: (TOKENS,)}
_STATEMENTS: Final = {CONVERSATIONS: "conversations", TOKENS: "tokens"}
_OTHER_FLAGS: Final = frozenset(
    {"count", "sizes", "rows", "owners", "agents", "mixed", "orphans", "mysql", "postgresql"}
)
"""The flags of these statements that are not names of optional columns."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Conversations in the order of their ids."""

    last_id: str
    rows: list[Cells]
    too_long: tuple[str, ...] = ()
    """The ids of conversations over `MAX_ROW_BYTES`."""


@asynccontextmanager
async def open_source(dsn: str, *, allow_clear_text: bool = False) -> AsyncGenerator[Source]:
    """Open RAGFlow's database. Raises InvalidInput if neither of its tables exists."""
    connection = await connect(dsn, allow_clear_text=allow_clear_text)
    try:
        query = sql_files.load("ragflow/columns").bind((connection.dialect,), {})
        source = Source(connection, await connection.fetch(query))
        if not any(source.can_read(table) for table in _DEPENDS_ON):
            missing = " and no ".join(_DEPENDS_ON)
            raise InvalidInput("source", f"is not RAGFlow's: there is no {missing}")
        yield source
    finally:
        await connection.close()


class Source:
    """The tables of a RAGFlow database."""

    def __init__(self, connection: Connection, columns: list[Cells]) -> None:
        """Read on this connection. `columns` are the rows of ragflow/columns."""
        _check_cells(columns, "table_name", "column_name")
        self._connection = connection
        self._columns: dict[str, set[str]] = {}
        for each in columns:
            self._columns.setdefault(each["table_name"], set()).add(each["column_name"])
        ids = {(CONVERSATIONS, "dialog_id"), (_DIALOGS, "id"), (_AGENTS, "id")}
        collations = {
            each["collation_name"]
            for each in columns
            if (each["table_name"], each["column_name"]) in ids
        }
        self._has_mixed_collations = connection.dialect == "mysql" and len(collations) > 1

    @property
    def has_agents(self) -> bool:
        """Whether conversations of agents can be distinguished from those of deleted dialogs."""
        return self._has_required(_AGENTS)

    @property
    def missing(self) -> tuple[str, ...]:
        """The tables and columns that this version of RAGFlow lacks."""
        missing = list[str]()
        for table, required in _REQUIRED.items():
            columns = self._columns.get(table)
            if columns is None:
                missing.append(table)
                continue
            names = (*required, *sorted(_optional_columns(table)))
            missing += [f"{table}.{name}" for name in names if name not in columns]
        return tuple(missing)

    def can_read(self, table: str) -> bool:
        """Return whether the table and the table of its tenants have their required columns."""
        return all(self._has_required(each) for each in _DEPENDS_ON[table])

    def _has_required(self, table: str) -> bool:
        return self._columns.get(table, set()).issuperset(_REQUIRED[table])

    async def count(self, *, after: str | None, tenant_id: str | None, orphans: bool) -> int:
        """Return the number of conversations that `pages` reads."""
        rows = await self._conversations("count", after=after, tenant_id=tenant_id, orphans=orphans)
        _check_cells(rows or [{}], number="total")
        return int(rows[0]["total"])

    async def pages(
        self, *, after: str | None, tenant_id: str | None, orphans: bool
    ) -> AsyncGenerator[Batch]:
        """Iterate over the conversations after an id, of one tenant or of all.

        `orphans` adds the conversations of deleted dialogs and agents to those of the tenant.
        """
        while sizes := await self._conversations(
            "sizes", after=after, tenant_id=tenant_id, orphans=orphans, limit=_PAGE_ROWS
        ):
            _check_cells(sizes, "id", number="bytes")
            last = _last_of_page(sizes)
            if last == after:
                raise DatabaseError("the source: its pages do not end", _DATA_EXCEPTION)
            if sizes[0]["bytes"] > MAX_ROW_BYTES:
                yield Batch(last, [], (last,))
            else:
                rows = await self._conversations(
                    "rows", after=after, last=last, tenant_id=tenant_id, orphans=orphans
                )
                _check_cells(rows, "id", others=(*_REQUIRED[CONVERSATIONS], "dialog_tenant_id"))
                yield Batch(last, rows)
            after = last

    async def tokens(self, *, tenant_id: str | None) -> AsyncGenerator[list[Cells]]:
        """Iterate over the API tokens in pages, of one tenant or of all."""
        after_tenant, after_token = None, None
        while rows := await self._fetch(
            "tokens",
            self._columns[TOKENS] & _optional_columns(TOKENS),
            tenant_id=tenant_id,
            after_tenant=after_tenant,
            after_token=after_token,
            limit=_PAGE_ROWS,
        ):
            _check_cells(rows, "tenant_id", "token")
            yield rows
            last = rows[-1]["tenant_id"], rows[-1]["token"]
            if last == (after_tenant, after_token):
                raise DatabaseError("the source: its pages do not end", _DATA_EXCEPTION)
            after_tenant, after_token = last

    async def _conversations(
        self,
        part: Literal["count", "sizes", "rows"],
        *,
        after: str | None,
        tenant_id: str | None,
        orphans: bool,
        last: str | None = None,
        limit: int | None = None,
    ) -> list[Cells]:
        flags = (self._columns[CONVERSATIONS] & _optional_columns(CONVERSATIONS)) | {part}
        if part == "rows" or tenant_id is not None:
            flags.add("owners")
        if self.has_agents:
            flags.add("agents")
        if self._has_mixed_collations:
            flags.add("mixed")
        if orphans:
            flags.add("orphans")
        return await self._fetch(
            "conversations", flags, after=after, last=last, tenant_id=tenant_id, limit=limit
        )

    async def _fetch(
        self, name: str, flags: set[str], **parameters: str | int | None
    ) -> list[Cells]:
        """Run a statement. A parameter with the value None is omitted."""
        statement = sql_files.load(f"ragflow/{name}")
        present: dict[str, str | int | UnsetType] = {
            name: UNSET if value is None else value for name, value in parameters.items()
        }
        query = statement.bind(flags | ({self._connection.dialect} & statement.flags), present)
        return await self._connection.fetch(query)


def _check_cells(
    rows: Sequence[Cells], *texts: str, number: str | None = None, others: Sequence[str] = ()
) -> None:
    """Raise DatabaseError if a row lacks a cell, or one of these is no text or no number."""
    for row in rows:
        are_texts = all(isinstance(row.get(name), str) for name in texts)
        is_number = number is None or isinstance(row.get(number), int | Decimal)
        if not are_texts or not is_number or not row.keys() >= set(others):
            raise DatabaseError("the source: its rows are not those of RAGFlow", _DATA_EXCEPTION)


def _optional_columns(table: str) -> frozenset[str]:
    """Return the columns that the statement of a table selects only if they exist."""
    if table not in _STATEMENTS:
        return frozenset()
    return sql_files.load(f"ragflow/{_STATEMENTS[table]}").flags - _OTHER_FLAGS


def _last_of_page(sizes: list[Cells]) -> str:
    """Return the id of the page's last row: `_PAGE_BYTES` of rows, or one larger row."""
    last: str = sizes[0]["id"]
    total: int = sizes[0]["bytes"]
    for each in sizes[1:]:
        total += each["bytes"]
        if total > _PAGE_BYTES:
            break
        last = each["id"]
    return last
