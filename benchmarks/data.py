"""Generate tenants in the database, with the same data for every contender.

`sql/generator.sql` generates the conversations; each store has SQL files that insert them into its
tables. A tenant is generated once per run, so the suites of a run share the large ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from benchmarks.report import Report
from benchmarks.server import connected
from benchmarks.statements import sql

LIBRARY = (
    *("fill_conversations", "fill_messages"),
    *("fill_titles", "fill_recency", "fill_usage"),
)
PLAIN = ("plain_fill_conversations", "plain_fill_messages")
RAGFLOW = ("fill_ragflow_dialogs", "fill_ragflow_conversations")


@dataclass(frozen=True)
class Tenant:
    """A tenant whose conversations are numbered from `base` + 1; `messages` is their length."""

    name: str
    base: int
    conversations: int
    messages: int

    @property
    def ids(self) -> list[str]:
        """The ids of its conversations."""
        return [str(self.base + number) for number in range(1, self.conversations + 1)]

    @property
    def dialog(self) -> str:
        """The dialog of every second conversation."""
        return f"{self.name}-d0"


def of_size(conversations: int) -> Tenant:
    """Return the tenant with this number of conversations of 2 messages; the suites share it."""
    return Tenant(f"n{conversations}", 1_000_000_000 + conversations, conversations, 2)


def of_length(messages: int, conversations: int) -> Tenant:
    """Return the tenant whose conversations have this number of messages, for appends."""
    return Tenant(f"a{messages}", messages * 10_000, conversations, messages)


async def fill(
    dsn: str, tenant: Tenant, files: tuple[str, ...], report: Report, *, schema: str = "asyncsvc"
) -> None:
    """Store a tenant in the tables of a schema with these SQL files, unless it is stored."""
    async with connected(dsn, schema) as connection:
        if not await connection.fetchval(sql("generator_exists")):
            await connection.execute(sql("generator"))
        if await connection.fetchval(sql("is_filled"), schema, tenant.name):
            return
        with report.working(f"{tenant.conversations:,} conversations of {tenant.messages:,}"):
            for name in files:
                await _run(connection, name, tenant)
            await connection.execute("VACUUM ANALYZE")
        await connection.execute(sql("mark_filled"), schema, tenant.name)


async def forget(dsn: str, tenant: Tenant, *, schema: str = "asyncsvc") -> None:
    """Record that a tenant was deleted."""
    async with connected(dsn) as connection:
        await connection.execute(sql("forget_filled"), schema, tenant.name)


async def _run(connection: asyncpg.Connection, name: str, tenant: Tenant) -> None:
    statement = await connection.prepare(sql(name))
    values = (tenant.name, tenant.base, tenant.conversations, tenant.messages)
    await statement.fetch(*values[: len(statement.get_parameters())])
