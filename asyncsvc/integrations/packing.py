"""Forms in which the adapters store the ids and the states of frameworks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic_core import to_jsonable_python

_MAX_ID_LENGTH: Final = 128
_SCALARS: Final = {str, int, float, bool}


def pack_id(*parts: str) -> str:
    """Return one id for several. Different parts have different ids.

    Returns:
        The parts as a JSON array, or its SHA-256 if that has more than 128 characters.
    """
    packed = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    if len(packed) <= _MAX_ID_LENGTH:
        return packed
    return "sha256:" + hashlib.sha256(packed.encode(errors="surrogatepass")).hexdigest()


def wrap_values(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a state, those that are no text, number or boolean in an array.

    A merge patch (RFC 7396) merges objects and removes the members that are null, but it replaces
    an array as a whole. A value that JSON has no form for is stored as its text.
    """
    return {
        key: value if type(value) in _SCALARS else _wrapped(value) for key, value in state.items()
    }


def unwrap_values(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state from which `wrap_values` made this one."""
    return {key: value[0] if isinstance(value, list) else value for key, value in stored.items()}


def _wrapped(value: object) -> object:
    stored = to_jsonable_python(value, serialize_unknown=True)
    return stored if type(stored) in _SCALARS else [stored]
