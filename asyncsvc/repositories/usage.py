"""The statements of `sql/usage`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncsvc.database import build_model, build_models, build_value, build_values
from asyncsvc.models import Usage, UsageAdjustment, UsageBucket
from asyncsvc.models.columns import Timestamp
from asyncsvc.repositories.base import Repository, to_json
from asyncsvc.repositories.query import TimeRange, UsageFilter
from asyncsvc.repositories.usage_rows import adjustment_columns, optional, usages_to_json
from asyncsvc.validation.dates import bucket_start, zone
from asyncsvc.validation.types import UNSET, Interval, UnsetType, UsageBasis, UsageGroup

if TYPE_CHECKING:
    from asyncsvc.database import Row


_CREATION_SUMS: Final = ("rounds", "tokens")
_SUMS: Final = (
    "rounds",
    "requests",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "tokens",
    "cost",
    "unpriced",
)
"""The sums that may exceed a bigint, in the order of `large_sums`."""


class LedgerTenant(NamedTuple):
    """A tenant that has rows in the usage ledger."""

    tenant_id: str
    has_utc_zone: bool
    """Whether buckets in UTC are stored for the tenant."""
    has_budgets: bool
    creations: int
    """The number of its ledger rows that create or delete conversations."""
    conversations: int
    """The number of its conversations."""


class SummedOut(NamedTuple):
    """One batch of months of persons that were summed out."""

    user_months: int
    last_user_id: str


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

    async def roll_up(self, *, tenant_id: str, buckets: bool = True) -> int:
        """Move a tenant's ledger into its sums; return the number of ledger rows.

        Without `buckets` the caller recounts the buckets in the same transaction.
        """
        flags = ["buckets"] if buckets else []
        (row,) = await self._rows("roll_up", *flags, tenant_id=tenant_id)
        return build_value(int, row, "ledger_rows")

    async def recount(
        self, *, tenant_id: str, users_since: date, tz: str | UnsetType = UNSET
    ) -> None:
        """Count a tenant's buckets again; with `tz` only those of this zone.

        Buckets before `users_since`, from `lock`, keep their users.
        """
        await self._rows("recount", tenant_id=tenant_id, users_since=users_since, tz=tz)

    async def lock(self, *, tenant_id: str, skip_locked: bool = False) -> date | None:
        """Lock a tenant's usage against roll-ups and recounts until the transaction ends.

        Return the month from which on its sums name persons. None: the tenant has no zone, so
        nothing is locked; or with `skip_locked` another session holds the lock.
        """
        flags = ["skip_locked"] if skip_locked else []
        rows = await self._rows("lock", *flags, tenant_id=tenant_id)
        return build_value(date, rows[0], "users_since") if rows else None

    async def find_old_users(
        self, *, retention: timedelta, after_tenant_id: str, limit: int
    ) -> list[str]:
        """Return the next tenants whose sums may name persons of too long ago."""
        rows = await self._rows(
            "find_old_users", retention=retention, after_tenant_id=after_tenant_id, limit=limit
        )
        return build_values(str, rows, "tenant_id")

    async def sum_out_users(
        self, *, tenant_id: str, retention: timedelta, after_user_id: str, batch_size: int
    ) -> SummedOut:
        """Replace persons of too long ago in one batch of the sums."""
        (row,) = await self._rows(
            "sum_out_users",
            tenant_id=tenant_id,
            retention=retention,
            after_user_id=after_user_id,
            batch_size=batch_size,
        )
        return build_model(SummedOut, row)

    async def erase_user(self, *, tenant_id: str, user_id: str, erased_id: str) -> int:
        """Replace the id of a person in the sums; return the number of rows."""
        (row,) = await self._rows(
            "erase_user", tenant_id=tenant_id, user_id=user_id, erased_id=erased_id
        )
        return build_value(int, row, "erased")

    async def declare_zone(self, *, tenant_id: str, tz: str, if_used: bool = False) -> list[str]:
        """Declare this zone and UTC, in which buckets are then stored; return the new zones.

        `if_used` declares them only if the tenant has rows in the ledger.
        """
        flags = ["if_used"] if if_used else []
        rows = await self._rows("declare_zone", *flags, tenant_id=tenant_id, tz=tz)
        return build_values(str, rows, "zone")

    async def record(
        self,
        *,
        tenant_id: str,
        usages: Sequence[Usage],
        conversation_id: str | None,
        dialog_id: str | None,
        source: str | None,
        user_id: str | None,
        token_id: str | None,
        idempotency_key: str | None,
        body_hash: bytes | None,
    ) -> bool:
        """Insert usage without a message into the ledger; return whether it was inserted.

        False: the conversation does not exist, or the key was used before. The key and the hash are
        passed together.
        """
        (row,) = await self._rows(
            "record",
            tenant_id=tenant_id,
            usages=usages_to_json(usages),
            **optional(
                conversation_id=conversation_id,
                dialog_id=dialog_id,
                source=source,
                token_id=token_id,
                acting_user_id=user_id,
                idempotency_key=idempotency_key,
                body_hash=body_hash,
            ),
        )
        return build_value(bool, row, "is_recorded")

    async def adjust(
        self,
        *,
        tenant_id: str,
        adjustment: UsageAdjustment,
        actor: str,
        reason: str,
        dialog_id: str | None,
        source: str | None,
        user_id: str | None,
        token_id: str | None,
        idempotency_key: str | None,
        body_hash: bytes | None,
    ) -> bool:
        """Insert a correction and its audit; False if the key was used before."""
        of = {"dialog_id": dialog_id, "source": source}
        detail = optional(**adjustment.model_dump(mode="json", exclude_defaults=True), **of)
        (row,) = await self._rows(
            "adjust",
            tenant_id=tenant_id,
            adjustment=to_json(adjustment_columns(adjustment) | of | {"user_id": user_id}),
            detail=to_json(detail | optional(reason=reason, token_id=token_id)),
            actor=actor,
            **optional(token_id=token_id, idempotency_key=idempotency_key, body_hash=body_hash),
        )
        return build_value(bool, row, "is_recorded")

    async def delete(self, *, tenant_id: str) -> int:
        """Delete ledger, buckets and zones if no conversation is left; return their number."""
        return await self._count("delete", tenant_id=tenant_id)

    async def delete_quarter_hours(self, *, tenant_id: str, batch_size: int) -> int:
        """Delete one batch of the sums by quarter hour and return the number of rows."""
        return await self._count("delete_quarter_hours", tenant_id=tenant_id, batch_size=batch_size)

    async def delete_user_months(self, *, tenant_id: str, batch_size: int) -> int:
        """Delete one batch of the sums by person and return the number of rows."""
        return await self._count("delete_user_months", tenant_id=tenant_id, batch_size=batch_size)

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
        where: UsageFilter,
        group_by: UsageGroup | UnsetType = UNSET,
        top: int | UnsetType = UNSET,
    ) -> list[UsageBucket]:
        """Return the buckets of the range by activity, oldest first, then by rank of the group."""
        flags = _flags(interval, where)
        if group_by is not UNSET:
            flags.append("by_month" if where == UsageFilter() else "counted")
            flags += ["by_user"] if group_by == "user_id" else []
        elif where == UsageFilter(user_id=where.user_id):
            flags.append("by_month")
        rows = await self._rows(
            "stats",
            *flags,
            tenant_id=tenant_id,
            range_from=range.from_,
            range_before=range.before,
            grain="day" if interval == "total" else interval,
            tz=tz,
            fill=fill or interval == "total",
            dimension="all" if group_by is not UNSET else where.dimension or "all",
            group_by=group_by,
            top=top,
            **where.conditions(),
        )
        return _buckets(rows, _starts(rows, tz, interval), "activity")

    async def creation_stats(
        self,
        *,
        tenant_id: str,
        range: TimeRange,
        interval: Interval,
        tz: str,
        fill: bool,
        where: UsageFilter,
    ) -> list[UsageBucket]:
        """Return the buckets of the range by creation, oldest first."""
        rows = await self._rows(
            "creation_stats",
            *_flags(interval, where),
            tenant_id=tenant_id,
            range_from=range.from_,
            range_before=range.before,
            grain="day" if interval == "total" else interval,
            tz=tz,
            fill=fill or interval == "total",
            dimension=where.dimension or "all",
            dialog_id=where.dialog_id,
            source=where.source,
            user_id=where.user_id,
        )
        return _buckets(rows, _starts(rows, tz, interval), "creation")


def _flags(interval: Interval, where: UsageFilter) -> list[str]:
    """Return the flags of a statistic."""
    counted = ["counted"] if where.dimension is None else []
    return counted + (["total"] if interval == "total" else [])


def _starts(rows: Sequence[Row], tz: str, interval: Interval) -> list[datetime]:
    """Return the first instant of each bucket."""
    local, is_exact = zone(tz), interval in {"hour", "total"}
    labels = build_values(Timestamp, rows, "dt")
    return [bucket_start(label, local, hourly=is_exact) for label in labels]


def _buckets(
    rows: Sequence[Row], starts: Sequence[datetime], basis: UsageBasis
) -> list[UsageBucket]:
    """Build the buckets; by creation the counters that a conversation does not keep are None."""
    names, none = (_SUMS if basis == "activity" else _CREATION_SUMS), [None] * len(rows)
    columns = dict[str, Sequence[object]]()
    if rows and "group" not in rows[0].keys():  # noqa: SIM118 - a row iterates over its values
        columns |= {"group": none, "is_other": [False] * len(rows)}
    columns |= dict.fromkeys({*_SUMS, "unmetered"}, none) if basis == "creation" else {}
    columns |= {name: [row[name] for row in rows] for name in names}
    if any(row["large_sums"] is not None for row in rows):
        columns |= _large_sums(rows, names)
    columns["dt"] = starts
    if basis == "activity":
        costs = build_values(int, [{"cost": cost} for cost in columns["cost"]], "cost")
        columns["cost"] = [Decimal(f"{cost}E-9") for cost in costs]
    return build_models(UsageBucket, rows, **columns)


def _large_sums(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Sequence[object]]:
    """Return the sums by name, of which a bigint does not hold all."""
    sums = [
        [row[name] for name in names]
        if row["large_sums"] is None
        else [int(each) for each in row["large_sums"].split()]
        for row in rows
    ]
    return dict(zip(names, zip(*sums, strict=True), strict=True))
