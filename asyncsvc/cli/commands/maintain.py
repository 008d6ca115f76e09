"""`asyncsvc maintain` and `asyncsvc zone`: what keeps statistics fast."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from asyncsvc.cli.drawing import console
from asyncsvc.cli.options import AsJson, Dsn, Tenant
from asyncsvc.cli.printing import many, print_json
from asyncsvc.cli.progress import Bar, bar
from asyncsvc.cli.running import connected, run
from asyncsvc.client import AsyncSvc
from asyncsvc.models import MaintenanceReport


def maintain(
    *,
    dsn: Dsn = None,
    every: Annotated[
        float | None,
        typer.Option(min=1, metavar="SECONDS", help="Do it again and again, with this pause."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Do what has to be done now and then, which keeps statistics and searches fast.

    It folds usage into sums, and what was written into the search index; idempotency keys are
    forgotten after a week, `key_lifetime` in the settings. Run it once a minute or so, from
    anywhere; twice at once does no harm.
    """
    run(_maintain(dsn, every, as_json=as_json))


def zone(
    name: Annotated[str, typer.Argument(metavar="ZONE", help="As Europe/Berlin.")],
    *,
    dsn: Dsn = None,
    tenant: Tenant,
    recount: Annotated[
        bool,
        typer.Option(
            "--recount", help="Count anew what is kept: the server got new rules for a zone."
        ),
    ] = False,
) -> None:
    """Keep a tenant's statistics by day, week and month in a zone, which makes them fast there."""
    run(_zone(dsn, tenant, name, recount=recount))


async def _maintain(dsn: str | None, every: float | None, *, as_json: bool) -> None:
    async with connected(dsn, max_size=1) as svc:
        while True:
            with bar("maintaining") as shown:
                report = await _maintained(svc, shown)
            if as_json:
                print_json(report)
            else:
                console().print(f"{_told(report)}.")
            if every is None:
                return
            await asyncio.sleep(every)


async def _maintained(svc: AsyncSvc, shown: Bar) -> MaintenanceReport:
    def show(report: MaintenanceReport) -> None:
        shown.show(_told(report))

    return await svc.maintain(on_batch=show)


def _told(report: MaintenanceReport) -> str:
    return (
        f"{many(report.append_keys, 'idempotency key')} deleted,"
        f" {many(report.ledger_rows, 'ledger row')} rolled up,"
        f" {many(report.messages, 'message')} and {many(report.titles, 'title')} indexed"
    )


async def _zone(dsn: str | None, tenant: str, name: str, *, recount: bool) -> None:
    async with connected(dsn, max_size=1) as svc:
        with bar("counting"):
            is_new = await svc.conversations.declare_zone(tenant, name)
            if recount and not is_new:
                await svc.conversations.recount_usage(tenant)
    state = "are kept" if is_new or not recount else "were counted anew, and are kept"
    console().print(f"Statistics of {tenant} {state} in {name}.")
