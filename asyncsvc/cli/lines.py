"""Reads what is one JSON object a line, plain or gzip, from a file or standard input.

A conversation is a `ConversationRecord` as JSON: at least
`{"id", "messages": [{"role", "content"}]}`.
`user` may stand for `user_id`, times are ISO 8601, `tenant_id` may name the tenant. What else a
line has joins its `metadata`, and what else a message has joins its `payload`. A line that cannot
be read is handed on with the reason, and the reading goes on behind it; a file that cannot be read
at all raises CommandError or OSError.
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

from asyncsvc.cli.pipes import Pipe, aside
from asyncsvc.cli.running import CommandError
from asyncsvc.models import ConversationRecord, MessageRecord

STDIO: Final = "-"
"""The name of a file that stands for standard input or output."""
LONGEST: Final = 2**26
"""The most bytes of a line: no line can make the reader take all memory."""
_FIRST_YEAR: Final = 1900
_GZIP: Final = b"\x1f\x8b"
_PEEKED: Final = 64
_BUFFER: Final = 2**20
_RECORD: Final = frozenset(ConversationRecord.model_fields)
_MESSAGE: Final = frozenset(MessageRecord.model_fields)


@dataclass(frozen=True, slots=True)
class Item:
    """One thing as it was read: the fields of its record, or why there are none."""

    number: int
    fields: dict[str, Any]
    size: int = 0
    tenant_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Arriving:
    """What is read: as it comes, and unzipped; `size` is that of the first, where it has one."""

    raw: IO[bytes]
    stream: IO[bytes]
    size: int | None

    @property
    def place(self) -> int | None:
        """How far it was read, where it has a size."""
        return self.raw.tell() if self.size else None


class UnreadableError(Exception):
    """A line, or what stands for one, is not what it should be; the text says why."""


@contextmanager
def _read(file: str) -> Iterator[tuple[IO[bytes], int | None]]:
    """Open a file, or standard input; give its size, where it has one."""
    if file == STDIO:
        if sys.stdin is None:
            raise CommandError("standard input is closed")
        with _patient(sys.stdin.buffer) as raw:
            yield raw, None
        return
    with Path(file).open("rb", buffering=_BUFFER) as opened_file:
        if opened_file.seekable():
            yield opened_file, os.fstat(opened_file.fileno()).st_size or None
            return
        with _patient(opened_file) as raw:
            yield raw, None


@contextmanager
def _patient(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """Lend a stream as one whose reading can be stopped, where the system can wait for two."""
    if sys.platform == "win32":
        yield stream
        return
    with Pipe(stream.fileno()) as pipe:
        yield pipe


@asynccontextmanager
async def arriving(file: str) -> AsyncIterator[Arriving]:
    """Lend what a file or standard input holds, which may be long in coming."""
    with _read(file) as (raw, size):
        await aside(raw, lambda: beginning(raw))
        with opened(raw, file) as stream:
            yield Arriving(raw, stream, size)


@contextmanager
def opened(source: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    """Lend what a stream holds, unzipped where it is gzip. `name` is for errors."""
    if not beginning(source).startswith(_GZIP):
        if name.endswith(".gz"):
            raise CommandError(f"{name}: is not gzip, though its name ends in .gz")
        yield source
        return
    with gzip.GzipFile(fileobj=source) as unzipped:
        try:
            yield cast("IO[bytes]", unzipped)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise CommandError(f"{name}: is damaged, or cut off: gzip cannot read it") from None


def beginning(stream: IO[bytes]) -> bytes:
    """Return the first bytes of a stream, and leave them in it."""
    return cast("io.BufferedReader", stream).peek(_PEEKED)[:_PEEKED]


@contextmanager
def twice(path: Path) -> Iterator[IO[bytes]]:
    """Open a file of lines that can be read more than once with `seek(0)`, also from a pipe."""
    with path.open("rb") as raw, _seekable(raw) as file, opened(file, str(path)) as lines:
        yield lines


@contextmanager
def _seekable(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    if raw.seekable():
        yield raw
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(raw, copy)
        copy.seek(0)
        yield cast("IO[bytes]", copy)


def count(file: IO[bytes]) -> int:
    """Return the number of lines, and go back to the start."""
    number = 0
    for number, _ in _raw_lines(file):  # noqa: B007 - the last number is the answer
        pass
    file.seek(0)
    return number


def conversations(file: IO[bytes], tz: tzinfo) -> Iterator[Item]:
    """Read all lines but empty ones. A time without an offset is a local time of `tz`."""
    return objects(file, lambda line: _record(line, tz))


def objects(file: IO[bytes], record: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[Item]:
    """Read all lines but empty ones; `record` makes the fields of one, or says why it cannot."""
    for number, raw in _raw_lines(file):
        if len(raw) > LONGEST:
            yield Item(number, {}, reason=f"is longer than {LONGEST // 2**20} MiB")
        elif raw.strip():
            yield _parsed(number, raw, record)


def _raw_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Number the lines; of one that is too long, the rest is skipped."""
    number = 0
    while raw := file.readline(LONGEST + 1):
        number += 1
        rest = raw
        while len(rest) > LONGEST and not rest.endswith(b"\n"):
            rest = file.readline(LONGEST + 1)
        yield number, raw


