"""Loads conversation lines through the services, again and again without adding anything twice.

Conversations are created in batches; what exists is left as it is. Their messages are appended a
few conversations at a time, under an idempotency key, so a run that was broken off is made good by
the next one. What a line does not say is invented, and the report says so.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from zlib import crc32

from pydantic import ValidationError

from asyncsvc.cli.lines import BadLine, ConversationLine
from asyncsvc.client import Services
from asyncsvc.errors import IdempotencyConflict, InvalidInput
from asyncsvc.inputs import invalid_input
from asyncsvc.models import Message, NewConversation, Turn
from asyncsvc.settings import Settings

_KEY: Final = "demo"
_TASKS: Final = 8
_BATCH_ITEMS: Final = 200
_BATCH_BYTES: Final = 2**22
_USERS: Final = 36
_CHARACTERS_A_TOKEN: Final = 4
_WORD: Final = re.compile(r"[^\W\d_]{4,}")
_MOST_WORDS: Final = 50_000
_BAD_SHOWN: Final = 5
_NULL_BYTES: Final = 16


@dataclass(slots=True)
class LoadReport:
    """What a load did. `bad` holds the first bad lines, `bad_count` counts all of them."""

    conversations: int = 0
    messages: int = 0
    present: int = 0
    bad_count: int = 0
    bad: list[BadLine] = field(default_factory=list)
    invented: set[str] = field(default_factory=set)
    words: Counter[str] = field(default_factory=Counter)

    def refuse(self, line: BadLine) -> None:
        """Count a line that did not go in."""
        self.bad_count += 1
        if len(self.bad) < _BAD_SHOWN:
            self.bad.append(line)

    def hear(self, messages: Iterable[Message]) -> None:
        """Count the words of messages, and forget rare ones when there are too many."""
        for message in messages:
            self.words.update(_WORD.findall(message.content.lower()))
        if len(self.words) > _MOST_WORDS:
            self.words = Counter(dict(self.words.most_common(_MOST_WORDS // 2)))


@dataclass(frozen=True, slots=True)
class _Ready:
    number: int
    id: str
    new: NewConversation
    turns: Sequence[Turn]


@dataclass(slots=True)
class Loader:
    """Loads lines into one dialog of a tenant; `invent_time` dates a line by its number."""

    services: Services
    tenant_id: str
    dialog_id: str
    invent_time: Callable[[int], datetime]
    advance: Callable[[], None]
    report: LoadReport = field(default_factory=LoadReport)

    async def load(self, lines: Iterable[ConversationLine | BadLine]) -> LoadReport:
        """Load all lines; a bad one is reported and does not keep the others out."""
        for batch in _batches(lines):
            ready = [line for line in map(self._prepared, batch) if line is not None]
            if ready:
                created = await self.services.conversations.create_many(
                    [line.new for line in ready], tenant_id=self.tenant_id
                )
                self.report.conversations += created
                self.report.present += len(ready) - created
                await self._append_all(ready)
        return self.report

    def _prepared(self, line: ConversationLine | BadLine) -> _Ready | None:
        """Check a whole line before any of it goes in."""
        if isinstance(line, BadLine):
            self._refuse(line.number, line.reason)
            return None
        settings = self.services.conversations.settings
        try:
            new = NewConversation.model_validate(self._new(line), context=settings)
            ready = _Ready(line.number, line.id, new, _turns(line, settings))
        except ValidationError as error:
            self._refuse(line.number, str(invalid_input(error)))
        except InvalidInput as error:
            self._refuse(line.number, str(error))
        else:
            self._note_invented(line)
            self.report.hear(line.messages)
            return ready
        return None

    def _refuse(self, number: int, reason: str) -> None:
        self.report.refuse(BadLine(number, reason))
        self.advance()

    def _new(self, line: ConversationLine) -> NewConversation:
        return NewConversation(
            id=line.id,
            dialog_id=self.dialog_id,
            user_id=_invented_user(line.id) if line.user is None else line.user,
            name=line.name,
            source=_KEY,
            metadata=line.metadata,
            created_at=line.created_at or self.invent_time(line.number),
        )

    def _note_invented(self, line: ConversationLine) -> None:
        given = {"user": line.user, "created_at": line.created_at, "tokens": line.tokens}
        self.report.invented.update(name for name, value in given.items() if value is None)

    async def _append_all(self, ready: Sequence[_Ready]) -> None:
        queue = iter(ready)

        async def work() -> None:
            for line in queue:  # one iterator for all tasks: each takes the next line
                await self._append(line)
                self.advance()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_TASKS):
                    group.create_task(work())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _append(self, line: _Ready) -> None:
        for number, turn in enumerate(line.turns, start=1):
            try:
                appended = await self.services.conversations.append_message(
                    line.id,
                    turn,
                    tenant_id=self.tenant_id,
                    idempotency_key=_KEY if number == 1 else f"{_KEY}-{number}",
                )
            except IdempotencyConflict:
                self.report.present -= 1
                self.report.refuse(
                    BadLine(line.number, "id: is loaded already, with other messages")
                )
                return
            if not appended.replayed:
                self.report.messages += len(turn.messages)


def _batches(
    lines: Iterable[ConversationLine | BadLine],
) -> Iterator[list[ConversationLine | BadLine]]:
    """Group lines so that a batch is bounded and has no id twice: the first line is to win."""
    batch: list[ConversationLine | BadLine] = []
    ids: set[str] = set()
    size = 0
    for line in lines:
        id, more = (line.id, line.size) if isinstance(line, ConversationLine) else ("", 0)
        if batch and (id in ids or len(batch) >= _BATCH_ITEMS or size + more > _BATCH_BYTES):
            yield batch
            batch, ids, size = [], set(), 0
        batch.append(line)
        size += more
        if id:
            ids.add(id)
    if batch:
        yield batch


def _turns(line: ConversationLine, settings: Settings) -> list[Turn]:
    """Make one turn of all messages, or as many as the limits ask for; check them by the limits."""
    if line.size <= settings.batch_bytes and len(line.messages) <= settings.batch_items:
        return [_turn(line.messages, line.tokens, settings)]
    tokens, turns = line.tokens, []
    for messages in _within_limits(line.messages, settings):
        turns.append(_turn(messages, tokens, settings))
        tokens = None if tokens is None else 0
    return turns


def _turn(messages: Sequence[Message], tokens: int | None, settings: Settings) -> Turn:
    characters = sum(len(message.content) for message in messages)
    fields = {
        "messages": messages,
        "tokens": -(-characters // _CHARACTERS_A_TOKEN) if tokens is None else tokens,
        "round": sum(message.role == "user" for message in messages),
    }
    return Turn.model_validate(fields, context=settings)


def _within_limits(messages: Iterable[Message], settings: Settings) -> Iterator[list[Message]]:
    chunk: list[Message] = []
    size = 0
    for message in messages:
        more = _most_bytes(message)
        if chunk and (len(chunk) >= settings.batch_items or size + more > settings.batch_bytes):
            yield chunk
            chunk, size = [], 0
        chunk.append(message)
        size += more
    yield chunk


def _most_bytes(message: Message) -> int:
    """Return at least what the library counts for a message: JSON's own text is never shorter."""
    content = len(message.content.encode(errors="replace"))
    return content + len(json.dumps([message.payload, message.reference])) + _NULL_BYTES


def _invented_user(id: str) -> str:
    return f"user-{crc32(id.encode(errors='replace')) % _USERS + 1:02}"
