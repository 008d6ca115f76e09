"""What the demo makes up for conversations whose lines do not say it, and what it hears in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from zlib import crc32

from asyncsvc.cli.lines import Item

_USERS: Final = 36
_CHARACTERS_A_TOKEN: Final = 4
_WORD: Final = re.compile(r"[^\W\d_]{4,}")
_MOST_WORDS: Final = 50_000


@dataclass(slots=True)
class Inventor:
    """Completes records for one dialog; `invent_time` dates a line by its number."""

    dialog_id: str
    invent_time: Callable[[int], datetime]
    invented: set[str] = field(default_factory=set)
    words: Counter[str] = field(default_factory=Counter)

    def fill(self, item: Item) -> Mapping[str, Any]:
        """Return the record with a user, a creation and tokens, and count its words."""
        texts = _texts(item.fields)
        self._hear(texts)
        made_up = {
            "user_id": _user(str(item.fields.get("id"))),
            "created_at": self.invent_time(item.number),
            "tokens": -(-sum(map(len, texts)) // _CHARACTERS_A_TOKEN),
        }
        missing = {name for name in made_up if item.fields.get(name) is None}
        self.invented |= missing
        return (
            {"source": "demo"}
            | item.fields
            | {name: made_up[name] for name in missing}
            | {"dialog_id": self.dialog_id}
        )

    def _hear(self, texts: list[str]) -> None:
        """Count words, and forget rare ones when there are too many."""
        for text in texts:
            self.words.update(_WORD.findall(text.lower()))
        if len(self.words) > _MOST_WORDS:
            self.words = Counter(dict(self.words.most_common(_MOST_WORDS // 2)))


def _texts(fields: Mapping[str, Any]) -> list[str]:
    messages = fields.get("messages")
    contents = (
        given.get("content") for given in (messages if isinstance(messages, list) else ())
        if isinstance(given, dict)
    )  # fmt: skip
    return [content for content in contents if isinstance(content, str)]


def _user(id: str) -> str:
    return f"user-{crc32(id.encode(errors='replace')) % _USERS + 1:02}"
