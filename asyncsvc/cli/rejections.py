"""The reasons why items of an import were rejected, one line for each reason."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from asyncsvc.cli.terminal import remark

_MAX_NAMED: Final = 5
_MAX_REASONS: Final = 100


@dataclass(slots=True)
class _Group:
    count: int = 0
    first: list[tuple[int | str, str]] = field(default_factory=list)
    """The first items with their reasons."""


class Rejections:
    """Counts rejected items by reason. Reasons that differ only in numbers count as one."""

    def __init__(self) -> None:
        """Start without rejections."""
        self.count = 0
        self._groups: dict[tuple[str, str], _Group] = {}

    def add(self, noun: str, item: int | str, reason: str) -> None:
        """Count an item: a noun, such as "line", and its number or id."""
        self.count += 1
        key = (noun, re.sub(r"\d+", "0", reason))
        if key not in self._groups and len(self._groups) >= _MAX_REASONS:
            key, reason = (noun, ""), "other reasons"
        group = self._groups.setdefault(key, _Group())
        group.count += 1
        # Several batches run at once, so the items arrive in any order.
        group.first = sorted([*group.first, (item, reason)])[:_MAX_NAMED]

    def report(self) -> None:
        """Print a line for each reason on stderr, with the first items and the count, once."""
        nouns = {noun for noun, _ in self._groups}
        for noun in sorted(nouns):
            groups = [group for key, group in self._groups.items() if key[0] == noun]
            for group in sorted(groups, key=lambda group: group.first):
                remark(_line(noun, group))
        self._groups.clear()


def _line(noun: str, group: _Group) -> str:
    first, reason = group.first[0]
    if group.count == 1:
        return f"{noun} {first}: {reason}"
    more = ", …" if group.count > len(group.first) else ""
    items = ", ".join(str(item) for item, _ in group.first)
    return f"{group.count:,} {noun}s ({items}{more}): {reason}"
