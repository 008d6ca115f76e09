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

from asyncsvc import Message, NewConversation, Turn, Usage
from benchmarks.reliability import Frozen

TENANT: Final = "acme"
DIALOGS: Final = ("support", "sales")
USERS: Final = ("ann", "bob", "eve")
TOKENS: Final = ("web", "app")
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
    """One turn with its conversation, its idempotency key and its usages."""

    conversation: NewConversation
    key: str
    usages: tuple[Usage, ...]
    turn: Turn


def conversations() -> list[NewConversation]:
    """Return all conversations, the hot one first."""
    return [_conversation(HOT, 0), *(_conversation(f"cold-{n}", n) for n in range(COLD))]


def _conversation(id: str, number: int) -> NewConversation:
    return NewConversation(
        id=id,
        dialog_id=DIALOGS[number % len(DIALOGS)],
        user_id=USERS[number % len(USERS)],
        source=(None, "web")[number % 2],
    )


def planned(plan: Plan, writer: int, number: int) -> Planned:
    """Return a writer's turn by number; the payload of each message contains its key and part."""
    chance = random.Random(f"{plan.seed}/{writer}/{number}")  # noqa: S311 - no secret
    hot, *cold = conversations()
    conversation = hot if chance.random() < 1 / 2 else chance.choice(cold)
    key = f"{writer}/{number}"
    messages = [
        Message(
            role="user" if part % 2 == 0 else "assistant",
            content="word " * chance.randint(1, 200),
            payload={"key": key, "part": part},
        )
        for part in range(chance.choice((1, 2, 2, 3)))
    ]
    usages = tuple(_usage(chance) for _ in range(chance.choice((1, 1, 3))))
    turn = Turn(
        messages=messages,
        usage=usages,
        user_id=chance.choice((None, *USERS)),
        token_id=chance.choice((None, *TOKENS)),
    )
    return Planned(conversation, key, usages, turn)


def _usage(chance: random.Random) -> Usage:
    cached, reasoning = chance.randint(0, 100), chance.randint(0, 100)
    return Usage(
        input_tokens=cached + chance.randint(1, 500),
        output_tokens=reasoning + chance.randint(0, 500),
        cached_input_tokens=cached,
        reasoning_tokens=reasoning,
        cost=chance.choice((None, Decimal(chance.randint(0, 10**9)).scaleb(-9))),
        model=chance.choice((None, "small", "large")),
    )
