"""`sql/token_audit`."""

from __future__ import annotations

from datetime import datetime

from asyncsvc.models import TokenEvent
from asyncsvc.repositories.base import Repository, build_models
from asyncsvc.validation.types import UnsetType


class TokenAuditRepository(Repository):
    """The statements about what was done to tokens; those that do it write it."""

    folder = "token_audit"

    async def get_list(
        self,
        *,
        tenant_id: str,
        token_id: str | UnsetType,
        after_at: datetime | UnsetType,
        after_id: int | UnsetType,
        limit: int,
    ) -> list[TokenEvent]:
        """Return events, newest first."""
        rows = await self._rows(
            "get_list",
            tenant_id=tenant_id,
            token_id=token_id,
            after_at=after_at,
            after_id=after_id,
            limit=limit,
        )
        return build_models(TokenEvent, rows)
