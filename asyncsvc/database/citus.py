"""Statements of one tenant on Citus: the node that stores the tenant runs them on its shards.

Citus routes no statement that has an INSERT in a WITH clause. It runs each part by itself, and
sends the rows between the parts to all nodes. `asyncsvc.run_on_node_v1` therefore receives the
statement with its arguments as text. Citus calls it on the node of the tenant, in 1 command.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncsvc.database.driver_errors import Connection
    from asyncsvc.database.sql_files import Query

SESSION_PARAMETERS: Final = {
    # Citus sends times to the nodes as text. With SQL, DMY they would read another date.
    "DateStyle": "ISO, MDY",
    # The coordinator would compile its part of a statement at each call.
    "jit": "off",
    # Each catalog query checks whether a table is a shard: those of the driver for types took 1 s.
    "citus.override_table_visibility": "off",
}
_PARAMETER: Final = re.compile(r"\$(\d+)")
_MAX_CALLS: Final = 1_000
_calls: Final = dict[str, str]()
"""The call of `run_on_node_v1` for each text of a statement."""


async def call_on_node(connection: Connection, query: Query, seconds: float) -> Query:
    """Return the query that runs `query` on the node of its tenant.

    2 round trips for a statement that is new to this process, otherwise none.
    """
    call = _calls.get(query.text)
    if call is None:
        if len(_calls) >= _MAX_CALLS:
            _calls.clear()
        call = _calls[query.text] = await _call(connection, query, seconds)
    arguments = (*query.arguments, query.shard_of or query.values["tenant_id"])
    return dataclasses.replace(query, text=call, arguments=arguments)


async def _call(connection: Connection, query: Query, seconds: float) -> str:
    """Return the text of the call. The server reports the types of the parameters and columns."""
    prepared = await connection.prepare(query.text, name="", timeout=seconds)
    types = [each.name for each in prepared.get_parameters()]
    columns = [f'"{each.name}" {each.type.name}' for each in prepared.get_attributes()]

    def argument(number: re.Match[str]) -> str:
        return f"($1[{number[1]}])::{types[int(number[1]) - 1]}"

    statement = _PARAMETER.sub(argument, query.text)
    arguments = ", ".join(f"${number}::{name}::text" for number, name in enumerate(types, 1))
    call = (
        f"asyncsvc.run_on_node_v1(${len(types) + 1}::text, $statement${statement}$statement$,"
        f" ARRAY[{arguments}]::text[])"
    )
    return f"SELECT * FROM {call} AS r ({', '.join(columns)})"  # noqa: S608 - only names of types
