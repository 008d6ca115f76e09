"""Checks of JSON values, and their text, in linear time and in steps of a few milliseconds."""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final

from asyncsvc.threads import pause_if_apart
from asyncsvc.validation.inputs import invalid_value
from asyncsvc.validation.limits import Limits

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_SORTING_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True)
_STEP: Final = 1_000
_SMALL: Final = 4_000
"""The maximum size of a value for one call of the encoder. Other threads wait during a call."""
_CHARACTERS_PER_VALUE: Final = 16
_MAX_SIZE: Final = 2**62
_MAX_TEXT: Final = 2**17
"""The characters of a string that one call of the encoder takes."""
_TEXT: Final = frozenset({str})
_SCALARS: Final = frozenset({float, bool, type(None)})
_MAX_LEVELS: Final = 1_000
_EXPONENT: Final = re.compile(
    r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|(?P<number>-?\d(?:\.\d+)?e(?P<exponent>[+-]\d+))'
)
"""A string, or a float with an exponent, which the encoder writes with 1 digit before the point."""


class _TextPiece(str):
    """A part of the text of a string."""

    __slots__ = ()


def json_text(value: object) -> str:
    """Return a valid JSON value as text. Raises ValueError for NaN and infinity."""
    return "".join(_pieces(value, _ENCODER))


def canonical_json(value: object) -> str:
    """Return a valid JSON value as text. Equal values give equal text: keys are sorted."""
    return "".join(_pieces(value, _SORTING_ENCODER))


def stored_json(value: object) -> str:
    """Return a JSON value as text for jsonb. In it, 1e+23 stays a float."""
    if value == {}:
        return "{}"
    return "".join(map(_without_exponents, _pieces(value, _ENCODER)))


def stored_size(value: object) -> int:
    """Return an upper bound of the size in bytes of a valid JSON value as jsonb returns it."""
    return sum(map(_stored_size, _pieces(value, _ENCODER)))


def approximate_size(value: object) -> int:
    """Return about the number of characters of a valid JSON value, without its encoding."""
    if isinstance(value, str):
        return len(value)
    if value and isinstance(value, dict | list):
        return _CHARACTERS_PER_VALUE * (_MAX_SIZE - _size_left(value, _MAX_SIZE))
    return 0


def check_json(value: object, limits: Limits) -> None:
    """Check that PostgreSQL can store the JSON and Python can read it."""
    is_small = count_values(value, limits) <= _SMALL and not isinstance(value, str)
    size, has_nul = 0, False
    try:
        for piece in [_ENCODER.encode(value)] if is_small else _pieces(value, _ENCODER):
            size += _stored_size(piece)
            has_nul = has_nul or _has_nul(piece)
    except UnicodeEncodeError:
        raise invalid_value("must not contain a lone surrogate") from None
    except ValueError:
        raise invalid_value(
            "must not contain NaN, infinity or integers of over 4,300 digits"
        ) from None
    if size > limits.max_json_bytes:
        raise _too_large(limits)
    if has_nul:
        raise invalid_value("must not contain a NUL character")


def _has_nul(piece: str) -> bool:
    r"""Return whether a string contains NUL. Without `\\`, each backslash begins an escape."""
    return "\\u0000" in piece and "\\u0000" in piece.replace(r"\\", "")


def _pieces(value: object, encoder: json.JSONEncoder) -> Iterator[str]:
    """Yield the text of a valid JSON value in pieces, each of which takes about a millisecond.

    A piece contains whole numbers, and whole strings or a part of one.
    """
    pause_if_apart()
    if isinstance(value, dict) and not _is_small(value):
        yield from _pieces_of_dict(value, encoder)
    elif isinstance(value, list) and not _is_small(value):
        yield from _pieces_of_list(value, encoder)
    elif isinstance(value, str) and len(value) > _MAX_TEXT:
        yield from _pieces_of_text(value, encoder)
    else:
        yield encoder.encode(value)


def _pieces_of_text(text: str, encoder: json.JSONEncoder) -> Iterator[str]:
    yield '"'
    for start in range(0, len(text), _MAX_TEXT):
        pause_if_apart()
        yield _TextPiece(encoder.encode(text[start : start + _MAX_TEXT])[1:-1])
    yield '"'


