"""`asyncsvc budgets`: limits of usage."""

from __future__ import annotations

from datetime import UTC
from decimal import Decimal, InvalidOperation
from typing import Annotated, Final, Literal

import typer
from typer import Argument, Option

from asyncsvc import Budget, BudgetStatus, NotFound, UsageEvent
from asyncsvc.cli.options import Actor, After, AsJson, Dsn, Tenant, TimeZone, or_any
from asyncsvc.cli.output import plain, print_json, print_page
from asyncsvc.cli.runner import Exit, asynchronous, connected
from asyncsvc.cli.terminal import Column, print_table, say
from asyncsvc.cli.times import format_time
from asyncsvc.validation.dates import first_instant, zone

_MAX_PAGE_SIZE: Final = 1_000
_MAX_WHOLE: Final = 10**18
_PERIODS: Final = {"hour": "an hour", "total": "in total"}

budgets = typer.Typer(
    name="budgets",
    help="Set, list and delete budgets, show their remaining amounts, and read their audit.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


Scope = Literal["tenant", "token", "user", "dialog"]
Metric = Literal["cost", "tokens", "uncached_tokens", "rounds"]
Window = Literal["hour", "day", "week", "month", "total"]


def _parse_number(text: object) -> Decimal:
    try:
        return Decimal(str(text))
    except InvalidOperation:
        raise ValueError("must be a number") from None


BudgetId = Annotated[str, Argument(metavar="ID", help="The id of the budget, as `list` prints it.")]
Subject = Annotated[
    str | None,
    Option(metavar="ID", help="A token, user or dialog. Without it: each one that has no own."),
]
PageLimit = Annotated[int, Option(min=1, max=_MAX_PAGE_SIZE, help="Rows per page.")]


@budgets.command("set")
@asynchronous
async def set_budget(
    *,
    dsn: Dsn,
    tenant_id: Tenant,
    scope: Annotated[Scope, Option(help="What the budget limits.")],
    subject: Subject = None,
    metric: Annotated[Metric, Option(help="What it counts.")] = "cost",
    limit: Annotated[
        Decimal,
        Option(metavar="NUMBER", parser=_parse_number, help="The usage at which it is spent."),
    ],
    window: Annotated[Window, Option(help="The time that it counts.")] = "month",
    since: Annotated[
        str | None,
        Option(metavar="DATE", help="Where the window total begins. [default: now]"),
    ] = None,
    tz: TimeZone = UTC,
    actor: Actor,
    as_json: AsJson = False,
) -> None:
    """Create a budget, or set limit and zone of that with this scope, subject, metric and window.

    A new budget counts its whole present window, also the usage before this command.
    """
    start = None if since is None else first_instant("since", since, str(tz))
    async with connected(dsn) as svc:
        budget = await svc.budgets.set(
            tenant_id=tenant_id,
            scope=scope,
            subject=subject,
            metric=metric,
            limit=_whole_if_possible(limit),
            window=window,
            tz=str(tz),
            since=start,
            actor=actor,
        )
    _print_budget(budget, as_json=as_json)


def _whole_if_possible(value: Decimal) -> Decimal | int:
    if value.is_finite() and abs(value) < _MAX_WHOLE and value == value.to_integral_value():
        return int(value)
    return value


def _print_budget(budget: Budget, *, as_json: bool) -> None:
    if as_json:
        print_json(budget)
        return
    say(f"budget {budget.id}: {_name(budget)}: {plain(budget.limit)} {_unit(budget)}")


def _name(budget: Budget | BudgetStatus) -> str:
    if budget.scope == "tenant":
        return "the tenant"
    return f"each {budget.scope}" if budget.subject is None else f"{budget.scope} {budget.subject}"


def _unit(budget: Budget | BudgetStatus) -> str:
    metric = budget.metric.replace("_", " ")
    return f"{metric} {_PERIODS.get(budget.window) or f'a {budget.window}'}"


@budgets.command("list")
@asynchronous
async def list_budgets(
    *,
    dsn: Dsn,
    tenant_id: Tenant,
    scope: Annotated[Scope | None, Option(help="Only this scope.")] = None,
    subject: Annotated[
        str | None, Option(metavar="ID", help="Only this user, dialog or token.")
    ] = None,
    limit: PageLimit = 100,
    after: After = None,
    as_json: AsJson = False,
) -> None:
    """List a tenant's budgets, without their usage."""
    async with connected(dsn) as svc:
        page = await svc.budgets.list(
            tenant_id=tenant_id,
            scope=or_any(scope),
            subject=or_any(subject),
            after=after,
            limit=limit,
        )
    columns: list[Column[Budget]] = [
        Column("id", lambda budget: budget.id),
        Column("of", _name),
        Column("limit", lambda budget: plain(budget.limit), right=True),
        Column("unit", _unit),
        Column("zone", lambda budget: budget.tz, rank=1),
    ]
    print_page("budgets", columns, page, as_json=as_json)


@budgets.command()
@asynchronous
async def status(
    *,
    dsn: Dsn,
    tenant_id: Tenant,
    token_id: Annotated[str | None, Option("--token", metavar="ID", help="The token.")] = None,
    user_id: Annotated[str | None, Option("--user", metavar="ID", help="The user.")] = None,
    dialog_id: Annotated[str | None, Option("--dialog", metavar="ID", help="The dialog.")] = None,
    as_json: AsJson = False,
) -> Exit:
    """Show each budget that applies to a request; the exit code is 3 if one is spent.

    Without options these are the budgets of the tenant. --token, --user and --dialog add theirs.
    Times are in the zone of each budget.
    """
    async with connected(dsn) as svc:
        applicable = await svc.budgets.status(
            tenant_id=tenant_id, token_id=token_id, user_id=user_id, dialog_id=dialog_id
        )
    columns: list[Column[BudgetStatus]] = [
        Column("of", _name),
        Column("used", lambda budget: plain(budget.used), right=True),
        Column("limit", lambda budget: plain(budget.limit), right=True),
        Column("left", lambda budget: plain(budget.remaining), right=True, rank=2),
        Column("%", _percentage, right=True, rank=1),
        Column("unit", _unit),
        Column("resets", lambda budget: format_time(budget.resets_at, zone(budget.tz)), rank=3),
        Column("zone", lambda budget: budget.tz, rank=3),
    ]
    if as_json:
        print_json(applicable)
    elif applicable:
        print_table(columns, applicable)
    else:
        say("no budget applies")
    return Exit.ATTENTION if any(budget.is_spent for budget in applicable) else Exit.DONE


def _percentage(budget: BudgetStatus) -> str:
    """Return the used share of the limit, rounded down, so that 100 means spent."""
    return "100" if not budget.limit else f"{int(budget.used * 100 // budget.limit)}"


@budgets.command("raise-limit")
@asynchronous
async def raise_limit(
    id: BudgetId,
    *,
    dsn: Dsn,
    tenant_id: Tenant,
    by: Annotated[
        Decimal, Option(metavar="NUMBER", parser=_parse_number, help="The addition to the limit.")
    ],
    actor: Actor,
    as_json: AsJson = False,
) -> None:
    """Add to the limit of a budget."""
    async with connected(dsn) as svc:
        budget = await svc.budgets.raise_limit(
            id, tenant_id=tenant_id, by=_whole_if_possible(by), actor=actor
        )
    _print_budget(budget, as_json=as_json)


@budgets.command()
@asynchronous
async def delete(
    id: BudgetId, *, dsn: Dsn, tenant_id: Tenant, actor: Actor, as_json: AsJson = False
) -> None:
    """Delete a budget. Its audit is kept."""
    async with connected(dsn) as svc:
        if not await svc.budgets.delete(id, tenant_id=tenant_id, actor=actor):
            raise NotFound("budget")
    if as_json:
        print_json({"deleted": 1})
    else:
        say("deleted 1 budget")


@budgets.command()
@asynchronous
async def audit(
    *,
    dsn: Dsn,
    tenant_id: Tenant,
    budget_id: Annotated[
        str | None, Option("--budget", metavar="ID", help="Only this budget.")
    ] = None,
    limit: PageLimit = 100,
    after: After = None,
    tz: TimeZone = UTC,
    as_json: AsJson = False,
) -> None:
    """Show changes and crossings of budgets, and adjustments of usage, newest first."""
    async with connected(dsn) as svc:
        page = await svc.budgets.audit(
            tenant_id=tenant_id, budget_id=or_any(budget_id), after=after, limit=limit
        )
    columns: list[Column[UsageEvent]] = [
        Column("at", lambda event: format_time(event.at, tz), rank=1),
        Column("action", lambda event: event.action),
        Column("budget", lambda event: event.budget_id or "-"),
        Column("subject", lambda event: event.subject or "-", rank=2),
        Column("actor", lambda event: event.actor or "-", share=1, rank=3),
        Column("detail", _detail, share=2, rank=4),
    ]
    print_page("events", columns, page, as_json=as_json)


def _detail(event: UsageEvent) -> str:
    threshold = "" if event.threshold is None else f"{event.threshold} % "
    return threshold + " ".join(f"{name}={value}" for name, value in event.detail.items() if value)
