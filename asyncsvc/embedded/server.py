"""Initialise a cluster, and start, find and stop its server. All functions block.

`initdb` works in `pgdata.new`, which gets its final name when it is complete and on disk. So a
process that dies half-way never leaves an incomplete cluster in `pgdata`. `initdb` inherits the
lock, so a start waits even for an orphaned `initdb`.

The server has its own session and outlives the process that started it. It listens on 127.0.0.1,
on the same port at each start unless another program has taken the port. It has no unix socket, and
requires the password (scram-sha-256).

`postmaster.pid` contains the process id of the server. A process counts as the server only if its
working directory is the cluster: after a crash another process may have that id.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from asyncsvc.embedded.directory import (
    POLL_SECONDS,
    Directory,
    check_directory,
    last_lines,
    locked,
    raise_if_cancelled,
)
from asyncsvc.embedded.files import (
    create_file,
    move,
    open_file,
    open_folder,
    read_text,
    remove,
    replace_text,
)
from asyncsvc.embedded.programs import Programs, installed_programs, programs_for
from asyncsvc.errors import EmbeddedServerError

RESERVED_OPTIONS: Final = frozenset(
    {"listen_addresses", "port", "unix_socket_directories", "data_directory"}
)
_INITDB_SECONDS: Final = 120
_INITDB_OPTIONS: Final = (
    "--username=postgres",
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale=C.UTF-8",
    "--data-checksums",
    "--no-instructions",
)
_START_SECONDS: Final = 60
_RETRY_SECONDS: Final = 10
_RETRY_PAUSE: Final = 0.2
_SILENT_SECONDS: Final = 5.0
_RECOVERY_SECONDS: Final = 60
_STOP_SECONDS: Final = 60
_NO_SUCH_PROCESS: Final = 2**31 - 1
_STARTING: Final = 1
"""The exit code of pg_isready while a starting server rejects connections."""


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """A running server.

    Attributes:
        data_dir: The caller's directory, as an absolute path without symbolic links.
        dsn: `postgresql://postgres:PASSWORD@127.0.0.1:PORT/postgres`; not part of the repr.
        port: The port on 127.0.0.1.
        version: The version of PostgreSQL, such as `18.6`.
        started: Whether this call started the server; False if it was running.
    """

    data_dir: Path
    dsn: str = field(repr=False)
    port: int
    version: str
    started: bool


@dataclass(frozen=True, slots=True)
class Process:
    """The process of a running server. The port is 0 until the server has written it."""

    pid: int
    port: int


def start(
    directory: Directory, options: Mapping[str, str], cancelled: threading.Event
) -> EmbeddedPostgres:
    """Start the server, or find the running one."""
    wheels = installed_programs()
    check_directory(directory)
    directory.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(directory, cancelled) as lock:
        check_directory(directory)
        if process := _await_answer(directory, wheels[0]):
            return describe(directory, process.port, started=False)
        programs = programs_for(directory, wheels)
        if not directory.cluster.exists():
            _initialise(directory, programs, lock)
        port = _launch(directory, programs, options)
        if cancelled.is_set():
            shut_down(directory)
        raise_if_cancelled(directory, cancelled)
        return describe(directory, port, started=True)


def stop(directory: Directory) -> bool:
    """Stop the server, and return whether one was running."""
    if not directory.path.exists():
        return False
    if not directory.password.exists():
        raise EmbeddedServerError(f"{directory.path} is not the directory of an embedded server")
    with locked(directory):
        return shut_down(directory)


def status(directory: Directory) -> EmbeddedPostgres | None:
    """Return the running server, or None. Raises EmbeddedServerError if it does not answer."""
    if not directory.password.exists():
        return None
    process = _await_answer(directory, installed_programs()[0])
    return describe(directory, process.port, started=False) if process else None


def describe(directory: Directory, port: int, *, started: bool) -> EmbeddedPostgres:
    """Return the server that listens on the port."""
    password = read_text(directory.password).strip()
    return EmbeddedPostgres(
        data_dir=directory.path,
        dsn=f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres",
        port=port,
        version=_last_start(directory)[1],
        started=started,
    )


def find(directory: Directory) -> Process | None:
    """Return the process of the running server, or None."""
    try:
        lines = read_text(directory.pid_file).splitlines()
    except FileNotFoundError:
        return None
    pid, port = _number(lines[:1]), _number(lines[3:4])
    return Process(pid, port) if pid and _works_in(directory.cluster, pid) else None


def _number(line: list[str]) -> int:
    text = "".join(line)
    return int(text) if text.isdecimal() else 0


def _works_in(cluster: Path, pid: int) -> bool:
    """Return whether the working directory of the process is the cluster."""
    try:
        return Path(f"/proc/{pid}/cwd").samefile(cluster)
    except (FileNotFoundError, ProcessLookupError):
        return not Path("/proc/self").exists() and _is_alive(pid)
    except PermissionError:
        return _is_alive(pid)


def _is_alive(pid: int) -> bool:
    """Return whether a process of this account has the id."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _await_answer(directory: Directory, programs: Programs) -> Process | None:
    """Return the running server as soon as it answers, or None if none runs."""
    began = time.monotonic()
    while process := find(directory):
        code = _ask(process, programs) if process.port else None
        if code == 0:
            return process
        patience = _RECOVERY_SECONDS if code == _STARTING else _SILENT_SECONDS
        if time.monotonic() - began > patience:
            reason = "it may be recovering; " if code == _STARTING else ""
            raise EmbeddedServerError(
                f"the server of {directory.path} runs (process {process.pid}) but does not answer"
                f" on port {process.port}: {reason}try again later, or stop that process. Its log"
                f" ends: {directory.log_tail()}"
            )
        time.sleep(POLL_SECONDS)
    return None


