"""`sql/append_key`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from asyncsvc.repositories.base import Repository
from asyncsvc.validation.types import UNSET


class OldKey(NamedTuple):
    """An idempotency key that has been remembered for long enough."""

    tenant_id: str
    conversation_id: str
    key: str
    created_at: datetime


class AppendKeyRepository(Repository):
    """The statements about idempotency keys, but for the append that claims one."""

    folder = "append_key"

    async def find_old(self, *, lifetime: float, after: OldKey | None, limit: int) -> list[OldKey]:
        """Return the oldest keys of all tenants, behind this one."""
        rows = await self._rows(
            "find_old",
            lifetime=timedelta(seconds=lifetime),
            after_at=UNSET if after is None else after.created_at,
            after_tenant_id=UNSET if after is None else after.tenant_id,
            after_conversation_id=UNSET if after is None else after.conversation_id,
            after_key=UNSET if after is None else after.key,
            limit=limit,
        )
        return [OldKey(**row) for row in rows]

    async def delete_old(self, *, tenant_id: str, keys: Sequence[OldKey], lifetime: float) -> int:
        """Delete those of a tenant's keys that are still old; return how many."""
        return await self._count(
            "delete_old",
            tenant_id=tenant_id,
            conversation_ids=[key.conversation_id for key in keys],
            keys=[key.key for key in keys],
            lifetime=timedelta(seconds=lifetime),
        )
