"""Conversations, their messages and usage: the public service."""

from __future__ import annotations

from collections.abc import Mapping

from asyncsvc.errors import (
    AlreadyExists,
)
from asyncsvc.models import (
    Conversation,
    ConversationPatch,
    ConversationPatches,
    ConversationPatchLike,
    NewConversation,
    NewConversations,
    as_model,
)
from asyncsvc.repositories import (
    ConversationRepository,
    MessageRepository,
)
from asyncsvc.repositories.base import columns_to_set
from asyncsvc.services.common import new_id, row_or_not_found
from asyncsvc.services.listing import ConversationListing
from asyncsvc.services.messages import ConversationMessages
from asyncsvc.services.retention import ConversationRetention
from asyncsvc.services.transfer import ConversationTransfer
from asyncsvc.services.usage import ConversationUsage
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.types import (
    UNSET,
    Id,
    Ids,
    Instant,
    Json,
    JsonObject,
    Name,
    Source,
    UserId,
    VersionTitle,
)


class API4ConversationService(
    ConversationListing,
    ConversationMessages,
    ConversationUsage,
    ConversationRetention,
    ConversationTransfer,
):
    """Conversations of many tenants: create, append, list, count, change, delete.

    Each method is bound to one tenant; another tenant's id behaves as one that does not exist.
    Wrong values raise InvalidInput before any SQL. The database's failures raise Unavailable when a
    repeat may succeed (for reads and keyed appends the library made it), else DatabaseError; a
    missing schema raises MigrationError. Round trips are
    those of the statements; a pool of yours adds one, after the answer, to reset the connection.
    """

    @validated
    async def create(
        self,
        *,
        tenant_id: Id,
        dialog_id: Id,
        id: Id | None = None,
        user_id: UserId = "",
        exp_user_id: Id | None = None,
        name: Name | None = None,
        source: Source | None = None,
        dsl: Json = None,
        version_title: VersionTitle | None = None,
        metadata: JsonObject | None = None,
        created_at: Instant | None = None,
    ) -> Conversation:
        """Create a conversation and return it; without an `id` it gets a new one.

        `created_at` is for what happened elsewhere before; without it the server's clock decides.

        Raises AlreadyExists when the tenant has this id. One round trip; locks the new row.
        """
        conversation = NewConversation(
            dialog_id=dialog_id,
            id=id,
            user_id=user_id,
            exp_user_id=exp_user_id,
            name=name,
            source=source,
            dsl=dsl,
            version_title=version_title,
            metadata=metadata,
            created_at=created_at,
        )
        created = await self._conversations.create_many(
            tenant_id=tenant_id, records=[_record(conversation)]
        )
        if not created:
            raise AlreadyExists("the tenant has a conversation of this id")
        return created[0]

    @validated
    async def create_many(self, conversations: NewConversations, *, tenant_id: Id) -> int:
        """Create conversations and return how many were new; ids that exist are left as they are.

        So it can be repeated, when each has an id. One round trip; locks the new rows.
        """
        created = await self._conversations.create_many(
            tenant_id=tenant_id,
            records=[_record(as_model(NewConversation, each)) for each in conversations],
        )
        return len(created)

    @validated
    async def get_by_id(
        self,
        id: Id,
        *,
        tenant_id: Id,
        include_dsl: bool = True,
        include_messages: bool = False,
    ) -> Conversation:
        """Return one conversation, with all its messages where they are asked for.

        Raises NotFound. One round trip on the primary key, no locks.
        """
        rows = await self._conversations.get_by_ids(
            tenant_id=tenant_id,
            ids=[id],
            include_dsl=include_dsl,
            include_messages=include_messages,
        )
        return row_or_not_found(rows[0] if rows else None, "conversation")

    @validated
    async def get_by_ids(
        self,
        ids: Ids,
        *,
        tenant_id: Id,
        include_dsl: bool = True,
        include_messages: bool = False,
    ) -> list[Conversation]:
        """Return conversations in the order of their ids; one that does not exist is left out.

        One round trip on the primary key, no locks.
        """
        return await self._conversations.get_by_ids(
            tenant_id=tenant_id,
            ids=ids,
            include_dsl=include_dsl,
            include_messages=include_messages,
        )

    @validated
    async def update_by_id(
        self, id: Id, patch: ConversationPatchLike, *, tenant_id: Id
    ) -> Conversation:
        """Set columns of a conversation and return it as it is now; it counts as updated.

        Raises NotFound. One round trip, four where `dialog_id` is set, since messages go along to
        another dialog; locks the row to the end of the transaction.
        """
        updated = await self._update(tenant_id, {id: as_model(ConversationPatch, patch)})
        return row_or_not_found(updated[0] if updated else None, "conversation")

    @validated
    async def update_many_by_id(self, patches: ConversationPatches, *, tenant_id: Id) -> int:
        """Set columns of conversations, each by its own patch; return how many there were.

        One round trip, four where a `dialog_id` is set, since messages go along to another dialog;
        locks the rows in the order of their ids, to the end of the transaction.
        """
        updated = await self._update(
            tenant_id, {id: as_model(ConversationPatch, patch) for id, patch in patches.items()}
        )
        return len(updated)

    async def _update(
        self, tenant_id: str, patches: Mapping[str, ConversationPatch]
    ) -> list[Conversation]:
        """Set columns, and the dialog of the messages of conversations that change theirs."""
        moving = [id for id, patch in patches.items() if patch.dialog_id is not UNSET]
        if not moving:
            return await self._conversations.update_many_by_id(tenant_id=tenant_id, patches=patches)
        async with self._executor.transaction() as executor:
            updated = await ConversationRepository(executor).update_many_by_id(
                tenant_id=tenant_id, patches=patches
            )
            await MessageRepository(executor).change_dialog(tenant_id=tenant_id, ids=moving)
        return updated

    @validated
    async def delete_by_id(self, id: Id, *, tenant_id: Id) -> int:
        """Delete a conversation with its messages; return 1, or 0 where there was none.

        One round trip; locks the row. It costs the messages deleted.
        """
        return await self._conversations.delete_by_ids(tenant_id=tenant_id, ids=[id])

    @validated
    async def delete_by_ids(self, ids: Ids, *, tenant_id: Id) -> int:
        """Delete conversations with their messages; return how many there were.

        One round trip, one transaction; locks the rows in the order of their ids.
        """
        return await self._conversations.delete_by_ids(tenant_id=tenant_id, ids=ids)


def _record(conversation: NewConversation) -> dict[str, object]:
    """Return the columns of a new conversation, with a new id if it has none."""
    return columns_to_set(conversation) | {"id": conversation.id or new_id()}
