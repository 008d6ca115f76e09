"""The append of each contender: the same turn to the same conversations."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import asyncpg

import asyncsvc
from benchmarks import data
from benchmarks.contenders import bare, psycopg
from benchmarks.contenders.pgbench import PgBench
from benchmarks.contenders.ragflow import RAGFlow
from benchmarks.contenders.sqlalchemy import Orm
from benchmarks.data import Tenant
from benchmarks.measuring import Work, agree
from benchmarks.report import Report
from benchmarks.server import connected
from benchmarks.statements import sql

PATIENT = asyncsvc.Settings(statement_timeout=600.0, acquire_timeout=600.0)
"""Long calls are measured and do not time out."""

Append: TypeAlias = Callable[[str], Awaitable[object]]
"""Append the turn to the conversation with this id."""

MESSAGES = [
    {"role": "user", "content": "Where is my parcel? It was to come on Tuesday."},
    {"role": "assistant", "content": "It left the depot this morning, and comes before noon."},
]
TOKENS = 42
TURN = asyncsvc.Turn(
    messages=[asyncsvc.Message.model_validate(each) for each in MESSAGES], tokens=TOKENS
)


def by_library(svc: asyncsvc.Services, tenant_id: str, *, keyed: bool = False) -> Append:
    """Return the library's append, with a new idempotency key per call or without a key."""
    return lambda chat: svc.conversations.append_message(
        chat, TURN, tenant_id=tenant_id, idempotency_key=secrets.token_hex(8) if keyed else None
    )


def by_statement(connection: asyncpg.Connection, schema: str, tenant_id: str) -> Append:
    """Return the bare append statement of a schema."""
    return lambda chat: bare.append(connection, schema, tenant_id, chat, MESSAGES, TOKENS)


async def by_same_statement(
    connection: asyncpg.Connection, svc: asyncsvc.AsyncSvc, tenant: Tenant
) -> Append:
    """Return the library's own statement on the bare driver, without the library's Python code."""
    first = tenant.ids[0]
    append = by_library(svc.on(connection), tenant.name)
    query, arguments = await bare.captured(connection, lambda: append(first))
    return lambda chat: connection.fetchrow(
        query, *(chat if value == first else value for value in arguments)
    )


def by_psycopg(connection: psycopg.Connection, tenant_id: str) -> Append:
    """Return the plain statement on psycopg."""
    return lambda chat: psycopg.append(connection, tenant_id, chat, MESSAGES, TOKENS)


def by_orm(orm: Orm, tenant_id: str) -> Append:
    """Return the append of SQLAlchemy's ORM."""
    return lambda chat: orm.append(tenant_id, chat, MESSAGES, TOKENS)


def by_ragflow(flow: RAGFlow) -> Append:
    """Return RAGFlow's append."""
    return lambda chat: flow.append(chat, MESSAGES, TOKENS)


def by_pgbench(dsn: str, tenant: Tenant, clients: int) -> PgBench:
    """Return the plain statement on pgbench, which sends all parameters as text."""
    contents = ",".join(f'"{message["content"]}"' for message in MESSAGES)
    return PgBench(
        "plain statement, pgbench",
        dsn,
        sql("append_plain"),
        ("tenant", "id", "roles", "contents", "tokens"),
        clients,
        texts={
            "tenant": tenant.name,
            "roles": "{" + ",".join(message["role"] for message in MESSAGES) + "}",
            "contents": "{" + contents + "}",
            "tokens": str(TOKENS),
        },
        ranges={"id": (tenant.base + 1, tenant.base + tenant.conversations)},
        search_path=bare.PLAIN,
    )


def insertion(connection: asyncpg.Connection) -> Work:
    """Return the lower bound of a write: insert 1 row durably."""
    return lambda: connection.fetchval(sql("insertion"), MESSAGES[0]["content"])


def to_random_conversation(append: Append, tenant: Tenant) -> Work:
    """Return an append to a random conversation of a tenant."""
    ids = tenant.ids
    return lambda: append(random.choice(ids))  # noqa: S311


