"""The data of all contenders: one turn to append, and generated tenants of any size.

`sql/generator.sql` generates the conversations; each store has an SQL file that inserts them into
its tables. A tenant is generated once per run, so the suites of a run share the large ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from asyncsvc import Message, Page, Turn
from benchmarks.server import connected, sql

if TYPE_CHECKING:
    from benchmarks.bench import Bench

MESSAGES = [
    {"role": "user", "content": "Where is my parcel? It was to come on Tuesday."},
    {"role": "assistant", "content": "It left the depot this morning, and comes before noon."},
]
TOKENS = 42
_ID_COLUMN = 2  # of the library's list statement
TURN = Turn(messages=[Message.model_validate(each) for each in MESSAGES], tokens=TOKENS)
"""The turn that every contender appends."""


def texts(messages: Sequence[Any], last_seq: int | None = None) -> list[tuple[str, str]]:
    """Return role and content of messages; raise AssertionError if their seqs have gaps."""
    seqs = [message.seq for message in messages]
    if seqs != list(range(1, len(seqs) + 1)) or last_seq not in {None, len(seqs)}:
        raise AssertionError(f"{len(seqs)} messages have gaps, or the last seq is not {last_seq}")
    return [(message.role, message.content) for message in messages]


@dataclass(frozen=True)
class Tenant:
    """A tenant whose conversations are numbered from `base` + 1 and have `messages` messages."""

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
    """Return the tenant with this number of conversations of 2 messages. The suites share it."""
    return Tenant(f"n{conversations}", 1_000_000_000 + conversations, conversations, 2)


def of_length(messages: int, conversations: int) -> Tenant:
    """Return the tenant whose conversations have this number of messages, for appends."""
    return Tenant(f"a{messages}", messages * 10_000, conversations, messages)


async def fill(bench: Bench, tenant: Tenant, *schemas: str) -> None:
    """Store a tenant in the tables of each schema, unless it is stored."""
    missing = [schema for schema in schemas if (schema, tenant.name) not in bench.filled]
    for schema in missing:
        file = schema if schema in {"asyncsvc", "ragflow"} else "plain"
        async with connected(bench.dsn, schema) as connection:
            with bench.working(f"{tenant.conversations:,} conversations of {tenant.messages:,}"):
                await connection.execute(sql("generator"))
                for command in sql(f"fill_{file}").split(";\n"):
                    statement = await connection.prepare(command)
                    values = (tenant.name, tenant.base, tenant.conversations, tenant.messages)
                    await statement.fetch(*values[: len(statement.get_parameters())])
                await connection.execute("VACUUM ANALYZE")
        bench.filled.add((schema, tenant.name))


def ids(page: Any) -> list[str]:  # noqa: ANN401 - the result of any contender
    """Return the ids of a page: of the library, of rows, of dicts or of objects of an ORM."""
    return [_id(row) for row in (page.items if isinstance(page, Page) else page)]


def _id(row: Any) -> str:  # noqa: ANN401 - as above
    if isinstance(row, tuple):
        return str(row[_ID_COLUMN])
    return str(row["id"] if isinstance(row, asyncpg.Record | dict) else row.id)
