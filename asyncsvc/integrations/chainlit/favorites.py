"""The favourites of the users of Chainlit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from asyncsvc import NotFound
from asyncsvc.integrations.chainlit import items
from asyncsvc.integrations.chainlit.users import UserStore

if TYPE_CHECKING:
    from chainlit.step import StepDict

    from asyncsvc import Record

FAVORITES: Final = "chainlit-favorites"
"""The kind of the records with the favourites of a thread, each with the ids of its steps."""


class FavoriteStore(UserStore):
    """The part of the data layer that stores which steps of a user are favourites."""

    async def _index_favorite(self, step: StepDict, thread_id: str) -> None:
        """Add a step to the favourites of the thread's user, or remove it, if it says so."""
        metadata = step.get("metadata") or {}
        if "favorite" not in metadata:
            return
        conversation = await self._svc.conversations.get_by_id(thread_id, tenant_id=self._tenant_id)
        await self._svc.records.merge(
            FAVORITES,
            thread_id,
            {step["id"]: True if metadata["favorite"] else None},
            tenant_id=self._tenant_id,
            user_id=conversation.user_id,
        )

    async def get_favorite_steps(self, user_id: str) -> list[StepDict]:
        """Return the favourite steps of a user, newest first.

        2 round trips, and 1 for each step.
        """
        identifier = await self._identifier(user_id)
        after: str | None = None
        steps: list[StepDict] = []
        while True:
            page = await self._svc.records.list(
                FAVORITES, tenant_id=self._tenant_id, user_id=identifier, after=after
            )
            for favorites in await asyncio.gather(*map(self._favorites_of, page.items)):
                steps += favorites
            after = page.next
            if after is None:
                return items.in_order(steps)[::-1]

    async def _favorites_of(self, record: Record) -> list[StepDict]:
        steps = []
        for step_id in record.data:
            try:
                message = await self._svc.conversations.get_message(
                    record.id, step_id, tenant_id=self._tenant_id
                )
            except NotFound:  # deleted since
                continue
            step = items.step_of_message(message, record.id)
            if step["metadata"].get("favorite"):
                steps.append(step)
        return steps
