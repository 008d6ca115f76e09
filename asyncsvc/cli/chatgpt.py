"""Reads `conversations.json` as ChatGPT exports it: one JSON array, however long.

Each conversation is a tree, for an edited question begins a new branch: `mapping` has its nodes by
id, each with its `parent`, and `current_node` is the end of the branch that its owner saw last.
That branch is what is read. The format has no specification; this follows files as they are
exported.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import IO, Any, Final

import ijson

from asyncsvc.cli.lines import Item, UnreadableError
from asyncsvc.cli.running import CommandError

SOURCE: Final = "chatgpt"
_KNOWN: Final = {
    "conversation_id", "create_time", "current_node", "id", "mapping", "title", "update_time"
}  # fmt: skip


def conversations(file: IO[bytes], name: str) -> Iterator[Item]:
    """Read all conversations, numbered from 1. Raises CommandError where the JSON ends badly."""
    number = 0
    try:
        for number, given in enumerate(ijson.items(file, "item", use_float=True), start=1):
            yield _item(number, given)
    except (ijson.JSONError, UnicodeDecodeError, ValueError):
        raise CommandError(f"{name}: is not JSON behind conversation {number}") from None


def _item(number: int, given: object) -> Item:
    if not isinstance(given, dict) or not isinstance(given.get("mapping"), dict):
        return Item(number, {}, reason="is no conversation: it has no mapping")
    try:
        record = _record(given)
    except UnreadableError as error:
        return Item(number, {}, reason=str(error))
    return Item(number, record, sum(len(message["content"]) for message in record["messages"]))


def _record(given: dict[str, Any]) -> dict[str, Any]:
    metadata = {
        name: value
        for name, value in given.items()
        if name not in _KNOWN and value not in (None, [], {})
    }
    return {
        "id": given.get("conversation_id") or given.get("id"),
        "name": given.get("title"),
        "source": SOURCE,
        "metadata": metadata or None,
        "created_at": _time(given.get("create_time")),
        "updated_at": _time(given.get("update_time")),
        "messages": [message for node in _branch(given) if (message := _message(node)) is not None],
    }


def _branch(given: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the nodes from the root to the current one."""
    nodes, id = [], given.get("current_node")
    mapping = dict(given["mapping"])
    while id is not None:
        node = mapping.pop(id, None)  # taken out, so that no circle is walked for ever
        if not isinstance(node, dict):
            raise UnreadableError("mapping: has no way from the current node to its root")
        nodes.append(node)
        id = node.get("parent")
    return nodes[::-1]


def _message(node: dict[str, Any]) -> dict[str, Any] | None:
    """Return what a node says; None for one that says nothing, as roots and hidden ones do."""
    message = node.get("message")
    if not isinstance(message, dict) or not isinstance(content := message.get("content"), dict):
        return None
    text, is_all = _text(content)
    if not text and is_all:
        return None
    metadata = message.get("metadata")
    payload = {
        "id": message.get("id"),
        "model": metadata.get("model_slug") if isinstance(metadata, dict) else None,
        "content": None if is_all else content,
    }
    author = message.get("author")
    return {
        "role": author.get("role") if isinstance(author, dict) else None,
        "content": text,
        "payload": {name: value for name, value in payload.items() if value is not None},
        "created_at": _time(message.get("create_time")),
    }


def _text(content: dict[str, Any]) -> tuple[str, bool]:
    """Return the text of a content, and whether that is all of it: images and the like are not."""
    parts = content.get("parts")
    if isinstance(parts, list):
        texts = [part for part in parts if isinstance(part, str)]
        return "\n".join(filter(None, texts)), len(texts) == len(parts)
    text = content.get("text")
    return (
        (text, content.keys() <= {"content_type", "text"}) if isinstance(text, str) else ("", False)
    )


def _time(seconds: object) -> datetime | None:
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(float(str(seconds)), UTC)
    except (ValueError, OverflowError, OSError):
        raise UnreadableError("create_time: must be seconds since 1970") from None
