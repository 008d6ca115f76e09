"""Read files of one JSON object a line, plain or gzip, from a file or standard input.

A conversation is a `ConversationRecord` as JSON: at least
`{"id", "messages": [{"role", "content"}]}`. `user` may stand for `user_id`, times are ISO 8601, and
`tenant_id` may name the tenant. Other fields of a line are added to its `metadata`, other fields of
a message to its `payload`.

An invalid line becomes an `Item` with a reason, and the reader continues with the next line. An
unreadable file raises CommandError or OSError.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import IO, Any, Final, cast

from asyncsvc import ConversationRecord, MessageRecord
from asyncsvc.cli.runner import CommandError
from asyncsvc.cli.streams import StoppableReader, read_in_thread

STDIO: Final = "-"
"""The file name that means standard input or output."""
MAX_LINE_BYTES: Final = 2**26
"""A bound for the memory that one line can take."""
_MIN_YEAR: Final = 1900
_GZIP_MAGIC: Final = b"\x1f\x8b"
_PEEK_SIZE: Final = 64
_BUFFER_SIZE: Final = 2**20
_CONVERSATION_FIELDS: Final = frozenset(ConversationRecord.model_fields)
_MESSAGE_FIELDS: Final = frozenset(MessageRecord.model_fields)


@dataclass(frozen=True, slots=True)
class Item:
    """One record of a file: its fields, or the reason why it is invalid."""

    number: int
    fields: dict[str, Any]
    size: int = 0
    tenant_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class InputFile:
    """An open file: its raw bytes, the same unzipped, and the size of the raw bytes if known."""

    raw: IO[bytes]
    stream: IO[bytes]
    size: int | None

    @property
    def position(self) -> int | None:
        """The number of raw bytes that were read, if the size is known."""
        return self.raw.tell() if self.size else None


class InvalidRecordError(Exception):
    """A record of a file is invalid; the text gives the reason."""


# --- files


@asynccontextmanager
async def open_input(name: str) -> AsyncIterator[InputFile]:
    """Open a file, or standard input for `-`, that may be a slow pipe."""
    with _open_raw(name) as (raw, size):
        await read_in_thread(raw, lambda: first_bytes(raw))
        with _unzipped(raw, name) as stream:
            yield InputFile(raw, stream, size)


@contextmanager
def _open_raw(name: str) -> Iterator[tuple[IO[bytes], int | None]]:
    """Open a file, and return its size if it has one."""
    if name == STDIO:
        if sys.stdin is None:
            raise CommandError("standard input is closed")
        with _stoppable(sys.stdin.buffer) as raw:
            yield raw, None
        return
    with Path(name).open("rb", buffering=_BUFFER_SIZE) as file:
        if file.seekable():
            yield file, os.fstat(file.fileno()).st_size or None
            return
        with _stoppable(file) as raw:
            yield raw, None


@contextmanager
def _stoppable(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """Return a reader whose reads can be stopped, except on Windows."""
    if sys.platform == "win32":
        yield stream
        return
    with StoppableReader(stream.fileno()) as reader:
        yield reader


@contextmanager
def open_seekable(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, or a copy of a pipe, so that it can be read again after `seek(0)`."""
    with path.open("rb") as raw, _seekable(raw) as file, _unzipped(file, str(path)) as stream:
        yield stream


