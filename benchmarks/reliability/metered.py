"""The usage of a crash run: budgets, and the sums that the acknowledged turns add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, Literal

import asyncsvc
from benchmarks.reliability.plan import DIALOGS, TENANT, TOKENS, USERS, Planned

_Dimension = Literal["dialog_id", "source", "token_id", "user_id", "model"]
_Scope = Literal["tenant", "token", "user", "dialog"]
_Metric = Literal["cost", "tokens", "uncached_tokens", "rounds"]
_DIMENSIONS: Final[tuple[_Dimension, ...]] = ("dialog_id", "source", "token_id", "user_id", "model")
_SUBJECTS: Final[dict[_Scope, tuple[_Dimension | None, Sequence[str | None]]]] = {
    "tenant": (None, (None,)),
    "token": ("token_id", TOKENS),
    "user": ("user_id", USERS),
    "dialog": ("dialog_id", DIALOGS),
}
"""The scopes of budgets, each with its dimension and its subjects."""
_AGE: Final = timedelta(days=1)
"""Longer than a run."""
_METRICS: Final[tuple[_Metric, ...]] = ("cost", "tokens", "uncached_tokens", "rounds")
_COUNTERS: Final = (
    *("rounds", "requests", "input_tokens", "cached_input_tokens", "cache_write_tokens"),
    *("output_tokens", "reasoning_tokens", "tokens", "unpriced"),
)
_Group = tuple[_Dimension | None, str | None]
"""A dimension and a value in it; (None, None) is all usage."""
_Sums = dict[_Group, Counter[str]]


async def set_budgets(svc: asyncsvc.AsyncSvc) -> None:
    """Set a budget of each scope and metric that counts all turns from now on."""
    for scope in _SUBJECTS:
        for metric in _METRICS:
            await svc.budgets.set(
                tenant_id=TENANT, scope=scope, metric=metric, limit=10**12, window="total"
            )


async def differences(dsn: str, stored: Sequence[Planned]) -> int:
    """Return the difference of rounds; without one, the number of groups and budgets that differ.

    Sums by hour and the total of the range are both compared, in each dimension.
    """
    expected, now = _expected(stored), datetime.now(UTC)
    async with asyncsvc.connect(dsn, max_size=1) as svc:
        totals, hours = await _sums(svc, "total"), await _sums(svc, "hour")
        whole = await svc.conversations.stats_total(
            tenant_id=TENANT, from_date=now - _AGE, to_date=now
        )
        budgets = await _wrong_budgets(svc, expected)
    return abs(whole.rounds - len(stored)) or (
        sum(
            totals.get(group) != expected.get(group) or hours.get(group) != expected.get(group)
            for group in totals.keys() | hours.keys() | expected.keys()
        )
        + (whole.users != len(USERS))
        + budgets
    )


def _expected(stored: Iterable[Planned]) -> _Sums:
    """Return the sums over turns, by group."""
    sums: _Sums = {(None, None): Counter()}
    for planned in stored:
        turn, conversation = planned.turn, planned.conversation
        values = {
            "dialog_id": conversation.dialog_id,
            "source": conversation.source,
            "token_id": turn.token_id,
            "user_id": _user(planned),
        }
        for number, usage in enumerate(planned.usages):
            counters = {
                **usage.model_dump(exclude={"cost", "model"}),
                "rounds": int(number == 0),
                "tokens": usage.tokens,
                "unpriced": int(usage.cost is None),
                "cost": int((usage.cost or 0) * 10**9),
            }
            sums[None, None].update(counters)
            for dimension in _DIMENSIONS:
                value = usage.model if dimension == "model" else values[dimension]
                sums.setdefault((dimension, value), Counter()).update(counters)
    return sums


def _user(planned: Planned) -> str:
    return planned.turn.user_id or planned.conversation.user_id


async def _sums(svc: asyncsvc.AsyncSvc, interval: Literal["total", "hour"]) -> _Sums:
    """Return the sums that the statistics report, by group."""
    now = datetime.now(UTC)
    sums: _Sums = {(None, None): Counter()}
    for dimension in (None, *_DIMENSIONS):
        for bucket in await svc.conversations.stats(
            tenant_id=TENANT,
            from_date=now - _AGE,
            to_date=now,
            interval=interval,
            group_by=dimension,
            tz="Asia/Kathmandu",
        ):
            counters = {name: getattr(bucket, name) for name in _COUNTERS}
            counters["cost"] = int((bucket.cost or 0) * 10**9)
            if any(counters.values()):  # hours without usage have rows, too
                sums.setdefault((dimension, bucket.group), Counter()).update(counters)
    return sums


async def _wrong_budgets(svc: asyncsvc.AsyncSvc, expected: _Sums) -> int:
    """Return the number of budgets whose usage is not the sum over the turns of their subject."""
    wrong = 0
    for scope, (dimension, subjects) in _SUBJECTS.items():
        for subject in subjects:
            counters = expected.get((dimension, subject), Counter())
            used = {
                "cost": Decimal(counters["cost"]).scaleb(-9),
                "tokens": counters["tokens"],
                "uncached_tokens": counters["tokens"] - counters["cached_input_tokens"],
                "rounds": counters["rounds"],
            }
            of = {} if dimension is None else {dimension: subject}
            statuses = await svc.budgets.status(tenant_id=TENANT, **of)
            stored = {each.metric: each.used for each in statuses if each.scope == scope}
            wrong += sum(stored.get(metric) != used[metric] for metric in _METRICS)
    return wrong
