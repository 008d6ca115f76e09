"""What a start, a stop and a look at the status do, step by step; all of it blocks."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from asyncsvc.embedded._cluster import initialise
from asyncsvc.embedded._directory import Directory, locked, refuse_foreign, refuse_given_up
from asyncsvc.embedded._launch import last_start, launch
from asyncsvc.embedded._programs import installed, programs_for
from asyncsvc.embedded._server import answering, shut_down


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """A server that runs.

    Attributes:
        data_dir: The directory it was named, absolute and without symbolic links.
        dsn: `postgresql://postgres:PASSWORD@127.0.0.1:PORT/postgres`; kept out of the repr.
        port: The port on 127.0.0.1.
        version: The version of PostgreSQL, such as `18.6`.
        started: False when the server was running already.
    """

    data_dir: Path
    dsn: str = field(repr=False)
    port: int
    version: str
    started: bool


def start(
    directory: Directory, options: Mapping[str, str], gave_up: threading.Event
) -> EmbeddedPostgres:
    """Start the server, or find the one that runs."""
    wheels = installed()
    refuse_foreign(directory)
    directory.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(directory, gave_up) as lock:
        refuse_foreign(directory)
        if found := answering(directory, wheels[0]):
            return describe(directory, found.port, started=False)
        programs = programs_for(directory, wheels)
        if not directory.cluster.exists():
            initialise(directory, programs, lock)
        port = launch(directory, programs, options)
        if gave_up.is_set():
            shut_down(directory)
        refuse_given_up(directory, gave_up)
        return describe(directory, port, started=True)


def stop(directory: Directory) -> bool:
    """Stop the server if it runs."""
    if not directory.password.exists():
        return False
    with locked(directory):
        return shut_down(directory)


def status(directory: Directory) -> EmbeddedPostgres | None:
    """Look whether the server runs and answers."""
    if not directory.password.exists():
        return None
    found = answering(directory, installed()[0])
    return describe(directory, found.port, started=False) if found else None


def describe(directory: Directory, port: int, *, started: bool) -> EmbeddedPostgres:
    """The server that listens on the port."""
    password = directory.password.read_text(encoding="ascii").strip()
    return EmbeddedPostgres(
        data_dir=directory.path,
        dsn=f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres",
        port=port,
        version=last_start(directory)[1],
        started=started,
    )
