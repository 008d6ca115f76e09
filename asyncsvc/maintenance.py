"""What has to be done now and then, and can be done at any time: forgetting old keys."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from asyncsvc.errors import DatabaseError
from asyncsvc.models import MaintenanceReport
from asyncsvc.repositories import AppendKeyRepository, MigrationRepository
from asyncsvc.repositories.append_key import OldKey

if TYPE_CHECKING:
    from asyncsvc.executor import Executor

_TABLE: Final = "append_key"
_KEYS_AT_ONCE: Final = 1_000
_INSUFFICIENT_PRIVILEGE: Final = "42501"


async def maintain(
    executor: Executor, on_batch: Callable[[MaintenanceReport], None] | None
) -> MaintenanceReport:
    """Forget what is old; see `AsyncSvc.maintain`."""
    if _TABLE not in await MigrationRepository(executor).unrestricted_tables():
        raise DatabaseError(
            "maintenance is of all tenants, and this role sees one at a time: run it as the owner"
            " of the tables",
            _INSUFFICIENT_PRIVILEGE,
        )
    keys, lifetime = AppendKeyRepository(executor), executor.settings.key_lifetime
    report, last = MaintenanceReport(), None
    while old := await keys.find_old(lifetime=lifetime, after=last, limit=_KEYS_AT_ONCE):
        last = old[-1]
        for tenant_id, of_tenant in _by_tenant(old).items():
            deleted = await keys.delete_old(tenant_id=tenant_id, keys=of_tenant, lifetime=lifetime)
            report = MaintenanceReport(append_keys=report.append_keys + deleted)
        if on_batch is not None:
            on_batch(report)
    return report


def _by_tenant(keys: Iterable[OldKey]) -> dict[str, list[OldKey]]:
    found = defaultdict(list)
    for key in keys:
        found[key.tenant_id].append(key)
    return found
