"""DeepSeek: `conversations.json`, a tree like that of ChatGPT with messages of fragments."""

from __future__ import annotations

from typing import Final

from asyncsvc.exports.model import (
    STRUCTURE,
    ExportedConversation,
    JsonObject,
    Node,
    Notes,
    Part,
    UnreadableError,
)
from asyncsvc.exports.values import identifier, mapping, moment, objects, text, without

name: Final = "deepseek"
_ROLES: Final = {"REQUEST": "user"}
_THINKING: Final = "THINK"
_KNOWN: Final = {"REQUEST", "RESPONSE", _THINKING}


def matches(head: JsonObject) -> bool:
    """Return whether an element is a conversation of DeepSeek."""
    return isinstance(head.get("mapping"), dict) and "inserted_at" in head


def read(element: JsonObject, notes: Notes) -> ExportedConversation:
    """Read a conversation. The export names no current node."""
    nodes = element.get("mapping")
    if not isinstance(nodes, dict):
        raise UnreadableError("is not a conversation: it has no mapping")
    return ExportedConversation(
        id=identifier(element.get("id")),
        name=identifier(element.get("title")),
        created_at=moment(element.get("inserted_at")),
        updated_at=moment(element.get("updated_at")),
        current=None,
        metadata=without(element, "id", "title", "inserted_at", "updated_at", "mapping"),
        nodes=tuple(_node(id, mapping(node), notes) for id, node in nodes.items()),
    )


def _node(id: str, node: JsonObject, notes: Notes) -> Node:
    parent, message = identifier(node.get("parent")), node.get("message")
    if not isinstance(message, dict):
        return Node(id=id, parent=parent, hidden=STRUCTURE)
    fragments = objects(message.get("fragments"))
    kinds = {text(fragment.get("type")) for fragment in fragments}
    return Node(
        id=id,
        parent=parent,
        role=next((_ROLES[kind] for kind in sorted(kinds) if kind in _ROLES), "assistant"),
        created_at=moment(message.get("inserted_at")),
        parts=tuple(_part(fragment, notes) for fragment in fragments),
        payload=without(message, "fragments", "inserted_at"),
    )


def _part(fragment: JsonObject, notes: Notes) -> Part:
    kind, content = text(fragment.get("type")), text(fragment.get("content"))
    if kind not in _KNOWN:
        notes.unknown_types[kind or "no type"] += 1
        return Part("unknown", data=fragment)
    return Part("thinking" if kind == _THINKING else "text", content)
