"""Poolers of transactions: whether they keep prepared statements."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

from asyncsvc.database import sql_files

if TYPE_CHECKING:
    from asyncsvc.database.driver_errors import Connection

PREPARED_ADVICE: Final = (
    'Settings.pgbouncer="prepared" needs PgBouncer 1.21 or newer in transaction mode, with'
    ' max_prepared_statements above 0; use "transaction" otherwise'
)


async def keeps_prepared_statements(connection: Connection) -> bool:
    """Return whether a prepared statement exists on each server connection of the pooler.

    True without a pooler. A pooler that keeps prepared statements gives them names of its own, so
    the server does not know the name of a statement that is prepared here. The transaction holds
    the server connection, so no statement is lost. 4 round trips.
    """
    name = f"asyncsvc_{secrets.token_hex(8)}"
    values = {"reported_pid": connection.get_server_pid(), "name": name}
    query = sql_files.load("pooler/passes_names").bind((), values)
    async with connection.transaction():
        statement: Any = await connection.prepare(query.text, name=name)
        return not await statement.fetchval(*query.arguments)