@contextmanager
def _seekable(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    if raw.seekable():
        yield raw
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(raw, copy)
        copy.seek(0)
        yield cast("IO[bytes]", copy)


@contextmanager
def _unzipped(raw: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    """Return the bytes of a stream, unzipped if they are gzip. `name` is for errors."""
    if not first_bytes(raw).startswith(_GZIP_MAGIC):
        if name.endswith(".gz"):
            raise CommandError(f"{name}: is not gzip, although its name ends in .gz")
        yield raw
        return
    with gzip.GzipFile(fileobj=raw) as unzipped:
        try:
            yield cast("IO[bytes]", unzipped)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise CommandError(f"{name}: gzip data is damaged or truncated") from None


def first_bytes(stream: IO[bytes]) -> bytes:
    """Return the first bytes of a stream without consuming them."""
    return cast("io.BufferedReader", stream).peek(_PEEK_SIZE)[:_PEEK_SIZE]


# --- lines


def count_lines(file: IO[bytes]) -> int:
    """Return the number of lines, and go back to the start."""
    count = sum(1 for _ in _raw_lines(file))
    file.seek(0)
    return count


def read_conversations(file: IO[bytes], tz: tzinfo) -> Iterator[Item]:
    """Read one conversation a line. A time without an offset is a local time of `tz`."""
    return read_objects(file, lambda line: _conversation(line, tz))


def read_objects(
    file: IO[bytes], to_fields: Callable[[dict[str, Any]], dict[str, Any]]
) -> Iterator[Item]:
    """Read one JSON object a line, and skip empty lines.

    `to_fields` returns the fields of a record or raises InvalidRecordError.
    """
    for number, raw in _raw_lines(file):
        if len(raw) > MAX_LINE_BYTES:
            yield Item(number, {}, reason=f"is longer than {MAX_LINE_BYTES // 2**20} MiB")
        elif raw.strip():
            yield _item(number, raw, to_fields)


def _raw_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Number the lines; a line that is too long is truncated."""
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        rest = raw
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES + 1)
        yield number, raw


def _item(number: int, raw: bytes, to_fields: Callable[[dict[str, Any]], dict[str, Any]]) -> Item:
    try:
        line = _json_object(raw)
        tenant_id = line.pop("tenant_id", None)
        fields = to_fields(line)
    except InvalidRecordError as error:
        return Item(number, {}, reason=str(error))
    if not isinstance(tenant_id, str | None):
        return Item(number, {}, reason="tenant_id: must be text")
    return Item(number, fields, len(raw), tenant_id)


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        line = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InvalidRecordError("is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise InvalidRecordError(f"is not JSON: {error.msg}, column {error.colno}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, deep nesting
        raise InvalidRecordError("is not JSON that can be read") from None
    if not isinstance(line, dict):
        raise InvalidRecordError("is not a JSON object")
    return line


# --- conversations


def _conversation(line: dict[str, Any], tz: tzinfo) -> dict[str, Any]:
    """Return the fields of a `ConversationRecord`; the import checks their values."""
    if "user" in line:
        if "user_id" in line:
            raise InvalidRecordError("user: stands for user_id, which is present too")
        line["user_id"] = line.pop("user")
    fields = _with_others_in(line, _CONVERSATION_FIELDS, "metadata")
    messages = fields.get("messages")
    if isinstance(messages, list):
        fields["messages"] = [
            _message(at, message, tz) if isinstance(message, dict) else message
            for at, message in enumerate(messages)
        ]
    for name in ("created_at", "updated_at"):
        if isinstance(fields.get(name), str):
            fields[name] = parse_instant(fields[name], tz, name)
    return fields


def _message(at: int, message: dict[str, Any], tz: tzinfo) -> dict[str, Any]:
    fields = _with_others_in(message, _MESSAGE_FIELDS, "payload")
    if isinstance(time := fields.get("created_at"), str):
        fields["created_at"] = parse_instant(time, tz, f"messages.{at}.created_at")
    return fields


def _with_others_in(
    fields: dict[str, Any], known: frozenset[str], container: str
) -> dict[str, Any]:
    """Move the fields that are not known into the field `container`."""
    if fields.keys() <= known:
        return fields
    others = fields.keys() - known
    contained = fields.get(container)
    if contained is not None and (not isinstance(contained, dict) or contained.keys() & others):
        raise InvalidRecordError(f"{container}: cannot take {', '.join(sorted(others))} too")
    kept = {name: value for name, value in fields.items() if name in known}
    return kept | {container: (contained or {}) | {name: fields[name] for name in sorted(others)}}


def parse_instant(text: str, tz: tzinfo, name: str) -> datetime:
    """Parse a time in ISO 8601, of `tz` if it has no offset.

    Raises:
        InvalidRecordError: The text is not a time, or before 1900. `name` is its field.
    """
    try:
        moment = datetime.fromisoformat(text)
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=tz)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidRecordError(
            f"{name}: must be ISO 8601, for example 2026-11-22T10:00Z"
        ) from None
    if moment.year < _MIN_YEAR:
        raise InvalidRecordError(f"{name}: must not be before {_MIN_YEAR}")
    return moment
