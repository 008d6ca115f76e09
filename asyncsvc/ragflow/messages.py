"""RAGFlow's messages: objects of one list, beside a list of references.

The list of references has one entry for each answer, in their order. The prologue, an answer at the
start of a conversation, usually has none: then there are fewer references than answers. In this
library each message has its own reference.
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
_TAIL_LENGTH: Final = 20
_EMPTY_REFERENCE: Final[Mapping[str, Any]] = {"chunks": [], "doc_aggs": []}
"""RAGFlow's reference of an answer that quotes nothing."""


class MessageFields(TypedDict):
    """A message of RAGFlow, by the fields of `asyncsvc.models.MessageRecord`."""

    role: str
    content: str
    payload: dict[str, Any]
    thumb: int | None
    reference: NotRequired[Any]
    created_at: NotRequired[datetime]


def split(message: Mapping[str, Any]) -> MessageFields:
    """Convert a message of RAGFlow to the fields of this library.

    Content that is not text becomes its JSON, and an invalid role becomes "unknown". The payload
    keeps both as they were. Raises InvalidInput if the content is not JSON either.
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


def attach_references(messages: Sequence[MessageFields], references: Iterable[Any]) -> list[Any]:
    """Set the reference of each answer of a whole conversation; return the rest of the list."""
    rest = list(references)
    answers = [message for message in messages if message["role"] == ANSWER]
    if len(rest) < len(answers) and answers[0] is messages[0]:
        del answers[0]
    for message, reference in zip(answers, rest, strict=False):
        message["reference"] = reference
    return rest[len(answers) :]


def list_references(messages: Sequence[StoredMessage]) -> list[Any]:
    """Return the references of a conversation: one for each answer, or none at all."""
    references = [message.reference for message in messages if message.role == ANSWER]
    if references and messages[0].role == ANSWER and references[0] is None:
        del references[0]
    if all(reference is None for reference in references):
        return []
    return [dict(_EMPTY_REFERENCE) if each is None else each for each in references]


def is_same(stored: StoredMessage, fields: MessageFields) -> bool:
    """Return whether role, text and the id, if there is one, are equal.

    The id alone does not suffice: in RAGFlow a question and its answer share one.
    """
    id = fields["payload"].get("id")
    return (
        stored.role == fields["role"]
        and (id is None or stored.payload.get("id", id) == id)
        and _has_same_content(stored, fields)
    )


def _has_same_content(stored: StoredMessage, fields: MessageFields) -> bool:
    theirs, ours = fields["payload"], stored.payload
    if "content" in theirs or "content" in ours:  # the content was not text
        missing = object()
        return bool(ours.get("content", missing) == theirs.get("content", missing))
    return stored.content == unicodedata.normalize("NFC", fields["content"])


def common_length(stored: Sequence[StoredMessage], messages: Sequence[MessageFields]) -> int:
    """Return the number of equal messages at the start of both."""
    pairs = zip(stored, messages, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: is_same(*pair), pairs))


async def new_messages(
    svc: Services, id: str, messages: list[MessageFields], *, tenant_id: str, last_seq: int
) -> list[MessageFields]:
    """Return the messages of a whole conversation that are not stored.

    They follow the part that both have in common. A message that another caller has stored after
    that part is not new if its id is the same. Messages after `last_seq` are ignored.

    1 round trip if the stored conversation is the start of the other one; otherwise 2, and all
    stored messages are read. Raises NotFound if the conversation was deleted meanwhile.
    """
    tail = await svc.conversations.messages(id, tenant_id=tenant_id, last=_TAIL_LENGTH)
    tail = [message for message in tail if message.seq <= last_seq]
    if len(messages) >= last_seq and _ends_with(messages[:last_seq], tail):
        return messages[last_seq:]
    whole = await svc.conversations.get_by_id(
        id, tenant_id=tenant_id, include_dsl=False, include_messages=True
    )
    stored = [message for message in whole.messages or () if message.seq <= last_seq]
    common = common_length(stored, messages)
    return [each for each in messages[common:] if not _has_equal(stored[common:], each)]


def _ends_with(messages: Sequence[MessageFields], tail: Sequence[StoredMessage]) -> bool:
    """Return whether the messages end with the stored ones.

    Messages without an id count only if the tail is everything, because a text may occur twice.
    """
    return len(tail) == min(len(messages), _TAIL_LENGTH) and all(
        is_same(stored, each) and (each["payload"].get("id") or len(tail) == len(messages))
        for stored, each in zip(tail, messages[len(messages) - len(tail) :], strict=True)
    )


def _has_equal(stored: Iterable[StoredMessage], fields: MessageFields) -> bool:
    """Return whether one of the stored messages is this one, and both have an id."""
    return fields["payload"].get("id") is not None and any(
        is_same(message, fields) for message in stored if message.payload.get("id") is not None
    )


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

    1 round trip without thumbs. With thumbs a transaction, with 1 more for each.
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
    """Return the fields of a message that an append takes."""
    return {
        "role": fields["role"],
        "content": fields["content"],
        "payload": fields["payload"],
        "reference": fields.get("reference"),
    }
