"""Checks of JSON values, and their text, in linear time and in steps of a few milliseconds."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from operator import itemgetter
from typing import Final

from asyncsvc.validation.inputs import invalid_value
from asyncsvc.validation.limits import Limits

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_SORTING_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True)
_STEP: Final = 1_000
_SMALL: Final = 20_000
"""The maximum number of values for one call of the encoder. Other threads wait during a call."""
_TEXT: Final = frozenset({str})
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_MAX_LEVELS: Final = 1_000
_ESCAPED_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_EXPONENT: Final = re.compile(
    r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|(?P<number>-?\d(?:\.\d+)?e(?P<exponent>[+-]\d+))'
)
"""A string, or a float with an exponent, which the encoder writes with 1 digit before the point."""


def json_text(value: object) -> str:
    """Return a valid JSON value as text. Raises ValueError for NaN and infinity."""
    return _text(value, _ENCODER)


def canonical_json(value: object) -> str:
    """Return a valid JSON value as text. Equal values give equal text: keys are sorted."""
    return _text(value, _SORTING_ENCODER)


def _text(value: object, encoder: json.JSONEncoder) -> str:
    is_small = not isinstance(value, list | dict) or _values_left(value, _SMALL) >= 0
    return _encode(value, encoder, is_small=is_small)


def _encode(value: object, encoder: json.JSONEncoder, *, is_small: bool) -> str:
    if value == {}:
        return "{}"
    if not is_small and isinstance(value, dict):
        return _text_of_dict(value, encoder)
    if not is_small and isinstance(value, list):
        return _text_of_list(value, encoder)
    return encoder.encode(value)


def _text_of_list(values: Sequence[object], encoder: json.JSONEncoder) -> str:
    """Encode a large list in steps."""
    if len(values) <= _STEP:
        return f"[{', '.join(_text(value, encoder) for value in values)}]"
    parts = (values[start : start + _STEP] for start in range(0, len(values), _STEP))
    return f"[{', '.join(_text(part, encoder)[1:-1] for part in parts)}]"


def _text_of_dict(values: Mapping[str, object], encoder: json.JSONEncoder) -> str:
    """Encode a large dict in steps."""
    items = list(values.items())
    if encoder.sort_keys:
        items.sort(key=itemgetter(0))
    if len(items) <= _STEP:
        texts = (f"{encoder.encode(key)}: {_text(value, encoder)}" for key, value in items)
        return f"{{{', '.join(texts)}}}"
    parts = (dict(items[start : start + _STEP]) for start in range(0, len(items), _STEP))
    return f"{{{', '.join(_text(part, encoder)[1:-1] for part in parts)}}}"


def stored_json(value: object) -> str:
    """Return a JSON value as text for jsonb. In it, 1e+23 stays a float."""
    text = json_text(value)
    return _EXPONENT.sub(_without_exponent, text) if "e+" in text else text


def stored_size(text: str) -> int:
    """Return an upper bound of the size in bytes of JSON text as jsonb returns it."""
    size = len(text.encode())
    if "e+" in text or "e-" in text:
        size += sum(
            abs(int(number["exponent"])) + len(".0")
            for number in _EXPONENT.finditer(text)
            if number["exponent"]
        )
    return size


def check_json(value: object, limits: Limits) -> int:
    """Check that PostgreSQL can store the JSON and Python can read it; return its stored size."""
    values = count_values(value, limits)
    try:
        text = _encode(value, _ENCODER, is_small=values <= _SMALL)
        size = stored_size(text)
    except UnicodeEncodeError:
        raise invalid_value("must not contain a lone surrogate") from None
    except ValueError:
        raise invalid_value(
            "must not contain NaN, infinity or integers of over 4,300 digits"
        ) from None
    if size > limits.max_json_bytes:
        raise _too_large(limits)
    # The plain search is hundreds of times faster than the exact one and almost always enough.
    if "\\u0000" in text and _ESCAPED_NUL.search(text):
        raise invalid_value("must not contain a NUL character")
    return size


def count_values(value: object, limits: Limits) -> int:
    """Check the types and the depth of a value, and return the approximate number of its parts."""
    if type(value) in _SCALARS or isinstance(value, str | int | float):
        return 0
    try:
        left = _values_left(value, limits.max_json_bytes, levels=limits.max_json_depth)
    except RecursionError:
        raise invalid_value(f"must be at most {limits.max_json_depth} levels deep") from None
    if left < 0:  # each part takes 1 byte or more
        raise _too_large(limits)
    return limits.max_json_bytes - left


def _values_left(container: object, budget: int, *, levels: int = _MAX_LEVELS) -> int:
    """Return the budget minus the number of values in a container. It stops when this is negative.

    Therefore it also ends for a list that contains another list many times. Raises RecursionError
    for more than `levels` levels.
    """
    if isinstance(container, dict) and (
        set(map(type, container)) <= _TEXT or all(isinstance(key, str) for key in container)
    ):
        values: Collection[object] = container.values()
    elif isinstance(container, list):
        values = container
    else:
        raise invalid_value("must be JSON: text, numbers, booleans, null, lists and objects")
    if levels == 0:
        raise RecursionError
    budget -= len(values)
    for value in values if budget >= 0 else ():
        if type(value) is int:
            budget -= value.bit_length() // 8  # the encoder's time grows with the square of this
        elif type(value) not in _SCALARS and not isinstance(value, str | int | float):
            budget = _values_left(value, budget, levels=levels - 1)
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
