"""Watch the new messages of a tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Self
from weakref import WeakValueDictionary

from asyncsvc.models import NewMessages
from asyncsvc.services.common import ConversationServiceBase
from asyncsvc.services.tenant_feed import Inbox, TenantFeed
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.types import ANY, AnyType, Id, OrAny, UserId

if TYPE_CHECKING:
    from asyncsvc.database import Executor
    from asyncsvc.settings import Settings


class ConversationWatching(ConversationServiceBase):
    """The watch for new messages."""

    def __init__(self, executor: Executor, settings: Settings) -> None:
        """Run statements on this executor, within the limits of these settings."""
        super().__init__(executor, settings)
        self._feeds = WeakValueDictionary[str, TenantFeed]()

    def watch(
        self,
        *,
        tenant_id: str,
        dialog_id: str | AnyType = ANY,
        user_id: str | AnyType = ANY,
    ) -> Watch:
        """Iterate over the conversations of a tenant to which messages are appended, as they come.

        The watch reports each append that is committed after its start, from any process. It starts
        at the first step, or at the start of a block `async with svc.conversations.watch(...) as
        watch`, which also ends it. Appends to one conversation that are committed in short
        succession are reported once, with the last `last_seq`. No append is missed, also if the
        connection was lost or the server failed over; then one may be reported twice. Without a
        database the watch waits until it is back.

        Messages of `import_`, edits, deletions and feedback are not reported.

        Args:
            dialog_id: Only conversations of this dialog.
            user_id: Only conversations of this user.

        Returns:
            The watch: an asynchronous iterator of `NewMessages`, without end. Read the messages by
            `messages(id, after=...)`.

        Raises:
            InvalidInput: An id is invalid, or the services are those of a connection or of a
                transaction. Raised at the start.
            PoolClosed: The pool was closed.

        Cost:
            A process that watches has 1 connection beside its pool, which listens for
            notifications. A start makes 2 or 3 round trips, and the first one of the process opens
            that connection, with 4 more. A notification, at most 20 times a second for a tenant,
            and the end of each `Settings.watch_interval` cause 2 round trips for all watches of the
            process on the tenant, on the index of the update time, and sometimes 1 more to renew
            the watch. No locks. A process that appends to a watched tenant makes 1 round trip in
            the background for all appends of 50 ms.
        """
        find_feed = partial(
            self._find_feed, tenant_id=tenant_id, dialog_id=dialog_id, user_id=user_id
        )
        return Watch(find_feed, dialog_id, user_id)

    @validated
    async def _find_feed(
        self,
        *,
        tenant_id: Id,
        dialog_id: OrAny[Id],  # noqa: ARG002 - only validated
        user_id: OrAny[UserId],  # noqa: ARG002
    ) -> TenantFeed:
        """Return the feed that all watches of a tenant share."""
        feed = self._feeds.get(tenant_id)
        if feed is None:
            feed = self._feeds[tenant_id] = TenantFeed(self._executor, tenant_id)
        return feed


class Watch:
    """The result of `watch`: iterate over it by `async for`.

    A step that is cancelled, for example by a timeout, loses nothing: the next step goes on. Enter
    the watch by `async with` to start it before the first step, and to end it at the end of the
    block. Otherwise it ends when the last reference to it is gone, as after a loop over the call.
    """

    def __init__(
        self,
        find_feed: Callable[[], Awaitable[TenantFeed]],
        dialog_id: str | AnyType,
        user_id: str | AnyType,
    ) -> None:
        """Internal. Use `svc.conversations.watch`."""
        self._find_feed = find_feed
        self._inbox = Inbox(dialog_id, user_id)
        self._feed: TenantFeed | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self._starting = asyncio.Lock()

    def __repr__(self) -> str:
        """Return whether the watch has started."""
        return f"<Watch {'ended' if self._is_closed else 'started' if self._feed else 'new'}>"

    async def __aenter__(self) -> Self:
        """Start the watch."""
        await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the watch."""
        await self.aclose()

    def __aiter__(self) -> Self:
        """Return this object."""
        return self

    async def __anext__(self) -> NewMessages:
        """Wait for the next conversation with new messages."""
        feed = None if self._is_closed else await self._start()
        while (new := self._inbox.pop()) is None:
            if self._is_closed or feed is None:
                raise StopAsyncIteration
            async with feed.lock:
                if not self._inbox:  # another watch may have read for this one
                    await feed.step()
        return new

    async def aclose(self) -> None:
        """End the watch. A later step raises StopAsyncIteration.

        Cost:
            No round trip.
        """
        self._is_closed = True
        async with self._starting:
            feed, self._feed = self._feed, None
            if feed is not None:
                await feed.leave(self._inbox)

    def __del__(self) -> None:
        """End a watch that no one can end any more. Python calls this in any thread."""
        feed, loop = self._feed, self._loop
        if feed is not None and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(lambda: loop.create_task(feed.leave()))

    async def _start(self) -> TenantFeed:
        """Start the watch unless it has started."""
        async with self._starting:
            if self._feed is None:
                feed = await self._find_feed()
                await feed.join(self._inbox)
                self._feed, self._loop = feed, asyncio.get_running_loop()
            return self._feed
