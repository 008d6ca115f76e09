"""The part of a conversation that a row contains, so that an append need not read it again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self
from weakref import WeakValueDictionary

from asyncsvc.models import Conversation
from asyncsvc.ragflow.messages import Key

if TYPE_CHECKING:
    from asyncsvc.database import Executor

_COMPARED: Final = 20


class Snapshot(NamedTuple):
    """The messages of a row at one moment.

    A caller that changed a message in place is recognized if it is one of the last messages. Copies
    of all messages would cost more than the append, since each is an object of its own.
    """

    messages: Sequence[object]
    last_contents: Sequence[object]

    @classmethod
    def of(cls, messages: Sequence[object]) -> Self:
        """Return the snapshot of these messages."""
        return cls(list(messages), _contents(messages[-_COMPARED:]))

    def begins(self, messages: Sequence[object]) -> bool:
        """Return whether these messages begin with those of the snapshot."""
        count = len(self.messages)
        return (
            messages[:count] == self.messages
            and _contents(self.messages[-_COMPARED:]) == self.last_contents
        )


def _contents(messages: Iterable[object]) -> list[object]:
    return [each.get("content") if isinstance(each, dict) else each for each in messages]


@dataclass(frozen=True, slots=True)
class Known:
    """The state of a conversation when a row was read or written."""

    tenant_id: str
    id: str
    last_seq: int
    tokens: int
    duration: float
    has_references: bool
    """Whether a message has a reference."""
    messages: Snapshot
    """The messages of the row."""
    others: Sequence[Key] = ()
    """The messages up to `last_seq` that the row lacks."""

    @classmethod
    def of(
        cls, stored: Conversation, messages: Sequence[Mapping[str, Any]], *, has_references: bool
    ) -> Self:
        """Return what is known of a conversation with these messages."""
        return cls(
            tenant_id=stored.tenant_id,
            id=stored.id,
            last_seq=stored.last_seq,
            tokens=stored.tokens,
            duration=stored.duration,
            has_references=has_references,
            messages=Snapshot.of(messages),
        )


class KnownMessages(list[dict[str, Any]]):
    """The messages of a row. Callers change the list, and pass it back in the row."""

    def __init__(self, messages: Iterable[dict[str, Any]] = (), known: Known | None = None) -> None:
        """Set what is known of the conversation of these messages."""
        super().__init__(messages)
        self.known = known


def known_of(row: Mapping[str, Any], tenant_id: str, id: str) -> Known | None:
    """Return what is known of a conversation, if a row of it begins with the known messages.

    None: its caller built the row itself, or changed or removed messages.
    """
    messages = row.get("message")
    if not isinstance(messages, KnownMessages) or messages.known is None:
        return None
    known = messages.known
    if (
        (known.tenant_id, known.id) != (tenant_id, id)
        or not known.messages.begins(messages)
        or not isinstance(row.get("reference") or [], list)
        or not isinstance(row.get("update_time"), int)
    ):
        return None
    return known


class Queue:
    """The callers of this process that append to one conversation."""

    def __init__(self) -> None:
        """Begin without callers."""
        self.lock = asyncio.Lock()
        self.state: Known | None = None
        """The state after the last append of this queue."""
        self._first_seq = 0
        self._appended: list[tuple[int, Key]] = []

    def set_state(self, state: Known, before: int, appended: Sequence[Key]) -> None:
        """Set the state after an append to the state whose last_seq was `before`."""
        if self.state is None or self.state.last_seq != before:
            self._first_seq, self._appended = before, []
        self._appended += zip(range(before + 1, state.last_seq + 1), appended, strict=True)
        self.state = state

    def appended_after(self, seq: int) -> list[Key] | None:
        """Return the messages after a seq; None if this queue did not append all of them."""
        if self.state is None or seq < self._first_seq:
            return None
        return [key for number, key in self._appended if number > seq]


_QUEUES: Final[WeakValueDictionary[tuple[Executor, str, str], Queue]] = WeakValueDictionary()
"""The queues by conversation. A queue exists while a caller appends or waits."""


def queue_of(executor: Executor, tenant_id: str, id: str) -> Queue:
    """Return the queue of a conversation."""
    return _QUEUES.setdefault((executor, tenant_id, id), Queue())
