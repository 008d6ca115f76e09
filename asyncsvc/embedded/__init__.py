"""PostgreSQL from a wheel, run on the spot: for development, tests and small installations.

The caller names a directory, which holds the data and everything else that the server needs. The
server listens on 127.0.0.1 only, asks for a password, and outlives the program unless it is told
to stop.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import re
import threading
from collections.abc import AsyncIterator, Mapping

from asyncsvc.embedded import _steps
from asyncsvc.embedded._directory import Directory
from asyncsvc.embedded._interruption import (
    in_thread,
    last_chance,
    outlast,
    terminated_like_interrupted,
)
from asyncsvc.embedded._launch import OWN_OPTIONS
from asyncsvc.embedded._steps import EmbeddedPostgres
from asyncsvc.errors import InvalidInput

__all__ = ["EmbeddedPostgres", "running", "start", "status", "stop"]


async def start(
    data_dir: str | os.PathLike[str],
    *,
    options: Mapping[str, str] = {},
) -> EmbeddedPostgres:
    """Start the server of a directory, or find the one that runs there.

    The first start creates the directory and the cluster (about a second); a later one takes a
    fraction of that, and nothing but a look when the server runs. The server keeps running when
    the process ends: `stop` ends it. A start that is cancelled leaves no server behind.

    Args:
        data_dir: A directory that is empty, does not exist yet, or was made by this function.
        options: Server settings, such as `{"fsync": "off"}`. A server that runs keeps its own.

    Returns:
        The server, ready for connections.

    Raises:
        EmbeddedServerError: No wheel is installed; the directory is something else's, or of another
            major version; the server does not start or answer. The message says what to do.
        InvalidInput: An option's name is malformed, or the option is this module's own.
    """
    _refuse_options(options)
    gave_up = threading.Event()
    starting = in_thread(_steps.start, data_dir, dict(options), gave_up)
    try:
        return await outlast(starting, gave_up)
    except asyncio.CancelledError:
        # The thread saw to it, except where it had finished at the very moment of the cancellation.
        if not starting.exception() and starting.result().started:
            await outlast(in_thread(_steps.stop, data_dir))
        raise


def _refuse_options(options: Mapping[str, str]) -> None:
    for name in options:
        if not re.fullmatch(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?", name):
            raise InvalidInput(f"options.{name}", "a setting's name is lower-case letters and _")
        if name in OWN_OPTIONS:
            raise InvalidInput(f"options.{name}", "this one is chosen by the module")


async def stop(data_dir: str | os.PathLike[str]) -> bool:
    """Stop the server of a directory cleanly: connections are closed, everything is on the disk.

    A stop that is cancelled is finished all the same, and the cancellation raised afterwards.

    Returns:
        True when a server was stopped, False when none ran.

    Raises:
        EmbeddedServerError: The server did not stop within a minute, or belongs to another user.
    """
    return await outlast(in_thread(_steps.stop, data_dir))


async def status(data_dir: str | os.PathLike[str]) -> EmbeddedPostgres | None:
    """Look whether the server of a directory runs and answers.

    Returns:
        The server, with `started` false, or None when none runs. Costs one connection attempt.

    Raises:
        EmbeddedServerError: A server runs and does not answer, or no wheel is installed.
    """
    return await outlast(in_thread(_steps.status, data_dir))


@contextlib.asynccontextmanager
async def running(
    data_dir: str | os.PathLike[str],
    *,
    options: Mapping[str, str] = {},
) -> AsyncIterator[EmbeddedPostgres]:
    """Have the server of a directory running inside the block; stop it afterwards if started here.

    The stop also happens on an exception, on Ctrl-C under `asyncio.run`, and on cancellation, even
    a repeated one. SIGTERM does what Ctrl-C does while the block runs in the main thread, unless
    the program handles it itself.

    Yields:
        The server, as from `start`.

    Raises:
        EmbeddedServerError: As `start` and `stop`.
        InvalidInput: As `start`.
    """
    with terminated_like_interrupted():
        server = await start(data_dir, options=options)
        if not server.started:
            yield server
            return
        # A second Ctrl-C is raised anywhere, also where it keeps the `finally` from its work.
        net = last_chance(Directory(server.data_dir))
        atexit.register(net)
        try:
            yield server
        finally:
            await stop(server.data_dir)
            atexit.unregister(net)
