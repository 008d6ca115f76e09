"""The bytes per conversation, message, token and turn, by size of a tenant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg

import asyncsvc
from asyncsvc.services.credentials import new_secret
from benchmarks.report import Report
from benchmarks.server import activity, connected
from benchmarks.statements import sql
from benchmarks.text_generator import MESSAGES_PER_CONVERSATION, TextGenerator

_OF_MESSAGES = ("message", "message_search_idx")
_TENANT = "sizes"


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    sizes: tuple[int, ...]
    tokens: int
    turns: int


SCALES = {
    "small": Scale((20, 40), 50, 40),
    "middle": Scale((1_000, 10_000), 5_000, 1_000),
    "full": Scale((1_000, 10_000, 100_000), 50_000, 5_000),
}


async def run(dsn: str, scale: str, report: Report) -> None:
    """Measure, and add the results to the report."""
    how = SCALES[scale]
    generator = TextGenerator(seed=1)
    settings = asyncsvc.Settings(accept_foreign_tokens=True)
    async with asyncsvc.connect(dsn, settings=settings) as svc, connected(dsn) as connection:
        await svc.migrate()
        for size in how.sizes:
            await _conversations(svc, connection, generator, size, report)
        await _tokens(svc, connection, how.tokens, report)
        await _turns(svc, connection, generator, how.turns, report)


async def _conversations(
    svc: asyncsvc.AsyncSvc,
    connection: asyncpg.Connection,
    generator: TextGenerator,
    size: int,
    report: Report,
) -> None:
    """Import a tenant, run maintenance, and report the bytes by purpose."""
    before = await _bytes(connection)
    tenant = f"{_TENANT}{size}"
    with report.working(f"{size:,} conversations of {MESSAGES_PER_CONVERSATION} messages"):
        await svc.conversations.import_(generator.conversations(tenant, size), tenant_id=tenant)
        await svc.maintain()
        await connection.execute("VACUUM")
    after = await _bytes(connection)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    index = grown.pop("message_search_idx")
    messages = grown.pop("message") - index
    text = await connection.fetchval(sql("text_bytes"), tenant)
    counted = {
        "bytes a message": round(messages / size / MESSAGES_PER_CONVERSATION),
        "of it text": round(text / size / MESSAGES_PER_CONVERSATION),
        "of the search index": round(index / size / MESSAGES_PER_CONVERSATION),
        "bytes a conversation beside them": round(sum(grown.values()) / size),
    }
    report.add_counts(f"sizes at {size:,} conversations", counted)


async def _tokens(
    svc: asyncsvc.AsyncSvc, connection: asyncpg.Connection, count: int, report: Report
) -> None:
    before = await _bytes(connection)
    with report.working(f"{count:,} tokens"):
        records = [{"secret": new_secret("asv"), "name": "a name"} for _ in range(count)]
        await svc.tokens.import_(records, tenant_id=_TENANT)
        await connection.execute("VACUUM")
    after = await _bytes(connection)
    grown = {name: round((after[name] - before[name]) / count) for name in _OF_TOKENS}
    report.add_counts(
        "bytes a token", {"of it": grown["api_token"], "of its audit": grown["token_audit"]}
    )


_OF_TOKENS = ("api_token", "token_audit")


async def _turns(
    svc: asyncsvc.AsyncSvc,
    connection: asyncpg.Connection,
    generator: TextGenerator,
    count: int,
    report: Report,
) -> None:
    """Append turns of a question and an answer, run maintenance, and report the WAL of both."""
    await svc.conversations.create(tenant_id=_TENANT, dialog_id="d", id="turns")
    turns = [
        {"messages": [{"role": role, "content": generator.message()} for role in ("user", "bot")]}
        for _ in range(count)
    ]
    with report.working(f"{count:,} turns"):
        await connection.execute("CHECKPOINT")
        began = (await activity(connection)).wal
        for turn in turns:
            await svc.conversations.append_message("turns", turn, tenant_id=_TENANT)
        appended = (await activity(connection)).wal
        await svc.maintain()
        maintained = (await activity(connection)).wal
    text = sum(len(each["content"].encode()) for turn in turns for each in turn["messages"])
    counted = {
        "by its append": round((appended - began) / count),
        "by its maintenance": round((maintained - appended) / count),
        "of it text": round(text / count),
    }
    report.add_counts("bytes of WAL a turn of two messages", counted)


async def _bytes(connection: asyncpg.Connection) -> Mapping[str, int]:
    """Return the bytes of each table with its indexes, and of the search index of messages."""
    rows = await connection.fetch(sql("sizes"))
    return {row["name"]: row["bytes"] for row in rows}
