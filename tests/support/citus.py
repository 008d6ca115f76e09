"""Test databases on Citus: each database is on every node, since Citus does not create it there.

The database of `ASYNCSVC_TEST_DSN` names the nodes: it has the extension, and its coordinator knows
the workers. Without workers the coordinator has all shards.
"""

import asyncio
import os
import urllib.parse
from pathlib import Path

import asyncpg
import pytest

from asyncsvc import Settings
from asyncsvc.database import sql_files
from benchmarks import cluster

ON_CITUS = os.environ.get("ASYNCSVC_TEST_CITUS") == "1"
"""Whether the tests run on Citus, with a distributed schema."""
SHARD_COUNT = 4
"""Shards of a table of the template: 2 on each of 2 workers. Each shard makes a copy slower."""
_WAITING = (
    "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND wait_event_type = 'Lock'"
)
ONE_NODE = (Path(__file__).parent / "sql" / "one_node.sql").read_text(encoding="utf-8")
"""Lets a server without Citus run the statements for one node."""
STUBS = (Path(__file__).parent / "sql" / "citus_stubs.sql").read_text(encoding="utf-8")
"""Stand-ins for the catalog and functions of Citus, for a database of a server without it."""
TWO_SHARDS = (Path(__file__).parent / "sql" / "two_shards.sql").read_text(encoding="utf-8")
"""Stand-ins for 2 shards of the messages, beside `STUBS`."""


def read_skipped() -> dict[str, str]:
    """Return the reason of each test that does not run on Citus, by the begin of its id.

    In `tests/support/skipped_on_citus.txt` the tests follow their reason, which is a comment.
    """
    reason, reasons = "", dict[str, str]()
    path = Path(__file__).with_name("skipped_on_citus.txt")
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            reason = line.removeprefix("# ")
        elif line:
            reasons[line] = reason
    return reasons


SKIPPED = read_skipped()
"""Tests that do not run on Citus, by the begin of their ids, with the reason of each."""


def sum_of_nodes(query: str) -> str:
    """Return the query, on Citus for the sum of its number over all nodes."""
    if not ON_CITUS:
        return query
    return f"SELECT sum(n.result::bigint) FROM run_command_on_all_nodes($$ {query} $$) AS n"


WAITING = sum_of_nodes(f"SELECT count(*) {_WAITING}")
"""Count the sessions of the database that wait for a lock, on any node."""
END_WAITING = sum_of_nodes(f"SELECT count(pg_terminate_backend(pid)) {_WAITING}")
"""End these sessions and count them."""


def use_settings() -> None:
    """Make `citus=True` the default of the settings, also of commands, if the tests run on Citus.

    An application on Citus sets it.
    """
    if ON_CITUS:
        os.environ["ASYNCSVC_SETTINGS"] = str(Path(__file__).with_name("citus_settings.json"))
        Settings.model_fields["citus"].default = True
        Settings.model_rebuild(force=True)


def skip_reason(nodeid: str) -> str | None:
    """Return why a test does not run on Citus, or None if it runs."""
    return next((why for begin, why in SKIPPED.items() if nodeid.startswith(begin)), None)


def skip_tests(items: list[pytest.Item]) -> None:
    """Mark the tests of `SKIPPED` if the tests run on Citus."""
    for item in items if ON_CITUS else ():
        if reason := skip_reason(item.nodeid):
            item.add_marker(pytest.mark.skip(reason=f"on Citus: {reason}"))


async def on_each_node(server_dsn: str, command: str) -> None:
    """Run a command on the server, and if the tests run on Citus, also on each worker."""
    nodes = await cluster.nodes(server_dsn) if ON_CITUS else [server_dsn]
    await asyncio.gather(*(execute(node, command) for node in nodes))


async def create_cluster(server_dsn: str, database: str) -> None:
    """Make the nodes of an empty database, which is on each node, one cluster."""
    coordinator, *workers = (
        urllib.parse.urlsplit(node)._replace(path=f"/{database}").geturl()
        for node in await cluster.nodes(server_dsn)
    )
    await cluster.join(coordinator, workers)
    await execute(coordinator, f'ALTER DATABASE "{database}" SET citus.shard_count = {SHARD_COUNT}')


async def configure(server_dsn: str, database: str) -> None:
    """Allow triggers, and reads of the catalog without a check of each table, which takes 1 s."""
    for setting in ("citus.enable_unsafe_triggers = on", "citus.override_table_visibility = off"):
        await execute(server_dsn, f'ALTER DATABASE "{database}" SET {setting}')


async def close_template(server_dsn: str, database: str) -> None:
    """End the sessions of a database, since its maintenance process would prevent copies."""
    await on_each_node(server_dsn, f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
    await on_each_node(
        server_dsn,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        f" WHERE datname = '{database}'",
    )


async def execute_each(database: asyncpg.Pool | asyncpg.Connection, commands: str) -> None:
    """Run commands one by one. Citus rejects several in one string if one changes the schema."""
    for command in sql_files.commands(commands):
        await database.execute(command)


async def execute(dsn: str, command: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=60)
    try:
        await connection.execute(command)
    finally:
        await connection.close()
