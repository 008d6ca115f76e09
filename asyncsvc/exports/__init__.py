"""Readers of the chat exports of other products.

A reader turns one conversation of an export, as parsed JSON, into a tree of nodes and parts. It
does no I/O. A new format is one module with `name`, `matches` and `read`, and its entry in
`READERS`.

`read_conversation` combines the steps: it selects the reader, the visible branch and the times, and
returns the fields of a `ConversationRecord`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from asyncsvc.exports import chatgpt, claude, deepseek, librechat, open_webui, openai
from asyncsvc.exports.model import (
    ExportedConversation,
    JsonObject,
    Node,
    Notes,
    Part,
    Reader,
    UnreadableError,
)
from asyncsvc.exports.records import to_record
from asyncsvc.validation.limits import Limits

READERS: Final[tuple[Reader, ...]] = (
    chatgpt, claude, open_webui, librechat, deepseek, openai,
)  # fmt: skip
"""All formats. At most one of them matches an element."""

__all__ = [
    "READERS",
    "ExportedConversation",
    "JsonObject",
    "Node",
    "Notes",
    "Part",
    "Reader",
    "UnreadableError",
    "find_reader",
    "read_conversation",
]


def find_reader(element: JsonObject, readers: Sequence[Reader] = READERS) -> Reader | None:
    """Return the reader whose format the element has, or None."""
    return next((reader for reader in readers if reader.matches(element)), None)


def read_conversation(
    element: JsonObject,
    *,
    reader: Reader | None = None,
    limits: Limits | None = None,
    notes: Notes | None = None,
    thumbs: Mapping[tuple[str, str], int] | None = None,
) -> dict[str, object] | None:
    """Return the fields of a `ConversationRecord`, without `dialog_id`.

    Args:
        element: One conversation of an export, as parsed JSON.
        reader: The format. None: the reader that matches the element.
        limits: The settings of the service. None: the defaults.
        notes: Counts omitted, moved and changed data.
        thumbs: Feedback by the ids of the conversation and the message.

    Returns:
        The fields, or None if the conversation has no messages.

    Raises:
        UnreadableError: The element has no known format, or is not a conversation.
    """
    reader = reader or find_reader(element)
    if reader is None:
        raise UnreadableError("has no known format")
    notes = Notes() if notes is None else notes
    conversation = reader.read(element, notes)
    return to_record(conversation, reader.name, limits or Limits(), notes, thumbs or {})
