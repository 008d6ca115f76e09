"""Input files, plain or gzip, and output files that appear only when they are complete."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from asyncsvc.cli.runner import CommandError, interruptible
from asyncsvc.cli.streams import StoppableReader, read_in_thread
from asyncsvc.cli.terminal import printable_json

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDIO: Final = "-"
"""The file name that means standard input or output."""
_GZIP_MAGIC: Final = b"\x1f\x8b"
_PEEK_SIZE: Final = 64
_BUFFER_SIZE: Final = 2**20


@dataclass(frozen=True, slots=True)
class InputFile:
    """An open file: its raw bytes, its unzipped bytes, and the number of raw bytes if known."""

    raw: io.BufferedReader
    stream: io.BufferedReader
    size: int | None

    @property
    def position(self) -> int | None:
        """The number of raw bytes read so far, if the size is known."""
        return self.raw.tell() if self.size else None


@asynccontextmanager
async def open_input(name: str) -> AsyncIterator[InputFile]:
    """Open a file, or standard input for `-`. It may be a slow pipe."""
    with _open_raw(name) as (raw, size):
        await read_in_thread(raw, lambda: first_bytes(raw))
        _check_suffix(raw, name)
        with unzipped(raw, name) as stream:
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
    """Return a reader that leaves the descriptor open. On Windows it cannot be stopped."""
    if sys.platform == "win32":
        return io.BufferedReader(io.FileIO(descriptor, closefd=False))
    return StoppableReader(descriptor)


@contextmanager
def open_seekable(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file, or a copy of a pipe, for several readings: `seek(0)` starts the next one."""
    with path.open("rb") as file, tempfile.NamedTemporaryFile() as copy:
        if not file.seekable():
            shutil.copyfileobj(file, copy)
            copy.flush()
            path = Path(copy.name)
        with path.open("rb") as raw:
            _check_suffix(raw, str(path))
            with unzipped(raw, str(path)) as stream:
                yield stream


def _check_suffix(raw: io.BufferedReader, name: str) -> None:
    if name.endswith(".gz") and not first_bytes(raw).startswith(_GZIP_MAGIC):
        raise CommandError(f"{name}: is not gzip, although its name ends in .gz")


@contextmanager
def unzipped(file: io.BufferedReader, name: str) -> Iterator[io.BufferedReader]:
    """Return the bytes of a file, unzipped if they are gzip. Errors contain `name`."""
    if not first_bytes(file).startswith(_GZIP_MAGIC):
        yield file
        return
    stream: io.BufferedReader = io.BufferedReader(gzip.GzipFile(fileobj=file), _BUFFER_SIZE)
    try:
        with stream:
            yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise CommandError(f"{name}: gzip data is damaged or truncated") from None


def first_bytes(stream: io.BufferedReader) -> bytes:
    """Return the first bytes of a stream without consuming them."""
    return stream.peek(_PEEK_SIZE)[:_PEEK_SIZE]


@contextmanager
def open_output(name: str) -> Iterator[Callable[[bytes], object]]:
    """Return a function that writes to standard output, or to a file as `write_to` does.

    For a terminal, the function escapes control and direction characters in the JSON.
    """
    path = Path(name)
    if name == STDIO or _is_stdout(path):
        if sys.stdout is None:
            raise CommandError("standard output is closed")
        is_terminal = sys.stdout.isatty()
        yield _as_printable(_write_to_stdout) if is_terminal else _write_to_stdout
        with interruptible():
            sys.stdout.buffer.flush()
        return
    with write_to(path) as file:
        if path.suffix != ".gz":
            yield _as_printable(file.write) if file.isatty() else file.write
            return
        with gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as zipped:
            yield zipped.write


def _is_stdout(path: Path) -> bool:
    """Return whether the path is the file of standard output, for example /dev/stdout."""
    try:
        return sys.stdout is not None and os.path.samestat(
            path.stat(), os.fstat(sys.stdout.fileno())
        )
    except (OSError, ValueError):
        return False


def _write_to_stdout(line: bytes) -> None:
    with interruptible():  # the reader of a pipe may be slow
        sys.stdout.buffer.write(line)


def _as_printable(write: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Return a function that makes lines of JSON safe for a terminal and writes them."""
    return lambda line: write(printable_json(line.decode()).encode())


@contextmanager
def write_to(path: Path) -> Iterator[BinaryIO]:
    """Open a file for a result. Raises CommandError if it cannot be written.

    A regular file is created or replaced when the block ends without an error. A link is kept, and
    its target is replaced. A replaced file keeps its mode; a new file gets the mode 0600. Pipes
    and devices are written directly.
    """
    try:
        with _open_special(path) if _is_special(path) else _replaced_file(path) as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror or error}") from error


def _is_special(path: Path) -> bool:
    """Return whether the path exists and is neither a regular file nor a directory."""
    old = _stat(path)
    return old is not None and not stat.S_ISREG(old.st_mode) and not stat.S_ISDIR(old.st_mode)


def _stat(path: Path) -> os.stat_result | None:
    """Return the status of the file behind the path, or None if it does not exist."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


@contextmanager
def _open_special(path: Path) -> Iterator[BinaryIO]:
    """Open a pipe or a device. Opening a pipe waits for its reader."""
    with interruptible():
        descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NOCTTY", 0))
    with _InterruptibleWriter(descriptor, "wb") as file:
        yield file


class _InterruptibleWriter(io.FileIO):
    """Writes to a pipe whose reader may be slow."""

    def write(self, data: ReadableBuffer) -> int:
        """Write all of the data."""
        rest = memoryview(data).cast("B")
        with interruptible():
            while rest:
                rest = rest[super().write(rest) or 0 :]
        return memoryview(data).nbytes


@contextmanager
def _replaced_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces the target of `path`, or is removed on an error."""
    if path.is_dir():
        raise IsADirectoryError(21, "Is a directory", str(path))
    target = path.resolve()
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    file: io.BufferedWriter = io.BufferedWriter(io.FileIO(descriptor, "wb"), _BUFFER_SIZE)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            _copy_permissions(target, file.fileno())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _copy_permissions(target: Path, descriptor: int) -> None:
    """Copy the owner and the mode of the replaced file, if there is one.

    If the group cannot be copied, the new group gets no rights.
    """
    old = _stat(target)
    if old is None:
        return
    mode = stat.S_IMODE(old.st_mode) & 0o777
    try:
        os.fchown(descriptor, old.st_uid, old.st_gid)
    except PermissionError:
        mode &= ~stat.S_IRWXG
    os.fchmod(descriptor, mode)
