"""The result of a reader: a conversation as a tree of nodes, and the counts of omitted data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Final, Literal, Protocol, TypeAlias

from asyncsvc.models import Usage

JsonObject: TypeAlias = Mapping[str, object]
Kind: TypeAlias = Literal["text", "thinking", "call", "result", "asset", "unknown"]

STRUCTURE: Final = "structure"
"""`Node.hidden` of a node without a message, such as a root. It is not counted."""


class UnreadableError(Exception):
    """An element cannot be read; the text gives the reason."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a message. Only text and thinking are searchable; `data` goes to the payload."""

    kind: Kind
    text: str = ""
    data: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node of the tree: a message, or a node without one, such as a root."""

    id: str | None
    """None: the library derives one."""
    parent: str | None = None
    role: str | None = None
    created_at: datetime | None = None
    parts: tuple[Part, ...] = ()
    payload: JsonObject = field(default_factory=dict)
    hidden: str | None = None
    """The type of an omitted node: hidden context, or `STRUCTURE`."""
    thumb: int | None = None
    """1 is positive, -1 is negative."""
    usage: Usage | None = None
    """The usage of the requests that made the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedConversation:
    """A conversation of an export, with all its branches."""

    id: str | None
    """None: the library derives one."""
    name: str | None
    created_at: datetime | None
    updated_at: datetime | None
    current: str | None
    """The last node of the visible branch, if the export names it."""
    metadata: JsonObject
    nodes: tuple[Node, ...]
    """In the order of the file."""


@dataclass(slots=True)
class Notes:
    """Counts of omitted, moved and changed data, by name."""

    left_out: Counter[str] = field(default_factory=Counter)
    """Messages by reason: hidden, other_branch, empty, no_role, machinery, empty_conversation."""
    hidden_types: Counter[str] = field(default_factory=Counter)
    """Hidden messages by type."""
    unknown_types: Counter[str] = field(default_factory=Counter)
    """Unknown types of content."""
    payload_only: Counter[str] = field(default_factory=Counter)
    """Parts of messages by kind that are stored in the payload and are not searchable."""
    omitted_fields: Counter[str] = field(default_factory=Counter)
    """Fields of the format that are not stored."""
    changed: Counter[str] = field(default_factory=Counter)
    """Values that were cut, dropped or replaced."""
    derived_ids: int = 0
    """Conversations without an id of their own."""
    missing_times: int = 0
    """Messages without a time of their own."""
    feedback: int = 0
    """Rows of feedback that were applied."""

    def add(self, other: Notes) -> None:
        """Add the counts of other notes."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def hide(self, kind: str) -> None:
        """Count a hidden message."""
        self.left_out["hidden"] += 1
        self.hidden_types[kind] += 1


class Reader(Protocol):
    """One format. A reader does no I/O, applies no limits, and reports omitted data."""

    @property
    def name(self) -> str:
        """The name of the format, which is also the source of its conversations."""

    def matches(self, head: JsonObject) -> bool:
        """Return whether an element is a conversation of this format."""

    def read(self, element: JsonObject, notes: Notes) -> ExportedConversation:
        """Read an element. Raises UnreadableError."""
