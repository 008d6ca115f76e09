"""asyncpg alone, on tables with only the columns and indexes of a plain append.

Each of `EXTRAS` adds one feature of the library in a schema of its own, so that the cost of each
feature can be measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import asyncpg

from benchmarks.measuring import Work
from benchmarks.server import connected
from benchmarks.statements import sql

PLAIN: Final = "plain"
STATEMENTS: Final[Mapping[str, str]] = {
    PLAIN: "append_plain",
    "recency": "append_recency",
    "updated": "append_plain",
    "ledger": "append_ledger",
    "key": "append_key",
    "search": "append_search",
}
"""The append statement of each schema; `extra_<schema>.sql` adds its extra to the plain tables."""
FILLS: Final[Mapping[str, tuple[str, ...]]] = {"recency": ("plain_fill_recency",)}
"""The SQL files that fill the tables of an extra."""
EXTRAS: Final = tuple(name for name in STATEMENTS if name != PLAIN)
NAMES: Final[Mapping[str, str]] = {
    PLAIN: "plain statement",
    "recency": "+ recency table",
    "updated": "+ index by recent activity instead",
    "ledger": "+ usage ledger",
    "key": "+ idempotency key",
    "search": "+ search, not indexed",
}


async def create_tables(dsn: str, schema: str) -> None:
    """Create a schema with the plain tables and the tables of its extra.

    Raises asyncpg's error if the server lacks an extension; the transaction is rolled back.
    """
    async with connected(dsn, schema) as connection, connection.transaction():
        await connection.execute(f"CREATE SCHEMA {schema}")
        await connection.execute(sql("plain_tables"))
        if schema in EXTRAS:
            await connection.execute(sql(f"extra_{schema}"))


async def append(
    connection: asyncpg.Connection,
    schema: str,
    tenant_id: str,
    id: str,
    messages: Sequence[Mapping[str, str]],
    tokens: int,
) -> int:
    """Append a turn by the statement of this schema; return the conversation's last seq."""
    return int(
        await connection.fetchval(sql(STATEMENTS[schema]), *turn(tenant_id, id, messages, tokens))
    )


async def captured(connection: asyncpg.Connection, work: Work) -> tuple[str, Sequence[object]]:
    """Return the statement of a library call on this connection, with its parameters.

    The bare driver can then run exactly the same statement.
    """
    ran: list[asyncpg.connection.LoggedQuery] = []
    with connection.query_logger(ran.append):
        await work()
        await asyncio.sleep(0)  # the driver calls the logger in the next iteration of the loop
    return ran[-1].query, ran[-1].args


def turn(
    tenant_id: str, id: str, messages: Sequence[Mapping[str, str]], tokens: int
) -> tuple[object, ...]:
    """Return the parameters of an append statement."""
    roles = [message["role"] for message in messages]
    return tenant_id, id, roles, [message["content"] for message in messages], tokens
