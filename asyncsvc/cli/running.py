"""How a command runs and ends: one event loop, one line for an error, one exit code."""

from __future__ import annotations

import asyncio
import enum
import logging
import os
import shlex
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

import typer
from pydantic import ValidationError

from asyncsvc.cli.drawing import plain
from asyncsvc.client import AsyncSvc, connect
from asyncsvc.database import is_connection_lost
from asyncsvc.errors import AsyncSvcError, InvalidInput
from asyncsvc.settings import Settings
from asyncsvc.validation.inputs import invalid_input


class Exit(enum.IntEnum):
    """What the exit code of a command means; 128 and more is the number of a signal."""

    DONE = 0
    FAILED = 1
    """It could not be done; one line on stderr says why."""
    MISUSED = 2
    """The command line itself is wrong."""
    ATTENTION = 3
    """It was done, and found what somebody has to look at."""


_ENDING: Final = [signal.SIGINT, signal.SIGTERM]
if sys.platform != "win32":
    _ENDING.append(signal.SIGHUP)


class CommandError(Exception):
    """A command cannot do what it was asked for; the text is one line that says why."""

    def __init__(self, reason: str, code: Exit = Exit.FAILED) -> None:
        """Keep the exit code beside the reason."""
        super().__init__(reason)
        self.code = code


class Interrupted(KeyboardInterrupt):
    """A signal came while the event loop could not look at it."""

    def __init__(self, number: int) -> None:
        """Keep the signal's number."""
        super().__init__()
        self.number = number


_settings: ContextVar[Settings] = ContextVar("settings")


def run(work: Coroutine[None, None, Exit | None]) -> None:
    """Run a command to its end, and leave with its exit code; None is DONE.

    Ctrl-C, SIGTERM and a terminal that goes away all cancel it, so that it can clean up.

    Raises typer.Exit: FAILED after an error, which is then on stderr; 128 and the signal's number.
    """
    signals: list[int] = []
    # What they log, of lost connections mostly, the command's one line says better.
    for library in ("asyncpg", "asyncsvc"):
        logging.getLogger(library).addHandler(logging.NullHandler())
    try:
        code = asyncio.run(_cancelled_by_signals(work, signals))
    except Interrupted as error:
        _close_stdout()  # which may be what could not be written to
        raise typer.Exit(128 + error.number) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(128 + next(iter(signals), signal.SIGINT)) from None
    except BrokenPipeError:  # who read the output has had enough, as `head` has
        _close_stdout()
        raise typer.Exit(128 + signal.SIGPIPE) from None
    except (AsyncSvcError, CommandError, OSError) as error:
        typer.echo(f"asyncsvc: {_one_line(error)}", err=True)
        raise typer.Exit(getattr(error, "code", Exit.FAILED)) from None
    raise typer.Exit(code or Exit.DONE)


def use_settings(file: Path) -> None:
    """Read the settings that an application runs with, for the command that follows.

    Raises CommandError for a file that cannot be read, or holds none.
    """
    try:
        _settings.set(Settings.model_validate_json(file.read_bytes()))
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}", Exit.MISUSED) from None
    except (InvalidInput, ValidationError) as error:
        found = error if isinstance(error, InvalidInput) else invalid_input(error)
        raise CommandError(f"{file}: {found}", Exit.MISUSED) from None


@asynccontextmanager
async def connected(
    dsn: str | None, *, max_size: int = 4, foreign_tokens: bool = False
) -> AsyncIterator[AsyncSvc]:
    """Lend the services on the database that the command was given.

    `foreign_tokens` accepts them whatever the settings say: the command is about one.
    """
    if not dsn:
        raise CommandError("no database: pass --dsn, or set ASYNCSVC_DSN", Exit.MISUSED)
    settings = _settings.get(Settings())
    if foreign_tokens:
        settings = settings.model_copy(update={"accept_foreign_tokens": True})
    async with connect(dsn, max_size=max_size, settings=settings) as svc:
        yield svc


def confirmed(question: str) -> bool:
    """Ask a person. Raises CommandError where there is none to ask."""
    if not sys.stdin.isatty():
        raise CommandError("nothing is done without --yes where nobody can be asked", Exit.MISUSED)
    try:
        with interruptible():
            return typer.confirm(plain(question), err=True)
    except typer.Abort:
        raise KeyboardInterrupt from None


@contextmanager
def interruptible() -> Iterator[None]:
    """Let a signal end what waits in here: the event loop would wait for it, and then look."""

    def end(number: int, _: object) -> None:
        raise Interrupted(number)

    before = {number: signal.getsignal(number) for number in _ENDING}
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


def this_command() -> str:
    """Return what starts this program again, for a shell."""
    script = Path(sys.argv[0])
    if script.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m asyncsvc.cli"
    found = shutil.which(script.name)
    if found and Path(found).resolve() == script.resolve():
        return script.name
    return shlex.quote(str(script.absolute()))


async def _cancelled_by_signals(
    work: Coroutine[None, None, Exit | None], signals: list[int]
) -> Exit | None:
    task, loop = asyncio.current_task(), asyncio.get_running_loop()

    def cancel(number: int) -> None:
        signals.append(number)
        if task is not None:
            task.cancel()

    def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # asyncpg leaves a future behind for a connection whose opening was cancelled, and for a
        # COPY that it could not begin.
        if not is_connection_lost(context.get("exception")):
            loop.default_exception_handler(context)

    loop.set_exception_handler(report)
    if sys.platform != "win32":
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP: so be it
                loop.add_signal_handler(number, cancel, number)
    return await work


def _close_stdout() -> None:
    """Let nothing be written any more: at exit the rest of the buffer would fail once again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = str(error) or type(error).__name__
    return plain(" ".join(text.split()))
