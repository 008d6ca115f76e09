"""Usage of any kind: rows of the ledger, and the equality of statistics, budgets and recounts."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import asyncpg

from asyncsvc import AsyncSvc, Usage

DIMENSIONS = ("dialog_id", "source", "token_id", "user_id", "model")
"""In the order of the keys of the model's activity."""
SUMS = (
    "conversations", "rounds", "requests", "input_tokens", "cached_input_tokens",
    "cache_write_tokens", "output_tokens", "reasoning_tokens", "tokens", "cost", "unpriced",
    "unmetered", "duration", "thumb_up", "thumb_down",
)  # fmt: skip
"""The counters of `UsageBucket` that add up. A cost is counted in nano units here, and a duration
in microseconds."""
METRICS = ("cost", "tokens", "uncached_tokens", "rounds")
SUBJECTS = {"tenant": None, "token": "token_id", "user": "user_id", "dialog": "dialog_id"}
"""The scopes of budgets, each with its filter of statistics."""
WINDOWS = {
    "hour": "Asia/Kathmandu",
    "day": "Australia/Lord_Howe",
    "week": "America/Havana",
    "month": "Europe/Berlin",
    "total": "UTC",
}
EVER = {"from_date": "2000-01-01", "to_date": "2099-12-31"}
IMPORTED = """
    SELECT sum(i.cost) AS cost, sum(i.tokens) AS tokens, sum(i.rounds) AS rounds,
           sum(i.tokens - coalesce(i.cached_input_tokens, 0)) AS uncached_tokens
      FROM (
        SELECT q.quarter_hour AS at, q.dialog_id, q.token_id, q.user_id, q.cost, q.tokens, q.rounds,
               q.cached_input_tokens
          FROM asyncsvc.usage_quarter_hour AS q
         WHERE q.tenant_id = $1
           AND q.is_imported
         UNION ALL
        SELECT u.at, u.dialog_id, u.token_id, coalesce(u.acting_user_id, u.user_id), u.cost,
               u.tokens, u.rounds, u.cached_input_tokens
          FROM asyncsvc.usage_ledger AS u
         WHERE u.tenant_id = $1
           AND u.is_imported
      ) AS i
     WHERE i.at >= $2
       AND i.at < $3
"""


async def spend(
    pool: asyncpg.Pool,
    *,
    tenant_id: str = "t",
    dialog_id: str = "d",
    user_id: str = "",
    at: datetime | None = None,
    **columns: object,
) -> None:
    """Insert usage that no conversation counts. A cost is in nano units."""
    names = ("token_id", "acting_user_id", "cost", "tokens", "cached_input_tokens", "rounds")
    values = [columns.get(name, 0 if name in {"tokens", "rounds"} else None) for name in names]
    await pool.execute(
        "INSERT INTO asyncsvc.usage_ledger (tenant_id, dialog_id, user_id, at, is_imported,"
        f" {', '.join(names)})"
        " VALUES ($1, $2, $3, coalesce($4, statement_timestamp()), $5, $6, $7, $8, $9, $10, $11)",
        tenant_id,
        dialog_id,
        user_id,
        at,
        columns.get("is_imported", False),
        *values,
    )


def random_usage(chance: random.Random) -> Usage:
    """Return a usage with some zeros, and with or without a cost and a model."""
    caches = [chance.choice((0, chance.randrange(100))) for _ in range(2)]
    reasoning = chance.choice((0, chance.randrange(100)))
    return Usage(
        input_tokens=sum(caches) + chance.randrange(1_000),
        output_tokens=reasoning + chance.randrange(1_000),
        cached_input_tokens=caches[0],
        cache_write_tokens=caches[1],
        reasoning_tokens=reasoning,
        requests=chance.choice((0, 1, 1, 3)),
        cost=chance.choice((None, Decimal(0), Decimal(chance.randrange(10**12)).scaleb(-9))),
        model=chance.choice((None, "m1", "m2", "m3")),
    )


