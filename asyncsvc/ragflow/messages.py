"""RAGFlow's messages: one list of messages, and a separate list of references.

The list of references has one entry for each answer, in the same order. The prologue is an answer
at the start of a conversation. It usually has no reference; then there are fewer references than
answers. In this library each message has its own reference.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NotRequired, TypedDict

from asyncsvc.client import Services
from asyncsvc.errors import InvalidInput
from asyncsvc.models import Appended, StoredMessage

UNKNOWN_ROLE: Final = "unknown"
"""The role of a message whose own role is missing or cannot be stored."""
ANSWER: Final = "assistant"
_MAX_ROLE_LENGTH: Final = 32
_EMPTY_REFERENCE: Final[Mapping[str, Any]] = {"chunks": [], "doc_aggs": []}
"""RAGFlow's reference of an answer without quotations."""


Key = tuple[str, object, object]
"""Role, content and id of a message."""


class _Keyed(TypedDict):
    """The fields that identify a message."""

    role: str
    content: str
    payload: Mapping[str, Any]


class MessageFields(_Keyed):
    """A message of RAGFlow with the fields of `asyncsvc.models.MessageRecord`."""

    thumb: int | None
    reference: NotRequired[Any]
    created_at: NotRequired[datetime]


def split(message: Mapping[str, Any]) -> MessageFields:
    """Convert a message of RAGFlow to the fields of this library.

    Content of another type becomes JSON text, and an invalid role becomes "unknown". The payload
    keeps the original values. Raises InvalidInput if the content cannot be written as JSON.
    """
    role, content, thumb = message.get("role"), message.get("content"), message.get("thumbup")
    payload = {name: value for name, value in message.items() if name not in {"role", "content"}}
    if isinstance(thumb, bool):
        del payload["thumbup"]
    if not isinstance(role, str) or not 0 < len(role) <= _MAX_ROLE_LENGTH:
        payload |= {"role": role} if "role" in message else {}
        role = UNKNOWN_ROLE
    if not isinstance(content, str):
        payload["content"] = content
        content = "" if content is None else _json_text(content)
    return {
        "role": role,
        "content": content,
        "payload": payload,
        "thumb": (1 if thumb else -1) if isinstance(thumb, bool) else None,
    }


def _json_text(content: object) -> str:
    try:
        return json.dumps(content, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        raise InvalidInput("message", "must be JSON of limited depth") from None


def join(message: StoredMessage) -> dict[str, Any]:
    """Convert a stored message to RAGFlow's form."""
    thumb = {} if message.thumb is None else {"thumbup": message.thumb == 1}
    return {"role": message.role, "content": message.content, **message.payload, **thumb}


def attach_references(
    messages: Sequence[MessageFields],
    references: Sequence[Any],
    *,
    new_from: int = 0,
    has_references: bool = True,
) -> list[Any]:
    """Set the references of the answers of a whole conversation; return the surplus references.

    `new_from` is the number of stored messages at the start. If none of them has a reference and
    the list is no longer than the list of new answers, the references belong to the new answers.
    """
    rest = list(references)
    answers = answers_of(messages)
    new = answers_of(messages[new_from:])
    if not has_references and len(rest) <= len(new):
        answers = new
    elif len(rest) < len(answers) and answers[0] is messages[0]:
        del answers[0]
    for message, reference in zip(answers, rest, strict=False):
        message["reference"] = reference
    return rest[len(answers) :]


def answers_of(messages: Iterable[MessageFields]) -> list[MessageFields]:
    """Return the answers among messages."""
    return [message for message in messages if message["role"] == ANSWER]


def list_references(answers: Sequence[Any], *, is_answer_first: bool) -> list[Any]:
    """Return the references of a conversation: one for each answer, or none at all.

    Args:
        answers: The reference of each answer, or None.
        is_answer_first: Whether the first message is an answer, which may be a prologue.
    """
    references = list(answers)
    if is_answer_first and references[0] is None:
        del references[0]
    if all(reference is None for reference in references):
        return []
    return [dict(_EMPTY_REFERENCE) if each is None else each for each in references]


def is_same(stored: StoredMessage, fields: MessageFields) -> bool:
    """Return whether role, text and the id, if there is one, are equal.

    The id alone does not suffice: in RAGFlow a question and its answer have the same id.
    """
    id = fields["payload"].get("id")
    return (
        stored.role == fields["role"]
        and (id is None or stored.payload.get("id", id) == id)
        and _has_same_content(stored, fields)
    )


def _has_same_content(stored: StoredMessage, fields: MessageFields) -> bool:
    new_payload, payload = fields["payload"], stored.payload
    if "content" in new_payload or "content" in payload:  # the content was not text
        missing = object()
        return bool(payload.get("content", missing) == new_payload.get("content", missing))
    return stored.content == unicodedata.normalize("NFC", fields["content"])


def common_length(stored: Sequence[StoredMessage], messages: Sequence[MessageFields]) -> int:
    """Return the number of equal messages at the start of both."""
    pairs = zip(stored, messages, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: is_same(*pair), pairs))


