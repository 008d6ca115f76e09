"""Maintenance: delete expired idempotency keys, roll up usage, index texts for the search.

All reads are right without maintenance, only slower: they also read the rows that maintenance has
not processed yet. Each job works through all tenants in batches, each of which is a commit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from asyncsvc.errors import DatabaseError
from asyncsvc.models import MaintenanceReport
from asyncsvc.repositories import (
    AppendKeyRepository,
    MigrationRepository,
    SearchRepository,
    UsageRepository,
)
from asyncsvc.repositories.append_key import ExpiredKey
from asyncsvc.repositories.usage import LedgerTenant
from asyncsvc.services import API4ConversationService

if TYPE_CHECKING:
    from asyncsvc.database import Executor

_TENANT_TABLE: Final = "append_key"
_KEY_BATCH_SIZE: Final = 1_000
_TENANT_BATCH_SIZE: Final = 100
_RECOUNT_THRESHOLD: Final = 10_000
"""From this number of creations on, one recount costs less than a roll-up."""
_TEXT_BATCH_SIZE: Final = 2_000
_TEXT_BATCH_BYTES: Final = 2**21
_FLUSH_THRESHOLD: Final = 20_000
_INSUFFICIENT_PRIVILEGE: Final = "42501"


async def maintain(
    executor: Executor, on_batch: Callable[[MaintenanceReport], None] | None
) -> MaintenanceReport:
    """Run all jobs; see `AsyncSvc.maintain`."""
    if _TENANT_TABLE not in await MigrationRepository(executor).get_unrestricted_tables():
        raise DatabaseError(
            "maintenance works on all tenants, and row-level security restricts this role to one:"
            " run it as the owner of the tables",
            _INSUFFICIENT_PRIVILEGE,
        )
    report = MaintenanceReport()
    for job in (_delete_expired_keys, _roll_up_usage, _index_texts):
        async for batch in job(executor):
            report += batch
            if on_batch is not None:
                on_batch(report)
    return report


async def _delete_expired_keys(executor: Executor) -> AsyncIterator[MaintenanceReport]:
    """Delete idempotency keys that are older than `Settings.key_lifetime`."""
    append_keys = AppendKeyRepository(executor)
    lifetime, last = timedelta(seconds=executor.settings.key_lifetime), None
    while keys := await append_keys.find_expired(
        lifetime=lifetime, after=last, limit=_KEY_BATCH_SIZE
    ):
        last = keys[-1]
        deleted = 0
        for tenant_id, tenant_keys in _group_by_tenant(keys).items():
            deleted += await append_keys.delete_expired(
                tenant_id=tenant_id, keys=tenant_keys, lifetime=lifetime
            )
        yield MaintenanceReport(append_keys=deleted)


def _group_by_tenant(keys: Iterable[ExpiredKey]) -> dict[str, list[ExpiredKey]]:
    by_tenant = defaultdict(list)
    for key in keys:
        by_tenant[key.tenant_id].append(key)
    return by_tenant


async def _roll_up_usage(executor: Executor) -> AsyncIterator[MaintenanceReport]:
    """Move the usage ledger into the sums, one tenant at a time."""
    usage, last, ledger_rows = UsageRepository(executor), None, 0
    while tenants := await usage.find_tenants_to_roll_up(after=last, limit=_TENANT_BATCH_SIZE):
        last = tenants[-1]
        for tenant in tenants:
            batch = MaintenanceReport(ledger_rows=await _roll_up_tenant(executor, tenant))
            ledger_rows += batch.ledger_rows
            yield batch
    if ledger_rows:
        await usage.vacuum()


async def _roll_up_tenant(executor: Executor, tenant: LedgerTenant) -> int:
    """Roll up or recount one tenant's usage; return the number of ledger rows."""
    if tenant.creations >= _RECOUNT_THRESHOLD:
        conversations = API4ConversationService(executor, executor.settings)
        return await conversations.recount_usage(tenant_id=tenant.tenant_id)
    usage = UsageRepository(executor)
    if not tenant.has_utc_zone:
        await usage.declare_zone(tenant_id=tenant.tenant_id, tz="UTC", if_used=True)
    return await usage.roll_up(tenant_id=tenant.tenant_id)


async def _index_texts(executor: Executor) -> AsyncIterator[MaintenanceReport]:
    """Add messages and titles to the search index.

    PostgreSQL collects new entries of the index on a pending list, which each search reads whole.
    To flush many entries at once costs less. The first flush is for interrupted maintenance.
    """
    search = SearchRepository(executor)
    await search.flush_pending_list()
    pending = 0
    async for batch in _index_batches(search):
        pending += batch.messages + batch.titles
        if pending >= _FLUSH_THRESHOLD:
            await search.flush_pending_list()
            pending = 0
        yield batch
    if pending:
        await search.flush_pending_list()


async def _index_batches(search: SearchRepository) -> AsyncIterator[MaintenanceReport]:
    """Index the messages and the titles of one tenant at a time."""
    tenant_id = None
    while tenant_id := await search.next_tenant(after=tenant_id):
        async for batch in _index_messages(search, tenant_id):
            yield batch
        async for batch in _index_titles(search, tenant_id):
            yield batch


async def _index_messages(
    search: SearchRepository, tenant_id: str
) -> AsyncIterator[MaintenanceReport]:
    last = None
    while True:
        batch = await search.index_messages(
            tenant_id=tenant_id,
            after=last,
            limit=_TEXT_BATCH_SIZE,
            max_bytes=_TEXT_BATCH_BYTES,
        )
        last = batch.last
        if last is None:
            return
        yield MaintenanceReport(messages=batch.indexed)


async def _index_titles(
    search: SearchRepository, tenant_id: str
) -> AsyncIterator[MaintenanceReport]:
    last = None
    while True:
        batch = await search.index_titles(tenant_id=tenant_id, after=last, limit=_TEXT_BATCH_SIZE)
        last = batch.last
        if last is None:
            return
        yield MaintenanceReport(titles=batch.indexed)
