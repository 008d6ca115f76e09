"""Read `conversations.json` as ChatGPT exports it: one JSON array of any length.

Each conversation is a tree, because an edited question starts a new branch. `mapping` has the nodes
by id, each with its `parent`; `current_node` is the last node of the branch that the user saw last.
This module reads that branch. The format has no specification; this module follows exported files.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import ijson

from asyncsvc.cli.json_lines import InvalidRecordError, Item, JsonObject
from asyncsvc.cli.runner import CommandError

SOURCE: Final = "chatgpt"
_KNOWN_FIELDS: Final = {
    "conversation_id", "create_time", "current_node", "id", "mapping", "title", "update_time"
}  # fmt: skip


def read_conversations(file: io.BufferedReader, name: str) -> Iterator[Item]:
    """Read all conversations, numbered from 1.

    Raises:
        CommandError: The JSON is invalid. `name` is the name of the file.
    """
    number = 0
    try:
        for number, value in enumerate(ijson.items(file, "item", use_float=True), start=1):
            yield _item(number, value)
    except (ijson.JSONError, UnicodeDecodeError, ValueError):
        raise CommandError(f"{name}: is not JSON after conversation {number}") from None


def _item(number: int, conversation: object) -> Item:
    mapping = conversation.get("mapping") if isinstance(conversation, dict) else None
    if not isinstance(conversation, dict) or not isinstance(mapping, dict):
        return Item(number, {}, reason="is not a conversation: it has no mapping")
    try:
        nodes = _branch(mapping, conversation.get("current_node"))
        messages = [message for node in nodes if (message := _message(node)) is not None]
        fields = _fields(conversation) | {"messages": messages}
    except InvalidRecordError as error:
        return Item(number, {}, reason=str(error))
    return Item(number, fields, sum(len(str(message["content"])) for message in messages))


def _branch(mapping: JsonObject, current_node: object) -> list[JsonObject]:
    """Return the nodes from the root to the current one."""
    nodes, id, left = [], current_node, dict(mapping)
    while id is not None:
        node = left.pop(id, None) if isinstance(id, str) else None  # removed: a cycle ends
        if not isinstance(node, dict):
            raise InvalidRecordError("mapping: has no path from the current node to the root")
        nodes.append(node)
        id = node.get("parent")
    return nodes[::-1]


def _fields(conversation: JsonObject) -> JsonObject:
    """Return the fields of a `ConversationRecord` without its messages."""
    metadata = {
        name: value
        for name, value in conversation.items()
        if name not in _KNOWN_FIELDS and value not in (None, [], {})
    }
    return {
        "id": conversation.get("conversation_id") or conversation.get("id"),
        "name": conversation.get("title"),
        "source": SOURCE,
        "metadata": metadata or None,
        "created_at": _time(conversation.get("create_time")),
        "updated_at": _time(conversation.get("update_time")),
    }


def _message(node: JsonObject) -> JsonObject | None:
    """Return the fields of a `MessageRecord`; None for a root or a hidden node without content."""
    message = node.get("message")
    if not isinstance(message, dict) or not isinstance(content := message.get("content"), dict):
        return None
    text, is_complete = _text(content)
    if not text and is_complete:
        return None
    metadata = message.get("metadata")
    payload = {
        "id": message.get("id"),
        "model": metadata.get("model_slug") if isinstance(metadata, dict) else None,
        "content": None if is_complete else content,
    }
    author = message.get("author")
    return {
        "role": author.get("role") if isinstance(author, dict) else None,
        "content": text,
        "payload": {name: value for name, value in payload.items() if value is not None},
        "created_at": _time(message.get("create_time")),
    }


def _text(content: JsonObject) -> tuple[str, bool]:
    """Return the text of a content, and whether it is the whole content: images are not text."""
    parts = content.get("parts")
    if isinstance(parts, list):
        texts = [part for part in parts if isinstance(part, str)]
        return "\n".join(filter(None, texts)), len(texts) == len(parts)
    text = content.get("text")
    if not isinstance(text, str):
        return "", False
    return text, content.keys() <= {"content_type", "text"}


def _time(seconds: object) -> datetime | None:
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(float(str(seconds)), UTC)
    except (ValueError, OverflowError, OSError):
        raise InvalidRecordError("create_time: must be seconds since 1970") from None
