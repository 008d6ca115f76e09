"""Files that appear only when they are complete."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, cast

_BUFFER_SIZE: Final = 2**20


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that is renamed to `path` after the block, or removed on an error."""
    if path.is_dir():
        raise IsADirectoryError(21, "Is a directory", str(path))
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False, buffering=_BUFFER_SIZE
    ) as file:
        try:
            os.fchmod(file.fileno(), 0o666 & ~_umask())  # the mode of any other new file
            yield cast("IO[bytes]", file)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
