"""Run a program to its end.

It gets a session of its own, out of reach of the terminal's Ctrl-C, and the caller's environment
less the settings for PostgreSQL, which are meant for another server.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from asyncsvc.errors import EmbeddedServerError


def run(
    command: Sequence[str],
    *,
    seconds: float = 60,
    environment: Mapping[str, str] = {},
    user: tuple[int, int] | None = None,
    inherit: tuple[int, ...] = (),
    output: IO[str] | int = subprocess.PIPE,
) -> tuple[int, str]:
    """Return the exit code and what was said, unless that went to `output`.

    `user` is a user and a group to become, `inherit` are open files to hand on.
    """
    process = subprocess.Popen(  # noqa: S603 - our own programs, and no shell
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd="/",
        env={**_inherited(), **environment},
        user=user[0] if user else None,
        group=user[1] if user else None,
        extra_groups=() if user else None,
        pass_fds=inherit,
        start_new_session=True,
        text=True,
        errors="replace",
    )
    with process:
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise EmbeddedServerError(
                f"{Path(command[0]).name} did not end within {seconds} s: the machine may be"
                " overloaded or its disk stuck; try again"
            ) from None
    return process.returncode, said or ""


def _inherited() -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if name[:2] != "PG"}
    return {**ours, "LC_ALL": "C"}
