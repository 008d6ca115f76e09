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
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

import peewee
from playhouse.pool import PooledPostgresqlDatabase

from benchmarks.contenders import ragflow_models
from benchmarks.data import MESSAGES, TOKENS

Result = TypeVar("Result")


class RAGFlow:
    """RAGFlow's tables, with its lookup of a token, append, list, count and statistics."""

    def __init__(self, dsn: str) -> None:
        """Open a pool with one connection per possible thread; create missing tables."""
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
        tables = ragflow_models.on(self._database)
        self._user, self._token, self._dialog, self._conversation = tables
        with self._database.connection_context():
            self._database.execute_sql("CREATE SCHEMA IF NOT EXISTS ragflow")
            self._database.create_tables(tables)

    def add_tokens(self, tokens: Iterable[str], tenant: str) -> None:
        """Store the tokens of a tenant, and its user."""
        with self._database.atomic():
            rows = [{"token": token, "tenant_id": tenant} for token in tokens]
            self._token.insert_many(rows).execute()
            self._user.insert(id=tenant, nickname=tenant, email="user@example.org").execute()

    async def verify(self, token: str) -> str:
        """Return the tenant of a token."""
        return await self._in_thread(self._verify, token)

    async def append(self, _tenant_id: str, id: str) -> None:
        """Append the turn."""
        await self._in_thread(self._append, id)

    async def messages(self, _tenant_id: str, id: str) -> list[tuple[str, str]]:
        """Return the messages of a conversation, in their order."""
        document = await self._in_thread(self._get, id)
        return [(message["role"], message["content"]) for message in document["message"]]

    async def get_list(self, dialog_id: str, page: int, items: int) -> list[Any]:
        """Count a dialog's conversations, and return one page of them, newest first."""
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

    def _append(self, id: str) -> None:
        document = self._get(id)
        document["message"] += MESSAGES
        document["tokens"] += TOKENS
        table, now = self._conversation, _now()
        table.update(document | now).where(table.id == id).execute()
        table.update({"round": table.round + 1} | now).where(table.id == id).execute()

    def _get(self, id: str) -> dict[str, Any]:
        (document,) = self._conversation.select().where(self._conversation.id == id).dicts()
        return dict(document)

    def _get_list(self, dialog_id: str, page: int, items: int) -> list[Any]:
        table = self._conversation
        columns = [field for field in table._meta.fields.values() if field.name != "dsl"]  # noqa: SLF001
        query = table.select(*columns).where(table.dialog_id == dialog_id)
        query.count()
        return list(query.order_by(table.create_time.desc()).paginate(page, items).dicts())

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
            .join(dialog, on=((table.dialog_id == dialog.id) & (dialog.tenant_id == tenant_id)))
            .where(table.create_date >= since, table.create_date <= until, table.source == source)
            .group_by(day)
        )
        return list(query.dicts())


def _now() -> dict[str, object]:
    return {
        "update_time": time.time_ns() // 1_000_000,
        "update_date": datetime.now(UTC).replace(tzinfo=None, microsecond=0),
    }
