"""The threads of a ChatKit server, each a conversation."""

from __future__ import annotations

import contextlib
import secrets
import unicodedata
from collections.abc import Callable, Iterator
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

import chatkit.store
from chatkit.store import NotFoundError, StoreItemType, TContext, default_generate_id
from chatkit.types import Page, ThreadMetadata

from asyncsvc import InvalidInput, NotFound
from asyncsvc.integrations.extras import require_services
from asyncsvc.integrations.message_log import Owner

if TYPE_CHECKING:
    from asyncsvc import Conversation, Services

_MAX_NAME_LENGTH: Final = 512


class ThreadStore(chatkit.store.Store[TContext]):
    """The part of the store that loads and saves threads without their items."""

    def __init__(
        self, svc: Services, owner: Callable[[TContext], tuple[str, str]], *, dialog_id: str
    ) -> None:
        """Use these services. No statement runs before the first call.

        Args:
            svc: The services, also those of a transaction.
            owner: Returns the tenant and the user of a request's context. Visitors with an empty
                user share their threads.
            dialog_id: The dialog of new threads, for example the name of the agent. `load_threads`
                returns the threads of this dialog.
        """
        self._svc = require_services(svc)
        if not callable(owner):
            raise InvalidInput("owner", "must be a function of a request's context")
        self._owner_of = owner
        self._dialog_id = dialog_id

    def _owner(self, context: TContext) -> Owner:
        tenant_id, user_id = self._owner_of(context)
        return {"tenant_id": tenant_id, "user_id": user_id}

    def generate_thread_id(self, context: TContext) -> str:  # noqa: ARG002 - as in ChatKit
        """Return a random id of 128 bits. ChatKit's own has 32, too few for a large tenant."""
        return _random_id("thread")

    def generate_item_id(
        self,
        item_type: StoreItemType,
        thread: ThreadMetadata,  # noqa: ARG002 - as in ChatKit
        context: TContext,  # noqa: ARG002 - as in ChatKit
    ) -> str:
        """Return a random id of 128 bits."""
        return _random_id(item_type)

    async def load_thread(self, thread_id: str, context: TContext) -> ThreadMetadata:
        """Return a thread."""
        with not_found(f"Thread {thread_id}"):
            row = await self._svc.conversations.get_by_id(thread_id, **self._owner(context))
        return _thread(row)

    async def save_thread(self, thread: ThreadMetadata, context: TContext) -> None:
        """Create or replace a thread. 2 round trips if several calls create it at once."""
        owner = self._owner(context)
        place = {"dialog_id": self._dialog_id, "user_id": owner["user_id"]}
        with not_found(f"Thread {thread.id}"):
            await self._svc.conversations.upsert(thread.id, place | _columns(thread), **owner)

    async def delete_thread(self, thread_id: str, context: TContext) -> None:
        """Delete a thread with its items, if it exists."""
        await self._svc.conversations.delete_by_id(thread_id, **self._owner(context))

    async def load_threads(
        self, limit: int, after: str | None, order: str, context: TContext
    ) -> Page[ThreadMetadata]:
        """Return threads by their creation, after the thread `after`.

        Args:
            limit: At least 1, at most `Settings.max_page_size`.
            order: "asc": the oldest first. Otherwise the newest first.
        """
        with not_found(f"Thread {after}"):
            page = await self._svc.conversations.get_list(
                dialog_id=self._dialog_id,
                items_per_page=min(max(limit, 1), self._svc.settings.max_page_size),
                desc=order != "asc",
                after_id=after or None,
                total="none",
                **self._owner(context),
            )
        threads = [_thread(row) for row in page.items]
        after = threads[-1].id if page.next else None
        return Page(data=threads, has_more=after is not None, after=after)


@contextlib.contextmanager
def not_found(resource: str) -> Iterator[None]:
    """Raise ChatKit's error for what does not exist or belongs to another user."""
    try:
        yield
    except NotFound as error:
        raise NotFoundError(f"{resource} not found") from error


def _random_id(item_type: StoreItemType) -> str:
    return default_generate_id(item_type) + secrets.token_hex(12)


def _columns(thread: ThreadMetadata) -> dict[str, object]:
    """Return the columns of a conversation that store a thread, without its items."""
    stored = thread.model_dump(mode="json", exclude={"items"})
    return {
        "name": _name(thread.title),
        "metadata": stored.pop("metadata"),
        "dsl": stored,
        "created_at": thread.created_at.astimezone(UTC),
    }


def _thread(row: Conversation) -> ThreadMetadata:
    """Return the thread of a conversation, with the changes of other programs."""
    stored = row.dsl if isinstance(row.dsl, dict) and row.dsl.get("id") == row.id else {}
    changes: dict[str, object] = {"metadata": row.metadata or {}}
    if row.name != _name(stored.get("title")):
        changes["title"] = row.name
    return ThreadMetadata.model_validate(
        {"id": row.id, "created_at": row.created_at} | stored | changes
    )


def _name(title: Any) -> str | None:  # noqa: ANN401 - a member of a JSON object
    """Return the name of a conversation with this title: NFC, and cut if it is too long."""
    return unicodedata.normalize("NFC", title)[:_MAX_NAME_LENGTH] if title else title
