"""Run the command line: in this process, in a fork, or in a new interpreter."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from unittest import mock

from asyncsvc.cli import main, terminal
from tests.support.forks import SECONDS, built, start_command, wait_for_command

PROGRAM = [sys.executable, "-m", "asyncsvc.cli"]


def run_command(
    arguments: Sequence[object],
    env: Mapping[str, str],
    *,
    stdin: str = "",
    program: Sequence[str] | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run a command with files as its streams: in this process, or in a fork if a loop runs here.

    With `program`, for example PROGRAM, it runs as an argument of that program, with pipes.
    """
    command = list(map(str, arguments))
    if program is not None:
        return subprocess.run(
            [*program, *command], env=env, input=stdin, capture_output=True, text=True,
            timeout=SECONDS, check=False,
        )  # fmt: skip
    if is_loop_running():
        return run_fork(command, env, stdin=stdin)
    terminal.console.cache_clear()
    terminal.messages.cache_clear()
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as input_file,
        tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as stdout,
        tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as stderr,
        mock.patch.dict(os.environ, env, clear=True),
        mock.patch.multiple(
            sys, argv=["asyncsvc", *command], stdin=input_file, stdout=stdout, stderr=stderr
        ),
        built(),
    ):
        input_file.write(stdin)
        input_file.seek(0)
        code: object = 0
        try:
            main()
        except SystemExit as exit:
            code = exit.code
        assert isinstance(code, int)
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess(command, int(code), stdout.read(), stderr.read())


def run_fork(
    arguments: Sequence[object], env: Mapping[str, str], *, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run a command in a process of its own, with files as its streams."""
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as input_file,
        tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as stdout,
        tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as stderr,
    ):
        input_file.write(stdin)
        input_file.seek(0)
        streams = [input_file.fileno(), stdout.fileno(), stderr.fileno()]
        code = wait_for_command(start_command(arguments, env, streams))
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess(arguments, code, stdout.read(), stderr.read())


def run_and_measure(
    arguments: Sequence[str],
) -> "tuple[float, subprocess.CompletedProcess[str]]":
    """Run a command in a process of its own; return its peak memory in MiB, and its result."""
    code = (
        "import resource, subprocess, sys; "
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, flush=True); "
        "sys.stdout.buffer.write(done.stdout); "
        "sys.exit(done.returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *PROGRAM, *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    peak, _, done.stdout = done.stdout.partition("\n")
    return int(peak) / 1_024, done


def is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def failed(finished: "subprocess.CompletedProcess[str]", code: int = 1) -> str:
    """Return the error line that a command printed.

    Two other lines are allowed: an interrupted import also prints how to continue, and a wrong
    option also prints where the help is.
    """
    assert finished.returncode == code, finished.stdout + finished.stderr
    lines = [line for line in finished.stderr.splitlines() if not line.startswith("stopped: ")]
    assert lines[0].startswith("asyncsvc: ")
    assert len(lines) == 1 or (code == 2 and len(lines) == 2 and lines[1].startswith("Try '"))
    return lines[0]
