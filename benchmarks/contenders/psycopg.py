"""psycopg 3, asynchronous, with the same hand-written statements as asyncpg."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import psycopg
from psycopg_pool import AsyncConnectionPool

from benchmarks.contenders import bare

Connection: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]
_OPTIONS: Final[dict[str, Any]] = {
    "autocommit": True,
    "prepare_threshold": 0,  # prepare at the first use
    "cursor_factory": psycopg.AsyncRawCursor,  # accept $1
}


@contextlib.asynccontextmanager
async def connected(dsn: str, search_path: str = "public") -> AsyncIterator[Connection]:
    """Yield a connection, which is closed at the end of the block."""
    path = f"-c search_path={search_path}"
    async with await psycopg.AsyncConnection.connect(dsn, options=path, **_OPTIONS) as connection:
        yield connection


def pooled(dsn: str, size: int) -> AsyncConnectionPool[Connection]:
    """Return a pool, to be opened by `async with`."""
    return AsyncConnectionPool(dsn, min_size=1, max_size=size, kwargs=_OPTIONS, open=False)


@dataclass(frozen=True)
class Plain:
    """The append by the plain statement on one connection."""

    connection: Connection

    async def append(self, tenant_id: str, id: str) -> object:
        """Append the turn."""
        statement = bare.append_statement(bare.PLAIN)
        return await fetch(self.connection, statement.text, bare.turn(statement, tenant_id, id))


async def fetch(connection: Connection, query: str, arguments: Sequence[object]) -> list[Any]:
    """Return the rows of a statement."""
    return await (await connection.execute(query, arguments)).fetchall()


async def copy(connection: Connection, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Copy rows, which all have the same columns, into a table of the search path."""
    each = iter(rows)
    first = next(each)
    text = f"COPY {table} ({', '.join(first)}) FROM STDIN"
    async with connection.cursor() as cursor, cursor.copy(text) as copying:
        for row in itertools.chain([first], each):
            await copying.write_row(tuple(row.values()))
