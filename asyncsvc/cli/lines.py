"""Reads conversations, one JSON object a line, plain or gzip, in constant memory.

A line is `{"id", "messages": [{"role", "content", ...}]}`, and may have `user`, `created_at` (ISO
8601), `name` and `tokens`. What else it has becomes the conversation's metadata, and what else a
message has becomes its payload. A line that is wrong is handed on as a `BadLine`, and the reading
goes on behind it; a file that cannot be read at all raises CommandError or OSError.
"""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import IO, Annotated, Any, Final, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from asyncsvc.cli.running import CommandError
from asyncsvc.errors import InvalidInput
from asyncsvc.inputs import invalid_input
from asyncsvc.models import Message

LONGEST: Final = 2**26
"""The most bytes of a line: no line can make the reader take all memory."""
_FIRST_YEAR = 1900
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class ConversationLine:
    """A conversation as its line says it; None where the line says nothing."""

    number: int
    size: int
    id: str
    messages: tuple[Message, ...]
    user: str | None
    created_at: datetime | None
    name: str | None
    tokens: int | None
    metadata: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no conversation, and why."""

    number: int
    reason: str


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file of lines, which can be read more than once with `seek(0)`, also from a pipe."""
    with path.open("rb") as raw, _seekable(raw) as file:
        zipped = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        if path.suffix == ".gz" and not zipped:
            raise CommandError(f"{path}: is not gzip, though its name ends in .gz")
        if not zipped:
            yield file
            return
        with gzip.GzipFile(fileobj=file) as unzipped:
            try:
                yield cast("IO[bytes]", unzipped)
            except (EOFError, zlib.error, gzip.BadGzipFile):
                raise CommandError(f"{path}: is damaged, or cut off: gzip cannot read it") from None


def count(file: IO[bytes]) -> int:
    """Return the number of lines, and go back to the start."""
    number = 0
    for number, _ in _raw_lines(file):  # noqa: B007 - the last number is the answer
        pass
    file.seek(0)
    return number


def conversations(file: IO[bytes], tz: tzinfo) -> Iterator[ConversationLine | BadLine]:
    """Read all lines but empty ones. A `created_at` without an offset is a local time of `tz`."""
    for number, raw in _raw_lines(file):
        if len(raw) > LONGEST:
            yield BadLine(number, f"is longer than {LONGEST // 2**20} MiB")
        elif raw.strip():
            yield _parsed(number, raw, tz)


@contextmanager
def _seekable(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    if raw.seekable():
        yield raw
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(raw, copy)
        copy.seek(0)
        yield copy


def _raw_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Number the lines; of one that is too long, the rest is skipped."""
    number = 0
    while raw := file.readline(LONGEST + 1):
        number += 1
        rest = raw
        while len(rest) > LONGEST and not rest.endswith(b"\n"):
            rest = file.readline(LONGEST + 1)
        yield number, raw


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)

    id: str
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    user: str | None = None
    created_at: str | None = None
    name: str | None = None
    tokens: int | None = None


def _parsed(number: int, raw: bytes, tz: tzinfo) -> ConversationLine | BadLine:
    try:
        record = _Record.model_validate(_decoded(raw))
        return ConversationLine(
            number=number,
            size=len(raw),
            id=record.id,
            messages=tuple(_message(at, given) for at, given in enumerate(record.messages)),
            user=record.user,
            created_at=_instant(record.created_at, tz),
            name=record.name,
            tokens=record.tokens,
            metadata=record.model_extra or None,
        )
    except ValidationError as error:
        return BadLine(number, str(invalid_input(error)))
    except (InvalidInput, _UnreadableError) as error:
        return BadLine(number, str(error))


class _UnreadableError(Exception):
    pass


def _decoded(raw: bytes) -> dict[str, Any]:
    try:
        record = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise _UnreadableError("is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise _UnreadableError(f"is not JSON: {error.msg}, column {error.colno}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, endless brackets
        raise _UnreadableError("is not JSON that can be read") from None
    if not isinstance(record, dict):
        raise _UnreadableError("is not a JSON object")
    return record


def _message(at: int, given: dict[str, Any]) -> Message:
    known = {name: given.pop(name) for name in ("role", "content", "reference") if name in given}
    try:
        return Message(**known, payload=given)
    except InvalidInput as error:
        raise InvalidInput(f"messages.{at}.{error.field}", error.reason) from None


def _instant(text: str | None, tz: tzinfo) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        instant = (moment if moment.tzinfo else moment.replace(tzinfo=tz)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _UnreadableError("created_at: must be ISO 8601, as 2026-11-22T10:00Z") from None
    if instant.year < _FIRST_YEAR:
        raise _UnreadableError(f"created_at: must not be before {_FIRST_YEAR}")
    return instant
