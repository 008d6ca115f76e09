"""Items of ChatKit as messages of a conversation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Final

from chatkit.types import (
    AssistantMessageItem,
    StructuredInputItem,
    ThreadItem,
    UserMessageItem,
    WidgetItem,
)
from pydantic import TypeAdapter

from asyncsvc.integrations.message_log import searchable

if TYPE_CHECKING:
    from pydantic import JsonValue

    from asyncsvc import StoredMessage

_ROLES: Final = {
    "user_message": "user",
    "client_tool_call": "tool",
    "hidden_context_item": "system",
    "sdk_hidden_context": "system",
}
_FIELDS: Final = {"type", "id", "thread_id", "created_at"}
"""The fields that each item has."""
_ITEMS: Final = TypeAdapter[list[ThreadItem]](list[ThreadItem])
_KEY_OF_SEQ: Final = re.compile(r"asyncsvc:([1-9]\d{0,8})")


def message_of(item: ThreadItem, max_bytes: int) -> dict[str, object]:
    """Return the fields of the message of an item."""
    return {
        "id": item.id,
        "role": _ROLES.get(item.type, "assistant"),
        "content": searchable("\n".join(_texts(item)), max_bytes),
        "payload": item.model_dump(mode="json"),
        "created_at": item.created_at.astimezone(UTC),
    }


def _texts(item: ThreadItem) -> Iterator[str]:
    """Return the texts that a person reads."""
    if isinstance(item, UserMessageItem | AssistantMessageItem):
        yield from (part.text for part in item.content)
    elif isinstance(item, WidgetItem):
        yield item.copy_text or ""
    elif isinstance(item, StructuredInputItem):
        yield from (each.question for each in item.inputs)


def is_item(payload: Mapping[str, object]) -> bool:
    """Return whether a store has stored this payload, and not an append of another program."""
    return payload.keys() >= _FIELDS


def items_of(payloads: Sequence[Mapping[str, object]]) -> list[ThreadItem]:
    """Return the items of payloads."""
    return _ITEMS.validate_python(payloads)


def payload_of(message: StoredMessage, thread_id: str) -> dict[str, JsonValue]:
    """Return the payload of a message, or that of the item that shows it."""
    if is_item(message.payload):
        return message.payload
    fields: dict[str, JsonValue] = {
        "id": message.id or f"asyncsvc:{message.seq}",
        "thread_id": thread_id,
        "created_at": message.created_at.isoformat(),
    }
    if message.role in {"system", "tool"}:
        return fields | {"type": "hidden_context_item", "content": message.content}
    if message.role == "user":
        part: JsonValue = {"type": "input_text", "text": message.content}
        return fields | {"type": "user_message", "content": [part], "inference_options": {}}
    return fields | {"type": "assistant_message", "content": [{"text": message.content}]}


def key_of(item_id: str) -> int | str:
    """Return the key of the message of an item: its seq if it has no id of its own."""
    without_id = _KEY_OF_SEQ.fullmatch(item_id)
    return item_id if without_id is None else int(without_id[1])