def without_equal(messages: Sequence[MessageFields], stored: Iterable[Key]) -> list[MessageFields]:
    """Return the messages without an equal stored one. A message without an id is always new."""
    keys = set(stored)
    return [each for each in messages if each["payload"].get("id") is None or key(each) not in keys]


def only_stored(stored: Iterable[Key], messages: Sequence[MessageFields]) -> list[Key]:
    """Return the stored messages without an equal message in a row.

    If one of two messages has no id, they are equal if their roles and texts are equal.
    """
    keys = {key(each) for each in messages}
    texts = {(role, text) for role, text, _ in keys}

    def is_in_row(each: Key) -> bool:
        role, text, id = each
        if id is None:
            return (role, text) in texts
        return each in keys or (role, text, None) in keys

    return [each for each in stored if not is_in_row(each)]


def stored_key(message: StoredMessage) -> Key:
    """Return role, content and id of a stored message as a key of dicts."""
    return key({"role": message.role, "content": message.content, "payload": message.payload})


def key(fields: _Keyed) -> Key:
    """Return role, content and id as a key of dicts. Raises InvalidInput for deeply nested JSON."""
    payload = fields["payload"]
    try:
        content = (
            _hashable([payload["content"]])
            if "content" in payload
            else unicodedata.normalize("NFC", fields["content"])
        )
        return fields["role"], content, _hashable(payload.get("id"))
    except RecursionError:
        raise InvalidInput("message", "must be JSON of limited depth") from None


def _hashable(value: object) -> object:
    """Return a hashable value, so that equal JSON gives equal values."""
    if isinstance(value, Mapping):
        return frozenset((name, _hashable(item)) for name, item in value.items())
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


async def append(
    svc: Services,
    id: str,
    turn: Mapping[str, object],
    messages: Sequence[MessageFields],
    *,
    tenant_id: str,
    expected_seq: int,
) -> Appended:
    """Append one turn with its thumbs, or nothing.

    Cost: 1 round trip without thumbs; with thumbs a transaction with 1 more for each thumb.
    """
    thumbs = {place: each["thumb"] for place, each in enumerate(messages) if each["thumb"]}
    async with contextlib.AsyncExitStack() as stack:
        tx = await stack.enter_async_context(svc.transaction()) if thumbs else svc
        appended = await tx.conversations.append_message(
            id,
            {**turn, "messages": [turn_message(each) for each in messages]},
            tenant_id=tenant_id,
            expected_seq=expected_seq,
        )
        for place, thumb in thumbs.items():
            await tx.conversations.set_feedback(
                id, appended.first_seq + place, thumb, tenant_id=tenant_id
            )
    return appended


def turn_message(fields: MessageFields) -> dict[str, object]:
    """Return the fields of a message for an append."""
    return {
        "role": fields["role"],
        "content": fields["content"],
        "payload": fields["payload"],
        "reference": fields.get("reference"),
    }
