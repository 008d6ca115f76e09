"""The state of a run, and the values that its tasks choose from."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from asyncsvc import AsyncSvc
from tests.models.clocks import clock_changes
from tests.models.model import Model
from tests.models.state import Conversation, Row

TENANTS = ("acme", "globex")
DECLARED = ("Europe/Berlin", "Asia/Kathmandu", "America/Havana")  # Havana's change at midnight
LATER = ("Australia/Lord_Howe", "America/New_York")  # by half an hour
ZONES = ("UTC", *DECLARED, *LATER)
DIALOGS, SOURCES, TOKENS = ("d1", "d2", "d3"), (None, "web", "api"), (None, "key")
USERS = ("", "ann", "bob", "eve", "joe")
ACTING = (None, "ann", "bob", "joe")

MOMENTS = [
    moment
    for tz in ZONES[1:]
    for moment in clock_changes(tz)
    if 2024 <= moment.year <= 2026
] + [datetime(2025, month, 1, tzinfo=UTC) for month in range(1, 13)]  # fmt: skip


@dataclass
class World:
    """The state that all tasks of a run share."""

    svc: AsyncSvc
    dsn: str
    chance: random.Random
    left: int
    """The number of operations that the writers still have to do."""
    ids: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in TENANTS})
    committed: Model = field(default_factory=Model)
    """The committed activity."""
    wrong: list[str] = field(default_factory=list)
    checks: int = 0
    roll_ups: int = 0
    """The number of tenants rolled up."""
    kills: int = 0

    def report(self, difference: str) -> None:
        self.wrong.append(difference)
        self.left = 0  # the run has failed

    def instant(self) -> datetime:
        spread = self.chance.choice((1, 3_600, 4 * 3_600, 40 * 86_400))
        return self.chance.choice(MOMENTS) + timedelta(seconds=self.chance.uniform(-spread, spread))

    def new_conversation(self) -> Row:
        return {
            "id": f"c{self.chance.getrandbits(64):x}",
            "dialog_id": self.chance.choice(DIALOGS),
            "source": self.chance.choice(SOURCES),
            "user_id": self.chance.choice(USERS),
            "created_at": self.instant(),
        }

    def record_creation(self, tenant_id: str, fields: Row, **counters: int) -> None:
        self.ids[tenant_id].append(fields["id"])
        conversation = Conversation(**fields)
        self.committed.conversations.record_activity(
            tenant_id, conversation, {"conversations": 1} | counters, at=conversation.created_at
        )

    def id(self, tenant_id: str) -> str:
        """Return an id, often a new one that other writers choose too."""
        ids = self.ids[tenant_id][-4:] if self.chance.random() < 1 / 2 else self.ids[tenant_id]
        return self.chance.choice(ids) if ids else "absent"
