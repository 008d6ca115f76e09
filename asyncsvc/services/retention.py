"""Retention of conversations: deletion by dialog, by person and by age."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from asyncsvc.models import ErasureReceipt, PurgeReport, TenantReceipt
from asyncsvc.repositories import ServerRepository
from asyncsvc.repositories.conversation_rows import DeletedBatch, ExpiredConversation
from asyncsvc.services.common import ConversationServiceBase, unset_if_any
from asyncsvc.services.erasure import (
    BATCH_SIZE,
    MAX_MESSAGES,
    TenantDeletion,
    erase_batch,
    erase_user_from_usage,
)
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.dates import first_instant, zone
from asyncsvc.validation.types import ANY, MIN_INSTANT, Age, AgeBy, Id, Ids, OrAny, UserId, Zone

if TYPE_CHECKING:
    from asyncsvc.database import Executor
    from asyncsvc.settings import Settings

_DIALOG_BATCH_SIZE: Final = 1_000
_DIALOG_MAX_MESSAGES: Final = 10_000

Report = TypeVar("Report")


class ConversationRetention(ConversationServiceBase):
    """Methods that delete many conversations in batches.

    Each batch is one transaction, unless the caller has one open. If a call fails, the completed
    batches stay deleted, and another call continues.
    """

    def __init__(self, executor: Executor, settings: Settings) -> None:
        """Run on this executor, within the limits of these settings."""
        super().__init__(executor, settings)
        self._server = ServerRepository(executor)

    @validated
    async def delete_by_dialog_ids(self, dialog_ids: Ids, *, tenant_id: Id) -> int:
        """Delete all conversations of dialogs with their messages.

        Args:
            dialog_ids: At most `Settings.max_batch_size` dialogs.

        Returns:
            The number of deleted conversations.

        Raises:
            InvalidInput: There are more than `Settings.max_batch_size` ids.

        Cost:
            1 round trip and 1 commit for each batch of up to 1,000 conversations or about 10,000
            messages. Locks the rows of a batch in the order of their ids. Index by dialog.
        """

        async def delete() -> DeletedBatch:
            return await self._repository.delete(
                tenant_id=tenant_id,
                dialog_ids=dialog_ids,
                batch_size=_DIALOG_BATCH_SIZE,
                max_messages=_DIALOG_MAX_MESSAGES,
            )

        return await _delete_batches(
            delete,
            is_last=lambda batch: batch.deleted == batch.matched < _DIALOG_BATCH_SIZE,
            build_report=lambda total: total.deleted,
        )

    @validated
    async def erase_user(
        self,
        user_id: Id,
        *,
        tenant_id: Id,
        on_batch: Callable[[ErasureReceipt], None] | None = None,
    ) -> ErasureReceipt:
        """Delete all conversations and records of a person.

        These are the conversations that name the person as `user_id` or `exp_user_id`, with their
        messages and append keys, and the records whose `user_id` it is. Usage by creation decreases
        accordingly. Usage by activity and budgets stay, under a random id that is stored
        nowhere else. The audits keep the person as `actor`, since they prove who changed tokens,
        budgets and usage.

        Args:
            user_id: The id of the person.
            on_batch: Called after each batch with the receipt so far.

        Returns:
            The counts of this call. No conversation or record named the person at `erased_at`.

        Cost:
            5 round trips with 1 commit for each batch of about 50 conversations or 500 messages,
            and of 100 records; 4 for the last batch, which is empty, and 6 to 8 with 1 commit to
            roll up the usage and replace the person there. Locks the rows of a batch in the
            order of their ids. Indexes by user.

        Raises:
            LockTimeout: A transaction holds a row for longer than `Settings.lock_timeout`. Another
                call continues.
        """
        erased_at, records = MIN_INSTANT, 0

        async def delete() -> DeletedBatch:
            nonlocal erased_at, records
            batch, count, erased_at = await erase_batch(
                self._executor, tenant_id=tenant_id, user_id=user_id
            )
            records += count
            return batch

        receipt = await _delete_batches(
            delete,
            build_report=lambda total: ErasureReceipt(
                tenant_id=tenant_id,
                user_id=user_id,
                conversations=total.deleted,
                messages=total.messages,
                append_keys=total.append_keys,
                records=records,
                erased_at=erased_at,
            ),
            on_batch=on_batch,
        )
        await erase_user_from_usage(self._executor, tenant_id=tenant_id, user_id=user_id)
        return receipt

    @validated
    async def delete_tenant(
        self, *, tenant_id: Id, on_batch: Callable[[TenantReceipt], None] | None = None
    ) -> TenantReceipt:
        """Delete all data of a tenant: its tokens, conversations, records, usage and audit.

        Tokens are deleted first, so that later requests with a token are rejected.

        Args:
            on_batch: Called after each batch with the receipt so far.

        Returns:
            The counts of this call. At `deleted_at` the tenant had no row.

        Raises:
            LockTimeout: A transaction holds a row for longer than `Settings.lock_timeout`. Another
                call continues.
            Conflict: Other sessions wrote to the tenant during 100 passes. Stop them first.

        Cost:
            5 round trips with 1 commit for each batch of about 50 conversations or 500 messages,
            and of 100 records, 1 round trip for each 5,000 tokens, sums of usage and events, 4 to 6
            with 1 commit for the rest of the usage, and 14 for the last pass, which finds no row.
            Locks the rows of a batch in the order of their ids. Indexes by tenant.
        """
        return await TenantDeletion(self._executor, tenant_id, on_batch).run()

    @validated
    async def purge(
        self,
        older_than: Age,
        *,
        tenant_id: Id,
        dialog_id: OrAny[Id] = ANY,
        user_id: OrAny[UserId] = ANY,
        by: AgeBy = "updated_at",
        dry_run: bool = False,
        tz: Zone = "UTC",
        on_batch: Callable[[PurgeReport], None] | None = None,
    ) -> PurgeReport:
        """Delete the conversations of a tenant that are older than an age or a date.

        A conversation that another session has locked, or updates or moves during the call, is not
        deleted. With `by="created_at"`, an append during the call does not prevent the deletion.

        Args:
            older_than: A timedelta before the present time of the server, or the date or instant
                before which a conversation is old.
            dialog_id: Only conversations of this dialog; ANY for the whole tenant.
            user_id: Only conversations of this user; ANY for all users.
            by: The column that determines the age.
            dry_run: Count the conversations and messages, and delete nothing.
            tz: The zone of a date.
            on_batch: Called after each batch with the report so far.

        Returns:
            The counts of deleted and skipped conversations.

        Raises:
            InvalidInput: The age, the date or the zone is invalid.

        Cost:
            2 round trips (1 with `dry_run`) and 1 commit for each batch of up to 50 conversations
            or about 500 messages, 1 round trip for the last batch, which is empty, and 1 for the
            server's clock if `older_than` is a timedelta. Waits for no lock. Reads the tenant's or
            the dialog's part of one index once, or the user's part once for each batch.
        """
        before = await self._instant_before(older_than, tz)
        dialog, user = (unset_if_any(each) for each in (dialog_id, user_id))
        after: ExpiredConversation | None = None

        async def delete() -> DeletedBatch:
            nonlocal after
            expired = await self._repository.find_expired(
                tenant_id=tenant_id,
                dialog_id=dialog,
                user_id=user,
                by=by,
                before=before,
                after=after,
                batch_size=BATCH_SIZE,
                max_messages=MAX_MESSAGES,
                count_messages=dry_run,
            )
            after = expired[-1] if expired else after
            if dry_run or not expired:
                return _counted(expired)
            return await self._repository.delete(
                tenant_id=tenant_id,
                ids=[each.id for each in expired],
                dialog_id=dialog,
                user_id=user,
                by=by,
                before=before,
                count_messages=True,
            )

        report = partial(_purge_report, before=before, dry_run=dry_run)
        return await _delete_batches(delete, build_report=report, on_batch=on_batch)

    async def _instant_before(self, older_than: Age, tz: str) -> datetime:
        """Return the instant before which a conversation is old."""
        zone(tz)  # An invalid zone is an error even if the age needs none.
        if isinstance(older_than, timedelta):
            now = await self._server.clock()
            return now - min(older_than, now - MIN_INSTANT)
        return first_instant("older_than", older_than, tz)


def _purge_report(total: DeletedBatch, *, before: datetime, dry_run: bool) -> PurgeReport:
    """Build the report of the batches so far."""
    return PurgeReport(
        before=before,
        dry_run=dry_run,
        conversations=total.deleted,
        messages=total.messages,
        skipped=total.matched - total.deleted,
    )


def _counted(expired: Sequence[ExpiredConversation]) -> DeletedBatch:
    """Return the counts that a deletion of these conversations would have."""
    messages = sum(conversation.messages for conversation in expired)
    return DeletedBatch(matched=len(expired), deleted=len(expired), messages=messages)


async def _delete_batches(
    delete: Callable[[], Awaitable[DeletedBatch]],
    *,
    build_report: Callable[[DeletedBatch], Report],
    is_last: Callable[[DeletedBatch], bool] = lambda batch: not batch.matched,
    on_batch: Callable[[Report], None] | None = None,
) -> Report:
    """Delete batch after batch up to the last one, and return the report of all."""
    total = DeletedBatch()
    while True:
        batch = await delete()
        total = DeletedBatch(
            matched=total.matched + batch.matched,
            deleted=total.deleted + batch.deleted,
            messages=total.messages + batch.messages,
            append_keys=total.append_keys + batch.append_keys,
        )
        if is_last(batch):
            return build_report(total)
        if on_batch is not None:
            on_batch(build_report(total))
