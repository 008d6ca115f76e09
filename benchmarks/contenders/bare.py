"""The floor: asyncpg alone, on tables that hold what an append needs and nothing else.

`EXTRAS` are what the library has more than that, each in a schema of its own, so that the price of
each can be told.
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
"""The statement of each schema; `extra_<schema>.sql` makes what it has more than the plain one."""
FILLS: Final[Mapping[str, tuple[str, ...]]] = {"recency": ("plain_fill_recency",)}
"""The files that fill what an extra has more than the plain tables."""
EXTRAS: Final = tuple(name for name in STATEMENTS if name != PLAIN)
NAMES: Final[Mapping[str, str]] = {
    PLAIN: "plain statement",
    "recency": "+ recency table",
    "updated": "+ index by recent activity instead",
    "ledger": "+ usage ledger",
    "key": "+ idempotency key",
    "search": "+ search, not folded",
}


async def create_tables(dsn: str, schema: str) -> None:
    """Create a schema with the plain tables and what its extra needs.

    Raises asyncpg's error for an extension that the server does not have; nothing is left then.
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
    """Return the statement that a call of the library ran on this connection, and its values.

    So the bare driver can run the very same, however the library comes to write it.
    """
    ran: list[asyncpg.connection.LoggedQuery] = []
    with connection.query_logger(ran.append):
        await work()
        await asyncio.sleep(0)  # the driver tells at the next turn of the loop
    return ran[-1].query, ran[-1].args


def turn(
    tenant_id: str, id: str, messages: Sequence[Mapping[str, str]], tokens: int
) -> tuple[object, ...]:
    """Return the parameters of each of the statements."""
    roles = [message["role"] for message in messages]
    return tenant_id, id, roles, [message["content"] for message in messages], tokens
