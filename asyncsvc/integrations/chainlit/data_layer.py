"""The data layer of Chainlit: its threads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from asyncsvc.integrations.extras import needs_extra

with needs_extra("chainlit"):
    from chainlit.types import PageInfo, PaginatedResponse

from asyncsvc import ANY, NotFound
from asyncsvc.integrations.chainlit import items
from asyncsvc.integrations.chainlit.elements import ElementStore
from asyncsvc.integrations.chainlit.users import user_id_of
from asyncsvc.integrations.packing import unwrap_values

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from chainlit.element import ElementDict
    from chainlit.step import StepDict
    from chainlit.types import Pagination, ThreadDict, ThreadFilter

    from asyncsvc import Conversation

_MAX_NAME_LENGTH: Final = 255


class DataLayer(ElementStore):
    """The data layer that an application returns from its `@chainlit.data_layer`.

    Any number of processes can use one store. Each call is atomic: concurrent changes of a thread's
    metadata and of a step lose nothing.

    A step is stored whole in the payload of its message, which has the id, the role and the output
    of the step too. The user of a thread is stored by his identifier.
    """

    async def get_thread_author(self, thread_id: str) -> str:
        """Return the identifier of a thread's user; empty if there is no thread or no user."""
        read, tenant_id = self._svc.conversations, self._tenant_id
        try:
            return (await read.get_by_id(thread_id, tenant_id=tenant_id)).user_id
        except NotFound:
            return ""

    async def get_thread(self, thread_id: str) -> ThreadDict | None:
        """Return a thread with all steps and elements; None if there is none. 2 round trips."""
        read, tenant_id = self._svc.conversations, self._tenant_id
        try:
            conversation = await read.get_by_id(thread_id, tenant_id=tenant_id)
            payloads = await read.payloads(thread_id, tenant_id=tenant_id)
        except NotFound:
            return None
        if all(map(items.is_step, payloads)):
            steps = [items.step_of(each) for each in payloads]
        else:  # another program has appended some
            messages = read.iter_messages(thread_id, tenant_id=tenant_id)
            steps = [items.step_of_message(each, thread_id) async for each in messages]
        stored = items.elements_of(conversation).values()
        elements = await asyncio.gather(*map(self._readable, stored))
        return _thread(conversation, conversation.created_at, items.in_order(steps), list(elements))

    async def list_threads(
        self, pagination: Pagination, filters: ThreadFilter
    ) -> PaginatedResponse[ThreadDict]:
        """Return a page of threads without steps, those updated last first. 2 round trips.

        The cursor is the id of the last thread of the page before; if it was deleted, the page is
        empty. A search finds words in the id, the name and the outputs of a thread.
        """
        user_id = ANY if filters.userId is None else await self._identifier(filters.userId)
        try:
            page = await self._svc.conversations.get_list(
                tenant_id=self._tenant_id,
                dialog_id=self._dialog_id,
                user_id=user_id,
                keywords=filters.search or "",
                thumb=ANY if filters.feedback is None else 2 * filters.feedback - 1,
                orderby="updated_at",
                items_per_page=min(pagination.first, self._svc.settings.max_page_size),
                after_id=pagination.cursor or None,
                include_dsl=False,
                total="none",
            )
        except NotFound:
            return PaginatedResponse(PageInfo(False, None, None), [])  # noqa: FBT003
        threads = [_thread(each, each.updated_at, [], []) for each in page.items]
        first, last = (threads[0]["id"], threads[-1]["id"]) if threads else (None, None)
        return PaginatedResponse(PageInfo(page.next is not None, first, last), threads)

    async def update_thread(
        self,
        thread_id: str,
        name: str | None = None,
        user_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        tags: list[str] | None = None,
    ) -> None:
        """Set columns of a thread and keys of its metadata, or create it.

        1 round trip, with a user 2. None changes nothing; a key of the metadata with the value None
        is removed.
        """
        if name is None and metadata:
            name = metadata.get("name")
        if user_id is not None:
            user_id = await self._identifier(user_id)
        columns = {"name": name and str(name)[:_MAX_NAME_LENGTH], "user_id": user_id}
        patch: dict[str, Any] = {k: v for k, v in columns.items() if v is not None}
        new = {
            "dialog_id": self._dialog_id,
            **patch,
            "metadata": items.metadata_of(metadata, tags, is_patch=False),
        }
        if merged := items.metadata_of(metadata, tags, is_patch=True):
            patch["merge_metadata"] = merged
        await self._svc.conversations.upsert(thread_id, new, patch=patch, tenant_id=self._tenant_id)

    async def build_debug_url(self) -> str:
        """Return no URL: the store has no pages."""
        return ""

    async def close(self) -> None:
        """Close the storage client. The application closes the services."""
        if self._storage is not None:
            await self._storage.close()


def _thread(
    conversation: Conversation, at: datetime, steps: list[StepDict], elements: list[ElementDict]
) -> ThreadDict:
    """Return a conversation as a thread."""
    stored: Mapping[str, Any] = conversation.metadata or {}
    identifier = conversation.user_id or None
    return {
        "id": conversation.id,
        "createdAt": items.iso(at),
        "name": conversation.name,
        "userId": identifier and user_id_of(identifier),
        "userIdentifier": identifier,
        "tags": stored.get("tags") or [],
        "metadata": unwrap_values(stored.get("metadata") or {}),
        "steps": steps,
        "elements": elements,
    }
