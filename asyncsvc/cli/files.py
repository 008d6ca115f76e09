"""Files that are there when they are complete, and not before."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, cast

_BUFFER: Final = 2**20


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Lend a file that gets its name when the block is left, and is gone after an error in it."""
    if path.is_dir():
        raise IsADirectoryError(21, "Is a directory", str(path))
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False, buffering=_BUFFER
    ) as file:
        try:
            os.fchmod(file.fileno(), 0o666 & ~_umask())  # as that of any other new file
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
