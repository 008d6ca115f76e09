"""Maintenance: delete expired idempotency keys, roll up usage, index texts for the search.

All reads are right without maintenance, only slower: they also read the rows that maintenance has
not processed yet. Each job works through all tenants in batches, each of which is a commit. If the
batch of a tenant fails, the job reports that and continues with the other tenants.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, get_args

from asyncsvc.errors import DatabaseError, LockTimeout, StatementTimeout
from asyncsvc.models import Backlog, MaintenanceJob, MaintenanceReport
from asyncsvc.operations.maintenance_failures import SHRINK, TENANT_ERRORS, failure, log_failure
from asyncsvc.operations.search_index import index_texts
from asyncsvc.repositories import (
    AppendKeyRepository,
    MaintenanceRepository,
    MigrationRepository,
    UsageKeyRepository,
    UsageRepository,
)
from asyncsvc.repositories.append_key import ExpiredKey
from asyncsvc.repositories.usage_key import ExpiredUsageKey
from asyncsvc.services.budgets import alert
from asyncsvc.services.usage import roll_up_usage, sum_out_users

if TYPE_CHECKING:
    from asyncsvc.database import Executor

_TENANT_TABLE: Final = "append_key"
_KEY_BATCH_SIZE: Final = 1_000
_TENANT_BATCH_SIZE: Final = 100
_MAX_COUNTED: Final = 10_000
_INSUFFICIENT_PRIVILEGE: Final = "42501"


_Key = TypeVar("_Key", ExpiredKey, ExpiredUsageKey)


class _KeyRepository(Protocol[_Key]):
    """The repository of idempotency keys that expire."""

    async def find_expired(
        self, *, lifetime: timedelta, after: _Key | None, limit: int
    ) -> list[_Key]: ...

    async def delete_expired(
        self, *, tenant_id: str, keys: Sequence[_Key], lifetime: timedelta
    ) -> int: ...


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
    async for batch in run_jobs(executor, get_args(MaintenanceJob), time.monotonic()):
        report += batch
        for failed in batch.failures:
            log_failure(failed)
        if on_batch is not None:
            on_batch(report)
    return report


async def run_jobs(
    executor: Executor, jobs: Iterable[MaintenanceJob], start: float
) -> AsyncGenerator[MaintenanceReport]:
    """Run jobs one after the other, and yield the report of each batch.

    At the end it records the run if no batch failed. `start` is the time, by `time.monotonic`, from
    which on rows may be missed; before it the other jobs had no rows.
    """
    has_failed = False
    for job in jobs:
        async for batch in _JOBS[job](executor):
            has_failed = has_failed or bool(batch.failures)
            yield batch
    if not has_failed:
        with suppress(LockTimeout):  # another run is being recorded
            await MaintenanceRepository(executor).record_run(seconds=time.monotonic() - start)


async def backlog(executor: Executor) -> Backlog:
    """Count the rows that are not processed; see `AsyncSvc.backlog`."""
    row = await MaintenanceRepository(executor).backlog(limit=_MAX_COUNTED)
    if row.is_restricted:
        raise DatabaseError(
            "the backlog is of all tenants, and row-level security restricts this role to one: read"
            " it as the owner of the tables",
            _INSUFFICIENT_PRIVILEGE,
        )
    return Backlog(
        ledger_rows=row.ledger_rows, messages=row.messages, titles=row.titles, age=row.age
    )


async def _delete_expired_keys(executor: Executor) -> AsyncIterator[MaintenanceReport]:
    """Delete idempotency keys that are older than `Settings.key_lifetime`."""
    lifetime = timedelta(seconds=executor.settings.key_lifetime)
    async for batch in _delete_expired(AppendKeyRepository(executor), lifetime):
        yield batch
    async for batch in _delete_expired(UsageKeyRepository(executor), lifetime):
        yield batch


async def _delete_expired(
    repository: _KeyRepository[_Key], lifetime: timedelta
) -> AsyncIterator[MaintenanceReport]:
    last = None
    while keys := await repository.find_expired(
        lifetime=lifetime, after=last, limit=_KEY_BATCH_SIZE
    ):
        last = keys[-1]
        batch = MaintenanceReport()
        for tenant_id, tenant_keys in _group_by_tenant(keys).items():
            try:
                batch += await _delete_keys(repository, tenant_id, tenant_keys, lifetime)
            except TENANT_ERRORS as error:
                batch += failure("append_keys", tenant_id, error)
        yield batch


async def _delete_keys(
    repository: _KeyRepository[_Key],
    tenant_id: str,
    keys: Sequence[_Key],
    lifetime: timedelta,
) -> MaintenanceReport:
    """Delete keys of one tenant, in smaller batches after a timeout."""
    size, deleted = len(keys), 0
    while keys:
        try:
            deleted += await repository.delete_expired(
                tenant_id=tenant_id, keys=keys[:size], lifetime=lifetime
            )
        except StatementTimeout:
            if size == 1:
                raise
            size = max(size // SHRINK, 1)
        else:
            keys = keys[size:]
    return MaintenanceReport(append_keys=deleted)


def _group_by_tenant(keys: Iterable[_Key]) -> dict[str, list[_Key]]:
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
            try:
                batch = MaintenanceReport(ledger_rows=await roll_up_usage(executor, tenant))
                if tenant.has_budgets:
                    await alert(executor, tenant.tenant_id)
            except TENANT_ERRORS as error:
                batch = failure("usage", tenant.tenant_id, error)
            ledger_rows += batch.ledger_rows
            yield batch
    if ledger_rows:
        await usage.vacuum()
    async for batch in _sum_out_users(executor):
        yield batch


async def _sum_out_users(executor: Executor) -> AsyncIterator[MaintenanceReport]:
    """Replace persons in old sums, one tenant at a time."""
    usage, last = UsageRepository(executor), ""
    retention = timedelta(seconds=executor.settings.usage_retention)
    while tenants := await usage.find_old_users(
        retention=retention, after_tenant_id=last, limit=_TENANT_BATCH_SIZE
    ):
        last = tenants[-1]
        for tenant_id in tenants:
            try:
                yield MaintenanceReport(user_months=await sum_out_users(executor, tenant_id))
            except TENANT_ERRORS as error:
                yield failure("usage", tenant_id, error)


_JOBS: Final[dict[MaintenanceJob, Callable[[Executor], AsyncIterator[MaintenanceReport]]]] = {
    "append_keys": _delete_expired_keys,
    "usage": _roll_up_usage,
    "search": index_texts,
}
