"""Holds what was acknowledged against what is stored, row by row.

The database is asked in plain SQL, not through the library that is on trial, but for the usage,
which only the library's own statement counts.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import asyncpg
from pydantic import BaseModel, ConfigDict

import asyncsvc
from benchmarks.reliability.plan import TENANT, Ack, Plan, Planned, planned

_MESSAGES: Final = """
    SELECT conversation_id, seq, payload ->> 'key' AS key, (payload ->> 'part')::int AS part
      FROM asyncsvc.message
     WHERE tenant_id = $1
     ORDER BY conversation_id, seq
"""
_COUNTERS: Final = """
    SELECT id, round, tokens, last_seq
      FROM asyncsvc.conversation
     WHERE tenant_id = $1
"""
_OPEN: Final = """
    SELECT count(*)
      FROM pg_stat_activity
     WHERE application_name = ANY ($1) AND xact_start IS NOT NULL
"""
_PAUSE: Final = 0.02
_PATIENCE: Final = 5.0
"""Seconds in which the server notices that a client is gone, and ends what it left open."""


class Verdict(BaseModel):
    """What the run came to; all but the first must be 0."""

    model_config = ConfigDict(frozen=True)

    acknowledged: int
    """Turns that the library said were stored."""
    lost: int
    """Acknowledged, and a message of it is not there."""
    doubled: int
    """Keys of which a message is there twice."""
    unacknowledged: int
    """Keys that are there though nobody was ever told so, not even when repeating them."""
    wrong_answers: int
    """Acknowledged with another seq or round than what is stored."""
    gaps: int
    """Numbers missing between 1 and a conversation's last_seq, or beyond it."""
    miscounted: int
    """Conversations whose round is not their turns, or whose tokens are not their sum."""
    misbooked: int
    """Rounds that the usage has too many or too few."""
    open_transactions: int
    """Transactions that a writer left open behind it."""

    @property
    def failures(self) -> dict[str, int]:
        """What must be 0, and is not."""
        return {
            name: count
            for name, count in self.model_dump().items()
            if name != "acknowledged" and count
        }


async def open_transactions(dsn: str, names: Sequence[str]) -> int:
    """Return how many transactions of ended writers stay, when the server had time to notice."""
    connection = await asyncpg.connect(dsn)
    try:
        give_up = time.monotonic() + _PATIENCE
        while (count := await connection.fetchval(_OPEN, names)) and time.monotonic() < give_up:
            await asyncio.sleep(_PAUSE)
    finally:
        await connection.close()
    return int(count)


async def judge(dsn: str, plan: Plan, acks: Sequence[Ack], left_open: int) -> Verdict:
    """Count what is wrong; no writer may be at work any more."""
    connection = await asyncpg.connect(dsn)
    try:
        messages = [_Stored(*row) for row in await connection.fetch(_MESSAGES, TENANT)]
        counters = [_Counters(*row) for row in await connection.fetch(_COUNTERS, TENANT)]
    finally:
        await connection.close()
    by_key, by_conversation = _grouped(messages)
    told = [(planned(plan, ack.writer, ack.number), ack) for ack in acks]
    there = [planned(plan, *map(int, key.split("/"))) for key in by_key]
    return Verdict(
        acknowledged=len(told),
        lost=sum(not _is_whole(what, by_key) for what, _ in told),
        doubled=sum(len(rows) > len({row.part for row in rows}) for rows in by_key.values()),
        unacknowledged=len(by_key.keys() - {what.key for what, _ in told}),
        wrong_answers=_wrong_seqs(told, by_key) + _wrong_rounds(told),
        gaps=sum(_gaps(by_conversation[each.id], each.last_seq) for each in counters),
        miscounted=sum(not _is_counted(each, there) for each in counters),
        misbooked=abs(await _rounds_booked(dsn) - len(there)),
        open_transactions=left_open,
    )


class _Stored(NamedTuple):
    """A message: which part of the turn of which key it is."""

    conversation: str
    seq: int
    key: str
    part: int


class _Counters(NamedTuple):
    """What a conversation's own row says."""

    id: str
    round: int
    tokens: int
    last_seq: int


_Told = Sequence[tuple[Planned, Ack]]
_ByKey = Mapping[str, Sequence[_Stored]]


def _grouped(messages: Iterable[_Stored]) -> tuple[_ByKey, Mapping[str, Sequence[int]]]:
    by_key = defaultdict[str, list[_Stored]](list)
    by_conversation = defaultdict[str, list[int]](list)
    for message in messages:
        by_key[message.key].append(message)
        by_conversation[message.conversation].append(message.seq)
    return by_key, by_conversation


def _is_whole(what: Planned, by_key: _ByKey) -> bool:
    stored = {(row.conversation, row.part) for row in by_key.get(what.key, ())}
    return stored >= {(what.conversation, part) for part in range(len(what.turn.messages))}


def _wrong_seqs(told: _Told, by_key: _ByKey) -> int:
    """Count the answers that name other messages than those of the turn; of lost ones none do."""
    return sum(
        [row.seq for row in by_key[what.key]] != list(range(ack.first_seq, ack.last_seq + 1))
        for what, ack in told
        if _is_whole(what, by_key)
    )


def _wrong_rounds(told: _Told) -> int:
    """Count the answers whose round is not the place of the turn among a conversation's turns."""
    answers = defaultdict[str, list[Ack]](list)
    for what, ack in sorted(told, key=lambda each: each[1].first_seq):
        answers[what.conversation].append(ack)
    return sum(
        ack.round != place for each in answers.values() for place, ack in enumerate(each, start=1)
    )


def _gaps(seqs: Sequence[int], last_seq: int) -> int:
    return len(set(seqs) ^ set(range(1, last_seq + 1)))


def _is_counted(counters: _Counters, there: Iterable[Planned]) -> bool:
    turns = [what.turn for what in there if what.conversation == counters.id]
    return (counters.round, counters.tokens) == (len(turns), sum(turn.tokens for turn in turns))


async def _rounds_booked(dsn: str) -> int:
    now, day = datetime.now(UTC), timedelta(days=1)
    async with asyncsvc.connect(dsn, max_size=1) as svc:
        buckets = await svc.conversations.stats(TENANT, now - day, now + day, basis="activity")
    return sum(bucket.rounds for bucket in buckets)
