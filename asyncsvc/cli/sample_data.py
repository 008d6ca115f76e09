"""Values of the demo for conversations that lack them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final
from zlib import crc32

from asyncsvc.cli.json_lines import Item

_USERS: Final = 36
_CHARACTERS_PER_TOKEN: Final = 4


class SampleData:
    """Adds a user, a time and tokens to conversations that have none."""

    def __init__(self, dialog_id: str, time_of: Callable[[int], datetime]) -> None:
        """Put all conversations into one dialog; `time_of` dates a line by its number."""
        self._dialog_id = dialog_id
        self._time_of = time_of
        self.added = set[str]()
        """The fields that were added to some conversation."""

    def complete(self, item: Item) -> Mapping[str, object]:
        """Return the fields of a conversation."""
        sample = {
            "user_id": f"user-{crc32(repr(item.fields.get('id')).encode()) % _USERS + 1:02}",
            "created_at": self._time_of(item.number),
            "tokens": -(-_characters(item.fields) // _CHARACTERS_PER_TOKEN),
        }
        missing = {name: each for name, each in sample.items() if item.fields.get(name) is None}
        self.added |= missing.keys()
        return {"source": "demo"} | item.fields | missing | {"dialog_id": self._dialog_id}


def _characters(fields: Mapping[str, object]) -> int:
    messages = fields.get("messages")
    contents = [
        message.get("content")
        for message in (messages if isinstance(messages, list) else ())
        if isinstance(message, dict)
    ]
    return sum(len(content) for content in contents if isinstance(content, str))
