"""How a command runs and ends: one event loop, one line for an error, one exit code."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path

import typer

from asyncsvc.cli.drawing import plain
from asyncsvc.errors import AsyncSvcError


class CommandError(Exception):
    """A command cannot do what it was asked for; the text is one line that says why."""


def run(work: Coroutine[None, None, None]) -> None:
    """Run a command to its end, and turn what ends it early into an exit code.

    Ctrl-C, SIGTERM and a terminal that goes away all cancel it, so that it can clean up.

    Raises typer.Exit: 1 after an error, which is then on stderr; 128 and the signal's number.
    """
    signals: list[int] = []
    try:
        asyncio.run(_cancelled_by_signals(work, signals))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(128 + next(iter(signals), signal.SIGINT)) from None
    except (AsyncSvcError, CommandError, OSError) as error:
        typer.echo(f"asyncsvc: {_one_line(error)}", err=True)
        raise typer.Exit(1) from None


def this_command() -> str:
    """Return what starts this program again, for a shell."""
    script = Path(sys.argv[0])
    if script.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m asyncsvc.cli"
    found = shutil.which(script.name)
    if found and Path(found).resolve() == script.resolve():
        return script.name
    return shlex.quote(str(script.absolute()))


async def _cancelled_by_signals(work: Coroutine[None, None, None], signals: list[int]) -> None:
    task = asyncio.current_task()

    def cancel(number: int) -> None:
        signals.append(number)
        if task is not None:
            task.cancel()

    if sys.platform != "win32":
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP: so be it
                loop.add_signal_handler(number, cancel, number)
    await work


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = str(error) or type(error).__name__
    return plain(" ".join(text.split()))
