"""Run commands: one event loop, one line for an error, one exit code."""

from __future__ import annotations

import asyncio
import enum
import functools
import logging
import os
import shlex
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, ParamSpec, get_type_hints

import typer
from pydantic import ValidationError
from typer.models import ArgumentInfo, OptionInfo

from asyncsvc import AsyncSvc, AsyncSvcError, InvalidInput, Settings, connect
from asyncsvc.cli.terminal import printable

P = ParamSpec("P")


class Exit(enum.IntEnum):
    """Exit codes of commands. A command that a signal ends exits with 128 plus its number."""

    DONE = 0
    FAILED = 1
    """The command failed; one line on stderr gives the reason."""
    MISUSED = 2
    """The command line is wrong."""
    ATTENTION = 3
    """The command is done and reports something that needs attention."""


_SIGNALS: Final = [signal.SIGINT, signal.SIGTERM]
if sys.platform != "win32":
    _SIGNALS.append(signal.SIGHUP)


class CommandError(Exception):
    """A command cannot do its work; the text is one line that gives the reason."""

    def __init__(self, reason: str, code: Exit = Exit.FAILED) -> None:
        """Store the exit code with the reason."""
        super().__init__(reason)
        self.code = code


class Interrupted(KeyboardInterrupt):
    """A signal arrived while the main thread was blocked outside the event loop."""

    def __init__(self, number: int) -> None:
        """Store the number of the signal."""
        super().__init__()
        self.number = number


_settings: ContextVar[Settings] = ContextVar("settings")


def asynchronous(command: Callable[P, Coroutine[None, None, Exit | None]]) -> Callable[P, None]:
    """Make a typer command of a coroutine function.

    The command runs the coroutine and exits with its code. Typer reads the options from the
    signature of the coroutine function. An `InvalidInput` names the option instead of the
    parameter and exits with 2.
    """

    async def call(*args: P.args, **kwargs: P.kwargs) -> Exit | None:
        try:
            return await command(*args, **kwargs)
        except InvalidInput as error:
            option = _option_name(command, error.field)
            raise CommandError(f"{option}: {error.reason}", Exit.MISUSED) from None

    @functools.wraps(command)
    def run_command(*args: P.args, **kwargs: P.kwargs) -> None:
        run(call(*args, **kwargs))

    return run_command


def run(work: Coroutine[None, None, Exit | None]) -> None:
    """Run a command to its end and exit with its code; None means DONE.

    SIGINT, SIGTERM and SIGHUP cancel the command, so that it can clean up.

    Raises:
        typer.Exit: Always. FAILED after an error, which is printed to stderr; 128 plus the number
            of a signal.
    """
    signals: list[int] = []
    # The command's own line describes a lost connection better than the log of these libraries.
    for library in ("asyncpg", "asyncsvc"):
        logging.getLogger(library).addHandler(logging.NullHandler())
    try:
        code = asyncio.run(_cancelled_by_signals(work, signals))
    except Interrupted as error:
        _discard_stdout()  # a blocked write may have been interrupted
        raise typer.Exit(128 + error.number) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(128 + next(iter(signals), signal.SIGINT)) from None
    except BrokenPipeError:  # the reader closed the pipe, for example `head`
        _discard_stdout()
        raise typer.Exit(128 + signal.SIGPIPE) from None
    except (AsyncSvcError, CommandError, OSError) as error:
        typer.echo(f"asyncsvc: {_one_line(error)}", err=True)
        raise typer.Exit(getattr(error, "code", Exit.FAILED)) from None
    raise typer.Exit(code or Exit.DONE)


def use_settings(file: Path) -> None:
    """Read `asyncsvc.Settings` from a JSON file, for the command that follows.

    Raises:
        CommandError: The file cannot be read or does not hold valid settings.
    """
    try:
        _settings.set(Settings.model_validate_json(file.read_bytes()))
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}", Exit.MISUSED) from None
    except InvalidInput as error:
        raise CommandError(f"{file}: {error}", Exit.MISUSED) from None
    except ValidationError as error:
        reason = error.errors(include_input=False)[0]["msg"]
        raise CommandError(f"{file}: {reason}", Exit.MISUSED) from None


@asynccontextmanager
async def connected(
    dsn: str | None, *, max_size: int = 1, foreign_tokens: bool = False
) -> AsyncIterator[AsyncSvc]:
    """Open the services on the database of the option `--dsn`, with a pool of `max_size`.

    `foreign_tokens` accepts foreign tokens, whatever the settings say.
    """
    if not dsn:
        raise CommandError("no database: pass --dsn or set ASYNCSVC_DSN", Exit.MISUSED)
    settings = _settings.get(Settings())
    if foreign_tokens:
        settings = settings.model_copy(update={"accept_foreign_tokens": True})
    async with connect(dsn, max_size=max_size, settings=settings) as svc:
        yield svc


def confirm(question: str) -> bool:
    """Ask the user a yes-or-no question. Raises CommandError if stdin is not a terminal."""
    if not sys.stdin.isatty():
        raise CommandError("pass --yes: there is no terminal to ask on", Exit.MISUSED)
    with interruptible():
        return typer.confirm(printable(question), err=True)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let a signal interrupt the blocking call or the prompt in this block.

    The handlers of the event loop run only after the call has returned.
    """

    def interrupt(number: int, _: object) -> None:
        raise Interrupted(number)

    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    handled = [number for number, handler in handlers.items() if handler is not signal.SIG_IGN]
    for number in handled:
        signal.signal(number, interrupt)
    try:
        yield
    except typer.Abort as abort:  # a prompt converts KeyboardInterrupt and end of file
        cause = abort.__context__
        raise cause if isinstance(cause, Interrupted) else KeyboardInterrupt from None
    finally:
        for number in handled:
            signal.signal(number, handlers[number])


def this_program() -> str:
    """Return the shell command that starts this program."""
    script = Path(sys.argv[0])
    if script.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m asyncsvc.cli"
    on_path = shutil.which(script.name)
    if on_path and Path(on_path).resolve() == script.resolve():
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

    loop.set_exception_handler(_log_unless_lost_connection)
    if sys.platform != "win32":
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP: keep that
                loop.add_signal_handler(number, cancel, number)
    return await work


def _log_unless_lost_connection(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # asyncpg abandons a future if opening a connection is cancelled or a COPY cannot start.
    error = context.get("exception")
    is_connection_lost = str(getattr(error, "sqlstate", None)).startswith("08")
    if not is_connection_lost and not isinstance(error, ConnectionError):
        loop.default_exception_handler(context)


def _discard_stdout() -> None:
    """Discard further output: flushing the rest of the buffer at exit would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _option_name(command: Callable[..., object], field: str) -> str:
    """Return the option or argument of a command that sets the parameter `field`."""
    name, dot, path = field.partition(".")
    hint = get_type_hints(command, include_extras=True).get(name)
    for info in getattr(hint, "__metadata__", ()):
        if isinstance(info, ArgumentInfo):
            return f"{info.metavar}{dot}{path}"
        if isinstance(info, OptionInfo):
            # In `Annotated`, typer stores the first of the option's names as its default.
            option = info.default if isinstance(info.default, str) else f"--{name}"
            return f"{option.replace('_', '-')}{dot}{path}"
    return field


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = str(error) or type(error).__name__
    return printable(" ".join(text.split()))
