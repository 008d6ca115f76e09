"""Usage statistics of a tenant."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from asyncsvc.errors import (
    DatabaseError,
    InvalidInput,
)
from asyncsvc.models import (
    UsageBucket,
)
from asyncsvc.repositories import (
    UsageRepository,
)
from asyncsvc.services.common import (
    ConversationServiceBase,
    wanted,
)
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.dates import bucket_start, instants, zone
from asyncsvc.validation.types import (
    ANY,
    DateLike,
    Id,
    Interval,
    OrAny,
    Source,
    UsageBasis,
    Zone,
)

if TYPE_CHECKING:
    from asyncsvc.database import Executor
    from asyncsvc.settings import Settings


_UNKNOWN_ZONE = "22023"
_SECONDS: Final[Mapping[str, int]] = {
    "hour": 3_600,
    "day": 86_400,
    "week": 7 * 86_400,
    "month": 31 * 86_400,
}


class ConversationUsage(ConversationServiceBase):
    """Usage statistics of a tenant."""

    def __init__(self, executor: Executor, settings: Settings) -> None:
        """Run on this executor."""
        super().__init__(executor, settings)
        self._usage = UsageRepository(executor)

    @validated
    async def stats(
        self,
        tenant_id: Id,
        from_date: DateLike,
        to_date: DateLike,
        source: OrAny[Source | None] = ANY,
        *,
        basis: UsageBasis = "creation",
        interval: Interval = "day",
        dialog_id: OrAny[Id] = ANY,
        token_id: OrAny[Id | None] = ANY,
        tz: Zone = "UTC",
        fill: bool = True,
    ) -> list[UsageBucket]:
        """Return the usage of a tenant as buckets of an hour, day, week (from Monday) or month.

        `basis="creation"` books a conversation on the instant it was created: a recount of what
        exists, exact at any moment, right in any zone across its clock changes.

        `basis="activity"` counts at the time of each activity, and deletions take nothing back: a
        creation, what a turn cost, a thumb (withdrawn, it counts one less on that day). What
        `import_` stores counts at its creation. Users are not kept, so uv is 0. The range is
        widened to quarters of an hour. `token_id` is that of the turns, None for those without one.

        `source=None` means conversations without a source, ANY all of them. With `fill` empty
        buckets are there too. The first and the last bucket hold what of them is in range;
        `asyncsvc.validation.dates` says what the dates mean.

        Raises InvalidInput for a range longer than `Settings.max_buckets` buckets, a month taken
        as 31 days, and for a `token_id` by creation. One round trip, no locks. In UTC and the zones
        that `declare_zone` named, days, weeks and months cost a row each, and what happened since
        the last `maintain`; a part of one at either end of the range, hours, and other zones cost
        the conversations in them, or the quarters of an hour and tokens by activity.
        """
        # Both are given: the parameters take no None.
        since, until = cast("tuple[datetime, datetime]", instants(from_date, to_date, tz))
        longest = (
            _SECONDS[interval] * self._settings.max_buckets + _SECONDS["hour"]
        )  # a clock goes back
        if (until - since).total_seconds() > longest:
            raise InvalidInput("to_date", f"must be within {self._settings.max_buckets} buckets")
        if basis == "creation" and token_id is not ANY:
            raise InvalidInput("token_id", 'needs basis="activity"')
        asked: dict[str, Any] = {
            "label": partial(bucket_start, local=zone(tz), hourly=interval == "hour"),
            "tenant_id": tenant_id,
            "range_from": since,
            "range_before": until,
            "interval": interval,
            "tz": tz,
            "fill": fill,
            "dialog_id": wanted(dialog_id),
            "source": wanted(source),
            "flags": [
                f"{name}_is_null"
                for name, value in (("source", source), ("token_id", token_id))
                if value is None
            ],
        }
        if token_id is not ANY:
            asked["flags"].append("by_quarter")
        with known_zone():
            if basis == "creation":
                return await self._usage.stats_by_created(**asked)
            return await self._usage.stats_by_activity(**asked, token_id=wanted(token_id))

    @validated
    async def declare_zone(self, tenant_id: Id, tz: Zone) -> bool:
        """Make the statistics of a tenant fast in a zone; return False where they were already.

        What they say does not change. UTC needs no declaration. Each zone costs `maintain` as much
        as the first.

        Raises InvalidInput for a zone that is not known, LockTimeout where somebody else folds for
        longer than `Settings.lock_timeout`. Five round trips, three where it was declared already;
        in a transaction, where it keeps others from folding this tenant's usage, and no append
        waits. It counts all conversations of the tenant, in all zones.
        """
        zone(tz)
        return await declare_zone(self._executor, tenant_id, tz)

    @validated
    async def recount_usage(self, tenant_id: Id) -> int:
        """Count the sums behind a tenant's statistics anew; return how many bookings were folded.

        Needed when the server got new rules for a zone, whose days then begin elsewhere.

        Five round trips; locks and cost are those of `declare_zone`.
        """
        return await recount(self._executor, tenant_id)


async def declare_zone(executor: Executor, tenant_id: str, tz: str) -> bool:
    """Have buckets kept in a zone; return whether there were none before."""
    async with executor.transaction() as transaction:
        usage = UsageRepository(transaction)
        if tz not in await usage.declare_zone(tenant_id=tenant_id, tz=tz):
            return False
        with known_zone():
            await _recount(usage, tenant_id)
        return True


async def recount(executor: Executor, tenant_id: str) -> int:
    """Count a tenant's buckets anew; return how many rows the ledger had."""
    async with executor.transaction() as transaction:
        usage = UsageRepository(transaction)
        await usage.declare_zone(tenant_id=tenant_id, tz="UTC")
        return await _recount(usage, tenant_id)


async def _recount(usage: UsageRepository, tenant_id: str) -> int:
    # Two statements, so that the second one sees what a fold did that the first one waited for.
    await usage.lock(tenant_id=tenant_id)
    return await usage.recount(tenant_id=tenant_id)


@contextmanager
def known_zone() -> Generator[None]:
    """Say that a zone is wrong that is known here, and not to an older server."""
    try:
        yield
    except DatabaseError as error:
        if error.sqlstate == _UNKNOWN_ZONE:
            raise InvalidInput("tz", "is not a time zone known to the server") from None
        raise
