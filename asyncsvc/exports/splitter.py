"""Split a JSON array of any length into the bytes of its elements, without parsing them.

An element that no JSON parser accepts, such as one with NaN or invalid UTF-8, does not affect the
others. The scan is linear. The memory is limited to one element.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

MAX_ELEMENT_BYTES: Final = 2**26
"""The maximum size of one element or line."""
MAX_VALUES: Final = 1_000_000
"""The maximum number of values in one element or line: each takes up to 250 bytes in memory."""
_STRING_REST: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_PLAIN: Final = rb'[^"\[\]{}]*+'
_WHOLE_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT: Final = rb"%b(?:%b%b)*+" % (_PLAIN, _WHOLE_STRING, _PLAIN)
_TO_BRACKET: Final = re.compile(
    rb"%b(?:(?:%b|[\[{]%b[\]}])%b)*+" % (_PLAIN, _WHOLE_STRING, _FLAT, _PLAIN), re.DOTALL
)
"""Up to the next bracket, or to a string that continues in the next block.

It also skips innermost pairs of brackets, which do not change the depth.
"""
_TO_STRUCTURE: Final = re.compile(rb'[^"\[\]{},]*+')
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_OPENING: Final = b"[{"
_WHITESPACE: Final = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Element:
    """An element of an array, or the reason why it was skipped."""

    number: int
    """Counted from 1."""
    raw: bytes
    reason: str | None = None


def size_error(size: int) -> str | None:
    """Return why an element of this size is skipped, or None."""
    if size > MAX_ELEMENT_BYTES:
        return f"is longer than {MAX_ELEMENT_BYTES // 2**20} MiB"
    return None


def count_error(raw: bytes) -> str | None:
    """Return why an element with this many values is skipped, or None.

    It counts before the element is parsed, because a parser needs memory for each value.
    """
    values = raw.count(b",") + raw.count(b"[") + raw.count(b"{")
    if values <= MAX_VALUES:
        return None
    structure = _STRING.sub(b"", raw)
    values = structure.count(b",") + structure.count(b"[") + structure.count(b"{")
    return f"has more than {MAX_VALUES:,} values" if values > MAX_VALUES else None


class ArraySplitter:
    """Splits one array. Afterwards `has_rest` tells whether it was cut off."""

    def __init__(self, max_bytes: int = MAX_ELEMENT_BYTES) -> None:
        """Skip elements of more than `max_bytes`."""
        self._max_bytes = max_bytes
        self._element = _Element()
        self._number = 0
        self._depth = 0
        self._in_string = False
        self._is_escaped = False
        self._has_trailing_data = False
        self.is_complete = False

    def split(self, blocks: Iterable[bytes]) -> Iterator[Element]:
        """Yield the elements of an array. The blocks are its text, beginning at its bracket.

        An incomplete element at the end of the text is not yielded.
        """
        for block in blocks:
            yield from self._split_block(block)
            if self.is_complete:
                return

    @property
    def has_rest(self) -> bool:
        """Whether the text ended before the array, or continued after it."""
        return not self.is_complete or self._has_trailing_data

    def _split_block(self, block: bytes) -> Iterator[Element]:
        start = at = 0
        if self._is_escaped:
            at, self._is_escaped = 1, False
        while at < len(block):
            if self._in_string:
                at = self._string_end(block, at)
                continue
            match = (_TO_BRACKET if self._depth > 1 else _TO_STRUCTURE).match(block, at)
            at = len(block) + 1 if match is None else match.end() + 1
            if at > len(block):
                break
            byte = block[at - 1 : at]
            ends_element = self._step(byte)
            if self._depth == 1 and byte in {b"[", b","} and not ends_element:
                start = at  # the bracket of the array
            elif ends_element:
                self._element.take(block[start : at - 1], self._max_bytes)
                start = at
                yield from self._finished()
            if self.is_complete:
                self._has_trailing_data = bool(block[at:].strip(_WHITESPACE))
                return
        self._element.take(block[start:], self._max_bytes)

    def _string_end(self, block: bytes, at: int) -> int:
        """Return the position after the string, or after the block if the string continues."""
        match = _STRING_REST.match(block, at)
        at = len(block) if match is None else match.end()
        if block[at : at + 1] == b'"':
            self._in_string = False
        elif at < len(block):  # a backslash at the end of the block
            self._is_escaped = True
        return at + 1

    def _step(self, byte: bytes) -> bool:
        """Follow one structural byte; return whether it ends an element of the array."""
        if byte == b'"':
            self._in_string = True
        elif byte in _OPENING:
            self._depth += 1
        elif byte == b",":
            return self._depth == 1
        else:
            self._depth -= 1
            self.is_complete = self._depth <= 0
            return self.is_complete
        return False

    def _finished(self) -> Iterator[Element]:
        element, self._element = self._element, _Element()
        raw = element.text()
        if not element.size or (self.is_complete and not raw and element.reason is None):
            return
        self._number += 1
        yield Element(self._number, raw, element.reason)


@dataclass(slots=True)
class _Element:
    """The bytes of the element that is being split."""

    pieces: list[bytes] = field(default_factory=list)
    size: int = 0
    reason: str | None = None

    def take(self, piece: bytes, max_bytes: int) -> None:
        """Add bytes, unless the element is too large."""
        if not self.size:
            piece = piece.lstrip(_WHITESPACE)
        self.size += len(piece)
        if self.size > max_bytes:
            self.reason = f"is longer than {max_bytes // 2**20} MiB"
            self.pieces.clear()
        elif piece:
            self.pieces.append(piece)

    def text(self) -> bytes:
        """Return the bytes without surrounding whitespace."""
        return b"".join(self.pieces).strip(_WHITESPACE)
