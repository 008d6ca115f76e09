"""Budgets: limits of the usage of tenants, tokens, users and dialogs."""

from __future__ import annotations

import logging
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from asyncsvc.errors import AsyncSvcError, BudgetExceeded, InvalidInput
from asyncsvc.models import Budget, BudgetStatus, Page, UsageEvent
from asyncsvc.repositories import BudgetRepository, UsageAuditRepository, UsageRepository
from asyncsvc.services.common import new_id, row_or_not_found, unset_if_any
from asyncsvc.services.usage import lock_usage, translate_unknown_zone
from asyncsvc.validation import cursors
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.cursors import Position
from asyncsvc.validation.dates import zone
from asyncsvc.validation.types import (
    ANY,
    MAX_BUDGET,
    MAX_COST_BUDGET,
    UNSET,
    Actor,
    BudgetLimit,
    BudgetMetric,
    BudgetScope,
    BudgetWindow,
    Cursor,
    Id,
    Instant,
    OrAny,
    PageSize,
    UserId,
    Zone,
)

if TYPE_CHECKING:
    from asyncsvc.database import Executor
    from asyncsvc.repositories.budget import CheckedBudget
    from asyncsvc.settings import Settings

_log: Final = logging.getLogger(__name__)


class BudgetService:
    """Limits of usage, which `tokens.verify` and `check` enforce.

    A budget counts the usage of the present window: what `record_usage` and turns stored since its
    start, by the server's clock. Nothing is ever reset: the start of the window is computed.
    Imported usage never counts. A deletion, a purge or an erasure of conversations changes nothing.
    A budget is spent when its usage has reached its limit, and 0 is spent from the start. Each
    budget that applies must have usage left. See docs/guides/budgets.md.

    Each method works on 1 tenant and raises the errors that `API4ConversationService` lists.
    """

    def __init__(self, executor: Executor, settings: Settings) -> None:
        """Run statements on this executor, within the limits of these settings."""
        self._executor = executor
        self._settings = settings
        self._repository = BudgetRepository(executor)
        self._audit = UsageAuditRepository(executor)

    @property
    def settings(self) -> Settings:
        """The settings, with the limits that arguments are validated against."""
        return self._settings

    @validated
    async def set(
        self,
        *,
        tenant_id: Id,
        scope: BudgetScope,
        subject: Id | None = None,
        metric: BudgetMetric = "cost",
        limit: BudgetLimit,
        window: BudgetWindow = "month",
        tz: Zone = "UTC",
        since: Instant | None = None,
        actor: Actor | None = None,
    ) -> Budget:
        """Create a budget, or set limit and zone of the existing one.

        A budget is identified by scope, subject, metric and window. It counts the whole present
        window, also the usage before this call.

        Args:
            scope: What the budget limits.
            subject: The user, the dialog, or any token of a family of rotated tokens. None: the
                default of each one of the scope that has no budget of its own; the tenant.
            metric: What it counts: the cost, all tokens, the tokens without input from a cache, or
                the rounds.
            limit: The usage at which it is spent. A cost is a Decimal or an int, others are ints.
            window: The time that it counts: the present local hour, day, week (from Monday) or
                month; "total" counts from `since`.
            tz: The zone of the window. A change of it counts the window again.
            since: Where "total" begins. A past instant is rounded down to its quarter hour. None:
                the present moment, or that of the existing budget.
            actor: Who sets it, for the audit.

        Returns:
            The budget.

        Raises:
            InvalidInput: A value is out of range or does not fit the others, or the zone is unknown
                here or to the server.
            NotFound: The subject is no token of the tenant.
            LockTimeout: A roll-up or recount of the tenant takes longer than
                `Settings.lock_timeout`.

        Cost:
            6 round trips in 1 transaction; 4 if only the limit changes; 2 more for a tenant without
            usage. A new budget reads the sums by quarter hour of its window. It locks the tenant
            against roll-ups until it ends; no append and no read waits.
        """
        _check_budget(scope, subject, metric, limit, window, since)
        zone(tz)
        async with self._executor.transaction() as transaction:
            budgets = BudgetRepository(transaction)
            # Two statements: the second one sees the roll-up for which the first one waited.
            await lock_usage(UsageRepository(transaction), tenant_id)
            budget = await budgets.set(
                tenant_id=tenant_id,
                id=new_id(),
                scope=scope,
                subject=subject,
                metric=metric,
                limit=limit,
                window=window,
                tz=tz,
                since=UNSET if since is None else since,
                actor=actor,
            )
            stored = row_or_not_found(budget, "token")
            if stored.must_recount:
                await budgets.delete_usage(tenant_id=tenant_id, id=stored.budget.id)
                with translate_unknown_zone():
                    await budgets.recount(tenant_id=tenant_id, id=stored.budget.id)
        return stored.budget

    @validated
    async def raise_limit(
        self, id: Id, *, tenant_id: Id, by: BudgetLimit, actor: Actor | None = None
    ) -> Budget:
        """Add to the limit of a budget. Concurrent calls all count.

        Args:
            by: The addition, in the unit of the metric.
            actor: Who raises it, for the audit.

        Returns:
            The budget with its new limit.

        Raises:
            NotFound: The tenant has no budget with this id.
            InvalidInput: `by` has decimal places and the metric is no cost, or the limit would
                exceed 10**12 for a cost, 10**15 for others.

        Cost:
            1 round trip on the primary key, 2 if it raises; locks the budget row.
        """
        budget = await self._repository.raise_limit(tenant_id=tenant_id, id=id, by=by, actor=actor)
        if budget is None:
            budgets = await self._repository.get_list(tenant_id=tenant_id, id=id)
            stored = row_or_not_found(budgets[0] if budgets else None, "budget")
            if stored.metric != "cost" and by != int(by):
                raise InvalidInput("by", "must be whole: the metric of the budget is no cost")
            maximum = MAX_COST_BUDGET if stored.metric == "cost" else MAX_BUDGET
            raise InvalidInput("by", f"raises the limit above {maximum:,}")
        return budget

    @validated
    async def delete(self, id: Id, *, tenant_id: Id, actor: Actor | None = None) -> int:
        """Delete a budget. Its audit is kept.

        Args:
            actor: Who deletes it, for the audit.

        Returns:
            1, or 0 if the tenant has no budget with this id.

        Cost:
            1 round trip on the primary keys; locks the budget row and its usage.
        """
        return await self._repository.delete(tenant_id=tenant_id, id=id, actor=actor)

    @validated
    async def status(
        self,
        *,
        tenant_id: Id,
        token_id: Id | None = None,
        user_id: UserId | None = None,
        dialog_id: Id | None = None,
    ) -> list[BudgetStatus]:
        """Return each budget that applies to a request, with its present usage.

        It includes each committed usage, and those of the open transaction.

        Args:
            token_id: Any token of a family of rotated tokens.
            user_id: The acting user. None or empty: budgets of users do not apply.
            dialog_id: The dialog.

        Returns:
            The budgets of the tenant and of these subjects, the tightest first: that with the
            highest share of its limit used.

        Cost:
            1 round trip on the primary, no locks. The budgets of the same metric and window read
            the tenant's ledger once, the usage since the last roll-up. The history has no effect.
        """
        statuses = await self._status(tenant_id, token_id, user_id, dialog_id)
        return [each.status for each in statuses]

    @validated
    async def check(
        self,
        *,
        tenant_id: Id,
        token_id: Id | None = None,
        user_id: UserId | None = None,
        dialog_id: Id | None = None,
    ) -> BudgetStatus | None:
        """Check that no budget that applies is spent, for example before a call of a model.

        Args:
            token_id: Any token of a family of rotated tokens.
            user_id: The acting user. None or empty: budgets of users do not apply.
            dialog_id: The dialog.

        Returns:
            The tightest budget; None if no budget applies.

        Raises:
            BudgetExceeded: A budget is spent. The error names the tightest one.

        Cost:
            As `status`. The first refusal in a window has 1 more round trip, which records the
            crossing, unless it runs inside a transaction.
        """
        statuses = await self._status(tenant_id, token_id, user_id, dialog_id)
        return await refuse_if_spent(
            self._executor, statuses[0] if statuses else None, tenant_id=tenant_id
        )

    async def _status(
        self, tenant_id: str, token_id: str | None, user_id: str | None, dialog_id: str | None
    ) -> list[CheckedBudget]:
        return await self._repository.get_status(
            tenant_id=tenant_id,
            token_id=UNSET if token_id is None else token_id,
            user_id=user_id,
            dialog_id=dialog_id,
        )

    @validated
    async def audit(
        self,
        *,
        tenant_id: Id,
        budget_id: OrAny[Id] = ANY,
        after: Cursor | None = None,
        limit: PageSize = 100,
    ) -> Page[UsageEvent]:
        """Return one page of the audit of budgets and usage, newest first.

        Each change of a budget, each adjustment of usage, and each first crossing of 50, 80 and 100
        % of a limit in a window has an event.

        Args:
            budget_id: Only events of this budget, which may be deleted.
            after: The `next` of the previous page.
            limit: At most `Settings.max_page_size`.

        Returns:
            The page, with the cursor `next`. Its `total` is None.

        Raises:
            InvalidInput: A parameter is out of range, or the cursor belongs to other filters.

        Cost:
            1 round trip on the primary key, or on the index by budget; no locks.
        """
        filters = cursors.fingerprint({"tenant_id": tenant_id, "usage_audit_of": budget_id})
        events = await self._audit.get_list(
            tenant_id=tenant_id,
            budget_id=unset_if_any(budget_id),
            after=None if after is None else cursors.decode_cursor(after, filters, self._settings),
            limit=limit + 1,
        )
        following = cursors.next_cursor(
            events, limit, lambda event: Position(event.at, str(event.id)), filters
        )
        return Page(total=None, items=events[:limit], next=following)

    @validated
    async def list(
        self,
        *,
        tenant_id: Id,
        scope: OrAny[BudgetScope] = ANY,
        subject: OrAny[Id | None] = ANY,
        after: Cursor | None = None,
        limit: PageSize = 100,
    ) -> Page[Budget]:
        """Return one page of the budgets of a tenant, about in the order of their creation.

        Args:
            scope: Only budgets of this scope.
            subject: Only budgets of this user or dialog, or of the family of this token; None for
                those of the tenant and the defaults.
            after: The `next` of the previous page, with the same conditions.
            limit: At most `Settings.max_page_size`.

        Returns:
            The page, with the cursor `next`. Its `total` is None.

        Raises:
            InvalidInput: A parameter is out of range, or the cursor belongs to other conditions.

        Cost:
            1 round trip, no locks. Reads all budgets of the tenant, or with `subject` its budgets,
            and sorts them.
        """
        filters = cursors.fingerprint(
            {"order": "budgets", "tenant_id": tenant_id, "scope": scope, "subject": subject}
        )
        position = None if after is None else cursors.decode_cursor(after, filters, self._settings)
        budgets = await self._repository.get_list(
            tenant_id=tenant_id,
            scope=unset_if_any(scope),
            subject=unset_if_any(subject),
            after_id=UNSET if position is None else position.id,
            limit=limit + 1,
        )
        following = cursors.next_cursor(
            budgets, limit, lambda budget: Position(budget.created_at, budget.id), filters
        )
        return Page(total=None, items=budgets[:limit], next=following)


