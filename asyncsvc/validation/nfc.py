"""Unicode's form NFC in linear time.

`unicodedata.normalize` sorts a run of combining marks by insertion, so its time grows with the
square of the run. It also keeps other threads waiting until it returns. Here long runs are sorted
first, by buckets, and a long text is normalized in pieces.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from itertools import groupby
from typing import Final

_PIECE: Final = 2**14
_SAMPLE_DISTANCE: Final = 32
_OTHER: Final = (
    r"\x00-\u02ff\u2000-\u20cf\u2100-\u2cee\u3000-\u3029\ufe50-\U000101fc\U0001f000-\U0001ffff"
)
_MARK: Final = rf"[^\w{_OTHER}]"
"""All combining marks, and some other characters. The others cost time, but change no result."""
_SAMPLED_RUN: Final = re.compile(_MARK + "{3}")
"""Each run of 96 marks or more has 3 samples in a row."""
_RUN: Final = re.compile(rf"(?<!{_MARK}){_MARK}{{32,}}+")
_BOUNDARY: Final = re.compile(rf"[{_OTHER}]|(?![\u1160-\u11ff])\w")
"""A character that never composes with the previous text, so a piece can start with it."""


def to_nfc(text: str) -> str:
    """Return the text in NFC."""
    if text.isascii():
        return text
    pieces, start = [], 0
    while start < len(text):
        boundary = _BOUNDARY.search(text, start + _PIECE)
        end = len(text) if boundary is None else boundary.start()
        pieces.append(_piece_to_nfc(text[start:end]))
        start = end
    return "".join(pieces)


def _piece_to_nfc(piece: str) -> str:
    if _SAMPLED_RUN.search(piece[::_SAMPLE_DISTANCE]):
        piece = _RUN.sub(_in_canonical_order, piece)
    return unicodedata.normalize("NFC", piece)


def _in_canonical_order(run: re.Match[str]) -> str:
    """Decompose a run of marks and sort the marks between two starters by combining class."""
    decompositions = {ord(mark): unicodedata.normalize("NFD", mark) for mark in set(run[0])}
    marks = run[0].translate(decompositions)
    classes = {mark: unicodedata.combining(mark) for mark in set(marks)}
    ordered: list[str] = []
    for is_starter, part in groupby(marks, key=lambda mark: classes[mark] == 0):
        if is_starter:
            ordered += part
            continue
        by_class = defaultdict(list)
        for mark in part:
            by_class[classes[mark]].append(mark)
        for combining_class in sorted(by_class):
            ordered += by_class[combining_class]
    return "".join(ordered)
