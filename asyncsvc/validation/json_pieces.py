"""Parse JSON of any size in turns with the event loop.

Python's parser takes a whole text in one call, during which no other thread runs. So a long text is
cut between the members of its lists and objects, and the parser gets one piece after another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, Literal

from asyncsvc.threads import in_turns

LONG_JSON: Final = 2**17
"""A text of more characters is parsed in pieces. One of so many takes 1 or 2 milliseconds."""
_PIECE: Final = 2**13
"""The characters of a piece, which takes less than a millisecond. One of brackets takes several."""
_SKIPPED_LEVELS: Final = 4
_CLOSING: Final = frozenset("]}")
_WHITESPACE: Final = " \t\n\r"

_PLAIN: Final = r'[^"\[\]{}]*+'
_STRING: Final = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'


def _to_bracket(levels: int) -> str:
    """Return a pattern up to a bracket. It skips lists and objects of so many levels."""
    skipped = rf"|[\[{{]{_to_bracket(levels - 1)}[\]}}]" if levels else ""
    return f"{_PLAIN}(?:(?:{_STRING}{skipped}){_PLAIN})*+"


_TO_BRACKET: Final = re.compile(_to_bracket(_SKIPPED_LEVELS), re.DOTALL)
"""Up to a bracket, or to a string that is longer than the range of the search."""
_TO_STRUCTURE: Final = re.compile(r'[^"\[\]{},]*+')
_WHOLE_STRING: Final = re.compile(_STRING, re.DOTALL)
_CHARACTERS: Final = re.compile(r'[^"\\]*+(?:\\(?:u[0-9a-fA-F]{4}|[^u])[^"\\]*+)*+')
"""The characters of a string, up to its end or to an escape that is cut."""
_LOW_SURROGATE: Final = re.compile(r"(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?+")
_COLON: Final = re.compile(r"[ \t\n\r]*+:")


async def parse_json(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value of JSON as `json.loads` does, in turns with the event loop.

    Raises ValueError if the text is not JSON. The time is linear in the length of the text.
    """
    if len(text) <= LONG_JSON:
        return json.loads(text)
    parser = _Parser(text)
    async for _ in in_turns(parser.steps()):
        pass
    return parser.value()


class _Parser:
    """The state of the parser between two pieces."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._open: list[list[Any] | dict[str, Any]] = [[]]
        """The containers that are open at this position, in a list for the whole value."""
        self._key: str | None = None
        """The key before this position, if its value is still to come."""
        self._next: Literal["first", "member", "end"] = "first"
        """A first member or the end of the container, a member, or a comma or the end."""

    def value(self) -> Any:  # noqa: ANN401 - any JSON value
        """Return the value after all steps."""
        ((value,),) = self._open
        return value

    def steps(self) -> Iterator[None]:
        """Parse the text. Each step takes about a millisecond."""
        while self._at <= len(self._text):
            end, brackets = self._find_end()
            for bracket in brackets:
                self._parse_before(bracket)
                container: list[Any] | dict[str, Any] = {} if self._text[bracket] == "{" else []
                self._put(container)
                self._open.append(container)
                self._at, self._next = bracket + 1, "first"
            if not brackets and self._text[end : end + 1] == '"':
                self._parse_before(end)
                yield from self._parse_string(end + 1)
            elif not brackets:
                self._parse_to(end)
            yield

    def _find_end(self) -> tuple[int, list[int]]:
        """Return the end of the next piece, and the brackets that are open there.

        The end is a comma, the bracket that closes the container, the quote of a long string, or
        the end of the text.
        """
        text, at, brackets = self._text, self._at, list[int]()
        # After a key comes 1 value, and after a container or a long string a comma or an end.
        is_one = self._key is not None or self._next == "end"
        min_end = at if is_one else at + _PIECE
        while at < min_end or not brackets:
            if at < min_end:
                at = _match_end(_TO_BRACKET, text, at, min_end)
            at = _match_end(_TO_STRUCTURE, text, at, len(text))
            character = text[at : at + 1]
            if character == '"' and (string := _WHOLE_STRING.match(text, at, at + _PIECE)):
                at = string.end()
                continue
            if character in {'"', ",", ""} or (character in _CLOSING and not brackets):
                break
            if character in _CLOSING:
                brackets.pop()
            else:
                brackets.append(at)
            at += 1
        return at, brackets

    def _parse_before(self, end: int) -> None:
        """Parse the members before a container or a long string, and its key."""
        container, members = self._open[-1], self._members(end)
        if self._next == "end" or (members and self._key is not None):
            raise _error()
        if isinstance(container, list):
            container += json.loads(f'[{members}""]')[:-1]
        elif members.endswith(":"):
            container |= json.loads(f'{{{members}""}}')
            self._key = json.loads(_last_string(members))
        elif members:  # a long key follows
            if members == "," or not members.endswith(","):
                raise _error()
            container |= json.loads(f"{{{members[:-1]}}}")

    def _parse_string(self, start: int) -> Iterator[None]:
        """Parse a long string, a value or a key. Escapes and surrogate pairs are not cut."""
        text, at, parts = self._text, start, list[str]()
        while text[at : at + 1] != '"':
            end = _match_end(_CHARACTERS, text, at, at + _PIECE)
            end = _match_end(_LOW_SURROGATE, text, end, len(text))
            if end == at:
                raise _error()
            parts.append(json.loads(f'"{text[at:end]}"'))
            at = end
            yield
        self._at = at + 1
        if isinstance(self._open[-1], list) or self._key is not None:
            self._put("".join(parts))
        elif colon := _COLON.match(text, self._at):
            self._key, self._at = "".join(parts), colon.end()
        else:
            raise _error()

    def _parse_to(self, end: int) -> None:
        """Parse the members up to a comma, or to the end of the container or the text."""
        container, members = self._open[-1], self._members(end)
        character = self._text[end : end + 1]
        is_empty = self._next == "end" or (
            self._next == "first" and character != "," and not members
        )
        if is_empty == bool(members):
            raise _error()
        if self._key is not None:
            (value,) = json.loads(f"[{members}]")
            self._put(value)
        elif isinstance(container, list):
            container += json.loads(f"[{members}]")
        else:
            container |= json.loads(f"{{{members}}}")
        self._at, self._next = end + 1, "member"
        if character != ",":
            self._close(character)

    def _close(self, character: str) -> None:
        """Close the container, or the list for the whole value at the end of the text."""
        is_list, is_whole = isinstance(self._open[-1], list), len(self._open) == 1
        if character != ("" if is_whole else "]" if is_list else "}"):
            raise _error()
        if not is_whole:
            self._open.pop()
        self._next = "end"

    def _members(self, end: int) -> str:
        return self._text[self._at : end].strip(_WHITESPACE)

    def _put(self, value: object) -> None:
        container = self._open[-1]
        if isinstance(container, list):
            container.append(value)
        elif self._key is not None:
            container[self._key], self._key = value, None
        else:
            raise _error()
        self._next = "end"


def _match_end(pattern: re.Pattern[str], text: str, start: int, end: int) -> int:
    match = pattern.match(text, start, end)
    return start if match is None else match.end()


def _last_string(text: str) -> str:
    """Return the last string of a text, with its quotes. Its first quote is not escaped."""
    end = text.rindex('"')
    start = text.rindex('"', 0, end)
    while text[start - 1 : start] == "\\":
        start = text.rindex('"', 0, start)
    return text[start : end + 1]


def _error() -> ValueError:
    return ValueError("is not JSON")
