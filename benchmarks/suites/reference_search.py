"""The expected results of a search: `str.find` over all messages of a tenant."""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.server import connected, sql


@dataclass
class ReferenceSearch:
    """All messages of a tenant in one text, in the order of a search."""

    text: str = ""
    begins: list[int] = field(default_factory=list)
    places: list[tuple[str, int]] = field(default_factory=list)

    @classmethod
    async def read(cls, dsn: str, tenant_id: str) -> ReferenceSearch:
        """Read all messages, converted to lower case by the database."""
        parts, reference, length = list[str](), cls(), 0
        async with connected(dsn) as connection, connection.transaction():
            async for row in connection.cursor(sql("all_messages"), tenant_id, prefetch=5_000):
                reference.begins.append(length)
                reference.places.append((row["conversation_id"], row["seq"]))
                parts.append(row["content"])
                length += len(row["content"]) + 1
        reference.text = "\0".join(parts)
        return reference

    def hits(self, keywords: str) -> Iterator[tuple[str, int]]:
        """Yield each conversation that contains the text, with the first such message."""
        at, last = self.text.find(keywords), None
        while at >= 0:
            number = bisect.bisect_right(self.begins, at) - 1
            if self.places[number][0] != last:
                last = self.places[number][0]
                yield self.places[number]
            end = self.begins[number + 1] if number + 1 < len(self.begins) else len(self.text)
            at = self.text.find(keywords, end)

    def substring(self, chance: random.Random) -> str:
        """Return 1 to 12 consecutive characters of a message."""
        while True:
            begin = chance.randrange(len(self.text))
            part = self.text[begin : begin + chance.randint(1, 12)]
            if part and "\0" not in part:
                return part
