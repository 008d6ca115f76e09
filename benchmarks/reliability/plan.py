"""The turns of a crash run, computed from the run's seed, the writer and the turn's number.

The successor of a killed writer therefore repeats exactly the turn without an acknowledgement, and
the evaluation computes the expected content of the database.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

from pydantic import Field

from asyncsvc import Message, Turn, Usage
from benchmarks.reliability import Frozen

TENANT: Final = "acme"
DIALOG: Final = "support"
HOT: Final = "hot"
COLD: Final = 12
"""The number of conversations other than the hot one, which gets about half of all turns."""


class Plan(Frozen):
    """The plan of a run, equal in all its processes; the file `address` contains the DSN."""

    seed: int
    address: Path


class Order(Frozen):
    """The task of a writer process: it writes its turns from the number `first`."""

    plan: Plan
    writer: int
    first: int

    @property
    def retry_timeout(self) -> float:
        """The library retries for every second writer; the other writers retry themselves."""
        return 10.0 if self.writer % 2 == 0 else 0.0

    @property
    def name(self) -> str:
        """The application name of the writer's sessions."""
        return f"writer/{self.writer}/{self.first}"


class Ack(Frozen):
    """The acknowledgement of a turn, as a writer reports it."""

    writer: int
    number: int
    first_seq: int
    last_seq: int
    round: int
    replayed: bool
    repeats: dict[str, int] = Field(default_factory=dict)
    """The number of repeated calls, by the error that the call before raised."""
    retries: int = 0
    """The number of retries by the library."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One turn with its conversation, its idempotency key and its usage."""

    conversation: str
    key: str
    usage: Usage
    turn: Turn


def conversations() -> list[str]:
    """Return the ids of all conversations."""
    return [HOT, *(f"cold-{number}" for number in range(COLD))]


def planned(plan: Plan, writer: int, number: int) -> Planned:
    """Return a writer's turn by number; the payload of each message contains its key and part."""
    chance = random.Random(f"{plan.seed}/{writer}/{number}")  # noqa: S311 - no secret
    conversation = HOT if chance.random() < 1 / 2 else f"cold-{chance.randrange(COLD)}"
    key = f"{writer}/{number}"
    messages = [
        Message(
            role="user" if part % 2 == 0 else "assistant",
            content="word " * chance.randint(1, 200),
            payload={"key": key, "part": part},
        )
        for part in range(chance.choice((1, 2, 2, 3)))
    ]
    usage = Usage(
        input_tokens=chance.randint(1, 500),
        output_tokens=chance.randint(0, 500),
        cost=Decimal(chance.randint(0, 10**9)).scaleb(-9),
        model=chance.choice(("small", "large")),
    )
    return Planned(conversation, key, usage, Turn(messages=messages, usage=usage))
