"""`sql/usage`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from asyncsvc.models import UsageBucket
from asyncsvc.repositories.base import Repository, validate_models
from asyncsvc.validation.types import UNSET, UnsetType

if TYPE_CHECKING:
    from asyncsvc.database import Row

Label: TypeAlias = Callable[[datetime], datetime]
"""Makes a bucket's `dt` of the label that date_trunc gives it."""


class Unfolded(NamedTuple):
    """A tenant that has something in the usage ledger."""

    tenant_id: str
    is_declared: bool
    """Whether buckets in UTC are kept for it."""
    creations: int
    """How many creations and deletions are in the ledger."""


class UsageRepository(Repository):
    """The statements that count usage."""

    folder = "usage"

    async def find_unfolded(self, *, after: Unfolded | None, limit: int) -> list[Unfolded]:
        """Return the next tenants that have something in the ledger."""
        rows = await self._rows(
            "find_unfolded",
            after_tenant_id=UNSET if after is None else after.tenant_id,
            limit=limit,
        )
        return [Unfolded(**row) for row in rows]

    async def fold(self, *, tenant_id: str) -> int:
        """Fold a tenant's ledger into its sums; return how many rows it had."""
        (row,) = await self._rows("fold", tenant_id=tenant_id)
        return int(row["folded"])

    async def recount(self, *, tenant_id: str) -> int:
        """Count a tenant's buckets anew; return how many rows the ledger had."""
        (row,) = await self._rows("recount", tenant_id=tenant_id)
        return int(row["folded"])

    async def lock(self, *, tenant_id: str) -> None:
        """Keep others from folding this tenant's usage to the end of the transaction."""
        await self._rows("lock", tenant_id=tenant_id)

    async def declare_zone(self, *, tenant_id: str, tz: str) -> list[str]:
        """Have buckets kept in a zone, and in UTC; return which of them are new."""
        rows = await self._rows("declare_zone", tenant_id=tenant_id, tz=tz)
        return [row["zone"] for row in rows]

    async def backlog(self, *, most: int) -> int:
        """Return how many rows the ledger has, of all tenants."""
        (row,) = await self._rows("backlog", most=most)
        return int(row["rows"])

    async def vacuum(self) -> None:
        """Take what was folded off the ledger's file."""
        await self._rows("vacuum")

    async def stats_by_created(
        self,
        *,
        flags: Iterable[str],
        label: Label,
        tenant_id: str,
        range_from: datetime,
        range_before: datetime,
        interval: str,
        tz: str,
        fill: bool,
        dialog_id: str | UnsetType,
        source: str | UnsetType,
    ) -> list[UsageBucket]:
        """Return the buckets in order."""
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
        return _buckets(rows, label)

    async def stats_by_activity(
        self,
        *,
        flags: Iterable[str],
        label: Label,
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
        """Return the buckets in order."""
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
        return _buckets(rows, label)


def _buckets(rows: Iterable[Row], label: Label) -> list[UsageBucket]:
    """Make buckets with their labels: a year has hundreds, and copies would cost as much again."""
    values = [dict(row.items()) for row in rows]
    for each in values:
        each["dt"] = label(each["dt"])
    return validate_models(UsageBucket, values)
