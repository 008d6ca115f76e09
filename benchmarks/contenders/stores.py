"""The stores of whole applications: the library, SQLAlchemy and RAGFlow, in one database.

Each appends the turn of `benchmarks.data` and returns stored messages.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

import asyncsvc
from benchmarks.bench import Bench
from benchmarks.contenders import bare
from benchmarks.contenders.library import Library, connect
from benchmarks.contenders.ragflow import RAGFlow
from benchmarks.contenders.sqlalchemy import SCHEMA, Orm

SCHEMAS = ("asyncsvc", SCHEMA, "ragflow")
"""The schemas of the stores."""


class Appender(Protocol):
    """An implementation of the append."""

    async def append(self, tenant_id: str, id: str, /) -> object:
        """Append the turn."""


class Store(Appender, Protocol):
    """A store of conversations."""

    async def messages(self, tenant_id: str, id: str, /) -> list[tuple[str, str]]:
        """Return the messages of a conversation, in their order."""


@dataclass(frozen=True)
class Stores:
    """The stores of whole applications in one database."""

    svc: asyncsvc.AsyncSvc
    library: Library
    orm: Orm
    flow: RAGFlow


@contextlib.asynccontextmanager
async def opened(bench: Bench, size: int) -> AsyncIterator[Stores]:
    """Open the stores with at most `size` connections each, and create missing tables."""
    await bare.create_tables(bench.dsn, SCHEMA)
    await bare.add_extra(bench.dsn, SCHEMA)
    flow, orm = RAGFlow(bench.dsn), Orm(bench.dsn, size)
    patient = asyncsvc.Settings(statement_timeout=600.0, acquire_timeout=600.0)
    try:
        async with connect(bench.dsn, max_size=size, settings=patient) as svc:
            await svc.migrate()
            yield Stores(svc, Library(svc), orm, flow)
    finally:
        await orm.close()
        flow.close()
