"""A message takes space for its text, row, 2 index entries, and n-grams in the search index.

Indexing leaves a dead version of the row, whose space later rows use. A small table has more free
space per row than a large one. The WAL of maintenance consists of whole pages, each written once
after a checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import asyncpg

import asyncsvc
from asyncsvc.services.credentials import new_secret
from benchmarks.bench import Bench
from benchmarks.contenders.library import connect
from benchmarks.server import activity, connected, sql
from benchmarks.suites.text_generator import MESSAGES_PER_CONVERSATION, TextGenerator

_TENANT = "sizes"


async def run(bench: Bench) -> None:
    """Measure the bytes per conversation, message, token and turn, by size of a tenant."""
    settings = asyncsvc.Settings(accept_foreign_tokens=True)
    async with (
        connect(bench.dsn, settings=settings) as svc,
        connected(bench.dsn) as connection,
    ):
        await svc.migrate()
        suite = _Suite(bench, svc, connection, TextGenerator(seed=1))
        for size in bench.choose((20, 40), (1_000, 10_000), (1_000, 10_000, 100_000)):
            await suite.conversations(size)
        await suite.tokens(bench.choose(50, 5_000, 50_000))
        await suite.turns(bench.choose(40, 1_000, 5_000))
        await suite.usage(bench.choose(40, 2_000, 20_000))


@dataclass(frozen=True)
class _Suite:
    bench: Bench
    svc: asyncsvc.AsyncSvc
    connection: asyncpg.Connection
    generator: TextGenerator

    async def conversations(self, size: int) -> None:
        """Import a tenant, run maintenance, and report the bytes by purpose."""
        before, tenant = await self._bytes(), f"{_TENANT}{size}"
        with self.bench.working(f"{size:,} conversations"):
            records = self.generator.conversations(tenant, size)
            await self.svc.conversations.import_(records, tenant_id=tenant)
            await self.svc.maintain()
            await self.connection.execute("VACUUM")
        after = await self._bytes()
        grown = {name: after[name] - before.get(name, 0) for name in after}
        index, messages = grown.pop("message_search_idx"), size * MESSAGES_PER_CONVERSATION
        rows = grown.pop("message") - index
        text = await self.connection.fetchval(sql("text_bytes"), tenant)
        counted = {
            "bytes per message": round(rows / messages),
            "bytes of these for the text": round(text / messages),
            "bytes per message in the search index": round(index / messages),
            "bytes per conversation besides its messages": round(sum(grown.values()) / size),
        }
        self.bench.counts(f"sizes at {size:,} conversations", counted)

    async def tokens(self, count: int) -> None:
        """Import tokens, and report the bytes per token."""
        before = await self._bytes()
        with self.bench.working(f"{count:,} tokens"):
            records = [{"secret": new_secret("asv"), "name": "a name"} for _ in range(count)]
            await self.svc.tokens.import_(records, tenant_id=_TENANT)
            await self.connection.execute("VACUUM")
        after = await self._bytes()
        row, audit = (
            round((after[name] - before[name]) / count) for name in ("api_token", "token_audit")
        )
        self.bench.counts("bytes per token", {"for its row": row, "for its audit": audit})

    async def turns(self, count: int) -> None:
        """Append turns of a question and an answer, run maintenance, and report the WAL of both."""
        await self.svc.conversations.create(tenant_id=_TENANT, dialog_id="d", id="turns")
        texts = [(self.generator.message(), self.generator.message()) for _ in range(count)]
        with self.bench.working(f"{count:,} turns"):
            await self.connection.execute("CHECKPOINT")
            began = (await activity(self.connection)).wal
            for question, answer in texts:
                messages = [
                    {"role": "user", "content": question}, {"role": "bot", "content": answer}
                ]  # fmt: skip
                await self.svc.conversations.append_message(
                    "turns", {"messages": messages}, tenant_id=_TENANT
                )
            appended = (await activity(self.connection)).wal
            await self.svc.maintain()
            maintained = (await activity(self.connection)).wal
        counted = {
            "for the append": round((appended - began) / count),
            "for the maintenance": round((maintained - appended) / count),
            "for the text": round(sum(len("".join(each).encode()) for each in texts) / count),
        }
        self.bench.counts("bytes of WAL per turn of 2 messages", counted)

    async def usage(self, count: int) -> None:
        """Record usage of as many persons, and report its bytes before and after the roll-up."""
        await self.svc.maintain()
        await self.connection.execute("VACUUM FULL asyncsvc.usage_ledger")
        before = await self._bytes()
        usage = asyncsvc.Usage(
            input_tokens=1_200, output_tokens=80, cost=Decimal("0.000975"), model="openai/gpt-5"
        )
        with self.bench.working(f"{count:,} usages"):
            for number in range(count):
                await self.svc.conversations.record_usage(
                    usage, tenant_id=_TENANT, dialog_id="d", user_id=f"user-{number:012}"
                )
            recorded = await self._bytes()
            await self.svc.maintain()
        rolled_up = await self._bytes()
        counted = {
            "in the ledger": recorded["usage_ledger"] - before["usage_ledger"],
            "in the quarter hours": rolled_up["usage_quarter_hour"] - before["usage_quarter_hour"],
            "in the months of persons": rolled_up["usage_user_month"] - before["usage_user_month"],
            "in the bounds of persons": rolled_up["usage_user"] - before["usage_user"],
        }
        self.bench.counts(
            "bytes of a usage", {name: round(total / count) for name, total in counted.items()}
        )

    async def _bytes(self) -> dict[str, int]:
        """Return the bytes of each table with its indexes, and of the search index of messages."""
        rows = await self.connection.fetch(sql("sizes"))
        return {row["name"]: row["bytes"] for row in rows}
