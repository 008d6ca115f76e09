"""Sample values of the demo for missing fields of conversations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final
from zlib import crc32

from asyncsvc.cli.json_lines import Item

_USERS: Final = 36
_CHARACTERS_PER_TOKEN: Final = 4


class SampleData:
    """Adds a user, a time and tokens to conversations without them."""

    def __init__(self, dialog_id: str, time_of: Callable[[int], datetime]) -> None:
        """Put all conversations into one dialog; `time_of` returns a time for a line number."""
        self._dialog_id = dialog_id
        self._time_of = time_of
        self.added = set[str]()
        """The names of all fields added so far."""

    def complete(self, item: Item) -> Mapping[str, object]:
        """Return the fields of a conversation, with sample values for missing ones."""
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
