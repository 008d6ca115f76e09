"""Reads RAGFlow's tables page by page, in the order of their keys, and holds one page in memory.

A page is a statement of its own, not a part of a cursor: MySQL cuts off whoever reads slowly, and a
page can be begun behind any key. Columns that this version of RAGFlow does not have are left out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from asyncsvc.database import sql_files
from asyncsvc.errors import InvalidInput
from asyncsvc.ragflow.drivers import Cells, Server, connect
from asyncsvc.validation.types import UNSET

CONVERSATIONS: Final = "api_4_conversation"
TOKENS: Final = "api_token"
_DIALOGS, _AGENTS = "dialog", "user_canvas"
_NEEDED: Final = {
    CONVERSATIONS: ("id", "dialog_id", "user_id", "message"),
    _DIALOGS: ("id", "tenant_id"),
    _AGENTS: ("id", "user_id"),
    TOKENS: ("tenant_id", "token"),
}
_STATEMENTS: Final = {CONVERSATIONS: "conversations", TOKENS: "tokens"}
_NO_COLUMNS: Final = {"agents", "mixed", "orphans", "mysql", "postgresql"}
_TABLES_OF: Final = {CONVERSATIONS: (CONVERSATIONS, _DIALOGS), TOKENS: (TOKENS,)}
_ROWS_AT_ONCE: Final = 500
_BYTES_AT_ONCE: Final = 2**22
LONGEST: Final = 2**26
"""The most bytes of a conversation: no row can make the reader take all memory."""


@dataclass(frozen=True, slots=True)
class Page:
    """Conversations in the order of their ids; `too_long` are those that are not to be read."""

    last_id: str
    rows: list[Cells]
    too_long: tuple[str, ...] = ()


@asynccontextmanager
async def opened(dsn: str) -> AsyncGenerator[Source]:
    """Lend the tables of RAGFlow's database. Raises InvalidInput where it is not RAGFlow's."""
    server = await connect(dsn)
    try:
        statement = sql_files.load("ragflow/columns")
        source = Source(
            server, await server.fetch(statement.bind(statement.flags & {server.dialect}, {}))
        )
        if not any(source.has(table) for table in _TABLES_OF):
            raise InvalidInput(
                "source", f"is not RAGFlow's: there is no {' and no '.join(_TABLES_OF)}"
            )
        yield source
    finally:
        await server.close()


class Source:
    """The tables of RAGFlow's database, as far as they are there."""

    def __init__(self, server: Server, columns: list[Cells]) -> None:
        """Read from this server, whose tables have these columns."""
        self._server = server
        self._columns: dict[str, set[str]] = {}
        for each in columns:
            self._columns.setdefault(each["table_name"], set()).add(each["column_name"])
        self.has_agents = self._is_whole(_AGENTS)
        """Whether a conversation of an agent is told from one whose dialog is gone."""
        ids = {(CONVERSATIONS, "dialog_id"), (_DIALOGS, "id"), (_AGENTS, "id")}
        collations = {
            each["collation_name"]
            for each in columns
            if (each["table_name"], each["column_name"]) in ids
        }
        self._is_mixed = server.dialect == "mysql" and len(collations) > 1

    @property
    def lacking(self) -> tuple[str, ...]:
        """The tables and columns that this version of RAGFlow does not have."""
        return tuple(
            f"{table}.{column}" if table in self._columns else table
            for table, needed in _NEEDED.items()
            for column in (*needed, *sorted(_optional(table)))
            if (table in self._columns or column == needed[0])
            and column not in self._columns.get(table, ())
        )

    def has(self, table: str) -> bool:
        """Say whether a table can be read: with what it needs, and what it leads to."""
        return all(self._is_whole(each) for each in _TABLES_OF[table])

    def _is_whole(self, table: str) -> bool:
        return self._columns.get(table, set()).issuperset(_NEEDED[table])

    async def count(self, *, after: str | None, tenant_id: str | None, orphans: bool) -> int:
        """Return how many conversations there are to read."""
        filters = {"after": UNSET if after is None else after}
        (row,) = await self._conversations("count", tenant_id, orphans=orphans, **filters)
        return int(row["total"])

    async def pages(
        self, *, after: str | None, tenant_id: str | None, orphans: bool
    ) -> AsyncGenerator[Page]:
        """Iterate over the conversations behind an id, of one tenant or of all.

        `orphans` are those whose dialog or agent is gone; of all tenants they are there anyway.
        """
        while sizes := await self._conversations(
            "sizes",
            tenant_id,
            orphans=orphans,
            after=UNSET if after is None else after,
            limit=_ROWS_AT_ONCE,
        ):
            ids = _of_one_page(sizes)
            after = ids[-1]
            if sizes[0]["bytes"] > LONGEST:
                yield Page(after, [], (after,))
                continue
            rows = await self._conversations(
                "conversations", tenant_id, orphans=orphans, first=ids[0], last=after
            )
            yield Page(after, rows)

    async def tokens(self, *, tenant_id: str | None) -> AsyncGenerator[list[Cells]]:
        """Iterate over the API tokens, page by page."""
        behind: Mapping[str, Any] = {}
        while rows := await self._fetch(
            "tokens",
            self._columns[TOKENS],
            tenant_id=UNSET if tenant_id is None else tenant_id,
            limit=_ROWS_AT_ONCE,
            **behind,
        ):
            yield rows
            behind = {"after_tenant": rows[-1]["tenant_id"], "after_token": rows[-1]["token"]}

    async def _conversations(
        self, name: str, tenant_id: str | None, *, orphans: bool, **values: object
    ) -> list[Cells]:
        present = {
            *self._columns[CONVERSATIONS],
            *(["agents"] if self.has_agents else []),
            *(["mixed"] if self._is_mixed else []),
            *(["orphans"] if orphans else []),
        }
        tenant = UNSET if tenant_id is None else tenant_id
        return await self._fetch(name, present, tenant_id=tenant, **values)

    async def _fetch(self, name: str, present: set[str], **values: object) -> list[Cells]:
        statement = sql_files.load(f"ragflow/{name}")
        flags = statement.flags & {*present, self._server.dialect}
        return await self._server.fetch(statement.bind(flags, values))


def _optional(table: str) -> frozenset[str]:
    """Return the columns of a table that its statement can do without."""
    name = _STATEMENTS.get(table)
    return sql_files.load(f"ragflow/{name}").flags - _NO_COLUMNS if name else frozenset()


def _of_one_page(sizes: list[Cells]) -> list[str]:
    """Return the ids of as many as fit into a page, or of one that is alone larger than that."""
    ids, total = list[str](), 0
    for each in sizes:
        total += each["bytes"]
        if ids and total > _BYTES_AT_ONCE:
            break
        ids.append(each["id"])
    return ids
