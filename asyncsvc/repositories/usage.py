"""The statements of `sql/usage`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from asyncsvc.database import build_models, build_value, build_values
from asyncsvc.models import UsageBucket
from asyncsvc.models.columns import Timestamp
from asyncsvc.repositories.base import Repository
from asyncsvc.repositories.query import TimeRange
from asyncsvc.validation.dates import bucket_start, zone
from asyncsvc.validation.types import UNSET, Interval, UnsetType, UsageBasis


class LedgerTenant(NamedTuple):
    """A tenant that has rows in the usage ledger."""

    tenant_id: str
    has_utc_zone: bool
    """Whether buckets in UTC are stored for the tenant."""
    creations: int
    """The number of its ledger rows that create or delete conversations."""
    conversations: int
    """The number of its conversations."""


class UsageRepository(Repository):
    """The usage ledger, its sums and the statistics."""

    folder = "usage"

    async def find_tenants_to_roll_up(
        self,
        *,
        tenant_id: str | UnsetType = UNSET,
        after: LedgerTenant | None = None,
        limit: int = 1,
    ) -> list[LedgerTenant]:
        """Return the next tenants that have rows in the ledger, ordered by id."""
        rows = await self._rows(
            "find_tenants_to_roll_up",
            tenant_id=tenant_id,
            after_tenant_id=UNSET if after is None else after.tenant_id,
            limit=limit,
        )
        return build_models(LedgerTenant, rows)

    async def roll_up(self, *, tenant_id: str) -> int:
        """Move a tenant's ledger into its sums; return the number of ledger rows."""
        (row,) = await self._rows("roll_up", tenant_id=tenant_id)
        return build_value(int, row, "ledger_rows")

    async def recount(self, *, tenant_id: str, tz: str | UnsetType = UNSET) -> int:
        """Count a tenant's buckets again; return the number of ledger rows that were added.

        `tz` counts only the buckets of this new zone.
        """
        (row,) = await self._rows("recount", tenant_id=tenant_id, tz=tz)
        return build_value(int, row, "ledger_rows")

    async def lock(self, *, tenant_id: str, skip_locked: bool = False) -> bool:
        """Lock a tenant's usage against roll-ups and recounts until the transaction ends.

        False: the tenant has no zone, so nothing is locked; or with `skip_locked` another session
        holds the lock.
        """
        flags = ["skip_locked"] if skip_locked else []
        return bool(await self._rows("lock", *flags, tenant_id=tenant_id))

    async def declare_zone(self, *, tenant_id: str, tz: str, if_used: bool = False) -> list[str]:
        """Declare this zone and UTC, in which buckets are then stored; return the new zones.

        `if_used` declares them only if the tenant has rows in the ledger.
        """
        flags = ["if_used"] if if_used else []
        rows = await self._rows("declare_zone", *flags, tenant_id=tenant_id, tz=tz)
        return build_values(str, rows, "zone")

    async def delete(self, *, tenant_id: str) -> int:
        """Delete ledger, buckets and zones if no conversation is left; return their number."""
        return await self._count("delete", tenant_id=tenant_id)

    async def delete_quarter_hours(self, *, tenant_id: str, batch_size: int) -> int:
        """Delete one batch of the sums by quarter hour and return the number of rows."""
        return await self._count("delete_quarter_hours", tenant_id=tenant_id, batch_size=batch_size)

    async def backlog(self, *, limit: int) -> int:
        """Return the number of ledger rows of all tenants, counted up to `limit`."""
        (row,) = await self._rows("backlog", limit=limit)
        return build_value(int, row, "ledger_rows")

    async def vacuum(self) -> None:
        """Remove the dead rows of the ledger."""
        await self._rows("vacuum")

    async def stats(
        self,
        *,
        tenant_id: str,
        range: TimeRange,
        interval: Interval,
        tz: str,
        fill: bool,
        dialog_id: str | UnsetType,
        source: str | UnsetType | None,
        token_id: str | UnsetType | None,
        basis: UsageBasis,
    ) -> list[UsageBucket]:
        """Return the buckets of the range, oldest first."""
        rows = await self._rows(
            "stats",
            *(["activity"] if basis == "activity" else []),
            tenant_id=tenant_id,
            range_from=range.from_,
            range_before=range.before,
            interval=interval,
            tz=tz,
            fill=fill,
            dialog_id=dialog_id,
            source=source,
            token_id=token_id,
        )
        local, hourly = zone(tz), interval == "hour"
        labels = build_values(Timestamp, rows, "dt")
        starts = (bucket_start(label, local, hourly=hourly) for label in labels)
        columns: dict[str, Iterable[object]] = {"dt": starts}
        for name, large in (("tokens", "large_tokens"), ("rounds", "large_rounds")):
            if any(row[large] is not None for row in rows):
                columns[name] = [row[name] if row[large] is None else row[large] for row in rows]
        return build_models(UsageBucket, rows, **columns)
