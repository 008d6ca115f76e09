"""The options of an import, and its findings in the files."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Final

from asyncsvc import Settings
from asyncsvc.exports import Notes, Reader
from asyncsvc.exports.model import JsonObject

_SHARD: Final = re.compile(r"(?P<stem>.*conversations-)(?P<number>\d{3,6})(?P<suffix>\.json|\.zip)")
_MAX_REJECTIONS: Final = 1_000
_MIN_TIME: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A rejected record."""

    file: str
    number: int
    id: str | None
    reason: str


@dataclass(kw_only=True)
class ImportContext:
    """The state that all files of one import share."""

    tz: tzinfo
    settings: Settings
    reader: Reader | None = None
    """The format of all files. None: each is recognized by its content."""
    only_lines: bool = False
    """Whether all files have one JSON object per line."""
    several_files: bool = False
    notes: Notes = field(default_factory=Notes)
    """The sums for the stored conversations."""
    thumbs: dict[tuple[str, str], int] = field(default_factory=dict)
    """Feedback by the ids of the conversation and the message."""
    feedback_rows: int = 0
    formats: dict[str, str] = field(default_factory=dict)
    """The format of each file that was read."""
    not_read: dict[str, str] = field(default_factory=dict)
    """The reason for each file that was not read."""
    cut_off: list[str] = field(default_factory=list)
    """Files that ended early. Their complete conversations are imported."""
    rejections: list[Rejection] = field(default_factory=list)
    """The first rejected records."""
    duplicates: int = 0
    """Conversations that the same file or another one has in a newer form."""
    listed: set[str] = field(default_factory=set)
    """The files that a manifest of an export names."""
    unreadable: list[str] = field(default_factory=list)
    """The errors of files on the command line without a known format."""
    has_containers: bool = False
    """Whether a file is an archive or a folder: it should have all shards of an export."""
    _shards: defaultdict[tuple[str, str], set[int]] = field(
        default_factory=lambda: defaultdict(set)
    )
    _last_id: object = None
    _names: set[str] = field(default_factory=set)
    _seen: dict[str, tuple[datetime, int]] = field(default_factory=dict)

    def add_file(self, name: str) -> None:
        """Remember a file of an export, to find missing ones."""
        base = name.replace("\\", "/").rpartition("/")[2]
        self._names.add(base)
        if match := _SHARD.fullmatch(base):
            self._shards[match["stem"], match["suffix"]].add(int(match["number"]))

    @property
    def missing(self) -> list[str]:
        """The missing files: those that a manifest names, and gaps in the numbers of shards."""
        gaps = {
            f"{stem}{number:03}{suffix}"
            for (stem, suffix), numbers in self._shards.items()
            for number in range(0 if self.has_containers else min(numbers), max(numbers))
            if number not in numbers
        }
        return sorted(gaps | (self.listed - self._names))

    def add_rejection(self, rejection: Rejection) -> None:
        """Remember a rejected record."""
        if len(self.rejections) < _MAX_REJECTIONS:
            self.rejections.append(rejection)

    def is_continued(self, id: object) -> bool:
        """Return whether a line has the id of the previous line, as a part of one conversation."""
        is_continued = id is not None and id == self._last_id
        self._last_id = id
        return is_continued

    def is_repeated(self, record: JsonObject) -> bool | None:
        """Return whether an earlier record had this id; None if that one is at least as new."""
        id, messages, updated_at = record.get("id"), record.get("messages"), record["updated_at"]
        version = (
            updated_at if isinstance(updated_at, datetime) else _MIN_TIME,
            len(messages) if isinstance(messages, list) else 0,
        )
        previous = self._seen.get(str(id))
        if previous is not None:
            self.duplicates += 1
            if version <= previous:
                return None
        self._seen[str(id)] = version
        return previous is not None
