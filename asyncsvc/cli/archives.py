"""Read the files of ZIP archives and of folders. Archives are read in place and within limits."""

from __future__ import annotations

import io
import lzma
import re
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Final

from asyncsvc.cli.files import unzipped
from asyncsvc.cli.runner import CommandError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ZIP_MAGIC: Final = b"PK\x03\x04"
_EMPTY_ZIP_MAGIC: Final = b"PK\x05\x06"
_MAX_ENTRIES: Final = 20_000
_MAX_DIRECTORY_BYTES: Final = 2**25
_MAX_ENTRY_BYTES: Final = 2**34
_MAX_TOTAL_BYTES: Final = 2**36
_MAX_RATIO: Final = 250
"""Compression reduces the text of chats to about a tenth, repeated bytes to a thousandth."""
_RATIO_APPLIES_FROM: Final = 2**26
_ENCRYPTED: Final = 0x1
_METHODS: Final = {
    zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA
}  # fmt: skip
_READABLE: Final = (".json", ".jsonl", ".ndjson", ".gz", ".zip")
_FIRST: Final = ("message_feedback.json", "export_manifest.json", "manifest-")
_BUFFER_SIZE: Final = 2**20
_END_OF_DIRECTORY: Final = b"PK\x05\x06"
_ZIP64_END: Final = b"PK\x06\x06"


