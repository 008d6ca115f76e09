"""Read the conversations of one file: a JSON array, one JSON object, or lines of objects."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Final

from asyncsvc.cli.import_context import ImportContext
from asyncsvc.cli.json_lines import Item, numbered_lines, take_tenant
from asyncsvc.cli.runner import CommandError
from asyncsvc.exports import Notes, Reader, UnreadableError, find_reader, read_conversation
from asyncsvc.exports.json_values import parse_object
from asyncsvc.exports.record_lines import read_record
from asyncsvc.exports.splitter import MAX_ELEMENT_BYTES, ArraySplitter, Element

LINES: Final = "lines"
_BLOCK_SIZE: Final = 2**20
_HEAD_SIZE: Final = 2**12
_MAX_HEADS: Final = 20
"""The number of elements for recognizing the format: some of the first ones may be invalid."""
_MAX_KEYS: Final = 12
_WHITESPACE: Final = b" \t\r\n"
_BOM: Final = b"\xef\xbb\xbf"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_WRAPPED: Final = re.compile(
    rb'\{\s*(?:"[^"\\]{0,64}"\s*:\s*(?:"[^"\\]{0,256}"|[\w.+-]{1,64})\s*,\s*){0,20}"conversations"\s*:\s*(?=\[)'
)
_PRETTY_FIRST_LINE: Final = re.compile(rb'\{\s*(?:"|$)')
_PRETTY_SECOND_LINE: Final = re.compile(rb'[ \t"}]')
_HINTS: Final = {
    b"%PDF": "is a PDF: export the chats as JSON",
    b"SQLite": "is a database: export the chats as JSON",
}


class UnknownFormatError(CommandError):
    """A file contains no conversations of a known format."""


def read_items(stream: io.BufferedReader, name: str, context: ImportContext) -> Iterator[Item]:
    """Read the conversations of a file. `name` is the name of the file in messages.

    Raises:
        UnknownFormatError: The file has no known format.
    """
    line_number, head = _skip_whitespace(stream)
    if not head:
        return iter(())
    if head.startswith(b"[") and not context.only_lines:
        return _read_array(stream, name, context)
    if head.startswith(b"{") or context.only_lines:
        if (wrapped := _WRAPPED.match(head)) and not context.only_lines:
            stream.read(wrapped.end())
            return _read_array(stream, name, context, is_wrapped=True)
        return _read_lines(stream, name, context, line_number)
    raise UnknownFormatError(f"{name}: {_hint(head, name)}")


def _hint(head: bytes, name: str) -> str:
    """Return the reason why a file without JSON is not read."""
    if head.startswith(_UTF_16):
        return "is UTF-16: save it as UTF-8"
    for magic, hint in _HINTS.items():
        if head.startswith(magic):
            return hint
    kind = "CSV" if name.lower().endswith(".csv") else "text"
    return f"is {kind} and not JSON: export the chats as JSON"


def _skip_whitespace(stream: io.BufferedReader) -> tuple[int, bytes]:
    """Skip a byte order mark and whitespace; return the number of the line, and its first bytes."""
    line = 1
    if stream.peek(len(_BOM)).startswith(_BOM):
        stream.read(len(_BOM))
    while block := stream.peek(_HEAD_SIZE):
        rest = block.lstrip(_WHITESPACE)
        skipped = stream.read(len(block) - len(rest))
        line += skipped.count(b"\n")
        if rest:
            return line, rest[:_HEAD_SIZE]
    return line, b""


# ---------------------------------------------------------------- arrays


def _read_array(
    stream: io.BufferedReader, name: str, context: ImportContext, *, is_wrapped: bool = False
) -> Iterator[Item]:
    splitter = ArraySplitter()
    elements = splitter.split(iter(lambda: stream.read1(_BLOCK_SIZE), b""))
    reader, first = _find_format(elements, name, context)
    context.formats[name] = reader.name
    for element in itertools.chain(first, elements):
        yield from _element_item(element, reader, name, context)
    if not splitter.is_complete or (splitter.has_rest and not is_wrapped):
        context.cut_off.append(name)


def _find_format(
    elements: Iterator[Element], name: str, context: ImportContext
) -> tuple[Reader, list[Element]]:
    """Return the reader that matches one of the first elements, and these elements."""
    first = list[Element]()
    keys = dict[str, None]()
    for element in itertools.islice(elements, _MAX_HEADS):
        first.append(element)
        if context.reader is not None:
            return context.reader, first
        try:
            head = parse_object(element.raw)
        except UnreadableError:
            continue
        if reader := find_reader(head):
            return reader, first
        keys |= dict.fromkeys(head)
    raise _unknown(name, keys)


def _unknown(name: str, keys: Iterable[str]) -> UnknownFormatError:
    seen = ", ".join(itertools.islice(keys, _MAX_KEYS))
    heads = f"; the first objects have {seen}" if seen else "; it has no objects"
    return UnknownFormatError(f"{name}: has no conversations of a known format{heads}")


def _element_item(
    element: Element, reader: Reader, name: str, context: ImportContext
) -> Iterator[Item]:
    noun = f"{name}: conversation" if context.several_files else "conversation"
    fields = dict[str, object]()
    try:
        value = _parse_element(element)
        fields["id"] = value.get("conversation_id") or value.get("id") or value.get("uuid")
        yield from _export_item(value, reader, element.number, len(element.raw), noun, context)
    except UnreadableError as error:
        yield Item(element.number, fields, reason=str(error), noun=noun)


def _parse_element(element: Element) -> dict[str, object]:
    if element.reason is not None:
        raise UnreadableError(element.reason)
    return parse_object(element.raw)


def _export_item(
    value: dict[str, object],
    reader: Reader,
    number: int,
    size: int,
    noun: str,
    context: ImportContext,
) -> Iterator[Item]:
    """Yield the item of a conversation, unless it is empty or repeated in an older form."""
    tenant_id = take_tenant(value)
    notes = Notes()
    record = read_conversation(
        value, reader=reader, limits=context.settings, notes=notes, thumbs=context.thumbs
    )
    if record is None:
        context.notes.add(notes)
        return
    is_repeated = context.is_repeated(record)
    if is_repeated is not None:
        yield Item(number, record, size, tenant_id, noun=noun, notes=notes, is_repeated=is_repeated)


# ---------------------------------------------------------------- lines


def _read_lines(
    stream: io.BufferedReader, name: str, context: ImportContext, first_line: int
) -> Iterator[Item]:
    """Read one object per line, or one object of several lines."""
    lines = numbered_lines(stream, first_line)
    number, first = next(lines)
    if not context.only_lines and _PRETTY_FIRST_LINE.match(first.strip()):
        rest = stream.peek(1)
        if _PRETTY_SECOND_LINE.match(rest) and not _is_object(first):
            return _read_object(first, stream, name, context)
    return _line_items(itertools.chain([(number, first)], lines), name, context)


def _is_object(raw: bytes) -> bool:
    try:
        parse_object(raw, nan=lambda: None)
    except UnreadableError:
        return False
    return True


def _read_object(
    first: bytes, stream: io.BufferedReader, name: str, context: ImportContext
) -> Iterator[Item]:
    """Read a file of one object: a conversation, or an object with `conversations`."""
    raw = first + stream.read(MAX_ELEMENT_BYTES + 1 - len(first))
    try:
        value = parse_object(raw)
    except UnreadableError as error:
        raise UnknownFormatError(f"{name}: {error}") from None
    conversations = value.get("conversations")
    values = conversations if isinstance(conversations, list) else [value]
    objects = [each for each in values if isinstance(each, dict)]
    reader = context.reader or next(filter(None, map(find_reader, objects[:_MAX_HEADS])), None)
    if reader is None:
        if isinstance(value.get("messages"), list):
            context.formats[name] = LINES
            yield _record_item(1, value, len(raw), "conversation", context)
            return
        raise _unknown(name, value)
    context.formats[name] = reader.name
    noun = f"{name}: conversation" if context.several_files else "conversation"
    for number, each in enumerate(objects, start=1):
        try:
            yield from _export_item(each, reader, number, len(raw) // len(objects), noun, context)
        except UnreadableError as error:
            yield Item(number, {}, reason=str(error), noun=noun)


def _line_items(
    lines: Iterable[tuple[int, bytes]], name: str, context: ImportContext
) -> Iterator[Item]:
    """Read lines. The first lines are held back until one of them is recognized."""
    noun = f"{name}: line" if context.several_files else "line"
    waiting: list[Item] | None = None if context.only_lines or context.reader else []
    keys = dict[str, None]()
    for number, raw in lines:
        is_known, items = _line(number, raw, noun, name, context, keys)
        if waiting is None:
            yield from items
            continue
        waiting += items
        if is_known:
            yield from waiting
            waiting = None
        elif len(waiting) >= _MAX_HEADS:
            raise _unknown(name, keys)
    if waiting:
        raise _unknown(name, keys)


def _line(
    number: int,
    raw: bytes,
    noun: str,
    name: str,
    context: ImportContext,
    keys: dict[str, None],
) -> tuple[bool, list[Item]]:
    """Return whether a line has a known format, and its item."""
    numbers = list[None]()
    try:
        value = parse_object(raw, nan=lambda: numbers.append(None))
        reader = context.reader or find_reader(value)
        keys |= dict.fromkeys(value)
        if reader is not None:
            context.formats.setdefault(name, reader.name)
            return True, list(_export_item(value, reader, number, len(raw), noun, context))
        is_known = "messages" in value
        if is_known:
            context.formats.setdefault(name, LINES)
        item = _record_item(number, value, len(raw), noun, context)
    except UnreadableError as error:
        return False, [Item(number, {}, reason=str(error), noun=noun)]
    if numbers and item.notes is not None:
        item.notes.changed["NaN or infinity replaced by null"] += len(numbers)
    return is_known, [item]


def _record_item(
    number: int, value: dict[str, object], size: int, noun: str, context: ImportContext
) -> Item:
    try:
        tenant_id = take_tenant(value)
        fields = read_record(value, context.tz)
    except UnreadableError as error:
        return Item(number, {}, reason=str(error), noun=noun)
    is_repeated = context.is_continued(fields.get("id"))
    return Item(number, fields, size, tenant_id, noun=noun, notes=Notes(), is_repeated=is_repeated)
