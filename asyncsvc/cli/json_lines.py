"""Read files of one JSON object a line.

A conversation is a `ConversationRecord` as JSON: at least
`{"id", "messages": [{"role", "content"}]}`. `user` may stand for `user_id`, times are ISO 8601, and
`tenant_id` may name the tenant. Other fields of a line are added to its `metadata`, other fields of
a message to its `payload`.

An invalid line becomes an `Item` with a reason, and the reader continues with the next line.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Final, TypeAlias

from asyncsvc import ConversationRecord, MessageRecord

JsonObject: TypeAlias = dict[str, object]
MAX_LINE_BYTES: Final = 2**26
"""A bound for the memory that one line can take."""
_MIN_YEAR: Final = 1900
_CONVERSATION_FIELDS: Final = frozenset(ConversationRecord.model_fields)
_MESSAGE_FIELDS: Final = frozenset(MessageRecord.model_fields)


@dataclass(frozen=True, slots=True)
class Item:
    """One record of a file: its fields, or the reason why it is invalid."""

    number: int
    fields: JsonObject
    size: int = 0
    tenant_id: str | None = None
    reason: str | None = None


class InvalidRecordError(Exception):
    """A record of a file is invalid; the text gives the reason."""


def count_lines(file: io.BufferedReader) -> int:
    """Return the number of lines, and go back to the start."""
    count = sum(1 for _ in _raw_lines(file))
    file.seek(0)
    return count


def read_conversations(file: io.BufferedReader, tz: tzinfo) -> Iterator[Item]:
    """Read one conversation a line. A time without an offset is a local time of `tz`."""
    return read_objects(file, lambda line: _conversation(line, tz))


def read_objects(
    file: io.BufferedReader, to_fields: Callable[[JsonObject], JsonObject]
) -> Iterator[Item]:
    """Read one JSON object a line, and skip empty lines.

    `to_fields` returns the fields of a record or raises InvalidRecordError.
    """
    for number, raw in _raw_lines(file):
        if len(raw) > MAX_LINE_BYTES:
            yield Item(number, {}, reason=f"is longer than {MAX_LINE_BYTES // 2**20} MiB")
        elif raw.strip():
            yield _item(number, raw, to_fields)


def _raw_lines(file: io.BufferedReader) -> Iterator[tuple[int, bytes]]:
    """Number the lines; a line that is too long is truncated."""
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        rest = raw
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES + 1)
        yield number, raw


def _item(number: int, raw: bytes, to_fields: Callable[[JsonObject], JsonObject]) -> Item:
    try:
        line = _json_object(raw)
        tenant_id = line.pop("tenant_id", None)
        fields = to_fields(line)
    except InvalidRecordError as error:
        return Item(number, {}, reason=str(error))
    if not isinstance(tenant_id, str | None):
        return Item(number, {}, reason="tenant_id: must be text")
    return Item(number, fields, len(raw), tenant_id)


def _json_object(raw: bytes) -> JsonObject:
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


def _conversation(line: JsonObject, tz: tzinfo) -> JsonObject:
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
        if isinstance(time := fields.get(name), str):
            fields[name] = parse_instant(time, tz, name)
    return fields


def _message(at: int, message: JsonObject, tz: tzinfo) -> JsonObject:
    fields = _with_others_in(message, _MESSAGE_FIELDS, "payload")
    if isinstance(time := fields.get("created_at"), str):
        fields["created_at"] = parse_instant(time, tz, f"messages.{at}.created_at")
    return fields


def _with_others_in(fields: JsonObject, known: frozenset[str], container: str) -> JsonObject:
    """Move the fields that are not known into the field `container`."""
    if fields.keys() <= known:
        return fields
    others = {name: fields[name] for name in sorted(fields.keys() - known)}
    contained = fields.get(container)
    contained = {} if contained is None else contained
    if not isinstance(contained, dict) or contained.keys() & others.keys():
        raise InvalidRecordError(f"{container}: cannot take {', '.join(others)} too")
    kept = {name: value for name, value in fields.items() if name in known}
    return kept | {container: contained | others}


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
