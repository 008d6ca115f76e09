"""Reads what may be long in coming, a pipe or a terminal, without holding up the event loop.

While nothing comes, connections are served, so that no transaction waits for a pipe; and a signal
ends the waiting at once.
"""

from __future__ import annotations

import asyncio
import io
import os
import select
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BUFFER: Final = 2**20

T = TypeVar("T")


class _Raw(io.RawIOBase):
    """The bytes of a descriptor, which end when `stop` is called."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._stopped, self._stop = os.pipe()
        self._is_stopped = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        # A read cannot be called off; so it begins when there is something to read.
        waiting = select.poll()
        for descriptor in (self._descriptor, self._stopped):
            waiting.register(descriptor, select.POLLIN)
        ready = dict(waiting.poll())
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


class Pipe(io.BufferedReader):
    """Reads a descriptor, which stays open, until its end or until `stop` is called."""

    def __init__(self, descriptor: int) -> None:
        """Read from here; nothing else may."""
        self._bytes = _Raw(descriptor)
        super().__init__(self._bytes, _BUFFER)

    def stop(self) -> None:
        """Let whoever reads, in whatever thread, come to an end now."""
        self._bytes.stop()


async def aside(source: IO[bytes], read: Callable[[], T]) -> T:
    """Call what reads from a source, in a thread; cancelled, leave when the thread has ended."""
    reading = asyncio.ensure_future(asyncio.to_thread(read))
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        if isinstance(source, Pipe):
            source.stop()
        await asyncio.gather(reading, return_exceptions=True)  # what it read is not wanted
        raise
