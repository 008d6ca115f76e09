"""Unicode's form NFC in linear time and in steps of about a millisecond.

`unicodedata.normalize` sorts a run of combining marks by insertion, so its time grows with the
square of the run. It also keeps other threads waiting until it returns. Here a long text is
normalized in pieces, and a piece with a long run of marks in Python.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from asyncsvc.threads import pause_if_apart

_PIECE: Final = 2**13
_SAMPLE_DISTANCE: Final = 32
_OTHER: Final = (
    r"\x00-\u02ff\u2000-\u20cf\u2100-\u2cee\u3000-\u3029\ufe50-\U000101fc\U0001f000-\U0001ffff"
)
_MARK: Final = rf"[^\w{_OTHER}]"
"""All combining marks, and some other characters. The others cost time, but change no result."""
_SAMPLED_RUN: Final = re.compile(_MARK + "{3}")
"""Each run of 96 marks or more has 3 samples in a row."""
_BOUNDARY: Final = re.compile(
    rf"[{_OTHER}]|(?![\u1160-\u11ff])\w"
    r"|(?<=[\u1160-\u11ff])[\u1160-\u11a7]|(?<=[\u11a8-\u11ff])[\u11a8-\u11ff]"
)
"""A character that never composes with the previous text, so a piece can start with it.

A Hangul vowel composes with a leading consonant, a trailing consonant with a vowel.
"""


def to_nfc(text: str) -> str:
    """Return the text in NFC."""
    if text.isascii():
        return text
    pieces, start = [], 0
    while start < len(text):
        end = _next_boundary(text, start + _PIECE)
        pieces.append(_piece_to_nfc(text[start:end]))
        start = end
        pause_if_apart()
    return "".join(pieces)


def _next_boundary(text: str, start: int) -> int:
    """Return the position of the next boundary, or the end of the text."""
    while start < len(text):
        boundary = _BOUNDARY.search(text, start, start + _PIECE)
        if boundary is not None:
            return boundary.start()
        start += _PIECE
        pause_if_apart()
    return len(text)


def _piece_to_nfc(piece: str) -> str:
    if len(piece) <= 2 * _PIECE and not _SAMPLED_RUN.search(piece[::_SAMPLE_DISTANCE]):
        return unicodedata.normalize("NFC", piece)
    characters = _composed(_in_canonical_order(_decomposed(piece)))
    starts = range(0, len(characters), _PIECE)
    return "".join("".join(characters[start : start + _PIECE]) for start in starts)


def _decomposed(text: str) -> Iterator[tuple[str, int]]:
    """Yield the characters of the text in NFD, unsorted, with their combining classes."""
    known: dict[str, list[tuple[str, int]]] = {}
    for position, character in enumerate(text):
        if position % _PIECE == 0:
            pause_if_apart()
        parts = known.get(character)
        if parts is None:
            nfd = unicodedata.normalize("NFD", character)
            parts = known[character] = [(part, unicodedata.combining(part)) for part in nfd]
        yield from parts


def _in_canonical_order(characters: Iterable[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """Sort the marks between two starters (characters of class 0) by combining class."""
    marks: defaultdict[int, list[str]] = defaultdict(list)
    for character, combining_class in characters:
        if combining_class:
            marks[combining_class].append(character)
            continue
        yield from _sorted(marks)
        marks.clear()
        yield character, 0
    yield from _sorted(marks)


def _sorted(marks: dict[int, list[str]]) -> Iterator[tuple[str, int]]:
    for combining_class in sorted(marks):
        for position, mark in enumerate(marks[combining_class]):
            if position % _PIECE == 0:
                pause_if_apart()
            yield mark, combining_class


def _composed(characters: Iterable[tuple[str, int]]) -> list[str]:
    """Compose characters in canonical order (Unicode, section 3.11, D117).

    A character composes with the last starter if no character between them has class 0, the same
    class or a higher one.
    """
    composed: list[str] = []
    known: dict[str, str] = {}
    starter, last_class = None, 0
    for character, combining_class in characters:
        if starter is not None and (last_class == 0 or last_class < combining_class):
            pair = composed[starter] + character
            composite = known.get(pair) or known.setdefault(
                pair, unicodedata.normalize("NFC", pair)
            )
            if len(composite) == 1:
                composed[starter] = composite
                continue
        if combining_class == 0:
            starter = len(composed)
        last_class = combining_class
        composed.append(character)
    return composed