@dataclass(frozen=True, slots=True)
class ExportFile:
    """A file of an archive or a folder."""

    name: str
    """The path for messages."""
    open: Callable[[], AbstractContextManager[io.BufferedReader]]

    @property
    def base(self) -> str:
        """The name without its folders."""
        return PurePosixPath(self.name).name


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A skipped file, and the reason."""

    name: str
    reason: str


Entry = ExportFile | SkippedFile


def is_zip(head: bytes) -> bool:
    """Return whether the first bytes are those of a ZIP archive."""
    return head.startswith((ZIP_MAGIC, _EMPTY_ZIP_MAGIC))


def in_order(entries: list[Entry]) -> list[Entry]:
    """Sort files by their names and numbers, after the files that describe others."""

    def key(entry: Entry) -> tuple[bool, list[tuple[bool, int, str]]]:
        base = PurePosixPath(entry.name).name
        parts = re.findall(r"\d{1,18}|\D+", entry.name)
        return not base.startswith(_FIRST), [
            (part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts
        ]

    return sorted(entries, key=key)


def folder_entries(folder: Path) -> list[Entry]:
    """Return the files of a folder that may be exports. Links out of it are not followed."""
    root = folder.resolve()
    entries = list[Entry]()
    for path in folder.rglob("*"):
        name = str(path)
        if path.name.startswith(".") or not path.is_file():
            continue
        if not path.resolve().is_relative_to(root):
            entries.append(SkippedFile(name, "is a link out of the folder"))
        elif path.name.lower().endswith(_READABLE):
            entries.append(ExportFile(name, partial(_opened, path)))
        else:
            entries.append(SkippedFile(name, "is no JSON"))
    return in_order(entries)


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    with path.open("rb") as file, unzipped(file, str(path)) as stream:
        yield stream


class Archive:
    """A ZIP archive. Its entries are read in a stream; no file is created with their names."""

    def __init__(self, file: io.BufferedReader, name: str) -> None:
        """Read the directory of an archive.

        Raises:
            CommandError: The file is damaged, or has too many entries.
        """
        self._name = name
        self._total = 0
        try:
            if _directory_size(file) > _MAX_DIRECTORY_BYTES:
                raise CommandError(f"{name}: has more than {_MAX_ENTRIES:,} files")
            file.seek(0)
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, OSError):
            raise CommandError(f"{name}: is a damaged ZIP archive") from None
        if len(self._zip.infolist()) > _MAX_ENTRIES:
            raise CommandError(f"{name}: has more than {_MAX_ENTRIES:,} files")

    def entries(self) -> list[Entry]:
        """Return the files that may be exports. Raises CommandError if a name occurs twice."""
        names = set[str]()
        entries = list[Entry]()
        for info in self._zip.infolist():
            if not info.filename or info.is_dir() or _is_hidden(info.filename):
                continue
            name = f"{self._name}/{info.filename}"
            if info.filename in names:
                raise CommandError(f"{name}: is in the archive twice")
            names.add(info.filename)
            if reason := _refusal(info):
                entries.append(SkippedFile(name, reason))
            else:
                entries.append(ExportFile(name, partial(self._open, info, name)))
        return in_order(entries)

    @contextmanager
    def _open(self, info: zipfile.ZipInfo, name: str) -> Iterator[io.BufferedReader]:
        with _damage_named(name):
            entry = self._zip.open(info)
        with entry:
            bounded = _BoundedBytes(entry, info.compress_size, name, self._count)
            file: io.BufferedReader = io.BufferedReader(bounded, _BUFFER_SIZE)
            with file, unzipped(file, name) as stream:
                yield stream

    def _count(self, size: int) -> None:
        self._total += size
        if self._total > _MAX_TOTAL_BYTES:
            raise CommandError(f"{self._name}: has more than {_MAX_TOTAL_BYTES // 2**30} GiB")


class DamagedEntryError(CommandError):
    """An entry of an archive cannot be read to its end."""


@contextmanager
def _damage_named(name: str) -> Iterator[None]:
    """Replace the errors of damaged data by one that names the entry."""
    try:
        yield
    except (
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError, OSError,
        NotImplementedError, RuntimeError,
    ):  # fmt: skip
        raise DamagedEntryError(f"{name}: is damaged in the archive") from None


class _BoundedBytes(io.RawIOBase):
    """The bytes of an entry, up to a size and a ratio: the declared size may be wrong."""

    def __init__(
        self,
        raw: IO[bytes],
        compressed_size: int,
        name: str,
        on_read: Callable[[int], None],
    ) -> None:
        self._raw = raw
        self._ratio_limit = max(compressed_size * _MAX_RATIO, _RATIO_APPLIES_FROM)
        self._name = name
        self._on_read = on_read
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        with _damage_named(self._name):
            data = self._raw.read(len(view))
        self._size += len(data)
        self._on_read(len(data))
        if self._size > _MAX_ENTRY_BYTES or self._size > self._ratio_limit:
            raise DamagedEntryError(f"{self._name}: is larger than text of its compressed size")
        view[: len(data)] = data
        return len(data)


@contextmanager
def spooled(stream: io.BufferedReader, name: str) -> Iterator[io.BufferedReader]:
    """Copy a stream, such as a pipe or an archive within an archive, to a temporary file."""
    with tempfile.TemporaryFile() as copy:
        size = 0
        while block := stream.read(_BUFFER_SIZE):
            size += len(block)
            if size > _MAX_ENTRY_BYTES:
                raise CommandError(f"{name}: has more than {_MAX_ENTRY_BYTES // 2**30} GiB")
            copy.write(block)
        copy.seek(0)
        yield io.BufferedReader(copy)


def _directory_size(file: io.BufferedReader) -> int:
    """Return the declared size of the directory, which `zipfile` reads into memory."""
    file.seek(0, io.SEEK_END)
    end = file.tell()
    file.seek(max(0, end - 2**16 - 22 - 76))
    tail = file.read()
    at = tail.rfind(_END_OF_DIRECTORY)
    if at < 0:
        raise zipfile.BadZipFile
    (size,) = struct.unpack_from("<L", tail, at + 12)
    if (at_64 := tail.rfind(_ZIP64_END, 0, at)) >= 0:
        (size,) = struct.unpack_from("<Q", tail, at_64 + 40)
    return int(size)


def _is_hidden(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or any(part.startswith(".") and part != ".." for part in parts)


def _refusal(info: zipfile.ZipInfo) -> str | None:
    """Return why an entry is not read, or None."""
    name = info.filename
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a link"
    if ".." in re.split(r"[/\\]", name) or name.startswith(("/", "\\")) or name[1:2] == ":":
        return "has a path out of the archive"
    if not name.lower().endswith(_READABLE):
        return "is no JSON"
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if info.compress_type not in _METHODS:
        return "has an unknown compression"
    return None
