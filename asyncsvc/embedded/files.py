"""Files of a data directory that the account of the server or another user may control.

Root may start the server of another user's directory. That user can replace any file there by a
link, a pipe or a hard link to a file of root. So no link is followed, not even in the folders
above, and a file is used only if it is a regular file with one name and the owner of its folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from asyncsvc.errors import EmbeddedServerError

_ROOT: Final = 0
_LINK_ERRORS: Final = {errno.ELOOP, errno.ENOTDIR, errno.EMLINK}
_FOLDER: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


@contextlib.contextmanager
def open_folder(path: Path) -> Iterator[int]:
    """Open a folder for use as `dir_fd`. For root, no part of the path may be a link."""
    try:
        folder = _open_each(path) if os.geteuid() == _ROOT else os.open(path, _FOLDER)
    except OSError as error:
        raise _translated(error, path) from error
    try:
        yield folder
    finally:
        os.close(folder)


def _open_each(path: Path) -> int:
    """Open a folder through each folder above it."""
    folder = os.open("/", _FOLDER)
    try:
        for part in path.parts[1:]:
            above, folder = folder, os.open(part, _FOLDER, dir_fd=folder)
            os.close(above)
    except OSError:
        os.close(folder)
        raise
    return folder


def open_file(path: Path, flags: int, *, give: bool = False) -> int:
    """Open a file with mode 0600. With `give`, a file of root gets the owner of its folder.

    Raises FileNotFoundError if it is missing, and EmbeddedServerError if it cannot be trusted.
    """
    with open_folder(path.parent) as folder:
        try:
            file = os.open(path.name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=folder)
        except OSError as error:
            raise _translated(error, path) from error
        owner = os.fstat(folder)
        status = os.fstat(file)
        is_plain = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        if not is_plain or status.st_uid not in {_ROOT, os.geteuid(), owner.st_uid}:
            os.close(file)
            raise EmbeddedServerError(
                f"{path} is not a regular file of the user {owner.st_uid} with one name: remove it"
            )
        if give and os.geteuid() == _ROOT and status.st_uid != owner.st_uid:
            os.fchown(file, owner.st_uid, owner.st_gid)
    return file


def read_text(path: Path, *, errors: str = "surrogateescape") -> str:
    """Return the text of a file."""
    with os.fdopen(open_file(path, os.O_RDONLY), encoding="utf-8", errors=errors) as file:
        return file.read()


def create_file(path: Path, *, give: bool = False) -> IO[str]:
    """Create a file. It fails if the file or a link exists."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
    return os.fdopen(open_file(path, flags, give=give), "w", encoding="utf-8")


def replace_text(path: Path, text: str) -> None:
    """Replace a file by a new one with this text."""
    remove(path)
    with create_file(path, give=True) as file:
        file.write(text)


def remove(path: Path) -> None:
    """Remove a file or a link, if there is one."""
    with open_folder(path.parent) as folder, contextlib.suppress(FileNotFoundError):
        os.unlink(path.name, dir_fd=folder)


def move(old: Path, new: Path) -> None:
    """Rename a file, a folder or a link."""
    with open_folder(old.parent) as source, open_folder(new.parent) as target:
        os.rename(old.name, new.name, src_dir_fd=source, dst_dir_fd=target)


def _translated(error: OSError, path: Path) -> OSError | EmbeddedServerError:
    """Return the error of a link, or the error itself."""
    if error.errno in _LINK_ERRORS:
        return EmbeddedServerError(
            f"{path} is a link, or below one: choose a directory without links"
        )
    return error
