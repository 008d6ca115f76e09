"""Whom the server runs as, and what that account can get at.

PostgreSQL refuses to run as root. Started by root it runs as `nobody` inside a user namespace,
where, seen from outside, it still owns what root owns: whoever has the password of the database
can get at root's files. Where user namespaces are blocked, as in many containers, it runs as
`nobody` itself. A cluster that exists is run as its owner.

No user is added to the system, and no permission of a folder above the data directory is changed.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from asyncsvc.embedded._directory import Directory
from asyncsvc.embedded._process import run
from asyncsvc.errors import EmbeddedServerError

if sys.platform != "win32":
    import pwd


@dataclass(frozen=True, slots=True)
class Account:
    """Whose rights a program has on files, and what gives them to it."""

    uid: int
    gid: int
    prefix: tuple[str, ...] = ()
    switch: bool = False

    @property
    def user(self) -> tuple[int, int] | None:
        """The user and group that the program has to become."""
        return (self.uid, self.gid) if self.switch else None

    @property
    def is_us(self) -> bool:
        """Whether the program runs as everything else in this process."""
        return not self.prefix and not self.switch


def ourselves() -> Account:
    """The account of this process."""
    return Account(os.geteuid(), os.getegid())


def choose_account(directory: Directory) -> Account:
    """The account for the server of this directory, which can enter the directory."""
    account = _account_for(directory.cluster)
    if not account.is_us:
        _let_in(account, directory.path)
    return account


def _account_for(cluster: Path) -> Account:
    if os.geteuid() != 0:
        return ourselves()
    owner = cluster.stat() if cluster.exists() else None
    if owner and owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid, switch=True)
    nobody = _nobody()
    ids = (f"--map-user={nobody.uid}", f"--map-group={nobody.gid}")
    prefix = ("unshare", "--user", *ids, "--")
    if namespace_works(prefix):
        return Account(0, 0, prefix=prefix)
    if owner:
        raise EmbeddedServerError(
            f"{cluster} belongs to root, user namespaces are blocked here, and PostgreSQL"
            f" refuses to run as root: give it away with chown -R nobody: {cluster}"
        )
    return nobody


def _nobody() -> Account:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedServerError(
            "PostgreSQL refuses to run as root, and there is no user nobody to run it as:"
            " start it as an ordinary user"
        ) from None
    return Account(entry.pw_uid, entry.pw_gid, switch=True)


def namespace_works(prefix: tuple[str, ...]) -> bool:
    """Whether a program can be run in a user namespace here."""
    return shutil.which(prefix[0]) is not None and run([*prefix, "true"])[0] == 0


def _let_in(account: Account, path: Path) -> None:
    """Let the account enter the data directory itself; never touch what is above it."""
    if closed_door(account, path) == path:
        path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o011)
    if door := closed_door(account, path):
        mode = stat.S_IMODE(door.stat().st_mode)
        raise EmbeddedServerError(
            f"{path} is out of the server's reach: PostgreSQL refuses to run as root, and"
            f" without root's privileges {door} (mode {mode:04o}) is closed to it. Name a directory"
            " that everybody can get to, such as one below /var/lib, or start it as an ordinary"
            " user"
        )


def closed_door(account: Account, path: Path) -> Path | None:
    """The first of the path and the folders above it that the account may not enter."""
    doors = (path, *path.parents, *path.resolve().parents)
    return next((door for door in doors if not _may_enter(account, door)), None)


def _may_enter(account: Account, door: Path) -> bool:
    status = door.stat()
    if status.st_uid == account.uid:
        needed = stat.S_IXUSR
    elif status.st_gid == account.gid:
        needed = stat.S_IXGRP
    else:
        needed = stat.S_IXOTH
    return bool(status.st_mode & needed)
