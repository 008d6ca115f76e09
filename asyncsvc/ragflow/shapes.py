"""What RAGFlow's rows look like, made of this library's, and taken apart again.

RAGFlow keeps the messages of a conversation as one list of objects, and beside it a list of
references: one for each answer, in their order. A prologue that the conversation begins with is an
answer too, and in most cases has none: where there are fewer references than answers. Here a
message has its reference itself. What an imported conversation had that has no place here is in its
metadata, under `KEPT`.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from types import SimpleNamespace
from typing import Any, Final

from asyncsvc.errors import InvalidInput
from asyncsvc.models import APIToken, Conversation, StoredMessage, TokenRecord
from asyncsvc.validation.types import TokenKind

KEPT: Final = "ragflow"
"""The key in the metadata of a conversation and of a beta."""
UNKNOWN: Final = "unknown"
"""The role of a message that has none which can be stored."""
SECRETS: Final[Mapping[str, TokenKind]] = {"token": "api", "beta": "beta"}
"""The columns of a token's row that are secrets, and the kind of token that each is here."""
_OF_TOKENS: Final = frozenset(TokenRecord.model_fields) - {"secret", "kind"}
_LONGEST_ROLE: Final = 32
_LONGEST_USER: Final = 128
_LEFT_OF_USER: Final = 95
_ANSWER: Final = "assistant"
_NO_REFERENCE: Final[Mapping[str, Any]] = {"chunks": [], "doc_aggs": []}
"""What RAGFlow writes for an answer that quotes nothing."""
_THUMBS: Final = {True: 1, False: -1}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


class Record(SimpleNamespace):
    """A row with its columns as attributes, which its reader may change."""

    def to_dict(self) -> dict[str, Any]:
        """Return the columns as a dict."""
        return dict(vars(self))


def token_record(
    row: Mapping[str, Any], column: str, *, token_id: str | None = None
) -> dict[str, Any]:
    """Make the record of one of a row's secrets; a beta gets the id of the row's token."""
    record = {name: value for name, value in row.items() if name in _OF_TOKENS}
    metadata = row.get("metadata") or {}
    if token_id is not None and isinstance(metadata, Mapping):
        record["metadata"] = {**metadata, KEPT: {"row": token_id}}
    return record | {"secret": row[column], "kind": SECRETS[column]}


def row_of(beta: APIToken) -> str:
    """Return the id of the token whose row a beta belongs to; its own where it is of none."""
    return str(_kept(beta).get("row", beta.id))


def shortened(user_id: str) -> str:
    """Return the id that stands for a user's, which for RAGFlow may be too long: two stay two.

    Raises InvalidInput for a long one that cannot be stored.
    """
    if len(user_id) <= _LONGEST_USER:
        return user_id
    try:
        digest = hashlib.sha256(user_id.encode()).hexdigest()
    except UnicodeEncodeError:
        raise InvalidInput("user_id", "must not hold a lone surrogate") from None
    return f"{user_id[:_LEFT_OF_USER]}~{digest[: _LONGEST_USER - _LEFT_OF_USER - 1]}"


