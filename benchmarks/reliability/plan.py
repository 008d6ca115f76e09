"""What the writers of a crash run write: each turn follows from the run's seed, writer and number.

So whoever takes over from a writer that was killed repeats the very turn that was not acknowledged,
and whoever counts at the end knows what should be there.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from asyncsvc import Message, Turn

TENANT: Final = "acme"
DIALOG: Final = "support"
HOT: Final = "hot"
COLD: Final = 12
"""Conversations beside the hot one, which gets every second turn of every writer."""


class Plan(BaseModel):
    """A run's plan, the same in all of its processes; `address` is the file that holds the DSN."""

    model_config = ConfigDict(frozen=True)

    seed: int
    address: Path


class Order(BaseModel):
    """What a writer is started for: to write its turns from the number `first` on."""

    model_config = ConfigDict(frozen=True)

    plan: Plan
    writer: int
    first: int

    @property
    def retry_timeout(self) -> float:
        """Every second writer leaves it to the library to try again; the others do that alone."""
        return 10.0 if self.writer % 2 == 0 else 0.0

    @property
    def name(self) -> str:
        """What the server knows the writer by."""
        return f"writer/{self.writer}/{self.first}"


class Ack(BaseModel):
    """What a writer tells of a turn as soon as it is acknowledged."""

    model_config = ConfigDict(frozen=True)

    writer: int
    number: int
    first_seq: int
    last_seq: int
    round: int
    replayed: bool
    repeats: dict[str, int] = {}
    """How often the call was made again, by the error that it had raised."""
    retries: int = 0
    """How often the library made it again by itself."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One turn, and where it goes under which key."""

    conversation: str
    key: str
    turn: Turn


def conversations() -> list[str]:
    """The ids of all conversations."""
    return [HOT, *(f"cold-{number}" for number in range(COLD))]


def planned(plan: Plan, writer: int, number: int) -> Planned:
    """Return a writer's turn of this number; each message says whose it is in its payload."""
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
    return Planned(conversation, key, Turn(messages=messages, tokens=chance.randint(1, 500)))
