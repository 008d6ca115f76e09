"""psycopg 3, asynchronous, with the same hand-written statements as asyncpg."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import psycopg
from psycopg_pool import AsyncConnectionPool

from benchmarks.contenders import bare
from benchmarks.statements import sql

Connection: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]

COPIED = ("tenant_id", "conversation_id", "seq", "role", "content", "payload", "created_at")


@contextlib.asynccontextmanager
async def connected(dsn: str, search_path: str | None = None) -> AsyncIterator[Connection]:
    """Yield a connection that prepares statements at their first use and accepts $1."""
    options = "" if search_path is None else f"-c search_path={search_path}"
    connection = await psycopg.AsyncConnection.connect(
        dsn,
        autocommit=True,
        prepare_threshold=0,
        options=options,
        cursor_factory=psycopg.AsyncRawCursor,
    )
    async with connection:
        yield connection


@contextlib.asynccontextmanager
async def pooled(dsn: str, size: int) -> AsyncIterator[AsyncConnectionPool[Connection]]:
    """Yield a pool of such connections."""
    options = {
        "autocommit": True,
        "prepare_threshold": 0,
        "cursor_factory": psycopg.AsyncRawCursor,
    }
    async with AsyncConnectionPool(
        dsn, min_size=1, max_size=size, kwargs=options, open=False
    ) as pool:
        yield pool


async def append(
    connection: Connection,
    tenant_id: str,
    id: str,
    messages: Sequence[Mapping[str, str]],
    tokens: int,
) -> int:
    """Append a turn by the plain statement; return the conversation's last seq."""
    parameters = bare.turn(tenant_id, id, messages, tokens)
    row = await (await connection.execute(sql("append_plain"), parameters)).fetchone()
    assert row is not None  # noqa: S101
    return int(row[0])


async def fetch(connection: Connection, query: str, arguments: Sequence[object]) -> list[Any]:
    """Return the rows of a statement."""
    return await (await connection.execute(query, arguments)).fetchall()


async def copy(
    connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Copy rows into a table of the search path, row by row."""
    text = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
    async with connection.cursor() as cursor, cursor.copy(text) as copying:
        for row in rows:
            await copying.write_row(row)
