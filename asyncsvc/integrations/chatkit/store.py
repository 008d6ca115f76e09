"""The store of a ChatKit server: its items and attachments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from asyncsvc.integrations.extras import needs_extra

with needs_extra("chatkit"):
    from chatkit.store import NotFoundError, TContext
    from chatkit.types import Attachment, FeedbackKind, Page, ThreadItem

from pydantic import TypeAdapter

from asyncsvc import AlreadyExists, NotFound
from asyncsvc.integrations.chatkit.items import is_item, items_of, key_of, message_of, payload_of
from asyncsvc.integrations.chatkit.threads import ThreadStore, not_found

_ATTACHMENT: Final = "chatkit.attachment"
_ATTACHMENTS: Final = TypeAdapter[Attachment](Attachment)


class Store(ThreadStore[TContext]):
    """The threads, items and attachments that a `ChatKitServer` loads and saves.

    One store serves all requests: a function returns the tenant and the user of a request's
    context, and both are conditions of each statement. What another user has raises
    `chatkit.store.NotFoundError`. Any number of stores, in any number of tasks and processes, can
    use one thread at a time. Each method is 1 round trip, whatever the length of the thread.

    Threads and items are stored whole. Items are in the order in which they were added. Their ids
    become the ids of messages, and their texts are searchable. A message of the user counts 1
    round. ChatKit passes no tokens to its store.
    """

    async def load_thread_items(
        self, thread_id: str, after: str | None, limit: int, order: str, context: TContext
    ) -> Page[ThreadItem]:
        """Return items after the item `after`; no item if the user has no such thread.

        1 round trip more if another program has appended one of the messages.

        Args:
            limit: At least 1.
            order: "asc": the oldest first. Otherwise the newest first.
        """
        limit, ascending = max(limit, 1), order == "asc"
        bound = key_of(after) if after else None
        lower, upper = (bound, None) if ascending else (None, bound)
        conversations, owner = self._svc.conversations, self._owner(context)
        part = {"limit" if ascending else "last": limit + 1}
        try:
            payloads = await conversations.payloads(
                thread_id, after=lower, before=upper, **part, **owner
            )
            count = len(payloads)
            if not all(map(is_item, payloads)):
                size = min(count, self._svc.settings.max_page_size)
                last = None if ascending else size
                messages = await conversations.messages(
                    thread_id, after=lower, before=upper, limit=size, last=last, **owner
                )
                payloads = [payload_of(message, thread_id) for message in messages]
        except NotFound as error:
            if error.resource == "conversation":
                return Page[ThreadItem]()
            raise NotFoundError(f"Item {after} not found") from error
        if not ascending:
            payloads.reverse()
        items = items_of(payloads[:limit])
        after = items[-1].id if count > len(items) else None
        return Page[ThreadItem].model_construct(data=items, has_more=after is not None, after=after)

    async def load_item(self, thread_id: str, item_id: str, context: TContext) -> ThreadItem:
        """Return an item."""
        get, key = self._svc.conversations.get_message, key_of(item_id)
        with not_found(f"Item {item_id}"):
            message = await get(thread_id, key, **self._owner(context))
        return items_of([payload_of(message, thread_id)])[0]

    async def add_thread_item(self, thread_id: str, item: ThreadItem, context: TContext) -> None:
        """Append an item.

        2 round trips more if the thread has an item with this id: an equal one is kept, so that a
        call can be repeated; another one raises AlreadyExists.
        """
        message = message_of(item, self._svc.settings.max_message_bytes)
        turn = {"messages": [message], "round": int(item.type == "user_message")}
        with not_found(f"Thread {thread_id}"):
            try:
                await self._svc.conversations.append_message(
                    thread_id, turn, **self._owner(context)
                )
            except AlreadyExists:
                get = self._svc.conversations.get_message
                stored = await get(thread_id, item.id, **self._owner(context))
                if stored.payload != message["payload"]:
                    raise

    async def save_item(self, thread_id: str, item: ThreadItem, context: TContext) -> None:
        """Replace an item in its place, or append it."""
        message = message_of(item, self._svc.settings.max_message_bytes)
        with not_found(f"Thread {thread_id}"):
            await self._svc.conversations.put_message(thread_id, message, **self._owner(context))

    async def delete_thread_item(self, thread_id: str, item_id: str, context: TContext) -> None:
        """Delete an item, if it exists."""
        delete, key = self._svc.conversations.delete_message, key_of(item_id)
        await delete(thread_id, key, **self._owner(context))

    async def set_feedback(
        self, thread_id: str, item_ids: Sequence[str], kind: FeedbackKind, context: TContext
    ) -> None:
        """Store feedback, for `ChatKitServer.add_feedback`. 1 round trip for each item."""
        rate, thumb = self._svc.conversations.set_feedback, 1 if kind == "positive" else -1
        for item_id in item_ids:
            with not_found(f"Item {item_id}"):
                await rate(thread_id, key_of(item_id), thumb, **self._owner(context))

    async def save_attachment(self, attachment: Attachment, context: TContext) -> None:
        """Create or replace the metadata of an attachment."""
        put, data = self._svc.records.put, attachment.model_dump(mode="json")
        try:
            await put(_ATTACHMENT, attachment.id, data, **self._owner(context))
        except AlreadyExists as error:
            raise NotFoundError(f"Attachment {attachment.id} not found") from error

    async def load_attachment(self, attachment_id: str, context: TContext) -> Attachment:
        """Return the metadata of an attachment."""
        with not_found(f"Attachment {attachment_id}"):
            record = await self._svc.records.get(_ATTACHMENT, attachment_id, **self._owner(context))
        return _ATTACHMENTS.validate_python(record.data)

    async def delete_attachment(self, attachment_id: str, context: TContext) -> None:
        """Delete the metadata of an attachment, if they exist."""
        await self._svc.records.delete(_ATTACHMENT, attachment_id, **self._owner(context))
