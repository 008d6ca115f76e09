"""The connection on which a process receives notifications."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import asyncpg

from asyncsvc.cancellation import finish_despite_cancellation
from asyncsvc.database import sql_files
from asyncsvc.database.borrowed import check_event_loop, is_open
from asyncsvc.database.connection_executor import ConnectionExecutor
from asyncsvc.database.driver_errors import is_usable, translate_errors
from asyncsvc.database.executor import ping
from asyncsvc.database.rows import build_value
from asyncsvc.errors import AsyncSvcError, PoolClosed, Unavailable

if TYPE_CHECKING:
    from asyncsvc.database.pool_executor import Pool
    from asyncsvc.settings import Settings

_log = logging.getLogger("asyncsvc")

_CHANNEL: Final = "asyncsvc_new_messages"


class Listener:
    """One connection beside a pool, for all tasks of a process that wait for notifications.

    The pool opens it, and does not count it. It is open while there are subscribers.
    """

    def __init__(self, pool: Pool, settings: Settings) -> None:
        """Open connections as this pool does."""
        self._pool = pool
        self._settings = settings
        self._connection: asyncpg.Connection | None = None
        self._is_supported = True
        self._is_closed = False
        self._lock = asyncio.Lock()
        self._subscribers = defaultdict[str, set[asyncio.Event]](set)

    def subscribe(self, payload: str, event: asyncio.Event) -> None:
        """Set the event at each notification with this payload, and if the connection is lost."""
        check_event_loop(self._pool)
        self._subscribers[payload].add(event)

    async def unsubscribe(self, payload: str, event: asyncio.Event) -> None:
        """End a subscription. The last one closes the connection."""
        self._subscribers[payload].discard(event)
        if not self._subscribers[payload]:
            del self._subscribers[payload]
        if not self._subscribers:
            await self._disconnect()

    async def close(self) -> None:
        """Close the connection and wake all subscribers. `listen` then raises PoolClosed."""
        self._is_closed = True
        self._wake_all()
        await self._disconnect()

    async def listen(self, *, is_due: bool) -> bool:
        """Open the connection if it is not open; return whether notifications can arrive.

        They cannot behind a pooler, which shares sessions, and on Citus, where appends run on other
        nodes.

        Args:
            is_due: Check that an open connection answers. A network that drops all packets ends
                no connection.
        """
        async with self._lock:
            if self._is_closed or not is_open(self._pool):
                raise PoolClosed("the pool is closed")
            if self._connection is not None and is_due:
                await self._check(self._connection)
            if self._connection is None and self._is_supported:
                await self._connect()
            return self._connection is not None

    async def _check(self, connection: asyncpg.Connection) -> None:
        try:
            await ping(connection, self._settings)
        except AsyncSvcError:
            self._connection = None
            connection.terminate()

    async def _connect(self) -> None:
        with translate_errors(pool=self._pool):
            async with asyncio.timeout(self._settings.acquire_timeout):
                connection: asyncpg.Connection = await self._pool._get_new_connection()  # type: ignore[attr-defined]  # noqa: SLF001
        try:
            self._is_supported = await self._can_listen(connection)
            if not self._is_supported:
                _log.info("new messages are polled: notifications cannot reach this process")
                await self._close(connection)
                return
            with translate_errors(connection):
                async with asyncio.timeout(self._settings.acquire_timeout):
                    await connection.add_listener(_CHANNEL, self._receive)
            connection.add_termination_listener(self._lose)
        except BaseException:
            await finish_despite_cancellation(self._close(connection))
            raise
        if not is_usable(connection):
            raise Unavailable("the connection was lost")
        self._connection = connection
        if self._is_closed or not self._subscribers:  # they left while it was opened
            await self._disconnect()
        self._wake_all()

    async def _can_listen(self, connection: asyncpg.Connection) -> bool:
        executor = ConnectionExecutor(connection, self._settings, owns_connection=True)
        (row,) = await executor.fetch(sql_files.load("watch/get_session").bind((), {}))
        is_direct = build_value(int, row, "backend_pid") == executor.reported_pid
        return is_direct and not build_value(bool, row, "is_distributed")

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.remove_termination_listener(self._lose)
        await self._close(connection)

    async def _close(self, connection: asyncpg.Connection) -> None:
        """Close a connection. asyncpg aborts it after a timeout, a cancellation or an error."""
        with suppress(Exception):
            await connection.close(timeout=self._settings.acquire_timeout)

    def _receive(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        for event in self._subscribers.get(str(payload), ()):
            event.set()

    def _lose(self, connection: object) -> None:
        if connection is self._connection:
            self._connection = None
            self._wake_all()

    def _wake_all(self) -> None:
        for events in self._subscribers.values():
            for event in events:
                event.set()
