"""Usage statistics of a tenant."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Final

from asyncsvc.errors import DatabaseError, InvalidInput
from asyncsvc.models import UsageBucket
from asyncsvc.repositories import UsageRepository
from asyncsvc.repositories.query import TimeRange, UsageFilter
from asyncsvc.services.common import ConversationServiceBase, unset_if_any
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.dates import instants, zone
from asyncsvc.validation.types import (
    ANY,
    UNSET,
    DateLike,
    Id,
    Interval,
    ModelLabel,
    OrAny,
    Source,
    TopGroups,
    UsageBasis,
    UsageGroup,
    UserId,
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
_RETENTION_BATCH_SIZE: Final = 500
"""The months of persons that one statement sums out."""
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
        basis: UsageBasis = "activity",
        interval: Interval = "day",
        dialog_id: OrAny[Id] = ANY,
        token_id: OrAny[Id | None] = ANY,
        model: OrAny[ModelLabel | None] = ANY,
        user_id: OrAny[UserId] = ANY,
        group_by: UsageGroup | None = None,
        top: TopGroups = 20,
        tz: Zone = "UTC",
        fill: bool = True,
    ) -> list[UsageBucket]:
        """Return the usage of a tenant in buckets of one hour, day, week or month, or of the range.

        The numbers are exact at any moment, in any zone, and include each committed change. Weeks
        start on Monday. The first and the last bucket are cut at the bounds of the range.

        Args:
            from_date: The lower bound; see `asyncsvc.validation.dates`.
            to_date: The upper bound, inclusive at its precision: a date is the whole day in `tz`.
            source: Only conversations from this source; None for those without a source.
            basis: "activity" counts each change at its own time: creations, the usage of turns, and
                feedback, of which a withdrawal subtracts 1. A deletion subtracts nothing. Imported
                conversations count at their creation. The range is widened to quarter hours.
                "creation" counts each existing conversation, with its present values, at its
                creation.
            interval: The length of a bucket; "total": one bucket of the whole range.
            dialog_id: Only this dialog; ANY for the whole tenant.
            token_id: Only the usage of this token and of the tokens that it was rotated to or from;
                None for usage without a token. It requires basis="activity".
            model: Only this model; None for usage without one. It requires basis="activity".
            user_id: Only this person: who acted, or by creation who has the conversation.
            group_by: Return the usage of each model, token, person, dialog or source. Tokens that
                were rotated are one group, by the id of the first. It requires basis="activity".
            top: The number of groups with buckets of their own: those with the highest cost, then
                tokens, then rounds in the range. All others are one group, `is_other`, so that the
                groups add up to the usage without groups.
            tz: The time zone of the buckets, and of bounds without an offset.
            fill: Also return empty buckets.

        Returns:
            The buckets, oldest first, then by rank of the group.

        Raises:
            InvalidInput: A parameter is wrong, the zone is unknown, or the range is longer than
                `Settings.max_buckets` buckets. A month counts as 31 days.

        Cost:
            1 round trip, no locks. In UTC and declared zones (see `declare_zone`), with at most one
            of `dialog_id`, `source`, `token_id` and `model`: reads 1 row for each day, week or
            month within the range, and the tenant's changes since the last `maintain`. For cut
            buckets at the ends of the range, for hours, for other zones, with several filters and
            with `user_id` it reads each conversation, or by activity each row of
            `usage_quarter_hour`. With `group_by` 1 row for each bucket and group, and to rank the
            groups 1 for each group and month; for `user_id` 1 for each month of the persons who may
            be among the `top`, each row of `usage_quarter_hour` before and after the whole months
            of UTC, and each of the `top` persons.
        """
        start, end = instants(from_date, to_date, tz)
        self._check_length(start, end, interval)
        if basis == "creation":
            _require_unset(token_id=token_id, model=model, group_by=group_by or ANY)
        range_ = TimeRange(from_=start, before=end)
        where = UsageFilter(
            dialog_id=unset_if_any(dialog_id),
            source=unset_if_any(source),
            token_id=unset_if_any(token_id),
            model=unset_if_any(model),
            user_id=unset_if_any(user_id),
        )
        with translate_unknown_zone():
            if basis == "creation":
                return await self._usage.creation_stats(
                    tenant_id=tenant_id, range=range_, interval=interval, tz=tz, fill=fill,
                    where=where,
                )  # fmt: skip
            return await self._usage.stats(
                tenant_id=tenant_id, range=range_, interval=interval, tz=tz, fill=fill, where=where,
                group_by=UNSET if group_by is None else group_by,
                top=UNSET if group_by is None else top,
            )  # fmt: skip

    @validated
    async def stats_total(
        self,
        *,
        tenant_id: Id,
        from_date: DateLike,
        to_date: DateLike,
        source: OrAny[Source | None] = ANY,
        basis: UsageBasis = "activity",
        dialog_id: OrAny[Id] = ANY,
        token_id: OrAny[Id | None] = ANY,
        model: OrAny[ModelLabel | None] = ANY,
        user_id: OrAny[UserId] = ANY,
        tz: Zone = "UTC",
    ) -> UsageBucket:
        """Return the usage of a tenant in a range, as one bucket, with its distinct users.

        Args:
            from_date: The lower bound; see `asyncsvc.validation.dates`.
            to_date: The upper bound, inclusive at its precision: a date is the whole day in `tz`.
            source: Only conversations from this source; None for those without a source.
            basis: When usage counts, as in `stats`.
            dialog_id: Only this dialog; ANY for the whole tenant.
            token_id: Only the usage of this token and of the tokens that it was rotated to or from;
                None for usage without a token. It requires basis="activity".
            model: Only this model; None for usage without one. It requires basis="activity".
            user_id: Only this person: who acted, or by creation who has the conversation.
            tz: The time zone of bounds without an offset. A declared zone is fast.

        Returns:
            The bucket. Persons older than `Settings.usage_retention` are not counted as users.

        Raises:
            InvalidInput: A parameter is wrong, or the zone is unknown.

        Cost:
            1 round trip, no locks. In UTC and declared zones, with at most one of `dialog_id`,
            `source`, `token_id` and `model`: reads 1 row for each day within the range, by activity
            1 for each whole month and for each other day, and the tenant's changes since the last
            `maintain`; otherwise each conversation, or by activity each row of
            `usage_quarter_hour`. For distinct users it reads 1 row for each person and
            month; with filters each row of `usage_quarter_hour`, by creation each conversation.
        """
        (bucket,) = await self.stats(
            tenant_id=tenant_id, from_date=from_date, to_date=to_date, source=source, basis=basis,
            interval="total", dialog_id=dialog_id, token_id=token_id, model=model, user_id=user_id,
            tz=tz,
        )  # fmt: skip
        return bucket

    def _check_length(self, start: datetime, end: datetime, interval: Interval) -> None:
        """Raise InvalidInput if the range has more than `max_buckets` buckets."""
        if interval == "total":
            return
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
            users_since = await lock_usage(usage, tenant_id)
            with translate_unknown_zone():
                await usage.recount(tenant_id=tenant_id, users_since=users_since, tz=tz)
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
            5 round trips in 1 transaction, 7 for a tenant that has no statistics yet. It counts and
            locks as `declare_zone` does.
        """
        async with self._executor.transaction() as transaction:
            usage = UsageRepository(transaction)
            return await _recount(usage, tenant_id, await lock_usage(usage, tenant_id))


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
        users_since = await usage.lock(tenant_id=tenant.tenant_id, skip_locked=True)
        if users_since is None:
            return 0
        return await _recount(usage, tenant.tenant_id, users_since)


