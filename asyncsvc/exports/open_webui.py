"""Open WebUI: an array of rows with a `chat`, or of chats of the old form."""

from __future__ import annotations

import html
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
from asyncsvc.exports.usage import usage_of_message
from asyncsvc.exports.values import identifier, joined, mapping, moment, objects, text, without
from asyncsvc.models import Usage

name: Final = "openwebui"
_DETAILS: Final = re.compile(r"<details\b(?P<attributes>[^<>]*+)>|</details>")
_TYPE: Final = re.compile(r'\btype="([a-z_]+)"', re.ASCII)
_SUMMARY: Final = re.compile(r"<summary>[^<]*</summary>")
_QUOTE_MARK: Final = re.compile(r"^> ?", re.MULTILINE)
_THINKING: Final = "reasoning"
_READ_FIELDS: Final = ("id", "parentId", "childrenIds", "role", "content", "timestamp", "output")
_READ_CHAT: Final = ("id", "title", "history", "messages", "timestamp")


def matches(head: JsonObject) -> bool:
    """Return whether an element is a row, a chat, or a chat of the old form."""
    chat = mapping(head.get("chat", head))
    is_old = isinstance(chat.get("messages"), list) and ("models" in chat or "chat" in head)
    return isinstance(chat.get("history"), dict) or is_old


def read(element: JsonObject, notes: Notes) -> ExportedConversation:
    """Read a conversation: a tree in `history`, or the list of an old chat."""
    chat = mapping(element.get("chat", element))
    row = element if "chat" in element else {}
    history = mapping(chat.get("history"))
    messages = mapping(history.get("messages"))
    if messages:
        nodes = tuple(_node(mapping(each), id, notes) for id, each in messages.items())
    elif isinstance(chat.get("messages"), list):
        nodes = chain(_node(each, None, notes) for each in objects(chat["messages"]))
    elif "history" in chat:
        nodes = ()
    else:
        raise UnreadableError("is not a conversation: it has no history")
    timestamp = moment(chat.get("timestamp"))
    return ExportedConversation(
        id=identifier(row.get("id"), chat.get("id")),
        name=identifier(row.get("title"), chat.get("title")),
        created_at=moment(row.get("created_at")) or timestamp,
        updated_at=moment(row.get("updated_at")) or timestamp,
        current=_current(messages, history.get("currentId")),
        metadata=without(row, "id", "title", "created_at", "updated_at", "chat")
        | without(chat, *_READ_CHAT),
        nodes=nodes,
    )


def _current(messages: JsonObject, current: object) -> str | None:
    """Return the leaf below the current message: the last child of each, as Open WebUI does."""
    if not isinstance(current, str) or current not in messages:
        return None
    id = current
    children = dict[str, str]()
    for child, message in messages.items():
        if isinstance(parent := mapping(message).get("parentId"), str):
            children[parent] = child
    visited = {id}
    while (leaf := children.get(id)) is not None and leaf not in visited:
        id = leaf
        visited.add(id)
    return id


def _node(message: JsonObject, id: str | None, notes: Notes) -> Node:
    annotation = mapping(message.get("annotation"))
    rating = annotation.get("rating")
    parts = _parts(message, notes)
    return Node(
        id=id or identifier(message.get("id")),
        parent=identifier(message.get("parentId")),
        role=identifier(message.get("role")),
        created_at=moment(message.get("timestamp")),
        parts=tuple(parts),
        payload=without(message, *_READ_FIELDS),
        thumb=rating if rating in {1, -1} and isinstance(rating, int) else None,
        usage=_usage(message),
    )


def _parts(message: JsonObject, notes: Notes) -> list[Part]:
    """Return the parts of a message: `output` if it has text, otherwise `content`."""
    parts = [_output_part(item, notes) for item in objects(message.get("output"))]
    if any(part.kind == "text" and part.text for part in parts):
        return parts
    content = message.get("content")
    if isinstance(content, list):
        return [*parts, *(_content_part(item, notes) for item in objects(content))]
    has_thinking = any(part.kind == "thinking" for part in parts)
    return [*parts, *_without_details(text(content), keep_thinking=not has_thinking)]


def _output_part(item: JsonObject, notes: Notes) -> Part:
    kind = text(item.get("type"))
    contents = [*objects(item.get("summary")), *objects(item.get("content"))]
    texts = joined(text(each.get("text")) for each in contents)
    match kind:
        case "message":
            return Part("text", texts)
        case "reasoning":
            return Part("thinking", texts)
        case "function_call":
            return Part("call", data=without(item))
        case "function_call_output":
            return Part("result", data=without(item))
    notes.unknown_types[kind or "no type"] += 1
    return Part("unknown", data=without(item))


def _content_part(item: JsonObject, notes: Notes) -> Part:
    kind = text(item.get("type"))
    if kind == "text":
        return Part("text", text(item.get("text")))
    if kind == "image_url":
        return Part("asset", data=without(item))
    notes.unknown_types[kind or "no type"] += 1
    return Part("unknown", data=without(item))


def _without_details(content: str, *, keep_thinking: bool) -> list[Part]:
    """Return the text outside of `<details>`, and the details as thinking or calls.

    The tags are matched one after the other, so the cost is linear even for nested or unclosed
    tags.
    """
    parts, texts = list[Part](), list[str]()
    opened: re.Match[str] | None = None
    depth = at = 0
    for tag in _DETAILS.finditer(content):
        if tag["attributes"] is not None:
            depth += 1
            if depth == 1:
                texts.append(content[at : tag.start()])
                opened = tag
        elif depth and opened is not None:
            depth -= 1
            if depth == 0:
                parts += _details(opened["attributes"], content[opened.end() : tag.start()])
                at = tag.end()
                opened = None
    rest_start = at if opened is None else opened.start()  # unclosed details are text
    texts.append(content[rest_start:])
    if not keep_thinking:
        parts = [part for part in parts if part.kind != "thinking"]
    return [*parts, Part("text", joined(piece.strip() for piece in texts))]


def _details(attributes: str, inner: str) -> list[Part]:
    match = _TYPE.search(attributes)
    kind = match[1] if match else ""
    plain = html.unescape(_SUMMARY.sub("", inner)).strip()
    if kind in {_THINKING, ""}:
        return [Part("thinking", _QUOTE_MARK.sub("", plain))]
    return [
        Part("call", data={"type": kind, "attributes": html.unescape(attributes), "text": plain})
    ]


def _usage(message: JsonObject) -> Usage | None:
    usage = mapping(message.get("usage")) or mapping(mapping(message.get("info")).get("usage"))
    return usage_of_message(usage, identifier(message.get("model")))
