"""Parse JSON of any depth, and give a reason for invalid JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from asyncsvc.exports.model import UnreadableError
from asyncsvc.exports.splitter import count_error, size_error

_WHITESPACE: Final = " \t\n\r"


def parse_object(raw: bytes, *, nan: Callable[[], None] | None = None) -> dict[str, object]:
    """Parse a JSON object. Raises UnreadableError.

    Args:
        raw: The bytes. They are counted first, since a parser needs memory for each value.
        nan: Called for each NaN or infinity, which becomes None. Without it they are invalid.
    """
    if reason := size_error(len(raw)) or count_error(raw):
        raise UnreadableError(reason)

    def constant(name: str) -> None:
        if nan is None:
            raise UnreadableError(f"is not JSON: {name}")
        nan()

    try:
        value = _parse(raw.decode("utf-8-sig"), constant)
    except UnicodeDecodeError:
        raise UnreadableError("is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise UnreadableError(f"is not JSON: {error.msg}, column {error.colno}") from None
    except ValueError:  # an integer of thousands of digits
        raise UnreadableError("is not JSON that can be read") from None
    if not isinstance(value, dict):
        raise UnreadableError("is not a JSON object")
    return value


def _parse(text: str, constant: Callable[[str], None]) -> object:
    decoder = json.JSONDecoder(parse_constant=constant)
    try:
        return decoder.decode(text)
    except RecursionError:
        return _DeepParser(text, decoder).parse()


class _DeepParser:
    """Parses JSON with a loop. It is slower than Python's decoder, but accepts any depth."""

    def __init__(self, text: str, decoder: json.JSONDecoder) -> None:
        self._text = text
        self._scalar = decoder.raw_decode
        self._at = 0

    def parse(self) -> object:
        """Return the value. Raises json.JSONDecodeError."""
        root: list[object] = []
        containers: list[dict[str, object] | list[object]] = [root]
        while containers:
            container = containers[-1]
            if container is root and root:
                break
            if container is not root and self._ends(container):
                containers.pop()
                continue
            key = self._key() if isinstance(container, dict) else None
            value = self._value()
            if isinstance(container, list):
                container.append(value)
            elif key is not None:
                container[key] = value
            if isinstance(value, dict | list):
                containers.append(value)
        if self._peek():
            raise json.JSONDecodeError("Extra data", self._text, self._at)
        return root[0]

    def _peek(self) -> str:
        """Skip whitespace and return the next character; the empty text at the end."""
        while (char := self._text[self._at : self._at + 1]) and char in _WHITESPACE:
            self._at += 1
        return char

    def _take(self, char: str) -> bool:
        is_next = self._peek() == char
        self._at += is_next
        return is_next

    def _ends(self, container: dict[str, object] | list[object]) -> bool:
        """Return whether the container ends here; otherwise skip the comma before its next item."""
        if self._take("}" if isinstance(container, dict) else "]"):
            return True
        if container and not self._take(","):
            raise json.JSONDecodeError("Expecting ',' delimiter", self._text, self._at)
        return False

    def _key(self) -> str:
        self._peek()
        key, self._at = self._scalar(self._text, self._at)
        if not isinstance(key, str) or not self._take(":"):
            raise json.JSONDecodeError("Expecting a name and ':'", self._text, self._at)
        return key

    def _value(self) -> object:
        """Return the next scalar, or an empty container for the items that follow."""
        if self._take("{"):
            return dict[str, object]()
        if self._take("["):
            return list[object]()
        value: object
        value, self._at = self._scalar(self._text, self._at)
        return value
