"""Erasure of the conversations and records of a person, and of all data of a tenant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import uuid4

from asyncsvc.errors import Conflict
from asyncsvc.models import TenantReceipt
from asyncsvc.repositories import (
    APITokenRepository,
    BudgetRepository,
    ConversationRepository,
    RecordRepository,
    TokenAuditRepository,
    UsageRepository,
    WatchRepository,
)
from asyncsvc.repositories.conversation_rows import DeletedBatch
from asyncsvc.validation.types import UNSET, UnsetType

if TYPE_CHECKING:
    from asyncsvc.database import Executor

BATCH_SIZE: Final = 50
"""The maximum number of conversations that one transaction deletes by user, tenant or age."""
MAX_MESSAGES: Final = 500
"""A batch ends with the conversation that reaches this number of messages."""
_RECORD_BATCH_SIZE: Final = 100
_MAX_PASSES: Final = 100
_ROW_BATCH_SIZE: Final = 5_000
"""The batch size of tokens, usage and audit, whose rows are small."""


class ErasedBatch(NamedTuple):
    """One batch of erased conversations and records."""

    deleted: DeletedBatch
    """The conversations. `matched` includes the records."""
    records: int
    erased_at: datetime
    """The server's clock before the batch was read."""


async def erase_batch(
    executor: Executor, *, tenant_id: str, user_id: str | UnsetType = UNSET
) -> ErasedBatch:
    """Delete one batch of the conversations, and one of the records, of a tenant.

    With `user_id`, only conversations whose `user_id` or `exp_user_id` equals it, and only records
    of this owner.

    The counts are exact: the second statement sees each message that was appended while the first
    one waited for the locks.
    """
    async with executor.transaction() as transaction:
        conversations = ConversationRepository(transaction)
        locked = await conversations.lock(
            tenant_id=tenant_id,
            user_id=user_id,
            batch_size=BATCH_SIZE,
            max_messages=MAX_MESSAGES,
        )
        deleted = DeletedBatch()
        if locked.ids:
            deleted = await conversations.delete(
                tenant_id=tenant_id, ids=locked.ids, count_messages=True, count_append_keys=True
            )
        records = await RecordRepository(transaction).delete(
            tenant_id=tenant_id, user_id=user_id, batch_size=_RECORD_BATCH_SIZE
        )
    deleted = replace(deleted, matched=locked.matched + records)
    return ErasedBatch(deleted, records, locked.locked_at)


async def erase_user_from_usage(executor: Executor, *, tenant_id: str, user_id: str) -> None:
    """Replace the id of a person in usage by a random one that is stored nowhere else."""
    async with executor.transaction() as transaction:
        usage = UsageRepository(transaction)
        if await usage.lock(tenant_id=tenant_id) is None:
            await usage.declare_zone(tenant_id=tenant_id, tz="UTC", if_used=True)
            if await usage.lock(tenant_id=tenant_id) is None:
                return
        await usage.roll_up(tenant_id=tenant_id)
        erased_id = f"erased-{uuid4().hex}"
        await usage.erase_user(tenant_id=tenant_id, user_id=user_id, erased_id=erased_id)
        await BudgetRepository(transaction).erase_user(
            tenant_id=tenant_id, user_id=user_id, erased_id=erased_id
        )


class TenantDeletion:
    """Deletes all data of a tenant in batches, with one transaction for each batch."""

    def __init__(
        self,
        executor: Executor,
        tenant_id: str,
        on_batch: Callable[[TenantReceipt], None] | None,
    ) -> None:
        """Delete on this executor."""
        self._executor = executor
        self._tenant_id = tenant_id
        self._on_batch = on_batch
        self._tokens = APITokenRepository(executor)
        self._usage = UsageRepository(executor)
        self._budgets = BudgetRepository(executor)
        self._audit = TokenAuditRepository(executor)
        self._counts = Counter[str]()
        self._deleted_at: datetime | None = None

    async def run(self) -> TenantReceipt:
        """Delete until a whole pass finds no row, since other sessions may still write.

        Raises Conflict if they write during 100 passes.
        """
        for _ in range(_MAX_PASSES):
            if not await self._delete_once():
                await WatchRepository(self._executor).delete(tenant_id=self._tenant_id)
                return self._receipt()
        raise Conflict("other sessions still write to the tenant")

    async def _delete_once(self) -> bool:
        """Delete the data of the tenant; return whether it had any row.

        Tokens are deleted first, so that later requests with a token are rejected.
        """
        before = self._counts.total()
        tenant_id, size = self._tenant_id, _ROW_BATCH_SIZE
        while count := await self._tokens.delete(tenant_id=tenant_id, batch_size=size):
            self._add(tokens=count)
        await self._delete_conversations_and_records()
        if count := await self._budgets.delete_all(tenant_id=tenant_id):
            self._add(usage_rows=count)
        while count := await self._usage.delete_quarter_hours(tenant_id=tenant_id, batch_size=size):
            self._add(usage_rows=count)
        while count := await self._usage.delete_user_months(tenant_id=tenant_id, batch_size=size):
            self._add(usage_rows=count)
        if count := await self._delete_usage():
            self._add(usage_rows=count)
        while count := await self._audit.delete(tenant_id=tenant_id, batch_size=size):
            self._add(audit_events=count)
        return self._counts.total() > before

    async def _delete_usage(self) -> int:
        """Delete ledger, buckets and zones in one statement, so that totals stay exact."""
        async with self._executor.transaction() as transaction:
            usage, declared = UsageRepository(transaction), 0
            if await usage.lock(tenant_id=self._tenant_id) is None:
                # A tenant without a zone has no row to lock, but it may have ledger rows.
                zones = await usage.declare_zone(tenant_id=self._tenant_id, tz="UTC", if_used=True)
                declared = len(zones)
                if await usage.lock(tenant_id=self._tenant_id) is None:
                    return 0
            return max(0, await usage.delete(tenant_id=self._tenant_id) - declared)

    async def _delete_conversations_and_records(self) -> None:
        while True:
            batch, records, self._deleted_at = await erase_batch(
                self._executor, tenant_id=self._tenant_id
            )
            if not batch.matched:
                return
            self._add(
                conversations=batch.deleted,
                messages=batch.messages,
                append_keys=batch.append_keys,
                records=records,
            )

    def _add(self, **counts: int) -> None:
        self._counts.update(counts)
        if self._on_batch is not None:
            self._on_batch(self._receipt())

    def _receipt(self) -> TenantReceipt:
        return TenantReceipt.model_validate(
            {"tenant_id": self._tenant_id, "deleted_at": self._deleted_at, **self._counts}
        )
