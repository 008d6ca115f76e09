"""PostgreSQL from a wheel: for development, tests and small installations.

The caller chooses a directory for all files of the server. The server listens on 127.0.0.1 only,
requires a password, and outlives the program unless it is stopped.

The work on the server blocks, so it runs in a thread. A thread finishes its work even if its caller
is cancelled; subprocesses of uvloop are no alternative, because they cannot switch the user.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Concatenate, ParamSpec, TypeVar

from asyncsvc.cancellation import finish_despite_cancellation
from asyncsvc.embedded import server
from asyncsvc.embedded.directory import Directory
from asyncsvc.embedded.server import RESERVED_OPTIONS, EmbeddedPostgres
from asyncsvc.errors import EmbeddedServerError, InvalidInput

__all__ = ["EmbeddedPostgres", "running", "start", "status", "stop"]

P = ParamSpec("P")
T = TypeVar("T")


async def start(
    data_dir: str | os.PathLike[str],
    *,
    options: Mapping[str, str] = {},
) -> EmbeddedPostgres:
    """Start the server of a directory, or find the running one.

    The first start creates the directory and the cluster. The server keeps running when the process
    ends; `stop` ends it. A cancelled start leaves no server behind.

    Args:
        data_dir: A directory that is empty, does not exist, or was created by this function.
        options: Server settings, such as `{"fsync": "off"}`. A running server keeps its own.

    Returns:
        The server, ready for connections.

    Raises:
        EmbeddedServerError: No wheel is installed; the directory has other content, or data of
            another major version; the server does not start or answer. The message gives advice.
        InvalidInput: The name of an option is malformed or reserved.

    Cost:
        About 1 s for the first start, 0.1 s for a later one, one connection if it is running.
    """
    _check_options(options)
    cancelled = threading.Event()
    starting = _in_thread(server.start, data_dir, dict(options), cancelled)
    try:
        return await finish_despite_cancellation(starting, on_cancel=cancelled.set)
    except asyncio.CancelledError:
        # The thread stops the server, unless it finished at the moment of the cancellation.
        if not starting.exception() and starting.result().started:
            await finish_despite_cancellation(_in_thread(server.stop, data_dir))
        raise


async def stop(data_dir: str | os.PathLike[str]) -> bool:
    """Stop the server of a directory: close its connections, and write everything to disk.

    A cancelled stop is finished, then the cancellation is raised.

    Returns:
        True if a server was stopped, False if none was running or the directory does not exist.

    Raises:
        EmbeddedServerError: The directory was not created by `start`, or the server belongs to
            another user or did not stop within 60 s.
    """
    return await finish_despite_cancellation(_in_thread(server.stop, data_dir))


async def status(data_dir: str | os.PathLike[str]) -> EmbeddedPostgres | None:
    """Return the running server of a directory.

    Returns:
        The server, with `started` False, or None if none is running.

    Raises:
        EmbeddedServerError: A server runs and does not answer, or no wheel is installed.

    Cost:
        One connection attempt.
    """
    return await finish_despite_cancellation(_in_thread(server.status, data_dir))


@contextlib.asynccontextmanager
async def running(
    data_dir: str | os.PathLike[str],
    *,
    options: Mapping[str, str] = {},
) -> AsyncIterator[EmbeddedPostgres]:
    """Run the server of a directory inside the block, and stop it afterwards if started here.

    The stop also happens on an exception, on Ctrl-C under `asyncio.run`, and on cancellation, even
    a repeated one. While the block runs in the main thread, SIGTERM acts as Ctrl-C unless the
    program handles it.

    Args:
        data_dir: See `start`.
        options: See `start`.

    Yields:
        The server, as `start` returns it.

    Raises:
        EmbeddedServerError: See `start` and `stop`.
        InvalidInput: See `start`.
    """
    with _sigterm_as_interrupt():
        started = await start(data_dir, options=options)
        if not started.started:
            yield started
            return
        # A second Ctrl-C may interrupt the `finally` block.
        stop_at_exit = _stop_at_exit(Directory(started.data_dir))
        atexit.register(stop_at_exit)
        try:
            yield started
        finally:
            await stop(started.data_dir)
            atexit.unregister(stop_at_exit)


def _check_options(options: Mapping[str, str]) -> None:
    for name in options:
        if not re.fullmatch(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?", name):
            raise InvalidInput(f"options.{name}", "must be a name of lower-case letters and _")
        if name in RESERVED_OPTIONS:
            raise InvalidInput(f"options.{name}", "is reserved")


def _in_thread(
    work: Callable[Concatenate[Directory, P], T],
    data_dir: str | os.PathLike[str],
    *args: P.args,
    **kwargs: P.kwargs,
) -> asyncio.Future[T]:
    """Start the work on the directory in a thread."""

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


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM run the `finally` blocks of the program, unless SIGTERM has a handler."""
    is_default = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if is_default:
        signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        if is_default and signal.getsignal(signal.SIGTERM) is interrupt:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def interrupt(_signum: int, frame: FrameType | None) -> None:
    """Handle a signal as Ctrl-C."""
    # Raising SIGINT is not enough: background jobs of a shell ignore it.
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        handler = signal.default_int_handler
    handler(signal.SIGINT, frame)


def _stop_at_exit(directory: Directory) -> Callable[[], None]:
    """Return a function that stops this server, but no later one, when this process exits."""
    process, pid = server.find(directory), os.getpid()

    def stop_now() -> None:
        if os.getpid() == pid and server.find(directory) == process:
            server.shut_down(directory)

    return stop_now
