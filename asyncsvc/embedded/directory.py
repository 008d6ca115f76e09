"""The data directory: its content, its owner, and the lock on it.

The directory belongs to this package and contains ::

    pgdata/             the cluster, with the password of `postgres` in asyncsvc.password (0600)
    pgdata.new/         an unfinished cluster; the next start removes it
    asyncsvc.lock       locked while a process starts or stops the server
    last_start          the port and version of the last start
    server.log          the log since the last start; server.log.1: the previous log
    binaries-*/         a copy of the programs, only if the server's account cannot read the wheel

The kernel releases the lock when the last process that holds it ends. Only one machine or container
may use a data directory at a time.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asyncsvc.embedded.files import open_file, read_text
from asyncsvc.errors import EmbeddedServerError

if sys.platform != "win32":
    import fcntl

LOCK_SECONDS: Final = 240
POLL_SECONDS: Final = 0.02
_LOG_LINES: Final = 12
_OWN_NAMES: Final = re.compile(
    r"asyncsvc\.lock|pgdata\.new|password\.new|last_start|server\.log(\.1)?|binaries-.*|lost\+found"
)


@dataclass(frozen=True, slots=True)
class Directory:
    """The caller's directory, as an absolute path without symbolic links."""

    path: Path

    @property
    def cluster(self) -> Path:
        """The data directory of PostgreSQL."""
        return self.path / "pgdata"

    @property
    def password(self) -> Path:
        """The file with the password. It also shows that this package created the cluster."""
        return self.cluster / "asyncsvc.password"

    @property
    def pid_file(self) -> Path:
        """The file in which PostgreSQL writes its process id and port."""
        return self.cluster / "postmaster.pid"

    @property
    def last_start(self) -> Path:
        """The file with the port and version of the last start."""
        return self.path / "last_start"

    @property
    def log(self) -> Path:
        """The log since the last start."""
        return self.path / "server.log"

    def log_tail(self) -> str:
        """Return the end of the log, for an error message."""
        try:
            return last_lines(read_text(self.log, errors="replace"))
        except FileNotFoundError:
            return "(there is no log)"


def last_lines(text: str) -> str:
    """Return the last lines of a program's output, for an error message."""
    return "\n".join(["", *text.strip().splitlines()[-_LOG_LINES:]])


def check_directory(directory: Directory) -> None:
    """Raise EmbeddedServerError if the directory has content that is not of this package."""
    path = directory.path
    if not path.exists():
        return
    if not path.is_dir():
        raise EmbeddedServerError(f"{path} is not a directory: choose a new or empty directory")
    if directory.cluster.exists():
        _check_cluster(directory)
        return
    names = {entry.name for entry in path.iterdir()}
    if foreign := sorted(name for name in names if not _OWN_NAMES.fullmatch(name)):
        state = "another PostgreSQL cluster" if "PG_VERSION" in names else "not empty"
        raise EmbeddedServerError(
            f"{path} is {state} (it contains {', '.join(foreign[:3])}"
            f"{', ...' if foreign[3:] else ''}): choose a new or empty directory"
        )


def _check_cluster(directory: Directory) -> None:
    cluster = directory.cluster
    if cluster.is_symlink() or not cluster.is_dir():
        raise EmbeddedServerError(f"{cluster} is a link or a file: name another directory")
    owner = cluster.stat().st_uid
    if os.geteuid() not in {0, owner}:
        raise EmbeddedServerError(
            f"{cluster} belongs to the user {owner}: start it as that user or as root"
        )
    if not directory.password.exists():
        raise EmbeddedServerError(
            f"{cluster} was not created by asyncsvc ({directory.password.name} is missing):"
            " choose a new or empty directory"
        )
    if not (cluster / "PG_VERSION").exists():
        raise EmbeddedServerError(
            f"{cluster} is damaged (PG_VERSION is missing): restore it from a backup,"
            " or choose a new directory"
        )


@contextlib.contextmanager
def locked(directory: Directory, cancelled: threading.Event | None = None) -> Iterator[int]:
    """Hold the lock for starts and stops. Yields the open file that holds it."""
    lock = open_file(directory.path / "asyncsvc.lock", os.O_RDWR | os.O_CREAT, give=True)
    try:
        _acquire(lock, directory, cancelled)
        yield lock
    finally:
        os.close(lock)


def _acquire(lock: int, directory: Directory, cancelled: threading.Event | None) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        raise_if_cancelled(directory, cancelled)
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"another process has been starting or stopping {directory.path} for"
                f" {LOCK_SECONDS} s: find out why it waits, or end it"
            )
        time.sleep(POLL_SECONDS)


def raise_if_cancelled(directory: Directory, cancelled: threading.Event | None) -> None:
    """Raise EmbeddedServerError if the caller of the start was cancelled."""
    if cancelled and cancelled.is_set():
        raise EmbeddedServerError(f"the start of {directory.path} was cancelled")
