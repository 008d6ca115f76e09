"""Items of OpenAI's Responses API as messages of a conversation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from agents import TResponseInputItem

    from asyncsvc import StoredMessage
    from asyncsvc.integrations.message_log import MessageLog

_TEXTS: Final = ("content", "summary", "output")
"""The fields of an item that contain text or a list of parts with text."""
_UNKNOWN: Final = "asyncsvc.item"
"""The field with an item that has no field of the SDK, as a session around this one may store."""


def message_of(item: Mapping[str, Any], log: MessageLog) -> dict[str, object]:
    """Return the fields of the message of an item.

    The message has no id: items of one session may have equal ids, for example those of models
    that give none, and of the SDK's own models for tests.
    """
    return {
        "role": item.get("role") or _role(str(item.get("type"))),
        "content": log.searchable("\n".join(_texts(item))),
        "payload": item if is_item(item) else {_UNKNOWN: item},
    }


def _role(kind: str) -> str:
    """Return the role of an item without one. Its type says whether a tool wrote it."""
    return "tool" if kind.endswith("_output") else "assistant"


def _texts(item: Mapping[str, Any]) -> Iterator[str]:
    """Return the texts of an item: of a message, of a refusal, of reasoning, of a tool."""
    for name in _TEXTS:
        parts = item.get(name)
        for part in [parts] if isinstance(parts, str | Mapping) else parts or ():
            text = part if isinstance(part, str) else part.get("text") or part.get("refusal")
            if isinstance(text, str):
                yield text


def item_of(message: StoredMessage) -> TResponseInputItem:
    """Return the item of a message."""
    if is_item(message.payload):
        return message.payload
    if _UNKNOWN in message.payload:
        return message.payload[_UNKNOWN]
    return {"role": message.role, "content": message.content}


def model_of(items: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the model that wrote the items; None if they name none or several.

    Items of the SDK's models of LiteLLM and any-llm name it, those of OpenAI's models do not.
    """
    sources = [item.get("provider_data") for item in items]
    named = [source.get("model") for source in sources if isinstance(source, Mapping)]
    models = {model for model in named if isinstance(model, str)}
    return models.pop() if len(models) == 1 else None


def is_item(payload: Mapping[str, object]) -> bool:
    """Return whether a payload is an item, and not that of another program's message.

    An item of `EncryptedSession` has the field "__enc__".
    """
    return "type" in payload or ("role" in payload and "content" in payload) or "__enc__" in payload
