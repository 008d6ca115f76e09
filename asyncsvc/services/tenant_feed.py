"""The new messages of one tenant, which the watchers of a process share.

A notification is only a hint: it says when to read. What is new is decided by what the tables hold,
so a lost notification delays a message and loses none.
"""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncsvc.database import payload_of
from asyncsvc.errors import PoolClosed, Unavailable
from asyncsvc.models import NewMessages
from asyncsvc.repositories.watch import NewAppend, WatchRepository
from asyncsvc.services.watermark import Watermark, next_read
from asyncsvc.validation.cursors import Position
from asyncsvc.validation.types import ANY, AnyType

if TYPE_CHECKING:
    from asyncsvc.database import Executor

_log = logging.getLogger("asyncsvc")

_PAGE_SIZE: Final = 300
_MIN_PAUSE: Final = 0.05
"""The seconds between two reads of a tenant, at least, so that many appends share a read."""
_FIRST_PAUSE: Final = 0.1
"""The seconds until the second read after appends begin to notify. Those that had begun do not."""
_RETRY_PAUSE: Final = 1.0
"""The seconds until the next attempt after a failure, if the interval is longer."""
_MIN_LEASE: Final = 60.0
"""The minimum seconds for which the appends of a tenant notify after a renewal."""
_HIDDEN_AGE: Final = timedelta(hours=1)
"""The assumed age of the transactions of other roles when a watch starts."""


class Inbox:
    """The conversations that a watch has not reported yet."""

    def __init__(self, dialog_id: str | AnyType, user_id: str | AnyType) -> None:
        """Accept appends to the conversations of this dialog and user."""
        self._dialog_id = dialog_id
        self._user_id = user_id
        self._last_seqs = dict[str, int]()

    def receive(self, append: NewAppend) -> None:
        """Take an append if it is watched."""
        if self._dialog_id in {ANY, append.dialog_id} and self._user_id in {ANY, append.user_id}:
            self._last_seqs[append.id] = append.last_seq

    def __len__(self) -> int:
        """Return the number of conversations."""
        return len(self._last_seqs)

    def pop(self) -> NewMessages | None:
        """Remove the next conversation; None if there is none."""
        for id in self._last_seqs:
            return NewMessages(conversation_id=id, last_seq=self._last_seqs.pop(id))
        return None


class _Known(NamedTuple):
    """The last append to a conversation that the watchers have received."""

    last_seq: int
    appended_at: datetime


class TenantFeed:
    """Reads the new messages of a tenant and passes them to its watchers.

    There is no task of its own: each watcher that waits tries to take `lock`, and the one that has
    it reads for all.
    """

    def __init__(self, executor: Executor, tenant_id: str) -> None:
        """Read on this executor."""
        self.lock = asyncio.Lock()
        self._listener = executor.listener
        self._repository = WatchRepository(executor)
        self._interval = executor.settings.watch_interval
        self._tenant_id = tenant_id
        self._payload = payload_of(tenant_id)
        self._wakeup = asyncio.Event()
        self._inboxes = weakref.WeakSet[Inbox]()
        self._users = 0
        self._watermark: Watermark | None = None
        self._known = dict[str, _Known]()
        self._pause = self._interval
        self._next_renewal = float("-inf")
        self._is_failing = False
        self._last_read = 0.0

    async def join(self, inbox: Inbox) -> None:
        """Put appends that are committed after this call into the inbox."""
        if self._users == 0:
            self._listener.subscribe(self._payload, self._wakeup)
        self._users += 1
        self._wakeup.set()  # the watcher that has the lock ends its step
        try:
            async with self.lock:
                await self._read(is_due=False)
                self._inboxes.add(inbox)
        except BaseException:
            await self.leave()
            raise

    async def leave(self, inbox: Inbox | None = None) -> None:
        """End a `join`. The inbox may be gone."""
        if inbox is not None:
            self._inboxes.discard(inbox)
        self._users -= 1
        self._wakeup.set()
        if self._users == 0:
            await self._listener.unsubscribe(self._payload, self._wakeup)

    async def step(self) -> None:
        """Wait until a read is due, then read. The caller holds `lock`."""
        is_due = await self._wait()
        self._wakeup.clear()
        try:
            await self._read(is_due=is_due)
        except PoolClosed:
            self._wakeup.set()
            raise
        except Unavailable as error:
            self._fail("new messages cannot be read now: %s", error)
        except BaseException:
            self._wakeup.set()  # the next watcher repeats the read
            raise

    def _fail(self, message: str, error: Unavailable) -> None:
        """Log the first of several failures, and try again soon."""
        _log.log(logging.DEBUG if self._is_failing else logging.WARNING, message, error)
        self._is_failing = True
        self._pause = min(self._interval, _RETRY_PAUSE)

    async def _wait(self) -> bool:
        """Wait for a notification or the end of the pause; return whether the pause has ended."""
        try:
            async with asyncio.timeout(self._pause):
                await self._wakeup.wait()
        except TimeoutError:
            self._pause = min(self._interval, 2 * self._pause)
            return True
        await asyncio.sleep(self._last_read + _MIN_PAUSE - time.monotonic())
        return False

    async def _listen(self, *, is_due: bool) -> None:
        """Receive notifications, and make the appends send them."""
        try:
            is_listening = await self._listener.listen(is_due=is_due)
        except PoolClosed:
            raise
        except Unavailable as error:
            self._fail("new messages are polled: %s", error)
            return
        self._is_failing = False
        if not is_listening or time.monotonic() < self._next_renewal:
            return
        lease = max(_MIN_LEASE, 4 * self._interval)
        await self._repository.renew(tenant_id=self._tenant_id, lease=timedelta(seconds=lease))
        if time.monotonic() > self._next_renewal + lease / 2:  # it may have expired
            self._pause = min(self._interval, _FIRST_PAUSE)
        self._next_renewal = time.monotonic() + lease / 4

    async def _read(self, *, is_due: bool) -> None:
        """Pass the appends since the last read to the watchers.

        An append that no notification follows began before `_listen` made the appends notify. It is
        part of this read, or its transaction is running. A cancellation changes nothing, since all
        reads precede all changes.
        """
        sent = time.monotonic()
        running = await self._repository.get_running(hidden_age=_HIDDEN_AGE)
        since, watermark = next_read(self._watermark, running, sent, time.monotonic())
        await self._listen(is_due=is_due)
        appends = list[NewAppend]()
        page: list[NewAppend] | None = None
        while page is None or len(page) == _PAGE_SIZE:
            page = await self._repository.get_new(
                tenant_id=self._tenant_id,
                since=since,
                after=Position(page[-1].updated_at, page[-1].id) if page else None,
                limit=_PAGE_SIZE,
            )
            appends += page
        self._watermark = watermark
        self._last_read = time.monotonic()
        for append in appends:
            self._deliver(append)
        self._forget_before(watermark.kept_since)

    def _deliver(self, append: NewAppend) -> None:
        known = _Known(append.last_seq, append.appended_at)
        if self._known.pop(append.id, None) != known:
            for inbox in self._inboxes:
                inbox.receive(append)
        self._known[append.id] = known

    def _forget_before(self, earliest: datetime) -> None:
        """Forget the appends that no later read returns. They are about in the order of time."""
        while self._known:
            id, known = next(iter(self._known.items()))
            if known.appended_at >= earliest:
                return
            del self._known[id]
