"""The public service of conversations: it combines one class for each concern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asyncsvc.errors import AlreadyExists
from asyncsvc.models import (
    Conversation,
    ConversationPatch,
    NewConversation,
    NewConversations,
    as_model,
)
from asyncsvc.repositories import ConversationRepository, MessageRepository
from asyncsvc.repositories.conversation_rows import CreatedConversation
from asyncsvc.repositories.query import Include
from asyncsvc.services.common import conversation_row
from asyncsvc.services.listing import ConversationListing
from asyncsvc.services.message_reads import ConversationMessageReads
from asyncsvc.services.messages import ConversationMessages
from asyncsvc.services.retention import ConversationRetention
from asyncsvc.services.transfer import ConversationTransfer
from asyncsvc.services.usage import ConversationUsage
from asyncsvc.services.watching import ConversationWatching
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
    ConversationMessageReads,
    ConversationMessages,
    ConversationUsage,
    ConversationRetention,
    ConversationTransfer,
    ConversationWatching,
):
    """Conversations of tenants: their messages, lists, usage and retention.

    - Conversations: `create`, `create_many`, `get_by_id`, `get_by_ids`, `update_by_id`,
      `update_many_by_id`, `delete_by_id`, `delete_by_ids`
    - Messages: `append_message`, `messages`, `iter_messages`, `payloads`, `get_message`,
      `find_message`, `put_message`, `set_feedback`, `update_message`, `delete_message`,
      `pop_message`, `clear_messages`
    - Lists and searches: `get_list`, `get_names`, `search`
    - Usage: `stats`, `declare_zone`, `recount_usage`
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
        include_dsl: bool = True,
        include_messages: bool = False,
    ) -> Conversation:
        """Return one conversation.

        Args:
            include_dsl: Return `dsl`; otherwise it is None.
            include_messages: Return all messages; otherwise `messages` is None.

        Returns:
            The conversation.

        Raises:
            NotFound: The tenant has no conversation with this id.

        Cost:
            1 round trip on the primary key, no locks.
        """
        include = Include(dsl=include_dsl, messages=include_messages)
        return self._first(
            await self._repository.get_by_ids(tenant_id=tenant_id, ids=[id], include=include)
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

    async def _update(
        self, patches: Mapping[str, ConversationPatch], tenant_id: str
    ) -> list[Conversation]:
        """Set columns; if a dialog changes, set that of the messages in the same transaction."""
        moving = [id for id, patch in patches.items() if patch.dialog_id is not UNSET]
        if not moving:
            return await super()._update(patches, tenant_id)
        async with self._executor.transaction() as executor:
            updated = await ConversationRepository(executor).update_many_by_id(
                tenant_id=tenant_id, patches=patches
            )
            await MessageRepository(executor).change_dialog(tenant_id=tenant_id, ids=moving)
        return updated

    async def _delete(self, ids: Sequence[str], tenant_id: str) -> int:
        return (await self._repository.delete(tenant_id=tenant_id, ids=ids)).deleted
