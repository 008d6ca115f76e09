"""Export and import of whole conversations."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING

from asyncsvc.errors import (
    AsyncSvcError,
)
from asyncsvc.models import (
    Conversation,
    ImportReport,
    Records,
)
from asyncsvc.services.common import (
    ConversationServiceBase,
    wanted,
)
from asyncsvc.services.conversation_import import Load
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.types import (
    ANY,
    AnyType,
    Id,
    OrAny,
    UserId,
)

if TYPE_CHECKING:
    pass


_READ_AT_ONCE = 500
_MESSAGES_READ_AT_ONCE = 10_000
_BYTES_AT_ONCE = 2**23


class ConversationTransfer(ConversationServiceBase):
    """Export and import of whole conversations."""

    async def export(
        self, *, tenant_id: str, dialog_id: str | AnyType = ANY, user_id: str | AnyType = ANY
    ) -> AsyncGenerator[Conversation]:
        """Iterate over the whole conversations of a tenant, or of a dialog or user of it.

        Each has its `dsl` and all messages, as they were at one moment, and goes into `load` as it
        is. A tenant's come in the order of their ids, others by creation. Whatever is there from
        the beginning to the end comes exactly once.

        Raises InvalidInput at the first step. One round trip a page, of at most 500 conversations,
        some 10,000 messages and 8 MiB, or one conversation, and one more to find no other; no
        locks, and no connection is held between pages. It costs what it returns: the primary key
        serves a tenant, the index by creation a dialog, that by user a user.
        """
        last = None
        while page := await self._export_page(
            tenant_id=tenant_id, dialog_id=dialog_id, user_id=user_id, after=last
        ):
            for conversation in page:
                yield conversation
            last = page[-1]

    @validated
    async def _export_page(
        self,
        *,
        tenant_id: Id,
        dialog_id: OrAny[Id],
        user_id: OrAny[UserId],
        after: Conversation | None,
    ) -> list[Conversation]:
        return await self._conversations.export(
            tenant_id=tenant_id,
            dialog_id=wanted(dialog_id),
            user_id=wanted(user_id),
            after=after,
            limit=_READ_AT_ONCE,
            most_messages=_MESSAGES_READ_AT_ONCE,
            most_bytes=_BYTES_AT_ONCE,
        )

    @validated
    async def import_(
        self,
        records: Records,
        *,
        tenant_id: Id,
        on_rejected: Callable[[int, AsyncSvcError], None] | None = None,
    ) -> ImportReport:
        """Store whole conversations: what `export` yields, records, or equal mappings.

        A conversation that is there already is left as it is, so a load can be made again: it adds
        nothing twice, and goes on where it was broken off. A record that is wrong raises
        InvalidInput; one whose id is there, but not with these messages, raises AlreadyExists.
        With `on_rejected` either is handed to that, with the record's place from 0 on, and the rest
        goes in. Nobody's clock but the server's fills in what a record does not say.

        In batches of some 5,000 messages, each a transaction of its own of four round trips (within
        the caller's, a savepoint of five), messages by COPY; one more round trip for a batch of
        which a part was there. It locks the new rows. It holds one batch in memory, or one
        conversation where that is larger. Raises DatabaseError for a role that row-level security
        restricts, since there is no COPY then: load as the owner of the tables.
        """
        return await Load(self._executor, self._settings, tenant_id, on_rejected).run(records)
