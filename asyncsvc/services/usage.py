"""Usage statistics of a tenant."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Final

from asyncsvc.errors import DatabaseError, InvalidInput
from asyncsvc.models import UsageBucket
from asyncsvc.repositories import UsageRepository
from asyncsvc.repositories.query import TimeRange
from asyncsvc.services.common import ConversationServiceBase, unset_if_any
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.dates import instants, zone
from asyncsvc.validation.types import (
    ANY,
    UNSET,
    DateLike,
    Id,
    Interval,
    OrAny,
    Source,
    UnsetType,
    UsageBasis,
    Zone,
)

if TYPE_CHECKING:
    from asyncsvc.database import Executor
    from asyncsvc.repositories.usage import LedgerTenant
    from asyncsvc.settings import Settings

_UNKNOWN_ZONE: Final = "22023"
_MIN_RECOUNT: Final = 1_000
_RECOUNT_RATIO: Final = 16
"""A creation costs this times as much in a roll-up as a conversation in a recount."""
_HOUR_SECONDS: Final = 3_600
_BUCKET_SECONDS: Final[Mapping[Interval, int]] = {
    "hour": _HOUR_SECONDS,
    "day": 24 * _HOUR_SECONDS,
    "week": 7 * 24 * _HOUR_SECONDS,
    "month": 31 * 24 * _HOUR_SECONDS,
}


class ConversationUsage(ConversationServiceBase):
    """Usage statistics, and the time zones that they are stored in."""

    def __init__(self, executor: Executor, settings: Settings) -> None:
        """Run on this executor, within the limits of these settings."""
        super().__init__(executor, settings)
        self._usage = UsageRepository(executor)

    @validated
    async def stats(
        self,
        *,
        tenant_id: Id,
        from_date: DateLike,
        to_date: DateLike,
        source: OrAny[Source | None] = ANY,
        basis: UsageBasis = "creation",
        interval: Interval = "day",
        dialog_id: OrAny[Id] = ANY,
        token_id: OrAny[Id | None] = ANY,
        tz: Zone = "UTC",
        fill: bool = True,
    ) -> list[UsageBucket]:
        """Return the usage of a tenant in buckets of one hour, day, week or month.

        The numbers are exact at any moment, in any zone, and include each committed change. Weeks
        start on Monday. The first and the last bucket are cut at the bounds of the range.

        Args:
            from_date: The lower bound; see `asyncsvc.validation.dates`.
            to_date: The upper bound, inclusive at its precision: a date is the whole day in `tz`.
            source: Only conversations from this source; None for those without a source.
            basis: "creation" counts each existing conversation, with its present values, at its
                creation. "activity" counts each change at its own time: creations, the costs of
                turns, and feedback, of which a withdrawal subtracts 1. A deletion subtracts
                nothing. Imported conversations count at their creation. `users` is 0. The range is
                widened to quarter hours.
            interval: The length of a bucket.
            dialog_id: Only this dialog; ANY for the whole tenant.
            token_id: Only turns with this token id; None for turns without one. It requires
                basis="activity".
            tz: The time zone of the buckets, and of bounds without an offset.
            fill: Also return empty buckets.

        Returns:
            The buckets, oldest first.

        Raises:
            InvalidInput: A parameter is wrong, the zone is unknown, or the range is longer than
                `Settings.max_buckets` buckets. A month counts as 31 days.

        Cost:
            1 round trip, no locks. In UTC and declared zones (see `declare_zone`): reads 1 row for
            each day, week or month within the range, and the tenant's changes since the last
            `maintain`. For cut buckets at the ends of the range, for hours, for other zones and
            with `token_id` it reads each conversation, or by activity each row of
            `usage_quarter_hour`.
        """
        start, end = instants(from_date, to_date, tz)
        self._check_length(start, end, interval)
        if basis == "creation" and token_id is not ANY:
            raise InvalidInput("token_id", "applies to usage by activity only")
        with _translate_unknown_zone():
            return await self._usage.stats(
                tenant_id=tenant_id,
                range=TimeRange(from_=start, before=end),
                interval=interval,
                tz=tz,
                fill=fill,
                dialog_id=unset_if_any(dialog_id),
                source=unset_if_any(source),
                token_id=unset_if_any(token_id),
                basis=basis,
            )

    def _check_length(self, start: datetime, end: datetime, interval: Interval) -> None:
        """Raise InvalidInput if the range has more than `max_buckets` buckets."""
        max_buckets = self._settings.max_buckets
        # The extra hour is for a clock that goes back within the range.
        max_seconds = _BUCKET_SECONDS[interval] * max_buckets + _HOUR_SECONDS
        if (end - start).total_seconds() > max_seconds:
            raise InvalidInput("to_date", f"must be within {max_buckets} buckets")

    @validated
    async def declare_zone(self, tz: Zone, *, tenant_id: Id) -> bool:
        """Store the statistics of a tenant also by the days of a zone, so that they are fast there.

        The numbers do not change. UTC needs no declaration. Each declared zone adds the same work
        to `maintain` as UTC.

        Args:
            tz: The zone, such as `Europe/Berlin`.

        Returns:
            Whether the zone is new; False if it was declared already.

        Raises:
            InvalidInput: The zone is unknown here or to the server.
            LockTimeout: A roll-up or recount of the tenant takes longer than
                `Settings.lock_timeout`.

        Cost:
            5 round trips in 1 transaction, 3 if the zone was declared already. It counts all
            conversations of the tenant, about 5 seconds for 600,000. It locks the tenant against
            roll-ups until it ends; no append and no statistic waits.
        """
        zone(tz)
        async with self._executor.transaction() as transaction:
            usage = UsageRepository(transaction)
            if tz not in await usage.declare_zone(tenant_id=tenant_id, tz=tz):
                return False
            with _translate_unknown_zone():
                await _lock_and_recount(usage, tenant_id, tz)
            return True

    @validated
    async def recount_usage(self, *, tenant_id: Id) -> int:
        """Count the stored statistics of a tenant again.

        Call it after an update of the server's time zone database that moves the days of a
        declared zone. `maintain` calls it after many creations.

        Returns:
            The number of usage ledger rows that were rolled up.

        Raises:
            LockTimeout: A roll-up or recount of the tenant takes longer than
                `Settings.lock_timeout`.

        Cost:
            4 round trips in 1 transaction, 6 for a tenant that has no statistics yet. It counts and
            locks as `declare_zone` does.
        """
        async with self._executor.transaction() as transaction:
            return await _lock_and_recount(UsageRepository(transaction), tenant_id)


async def roll_up_usage(executor: Executor, tenant: LedgerTenant) -> int:
    """Add a tenant's usage ledger to the sums; return the number of ledger rows.

    0: another session works on the tenant.
    """
    usage = UsageRepository(executor)
    if not tenant.has_utc_zone:
        await usage.declare_zone(tenant_id=tenant.tenant_id, tz="UTC", if_used=True)
    if tenant.creations < max(_MIN_RECOUNT, tenant.conversations / _RECOUNT_RATIO):
        return await usage.roll_up(tenant_id=tenant.tenant_id)
    async with executor.transaction() as transaction:
        usage = UsageRepository(transaction)
        if not await usage.lock(tenant_id=tenant.tenant_id, skip_locked=True):
            return 0
        return await usage.recount(tenant_id=tenant.tenant_id)


async def _lock_and_recount(
    usage: UsageRepository, tenant_id: str, tz: str | UnsetType = UNSET
) -> int:
    """Lock a tenant's usage and count it again; return the number of ledger rows."""
    # Two statements, so that the second one sees the roll-up for which the first one waited.
    while not await usage.lock(tenant_id=tenant_id):  # the tenant is new, or was just deleted
        await usage.declare_zone(tenant_id=tenant_id, tz="UTC")
    return await usage.recount(tenant_id=tenant_id, tz=tz)


@contextmanager
def _translate_unknown_zone() -> Generator[None]:
    """Raise InvalidInput for a zone that Python knows and the server does not."""
    try:
        yield
    except DatabaseError as error:
        if error.sqlstate == _UNKNOWN_ZONE:
            raise InvalidInput("tz", "is not a time zone known to the server") from None
        raise
