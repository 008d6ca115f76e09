"""A task of an application of the soak, and the rows that it creates."""

from __future__ import annotations

import random
import secrets
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import asyncpg

import asyncsvc
from asyncsvc import Message, Turn

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

TENANTS: Final = ("acme", "globex", "initech")
DIALOGS: Final = ("support", "sales")
USERS: Final = ("ann", "bob", "eve", "")
_KEPT: Final = 12


@dataclass(slots=True)
class Application:
    """One task of an application, with the ids and tokens that it created."""

    svc: asyncsvc.AsyncSvc
    pool: Pool
    dsn: str
    tenant: str
    chance: random.Random
    ids: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))
    issued: deque[asyncsvc.IssuedToken] = field(default_factory=lambda: deque(maxlen=_KEPT))

    @property
    def conversations(self) -> asyncsvc.API4ConversationService:
        """The conversations."""
        return self.svc.conversations

    @property
    def tokens(self) -> asyncsvc.APITokenService:
        """The tokens."""
        return self.svc.tokens

    @property
    def budgets(self) -> asyncsvc.BudgetService:
        """The budgets."""
        return self.svc.budgets

    @property
    def records(self) -> asyncsvc.RecordService:
        """The records."""
        return self.svc.records

    async def id(self) -> str:
        """Return the id of a conversation, which may be deleted."""
        return self.chance.choice(self.ids) if self.ids else await self.create()

    async def token(self) -> asyncsvc.IssuedToken:
        """Return a token, which may be deleted."""
        return self.chance.choice(self.issued) if self.issued else await self.create_token()

    async def create(self) -> str:
        """Create a conversation and keep its id."""
        conversation = await self.conversations.create(
            tenant_id=self.tenant, dialog_id=self.chance.choice(DIALOGS), dsl={"nodes": [1, 2, 3]}
        )
        self.ids.append(conversation.id)
        return conversation.id

    async def create_token(self) -> asyncsvc.IssuedToken:
        """Issue a token and keep it."""
        issued = await self.tokens.create(tenant_id=self.tenant, name="one more", scopes=["chat"])
        self.issued.append(issued)
        return issued

    def turn(self) -> Turn:
        """Return a random turn."""
        chance = self.chance
        messages = [
            Message(role=role, content="word " * chance.randint(1, 100), payload={"n": [1, 2]})
            for role in ("user", "assistant")
        ]
        return Turn(messages=messages, tokens=chance.randint(1, 100), duration=chance.random())

    def new(self) -> dict[str, object]:
        """Return a conversation to create."""
        return {
            "id": secrets.token_hex(8),
            "dialog_id": self.chance.choice(DIALOGS),
            "user_id": self.chance.choice(USERS),
            "name": f"about {self.chance.choice(('cats', 'dogs', 'birds'))}",
        }
