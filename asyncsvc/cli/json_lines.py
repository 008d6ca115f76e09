"""Read files with one JSON object per line.

An invalid line becomes an `Item` with a reason, and the reader continues with the next line.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from asyncsvc.exports import Notes, UnreadableError
from asyncsvc.exports.json_values import parse_object
from asyncsvc.exports.splitter import MAX_ELEMENT_BYTES, size_error

JsonObject: TypeAlias = dict[str, object]


@dataclass(frozen=True, slots=True)
class Item:
    """One record of a file: its fields, or the reason why it is invalid."""

    number: int
    fields: JsonObject
    size: int = 0
    tenant_id: str | None = None
    reason: str | None = None
    noun: str = "line"
    """The name of an item in messages to the user."""
    notes: Notes | None = None
    """The data of an export that the fields omit."""
    is_repeated: bool = False
    """Whether an earlier item of the same import had its id."""


def count_lines(file: io.BufferedReader) -> int:
    """Return the number of lines, and go back to the start."""
    count = sum(1 for _ in numbered_lines(file))
    file.seek(0)
    return count


def read_objects(
    file: io.BufferedReader, to_fields: Callable[[JsonObject], JsonObject]
) -> Iterator[Item]:
    """Read one JSON object per line, and skip empty lines.

    `to_fields` returns the fields of a record or raises UnreadableError.
    """
    for number, raw in numbered_lines(file):
        yield read_object(number, raw, to_fields)


def read_object(number: int, raw: bytes, to_fields: Callable[[JsonObject], JsonObject]) -> Item:
    """Read one line."""
    try:
        line = parse_object(raw)
        tenant_id = take_tenant(line)
        return Item(number, to_fields(line), len(raw), tenant_id)
    except UnreadableError as error:
        return Item(number, {}, reason=str(error))


def take_tenant(line: JsonObject) -> str | None:
    """Remove the tenant of a line and return it. Raises UnreadableError."""
    tenant_id = line.pop("tenant_id", None)
    if not isinstance(tenant_id, str | None):
        raise UnreadableError("tenant_id: must be text")
    return tenant_id


def numbered_lines(file: io.BufferedReader, first: int = 1) -> Iterator[tuple[int, bytes]]:
    """Number the lines that are not empty; a line that is too long is truncated."""
    number = first - 1
    while raw := file.readline(MAX_ELEMENT_BYTES + 1):
        number += 1
        rest = raw
        while size_error(len(rest)) and not rest.endswith(b"\n"):
            rest = file.readline(MAX_ELEMENT_BYTES + 1)
        if raw.strip():
            yield number, raw
