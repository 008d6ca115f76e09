"""Notifications of committed appends to the processes that watch their tenants."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from contextvars import Context
from typing import TYPE_CHECKING, Final

from asyncsvc.database import sql_files
from asyncsvc.errors import AsyncSvcError

if TYPE_CHECKING:
    from asyncsvc.database.executor import Executor

_log = logging.getLogger("asyncsvc")

_PAUSE: Final = 0.05
"""The seconds between two statements that notify."""


def payload_of(tenant_id: str) -> str:
    """Return the payload that names a tenant: a hash, since each role can receive it."""
    return hashlib.sha256(tenant_id.encode()).hexdigest()


class Notifier:
    """Notifies the watchers of tenants whose appends were committed.

    PostgreSQL lets one session of a server at a time commit with a notification, so appends that
    notify wait for each other's write to the disk. One statement for all recent appends of a
    process does not. If it fails, the watchers find the messages at their next read.
    """

    def __init__(self, executor: Executor) -> None:
        """Run the statements on this executor."""
        self._executor = executor
        self._payloads = set[str]()
        self._is_busy = False

    def notify(self, tenant_id: str) -> None:
        """Notify the watchers of a tenant soon."""
        self._payloads.add(payload_of(tenant_id))
        if not self._is_busy:
            self._is_busy = True
            self._begin()

    def _begin(self) -> None:
        """Start the next statement if there is an append to report.

        A loop that is closed drops a timer silently, but warns of a task. The empty context keeps
        the variables of the append, for example its request, out of the statement.
        """
        if not self._payloads:
            self._is_busy = False
            return
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._send(), name="asyncsvc notify", context=Context())

    async def _send(self) -> None:
        payloads, self._payloads = sorted(self._payloads), set()
        query = sql_files.load("watch/notify").bind((), {"payloads": payloads})
        try:
            await self._executor.fetch(query)
        except AsyncSvcError as error:
            _log.debug("a notification of new messages failed: %s", error)
        finally:
            asyncio.get_running_loop().call_later(_PAUSE, self._begin, context=Context())
