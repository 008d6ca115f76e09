"""Start commands as forks of a process that has imported the command line.

A new interpreter spends a second of CPU on these imports. A fork is also a separate process: it has
its own process id, streams, environment and session, receives signals, and ends with an exit code.
"""

import gc
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from multiprocessing.context import ForkServerProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from unittest import mock

import typer

from asyncsvc import cli
from asyncsvc.cli.app import app

SECONDS = 300  # the guard against a command that hangs
APP = typer.main.get_command(app)
"""The commands, built once: typer builds them again for each run."""
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["__main__", __name__])


def start_command(
    arguments: Sequence[object],
    env: Mapping[str, str],
    streams: Sequence[int],
    main: Callable[[], None] = cli.main,
) -> ForkServerProcess:
    """Start a command on these descriptors as its stdin, stdout and stderr."""
    command = [str(Path(cli.__file__).with_name("__main__.py")), *map(str, arguments)]
    duplicates = list(map(DupFd, streams))
    process = _FORKS.Process(target=_run, args=(command, dict(env), duplicates, main))
    process.start()
    return process


def wait_for_command(process: ForkServerProcess) -> int:
    """Wait until the command ends, and return its exit code."""
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"the command did not end within {SECONDS} s")
    code = process.exitcode
    process.close()
    return code


def built() -> AbstractContextManager[object]:
    """Replace the commands that typer builds by `APP` in this block."""
    return mock.patch.object(typer.main, "get_command", return_value=APP)


def _run(
    command: list[str], env: dict[str, str], streams: "list[DupFd]", main: Callable[[], None]
) -> None:
    gc.freeze()  # a collection leaves the pages of the imported modules alone
    os.setsid()
    for number, stream in enumerate(streams):
        descriptor = stream.detach()
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(env)
    if "PYTHONWARNINGS" in env:
        warnings.simplefilter(env["PYTHONWARNINGS"])
    sys.argv[:] = command
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(
        2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )
    try:
        with built():
            main()
    finally:
        gc.collect()  # as an interpreter does at its end: it reports unclosed resources
