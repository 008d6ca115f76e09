"""Compare the acknowledged turns with the stored rows.

The rows are read with plain SQL instead of the library under test. The usage is the exception: only
the library's statement computes it.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from benchmarks.reliability import Frozen, metered
from benchmarks.reliability.plan import TENANT, Ack, Plan, Planned, planned
from benchmarks.server import connected

_MESSAGES: Final = """
    SELECT conversation_id, seq, payload ->> 'key', (payload ->> 'part')::int
      FROM asyncsvc.message
     WHERE tenant_id = $1
     ORDER BY conversation_id, seq
"""
_COUNTERS: Final = (
    "SELECT id, round, tokens, last_seq FROM asyncsvc.conversation WHERE tenant_id = $1"
)
_OPEN: Final = """
    SELECT count(*)
      FROM pg_stat_activity
     WHERE application_name = ANY ($1) AND xact_start IS NOT NULL
"""
_PAUSE: Final = 0.02
_ROLLBACK_TIMEOUT: Final = 5.0
"""Seconds in which the server must detect a lost client and roll back its transaction."""


class Verdict(Frozen):
    """The counts of a run; all except `acknowledged` must be 0."""

    acknowledged: int
    """Acknowledged turns."""
    lost: int
    """Acknowledged turns of which a message is missing."""
    duplicated: int
    """Keys of which a message is stored twice."""
    unacknowledged: int
    """Stored keys without an acknowledgement, although the writer repeats each key."""
    wrong_results: int
    """Acknowledgements with another seq or round than the stored turn."""
    gaps: int
    """Missing seqs between 1 and a conversation's last_seq, and seqs after last_seq."""
    wrong_counters: int
    """Conversations whose round or tokens are not the sums over their turns."""
    wrong_usage: int
    """The absolute difference between the rounds of the usage and the stored turns; without one,
    the groups of all dimensions and the budgets that are not the sums over the turns."""
    open_transactions: int
    """Transactions that are still open after the end of their writer."""

    @property
    def failures(self) -> dict[str, int]:
        """The counts that must be 0 and are not."""
        return {
            name: count
            for name, count in self.model_dump().items()
            if name != "acknowledged" and count
        }


async def open_transactions(dsn: str, names: Sequence[str]) -> int:
    """Return the number of transactions of ended writers that the server did not roll back."""
    give_up = time.monotonic() + _ROLLBACK_TIMEOUT
    async with connected(dsn) as connection:
        while (count := await connection.fetchval(_OPEN, names)) and time.monotonic() < give_up:
            await asyncio.sleep(_PAUSE)
    return int(count)


async def evaluate(dsn: str, plan: Plan, acks: Sequence[Ack], left_open: int) -> Verdict:
    """Return the counts of a run after the end of all writers."""
    async with connected(dsn) as connection:
        messages = [_Stored(*row) for row in await connection.fetch(_MESSAGES, TENANT)]
        counters = [_Counters(*row) for row in await connection.fetch(_COUNTERS, TENANT)]
    by_key, by_conversation = _grouped(messages, "key"), _grouped(messages, "conversation")
    acknowledged = [(planned(plan, ack.writer, ack.number), ack) for ack in acks]
    stored = [planned(plan, *map(int, key.split("/"))) for key in by_key]
    return Verdict(
        acknowledged=len(acknowledged),
        lost=sum(not _is_complete(expected, by_key) for expected, _ in acknowledged),
        duplicated=sum(len(rows) > len({row.part for row in rows}) for rows in by_key.values()),
        unacknowledged=len(by_key.keys() - {expected.key for expected, _ in acknowledged}),
        wrong_results=_wrong_seqs(acknowledged, by_key) + _wrong_rounds(acknowledged),
        gaps=sum(_gaps(by_conversation.get(each.id, ()), each.last_seq) for each in counters),
        wrong_counters=sum(not _is_sum(each, stored) for each in counters),
        wrong_usage=await metered.differences(dsn, stored),
        open_transactions=left_open,
    )


class _Stored(NamedTuple):
    """A stored message with the key and the part of its turn."""

    conversation: str
    seq: int
    key: str
    part: int


class _Counters(NamedTuple):
    """The counters of a conversation's row."""

    id: str
    round: int
    tokens: int
    last_seq: int


_Acknowledged = Sequence[tuple[Planned, Ack]]
_Groups = Mapping[str, Sequence[_Stored]]


def _grouped(messages: Iterable[_Stored], by: str) -> _Groups:
    groups = defaultdict[str, list[_Stored]](list)
    for message in messages:
        groups[getattr(message, by)].append(message)
    return groups


def _is_complete(expected: Planned, by_key: _Groups) -> bool:
    stored = {(row.conversation, row.part) for row in by_key.get(expected.key, ())}
    parts = range(len(expected.turn.messages))
    return stored >= {(expected.conversation.id, part) for part in parts}


def _wrong_seqs(acknowledged: _Acknowledged, by_key: _Groups) -> int:
    """Count the acknowledgements whose seqs are not those of the turn, without lost turns."""
    return sum(
        [row.seq for row in by_key[expected.key]] != list(range(ack.first_seq, ack.last_seq + 1))
        for expected, ack in acknowledged
        if _is_complete(expected, by_key)
    )


def _wrong_rounds(acknowledged: _Acknowledged) -> int:
    """Count the acknowledgements whose round is not the turn's position in its conversation."""
    by_conversation = defaultdict[str, list[Ack]](list)
    for expected, ack in sorted(acknowledged, key=lambda each: each[1].first_seq):
        by_conversation[str(expected.conversation.id)].append(ack)
    return sum(
        ack.round != position
        for acks in by_conversation.values()
        for position, ack in enumerate(acks, start=1)
    )


def _gaps(messages: Iterable[_Stored], last_seq: int) -> int:
    return len({message.seq for message in messages} ^ set(range(1, last_seq + 1)))


def _is_sum(counters: _Counters, stored: Iterable[Planned]) -> bool:
    turns = [each for each in stored if each.conversation.id == counters.id]
    return (counters.round, counters.tokens) == (
        len(turns),
        sum(usage.tokens for each in turns for usage in each.usages),
    )
