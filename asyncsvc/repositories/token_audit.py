"""The statements of `sql/token_audit`."""

from __future__ import annotations

from asyncsvc.models import TokenEvent
from asyncsvc.repositories.base import Repository
from asyncsvc.repositories.large_rows import build_rows
from asyncsvc.validation.cursors import Position
from asyncsvc.validation.types import UNSET, UnsetType


class TokenAuditRepository(Repository):
    """The statements about the audit of tokens. The statements of `sql/api_token` write it."""

    folder = "token_audit"

    async def get_list(
        self, *, tenant_id: str, token_id: str | UnsetType, after: Position | None, limit: int
    ) -> list[TokenEvent]:
        """Return events, newest first."""
        rows = await self._rows(
            "get_list",
            tenant_id=tenant_id,
            token_id=token_id,
            after_at=UNSET if after is None else after.at,
            after_id=UNSET if after is None else after.number,
            limit=limit,
        )
        return await build_rows(TokenEvent, rows)

    async def delete(self, *, tenant_id: str, batch_size: int) -> int:
        """Delete all events of a batch of deleted tokens; return the number of events."""
        return await self._count("delete", tenant_id=tenant_id, batch_size=batch_size)
