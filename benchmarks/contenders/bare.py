"""asyncpg alone, on tables with only the columns and indexes of a plain append.

Each of `EXTRAS` adds one feature of the library in its own schema, so that the benchmark can
measure the cost of each feature.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from typing import Final

import asyncpg

from asyncsvc.database.sql_files import Query, Statement
from benchmarks.data import MESSAGES, TOKENS
from benchmarks.measuring import Work
from benchmarks.server import connected, sql

PLAIN: Final = "plain"
EXTRAS: Final[Mapping[str, str]] = {
    "recency": "+ recency table",
    "updated": "+ index by recent activity instead",
    "ledger": "+ usage ledger",
    "key": "+ idempotency key",
    "search": "+ search, not indexed",
}
"""The schemas with an extra, and the names of their contenders."""
_PARAMETERS: Final = ("tenant_id", "id", "roles", "contents", "tokens")


async def create_tables(dsn: str, schema: str) -> None:
    """Create a schema with the plain tables, unless it exists."""
    async with connected(dsn, schema) as connection, connection.transaction():
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        await connection.execute(sql("plain_tables"))


async def add_extra(dsn: str, schema: str) -> None:
    """Add the tables, columns or indexes of an extra to the plain tables of its schema."""
    async with connected(dsn, schema) as connection:
        await connection.execute(sql(f"extra_{schema}"))
        await connection.execute("VACUUM ANALYZE")


@functools.cache
def append_statement(schema: str) -> Query:
    """Return the append statement of a schema; its arguments are the names of its parameters."""
    statement = Statement("append", f"-- A header\n{sql('append')}")
    return statement.bind({schema} & statement.flags, {name: name for name in _PARAMETERS})


class Bare:
    """The append of a schema on one connection."""

    def __init__(self, connection: asyncpg.Connection, schema: str) -> None:
        """Use a connection whose search path is the schema."""
        self._connection = connection
        self._schema = schema

    async def append(self, tenant_id: str, id: str) -> object:
        """Append the turn."""
        statement = append_statement(self._schema)
        values = turn(statement, tenant_id, id)
        return await self._connection.fetchval(statement.text, *values)

    async def messages(self, tenant_id: str, id: str) -> list[tuple[str, str]]:
        """Return the messages of a conversation, in their order."""
        rows = await self._connection.fetch(sql("plain_messages"), tenant_id, id)
        return [(row["role"], row["content"]) for row in rows]


def turn(statement: Query, tenant_id: str, id: str) -> list[object]:
    """Return the parameters of an append statement, in the order of their numbers."""
    values = {
        "tenant_id": tenant_id,
        "id": id,
        "roles": [message["role"] for message in MESSAGES],
        "contents": [message["content"] for message in MESSAGES],
        "tokens": TOKENS,
    }
    return [values[str(name)] for name in statement.arguments]


async def captured(connection: asyncpg.Connection, work: Work) -> tuple[str, Sequence[object]]:
    """Return the statement of a library call on this connection, with its parameters.

    The bare driver can then run exactly the same statement.
    """
    ran: list[asyncpg.connection.LoggedQuery] = []
    with connection.query_logger(ran.append):
        await work()
        await asyncio.sleep(0)  # the driver calls the logger in the next iteration of the loop
    return ran[-1].query, ran[-1].args
