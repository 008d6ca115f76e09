"""asyncsvc itself, with the interface of the other contenders."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import asyncsvc
from benchmarks.data import TURN, texts


def connect(
    dsn: str, *, settings: asyncsvc.Settings | None = None, min_size: int = 1, max_size: int = 10
) -> asyncsvc.Connecting:
    """Connect without maintenance in the background, so that all rounds measure the same store."""
    quiet = (settings or asyncsvc.Settings()).model_copy(update={"maintenance_interval": None})
    return asyncsvc.connect(dsn, settings=quiet, min_size=min_size, max_size=max_size)


@dataclass(frozen=True)
class Library:
    """The store of conversations with the library, on its pool or on a connection."""

    svc: asyncsvc.Services
    keyed: bool = False
    """Whether each append has a new idempotency key."""

    async def append(self, tenant_id: str, id: str) -> object:
        """Append the turn."""
        key = secrets.token_hex(8) if self.keyed else None
        return await self.svc.conversations.append_message(
            id, TURN, tenant_id=tenant_id, idempotency_key=key
        )

    async def messages(self, tenant_id: str, id: str) -> list[tuple[str, str]]:
        """Return the messages of a conversation; raise AssertionError if a seq is missing."""
        conversation = await self.svc.conversations.get_by_id(
            id, tenant_id=tenant_id, include_messages=True
        )
        return texts(conversation.messages or (), last_seq=conversation.last_seq)
