"""The statements of `sql/append_key`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from asyncsvc.database import build_models
from asyncsvc.models.columns import Timestamp
from asyncsvc.repositories.base import Repository
from asyncsvc.validation.types import UNSET


class ExpiredKey(NamedTuple):
    """An idempotency key that is older than `Settings.key_lifetime`."""

    tenant_id: str
    conversation_id: str
    key: str
    created_at: Timestamp


class AppendKeyRepository(Repository):
    """The idempotency keys of appends. The append itself writes them."""

    folder = "append_key"

    async def find_expired(
        self, *, lifetime: timedelta, after: ExpiredKey | None, limit: int
    ) -> list[ExpiredKey]:
        """Return the next keys of all tenants that are older than `lifetime`, oldest first."""
        rows = await self._rows(
            "find_expired",
            lifetime=lifetime,
            after_at=UNSET if after is None else after.created_at,
            after_tenant_id=UNSET if after is None else after.tenant_id,
            after_conversation_id=UNSET if after is None else after.conversation_id,
            after_key=UNSET if after is None else after.key,
            limit=limit,
        )
        return build_models(ExpiredKey, rows)

    async def delete_expired(
        self, *, tenant_id: str, keys: Sequence[ExpiredKey], lifetime: timedelta
    ) -> int:
        """Delete keys of a tenant that are still older than `lifetime`; return their number."""
        return await self._count(
            "delete_expired",
            tenant_id=tenant_id,
            conversation_ids=[key.conversation_id for key in keys],
            keys=[key.key for key in keys],
            lifetime=lifetime,
        )
