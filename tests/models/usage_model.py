"""The model of the usage of `API4ConversationService`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from asyncsvc import ANY, InvalidInput
from tests.models.clocks import (
    MICROSECOND,
    QUARTER_HOUR,
    Range,
    bucket_start,
    bucket_starts,
    quarter_hour,
    range_of_bounds,
)
from tests.models.state import COUNTERS, Row, Tenant, Unknown, matches, now


class Usage(NamedTuple):
    """Usage that counts in one bucket."""

    at: datetime
    dialog_id: str
    source: str | None
    token_id: str | None
    user_id: str
    model: str | None
    counters: Mapping[str, int]


class UsageModel:
    """The usage of all tenants, by creation and by activity."""

    def __init__(self, tenants: defaultdict[str, Tenant]) -> None:
        self._tenants = tenants

    def record_activity(
        self,
        tenant_id,
        conversation,
        counters,
        *,
        token_id=None,
        user_id=None,
        model=None,
        at=None,
    ) -> None:
        if any(counters.values()):
            user_id = conversation.user_id if user_id is None else user_id
            place = conversation.dialog_id, conversation.source, token_id, user_id, model
            self._tenants[tenant_id].activity[quarter_hour(at or now()), *place].update(counters)

    def stats(
        self,
        *,
        tenant_id,
        from_date,
        to_date,
        source=ANY,
        basis="activity",
        interval="day",
        dialog_id=ANY,
        token_id=ANY,
        model=ANY,
        user_id=ANY,
        group_by=None,
        top=20,
        tz="UTC",
        fill=True,
    ) -> list[Row]:
        filters = {
            "dialog_id": dialog_id,
            "source": source,
            "token_id": token_id,
            "model": model,
            "user_id": user_id,
        }
        if basis == "creation":
            by_activity = {"token_id": token_id, "model": model, "group_by": group_by or ANY}
            for name, value in by_activity.items():
                if value is not ANY:
                    raise InvalidInput(name, "applies to usage by activity only")
        range_ = range_of_bounds(from_date, to_date, tz)
        kind = self._creations if basis == "creation" else self._activity
        usages = [
            usage
            for usage in kind(tenant_id, range_)
            if all(matches(value, getattr(usage, name)) for name, value in filters.items())
        ]

        def start_of(usage: Usage) -> datetime:
            return range_.since if interval == "total" else bucket_start(tz, interval, usage.at)

        starts = {start_of(usage) for usage in usages}
        if interval == "total":
            starts = set() if group_by else {range_.since}
        elif fill:
            starts |= set(bucket_starts(tz, interval, range_))
        if group_by is None:
            return [
                bucket(start, [usage for usage in usages if start_of(usage) == start])
                for start in sorted(starts)
            ]
        starts |= {start_of(usage) for usage in usages}
        return group_buckets(usages, starts, start_of, group_by, top, fill=fill, interval=interval)

    def stats_total(
        self,
        *,
        tenant_id,
        from_date,
        to_date,
        source=ANY,
        basis="activity",
        dialog_id=ANY,
        token_id=ANY,
        model=ANY,
        user_id=ANY,
        tz="UTC",
    ) -> Row:
        (total,) = self.stats(
            tenant_id=tenant_id,
            from_date=from_date,
            to_date=to_date,
            source=source,
            basis=basis,
            interval="total",
            dialog_id=dialog_id,
            token_id=token_id,
            model=model,
            user_id=user_id,
            tz=tz,
        )
        return total

    def _creations(self, tenant_id: str, range_: Range) -> list[Usage]:
        """Return the usage of each conversation that exists, at its creation."""
        return [
            Usage(
                each.created_at,
                each.dialog_id,
                each.source,
                None,
                each.user_id,
                None,
                each.counters,
            )
            for each in self._tenants[tenant_id].conversations.values()
            if range_.since <= each.created_at < range_.until
        ]

    def _activity(self, tenant_id: str, range_: Range) -> list[Usage]:
        """Return the activity of the range, which is widened to quarter hours."""
        until = quarter_hour(range_.until - MICROSECOND) + QUARTER_HOUR
        return [
            Usage(*key, counters)
            for key, counters in self._tenants[tenant_id].activity.items()
            if quarter_hour(range_.since) <= key[0] < until
        ]

    def declare_zone(self, tz, *, tenant_id) -> bool:
        is_new = tz not in self._tenants[tenant_id].zones
        self._tenants[tenant_id].zones.add(tz)
        return is_new

    def recount_usage(self, *, tenant_id) -> object:  # noqa: ARG002 - mirrors the service
        return Unknown(int)


def group_buckets(usages, starts, start_of, group_by, top, *, fill, interval) -> list[Row]:
    """Return the buckets of the groups of usage."""

    def group_of(usage: Usage) -> str | None:
        return getattr(usage, group_by) or None

    groups: dict[str | None, list[Usage]] = {}
    for usage in usages:
        groups.setdefault(group_of(usage), []).append(usage)

    def rank(group: str | None) -> tuple:
        sums = [sum(each.counters[name] for each in groups[group]) for name in ("tokens", "rounds")]
        return (*(-total for total in sums), group is None, group or "")

    ranked = sorted(groups, key=rank)
    rows = []
    for start in sorted(starts):
        present = [usage for usage in usages if start_of(usage) == start]
        for group in ranked[:top]:
            own = [usage for usage in present if group_of(usage) == group]
            if own or fill:
                rows.append(bucket(start, own) | {"group": group, "is_other": False})
        if len(ranked) > top and (present or fill):
            others = [usage for usage in present if group_of(usage) not in ranked[:top]]
            rows.append(bucket(start, others) | {"group": None, "is_other": True, "users": None})
    if interval == "total":
        rows = [row | {"users": row["users"] if group_by == "user_id" else None} for row in rows]
    return rows


EMPTY_BUCKET = dict.fromkeys(COUNTERS, 0) | {"users": 0, "duration": 0.0, "round": 0.0}


def bucket(start: datetime, usage: Sequence[Usage]) -> Row:
    """Return the fields of `asyncsvc.UsageBucket`."""
    if not usage:
        return EMPTY_BUCKET | {"dt": start}
    sums = {name: sum(each.counters[name] for each in usage) for name in COUNTERS}
    return sums | {
        "dt": start,
        "users": len({each.user_id for each in usage} - {""}),
        "duration": sums["duration"] / 1_000_000,
        "round": sums["rounds"] / sums["conversations"] if sums["conversations"] else 0.0,
    }