def _check_budget(
    scope: BudgetScope,
    subject: str | None,
    metric: BudgetMetric,
    limit: Decimal | int,
    window: BudgetWindow,
    since: datetime | None,
) -> None:
    """Raise InvalidInput if the values do not fit each other."""
    if scope == "tenant" and subject is not None:
        raise InvalidInput("subject", "must be None for the scope tenant")
    if metric == "cost" and limit > MAX_COST_BUDGET:
        raise InvalidInput("limit", f"must be 0 to {MAX_COST_BUDGET:,}")
    if metric != "cost" and not isinstance(limit, int):
        raise InvalidInput("limit", f"must be an int for the metric {metric}")
    if window != "total" and since is not None:
        raise InvalidInput("since", "applies to the window total only")


async def refuse_if_spent(
    executor: Executor,
    tightest: CheckedBudget | None,
    *,
    tenant_id: str,
    may_write: bool = True,
) -> BudgetStatus | None:
    """Return the tightest budget. Raise BudgetExceeded if it is spent, and record the crossing.

    The crossing is not recorded inside a transaction, which could be rolled back.
    """
    if tightest is None or not tightest.status.is_spent:
        return None if tightest is None else tightest.status
    status = tightest.status
    if may_write and not tightest.is_alerted and not executor.is_in_transaction:
        try:
            await alert(executor, tenant_id, of=status)
        except AsyncSvcError as error:  # maintenance records it later
            _log.warning("a crossing of budget %s is not recorded: %s", status.budget_id, error)
    raise BudgetExceeded(
        budget_id=status.budget_id,
        scope=status.scope,
        subject=status.subject,
        metric=status.metric,
        used=status.used,
        limit=status.limit,
        window=status.window,
        resets_at=status.resets_at,
    )


async def alert(executor: Executor, tenant_id: str, *, of: BudgetStatus | None = None) -> None:
    """Record the new crossings of a tenant, or of one budget, and call `Settings.on_budget`."""
    crossings = await BudgetRepository(executor).record_crossings(tenant_id=tenant_id, of=of)
    hook = executor.settings.on_budget
    for crossing in crossings:
        _log.info("budget %s: %s %% of its limit", crossing.budget_id, crossing.threshold)
        if hook is None:
            continue
        try:
            hook(crossing)
        except Exception:  # noqa: BLE001 - it is the application's
            _log.exception("Settings.on_budget raised")
