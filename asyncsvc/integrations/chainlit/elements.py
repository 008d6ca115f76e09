"""The elements of Chainlit, and their files in the application's storage."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from chainlit.context import context
from chainlit.data.utils import queue_until_user_message

from asyncsvc import NotFound
from asyncsvc.integrations.chainlit import items
from asyncsvc.integrations.chainlit.steps import FAVORITES, StepStore

if TYPE_CHECKING:
    from chainlit.element import Element, ElementDict

_logger: Final = logging.getLogger(__name__)


class ElementStore(StepStore):
    """The part of the data layer that stores elements, and deletes them with their step."""

    @queue_until_user_message()
    async def create_element(self, element: Element) -> None:
        """Store an element, or replace it. 1 round trip after the upload of its file."""
        if not element.for_id:
            return
        object_key = await self._upload(element)
        stored = {"elements": {element.id: [element.to_dict() | {"objectKey": object_key}]}}
        await self._svc.conversations.upsert(
            element.thread_id,
            {"dialog_id": self._dialog_id, "dsl": stored},
            patch={"merge_dsl": stored},
            tenant_id=self._tenant_id,
        )

    async def _upload(self, element: Element) -> str | None:
        """Store the file of an element; return its key. None: it has none, or a URL alone."""
        content = element.content
        if element.path:
            content = await asyncio.to_thread(Path(element.path).read_bytes)
        if not content:
            return element.object_key
        if self._storage is None:
            _logger.warning("without a storage client the file of %r is not stored", element.name)
            return None
        key = f"threads/{element.thread_id}/files/{element.id}"
        uploaded = await self._storage.upload_file(
            object_key=key,
            data=content,
            mime=element.mime or "application/octet-stream",
            overwrite=True,
            content_disposition="attachment; filename*=UTF-8''" + quote(element.name, safe=""),
        )
        if not uploaded:
            raise ValueError(f"the storage client has not stored the file of {element.name!r}")
        return str(uploaded.get("object_key") or key)

    async def get_element(self, thread_id: str, element_id: str) -> ElementDict | None:
        """Return an element with a URL that reads its file; None if there is none."""
        try:
            element = (await self._elements(thread_id))[element_id]
        except (KeyError, NotFound):
            return None
        return await self._readable(element)

    @queue_until_user_message()
    async def delete_element(self, element_id: str, thread_id: str | None = None) -> None:
        """Delete an element and its file. Without a thread: of the thread of the session."""
        thread_id = thread_id or context.session.thread_id
        try:
            elements = await self._elements(thread_id)
        except NotFound:
            return
        await self._delete_elements(
            thread_id, [each for each in [elements.get(element_id)] if each]
        )

    @queue_until_user_message()
    async def delete_step(self, step_id: str) -> None:
        """Delete a step with its feedback and its elements. 2 round trips, and 1 for elements."""
        try:
            match = await self._svc.conversations.find_message(
                step_id, tenant_id=self._tenant_id, dialog_id=self._dialog_id
            )
        except NotFound:
            return
        thread_id, elements = match.conversation.id, items.elements_of(match.conversation)
        await self._svc.conversations.delete_message(thread_id, step_id, tenant_id=self._tenant_id)
        await self._delete_elements(
            thread_id, [each for each in elements.values() if each.get("forId") == step_id]
        )

    async def delete_thread(self, thread_id: str) -> None:
        """Delete a thread with its files. 2 round trips, and 1 for the keys of the files."""
        if self._storage is not None:
            try:
                await self._delete_files((await self._elements(thread_id)).values())
            except NotFound:
                return
        await self._svc.records.delete(FAVORITES, thread_id, tenant_id=self._tenant_id)
        await self._svc.conversations.delete_by_id(thread_id, tenant_id=self._tenant_id)

    async def _elements(self, thread_id: str) -> dict[str, ElementDict]:
        return items.elements_of(
            await self._svc.conversations.get_by_id(thread_id, tenant_id=self._tenant_id)
        )

    async def _readable(self, element: ElementDict) -> ElementDict:
        """Return an element with a URL that reads its file, which may be valid for a time only."""
        key = element.get("objectKey")
        if self._storage is None or not key or element.get("url"):
            return element
        try:
            return {**element, "url": await self._storage.get_read_url(key)}
        except Exception:  # storage clients raise errors of many libraries
            _logger.exception("the storage client has no URL for %r", key)
            return element

    async def _delete_elements(self, thread_id: str, elements: list[ElementDict]) -> None:
        """Delete elements of a thread and their files."""
        if not elements:
            return
        await self._delete_files(elements)
        removed: dict[str, Any] = {"elements": {each["id"]: None for each in elements}}
        await self._svc.conversations.update_by_id(
            thread_id, {"merge_dsl": removed}, tenant_id=self._tenant_id
        )

    async def _delete_files(self, elements: Iterable[ElementDict]) -> None:
        for element in elements:
            if self._storage is not None and (key := element.get("objectKey")):
                await self._storage.delete_file(key)
