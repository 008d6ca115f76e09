"""The public service of conversations: it combines one class for each concern."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from asyncsvc.errors import AlreadyExists, Conflict, NotFound
from asyncsvc.models import (
    Conversation,
    ConversationPatch,
    ModelLike,
    NewConversation,
    NewConversations,
    as_model,
)
from asyncsvc.repositories import ConversationRepository, MessageRepository
from asyncsvc.repositories.conversation_rows import (
    ConversationRow,
    CreatedConversation,
    OversizedMergeError,
)
from asyncsvc.repositories.query import Include
from asyncsvc.services.common import conversation_row, oversized_merge, row_to_create, unset_if_any
from asyncsvc.services.listing import ConversationListing
from asyncsvc.services.message_reads import ConversationMessageReads
from asyncsvc.services.messages import ConversationMessages
from asyncsvc.services.retention import ConversationRetention
from asyncsvc.services.transfer import ConversationTransfer
from asyncsvc.services.usage import ConversationUsage
from asyncsvc.services.usage_recording import ConversationUsageRecording
from asyncsvc.services.watching import ConversationWatching
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.types import (
    ANY,
    UNSET,
    AnyType,
    Id,
    Ids,
    Instant,
    Json,
    JsonObject,
    Name,
    OrAny,
    Source,
    UnsetType,
    UserId,
    VersionTitle,
)

_UPSERT_ATTEMPTS = 2


class API4ConversationService(
    ConversationListing,
    ConversationMessageReads,
    ConversationMessages,
    ConversationUsage,
    ConversationUsageRecording,
    ConversationRetention,
    ConversationTransfer,
    ConversationWatching,
):
    """Conversations of tenants: their messages, lists, usage and retention.

    - Conversations: `create`, `create_many`, `upsert`, `get_by_id`, `get_by_ids`, `update_by_id`,
      `update_many_by_id`, `delete_by_id`, `delete_by_ids`
    - Messages: `append_message`, `messages`, `iter_messages`, `payloads`, `get_message`,
      `find_message`, `put_message`, `set_feedback`, `update_message`, `delete_message`,
      `pop_message`, `clear_messages`
    - Lists and searches: `get_list`, `list_dialogs`, `get_names`, `search`
    - Usage: `record_usage`, `adjust_usage`, `stats`, `stats_total`, `declare_zone`, `recount_usage`
    - Retention: `delete_by_dialog_ids`, `erase_user`, `delete_tenant`, `purge`
    - Import and export: `import_`, `export`
    - New messages as they come: `watch`

    Each method works on 1 tenant. An id of another tenant behaves like an id that does not exist.

    Each method raises InvalidInput for a value out of range, before any SQL; MigrationError if the
    schema is missing; Unavailable if the database failed and a later call can succeed (the library
    has already retried reads and keyed appends); and DatabaseError for other failures.

    The round trips under `Cost` are those of statements. A borrowed pool adds 1 at the end of each
    call, to reset the connection.
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
        """Create a conversation.

        Args:
            dialog_id: The assistant or agent that the conversation belongs to.
            id: An id of the application, unique within the tenant. None: a new id.
            user_id: The end user. Empty for an anonymous visitor.
            exp_user_id: The account that explores an agent.
            name: The title for people.
            source: The application's label for where the conversation came from.
            dsl: The state of the agent, as any JSON value.
            version_title: The title of the agent's version.
            metadata: A JSON object of the application.
            created_at: The time of creation, for data of another system. None: the server's clock.

        Returns:
            The conversation as stored.

        Raises:
            AlreadyExists: The tenant has a conversation with this id.

        Cost:
            1 round trip; locks the new row.
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
        created = await self._repository.create_many(
            tenant_id=tenant_id,
            conversations=[conversation_row(conversation)],
            returning=Conversation,
        )
        if not created:
            raise AlreadyExists("the tenant has a conversation with this id")
        return created[0]

    @validated
    async def create_many(self, conversations: NewConversations, *, tenant_id: Id) -> int:
        """Create conversations. Conversations whose ids exist already stay unchanged.

        A call in which each conversation has an id can be repeated.

        Args:
            conversations: At most `Settings.max_batch_size` models or equal mappings.

        Returns:
            The number of created conversations.

        Cost:
            1 round trip; locks the new rows.
        """
        created = await self._repository.create_many(
            tenant_id=tenant_id,
            conversations=[
                conversation_row(as_model(NewConversation, conversation))
                for conversation in conversations
            ],
            returning=CreatedConversation,
        )
        return len(created)

    @validated
    async def get_by_id(
        self,
        id: Id,
        *,
        tenant_id: Id,
        user_id: OrAny[UserId] = ANY,
        include_dsl: bool = True,
        include_messages: bool = False,
    ) -> Conversation:
        """Return one conversation.

        Args:
            user_id: Only a conversation of this user; ANY for every user.
            include_dsl: Return `dsl`; otherwise it is None.
            include_messages: Return all messages; otherwise `messages` is None.

        Returns:
            The conversation.

        Raises:
            NotFound: The tenant, or the user, has no conversation with this id.

        Cost:
            1 round trip on the primary key, no locks.
        """
        return self._first(
            await self._repository.get_by_ids(
                tenant_id=tenant_id,
                ids=[id],
                include=Include(dsl=include_dsl, messages=include_messages),
                user_id=unset_if_any(user_id),
            )
        )

    @validated
    async def get_by_ids(
        self,
        ids: Ids,
        *,
        tenant_id: Id,
        include_dsl: bool = True,
        include_messages: bool = False,
    ) -> list[Conversation]:
        """Return conversations in the order of their ids, without those that do not exist.

        Args:
            ids: At most `Settings.max_batch_size` ids. A repeated id is returned again.
            include_dsl: Return `dsl`; otherwise it is None.
            include_messages: Return all messages; otherwise `messages` is None.

        Returns:
            The conversations that exist.

        Cost:
            1 round trip on the primary key, no locks.
        """
        return await self._repository.get_by_ids(
            tenant_id=tenant_id,
            ids=ids,
            include=Include(dsl=include_dsl, messages=include_messages),
        )

    @validated
    async def update_by_id(
        self,
        id: Id,
        patch: ModelLike[ConversationPatch],
        *,
        tenant_id: Id,
        user_id: OrAny[UserId] = ANY,
    ) -> Conversation:
        """Set or merge columns of a conversation.

        Args:
            patch: The columns to set or to merge, as a model or an equal mapping.
            user_id: Only a conversation of this user; ANY for every user.

        Returns:
            The conversation after the update, without its messages.

        Raises:
            NotFound: The tenant, or the user, has no conversation with this id.
            InvalidInput: A merge would store more than `Settings.max_json_bytes`.

        Cost:
            1 round trip; 4 if the patch moves the conversation to another dialog, since its
            messages move too. Locks the row until the end of the transaction. A merge costs linear
            time in the stored value.
        """
        return self._first(
            await self._update_one(id, as_model(ConversationPatch, patch), tenant_id, user_id)
        )

    @validated
    async def upsert(
        self,
        id: Id,
        new: ModelLike[NewConversation],
        *,
        tenant_id: Id,
        patch: ModelLike[ConversationPatch] | None = None,
        user_id: OrAny[UserId] = ANY,
    ) -> Conversation:
        """Create a conversation, or set columns of the existing one.

        Args:
            new: The conversation to create, as a model or an equal mapping. Its `id` is None or
                this id.
            patch: The columns to set or to merge if the conversation exists. None: the columns that
                `new` sets, except its dialog and its time. An existing conversation stays in its
                dialog unless a `patch` moves it.
            user_id: Only a conversation of this user, also in `new`; ANY for every user.

        Returns:
            The conversation as stored, without its messages.

        Raises:
            NotFound: The conversation is another user's.
            InvalidInput: A merge would store more than `Settings.max_json_bytes`.
            Conflict: The conversation kept changing during 2 attempts.

        Cost:
            1 round trip; 2 if another call has created or deleted the conversation meanwhile, or if
            it is another user's; 3 more if the patch has a dialog. Locks the row until the end of
            the transaction.
        """
        new = as_model(NewConversation, new)
        row = row_to_create("new", new, id, user_id)
        columns = _patch_of(new) if patch is None else as_model(ConversationPatch, patch)
        for _ in range(_UPSERT_ATTEMPTS):
            stored = await self._update_one(id, columns, tenant_id, user_id, row)
            if stored:
                return stored[0]
        if user_id is not ANY:
            raise NotFound("conversation")
        raise Conflict("the conversation kept changing; try again")

    @validated
    async def delete_by_id(self, id: Id, *, tenant_id: Id, user_id: OrAny[UserId] = ANY) -> int:
        """Delete a conversation with its messages.

        Args:
            user_id: Only a conversation of this user; ANY for every user.

        Returns:
            1, or 0 if the conversation does not exist or is another user's.

        Cost:
            1 round trip; locks the row. The cost grows with the number of messages.
        """
        batch = await self._repository.delete(
            tenant_id=tenant_id, ids=[id], user_id=unset_if_any(user_id)
        )
        return batch.deleted

    async def _update_one(
        self,
        id: str,
        patch: ConversationPatch,
        tenant_id: str,
        user_id: str | AnyType,
        create: ConversationRow | UnsetType = UNSET,
    ) -> list[Conversation]:
        """Set columns of a conversation, or create it; return it unless it is missing."""
        try:
            return await self._update_all({id: patch}, tenant_id, unset_if_any(user_id), create)
        except OversizedMergeError as error:
            field = error.field
        raise oversized_merge(f"patch.{field}", self._settings)

    async def _update(
        self, patches: Mapping[str, ConversationPatch], tenant_id: str
    ) -> list[Conversation]:
        try:
            return await self._update_all(patches, tenant_id)
        except OversizedMergeError as error:
            field = f"patches.{error.id}.{error.field}"
        raise oversized_merge(field, self._settings)

    async def _update_all(
        self,
        patches: Mapping[str, ConversationPatch],
        tenant_id: str,
        user_id: str | UnsetType = UNSET,
        create: ConversationRow | UnsetType = UNSET,
    ) -> list[Conversation]:
        """Set columns; if a dialog changes, set that of the messages in the same transaction."""
        async with contextlib.AsyncExitStack() as stack:
            executor = self._executor
            moving = [id for id, patch in patches.items() if patch.dialog_id is not UNSET]
            if moving:
                executor = await stack.enter_async_context(executor.transaction())
            updated = await ConversationRepository(executor).update_many_by_id(
                tenant_id=tenant_id,
                patches=patches,
                user_id=user_id,
                create=create,
                max_json_bytes=self._settings.max_json_bytes,
            )
            if moving:
                await MessageRepository(executor).change_dialog(tenant_id=tenant_id, ids=moving)
        return updated

    async def _delete(self, ids: Sequence[str], tenant_id: str) -> int:
        return (await self._repository.delete(tenant_id=tenant_id, ids=ids)).deleted


def _patch_of(new: NewConversation) -> ConversationPatch:
    """Return the columns that a new conversation sets, of those that its owner changes."""
    fields = new.model_fields_set - {"id", "dialog_id", "created_at"}
    return ConversationPatch(**{name: getattr(new, name) for name in fields})
