"""RAGFlow's rows, built from the models of this library.

`metadata["ragflow"]` of a conversation contains the parts of an imported row without a column here.
"""

from __future__ import annotations

import hashlib
from collections import deque
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import repeat
from types import SimpleNamespace
from typing import Any, Final

from asyncsvc.errors import InvalidInput
from asyncsvc.models import APIToken, Conversation
from asyncsvc.ragflow import messages
from asyncsvc.ragflow.row_state import RowMessages, RowState, Snapshot
from asyncsvc.repositories.session import Session

METADATA_KEY: Final = "ragflow"
"""This package's key in the metadata of conversations and betas."""
_MAX_USER_LENGTH: Final = 128
_USER_PREFIX_LENGTH: Final = 95
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


class Record(SimpleNamespace):
    """A row whose columns are attributes that the caller may change."""

    def to_dict(self) -> dict[str, Any]:
        """Return the columns as a dict. As in RAGFlow, changes of the dict change the record."""
        return vars(self)


def short_user_id(user_id: str) -> str:
    """Return the user id; if it has over 128 characters, return its beginning and a hash.

    Raises InvalidInput for a long id that is not valid Unicode.
    """
    if len(user_id) <= _MAX_USER_LENGTH:
        return user_id
    try:
        digest = hashlib.sha256(user_id.encode()).hexdigest()
    except UnicodeEncodeError:
        raise InvalidInput("user_id", "must not contain a lone surrogate") from None
    hash_length = _MAX_USER_LENGTH - _USER_PREFIX_LENGTH - 1
    return f"{user_id[:_USER_PREFIX_LENGTH]}~{digest[:hash_length]}"


def conversation_row(stored: Conversation, local: tzinfo) -> dict[str, Any]:
    """Return a conversation and its messages as a row of api_4_conversation."""
    items = stored.messages or ()
    answers = [each.reference for each in items if each.role == messages.ANSWER]
    is_answer_first = bool(items) and items[0].role == messages.ANSWER
    return _row(
        stored,
        list(map(messages.join, items)),
        messages.list_references(answers, is_answer_first=is_answer_first),
        local,
    )


def session_row(session: Session, local: tzinfo) -> dict[str, Any]:
    """Return a conversation and its messages as a row that remembers what the database has."""
    stored, roles = session.conversation, session.roles
    joined = session.payloads
    for name, values in (("role", roles), ("content", session.contents)):
        deque(map(dict.setdefault, joined, repeat(name), values), maxlen=0)
    for message, thumb in zip(joined, session.thumbs, strict=True):
        if thumb is not None:
            message["thumbup"] = thumb == 1
    references = list[Any]()
    if session.references.count(None) < len(roles):
        pairs = zip(roles, session.references, strict=True)
        answers = [reference for role, reference in pairs if role == messages.ANSWER]
        is_answer_first = roles[0] == messages.ANSWER
        references = messages.list_references(answers, is_answer_first=is_answer_first)
    state = RowState.of(stored, Snapshot.of(joined), has_references=bool(references))
    return _row(stored, RowMessages(joined, state), references, local)


def _row(
    stored: Conversation, joined: list[dict[str, Any]], references: list[Any], local: tzinfo
) -> dict[str, Any]:
    kept = kept_values(stored)
    whole_reference = kept_reference(stored)
    return {
        "id": stored.id,
        "name": stored.name,
        "dialog_id": stored.dialog_id,
        "user_id": _whole_user_id(stored.user_id, kept.get("user_id")),
        "exp_user_id": _whole_user_id(stored.exp_user_id, kept.get("exp_user_id")),
        "message": joined,
        "reference": references if references or whole_reference is None else whole_reference,
        "tokens": stored.tokens,
        "source": stored.source,
        "dsl": {} if stored.dsl is None else stored.dsl,
        "duration": stored.duration,
        "round": stored.round,
        "thumb_up": stored.thumb_up + kept.get("thumb_up", 0),
        "errors": stored.errors,
        "version_title": stored.version_title,
        **times(stored.created_at, stored.updated_at, local),
    }


def kept_values(stored: Conversation | APIToken) -> dict[str, Any]:
    """Return the values that this package keeps in the metadata."""
    kept = (stored.metadata or {}).get(METADATA_KEY)
    return kept if isinstance(kept, dict) else {}


def kept_reference(stored: Conversation) -> dict[str, Any] | None:
    """Return the reference of a conversation of an old dialog: an object instead of a list."""
    reference = kept_values(stored).get("reference")
    return reference if isinstance(reference, dict) else None


def _whole_user_id(user_id: str | None, kept: object) -> str | None:
    """Return the id before it was shortened, unless a different id was set later."""
    return kept if isinstance(kept, str) and short_user_id(kept) == user_id else user_id


def times(created: datetime, updated: datetime | None, local: tzinfo) -> dict[str, Any]:
    """Return the 4 times of a row: milliseconds since 1970, and local times in whole seconds."""
    return {
        "create_time": milliseconds(created),
        "create_date": _local_time(created, local),
        "update_time": None if updated is None else milliseconds(updated),
        "update_date": None if updated is None else _local_time(updated, local),
    }


def milliseconds(moment: datetime) -> int:
    """Return the milliseconds since 1970."""
    return (moment - _EPOCH) // _MILLISECOND


def _local_time(moment: datetime, local: tzinfo) -> datetime:
    return moment.astimezone(local).replace(tzinfo=None, microsecond=0)
