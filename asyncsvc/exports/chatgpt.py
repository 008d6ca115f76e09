"""ChatGPT: `conversations.json`, `conversations-000.json` and the exports of browser extensions."""

from __future__ import annotations

from typing import Final

from asyncsvc.exports.model import (
    STRUCTURE,
    ExportedConversation,
    JsonObject,
    Kind,
    Node,
    Notes,
    Part,
    UnreadableError,
)
from asyncsvc.exports.values import identifier, joined, mapping, moment, objects, text, without

name: Final = "chatgpt"
UNKNOWN_ROLE: Final = "unknown"
_CONTEXT: Final = {"user_editable_context", "model_editable_context"}
_TEXT_KEYS: Final = {
    "code": ("text",),
    "execution_output": ("text",),
    "system_error": ("text",),
    "tether_quote": ("text",),
    "sonic_webpage": ("text",),
    "tether_browsing_code": ("text",),
    "tether_browsing_display": ("result", "summary"),
    "reasoning_recap": ("content",),
}
"""The keys of the text of a content type, in the order of preference."""
_ANY_TEXT_KEYS: Final = ("text", "result", "content", "parts")
_STORED_METADATA: Final = ("attachments", "citations", "content_references")
_READ_METADATA: Final = {
    *_STORED_METADATA, "model_slug", "default_model_slug", "is_user_system_message",
    "is_visually_hidden_from_conversation",
}  # fmt: skip
_READ_FIELDS: Final = {
    "id", "author", "create_time", "content", "metadata", "recipient", "status", "name",
}  # fmt: skip


def matches(head: JsonObject) -> bool:
    """Return whether an element is a conversation of ChatGPT: a tree in `mapping`."""
    return isinstance(head.get("mapping"), dict) and "inserted_at" not in head


def read(element: JsonObject, notes: Notes) -> ExportedConversation:
    """Read a conversation: `mapping` has its nodes by id, `current_node` names the last."""
    nodes = element.get("mapping")
    if not isinstance(nodes, dict):
        raise UnreadableError("is not a conversation: it has no mapping")
    model = identifier(element.get("default_model_slug"))
    return ExportedConversation(
        id=identifier(element.get("conversation_id"), element.get("id")),
        name=identifier(element.get("title")),
        created_at=moment(element.get("create_time")),
        updated_at=moment(element.get("update_time")),
        current=identifier(element.get("current_node")),
        metadata=without(
            element, "conversation_id", "id", "title", "create_time", "update_time",
            "current_node", "mapping",
        ),
        nodes=tuple(_node(id, mapping(node), model, notes) for id, node in nodes.items()),
    )  # fmt: skip


def read_feedback(row: JsonObject) -> tuple[tuple[str, str], int] | None:
    """Return the conversation and message of a row of `message_feedback.json`, and the thumb."""
    conversation_id = identifier(row.get("conversation_id"))
    message_id = identifier(row.get("message_id"), row.get("id"))
    rating = text(row.get("rating")).lower()
    thumb = 1 if "up" in rating else -1 if "down" in rating else None
    if conversation_id is None or message_id is None or thumb is None:
        return None
    return (conversation_id, message_id), thumb


def _node(id: str, node: JsonObject, model: str | None, notes: Notes) -> Node:
    parent, message = identifier(node.get("parent")), node.get("message")
    if not isinstance(message, dict):
        return Node(id=id, parent=parent, hidden=STRUCTURE)
    author, metadata = mapping(message.get("author")), mapping(message.get("metadata"))
    role = text(author.get("role")) or UNKNOWN_ROLE
    parts, rest = _content(message.get("content"), notes)
    hidden = _hidden_type(role, mapping(message.get("content")), metadata, parts)
    if hidden is None:
        notes.omitted_fields.update(without(message, *_READ_FIELDS).keys())
        notes.omitted_fields.update(f"metadata.{key}" for key in without(metadata, *_READ_METADATA))
    return Node(
        id=id,
        parent=parent,
        role=role,
        created_at=moment(message.get("create_time")),
        parts=parts,
        payload=_payload(id, message, role, model) | ({"content": rest} if rest else {}),
        hidden=hidden,
    )


