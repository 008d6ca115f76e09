"""The server that runs: find it, wait for its answer, shut it down.

`postmaster.pid` says whether it runs, and the process of that number is believed only when it works
in the cluster: after a crash the number may be anybody's.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from asyncsvc.embedded._directory import POLL_SECONDS, Directory
from asyncsvc.embedded._programs import Programs
from asyncsvc.errors import EmbeddedServerError

SILENT_SECONDS = 5.0
RECOVERY_SECONDS = 60
STOP_SECONDS = 60

_STARTING = 1  # pg_isready: "the server is alive but rejecting connections (during startup)"


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs; its port is 0 while it has not written it down."""

    pid: int
    port: int


def find(directory: Directory) -> Server | None:
    """The server that runs on the cluster."""
    try:
        lines = directory.pid_file.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return None
    pid, port = _number(lines[:1]), _number(lines[3:4])
    return Server(pid, port) if pid and _works_in(directory.cluster, pid) else None


def _number(line: list[str]) -> int:
    text = "".join(line)
    return int(text) if text.isdecimal() else 0


def _works_in(cluster: Path, pid: int) -> bool:
    """Whether the process is a server of this cluster: its working directory tells."""
    try:
        return Path(f"/proc/{pid}/cwd").samefile(cluster)
    except (FileNotFoundError, ProcessLookupError):
        return not Path("/proc/self").exists() and is_alive(pid)
    except PermissionError:
        return is_alive(pid)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, of ours."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def answering(directory: Directory, programs: Programs) -> Server | None:
    """The server that runs, as soon as it answers; None when none runs."""
    began = time.monotonic()
    while server := find(directory):
        code = _ask(server, programs) if server.port else None
        if code == 0:
            return server
        patience = RECOVERY_SECONDS if code == _STARTING else SILENT_SECONDS
        if time.monotonic() - began > patience:
            reason = "it may be recovering; " if code == _STARTING else ""
            raise EmbeddedServerError(
                f"the server of {directory.path} runs (process {server.pid}) but does not answer"
                f" on port {server.port}: {reason}try again later, or stop that process. Its log"
                f" ends: {directory.log_tail()}"
            )
        time.sleep(POLL_SECONDS)
    return None


def _ask(server: Server, programs: Programs) -> int:
    address = ("--host=127.0.0.1", f"--port={server.port}", "--dbname=postgres")
    return programs.run("pg_isready", *address, "--username=postgres", "--timeout=1")[0]


def shut_down(directory: Directory) -> bool:
    """Do what `pg_ctl stop -m fast` does: SIGINT to the server, and wait."""
    server = find(directory)
    if not server:
        return False
    os.kill(server.pid, signal.SIGINT)
    deadline = time.monotonic() + STOP_SECONDS
    while _works_in(directory.cluster, server.pid):
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"the server of {directory.path} (process {server.pid}) was told to stop and still"
                f" runs after {STOP_SECONDS} s: wait, or look what keeps it. Its log ends:"
                f" {directory.log_tail()}"
            )
        time.sleep(POLL_SECONDS)
    return True