def _ask(process: Process, programs: Programs) -> int:
    address = ("--host=127.0.0.1", f"--port={process.port}", "--dbname=postgres")
    return programs.run("pg_isready", *address, "--username=postgres", "--timeout=1")[0]


def shut_down(directory: Directory) -> bool:
    """Stop the server as `pg_ctl stop -m fast` does, and return whether one was running."""
    process = find(directory)
    if not process:
        return False
    os.kill(process.pid, signal.SIGINT)
    deadline = time.monotonic() + _STOP_SECONDS
    while _works_in(directory.cluster, process.pid):
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"the server of {directory.path} (process {process.pid}) was asked to stop and"
                f" still runs after {_STOP_SECONDS} s: wait, or find out why. Its log"
                f" ends: {directory.log_tail()}"
            )
        time.sleep(POLL_SECONDS)
    return True


def _initialise(directory: Directory, programs: Programs, lock: int) -> None:
    """Create the cluster, with a new password."""
    unfinished = directory.path / "pgdata.new"
    password = directory.path / "password.new"
    with open_folder(directory.path) as folder:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(unfinished.name, dir_fd=folder)
        remove(password)
        os.mkdir(unfinished.name, 0o700, dir_fd=folder)
        _write_password(password)
        if user := programs.account.user:
            for name in (unfinished.name, password.name):
                os.chown(name, *user, dir_fd=folder, follow_symlinks=False)
    code, output = programs.run(
        "initdb",
        *_INITDB_OPTIONS,
        f"--pwfile={password}",
        cluster=unfinished,
        inherit=(lock,),
        seconds=_INITDB_SECONDS,
    )
    if code:
        raise EmbeddedServerError(
            f"initdb could not create {directory.cluster}. Its output ends: {last_lines(output)}"
        )
    move(password, unfinished / directory.password.name)
    _sync(unfinished)
    move(unfinished, directory.cluster)
    _sync(directory.path)


def _write_password(path: Path) -> None:
    with create_file(path) as file:
        file.write(f"{secrets.token_urlsafe(32)}\n")
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    with open_folder(folder) as handle:
        os.fsync(handle)


def _launch(directory: Directory, programs: Programs, options: Mapping[str, str]) -> int:
    """Start the server of a cluster, which must not be running, and return its port."""
    _replace_reused_pid(directory)
    # The children of a killed server may keep its shared memory for a moment.
    was_killed = directory.pid_file.exists()
    deadline = time.monotonic() + _RETRY_SECONDS
    with _new_log(directory) as log:
        while True:
            port = free_port(_last_start(directory)[0])
            replace_text(directory.last_start, f"{port} {programs.version}\n")
            if _pg_ctl_start(directory, programs, {**options, **_reserved_options(port)}, log):
                return port
            _raise_if_starting(directory)
            may_retry = was_killed or not _is_free(port)
            if not may_retry or time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"the server of {directory.path} did not start; {directory.log} ends:"
                    f" {directory.log_tail()}"
                )
            time.sleep(_RETRY_PAUSE)


def _last_start(directory: Directory) -> tuple[int, str]:
    """Return the port and version of the last start, or 0 and "" before the first one."""
    try:
        text = read_text(directory.last_start)
    except FileNotFoundError:
        text = ""
    port, _, version = text.strip().partition(" ")
    return (int(port) if port.isdecimal() else 0), version


def _replace_reused_pid(directory: Directory) -> None:
    """Replace the id of a killed server if another process has this id now.

    PostgreSQL would mistake that process for the server. The file gets an id that no process can
    have. It is not deleted, because PostgreSQL also needs it to find the children of the killed
    server.
    """
    path = directory.pid_file
    try:
        pid, newline, rest = read_text(path).partition("\n")
    except FileNotFoundError:
        return
    if pid.isdecimal() and _is_alive(int(pid)):
        with os.fdopen(open_file(path, os.O_WRONLY), "w", errors="surrogateescape") as file:
            file.truncate()
            file.write(f"{_NO_SUCH_PROCESS}{newline}{rest}")


def _new_log(directory: Directory) -> IO[str]:
    with contextlib.suppress(FileNotFoundError):
        move(directory.log, directory.log.with_suffix(".log.1"))
    return create_file(directory.log, give=True)


def _reserved_options(port: int) -> dict[str, str]:
    return {"listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": ""}


def _pg_ctl_start(
    directory: Directory, programs: Programs, options: Mapping[str, str], log: IO[str]
) -> bool:
    # pg_ctl puts the names of directory and log into a shell command without quotes, so they travel
    # as PGDATA and as the output. It passes the options on unchanged, so they are quoted here.
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


def _raise_if_starting(directory: Directory) -> None:
    if process := find(directory):
        raise EmbeddedServerError(
            f"the server of {directory.path} (process {process.pid}) is starting and not ready;"
            " recovery of a large database takes long: call again to continue to wait."
            f" Its log ends: {directory.log_tail()}"
        )


def free_port(preferred: int) -> int:
    """Return the preferred port if it is free, else any free port."""
    if preferred and _is_free(preferred):
        return preferred
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As PostgreSQL does: connections of the last run in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
