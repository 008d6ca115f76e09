"""What has to be done now and then, and can be done at any time: forgetting keys, folding usage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from asyncsvc.errors import DatabaseError
from asyncsvc.models import MaintenanceReport
from asyncsvc.repositories import AppendKeyRepository, MigrationRepository, UsageRepository
from asyncsvc.repositories.append_key import OldKey
from asyncsvc.repositories.usage import Unfolded
from asyncsvc.services.usage import recount

if TYPE_CHECKING:
    from asyncsvc.executor import Executor

_TABLE: Final = "append_key"
_KEYS_AT_ONCE: Final = 1_000
_TENANTS_AT_ONCE: Final = 100
_MOST_CREATIONS: Final = 10_000
"""From so many on, counting all of a tenant anew costs less than folding them one by one."""
_UTC: Final = "UTC"
_INSUFFICIENT_PRIVILEGE: Final = "42501"


async def maintain(
    executor: Executor, on_batch: Callable[[MaintenanceReport], None] | None
) -> MaintenanceReport:
    """Forget what is old and fold what is new; see `AsyncSvc.maintain`."""
    if _TABLE not in await MigrationRepository(executor).unrestricted_tables():
        raise DatabaseError(
            "maintenance is of all tenants, and this role sees one at a time: run it as the owner"
            " of the tables",
            _INSUFFICIENT_PRIVILEGE,
        )
    work = _Maintenance(executor, on_batch)
    await work.forget_keys()
    await work.fold_usage()
    return work.report


@dataclass(slots=True)
class _Maintenance:
    executor: Executor
    on_batch: Callable[[MaintenanceReport], None] | None
    report: MaintenanceReport = field(default_factory=MaintenanceReport)

    def _count(self, **done: int) -> None:
        told = {name: getattr(self.report, name) + number for name, number in done.items()}
        self.report = self.report.model_copy(update=told)
        if self.on_batch is not None:
            self.on_batch(self.report)

    async def forget_keys(self) -> None:
        keys, lifetime = AppendKeyRepository(self.executor), self.executor.settings.key_lifetime
        last = None
        while old := await keys.find_old(lifetime=lifetime, after=last, limit=_KEYS_AT_ONCE):
            last, deleted = old[-1], 0
            for tenant_id, of_tenant in _by_tenant(old).items():
                deleted += await keys.delete_old(
                    tenant_id=tenant_id, keys=of_tenant, lifetime=lifetime
                )
            self._count(append_keys=deleted)

    async def fold_usage(self) -> None:
        usage, last = UsageRepository(self.executor), None
        while tenants := await usage.find_unfolded(
            after=last, limit=_TENANTS_AT_ONCE, most=_MOST_CREATIONS
        ):
            last = tenants[-1]
            for tenant in tenants:
                self._count(bookings=await self._fold(usage, tenant))
        if self.report.bookings:
            await usage.vacuum()

    async def _fold(self, usage: UsageRepository, tenant: Unfolded) -> int:
        if tenant.creations >= _MOST_CREATIONS:
            return await recount(self.executor, tenant.tenant_id)
        if not tenant.is_declared:
            await usage.declare_zone(tenant_id=tenant.tenant_id, tz=_UTC)
        return await usage.fold(tenant_id=tenant.tenant_id)


def _by_tenant(keys: Iterable[OldKey]) -> dict[str, list[OldKey]]:
    found = defaultdict(list)
    for key in keys:
        found[key.tenant_id].append(key)
    return found
