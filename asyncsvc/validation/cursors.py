"""Cursors of paginated lists: opaque text that holds the end of a page.

A cursor holds the sort key and the id of the last item, and a fingerprint of the filters. It grants
no access: the tenant comes from the call, and each part is bound as a parameter. So it needs no
signature.
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from asyncsvc.errors import InvalidInput
from asyncsvc.validation.limits import Limits
from asyncsvc.validation.types import UNSET, Id, Instant

Item = TypeVar("Item")

_MALFORMED: Final = "is not a cursor: pass `next` of a page unchanged"


class Position(NamedTuple):
    """The position of an item in a list ordered by time: its time and its id."""

    at: datetime
    id: str

    @property
    def number(self) -> int:
        """The id as a 64-bit number. Raises InvalidInput if it is not one."""
        number = int(self.id) if self.id.isascii() and self.id.isdigit() else -1
        if not 0 <= number < 2**63:
            raise InvalidInput("after", _MALFORMED)
        return number


class _Payload(BaseModel):
    """The content of a cursor."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    at: Instant
    id: Id
    filters: str


def fingerprint(filters: Mapping[str, object]) -> str:
    """Return 16 hex characters that are equal for equal filters, in any order of their names."""
    present = {name: value for name, value in filters.items() if value is not UNSET}
    canonical = json.dumps(present, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def next_cursor(
    items: Sequence[Item], size: int, position_of: Callable[[Item], Position], filters: str
) -> str | None:
    """Return the cursor after the first `size` items, or None if there are no further items."""
    if len(items) <= size:
        return None
    position = position_of(items[size - 1])
    payload = _Payload(at=position.at, id=position.id, filters=filters)
    return urlsafe_b64encode(payload.model_dump_json().encode()).decode().rstrip("=")


def decode_cursor(cursor: str, filters: str, limits: Limits) -> Position:
    """Decode a cursor. Raises InvalidInput if it is malformed or belongs to other filters."""
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        payload = _Payload.model_validate_json(text, context=limits)
    except (ValueError, ValidationError):
        raise InvalidInput("after", _MALFORMED) from None
    if payload.filters != filters:
        raise InvalidInput("after", "belongs to another query: keep filters and order unchanged")
    return Position(payload.at, payload.id)
