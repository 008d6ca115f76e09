"""The statements of `sql/usage_key`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from asyncsvc.database import build_models, build_value
from asyncsvc.models.columns import Bytes, Timestamp
from asyncsvc.repositories.base import Repository
from asyncsvc.validation.types import UNSET


class ExpiredUsageKey(NamedTuple):
    """An idempotency key that is older than `Settings.key_lifetime`."""

    tenant_id: str
    key: str
    created_at: Timestamp


class UsageKeyRepository(Repository):
    """The idempotency keys of usage without a message. `usage/record` and `adjust` write them."""

    folder = "usage_key"

    async def get(self, *, tenant_id: str, key: str) -> bytes | None:
        """Return the hash that was stored with a key; None if the key was not used."""
        rows = await self._rows("get", tenant_id=tenant_id, key=key)
        return build_value(Bytes, rows[0], "body_hash") if rows else None

    async def find_expired(
        self, *, lifetime: timedelta, after: ExpiredUsageKey | None, limit: int
    ) -> list[ExpiredUsageKey]:
        """Return the next keys of all tenants that are older than `lifetime`, oldest first."""
        rows = await self._rows(
            "find_expired",
            lifetime=lifetime,
            after_at=UNSET if after is None else after.created_at,
            after_tenant_id=UNSET if after is None else after.tenant_id,
            after_key=UNSET if after is None else after.key,
            limit=limit,
        )
        return build_models(ExpiredUsageKey, rows)

    async def delete_expired(
        self, *, tenant_id: str, keys: Sequence[ExpiredUsageKey], lifetime: timedelta
    ) -> int:
        """Delete keys of a tenant that are still older than `lifetime`; return their number."""
        return await self._count(
            "delete_expired",
            tenant_id=tenant_id,
            keys=[key.key for key in keys],
            lifetime=lifetime,
        )
