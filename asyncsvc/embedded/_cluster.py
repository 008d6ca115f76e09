"""Make the cluster.

`initdb` works in `pgdata.new`, which gets its final name when it is complete and on the disk, so a
process that dies half-way leaves nothing that looks like a cluster. Only the holder of the lock
does this; `initdb` inherits the lock, so that even an orphan of it is waited for.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from asyncsvc.embedded._directory import Directory, create_file, last_lines
from asyncsvc.embedded._programs import Programs
from asyncsvc.errors import EmbeddedServerError

_SECONDS = 120
_OPTIONS = (
    "--username=postgres",
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale=C.UTF-8",
    "--data-checksums",
    "--no-instructions",
)


def initialise(directory: Directory, programs: Programs, lock: int) -> None:
    """Make the cluster of the directory, with a new password."""
    unfinished = directory.path / "pgdata.new"
    password = directory.path / "password.new"
    if unfinished.exists():
        shutil.rmtree(unfinished)
    password.unlink(missing_ok=True)
    unfinished.mkdir(mode=0o700)
    _write_password(password)
    if user := programs.account.user:
        os.chown(unfinished, *user)
        os.chown(password, *user)
    code, said = programs.run(
        "initdb",
        *_OPTIONS,
        f"--pwfile={password}",
        cluster=unfinished,
        inherit=(lock,),
        seconds=_SECONDS,
    )
    if code:
        raise EmbeddedServerError(
            f"initdb could not create {directory.cluster}. It said: {last_lines(said)}"
        )
    password.rename(unfinished / directory.password.name)
    _sync(unfinished)
    unfinished.rename(directory.cluster)
    _sync(directory.path)


def _write_password(path: Path) -> None:
    with create_file(path) as file:
        file.write(f"{secrets.token_urlsafe(32)}\n")
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
