"""Run commands: one event loop, one line for an error, one exit code."""

from __future__ import annotations

import asyncio
import enum
import functools
import inspect
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
from typing import Any, Final, Protocol

import typer

from asyncsvc import AsyncSvc, AsyncSvcError, InvalidInput, MigrationError, Settings, connect
from asyncsvc.cli.options import SettingsFile
from asyncsvc.cli.terminal import printable, remark


class Exit(enum.IntEnum):
    """Exit codes of commands. A command that a signal ends exits with 128 plus its number."""

    DONE = 0
    FAILED = 1
    """The command failed; the line on stderr gives the reason."""
    MISUSED = 2
    """The command line is wrong; the line on stderr names the option or the argument."""
    ATTENTION = 3
    """The command is done, and its output reports something that needs attention."""


_SIGNALS: Final = [signal.SIGINT, signal.SIGTERM]
if sys.platform != "win32":
    _SIGNALS.append(signal.SIGHUP)


class CommandError(Exception):
    """A command failed. The text gives the reason in one line."""


class Interrupted(KeyboardInterrupt):
    """A signal interrupted the main thread while it was blocked outside the event loop."""

    def __init__(self, number: int) -> None:
        """Store the number of the signal."""
        super().__init__()
        self.number = number


_settings: ContextVar[Settings] = ContextVar("settings")


class _Param(Protocol):
    """An option or an argument of typer."""

    param_type_name: str
    opts: list[str]
    metavar: str | None


def run_app(app: typer.Typer) -> int:
    """Run the command that the command line names, print its error, and return the exit code."""
    try:
        code = app(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except typer.TyperException as error:
        _print_error(_describe_misuse(error))
        if (context := getattr(error, "ctx", None)) is not None:
            typer.echo(f"Try '{context.command_path} --help'.", err=True)
        return error.exit_code
    except BrokenPipeError:  # the reader closed the pipe, for example `head`
        _discard_stdout()
        return 128 + signal.SIGPIPE
    except (AsyncSvcError, CommandError, OSError) as error:
        _print_error(_describe_failure(error))
        return Exit.FAILED
    return code or Exit.DONE


def asynchronous(command: Callable[..., Coroutine[None, None, Exit | None]]) -> Callable[..., int]:
    """Turn a coroutine function into a typer command.

    Typer reads the options from the signature of the coroutine function. A command with the option
    `--dsn` also gets the option `--settings`. If an `InvalidInput` names a parameter of the
    function, the error is reported as wrong use of the option.
    """
    signature = inspect.signature(command, eval_str=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    more = [inspect.Parameter("context", keyword, annotation=typer.Context)]
    if "dsn" in signature.parameters:
        more.append(inspect.Parameter("settings", keyword, annotation=SettingsFile, default=None))

    @functools.wraps(command)
    def run_command(
        *, context: typer.Context, settings: Settings | None = None, **options: object
    ) -> int:
        source = context.get_parameter_source("settings")
        if source is not None and source.name == "ENVIRONMENT" and context.obj is not None:
            settings = context.obj  # the option before the command takes precedence
        previous = _settings.set(settings or context.obj or Settings())
        try:
            return run(command(**options))
        except InvalidInput as error:
            field = error.field.partition(".")[0]
            names = {param.name: _typed_name(param) for param in context.command.params}
            if field not in names:
                raise
            raise typer.BadParameter(error.reason, context, param_hint=names[field]) from None
        finally:
            _settings.reset(previous)

    parameters = [*signature.parameters.values(), *more]
    run_command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run_command


def run(work: Coroutine[None, None, Exit | None]) -> int:
    """Run a command to its end and return its exit code; None means DONE.

    SIGINT, SIGTERM and SIGHUP cancel the command, so that it can clean up. The exit code is then
    128 plus the number of the signal.
    """
    signals: list[int] = []
    # The command reports a lost connection itself, so the libraries need not log it too.
    for library in ("asyncpg", "asyncsvc"):
        logging.getLogger(library).addHandler(logging.NullHandler())
    try:
        return asyncio.run(_cancelled_by_signals(work, signals)) or Exit.DONE
    except BrokenPipeError:  # the reader closed the pipe, for example `head`
        _discard_stdout()
        return 128 + signal.SIGPIPE
    except Interrupted as error:
        _discard_stdout()  # a blocked write may have been interrupted
        return 128 + error.number
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 128 + next(iter(signals), signal.SIGINT)


def command_settings() -> Settings:
    """Return the settings of the option `--settings`."""
    return _settings.get(Settings())


@asynccontextmanager
async def connected(
    dsn: str, *, max_size: int = 1, foreign_tokens: bool = False
) -> AsyncIterator[AsyncSvc]:
    """Open the services on the database of the option `--dsn`, with a pool of `max_size`.

    Nothing runs in the background. `foreign_tokens` accepts foreign tokens, even if the settings do
    not.
    """
    settings = command_settings().model_copy(update={"maintenance_interval": None})
    if foreign_tokens:
        settings = settings.model_copy(update={"accept_foreign_tokens": True})
    async with connect(dsn, max_size=max_size, settings=settings) as svc:
        yield svc


def confirm(question: str) -> bool:
    """Ask a yes-or-no question, and return the answer. Raises InvalidInput without a terminal."""
    if not sys.stdin.isatty():
        raise InvalidInput("yes", "is required, because standard input is not a terminal")
    with interruptible():
        is_confirmed = typer.confirm(printable(question), err=True)
    if not is_confirmed:
        remark("nothing was changed")
    return is_confirmed


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
    # asyncpg abandons a future when connecting is cancelled or a COPY cannot start.
    error = context.get("exception")
    is_connection_lost = str(getattr(error, "sqlstate", None)).startswith("08")
    if not is_connection_lost and not isinstance(error, ConnectionError):
        loop.default_exception_handler(context)


def _discard_stdout() -> None:
    """Discard further output: flushing the rest of the buffer at exit would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _describe_misuse(error: typer.TyperException) -> str:
    """Return the name of the wrong option or argument, and the reason."""
    if not isinstance(error, typer.BadParameter):
        return error.format_message() or "a command is required"  # empty: it printed the help
    name = error.param_hint or (_typed_name(error.param) if error.param else "?")
    if error.message:
        reason = error.message.removeprefix("Value error, ").replace("Input should", "must")
        return f"{name}: {reason}"
    variable = getattr(error.param, "envvar", None)
    return f"{name}: is required" + (f", or {variable} in the environment" if variable else "")


def _typed_name(param: _Param) -> str:
    """Return the name of an option or an argument on the command line."""
    return str(param.metavar if param.param_type_name == "argument" else param.opts[0])


def _describe_failure(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = str(error) or type(error).__name__
    if isinstance(error, MigrationError):
        return text.replace("await svc.migrate()", "asyncsvc migrate")
    return text


def _print_error(text: str) -> None:
    typer.echo(f"asyncsvc: {printable(text)}", err=True)