def split(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message of RAGFlow's as `role`, `content`, `payload` and `thumb`.

    A content that is no text is written as JSON, and a role that cannot be is "unknown"; both stay
    in the payload as they are. Raises InvalidInput for a content that is no JSON either.
    """
    role, content, thumb = message.get("role"), message.get("content"), message.get("thumbup")
    payload = {name: value for name, value in message.items() if name not in {"role", "content"}}
    if isinstance(thumb, bool):
        del payload["thumbup"]
    if not isinstance(role, str) or not 0 < len(role) <= _LONGEST_ROLE:
        payload |= {"role": role} if "role" in message else {}
        role = UNKNOWN
    if not isinstance(content, str):
        payload["content"] = content
        content = "" if content is None else _written(content)
    return {
        "role": role,
        "content": content,
        "payload": payload,
        "thumb": _THUMBS[thumb] if isinstance(thumb, bool) else None,
    }


def _written(content: object) -> str:
    try:
        return json.dumps(content, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        raise InvalidInput("message", "must be JSON, and not endlessly deep") from None


def joined(message: StoredMessage) -> dict[str, Any]:
    """Return a message as RAGFlow has it."""
    thumb = {} if message.thumb is None else {"thumbup": message.thumb == 1}
    return {"role": message.role, "content": message.content, **message.payload, **thumb}


def attach(messages: Sequence[dict[str, Any]], references: Iterable[Any]) -> list[Any]:
    """Set `reference` of each answer of a whole conversation; return what is left over."""
    left = list(references)
    answers = [message for message in messages if message["role"] == _ANSWER]
    if len(left) < len(answers) and answers[0] is messages[0]:
        del answers[0]
    for message, reference in zip(answers, left, strict=False):
        message["reference"] = reference
    return left[len(answers) :]


def references(messages: Sequence[StoredMessage]) -> list[Any]:
    """Return the references of a conversation's answers: one of each, or none at all."""
    found = [message.reference for message in messages if message.role == _ANSWER]
    if found and messages[0].role == _ANSWER and found[0] is None:
        del found[0]
    if all(each is None for each in found):
        return []
    return [dict(_NO_REFERENCE) if each is None else each for each in found]


def conversation(stored: Conversation, local: tzinfo) -> dict[str, Any]:
    """Return a conversation, with its messages, as a row of RAGFlow's."""
    messages = stored.messages or ()
    kept = _kept(stored)
    found = references(messages) or kept_reference(stored)
    return {
        "id": stored.id,
        "name": stored.name,
        "dialog_id": stored.dialog_id,
        "user_id": _whole(stored.user_id, kept.get("user_id")),
        "exp_user_id": _whole(stored.exp_user_id, kept.get("exp_user_id")),
        "message": [joined(message) for message in messages],
        "reference": [] if found is None else found,
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


def kept_reference(stored: Conversation) -> dict[str, Any] | None:
    """Return the reference of a whole conversation, an object, as dialogs of old have it."""
    reference = _kept(stored).get("reference")
    return reference if isinstance(reference, dict) else None


def _whole(user_id: str | None, kept: object) -> str | None:
    """Return a user's id as it was before it was shortened, unless it was set anew since."""
    return kept if isinstance(kept, str) and shortened(kept) == user_id else user_id


def _kept(stored: Conversation | APIToken) -> dict[str, Any]:
    kept = (stored.metadata or {}).get(KEPT)
    return kept if isinstance(kept, dict) else {}


def times(created: datetime, updated: datetime | None, local: tzinfo) -> dict[str, Any]:
    """Return the four times of a row: in milliseconds since 1970, and as local time without a zone.

    RAGFlow's local times are those of its server, and have whole seconds.
    """
    return {
        "create_time": _milliseconds(created),
        "create_date": _local(created, local),
        "update_time": None if updated is None else _milliseconds(updated),
        "update_date": None if updated is None else _local(updated, local),
    }


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND


def _local(moment: datetime, local: tzinfo) -> datetime:
    return moment.astimezone(local).replace(tzinfo=None, microsecond=0)


def is_same(stored: StoredMessage, given: Mapping[str, Any]) -> bool:
    """Say whether a message that was taken apart is this one: by role, text and, if it has one, id.

    A question and its answer have one id in RAGFlow.
    """
    id = given["payload"].get("id")
    return (
        stored.role == given["role"]
        and (id is None or stored.payload.get("id", id) == id)
        and _is_same_content(stored, given)
    )


def _is_same_content(stored: StoredMessage, given: Mapping[str, Any]) -> bool:
    if "content" in given["payload"] or "content" in stored.payload:  # it was no text
        nothing = object()
        return bool(
            stored.payload.get("content", nothing) == given["payload"].get("content", nothing)
        )
    return stored.content == unicodedata.normalize("NFC", given["content"])


def is_known(stored: Iterable[StoredMessage], given: Mapping[str, Any]) -> bool:
    """Say whether a message that was taken apart is one of these, and has an id to tell it by."""
    return given["payload"].get("id") is not None and any(
        is_same(message, given) for message in stored if message.payload.get("id") is not None
    )
