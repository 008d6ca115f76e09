"""Arguments of RAGFlow's routes: a value that no row can have matches no row, without an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeGuard

from asyncsvc.errors import InvalidInput
from asyncsvc.ragflow.shapes import short_user_id
from asyncsvc.validation.dates import instants
from asyncsvc.validation.types import UNSET

_MAX_ID_LENGTH: Final = 128
_MAX_KEYWORDS_LENGTH: Final = 512


def is_storable_id(value: object) -> TypeGuard[str]:
    """Return whether a row can have this id."""
    return isinstance(value, str) and 0 < len(value) <= _MAX_ID_LENGTH and _is_storable(value)


def storable_ids(values: Iterable[object], name: str) -> list[str]:
    """Return the ids that a row can have, without duplicates, in the same order.

    Raises InvalidInput if the values are not a collection.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidInput(name, "must be a list of ids")
    return list(dict.fromkeys(filter(is_storable_id, values)))


def stored_users(users: Mapping[str, object]) -> dict[str, str] | None:
    """Return the stored form of user ids, by column, or None if no row can have one of them.

    Only `user_id` may be empty: a visitor without an id has an empty one.
    """
    stored = {
        name: short_user_id(user)
        for name, user in users.items()
        if isinstance(user, str) and _is_storable(user) and (user or name == "user_id")
    }
    return stored if len(stored) == len(users) else None


def search_text(keywords: object) -> str | None:
    """Return the searchable part of the keywords, or None if no text can contain them.

    Raises InvalidInput for keywords that are not text.
    """
    if not isinstance(keywords, str):
        raise InvalidInput("keywords", "must be text")
    return keywords[:_MAX_KEYWORDS_LENGTH] if _is_storable(keywords) else None


def is_empty_period(from_date: str | None, to_date: str | None, tz: str) -> bool:
    """Return whether the first instant is after the last. Raises InvalidInput for invalid dates."""
    start, _ = instants(from_date, None, tz)
    _, end = instants(None, to_date, tz)
    return start is not UNSET and end is not UNSET and start >= end


def _is_storable(text: str) -> bool:
    """Return whether PostgreSQL can store the text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in text
