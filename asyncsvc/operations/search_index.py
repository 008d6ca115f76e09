"""Add messages and titles to the search index.

A failed batch is tried again in smaller and smaller parts, after all other tenants. A message that
fails alone is skipped until the next run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from asyncsvc.models import MaintenanceReport
from asyncsvc.operations.maintenance_failures import SHRINK, TENANT_ERRORS, failure
from asyncsvc.repositories import SearchRepository

if TYPE_CHECKING:
    from asyncsvc.database import Executor

_BATCH_SIZE: Final = 2_000
_BATCH_BYTES: Final = 2**21
_FLUSH_THRESHOLD: Final = 20_000
_MAX_SKIPPED: Final = 10
"""The messages of a tenant that one run skips; after them it leaves the tenant."""


async def index_texts(executor: Executor) -> AsyncIterator[MaintenanceReport]:
    """Add messages and titles to the search index.

    PostgreSQL collects new entries of the index on a pending list, and each search reads the whole
    list. Flushing many entries at once costs less. The first flush is for interrupted maintenance.
    """
    search = SearchRepository(executor)
    yield await _flush(search)
    pending = 0
    async for batch in _index_tenants(search):
        pending += batch.messages + batch.titles
        if pending >= _FLUSH_THRESHOLD:
            yield await _flush(search)
            pending = 0
        yield batch
    if pending:
        yield await _flush(search)


async def _flush(search: SearchRepository) -> MaintenanceReport:
    try:
        await search.flush_pending_list()
    except TENANT_ERRORS as error:
        return failure("search", None, error)
    return MaintenanceReport()


async def _index_tenants(search: SearchRepository) -> AsyncIterator[MaintenanceReport]:
    """Index the texts of all tenants, then those of tenants with a failure in smaller batches."""
    after, failed = None, list[str]()
    while tenants := await search.next_tenants(after=after):
        for tenant_id in tenants:
            try:
                async for batch in _index_tenant(search, tenant_id, _BATCH_SIZE):
                    yield batch
            except TENANT_ERRORS:
                failed.append(tenant_id)
        after = tenants[-1]
    size = _BATCH_SIZE
    while failed:
        size = max(size // SHRINK, 1)
        for tenant_id in failed.copy():
            failed.remove(tenant_id)
            try:
                async for batch in _index_tenant(search, tenant_id, size):
                    yield batch
            except TENANT_ERRORS as error:
                if size == 1:
                    yield failure("search", tenant_id, error)
                else:
                    failed.append(tenant_id)


async def _index_tenant(
    search: SearchRepository, tenant_id: str, size: int
) -> AsyncIterator[MaintenanceReport]:
    """Index the messages and the titles of a tenant."""
    async for batch in _index_messages(search, tenant_id, size):
        yield batch
    async for batch in _index_titles(search, tenant_id, size):
        yield batch


async def _index_messages(
    search: SearchRepository, tenant_id: str, size: int
) -> AsyncIterator[MaintenanceReport]:
    """Index messages; after each success in larger batches. With `size` 1 it skips failures."""
    last, limit, skipped = None, size, 0
    while True:
        try:
            batch = await search.index_messages(
                tenant_id=tenant_id,
                after=last,
                limit=limit,
                max_bytes=_BATCH_BYTES * limit // _BATCH_SIZE,
            )
        except TENANT_ERRORS as error:
            if limit > size:
                limit = size
                continue
            if size > 1 or skipped == _MAX_SKIPPED:
                raise
            yield failure("search", tenant_id, error)
            skipped += 1
            last = await search.next_message(tenant_id=tenant_id, after=last)
        else:
            yield MaintenanceReport(messages=batch.indexed)
            last = batch.last
            limit = min(2 * limit, _BATCH_SIZE)
        if last is None:
            return


async def _index_titles(
    search: SearchRepository, tenant_id: str, size: int
) -> AsyncIterator[MaintenanceReport]:
    last = None
    while True:
        batch = await search.index_titles(tenant_id=tenant_id, after=last, limit=size)
        last = batch.last
        if last is None:
            return
        yield MaintenanceReport(titles=batch.indexed)
