"""Lines of `{"messages": [...]}`, with messages in the shapes of OpenAI's APIs."""

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
from asyncsvc.exports.values import identifier, joined, mapping, moment, objects, text, without
from asyncsvc.models import Usage

name: Final = "openai"
_TEXT_TYPES: Final = {"text", "input_text", "output_text"}
_READ_FIELDS: Final = ("role", "content", "created_at")


def matches(head: JsonObject) -> bool:
    """Return whether an element is a list of messages without an id of the conversation."""
    messages = objects(head.get("messages"))
    return "id" not in head and bool(messages) and all("role" in each for each in messages[:3])


def read(element: JsonObject, notes: Notes) -> ExportedConversation:
    """Read a conversation. The shape has no ids and no times."""
    messages = element.get("messages")
    if not isinstance(messages, list):
        raise UnreadableError("messages: must be a list")
    model, shown = identifier(element.get("model")), objects(messages)
    of_last = usage_of_message(mapping(element.get("usage")), model)
    return ExportedConversation(
        id=None,
        name=identifier(element.get("name"), element.get("title")),
        created_at=moment(element.get("created_at")),
        updated_at=moment(element.get("updated_at")),
        current=None,
        metadata=without(element, "messages", "name", "title", "created_at", "updated_at"),
        nodes=chain(
            _node(message, model, of_last if message is shown[-1] else None, notes)
            for message in shown
        ),
    )


def _node(message: JsonObject, model: str | None, usage: Usage | None, notes: Notes) -> Node:
    model = identifier(message.get("model")) or model
    content = message.get("content")
    parts = [Part("text", content_text(content))]
    payload = without(message, *_READ_FIELDS)
    if not is_text(content):
        payload["content"] = content
        notes.payload_only["asset"] += 1
    notes.payload_only["call"] += len(objects(message.get("tool_calls")))
    return Node(
        id=identifier(message.get("id")),
        role=identifier(message.get("role")),
        created_at=moment(message.get("created_at")),
        parts=tuple(parts),
        payload=payload,
        usage=usage_of_message(mapping(message.get("usage")), model) or usage,
    )


def content_text(content: object) -> str:
    """Return the text of a content: text, a list of parts, or null beside tool calls."""
    if isinstance(content, list):
        return joined(
            (item if isinstance(item, str) else text(item.get("text")))
            for item in content
            if isinstance(item, str) or (isinstance(item, dict) and item.get("type") in _TEXT_TYPES)
        )
    return text(content)


def is_text(content: object) -> bool:
    """Return whether the content is only text: then the payload need not keep it."""
    if isinstance(content, list):
        return all(
            isinstance(item, dict)
            and item.get("type") in _TEXT_TYPES
            and item.keys() <= {"type", "text"}
            and isinstance(item.get("text"), str)
            for item in content
        )
    return content is None or isinstance(content, str)
