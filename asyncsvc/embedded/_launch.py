"""Launch the server.

It is a session of its own that outlives the process which started it; it listens on 127.0.0.1, on
the same port each time unless another program has taken it, has no unix socket, and asks for the
password (scram-sha-256).
"""

from __future__ import annotations

import os
import shlex
import socket
import time
from collections.abc import Mapping
from typing import IO

from asyncsvc.embedded._directory import Directory, create_file
from asyncsvc.embedded._programs import Programs
from asyncsvc.embedded._server import find, is_alive
from asyncsvc.errors import EmbeddedServerError

OWN_OPTIONS = frozenset({"listen_addresses", "port", "unix_socket_directories", "data_directory"})

_START_SECONDS = 60
_RETRY_SECONDS = 10
_PAUSE_SECONDS = 0.2
_NO_SUCH_PROCESS = 2**31 - 1


def launch(directory: Directory, programs: Programs, options: Mapping[str, str]) -> int:
    """Start the server of the cluster, which nobody serves, and return its port."""
    _disown_reused_number(directory)
    # The children of a server that was killed can hold its shared memory for a moment longer.
    leftover = directory.pid_file.exists()
    deadline = time.monotonic() + _RETRY_SECONDS
    with _new_log(directory) as log:
        while True:
            port = free_port(last_start(directory)[0])
            directory.last_start.write_text(f"{port} {programs.version}\n", encoding="ascii")
            if _pg_ctl_start(directory, programs, {**options, **_own_options(port)}, log):
                return port
            _refuse_unready(directory)
            again = leftover or not _is_free(port)
            if not again or time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"the server of {directory.path} did not start; {directory.log} ends:"
                    f" {directory.log_tail()}"
                )
            time.sleep(_PAUSE_SECONDS)


def last_start(directory: Directory) -> tuple[int, str]:
    """The port and version of the last start; 0 and nothing before the first."""
    try:
        text = directory.last_start.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        text = ""
    port, _, version = text.strip().partition(" ")
    return (int(port) if port.isdecimal() else 0), version


def _disown_reused_number(directory: Directory) -> None:
    """Let a start go on though the number of a killed server is now some other process's.

    PostgreSQL would take that process for the server. The file stays, with a number that no process
    can have, because it also leads PostgreSQL to children which the killed server left behind.
    """
    path = directory.pid_file
    if not path.exists():
        return
    pid, newline, rest = path.read_text(errors="surrogateescape").partition("\n")
    if pid.isdecimal() and is_alive(int(pid)):
        handle = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
        with os.fdopen(handle, "w", errors="surrogateescape") as file:
            file.write(f"{_NO_SUCH_PROCESS}{newline}{rest}")


def _new_log(directory: Directory) -> IO[str]:
    if directory.log.exists():
        directory.log.replace(directory.log.with_suffix(".log.1"))
    return create_file(directory.log)


def _own_options(port: int) -> dict[str, str]:
    return {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
    }


def _pg_ctl_start(
    directory: Directory, programs: Programs, options: Mapping[str, str], log: IO[str]
) -> bool:
    # pg_ctl puts the names of directory and log into a shell command without quoting them: so they
    # go by PGDATA and by the output. The options it passes on as they are: so they are quoted here.
    settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    code, _ = programs.run(
        "pg_ctl",
        *("start", "--silent", "--wait", f"--timeout={_START_SECONDS}"),
        f"--options={shlex.join(settings)}",
        cluster=directory.cluster,
        output=log,
        seconds=_START_SECONDS + 10,
    )
    return code == 0


def _refuse_unready(directory: Directory) -> None:
    if server := find(directory):
        raise EmbeddedServerError(
            f"a server starts on {directory.path} (process {server.pid}) and is not ready yet;"
            " after a crash of a large database this takes long: start it again to go on waiting."
            f" Its log ends: {directory.log_tail()}"
        )


def free_port(wanted: int) -> int:
    """The wanted port if nobody listens there, else any that is free."""
    if wanted and _is_free(wanted):
        return wanted
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As PostgreSQL does: connections of the last run that are still in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
