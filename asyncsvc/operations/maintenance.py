"""What has to be done now and then, and can be done at any time.

Old idempotency keys are forgotten, usage is folded into its sums, and what was written into the
search index. What is not folded yet is counted and found, too, but only by reading it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Final

from asyncsvc.errors import DatabaseError
from asyncsvc.models import MaintenanceReport
from asyncsvc.repositories import (
    AppendKeyRepository,
    MigrationRepository,
    SearchRepository,
    UsageRepository,
)
from asyncsvc.repositories.append_key import OldKey
from asyncsvc.repositories.search import Folded
from asyncsvc.repositories.usage import Unfolded
from asyncsvc.services.usage import recount

if TYPE_CHECKING:
    from asyncsvc.database import Executor

_TABLE: Final = "append_key"
_KEYS_AT_ONCE: Final = 1_000
_TENANTS_AT_ONCE: Final = 100
_MOST_CREATIONS: Final = 10_000
"""From so many on, counting all of a tenant anew costs less than folding them one by one."""
_TEXTS_AT_ONCE: Final = 2_000
_BYTES_AT_ONCE: Final = 2**21
_UNSORTED: Final = 20_000
_INSUFFICIENT_PRIVILEGE: Final = "42501"


async def maintain(
    executor: Executor, on_batch: Callable[[MaintenanceReport], None] | None
) -> MaintenanceReport:
    """Forget what is old, and fold what is new; see `AsyncSvc.maintain`."""
    if _TABLE not in await MigrationRepository(executor).get_unrestricted_tables():
        raise DatabaseError(
            "maintenance is of all tenants, and this role sees one at a time: run it as the owner"
            " of the tables",
            _INSUFFICIENT_PRIVILEGE,
        )
    report = MaintenanceReport()
    for work in (_forget, _fold_usage, _fold_texts):
        async for done in work(executor):
            report += done
            if on_batch is not None:
                on_batch(report)
    return report


async def _forget(executor: Executor) -> AsyncIterator[MaintenanceReport]:
    """Forget old idempotency keys, batch by batch."""
    keys, lifetime, last = AppendKeyRepository(executor), executor.settings.key_lifetime, None
    while old := await keys.find_old(lifetime=lifetime, after=last, limit=_KEYS_AT_ONCE):
        last = old[-1]
        deleted = 0
        for tenant_id, of_tenant in _by_tenant(old).items():
            deleted += await keys.delete_old(tenant_id=tenant_id, keys=of_tenant, lifetime=lifetime)
        yield MaintenanceReport(append_keys=deleted)


def _by_tenant(keys: Iterable[OldKey]) -> dict[str, list[OldKey]]:
    found = defaultdict(list)
    for key in keys:
        found[key.tenant_id].append(key)
    return found


async def _fold_usage(executor: Executor) -> AsyncIterator[MaintenanceReport]:
    """Fold the usage of one tenant after the other into its sums."""
    usage, last, folded = UsageRepository(executor), None, 0
    while tenants := await usage.find_unfolded(after=last, limit=_TENANTS_AT_ONCE):
        last = tenants[-1]
        for tenant in tenants:
            bookings = await _sum_up(executor, tenant)
            folded += bookings
            yield MaintenanceReport(bookings=bookings)
    if folded:
        await usage.vacuum()


async def _sum_up(executor: Executor, tenant: Unfolded) -> int:
    usage = UsageRepository(executor)
    if tenant.creations >= _MOST_CREATIONS:
        return await recount(executor, tenant.tenant_id)
    if not tenant.is_declared:
        await usage.declare_zone(tenant_id=tenant.tenant_id, tz="UTC")
    return await usage.fold(tenant_id=tenant.tenant_id)


async def _fold_texts(executor: Executor) -> AsyncIterator[MaintenanceReport]:
    """Fold messages and titles into the search index, batch by batch.

    The server gathers what is folded in a list that each search reads whole, until it is sorted in.
    Many at once are sorted in faster, so that is done now and then, and in the end. The first time
    is for a fold that was broken off.
    """
    search = SearchRepository(executor)
    await search.sort_in()
    unsorted = 0
    async for done in _folded(search):
        unsorted += done.messages + done.titles
        if unsorted >= _UNSORTED:
            await search.sort_in()
            unsorted = 0
        yield done
    if unsorted:
        await search.sort_in()


async def _folded(search: SearchRepository) -> AsyncIterator[MaintenanceReport]:
    """Fold one tenant after the other; yield what was in each batch."""
    tenant_id = None
    while tenant_id := await search.next_tenant(after=tenant_id):
        messages = partial(
            search.fold_messages,
            tenant_id=tenant_id,
            limit=_TEXTS_AT_ONCE,
            most_bytes=_BYTES_AT_ONCE,
        )
        async for folded in _batches(messages):
            yield MaintenanceReport(messages=folded)
        titles = partial(search.fold_titles, tenant_id=tenant_id, limit=_TEXTS_AT_ONCE)
        async for folded in _batches(titles):
            yield MaintenanceReport(titles=folded)


async def _batches(fold: Callable[..., Awaitable[Folded]]) -> AsyncIterator[int]:
    """Fold until nothing is left behind the last one; yield how many were in each batch."""
    last = None
    while (batch := await fold(after=last)).found:
        last = batch.last
        yield batch.folded
