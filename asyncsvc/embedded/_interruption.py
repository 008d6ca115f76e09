"""Whatever ends the caller, the work on the server is not left half-done.

All of that work blocks. It happens in a thread, rather than in asyncio's subprocesses, because
uvloop's subprocesses cannot change the user and because a thread finishes what it began when its
caller is cancelled. SIGTERM goes the way of Ctrl-C, and what is missed then is done at the exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Concatenate, ParamSpec, TypeVar

from asyncsvc.embedded._directory import Directory
from asyncsvc.embedded._server import find, shut_down
from asyncsvc.errors import EmbeddedServerError

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(
    work: Callable[Concatenate[Directory, P], T],
    data_dir: str | os.PathLike[str],
    *args: P.args,
    **kwargs: P.kwargs,
) -> asyncio.Future[T]:
    """Begin the work on the directory in a thread."""

    def guarded() -> T:
        if sys.platform == "win32":
            raise EmbeddedServerError(
                "the embedded server does not run on Windows: use WSL, a container or a server"
            )
        directory = Directory(Path(os.path.realpath(data_dir)))
        try:
            return work(directory, *args, **kwargs)
        except OSError as error:
            raise EmbeddedServerError(f"{directory.path} cannot be used: {error}") from error

    return asyncio.get_running_loop().run_in_executor(None, guarded)


async def outlast(work: asyncio.Future[T], gave_up: threading.Event | None = None) -> T:
    """Wait for the work to its end, however often the caller is cancelled meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
            if gave_up:
                gave_up.set()
    if cancelled:
        raise cancelled from work.exception()
    return work.result()


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end the program by way of its `finally` blocks, if nobody else handles it."""
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if ours:
        signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        if ours and signal.getsignal(signal.SIGTERM) is interrupt:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def interrupt(_signum: int, frame: FrameType | None) -> None:
    """Do what Ctrl-C does."""
    # Not by raising SIGINT: a shell's background jobs ignore it.
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        handler = signal.default_int_handler
    handler(signal.SIGINT, frame)


def last_chance(directory: Directory) -> Callable[[], None]:
    """What stops this very server, and no later one, when this process exits, and no child."""
    server, process = find(directory), os.getpid()

    def stop() -> None:
        if os.getpid() == process and find(directory) == server:
            shut_down(directory)

    return stop
