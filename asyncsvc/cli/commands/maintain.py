"""`asyncsvc maintain` and `asyncsvc declare-zone`."""

from __future__ import annotations

import asyncio
from typing import Annotated

from typer import Argument, Option

from asyncsvc import MaintenanceReport
from asyncsvc.cli.options import AsJson, Dsn, Tenant
from asyncsvc.cli.output import counted, print_json
from asyncsvc.cli.progress import progress_bar
from asyncsvc.cli.runner import Exit, asynchronous, connected
from asyncsvc.cli.terminal import console, remark, say


@asynchronous
async def maintain(
    *,
    dsn: Dsn,
    every: Annotated[
        float | None, Option(min=1, metavar="SECONDS", help="Repeat after this pause.")
    ] = None,
    as_json: AsJson = False,
) -> Exit:
    """Run maintenance, which keeps statistics and searches fast.

    It rolls up usage, adds new messages to the search index and deletes idempotency keys that are
    older than a week (`key_lifetime` in the settings). An application on `connect` does the same in
    the background if its role owns the tables. Otherwise run this once a minute, on any host;
    several runs at once are safe. If it cannot process the rows of some tenants, stderr names
    them, and the exit code is 3.
    """
    async with connected(dsn) as svc:
        while True:
            with progress_bar("maintaining") as bar:
                report = await svc.maintain(on_batch=lambda report: bar.show(_summary(report)))
            if as_json:
                print_json(report)
            else:
                console().print(f"{_summary(report)}.")
            for failure in report.failures:
                whose = "all tenants" if failure.tenant_id is None else repr(failure.tenant_id)
                remark(f"{failure.job} of {whose}: {failure.error}")
            if every is None:
                return Exit.ATTENTION if report.failures else Exit.DONE
            await asyncio.sleep(every)


def _summary(report: MaintenanceReport) -> str:
    return (
        f"{counted(report.append_keys, 'idempotency key')} deleted,"
        f" {counted(report.ledger_rows, 'ledger row')} rolled up,"
        f" persons removed from {counted(report.user_months, 'month')},"
        f" {counted(report.messages, 'message')} and {counted(report.titles, 'title')} indexed"
    )


@asynchronous
async def declare_zone(
    tz: Annotated[str, Argument(metavar="ZONE", help="For example Europe/Berlin.")],
    *,
    dsn: Dsn,
    tenant_id: Tenant,
    recount: Annotated[
        bool,
        Option(
            "--recount",
            help="Compute all stored buckets again, for new rules of a zone on the server.",
        ),
    ] = False,
) -> None:
    """Store a tenant's statistics by day, week and month in a zone, for fast reading."""
    async with connected(dsn) as svc:
        with progress_bar("counting"):
            is_new = await svc.conversations.declare_zone(tenant_id=tenant_id, tz=tz)
            if recount and not is_new:
                await svc.conversations.recount_usage(tenant_id=tenant_id)
    state = "were computed again and are stored" if recount and not is_new else "are stored"
    say(f"Statistics of {tenant_id} {state} in {tz}.")