def counters_of(usage: Usage) -> dict[str, int]:
    """Return the counters that a usage adds."""
    counters = usage.model_dump(exclude={"model", "cost"}) | {"tokens": usage.tokens}
    if usage.cost is None:
        return counters | {"unpriced": 1}
    return counters | {"cost": int(usage.cost.scaleb(9))}


def sums_of(buckets: Iterable[object]) -> Counter[str]:
    """Return the sums of buckets, without zeros."""
    total: Counter[str] = Counter()
    for bucket in buckets:
        total.update({name: getattr(bucket, name) for name in SUMS})
    scaled = dict(total) | {
        "cost": int(total["cost"] * 10**9), "duration": round(total["duration"] * 10**6)
    }  # fmt: skip
    return Counter({name: value for name, value in scaled.items() if value})


async def set_budgets(svc: AsyncSvc, tenant_id: str) -> None:
    """Set a default budget of each scope and window, each with another metric in turn."""
    now = datetime.now(UTC)
    for number, scope in enumerate(SUBJECTS):
        for window, tz in WINDOWS.items():
            number += 1  # noqa: PLW2901 - the metrics rotate through scopes and windows
            await svc.budgets.set(
                tenant_id=tenant_id, scope=scope, metric=METRICS[number % len(METRICS)],
                limit=10**12, window=window, tz=tz,
                since=now - timedelta(hours=1) if window == "total" else None,
            )  # fmt: skip


async def budget_differences(
    svc: AsyncSvc, pool: asyncpg.Pool | asyncpg.Connection, tenant_id: str, **subjects: str
) -> list[str]:
    """Compare each budget of the subjects with the statistics of its window, without imports."""
    wrong = []
    for status in await svc.budgets.status(tenant_id=tenant_id, **subjects):
        until = status.resets_at or datetime(2099, 1, 1, tzinfo=UTC)
        of = {SUBJECTS[status.scope]: status.subject} if status.subject else {}
        total = await svc.conversations.stats_total(
            tenant_id=tenant_id, from_date=status.starts_at, tz=status.tz,
            to_date=until - timedelta(microseconds=1), **of,
        )  # fmt: skip
        conditions = "".join(f" AND i.{name} = ${n}" for n, name in enumerate(of, 4))
        imported = await pool.fetchrow(
            IMPORTED + conditions, tenant_id, status.starts_at, until, *of.values()
        )
        amounts = total.model_dump() | {
            "uncached_tokens": total.tokens - total.cached_input_tokens
        }  # fmt: skip
        subtracted = imported[status.metric] or 0
        if status.metric == "cost":
            subtracted = Decimal(subtracted).scaleb(-9)
        if amounts[status.metric] - subtracted != status.used:
            wrong.append(f"{status}: {amounts[status.metric]} - {subtracted}")
    return wrong


async def group_differences(
    svc: AsyncSvc,
    tenant_id: str,
    activity: Mapping[tuple, Counter[str]],
    tz: str,
    erased: str = "",
) -> list[str]:
    """Compare the groups of each dimension with activity, by the keys of the model.

    Users whom `erase_user` replaced count as the user `erased`.
    """
    wrong = []
    for place, dimension in enumerate(DIMENSIONS, 1):
        expected: dict[str | None, Counter[str]] = {}
        for key, counters in activity.items():
            expected.setdefault(key[place] or None, Counter()).update(counters)
        groups: dict[str | None, list] = {}
        for bucket in await svc.conversations.stats(
            tenant_id=tenant_id, **EVER, tz=tz, interval="total", group_by=dimension, top=1_000
        ):
            assert not bucket.is_other
            is_erased = dimension == "user_id" and (bucket.group or "").startswith("erased-")
            groups.setdefault(erased if is_erased else bucket.group, []).append(bucket)
        for name in expected.keys() | groups.keys():
            stored, counted = sums_of(groups.get(name, [])), expected.get(name, Counter())
            counted = Counter({each: value for each, value in counted.items() if value})
            if stored != counted:
                wrong.append(f"{tenant_id}, {tz}: {dimension} {name}: {stored}, but {counted}")
    return wrong
