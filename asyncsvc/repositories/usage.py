"""`sql/usage`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from asyncsvc.fields import UnsetType
from asyncsvc.models import UsageBucket
from asyncsvc.repositories.base import Repository


class UsageRepository(Repository):
    """The statements that count usage."""

    folder = "usage"

    async def stats_by_created(
        self,
        *,
        flags: Iterable[str],
        tenant_id: str,
        range_from: datetime,
        range_before: datetime,
        interval: str,
        tz: str,
        fill: bool,
        dialog_id: str | UnsetType,
        source: str | UnsetType,
    ) -> list[UsageBucket]:
        """Return the buckets in order, labelled as date_trunc labels them."""
        rows = await self._rows(
            "stats_by_created",
            *flags,
            tenant_id=tenant_id,
            range_from=range_from,
            range_before=range_before,
            interval=interval,
            tz=tz,
            fill=fill,
            dialog_id=dialog_id,
            source=source,
        )
        return [UsageBucket(**row) for row in rows]

    async def stats_by_activity(
        self,
        *,
        flags: Iterable[str],
        tenant_id: str,
        range_from: datetime,
        range_before: datetime,
        interval: str,
        tz: str,
        fill: bool,
        dialog_id: str | UnsetType,
        source: str | UnsetType,
        token_id: str | UnsetType,
    ) -> list[UsageBucket]:
        """Return the buckets in order, labelled as date_trunc labels them."""
        rows = await self._rows(
            "stats_by_activity",
            *flags,
            tenant_id=tenant_id,
            range_from=range_from,
            range_before=range_before,
            interval=interval,
            tz=tz,
            fill=fill,
            dialog_id=dialog_id,
            source=source,
            token_id=token_id,
        )
        return [UsageBucket(**row) for row in rows]
