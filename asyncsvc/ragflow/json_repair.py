"""Parses JSON text from RAGFlow's database, and repairs values that PostgreSQL cannot store."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any, Final

from asyncsvc.ragflow.reports import Repair
from asyncsvc.validation.unstorable import UNSTORABLE, replace_in_text

_UNSTORABLE_ESCAPE: Final = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
"""Escapes that may stand for an unstorable character. A surrogate may be part of a pair."""
_MAX_INTEGER_DIGITS: Final = 4_300


class InvalidJSONError(ValueError):
    """A text is not JSON, or too deep for Python to parse."""


def storable_text(text: str) -> str:
    """Replace the characters that PostgreSQL cannot store."""
    return replace_in_text(text)[0]


def read_json(text: str, max_depth: int) -> tuple[Any, set[Repair]]:
    """Parse JSON and repair it.

    Args:
        text: The JSON. A JSON string that contains a list or an object as JSON becomes that value.
        max_depth: Lists and objects nested deeper become their JSON as text.

    Returns:
        The value, and the kinds of repairs.

    Raises:
        InvalidJSONError: The text is not JSON.
    """
    reader = _Reader()
    value = reader.parse(text)
    # Most text needs no cleaning, and visiting each value takes longer than parsing.
    if _may_be_unstorable(text) or text.count("[") + text.count("{") > max_depth:
        value = reader.clean(value, max_depth)
    if isinstance(value, str) and value.lstrip().startswith(("{", "[", '"')):
        return _unwrap(value, max_depth, reader.repairs)
    return value, reader.repairs


def _unwrap(text: str, max_depth: int, repairs: set[Repair]) -> tuple[Any, set[Repair]]:
    """Parse a JSON string; keep it if it contains no list or object."""
    try:
        value, inner_repairs = read_json(text, max_depth)
    except InvalidJSONError:
        return text, repairs
    if not isinstance(value, dict | list):
        return text, repairs
    return value, {*repairs, *inner_repairs, Repair.UNWRAPPED}


def _may_be_unstorable(text: str) -> bool:
    """Return whether JSON may contain a NUL or a lone surrogate, escaped or not."""
    if "\x00" in text or ("\\u" in text and _UNSTORABLE_ESCAPE.search(text)):
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


class _Reader:
    """Parses and cleans one text, and collects the kinds of repairs."""

    def __init__(self) -> None:
        self.repairs = set[Repair]()
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_int=self._integer,
            parse_float=self._float,
            parse_constant=self._float,  # NaN and infinity, which are not JSON
            strict=False,
        )

    def parse(self, text: str) -> Any:  # noqa: ANN401 - any JSON value
        try:
            return self._decoder.decode(text)
        except json.JSONDecodeError:
            raise InvalidJSONError("is not JSON") from None
        except RecursionError:
            raise InvalidJSONError("is JSON of thousands of levels") from None

    def clean(self, value: Any, max_depth: int) -> Any:  # noqa: ANN401 - any JSON value
        """Replace unstorable characters, and lists and objects that are too deep."""
        match value:
            case str() if UNSTORABLE.search(value):
                self.repairs.add(Repair.CHARACTERS)
                return storable_text(value)
            case list() | dict() if max_depth == 0:
                self.repairs.add(Repair.DEPTH)
                return self.clean(_json_text(value), 0)
            case list():
                return [self.clean(item, max_depth - 1) for item in value]
            case dict():
                return self._object(
                    (self.clean(name, 0), self.clean(item, max_depth - 1))
                    for name, item in value.items()
                )
        return value

    def _object(self, pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        pairs = list(pairs)
        value = dict(pairs)
        if len(value) < len(pairs):
            self.repairs.add(Repair.DUPLICATE_KEYS)
        return value

    def _integer(self, digits: str) -> int | str:
        if len(digits) <= _MAX_INTEGER_DIGITS:
            return int(digits)
        self.repairs.add(Repair.NUMBERS)
        return digits

    def _float(self, digits: str) -> float | None:
        value = float(digits)
        if math.isfinite(value):
            return value
        self.repairs.add(Repair.NUMBERS)
        return None


def _json_text(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        raise InvalidJSONError("is JSON of thousands of levels") from None