def _parsed(number: int, raw: bytes, record: Callable[[dict[str, Any]], dict[str, Any]]) -> Item:
    try:
        line = _decoded(raw)
        tenant_id = line.pop("tenant_id", None)
        fields = record(line)
    except UnreadableError as error:
        return Item(number, {}, reason=str(error))
    if not isinstance(tenant_id, str | None):
        return Item(number, {}, reason="tenant_id: must be text")
    return Item(number, fields, len(raw), tenant_id)


def _decoded(raw: bytes) -> dict[str, Any]:
    try:
        line = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UnreadableError("is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise UnreadableError(f"is not JSON: {error.msg}, column {error.colno}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, endless brackets
        raise UnreadableError("is not JSON that can be read") from None
    if not isinstance(line, dict):
        raise UnreadableError("is not a JSON object")
    return line


def _record(line: dict[str, Any], tz: tzinfo) -> dict[str, Any]:
    """Return the fields of a record; whether their values will do, the load finds out."""
    if "user" in line:
        if "user_id" in line:
            raise UnreadableError("user: stands for user_id, which is there too")
        line["user_id"] = line.pop("user")
    record = _gathered(line, _RECORD, "metadata")
    messages = record.get("messages")
    if isinstance(messages, list):
        record["messages"] = [
            _message(at, given, tz) if isinstance(given, dict) else given
            for at, given in enumerate(messages)
        ]
    for name in ("created_at", "updated_at"):
        if isinstance(record.get(name), str):
            record[name] = instant(record[name], tz, name)
    return record


def _message(at: int, given: dict[str, Any], tz: tzinfo) -> dict[str, Any]:
    message = _gathered(given, _MESSAGE, "payload")
    if isinstance(time := message.get("created_at"), str):
        message["created_at"] = instant(time, tz, f"messages.{at}.created_at")
    return message


def _gathered(given: dict[str, Any], known: frozenset[str], into: str) -> dict[str, Any]:
    """Move what is not known into one of the fields that are."""
    if given.keys() <= known:
        return given
    unknown = given.keys() - known
    rest = given.get(into)
    if rest is not None and (not isinstance(rest, dict) or rest.keys() & unknown):
        raise UnreadableError(f"{into}: cannot be joined by {', '.join(sorted(unknown))}")
    kept = {name: value for name, value in given.items() if name in known}
    return kept | {into: (rest or {}) | {name: given[name] for name in sorted(unknown)}}


def instant(text: str, tz: tzinfo, name: str) -> datetime:
    """Read a time that is ISO 8601, of `tz` where it has no offset. Raises UnreadableError."""
    try:
        moment = datetime.fromisoformat(text)
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=tz)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UnreadableError(f"{name}: must be ISO 8601, as 2026-11-22T10:00Z") from None
    if moment.year < _FIRST_YEAR:
        raise UnreadableError(f"{name}: must not be before {_FIRST_YEAR}")
    return moment
