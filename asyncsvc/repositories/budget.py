"""The statements of `sql/budget`."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from asyncsvc.database import build_model, build_value
from asyncsvc.models import Budget, BudgetAlert, BudgetStatus
from asyncsvc.repositories.base import Repository
from asyncsvc.validation.types import (
    COST_CONTEXT,
    MAX_BUDGET,
    MAX_COST_BUDGET,
    UNSET,
    BudgetMetric,
    BudgetScope,
    BudgetWindow,
    UnsetType,
)

if TYPE_CHECKING:
    from asyncsvc.database import Row

M = TypeVar("M", Budget, BudgetAlert, BudgetStatus)

_NANO: Final = 10**9
"""The nano units of 1 unit of the currency."""
_AMOUNTS: Final = frozenset({"limit", "used", "remaining"})


class StoredBudget(NamedTuple):
    """A budget, and whether its usage must be counted."""

    budget: Budget
    must_recount: bool


class CheckedBudget(NamedTuple):
    """The state of a budget, and whether the crossing of its limit is recorded."""

    status: BudgetStatus
    is_alerted: bool


class BudgetRepository(Repository):
    """Budgets, their usage and the crossings of their thresholds."""

    folder = "budget"

    async def set(
        self,
        *,
        tenant_id: str,
        id: str,
        scope: BudgetScope,
        subject: str | None,
        metric: BudgetMetric,
        limit: Decimal | int,
        window: BudgetWindow,
        tz: str,
        since: datetime | UnsetType,
        actor: str | None,
    ) -> StoredBudget | None:
        """Create a budget, or set limit, zone and begin of the existing one.

        None: the subject is no token of the tenant.
        """
        rows = await self._rows(
            "set",
            *(["of_token"] if scope == "token" and subject is not None else []),
            tenant_id=tenant_id,
            id=id,
            scope=scope,
            subject=subject or "",
            metric=metric,
            max_used=_stored(metric, limit),
            grain=window,
            zone=tz,
            since=since,
            actor=actor,
        )
        if not rows:
            return None
        return StoredBudget(_build(Budget, rows[0]), build_value(bool, rows[0], "must_recount"))

    async def raise_limit(
        self, *, tenant_id: str, id: str, by: Decimal | int, actor: str | None
    ) -> Budget | None:
        """Add to a limit.

        None: there is no such budget, `by` must be whole, or the limit would be too high.
        """
        rows = await self._rows(
            "raise_limit",
            tenant_id=tenant_id,
            id=id,
            by=by,
            max_cost=MAX_COST_BUDGET,
            max_count=MAX_BUDGET,
            actor=actor,
        )
        return _build(Budget, rows[0]) if rows else None

    async def get_list(
        self,
        *,
        tenant_id: str,
        id: str | UnsetType = UNSET,
        scope: BudgetScope | UnsetType = UNSET,
        subject: str | UnsetType | None = UNSET,
        after_id: str | UnsetType = UNSET,
        limit: int = 1,
    ) -> list[Budget]:
        """Return budgets in the order of their ids."""
        rows = await self._rows(
            "get_list",
            tenant_id=tenant_id,
            id=id,
            scope=scope,
            subject=subject,
            after_id=after_id,
            limit=limit,
        )
        return [_build(Budget, row) for row in rows]

    async def delete(self, *, tenant_id: str, id: str, actor: str | None) -> int:
        """Delete a budget and its usage; return 1 or 0."""
        return await self._count("delete", tenant_id=tenant_id, id=id, actor=actor)

    async def get_status(
        self,
        *,
        tenant_id: str,
        token_id: str | UnsetType = UNSET,
        family_id: str | UnsetType = UNSET,
        user_id: str | None,
        dialog_id: str | None,
    ) -> list[CheckedBudget]:
        """Return the budgets that apply to these subjects, the tightest first."""
        rows = await self._rows(
            "get_status",
            tenant_id=tenant_id,
            token_id=token_id,
            family_id=family_id,
            user_id=user_id,
            dialog_id=dialog_id,
        )
        return [build_status(row) for row in rows]

    async def recount(self, *, tenant_id: str, id: str) -> int:
        """Count the usage of a budget from the sums; return the number of its rows."""
        (row,) = await self._rows("recount", tenant_id=tenant_id, id=id)
        return build_value(int, row, "counted")

    async def delete_usage(self, *, tenant_id: str, id: str) -> int:
        """Delete the usage of a budget; return the number of rows."""
        return await self._count("delete_usage", tenant_id=tenant_id, id=id)

    async def record_crossings(
        self, *, tenant_id: str, of: BudgetStatus | None = None
    ) -> list[BudgetAlert]:
        """Record and return the new crossings of one budget, or of all rolled up usage.

        The latter also deletes the usage of ended windows.
        """
        rows = await self._rows(
            "record_crossings",
            *(["rolled_up"] if of is None else []),
            tenant_id=tenant_id,
            budget_id=of and of.budget_id,
            subject=of and (of.subject or ""),
            window_start=of and of.starts_at,
            used=of and _stored(of.metric, of.used),
        )
        return [_build(BudgetAlert, row, tenant_id=tenant_id) for row in rows]

    async def erase_user(self, *, tenant_id: str, user_id: str, erased_id: str) -> int:
        """Replace a user by another id; return the number of changed rows."""
        (row,) = await self._rows(
            "erase_user", tenant_id=tenant_id, user_id=user_id, erased_id=erased_id
        )
        return build_value(int, row, "replaced")

    async def delete_all(self, *, tenant_id: str) -> int:
        """Delete all budgets and their usage; return the number of rows."""
        return await self._count("delete_all", tenant_id=tenant_id)


def build_status(row: Row) -> CheckedBudget:
    """Build the state of a budget from a row of `budget/get_status` or `api_token/verify`."""
    return CheckedBudget(_build(BudgetStatus, row), build_value(bool, row, "is_alerted"))


def _build(model: type[M], row: Row, **more: object) -> M:
    """Build a model, with costs in units of the currency and other amounts as integers."""
    values = dict(row.items())
    is_cost = values["metric"] == "cost"
    for name in _AMOUNTS & values.keys():
        amount = build_value(Decimal, row, name)
        values[name] = _cost(amount) if is_cost else int(amount)
    return build_model(model, values | more)


def _cost(amount: Decimal) -> Decimal:
    """Return nano units in units of the currency, without trailing zeros: 250, not 2.5E+2."""
    return COST_CONTEXT.add(COST_CONTEXT.divide(amount, _NANO), Decimal(0))


def _stored(metric: BudgetMetric, amount: Decimal | int) -> int:
    """Return an amount as it is stored: a cost in nano units."""
    return int(COST_CONTEXT.multiply(Decimal(amount), _NANO)) if metric == "cost" else int(amount)
