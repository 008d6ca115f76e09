"""LibreChat: one conversation in one JSON object, as a list, or as a tree of `children`."""

from __future__ import annotations

from typing import Final

from asyncsvc.exports.model import (
    ExportedConversation,
    JsonObject,
    Node,
    Notes,
    Part,
    UnreadableError,
)
from asyncsvc.exports.tree import chain
from asyncsvc.exports.usage import usage_of_message
from asyncsvc.exports.values import identifier, mapping, moment, objects, text, without
from asyncsvc.models import Usage

name: Final = "librechat"
_RATINGS: Final = {"thumbsUp": 1, "thumbsDown": -1}
_OMITTED: Final = ("exportAt", "branches", "recursive")
"""The time of day of the export, and its options."""
_READ_FIELDS: Final = (
    "messageId", "parentMessageId", "conversationId", "isCreatedByUser", "text", "content",
    "createdAt", "children",
)  # fmt: skip


def matches(head: JsonObject) -> bool:
    """Return whether an object is a conversation of LibreChat."""
    return "conversationId" in head and ("messages" in head or "messagesTree" in head)


def read(element: JsonObject, notes: Notes) -> ExportedConversation:
    """Read a conversation. It has only a time of day, so the times of its messages count."""
    roots = element.get("messagesTree", element.get("messages"))
    if not isinstance(roots, list):
        raise UnreadableError("is not a conversation: it has no messages")
    messages = _flattened(roots)
    nodes = tuple(_node(message, parent, notes) for message, parent in messages)
    has_parents = any("parentMessageId" in each or "children" in each for each, _ in messages)
    notes.omitted_fields.update(key for key in _OMITTED if key in element)
    return ExportedConversation(
        id=identifier(element.get("conversationId")),
        name=identifier(element.get("title")),
        created_at=moment(element.get("createdAt")),
        updated_at=moment(element.get("updatedAt")),
        current=None,
        metadata=without(
            element, "conversationId", "title", "createdAt", "updatedAt", "messages",
            "messagesTree", *_OMITTED,
        ),
        nodes=nodes if has_parents else chain(nodes),
    )  # fmt: skip


def _flattened(roots: list[object]) -> list[tuple[JsonObject, str | None]]:
    """Return all messages depth first, each with the id of its parent.

    It is a loop instead of a recursion, because the depth is the length of the conversation.
    """
    messages = list[tuple[JsonObject, str | None]]()
    waiting: list[tuple[JsonObject, str | None]] = [(each, None) for each in objects(roots)[::-1]]
    while waiting:
        message, outer = waiting.pop()
        parent = identifier(message.get("parentMessageId")) or outer
        messages.append((message, parent))
        id = identifier(message.get("messageId"))
        waiting += [(each, id) for each in objects(message.get("children"))[::-1]]
    return messages


def _node(message: JsonObject, parent: str | None, notes: Notes) -> Node:
    is_user = message.get("isCreatedByUser")
    if not isinstance(is_user, bool):
        is_user = text(message.get("sender")).lower() == "user"
    rating = text(mapping(message.get("feedback")).get("rating"))
    return Node(
        id=identifier(message.get("messageId")),
        parent=parent,
        role="user" if is_user else "assistant",
        created_at=moment(message.get("createdAt")),
        parts=_parts(message, notes),
        payload=without(message, *_READ_FIELDS),
        thumb=_RATINGS.get(rating),
        usage=None if is_user else _usage(message),
    )


def _usage(message: JsonObject) -> Usage | None:
    """Return the usage of an answer. Of the input most exports have no number, and it counts 0."""
    counts = {
        "completion_tokens": message.get("tokenCount"),
        "prompt_tokens": message.get("promptTokens") or 0,
    }
    has_count = counts["completion_tokens"] is not None
    return usage_of_message(counts, identifier(message.get("model"))) if has_count else None


def _parts(message: JsonObject, notes: Notes) -> tuple[Part, ...]:
    """Return the parts of `content`, or those of `text` if `content` has no text."""
    parts = [_part(item, notes) for item in objects(message.get("content"))]
    if not any(part.kind == "text" and part.text for part in parts):
        parts.append(Part("text", text(message.get("text"))))
    return tuple(parts)


def _part(item: JsonObject, notes: Notes) -> Part:
    kind = text(item.get("type"))
    value = item.get(kind)
    content = text(value) or text(mapping(value).get("value"))
    match kind:
        case "text":
            return Part("text", content)
        case "think":
            return Part("thinking", content)
        case "tool_call":
            return Part("call", data=without(item))
        case "image_file" | "image_url":
            return Part("asset", data=without(item))
        case "error":
            return Part("result", data=without(item))
    notes.unknown_types[kind or "no type"] += 1
    return Part("unknown", data=without(item))