def in_turn(append: Append, ids: Iterable[str]) -> Work:
    """Return an append to these conversations in turn."""
    turn = itertools.cycle(ids)
    return lambda: append(next(turn))


@dataclass(frozen=True)
class Stores:
    """The stores of the contenders in one database."""

    dsn: str
    svc: asyncsvc.AsyncSvc
    orm: Orm
    flow: RAGFlow

    async def create(self) -> None:
        """Create the tables of all contenders except the bare statements."""
        await self.svc.migrate()
        await self.orm.create_tables()
        await asyncio.to_thread(self.flow.create_tables)

    async def fill(self, tenant: Tenant, report: Report) -> None:
        """Store a tenant in all of these tables."""
        await data.fill(self.dsn, tenant, data.LIBRARY, report)
        await data.fill(self.dsn, tenant, data.PLAIN, report, schema="orm")
        await data.fill(self.dsn, tenant, data.RAGFLOW, report, schema="ragflow")

    async def stored(self, name: str, tenant_id: str, id: str) -> list[tuple[str, str]]:
        """Return the messages of a conversation, as a contender stored them.

        Raises AssertionError if numbered messages have gaps.
        """
        match name:
            case "as RAGFlow":
                document = await self.flow.conversation(id)
                return [(message["role"], message["content"]) for message in document["message"]]
            case "SQLAlchemy":
                rows = await self.orm.messages(tenant_id, id)
                _are_gapless(message.seq for message in rows)
                return [(message.role, message.content) for message in rows]
            case "asyncsvc":
                found = await self.svc.conversations.get_by_id(
                    id, tenant_id=tenant_id, include_messages=True
                )
                messages = found.messages or ()
                _are_gapless([message.seq for message in messages], last=found.last_seq)
                return [(message.role, message.content) for message in messages]
        async with connected(self.dsn, bare.PLAIN) as connection:
            rows_ = await connection.fetch(sql("plain_messages"), tenant_id, id)
        return [(row["role"], row["content"]) for row in rows_]

    async def agree(self, tenant: Tenant) -> None:
        """Append once with each contender to equal conversations, and compare the results."""
        first, second = tenant.ids[:2]
        async with (
            connected(self.dsn, bare.PLAIN) as connection,
            psycopg.connected(self.dsn, bare.PLAIN) as other,
        ):
            ways: Mapping[str, tuple[Append, str]] = {
                "asyncsvc": (by_library(self.svc, tenant.name), first),
                "SQLAlchemy": (by_orm(self.orm, tenant.name), first),
                "as RAGFlow": (by_ragflow(self.flow), first),
                "plain": (by_statement(connection, bare.PLAIN, tenant.name), first),
                "psycopg": (by_psycopg(other, tenant.name), second),
            }
            await agree(
                f"an append at {tenant.messages} messages",
                {
                    name: self._appended(name, tenant, append, id)
                    for name, (append, id) in ways.items()
                },
            )

    def _appended(self, name: str, tenant: Tenant, append: Append, id: str) -> Work:
        async def work() -> tuple[int, Sequence[tuple[str, str]]]:
            before = len(await self.stored(name, tenant.name, id))
            await append(id)
            messages = await self.stored(name, tenant.name, id)
            return len(messages) - before, messages[-len(MESSAGES) :]

        return work


@contextlib.asynccontextmanager
async def stores(dsn: str, size: int) -> AsyncIterator[Stores]:
    """Open the contenders' stores, with at most `size` connections each."""
    flow, orm = RAGFlow(dsn), Orm(dsn, size)
    try:
        async with asyncsvc.connect(dsn, max_size=size, settings=PATIENT) as svc:
            yield Stores(dsn, svc, orm, flow)
    finally:
        await orm.close()
        await asyncio.to_thread(flow.close)


def _are_gapless(seqs: Iterable[int], last: int | None = None) -> None:
    numbers = list(seqs)
    if numbers != list(range(1, len(numbers) + 1)) or last not in {None, len(numbers)}:
        raise AssertionError(f"{len(numbers)} messages have gaps, or the last seq is not {last}")
