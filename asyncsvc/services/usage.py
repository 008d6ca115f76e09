"""What both the service of conversations and maintenance do with the sums of usage."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from asyncsvc.errors import DatabaseError, InvalidInput
from asyncsvc.repositories import UsageRepository

if TYPE_CHECKING:
    from asyncsvc.executor import Executor

_UNKNOWN_ZONE = "22023"


async def declare_zone(executor: Executor, tenant_id: str, tz: str) -> bool:
    """Have buckets kept in a zone; return whether there were none before."""
    async with executor.transaction() as transaction:
        usage = UsageRepository(transaction)
        if tz not in await usage.declare_zone(tenant_id=tenant_id, tz=tz):
            return False
        with known_zone():
            await _recount(usage, tenant_id)
        return True


async def recount(executor: Executor, tenant_id: str) -> int:
    """Count a tenant's buckets anew; return how many rows the ledger had."""
    async with executor.transaction() as transaction:
        usage = UsageRepository(transaction)
        await usage.declare_zone(tenant_id=tenant_id, tz="UTC")
        return await _recount(usage, tenant_id)


async def _recount(usage: UsageRepository, tenant_id: str) -> int:
    # Two statements, so that the second one sees what a fold did that the first one waited for.
    await usage.lock(tenant_id=tenant_id)
    return await usage.recount(tenant_id=tenant_id)


@contextmanager
def known_zone() -> Generator[None]:
    """Say that a zone is wrong that is known here, and not to an older server."""
    try:
        yield
    except DatabaseError as error:
        if error.sqlstate == _UNKNOWN_ZONE:
            raise InvalidInput("tz", "is not a time zone known to the server") from None
        raise