async def sum_out_users(executor: Executor, tenant_id: str) -> int:
    """Replace the persons in sums that are older than `Settings.usage_retention`.

    Return the number of months of persons.
    """
    usage, last, user_months = UsageRepository(executor), "", 0
    retention = timedelta(seconds=executor.settings.usage_retention)
    while True:
        batch = await usage.sum_out_users(
            tenant_id=tenant_id,
            retention=retention,
            after_user_id=last,
            batch_size=_RETENTION_BATCH_SIZE,
        )
        user_months += batch.user_months
        if not batch.user_months:
            if not last:
                return user_months
            last = ""  # a pass without persons completes the month
        else:
            last = batch.last_user_id


async def lock_usage(usage: UsageRepository, tenant_id: str) -> date:
    """Lock a tenant's usage, so that the next statement sees each earlier roll-up.

    Return the month from which on its sums name persons.
    """
    while (users_since := await usage.lock(tenant_id=tenant_id)) is None:
        # The tenant is new, or was just deleted.
        await usage.declare_zone(tenant_id=tenant_id, tz="UTC")
    return users_since


async def _recount(usage: UsageRepository, tenant_id: str, users_since: date) -> int:
    """Roll up a tenant's usage by a recount; return the number of ledger rows."""
    ledger_rows = await usage.roll_up(tenant_id=tenant_id, buckets=False)
    await usage.recount(tenant_id=tenant_id, users_since=users_since)
    return ledger_rows


def _require_unset(**values: object) -> None:
    """Raise InvalidInput for a parameter that applies to usage by activity only."""
    for name, value in values.items():
        if value is not ANY:
            raise InvalidInput(name, "applies to usage by activity only")


@contextmanager
def translate_unknown_zone() -> Generator[None]:
    """Raise InvalidInput for a zone that Python knows and the server does not."""
    try:
        yield
    except DatabaseError as error:
        if error.sqlstate == _UNKNOWN_ZONE:
            raise InvalidInput("tz", "is not a time zone known to the server") from None
        raise
