"""Read pipes and terminals without blocking the event loop.

Reads happen in a thread. While a pipe is silent, the event loop serves connections, so no
transaction waits for the pipe, and a signal ends the read at once.
"""

from __future__ import annotations

import asyncio
import io
import os
import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from asyncsvc.cancellation import finish_despite_cancellation

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BUFFER_SIZE: Final = 2**20

T = TypeVar("T")


class _StoppableBytes(io.RawIOBase):
    """The bytes of a file descriptor, to its end or until `stop`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._stopped, self._stop = os.pipe()
        self._is_stopped = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        # A blocked read cannot be cancelled, so wait for data or for `stop` first.
        poll = select.poll()
        for descriptor in (self._descriptor, self._stopped):
            poll.register(descriptor, select.POLLIN)
        ready = dict(poll.poll())
        return 0 if self._stopped in ready else os.readv(self._descriptor, [buffer])

    def stop(self) -> None:
        if not self._is_stopped:
            self._is_stopped = True
            os.close(self._stop)

    def close(self) -> None:
        if not self.closed:
            self.stop()
            os.close(self._stopped)
        super().close()


class StoppableReader(io.BufferedReader):
    """Reads a file descriptor to its end or until `stop`; the descriptor stays open."""

    def __init__(self, descriptor: int) -> None:
        """Read from this descriptor; no other reader may use it."""
        self._bytes = _StoppableBytes(descriptor)
        super().__init__(self._bytes, _BUFFER_SIZE)

    def stop(self) -> None:
        """End a read that runs in another thread, and all later reads."""
        self._bytes.stop()


async def read_in_thread(source: io.BufferedReader | None, read: Callable[[], T]) -> T:
    """Run `read`, which reads from `source`, in a thread.

    A cancellation stops a `StoppableReader`, waits for the end of the thread and is then raised.
    """

    def stop() -> None:
        if isinstance(source, StoppableReader):
            source.stop()

    return await finish_despite_cancellation(asyncio.to_thread(read), on_cancel=stop)
