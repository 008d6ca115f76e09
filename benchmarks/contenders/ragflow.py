"""RAGFlow's `api_service.py`: blocking peewee in threads, with one document per conversation.

This is a new implementation of the same operations. Each call runs in a ThreadPoolExecutor of its
own, as in RAGFlow's `thread_pool_exec`. An append reads the row, appends in Python, writes the
whole row and increments `round` with a second statement. A page is a count and a select. Most
columns have an index of their own.
"""

from __future__ import annotations

import asyncio
import time
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

import peewee
from playhouse.pool import PooledPostgresqlDatabase

from benchmarks.contenders import ragflow_models

Result = TypeVar("Result")


class RAGFlow:
    """RAGFlow's tables, with its lookup of a token, append, list, count and statistics."""

    def __init__(self, dsn: str) -> None:
        """Open a pool with one connection per possible thread."""
        parts = urllib.parse.urlsplit(dsn)
        self._database = PooledPostgresqlDatabase(
            parts.path[1:],
            host=parts.hostname,
            port=parts.port,
            user=urllib.parse.unquote(parts.username or ""),
            password=urllib.parse.unquote(parts.password or ""),
            max_connections=64,
            stale_timeout=300,
        )
        self._user, self._token, self._dialog, self._conversation = ragflow_models.on(
            self._database
        )

    def create_tables(self) -> None:
        """Create the schema and the tables if they do not exist."""
        with self._database.connection_context():
            self._database.execute_sql("CREATE SCHEMA IF NOT EXISTS ragflow")
            self._database.create_tables(
                [self._user, self._token, self._dialog, self._conversation]
            )

    def add_tokens(self, tokens: Iterable[tuple[str, str]]) -> None:
        """Store tokens with their tenants, and one user per tenant."""
        rows = list(tokens)
        with self._database.atomic():
            self._token.insert_many(
                {"token": token, "tenant_id": tenant} for token, tenant in rows
            ).execute()
            self._user.insert_many(
                {"id": tenant, "nickname": tenant, "email": f"{tenant}@example.org"}
                for tenant in sorted({tenant for _, tenant in rows})
            ).execute()

    async def verify(self, token: str) -> str:
        """Return the tenant of a token."""
        return await self._in_thread(self._verify, token)

    async def append(self, id: str, messages: Sequence[dict[str, str]], tokens: int) -> None:
        """Append a turn to a conversation."""
        await self._in_thread(self._append, id, messages, tokens)

    async def conversation(self, id: str) -> dict[str, Any]:
        """Return a conversation with its messages as a list."""
        return await self._in_thread(self._get, id)

    async def get_list(self, dialog_id: str, page: int, items: int) -> tuple[int, list[Any]]:
        """Return the total and one page of a dialog's conversations, newest first."""
        return await self._in_thread(self._get_list, dialog_id, page, items)

    async def count(self, dialog_id: str) -> int:
        """Return the number of conversations of a dialog."""
        return await self._in_thread(self._count, dialog_id)

    async def stats(
        self, tenant_id: str, since: datetime, until: datetime, source: str
    ) -> list[dict[str, Any]]:
        """Return the usage by day of creation; the dates are naive, in the server's zone."""
        return await self._in_thread(self._stats, tenant_id, since, until, source)

    def close(self) -> None:
        """Close all connections."""
        self._database.close_all()

    async def _in_thread(self, work: Callable[..., Result], *arguments: object) -> Result:
        with ThreadPoolExecutor() as threads:  # a new one per call, as in RAGFlow
            return await asyncio.get_running_loop().run_in_executor(
                threads, self._connected, work, *arguments
            )

    def _connected(self, work: Callable[..., Result], *arguments: object) -> Result:
        with self._database.connection_context():
            return work(*arguments)

    def _verify(self, token: str) -> str:
        (row,) = self._token.select().where(self._token.token == token)
        (user,) = self._user.select().where(
            self._user.id == row.tenant_id, self._user.status == "1"
        )
        return str(user.id)

    def _append(self, id: str, messages: Sequence[dict[str, str]], tokens: int) -> None:
        document = self._get(id)
        document["message"] += messages
        document["tokens"] += tokens
        table, now = self._conversation, _now()
        table.update(document | now).where(table.id == id).execute()
        table.update({"round": table.round + 1} | now).where(table.id == id).execute()

    def _get(self, id: str) -> dict[str, Any]:
        (document,) = self._conversation.select().where(self._conversation.id == id).dicts()
        return dict(document)

    def _get_list(self, dialog_id: str, page: int, items: int) -> tuple[int, list[Any]]:
        table = self._conversation
        columns = [field for field in table._meta.fields.values() if field.name != "dsl"]  # noqa: SLF001
        query = table.select(*columns).where(table.dialog_id == dialog_id)
        total = query.count()
        rows = query.order_by(table.create_time.desc()).paginate(page, items)
        return total, list(rows.dicts())

    def _count(self, dialog_id: str) -> int:
        query = self._conversation.select().where(self._conversation.dialog_id == dialog_id)
        return int(query.count())

    def _stats(
        self, tenant_id: str, since: datetime, until: datetime, source: str
    ) -> list[dict[str, Any]]:
        table, dialog, fn = self._conversation, self._dialog, peewee.fn
        day = fn.DATE_TRUNC("day", table.create_date)
        query = (
            table.select(
                day.alias("dt"),
                fn.COUNT(table.id).alias("pv"),
                fn.COUNT(table.user_id.distinct()).alias("uv"),
                fn.SUM(table.tokens).alias("tokens"),
                fn.SUM(table.duration).alias("duration"),
                fn.AVG(table.round).alias("round"),
                fn.SUM(table.thumb_up).alias("thumb_up"),
            )
            .join(
                dialog,
                on=((table.dialog_id == dialog.id) & (dialog.tenant_id == tenant_id)),
            )
            .where(table.create_date >= since, table.create_date <= until, table.source == source)
            .group_by(day)
        )
        return list(query.dicts())


def _now() -> dict[str, object]:
    return {
        "update_time": time.time_ns() // 1_000_000,
        "update_date": datetime.now(UTC).replace(tzinfo=None, microsecond=0),
    }
