"""Retention: purge, erasure of a person, deletion of dialogs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from asyncsvc.models import (
    ErasureReceipt,
    PurgeReport,
)
from asyncsvc.repositories import (
    ServerRepository,
)
from asyncsvc.repositories.conversation import Purged
from asyncsvc.services.common import (
    ConversationServiceBase,
    wanted,
)
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.dates import first_instant, zone
from asyncsvc.validation.types import (
    ANY,
    MIN_INSTANT,
    Age,
    AgeBy,
    Id,
    Ids,
    OrAny,
    Zone,
)

if TYPE_CHECKING:
    from asyncsvc.database import Executor
    from asyncsvc.settings import Settings


_DELETED_AT_ONCE = 1_000
_CONVERSATIONS_AT_ONCE = 50
_MESSAGES_AT_ONCE = 500


class ConversationRetention(ConversationServiceBase):
    """Retention: purge, erasure of a person, deletion of dialogs."""

    def __init__(self, executor: Executor, settings: Settings) -> None:
        """Run on this executor."""
        super().__init__(executor, settings)
        self._server = ServerRepository(executor)

    @validated
    async def delete_by_dialog_ids(self, dialog_ids: Ids, *, tenant_id: Id) -> int:
        """Delete all conversations of these dialogs; return how many there were.

        In batches of 1,000, one round trip and (outside `transaction`) one commit each: when it
        fails half-way, what was deleted stays deleted, and calling again goes on.
        """
        deleted, found_all = 0, True
        while found_all:
            batch = await self._conversations.delete_by_dialog_ids(
                tenant_id=tenant_id, dialog_ids=dialog_ids, batch=_DELETED_AT_ONCE
            )
            deleted += batch.deleted
            found_all = batch.found == _DELETED_AT_ONCE
        return deleted

    @validated
    async def erase_user(
        self,
        user_id: Id,
        *,
        tenant_id: Id,
        on_batch: Callable[[ErasureReceipt], None] | None = None,
    ) -> ErasureReceipt:
        """Delete everything of a person, as they have the right to ask; return a receipt.

        That is each conversation that names them as `user_id` or as `exp_user_id`, with its
        messages and keys. Statistics by creation follow, since they count what exists.

        In batches of some 50 conversations or 500 messages, one round trip and (outside
        `transaction`) one commit each, and one more to see that nothing of the person is left;
        `on_batch` gets the receipt so far. When it fails half-way, what was deleted stays deleted,
        and calling again goes on. Each batch locks its rows.
        """
        receipt = None
        while True:
            erased = await self._conversations.erase_user(
                tenant_id=tenant_id,
                user_id=user_id,
                limit=_CONVERSATIONS_AT_ONCE,
                most_messages=_MESSAGES_AT_ONCE,
            )
            receipt = ErasureReceipt(
                tenant_id=tenant_id,
                user_id=user_id,
                conversations=erased.conversations + (receipt.conversations if receipt else 0),
                messages=erased.messages + (receipt.messages if receipt else 0),
                append_keys=erased.append_keys + (receipt.append_keys if receipt else 0),
                erased_at=erased.at,
            )
            if not erased.found:
                return receipt
            if on_batch is not None:
                on_batch(receipt)

    @validated
    async def purge(
        self,
        older_than: Age,
        *,
        tenant_id: Id,
        dialog_id: OrAny[Id] = ANY,
        by: AgeBy = "updated_at",
        dry_run: bool = False,
        tz: Zone = "UTC",
        on_batch: Callable[[PurgeReport], None] | None = None,
    ) -> PurgeReport:
        """Delete a tenant's conversations, or a dialog's, that are older than an age or a date.

        `older_than` is a timedelta, counted back from now by the server's clock, or the date or
        instant itself, before which; `by` says whether since the last update or the creation.
        `dry_run` counts and deletes nothing.

        In batches of at most 50 conversations and some 500 messages, two round trips (one in a
        dry run) and (outside `transaction`) one commit each, one more to find no other, and one
        before for the clock where an age is given; `on_batch` gets the report so far. When it fails
        half-way, what was deleted stays deleted, and calling again goes on. It waits for no lock:
        what somebody else holds is skipped, and a conversation that is written to meanwhile stays.
        It reads the tenant's, or the dialog's, part of one index once.
        """
        before = await self._instant_before(older_than, tz)
        report = PurgeReport(before=before, dry_run=dry_run)
        last = None
        while old := await self._conversations.find_old(
            by=by,
            tenant_id=tenant_id,
            dialog_id=wanted(dialog_id),
            before=before,
            after=last,
            limit=_CONVERSATIONS_AT_ONCE,
            most_messages=_MESSAGES_AT_ONCE,
            count_messages=dry_run,
        ):
            last = old[-1]
            purged = (
                Purged(len(old), sum(each.messages for each in old))
                if dry_run
                else await self._conversations.delete_old(
                    by=by, tenant_id=tenant_id, ids=[each.id for each in old], before=before
                )
            )
            report = report.model_copy(
                update={
                    "conversations": report.conversations + purged.conversations,
                    "messages": report.messages + purged.messages,
                    "skipped": report.skipped + len(old) - purged.conversations,
                }
            )
            if on_batch is not None:
                on_batch(report)
        return report

    async def _instant_before(self, older_than: Age, tz: str) -> datetime:
        """Return the instant that what is old was before."""
        zone(tz)  # checked, whether it is needed or not
        if isinstance(older_than, timedelta):
            now = await self._server.clock()
            return now - min(older_than, now - MIN_INSTANT)
        return first_instant("older_than", older_than, tz)
