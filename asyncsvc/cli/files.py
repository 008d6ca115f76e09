"""Input files, plain or gzip, and output files that appear only when they are complete."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asyncsvc.cli.runner import CommandError, interruptible
from asyncsvc.cli.streams import StoppableReader, read_in_thread

STDIO: Final = "-"
"""The file name that means standard input or output."""
_GZIP_MAGIC: Final = b"\x1f\x8b"
_PEEK_SIZE: Final = 64
_BUFFER_SIZE: Final = 2**20


@dataclass(frozen=True, slots=True)
class InputFile:
    """An open file: its raw bytes, the same unzipped, and the size of the raw bytes if known."""

    raw: io.BufferedReader
    stream: io.BufferedReader
    size: int | None

    @property
    def position(self) -> int | None:
        """The number of raw bytes that were read, if the size is known."""
        return self.raw.tell() if self.size else None


@asynccontextmanager
async def open_input(name: str) -> AsyncIterator[InputFile]:
    """Open a file, or standard input for `-`, that may be a slow pipe."""
    with _open_raw(name) as (raw, size):
        await read_in_thread(raw, lambda: first_bytes(raw))
        with _unzipped(raw, name) as stream:
            yield InputFile(raw, stream, size)


@contextmanager
def _open_raw(name: str) -> Iterator[tuple[io.BufferedReader, int | None]]:
    """Open a file, and return its size if it has one."""
    if name == STDIO:
        if sys.stdin is None:
            raise CommandError("standard input is closed")
        with _stoppable(sys.stdin.fileno()) as raw:
            yield raw, None
        return
    file: io.BufferedReader = io.BufferedReader(io.FileIO(name), _BUFFER_SIZE)
    with file:
        if file.seekable():
            yield file, os.fstat(file.fileno()).st_size or None
            return
        with _stoppable(file.fileno()) as raw:
            yield raw, None


def _stoppable(descriptor: int) -> io.BufferedReader:
    """Return a reader of a descriptor, which stays open. On Windows reads cannot be stopped."""
    if sys.platform == "win32":
        return io.BufferedReader(io.FileIO(descriptor, closefd=False))
    return StoppableReader(descriptor)


@contextmanager
def open_seekable(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file, or a copy of a pipe, so that it can be read again after `seek(0)`."""
    with path.open("rb") as file, tempfile.NamedTemporaryFile() as copy:
        if not file.seekable():
            shutil.copyfileobj(file, copy)
            copy.flush()
            path = Path(copy.name)
        with path.open("rb") as raw, _unzipped(raw, str(path)) as stream:
            yield stream


@contextmanager
def _unzipped(raw: io.BufferedReader, name: str) -> Iterator[io.BufferedReader]:
    """Return the bytes of a stream, unzipped if they are gzip. `name` is for errors."""
    if not first_bytes(raw).startswith(_GZIP_MAGIC):
        if name.endswith(".gz"):
            raise CommandError(f"{name}: is not gzip, although its name ends in .gz")
        yield raw
        return
    unzipped: io.BufferedReader = io.BufferedReader(gzip.GzipFile(fileobj=raw), _BUFFER_SIZE)
    with unzipped:
        try:
            yield unzipped
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise CommandError(f"{name}: gzip data is damaged or truncated") from None


def first_bytes(stream: io.BufferedReader) -> bytes:
    """Return the first bytes of a stream without consuming them."""
    return stream.peek(_PEEK_SIZE)[:_PEEK_SIZE]


@contextmanager
def open_output(name: str) -> Iterator[Callable[[bytes], object]]:
    """Return a function that writes to standard output, or to a file that appears at the end."""
    if name == STDIO:
        if sys.stdout is None:
            raise CommandError("standard output is closed")
        yield _write_to_stdout
        with interruptible():
            sys.stdout.buffer.flush()
        return
    path = Path(name)
    try:
        with atomic_file(path) as file:
            if path.suffix != ".gz":
                yield file.write
                return
            with gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as zipped:
                yield zipped.write
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror or error}") from error


def _write_to_stdout(line: bytes) -> None:
    with interruptible():  # the reader of a pipe may be slow
        sys.stdout.buffer.write(line)


@contextmanager
def atomic_file(path: Path) -> Iterator[io.BufferedWriter]:
    """Open a temporary file that is renamed to `path` after the block, or removed on an error."""
    if path.is_dir():
        raise IsADirectoryError(21, "Is a directory", str(path))
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    file: io.BufferedWriter = io.BufferedWriter(io.FileIO(descriptor, "wb"), _BUFFER_SIZE)
    try:
        with file:
            os.fchmod(file.fileno(), 0o666 & ~_umask())  # the mode of any other new file
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
