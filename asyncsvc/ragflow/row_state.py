"""The state of a conversation that a row contains, so that an append need not read it again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self
from weakref import WeakValueDictionary

from asyncsvc.models import Conversation
from asyncsvc.ragflow.messages import Key

if TYPE_CHECKING:
    from asyncsvc.database import Executor

_COMPARED: Final = 20
_MAX_REMEMBERED: Final = 1_000
"""The messages of a queue. Callers that have read less read the others from the database."""


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
class RowState:
    """The state of a conversation when a row was read or written."""

    tenant_id: str
    id: str
    created_at: datetime
    """It distinguishes the conversation from another one that is later stored under its id."""
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
    def of(cls, stored: Conversation, messages: Snapshot, *, has_references: bool = False) -> Self:
        """Return the state of a conversation and of a row with these messages."""
        return cls(
            tenant_id=stored.tenant_id,
            id=stored.id,
            created_at=stored.created_at,
            last_seq=stored.last_seq,
            tokens=stored.tokens,
            duration=stored.duration,
            has_references=has_references,
            messages=messages,
        )


class RowMessages(list[dict[str, Any]]):
    """The messages of a row. Callers change the list, and pass it back in the row."""

    def __init__(
        self, messages: Iterable[dict[str, Any]] = (), state: RowState | None = None
    ) -> None:
        """Set the state of the conversation of these messages."""
        super().__init__(messages)
        self.state = state


def state_of(row: Mapping[str, Any], tenant_id: str, id: str) -> RowState | None:
    """Return the state of a conversation, if a row of it still begins with the same messages.

    None: its caller built the row itself, or changed or removed messages.
    """
    messages = row.get("message")
    if not isinstance(messages, RowMessages) or messages.state is None:
        return None
    state = messages.state
    if (
        (state.tenant_id, state.id) != (tenant_id, id)
        or not state.messages.begins(messages)
        or not isinstance(row.get("reference") or [], list)
        or not isinstance(row.get("update_time"), int)
    ):
        return None
    return state


class Queue:
    """The callers of this process that append to one conversation."""

    def __init__(self) -> None:
        """Begin without callers."""
        self.lock = asyncio.Lock()
        self.state: RowState | None = None
        """The state after the last append of this queue."""
        self._first_seq = 0
        self._appended: list[tuple[int, Key]] = []

    def set_state(self, state: RowState, before: int, appended: Sequence[Key]) -> None:
        """Set the state after an append to the state whose last_seq was `before`."""
        if self.state is None or (
            (self.state.created_at, self.state.last_seq) != (state.created_at, before)
        ):
            self._first_seq, self._appended = before, []
        self._appended += zip(range(before + 1, state.last_seq + 1), appended, strict=True)
        self.state = state
        if excess := max(len(self._appended) - _MAX_REMEMBERED, 0):
            self._first_seq, _ = self._appended[excess - 1]
            del self._appended[:excess]

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
