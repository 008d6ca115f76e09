"""Cursors: where a page ended, as opaque text.

A cursor holds the sort key and the id of the last item, and a fingerprint of the filters that it
belongs to. It grants nothing: the tenant always comes from the call, and each part is bound as a
parameter. So it is not signed.
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from asyncsvc.errors import InvalidInput
from asyncsvc.validation.limits import Limits
from asyncsvc.validation.types import UNSET, Id, Instant

Place: TypeAlias = tuple[datetime, str]
"""Where an item is in an order by time: its time and its id."""

Item = TypeVar("Item")

_NO_CURSOR: Final = "is not a cursor: pass `next` of a page unchanged"


class Position(BaseModel):
    """The place in an ordered list behind which the next page begins."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    at: Instant
    id: Id
    filters: str


def fingerprint(filters: Mapping[str, object]) -> str:
    """Return what a cursor remembers of its filters: the same for equal ones, in any order."""
    present = {name: value for name, value in filters.items() if value is not UNSET}
    canonical = json.dumps(present, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def following(
    items: Sequence[Item], size: int, place: Callable[[Item], Place], filters: str
) -> str | None:
    """Return the cursor behind a page of this size, or None where no other item is behind it."""
    if len(items) <= size:
        return None
    at, id = place(items[size - 1])
    position = Position(at=at, id=id, filters=filters)
    return urlsafe_b64encode(position.model_dump_json().encode()).decode().rstrip("=")


def number(position: Position) -> int:
    """Return the id of a place in a list whose ids are 64-bit numbers. Raises InvalidInput."""
    try:
        found = int(position.id)
    except ValueError:
        found = -1
    if not 0 <= found < 2**63:
        raise InvalidInput("after", _NO_CURSOR)
    return found


def decode(cursor: str, filters: str, limits: Limits) -> Position:
    """Read a cursor. Raises InvalidInput when it is none of ours, or belongs to other filters."""
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        position = Position.model_validate_json(text, context=limits)
    except (ValueError, ValidationError):
        raise InvalidInput("after", _NO_CURSOR) from None
    if position.filters != filters:
        raise InvalidInput("after", "belongs to another query: keep filters and order unchanged")
    return position
