"""The base classes of the services, and helpers that both services use."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, TypeVar

from asyncsvc.errors import NotFound
from asyncsvc.repositories import ConversationRepository, MessageRepository

if TYPE_CHECKING:
    from asyncsvc.database import Executor
    from asyncsvc.settings import Settings

T = TypeVar("T")


class CommonService:
    """A service on an executor. It has no state, so any number of tasks can share it."""

    def __init__(self, executor: Executor, settings: Settings) -> None:
        """Run statements on this executor, within the limits of these settings."""
        self._executor = executor
        self._settings = settings

    @property
    def settings(self) -> Settings:
        """The settings, with the limits that arguments are validated against."""
        return self._settings


class ConversationServiceBase(CommonService):
    """The base of each concern of the conversation service: the repositories that they share."""

    def __init__(self, executor: Executor, settings: Settings) -> None:
        """Run statements on this executor, within the limits of these settings."""
        super().__init__(executor, settings)
        self._conversations = ConversationRepository(executor)
        self._messages = MessageRepository(executor)


def row_or_not_found(row: T | None, what: str) -> T:
    """Return the row. Raises NotFound if it is None."""
    if row is None:
        raise NotFound(f"no such {what}")
    return row


def new_id() -> str:
    """Return a new UUID of version 7 (RFC 9562, section 5.7) as 32 hex characters.

    It starts with the time in milliseconds, so that rows of about the same time are neighbours in
    an index. No order depends on it.
    """
    random = int.from_bytes(os.urandom(10), "big")
    milliseconds = time.time_ns() // 1_000_000
    version_7 = milliseconds << 80 | 0x7 << 76 | (random >> 68 & 0xFFF) << 64
    return f"{version_7 | 0b10 << 62 | random & (1 << 62) - 1:032x}"
