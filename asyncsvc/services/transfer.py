"""Export and import of whole conversations."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from asyncsvc.models import Conversation, ImportReport, Records, StoredMessage
from asyncsvc.repositories.conversation_rows import ExportPage
from asyncsvc.services.common import ConversationServiceBase, unset_if_any
from asyncsvc.services.conversation_import import ConversationImport
from asyncsvc.services.record_reader import OnRejected
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.cursors import Position
from asyncsvc.validation.types import ANY, AnyType, Id, OrAny, UserId

_BATCH_SIZE: Final = 500
_MAX_MESSAGES: Final = 10_000
_MAX_BYTES: Final = 2**23


class ConversationTransfer(ConversationServiceBase):
    """Methods that move whole conversations out of and into the store."""

    async def export(
        self,
        *,
        tenant_id: str,
        dialog_id: str | AnyType = ANY,
        user_id: str | AnyType = ANY,
        split: bool = False,
    ) -> AsyncGenerator[Conversation]:
        """Iterate over conversations with `dsl` and all messages, in the format of `import_`.

        Each conversation of up to 8 MiB is consistent with its messages; of longer ones, messages
        that are appended or deleted meanwhile may be missing. A conversation that exists during the
        whole iteration is returned exactly once.

        With `split`, a conversation of more than 8 MiB comes in parts: equal conversations, one
        after the other, with the first messages, the next ones, and so on, each with the `last_seq`
        of its part. So the memory does not depend on the length of conversations, and
        `import_(update=True)` joins the parts.

        Args:
            dialog_id: Only conversations of this dialog.
            user_id: Only conversations of this user.
            split: Return long conversations in parts.

        Returns:
            The conversations of a tenant in the order of their ids; conversations of a dialog or a
            user in the order of their creation.

        Raises:
            InvalidInput: An id is invalid. Raised at the first step.

        Cost:
            2 round trips for each page of up to 500 conversations, about 10,000 messages or 8 MiB,
            and 1 for the last page, which is empty; 1 for each further 8 MiB of a conversation. No
            locks, and no connection between pages.
            Primary key for a tenant, index by creation for a dialog, index by user for a user.
        """
        after = None
        while True:
            page = await self._export_page(
                tenant_id=tenant_id,
                dialog_id=dialog_id,
                user_id=user_id,
                split=split,
                after=after,
            )
            for conversation in page.conversations:
                yield conversation
            if page.long is not None:
                async for part in self._parts(page.long):
                    yield part
            after = page.last
            if after is None:
                return

    async def _parts(self, conversation: Conversation) -> AsyncGenerator[Conversation]:
        """Iterate over the parts of a conversation."""
        messages = list[StoredMessage]()
        async for chunk in self._repository.messages(conversation, _MAX_BYTES):
            if messages:
                yield conversation.model_copy(
                    update={"messages": tuple(messages), "last_seq": messages[-1].seq}
                )
            messages = chunk
        yield conversation.model_copy(update={"messages": tuple(messages)})

    @validated
    async def _export_page(
        self,
        *,
        tenant_id: Id,
        dialog_id: OrAny[Id],
        user_id: OrAny[UserId],
        split: bool,
        after: Position | None,
    ) -> ExportPage:
        """Return the next page of an export; without `split`, its conversations are complete."""
        return await self._repository.export(
            tenant_id=tenant_id,
            dialog_id=unset_if_any(dialog_id),
            user_id=unset_if_any(user_id),
            after=after,
            batch_size=_BATCH_SIZE,
            max_messages=_MAX_MESSAGES,
            max_bytes=_MAX_BYTES,
            split=split,
        )

    @validated
    async def import_(
        self,
        records: Records,
        *,
        tenant_id: Id,
        on_rejected: OnRejected | None = None,
        update: bool = False,
    ) -> ImportReport:
        """Store whole conversations with their messages.

        Conversations that exist already do not change, so an import can be repeated after a
        failure: it stores the missing conversations and no duplicates. Missing timestamps default
        to the server's clock.

        With `update`, records are later exports of stored conversations. Their new messages are
        appended. If a record shows another branch, it replaces the last messages, provided that
        imports stored all of these, each has an id, its own or that of the export in its payload,
        and the conversation has the source of the record. A newer name and newer metadata are
        stored.

        Args:
            records: `ConversationRecord`s, equal mappings, or the items of `export`.
            on_rejected: Called with the index of each rejected record, from 0, and the error. The
                other records are stored. Without it, the first error is raised.
            update: Store what records add to conversations that exist already.

        Returns:
            The counts of stored, present, updated and rejected records.

        Raises:
            InvalidInput: A record is invalid.
            AlreadyExists: The id of a record exists with other messages.
            DatabaseError: Row-level security restricts the role: it excludes COPY. Import as the
                owner of the tables.

        Cost:
            Batches of about 5,000 messages, each in a transaction of 4 round trips (a savepoint of
            5 within the caller's transaction), and 1 more if a conversation of the batch exists.
            With `update`, a transaction of 4 round trips for each that exists, 6 if it changes.
            Messages are stored by COPY. Locks the new rows. Memory for one batch, or for one
            conversation if that is larger. From 500 new conversations on, the usage is rolled up at
            the end, and during the import at 200,000 and each time that their number is 4 times as
            large: 2 to 7 round trips each. Inside a transaction of the caller `maintain` does it.
        """
        return await ConversationImport(
            self._executor, self._settings, tenant_id, on_rejected, update=update
        ).run(records)
