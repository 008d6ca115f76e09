"""ChainlitDataLayer, Chainlit's own data layer on asyncpg, and that of the integration.

ChainlitDataLayer has its pool of default settings.

Chainlit writes its configuration into a directory when it is imported, so it gets a temporary one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from asyncsvc import AsyncSvc
from benchmarks.data import MESSAGES
from benchmarks.server import connected, sql

_directory = tempfile.TemporaryDirectory(prefix="asyncsvc-benchmarks-")
os.environ.setdefault("CHAINLIT_APP_ROOT", _directory.name)

from chainlit.context import init_http_context  # noqa: E402
from chainlit.data.base import BaseDataLayer  # noqa: E402
from chainlit.data.chainlit_data_layer import ISO_FORMAT, ChainlitDataLayer  # noqa: E402
from chainlit.types import Pagination, ThreadFilter  # noqa: E402

from asyncsvc.integrations.chainlit import DataLayer  # noqa: E402

SCHEMA: Final = "chainlit"
_MAX_THREADS: Final = 1_000


class OpenedChainlit:
    """The data layer. It has no tenants, so a user is one of a tenant."""

    schema = SCHEMA

    def __init__(self, layer: ChainlitDataLayer) -> None:
        """Borrow the data layer."""
        self._layer = layer

    def of_tenant(self, tenant_id: str) -> Chainlit:
        """Return the threads of a tenant."""
        return Chainlit(self._layer, f"{tenant_id}-")


class Integrated:
    """The data layer of the integration, one for each tenant."""

    schema = "chainlit_layer"

    def __init__(self, svc: AsyncSvc) -> None:
        """Borrow the services."""
        self._svc = svc

    def of_tenant(self, tenant_id: str) -> Chainlit:
        """Return the threads of the copy of a tenant."""
        copy = f"{tenant_id}-chainlit"
        return Chainlit(DataLayer(self._svc, tenant_id=copy, dialog_id="chainlit"), "")


class Chainlit:
    """The threads of a tenant's users."""

    def __init__(self, layer: BaseDataLayer, user_prefix: str) -> None:
        """Borrow the data layer. The ids of users begin with the prefix."""
        self._layer = layer
        self._user_prefix = user_prefix
        self._milliseconds = itertools.count()

    async def append(self, _user_id: str, id: str) -> None:
        """Append the turn as 2 steps, as the chat does. Steps are ordered by their time in ms."""
        for message in MESSAGES:
            at = datetime.now(UTC) + timedelta(milliseconds=next(self._milliseconds))
            step: Any = {
                "id": secrets.token_hex(16),
                "threadId": id,
                "name": message["role"],
                "type": f"{message['role']}_message",
                "input": "",
                "output": message["content"],
                "metadata": {},
                "createdAt": at.strftime(ISO_FORMAT),
            }
            await self._layer.create_step(step)

    async def whole(self, _user_id: str, id: str) -> list[tuple[str, str]]:
        """Return all steps of a thread."""
        thread: Any = await self._layer.get_thread(id)
        return [(step["name"], step["output"]) for step in thread["steps"]]

    async def of_user(self, user_id: str) -> list[str]:
        """Return the ids of all threads of a user, the latest first."""
        page = await self._layer.list_threads(
            Pagination(first=_MAX_THREADS),
            ThreadFilter(userId=self._user_prefix + user_id),
        )
        return [thread["id"] for thread in page.data]


@contextlib.asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[OpenedChainlit]:
    """Create the tables, and open a data layer for this task and the tasks that it starts."""
    async with connected(dsn, SCHEMA) as connection:
        await connection.execute(sql("chainlit_tables"))
    init_http_context()
    layer = ChainlitDataLayer(f"{dsn}?search_path={SCHEMA}")
    await layer.connect()
    try:
        yield OpenedChainlit(layer)
    finally:
        await layer.close()