def _hidden_type(
    role: str, content: JsonObject, metadata: JsonObject, parts: tuple[Part, ...]
) -> str | None:
    """Return the type of a message that the user does not see, or None."""
    content_type = text(content.get("content_type")) or "text"
    is_hidden = (
        metadata.get("is_visually_hidden_from_conversation") is True
        or metadata.get("is_user_system_message") is True
        or content_type in _CONTEXT
        or (role == "system" and not any(part.text.strip() for part in parts))
    )
    return content_type if is_hidden else None


def _payload(id: str, message: JsonObject, role: str, model: str | None) -> dict[str, object]:
    """Return the stored fields of a message, without its content."""
    author, metadata = mapping(message.get("author")), mapping(message.get("metadata"))
    status, recipient = message.get("status"), message.get("recipient")
    fields = {
        "id": identifier(message.get("id"), id),
        "model": identifier(metadata.get("model_slug"), metadata.get("default_model_slug"))
        or (model if role == "assistant" else None),
        "name": identifier(author.get("name"), message.get("name")),
        "recipient": None if recipient == "all" else recipient,
        "status": None if text(status).startswith("finished") else status,
        **{name: metadata.get(name) for name in _STORED_METADATA},
    }
    return without(fields)


def _content(content: object, notes: Notes) -> tuple[tuple[Part, ...], JsonObject]:
    """Return the parts of a content, and the fields of the content that the parts lack."""
    if isinstance(content, str):
        return _text_parts(content), {}
    if not isinstance(content, dict):
        return (), {}
    kind = text(content.get("content_type")) or "text"
    if kind in _CONTEXT:
        return (), {}
    if kind == "thoughts":
        thoughts = objects(content.get("thoughts"))
        texts = (
            joined([text(each.get("summary")), text(each.get("content"))]) for each in thoughts
        )
        return _text_parts(joined(texts), "thinking"), {}
    if isinstance(content.get("parts"), list):
        return _list_content(content, kind)
    if kind not in _TEXT_KEYS and kind != "text":
        notes.unknown_types[kind] += 1
    return _object_content(content, _TEXT_KEYS.get(kind, _ANY_TEXT_KEYS))


def _object_content(
    content: JsonObject, keys: tuple[str, ...]
) -> tuple[tuple[Part, ...], JsonObject]:
    """Return the first text among the keys, and the other fields."""
    for key in keys:
        if value := text(content.get(key)):
            rest = without(content, key)
            return _text_parts(value), {} if rest == {"content_type": "text"} else rest
    has_fields = bool(without(content, "content_type"))
    return ((Part("unknown"),), without(content)) if has_fields else ((), {})


def _list_content(content: JsonObject, kind: str) -> tuple[tuple[Part, ...], JsonObject]:
    """Return the parts of a content with a list. It is kept whole if an item is not text."""
    items = content.get("parts")
    items = items if isinstance(items, list) else []
    texts = joined((item if isinstance(item, str) else _text_of_item(item) for item in items), "\n")
    others = tuple(
        Part(_kind_of_item(item))
        for item in items
        if isinstance(item, dict) and not _text_of_item(item)
    )
    is_text = all(isinstance(item, str) for item in items)
    rest = without(content, "parts") if is_text else without(content)
    is_plain = is_text and rest.keys() <= {"content_type"} and kind in {"text", "multimodal_text"}
    return _text_parts(texts) + others, {} if is_plain else rest


def _text_of_item(item: object) -> str:
    return text(mapping(item).get("text"))


def _kind_of_item(item: JsonObject) -> Kind:
    return "asset" if text(item.get("content_type")).endswith("_pointer") else "unknown"


def _text_parts(value: str, kind: Kind = "text") -> tuple[Part, ...]:
    return (Part(kind, value),) if value else ()
