"""Budgets: limits of usage, their present state, and the events of their audit."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import Json as JsonText
from pydantic import JsonValue, PlainSerializer

from asyncsvc.models.base import Model
from asyncsvc.models.columns import Timestamp
from asyncsvc.models.tokens import APIToken
from asyncsvc.validation.types import BudgetMetric, BudgetScope, BudgetWindow, UsageAction


def _plain(value: Decimal | int) -> str | int:
    """Return a value for JSON: a Decimal as text without an exponent."""
    return value if isinstance(value, int) else format(value, "f")


Amount = Annotated[Decimal | int, PlainSerializer(_plain, return_type=str | int, when_used="json")]
"""A Decimal for the metric "cost", an int for the others."""


class Budget(Model):
    """A limit of the usage of a tenant, or of its tokens, users or dialogs."""

    id: str
    """The id of the budget."""
    scope: BudgetScope
    """What it limits."""
    subject: str | None
    """The user, the dialog, or the first token of the rotated ones. None: the tenant, or the
    default of each one of the scope that has no budget of its own."""
    metric: BudgetMetric
    """What it counts."""
    limit: Amount
    """The usage at which it is spent."""
    window: BudgetWindow
    """The time that it counts."""
    tz: str
    """The zone of its hours, days, weeks and months."""
    since: Timestamp | None
    """The instant from which on "total" counts. None for other windows."""
    created_at: Timestamp
    """The time of creation."""
    updated_at: Timestamp
    """The time of the last change."""


class BudgetStatus(Model):
    """A budget that applies to a subject, with the usage in the present window."""

    budget_id: str
    """The id of the budget."""
    scope: BudgetScope
    """What it limits."""
    subject: str | None
    """The user, the dialog, or the first token of the rotated ones, also for a default. None: the
    tenant."""
    is_default: bool
    """Whether it is the default of its scope."""
    metric: BudgetMetric
    """What it counts."""
    used: Amount
    """The usage since `starts_at`."""
    limit: Amount
    """The usage at which it is spent."""
    remaining: Amount
    """The rest of the limit, at least 0."""
    window: BudgetWindow
    """The time that it counts."""
    tz: str
    """The zone of the window."""
    starts_at: Timestamp
    """The first instant of the present window."""
    resets_at: Timestamp | None
    """The first instant of the next window. None for "total"."""

    @property
    def is_spent(self) -> bool:
        """Whether the usage has reached the limit. A limit of 0 is always spent."""
        return self.used >= self.limit or self.limit == 0


class BudgetAlert(Model):
    """The first crossing of a threshold by the usage of a subject in a window."""

    tenant_id: str
    """The tenant."""
    budget_id: str
    """The id of the budget."""
    scope: BudgetScope
    """What it limits."""
    subject: str | None
    """The user, the dialog, or the first token of the rotated ones. None: the tenant."""
    metric: BudgetMetric
    """What it counts."""
    threshold: int
    """The percentage of the limit: 50, 80 or 100."""
    used: Amount
    """The usage when the crossing was found."""
    limit: Amount
    """The limit of the budget then."""
    window: BudgetWindow
    """The time that it counts."""
    tz: str
    """The zone of the window."""
    starts_at: Timestamp
    """The first instant of the window."""
    resets_at: Timestamp | None
    """The first instant of the next window. None for "total"."""
    at: Timestamp
    """The time when the crossing was found."""


class VerifiedToken(APIToken):
    """A valid token whose budgets are not spent."""

    budget: BudgetStatus | None = None
    """The tightest budget that applies: that with the highest share of its limit used. None if no
    budget applies."""


class UsageEvent(Model):
    """An entry of the audit of usage: a change of a budget, a crossing or an adjustment."""

    id: int
    """The number of the entry."""
    tenant_id: str
    """The tenant."""
    at: Timestamp
    """The time of the entry."""
    action: UsageAction
    """What happened."""
    actor: str | None
    """The person or program that did it. None for crossings."""
    budget_id: str | None
    """The id of the budget, which may be deleted. None for adjustments."""
    subject: str | None
    """The user, the dialog or the token that it is about."""
    window_start: Timestamp | None
    """The first instant of the window of a crossing."""
    threshold: int | None
    """The percentage of a crossing: 50, 80 or 100."""
    detail: JsonText[dict[str, JsonValue]]
    """Further values. Limits and usage are texts, a cost in units of the currency."""
