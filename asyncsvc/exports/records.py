"""Turn a conversation of an export into the fields of a `ConversationRecord`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from asyncsvc.exports.model import STRUCTURE, ExportedConversation, JsonObject, Node, Notes, Part
from asyncsvc.exports.tree import visible_branch
from asyncsvc.exports.usage import sums_by_model
from asyncsvc.exports.values import joined
from asyncsvc.validation.limits import Limits

_MAX_NAME: Final = 512
_MAX_ROLE: Final = 32
_SEARCHABLE: Final = {"text", "thinking"}
_USER: Final = "user"
_UNREMARKABLE: Final = {"id", "model", "sender"}
"""Fields of a payload for which an empty message is not stored."""


def to_record(
    conversation: ExportedConversation,
    source: str,
    limits: Limits,
    notes: Notes,
    thumbs: Mapping[tuple[str, str], int],
) -> dict[str, object] | None:
    """Return the fields of a record, without a dialog; None for a conversation without nodes.

    Args:
        source: The name of the format.
        limits: Payloads and metadata that exceed them lose their largest fields.
        notes: Counts omitted, moved and changed data.
        thumbs: Feedback by the ids of the conversation and the message.

    Raises:
        UnreadableError: The conversation has no visible branch.
    """
    if not conversation.nodes:
        notes.left_out["empty_conversation"] += 1
        return None
    branch = visible_branch(conversation)
    _count_other_branches(conversation, branch, notes)
    id = conversation.id
    if id is None:
        notes.derived_ids += 1
        id = _derived_id(conversation, source)
    messages = [
        message
        for node in branch
        if _is_message(node, notes)
        for message in _messages(node, limits, notes, thumbs.get((id, _message_id(node))))
    ]
    created_at, updated_at = _set_times(conversation, messages, notes)
    return {
        "id": id,
        "name": _name(conversation.name, notes),
        "source": source,
        "metadata": _within_limits("metadata", conversation.metadata, limits, notes) or None,
        "usage": sums_by_model((node.usage for node in branch), notes),
        "created_at": created_at,
        "updated_at": updated_at,
        "messages": messages,
    }


def _count_other_branches(
    conversation: ExportedConversation, branch: list[Node], notes: Notes
) -> None:
    shown = {node.id for node in branch}
    others = [node for node in conversation.nodes if node.id not in shown]
    count = sum(node.hidden is None and node.role is not None for node in others)
    if count:
        notes.left_out["other_branch"] += count


def _derived_id(conversation: ExportedConversation, source: str) -> str:
    """Return an id that stays the same when the conversation grows."""
    first = min(
        (node for node in conversation.nodes if node.role == _USER and node.hidden is None),
        key=lambda node: (node.created_at is None, node.created_at),
        default=None,
    )
    created_at = conversation.created_at
    identity = [source, "" if created_at is None else created_at.isoformat()]
    if first is not None:
        time = "" if first.created_at is None else first.created_at.isoformat()
        identity += [first.id] if first.id else [time, joined(part.text for part in first.parts)]
    digest = hashlib.sha256("\0".join(identity).encode(errors="surrogatepass"))
    return digest.hexdigest()[:32]


def _is_message(node: Node, notes: Notes) -> bool:
    """Return whether a node is stored, and count it otherwise."""
    if node.hidden is not None:
        if node.hidden != STRUCTURE:
            notes.hide(node.hidden)
        return False
    if node.role is None:
        notes.left_out["no_role"] += 1
        return False
    has_content = any(part.text or part.kind not in _SEARCHABLE for part in node.parts)
    if not has_content and not node.payload.keys() - _UNREMARKABLE:
        notes.left_out["empty"] += 1
        return False
    return True


def _message_id(node: Node) -> str:
    id = node.payload.get("id")
    return id if isinstance(id, str) else node.id or ""


def _messages(
    node: Node, limits: Limits, notes: Notes, thumb: int | None
) -> Iterator[dict[str, object]]:
    """Yield the messages of a node: its thinking, then its text with all other parts."""
    id = _message_id(node)
    thinking = joined(part.text for part in node.parts if part.kind == "thinking")
    content = joined(part.text for part in node.parts if part.kind == "text")
    others = [part for part in node.parts if part.kind not in _SEARCHABLE]
    notes.payload_only.update(part.kind for part in others)
    is_all_thinking = bool(thinking) and not content and not others
    payload = dict(node.payload) | {"id": id} | _data(others)
    if thinking and not is_all_thinking:
        yield _message(node, thinking, {"id": f"{id}/thinking", "kind": "thinking"})
    if thumb is not None:
        notes.feedback += 1
    payload |= {"kind": "thinking"} if is_all_thinking else {}
    payload = _within_limits("payload", payload, limits, notes)
    message = _message(node, thinking if is_all_thinking else content, payload)
    yield message | {"thumb": node.thumb if thumb is None else thumb}


def _data(parts: list[Part]) -> dict[str, object]:
    data = [part.data for part in parts if part.data is not None]
    return {"parts": data} if data else {}


def _message(node: Node, content: str, payload: dict[str, object]) -> dict[str, object]:
    role = node.role or ""
    if len(role) > _MAX_ROLE:
        payload, role = payload | {"role": role}, role[:_MAX_ROLE]
    return {"role": role, "content": content, "payload": payload, "created_at": node.created_at}


def _set_times(
    conversation: ExportedConversation, messages: list[dict[str, object]], notes: Notes
) -> tuple[datetime | None, datetime | None]:
    """Set missing times of messages, and return the times of the conversation.

    A message without a time gets the time of the previous message, otherwise the time of the
    conversation. The conversation is created at the oldest time and updated at the newest.
    """
    times = [each["created_at"] for each in messages if isinstance(each["created_at"], datetime)]
    own = conversation.created_at or conversation.updated_at
    created_at = min([*times, *([own] if own else [])], default=None)
    latest = [each for each in (conversation.updated_at, created_at) if each is not None]
    before = conversation.created_at or created_at
    for message in messages:
        if message["created_at"] is None:
            notes.missing_times += 1
            message["created_at"] = before
        elif isinstance(message["created_at"], datetime):
            before = message["created_at"]
    return created_at, max([*times, *latest], default=None)


def _name(name: str | None, notes: Notes) -> str | None:
    if name is None or len(name) <= _MAX_NAME:
        return name
    notes.changed["name cut"] += 1
    return name[:_MAX_NAME]


def _within_limits(
    place: str, value: JsonObject, limits: Limits, notes: Notes
) -> dict[str, object]:
    """Return an object without the fields that are too deep or make it too large."""
    sizes = dict[str, int]()
    for name, item in value.items():
        sizes[name] = _size(item, limits.max_json_depth - 1) + len(name) * 4 + 4
    total = sum(size for size in sizes.values() if size <= limits.max_json_bytes)
    kept = {name for name, size in sizes.items() if size <= limits.max_json_bytes}
    for name in sorted(kept, key=lambda name: sizes[name], reverse=True):
        if total <= limits.max_json_bytes:
            break
        kept.discard(name)
        total -= sizes[name]
    for name in value.keys() - kept:
        notes.changed[f"{place}.{name} dropped"] += 1
    return {name: item for name, item in value.items() if name in kept}


def _size(value: object, max_depth: int) -> int:
    """Return the bytes of the JSON of a value; more than any limit if it is too deep."""
    if not isinstance(value, str | list | dict):
        return 24
    if isinstance(value, list | dict) and _depth(value) > max_depth:
        return 2**62
    text = json.dumps(value, ensure_ascii=False)
    return len(text.encode(errors="surrogatepass"))


def _depth(value: object) -> int:
    """Return the number of nested lists and objects, without recursion."""
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, list | dict)]:
        depth += 1
        level = [
            item for each in level for item in (each.values() if isinstance(each, dict) else each)
        ]
    return depth
