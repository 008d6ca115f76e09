"""The replacement of items by their summary, as OpenAIResponsesCompactionSession asks for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncsvc.integrations.openai_agents.items import item_of, message_of

if TYPE_CHECKING:
    from agents import TResponseInputItem

    from asyncsvc.integrations.message_log import MessageLog


@dataclass(frozen=True)
class CompactionSnapshot:
    """The newest items of a session, and what can take their place."""

    items: list[TResponseInputItem]
    complete: bool
    """Whether the session has no other items."""
    replace_suffix: Callable[[int, list[TResponseInputItem]], Awaitable[bool]]
    """Replaces the items from an index on, unless the session has changed."""


class CompactionHooks:
    """The methods that `OpenAIResponsesCompactionSession` looks for by name in a session.

    Without them it reads all items, deletes them and adds the summary, in several calls. That is
    also what it does with a subclass of the session, which may convert the items.
    """

    _log: MessageLog

    @property
    def _is_subclass(self) -> bool:
        return CompactionHooks not in type(self).__bases__

    async def _get_compaction_snapshot(
        self, limit: int, *, prune_prefix: Callable[[TResponseInputItem], bool] | None = None
    ) -> CompactionSnapshot | None:
        """Return the newest items; None if the SDK has to do without.

        Args:
            limit: The number of items.
            prune_prefix: Says of the oldest items which to delete with a replacement.
        """
        if self._is_subclass or not 0 < limit < self._log.svc.settings.max_page_size:
            return None
        messages = await self._log.newest(limit + 1)
        newest = messages[-limit:]

        async def replace_suffix(start: int, output: list[TResponseInputItem]) -> bool:
            old, new = newest[start:], [message_of(item, self._log) for item in output]
            is_expired = prune_prefix and (lambda message: prune_prefix(item_of(message)))
            return bool(old) and await self._log.replace(old, new, is_expired=is_expired)

        return CompactionSnapshot(
            list(map(item_of, newest)), len(messages) <= limit, replace_suffix
        )

    async def _atomic_replace_items(self, items: list[TResponseInputItem]) -> bool:
        """Replace all items in one transaction; return whether the items were replaced."""
        if self._is_subclass:
            return False
        await self._log.replace_all([message_of(item, self._log) for item in items])
        return True
