"""`sql/api_token`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from asyncsvc.fields import UnsetType
from asyncsvc.models import APIToken
from asyncsvc.repositories.base import Repository, to_json


class APITokenRepository(Repository):
    """The statements about API tokens."""

    folder = "api_token"

    async def create(
        self,
        *,
        id: str,
        tenant_id: str,
        name: str,
        token_hash: bytes,
        hint: str,
        kind: str,
        scopes: Sequence[str],
        dialog_id: str | None,
        source: str | None,
        expires_at: datetime | None,
    ) -> APIToken:
        """Store a new token."""
        (row,) = await self._rows(
            "create",
            id=id,
            tenant_id=tenant_id,
            name=name,
            token_hash=token_hash,
            hint=hint,
            kind=kind,
            scopes=scopes,
            dialog_id=dialog_id,
            source=source,
            expires_at=expires_at,
        )
        return APIToken(**row)

    async def verify(
        self, *, token_hash: bytes, kind: str | UnsetType, touch_interval: timedelta
    ) -> APIToken | None:
        """Look a token up and stamp its use when that is due."""
        rows = await self._rows(
            "verify", token_hash=token_hash, kind=kind, touch_interval=touch_interval
        )
        return APIToken(**rows[0]) if rows else None

    async def verify_readonly(self, *, token_hash: bytes, kind: str | UnsetType) -> APIToken | None:
        """Look a token up."""
        rows = await self._rows("verify_readonly", token_hash=token_hash, kind=kind)
        return APIToken(**rows[0]) if rows else None

    async def get_list(
        self,
        *,
        flags: Iterable[str],
        tenant_id: str,
        kind: str | UnsetType,
        dialog_id: str | UnsetType,
        after_at: datetime | UnsetType,
        after_id: str | UnsetType,
        limit: int,
    ) -> list[APIToken]:
        """Return tokens, newest first."""
        rows = await self._rows(
            "get_list",
            *flags,
            tenant_id=tenant_id,
            kind=kind,
            dialog_id=dialog_id,
            after_at=after_at,
            after_id=after_id,
            limit=limit,
        )
        return [APIToken(**row) for row in rows]

    async def get_by_id(self, *, tenant_id: str, id: str) -> APIToken | None:
        """Return one token."""
        rows = await self._rows("get_by_id", tenant_id=tenant_id, id=id)
        return APIToken(**rows[0]) if rows else None

    async def update_by_id(
        self, *, tenant_id: str, id: str, patch: Mapping[str, object]
    ) -> APIToken | None:
        """Set columns."""
        rows = await self._rows("update_by_id", tenant_id=tenant_id, id=id, patch=to_json(patch))
        return APIToken(**rows[0]) if rows else None

    async def revoke(self, *, tenant_id: str, id: str) -> APIToken | None:
        """End a token now."""
        rows = await self._rows("revoke", tenant_id=tenant_id, id=id)
        return APIToken(**rows[0]) if rows else None

    async def delete_by_tenant_id(self, *, tenant_id: str) -> int:
        """Delete a tenant's tokens; return how many there were."""
        return await self._count("delete_by_tenant_id", tenant_id=tenant_id)
