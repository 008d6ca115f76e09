"""The statements of `sql/usage_audit`."""

from __future__ import annotations

from asyncsvc.database import build_models
from asyncsvc.models import UsageEvent
from asyncsvc.repositories.base import Repository
from asyncsvc.validation.cursors import Position
from asyncsvc.validation.types import UNSET, UnsetType


class UsageAuditRepository(Repository):
    """The statements about the audit of budgets and usage."""

    folder = "usage_audit"

    async def get_list(
        self, *, tenant_id: str, budget_id: str | UnsetType, after: Position | None, limit: int
    ) -> list[UsageEvent]:
        """Return events, newest first."""
        rows = await self._rows(
            "get_list",
            tenant_id=tenant_id,
            budget_id=budget_id,
            after_at=UNSET if after is None else after.at,
            after_id=UNSET if after is None else after.number,
            limit=limit,
        )
        return build_models(UsageEvent, rows)
