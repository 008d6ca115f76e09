"""RAGFlow's `api_service.py`: blocking peewee in threads, with one document per conversation.

This is a new implementation of the same operations. Each call runs in its own ThreadPoolExecutor,
as in RAGFlow's `thread_pool_exec`. An append reads the row, appends in Python, writes the whole row
and increments `round` with a second statement. A page is a count and a select. Most columns have
their own index.
"""

from __future__ import annotations

import asyncio
import time
import urllib.parse
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Concatenate, ParamSpec, TypeVar

import peewee
from playhouse.pool import PooledPostgresqlDatabase

from benchmarks.contenders import ragflow_models
from benchmarks.data import MESSAGES, TOKENS

P = ParamSpec("P")
Result = TypeVar("Result")


def _in_thread(
    work: Callable[Concatenate[RAGFlow, P], Result],
) -> Callable[Concatenate[RAGFlow, P], Coroutine[Any, Any, Result]]:
    """Run a method in a thread, with a connection of the pool."""

    async def run(self: RAGFlow, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        def connected() -> Result:
            with self.database.connection_context():
                return work(self, *args, **kwargs)

        with ThreadPoolExecutor() as threads:  # a new one per call, as in RAGFlow
            return await asyncio.get_running_loop().run_in_executor(threads, connected)

    return run


class RAGFlow:
    """RAGFlow's tables, with its lookup of a token, append, list, count and statistics."""

    def __init__(self, dsn: str) -> None:
        """Open a pool with one connection per possible thread; create missing tables."""
        parts = urllib.parse.urlsplit(dsn)
        self.database = PooledPostgresqlDatabase(
            parts.path[1:],
            host=parts.hostname,
            port=parts.port,
            user=urllib.parse.unquote(parts.username or ""),
            password=urllib.parse.unquote(parts.password or ""),
            max_connections=64,
            stale_timeout=300,
        )
        tables = ragflow_models.on(self.database)
        self._user, self._token, self._dialog, self._conversation = tables
        with self.database.connection_context():
            self.database.execute_sql("CREATE SCHEMA IF NOT EXISTS ragflow")
            self.database.create_tables(tables)

    def add_tokens(self, tokens: Iterable[str], tenant: str) -> None:
        """Store the tokens of a tenant, and its user."""
        with self.database.atomic():
            rows = [{"token": token, "tenant_id": tenant} for token in tokens]
            self._token.insert_many(rows).execute()
            self._user.insert(id=tenant, nickname=tenant, email="user@example.org").execute()

    @_in_thread
    def verify(self, token: str) -> str:
        """Return the tenant of a token."""
        (row,) = self._token.select().where(self._token.token == token)
        (user,) = self._user.select().where(
            self._user.id == row.tenant_id, self._user.status == "1"
        )
        return str(user.id)

    @_in_thread
    def append(self, _tenant_id: str, id: str) -> None:
        """Append the turn."""
        document = self._get(id)
        document["message"] += MESSAGES
        document["tokens"] += TOKENS
        self._put(id, document)

    async def turn(self, id: str, messages: list[dict[str, str]]) -> None:
        """Append messages as the callers of RAGFlow's services do it: in 2 calls."""
        document = await self.get_by_id(id)
        document["message"] += messages
        await self.append_message(id, document)

    @_in_thread
    def get_by_id(self, id: str) -> dict[str, Any]:
        """Return the whole row of a conversation."""
        return self._get(id)

    @_in_thread
    def append_message(self, id: str, document: dict[str, Any]) -> None:
        """Replace the row of a conversation, and count a round."""
        self._put(id, document)

    @_in_thread
    def messages(self, _tenant_id: str, id: str) -> list[tuple[str, str]]:
        """Return the messages of a conversation, in their order."""
        return [(message["role"], message["content"]) for message in self._get(id)["message"]]

    def _get(self, id: str) -> dict[str, Any]:
        (document,) = self._conversation.select().where(self._conversation.id == id).dicts()
        return dict(document)

    def _put(self, id: str, document: dict[str, Any]) -> None:
        table, now = self._conversation, _now()
        table.update(document | now).where(table.id == id).execute()
        table.update({"round": table.round + 1} | now).where(table.id == id).execute()

    @_in_thread
    def get_list(self, dialog_id: str, page: int, items: int) -> list[Any]:
        """Count a dialog's conversations, and return one page of them, newest first."""
        table = self._conversation
        columns = [field for field in table._meta.fields.values() if field.name != "dsl"]  # noqa: SLF001
        query = table.select(*columns).where(table.dialog_id == dialog_id)
        query.count()
        return list(query.order_by(table.create_time.desc()).paginate(page, items).dicts())

    @_in_thread
    def count(self, dialog_id: str) -> int:
        """Return the number of conversations of a dialog."""
        query = self._conversation.select().where(self._conversation.dialog_id == dialog_id)
        return int(query.count())

    @_in_thread
    def stats(
        self, tenant_id: str, since: datetime, until: datetime, source: str
    ) -> list[dict[str, Any]]:
        """Return the usage by day of creation; the dates are naive, in the server's zone."""
        table, dialog, fn = self._conversation, self._dialog, peewee.fn
        day = fn.DATE_TRUNC("day", table.create_date)
        query = (
            table.select(
                day.alias("dt"),
                fn.COUNT(table.id).alias("conversations"),
                fn.COUNT(table.user_id.distinct()).alias("users"),
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

    def close(self) -> None:
        """Close all connections."""
        self.database.close_all()


def _now() -> dict[str, object]:
    return {
        "update_time": time.time_ns() // 1_000_000,
        "update_date": datetime.now(UTC).replace(tzinfo=None, microsecond=0),
    }