def _pieces_of_list(values: Sequence[object], encoder: json.JSONEncoder) -> Iterator[str]:
    separator = "["
    for start in range(0, len(values), _STEP):
        part = values[start : start + _STEP]
        if _is_small(part):
            pause_if_apart()
            yield separator + encoder.encode(part)[1:-1]
            separator = ", "
            continue
        for value in part:
            yield separator
            yield from _pieces(value, encoder)
            separator = ", "
    yield "]"


def _pieces_of_dict(values: Mapping[str, object], encoder: json.JSONEncoder) -> Iterator[str]:
    items = list(values.items())
    if encoder.sort_keys:
        parts = (items[start : start + _STEP] for start in range(0, len(items), _STEP))
        items = list(heapq.merge(*map(sorted, parts)))
    separator = "{"
    for start in range(0, len(items), _STEP):
        part = dict(items[start : start + _STEP])
        if _is_small(part):
            pause_if_apart()
            yield separator + encoder.encode(part)[1:-1]
            separator = ", "
            continue
        for name, value in part.items():
            yield separator
            yield from _pieces(name, encoder)
            yield ": "
            yield from _pieces(value, encoder)
            separator = ", "
    yield "}"


def _is_small(container: object) -> bool:
    return _size_left(container, _SMALL) >= 0


def _stored_size(piece: str) -> int:
    size = len(piece.encode())
    if _may_have_exponent(piece):
        size += sum(
            abs(int(number["exponent"])) + len(".0")
            for number in _EXPONENT.finditer(piece)
            if number["exponent"]
        )
    return size


def _without_exponents(piece: str) -> str:
    return _EXPONENT.sub(_without_exponent, piece) if _may_have_exponent(piece) else piece


def _may_have_exponent(piece: str) -> bool:
    """Return whether a piece may contain a float with an exponent. A string contains none."""
    is_text = type(piece) is _TextPiece or piece[0] == '"'
    return not is_text and ("e+" in piece or "e-" in piece)


def count_values(value: object, limits: Limits) -> int:
    """Check the types and the depth of a value, and return the approximate number of its parts."""
    if isinstance(value, str | int | float) or value is None:
        return 0
    try:
        left = _size_left(value, limits.max_json_bytes, levels=limits.max_json_depth)
    except RecursionError:
        raise invalid_value(f"must be at most {limits.max_json_depth} levels deep") from None
    if left < 0:  # each part takes 1 byte or more
        raise _too_large(limits)
    return limits.max_json_bytes - left


def _size_left(container: object, budget: int, *, levels: int = _MAX_LEVELS) -> int:
    """Return the budget minus the size of a container: its values, and the length of its texts.

    It stops when the budget is negative, so it also ends for a list that contains another list many
    times. Raises RecursionError for more than `levels` levels.
    """
    if isinstance(container, dict) and (
        set(map(type, container)) <= _TEXT or all(isinstance(key, str) for key in container)
    ):
        values: Collection[object] = container.values()
        budget -= sum(map(len, container)) // _CHARACTERS_PER_VALUE
    elif isinstance(container, list):
        values = container
    else:
        raise invalid_value("must be JSON: text, numbers, booleans, null, lists and objects")
    if levels == 0:
        raise RecursionError
    budget -= len(values)
    for value in values if budget >= 0 else ():
        if isinstance(value, str):
            budget -= len(value) // _CHARACTERS_PER_VALUE
        elif type(value) is int:
            budget -= value.bit_length() // 8  # the encoder's time grows with the square of this
        elif type(value) not in _SCALARS and not isinstance(value, int | float):
            budget = _size_left(value, budget, levels=levels - 1)
            if budget < 0:
                break
    return budget


def _too_large(limits: Limits) -> Exception:
    return invalid_value(f"must be at most {limits.max_json_bytes} bytes of JSON")


def _without_exponent(match: re.Match[str]) -> str:
    """Return 1e+23 with all its digits and a fraction; strings and 1e-23 stay unchanged."""
    exponent = match["exponent"]
    is_large = exponent is not None and exponent[0] == "+"
    return f"{Decimal(match[0]):f}.0" if is_large else match[0]
