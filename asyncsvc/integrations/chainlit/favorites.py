"""The base of the data layer of Chainlit: its constructor, and the favourites of users."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from chainlit.data.base import BaseDataLayer

from asyncsvc import NewConversation, NotFound
from asyncsvc.integrations.chainlit import items

if TYPE_CHECKING:
    from chainlit.data.storage_clients.base import BaseStorageClient
    from chainlit.step import StepDict

    from asyncsvc import Record, Services

FAVORITES: Final = "chainlit-favorites"
"""The kind of the records with the favourites of a thread, each with the ids of its steps."""


class FavoriteStore(BaseDataLayer):
    """The part of the data layer that stores which steps of a user are favourites."""

    def __init__(
        self,
        svc: Services,
        *,
        tenant_id: str,
        dialog_id: str,
        token_id: str | None = None,
        storage_client: BaseStorageClient | None = None,
    ) -> None:
        """Use the conversations of a dialog. No statement runs before the first call.

        Args:
            svc: The services. The application closes them, not `close`.
            tenant_id: The tenant. Another tenant's thread with the same id is another one.
            dialog_id: The dialog of the threads, for example the name of the application.
            token_id: The API token to which the usage is attributed.
            storage_client: The files of elements. None: only the data of elements is stored.
        """
        self._svc = svc
        self._tenant_id = tenant_id
        self._dialog_id = dialog_id
        self._new = NewConversation(dialog_id=dialog_id)
        self._token_id = token_id
        self._storage = storage_client

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
        """Return the favourite steps of a user, newest first. 1 round trip, and 1 for each step."""
        after: str | None = None
        steps: list[StepDict] = []
        while True:
            page = await self._svc.records.list(
                FAVORITES, tenant_id=self._tenant_id, user_id=user_id, after=after
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
