"""Characters that PostgreSQL cannot store: NUL and lone surrogates."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Final

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


def replace_in_text(text: str) -> tuple[str, int]:
    """Replace the unstorable characters by U+FFFD; return the text and their number."""
    return UNSTORABLE.subn(REPLACEMENT, text)


def replace_in_json(value: object) -> tuple[object, int]:
    """Replace the unstorable characters of a JSON value by U+FFFD; return a copy and their number.

    The caller limits the depth. A key that equals another one after the replacement gets a number
    at its end, so that no value is lost.
    """
    match value:
        case str():
            return replace_in_text(value)
        case list() | tuple():
            items = [replace_in_json(item) for item in value]
            return [item for item, _ in items], sum(count for _, count in items)
        case dict():
            return _replace_in_object(value)
    return value, 0


def _replace_in_object(value: dict[str, object]) -> tuple[dict[str, object], int]:
    replaced = dict[str, object]()
    last_numbers: defaultdict[str, int] = defaultdict(lambda: 1)
    total = 0
    for name, item in value.items():
        key, key_count = replace_in_text(name) if isinstance(name, str) else (name, 0)
        base = key
        while key_count and (key in value or key in replaced):
            last_numbers[base] += 1
            key = f"{base}{last_numbers[base]}"
        replaced[key], count = replace_in_json(item)
        total += key_count + count
    return replaced, total
