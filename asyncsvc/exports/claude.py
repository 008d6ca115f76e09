"""Claude: `conversations.json`, `conversations-000.json` and the exports of browser extensions."""

from __future__ import annotations

import json
import re
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
from asyncsvc.exports.values import identifier, joined, moment, objects, text, without

name: Final = "claude"
_ROLES: Final = {"human": "user", "assistant": "assistant"}
_MACHINERY: Final = {"token_budget", "flag"}
_KINDS: Final = {"tool_use": "call", "tool_result": "result", "image": "asset", "document": "asset"}
_FENCE: Final = re.compile(
    r"```[a-z]*\s*This block is not supported on your current device(?: yet)?\.?\s*```", re.ASCII
)
_MAX_JSON_TEXT: Final = 2**24
_PARENT: Final = "parent_message_uuid"


def matches(head: JsonObject) -> bool:
    """Return whether an element is a conversation of Claude."""
    return isinstance(head.get("chat_messages"), list)


def read(element: JsonObject, notes: Notes) -> ExportedConversation:
    """Read a conversation: a flat array, in any order if the messages name their parents."""
    messages = element.get("chat_messages")
    if not isinstance(messages, list):
        raise UnreadableError("is not a conversation: it has no chat_messages")
    nodes = tuple(_node(message, notes) for message in objects(messages))
    if not any(_PARENT in message for message in objects(messages)):
        nodes = chain(nodes)
    return ExportedConversation(
        id=identifier(element.get("uuid")),
        name=identifier(element.get("name")),
        created_at=moment(element.get("created_at")),
        updated_at=moment(element.get("updated_at")),
        current=identifier(element.get("current_leaf_message_uuid")),
        metadata=without(
            element, "uuid", "name", "created_at", "updated_at", "chat_messages",
            "current_leaf_message_uuid",
        ),
        nodes=nodes,
    )  # fmt: skip


def _node(message: JsonObject, notes: Notes) -> Node:
    sender = text(message.get("sender"))
    parts, citations = _parts(message, notes)
    attachments = objects(message.get("attachments"))
    fields = without(
        message, "uuid", "text", "content", "sender", "created_at", "attachments", _PARENT
    )
    payload = fields | without(
        {
            "attachments": [without(each, "extracted_content") for each in attachments],
            "citations": citations,
        }
    )
    if payload.get("updated_at") == message.get("created_at"):
        payload.pop("updated_at", None)
    return Node(
        id=identifier(message.get("uuid")),
        parent=identifier(message.get(_PARENT)),
        role=_ROLES.get(sender, sender) or None,
        created_at=moment(message.get("created_at")),
        parts=(*parts, *map(_pasted, attachments)),
        payload=payload,
    )


def _parts(message: JsonObject, notes: Notes) -> tuple[list[Part], list[object]]:
    """Return the parts of the blocks, and the citations of their text.

    `text` repeats the blocks, with a note in place of each block without text. So it counts only if
    no block has text.
    """
    parts, citations = list[Part](), list[object]()
    for block in objects(_blocks(message.get("content"))):
        kind = text(block.get("type"))
        if kind in {"text", "voice_note"}:
            parts.append(Part("text", text(block.get("text"))))
            cited = block.get("citations")
            citations += cited if isinstance(cited, list) else []
        elif kind == "thinking":
            summaries = objects(block.get("summaries"))
            texts = [
                *(text(each.get("summary")) for each in summaries),
                text(block.get("thinking")),
            ]
            parts.append(Part("thinking", joined(texts)))
        elif kind == "injected_prompt_block":
            notes.hide(kind)
        elif kind in _MACHINERY:
            notes.left_out["machinery"] += 1
        else:
            parts.append(_other_part(kind, block, notes))
    if not any(part.kind == "text" and part.text for part in parts):
        parts.append(Part("text", _FENCE.sub("", text(message.get("text"))).strip()))
    return parts, citations


def _other_part(kind: str, block: JsonObject, notes: Notes) -> Part:
    match _KINDS.get(kind):
        case "call":
            return Part("call", data=without(block))
        case "result":
            return Part("result", data=without(block))
        case "asset":
            return Part("asset", data=without(block))
    notes.unknown_types[kind or "no type"] += 1
    return Part("unknown", data=without(block))


def _blocks(content: object) -> object:
    """Return the list of blocks. Some exports contain it as JSON text."""
    if not isinstance(content, str) or not content.startswith("[") or len(content) > _MAX_JSON_TEXT:
        return content
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content


def _pasted(attachment: JsonObject) -> Part:
    """Return the text of a pasted file under its name."""
    content = text(attachment.get("extracted_content"))
    return Part(
        "text", joined([text(attachment.get("file_name")), content], "\n") if content else ""
    )
