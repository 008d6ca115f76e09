"""`asyncsvc purge` and `asyncsvc erase`: what deletes, and asks before."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

import typer

from asyncsvc.cli.ages import age
from asyncsvc.cli.options import AsJson, Dsn, Tenant, Tz, Yes
from asyncsvc.cli.printing import many, print_json, print_pairs
from asyncsvc.cli.progress import Bar, bar, messages
from asyncsvc.cli.running import CommandError, confirmed, connected, run
from asyncsvc.client import AsyncSvc
from asyncsvc.errors import InvalidInput
from asyncsvc.models import ErasureReceipt, PurgeReport
from asyncsvc.validation.dates import first_instant
from asyncsvc.validation.types import ANY


class By(enum.StrEnum):
    """The age that a purge goes by."""

    UPDATED = "update"
    CREATED = "creation"


def purge(
    older_than: Annotated[
        str,
        typer.Argument(
            metavar="AGE|DATE", help="An age, as 12h, 90d or 52w; or a date, as 2026-01-31."
        ),
    ],
    *,
    dsn: Dsn = None,
    tenant: Tenant,
    dialog: Annotated[str | None, typer.Option(metavar="ID", help="This dialog alone.")] = None,
    by: Annotated[
        By, typer.Option(help="Since the last update, or since the creation.")
    ] = By.UPDATED,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and delete nothing.")] = False,
    yes: Yes = False,
    tz: Tz = "UTC",
    as_json: AsJson = False,
) -> None:
    """Delete conversations that are older than an age or a date, batch by batch.

    It waits for no lock and holds none long. Broken off, it goes on when it is run again.
    """
    what = _What(tenant, dialog, by, tz)
    run(_purge(dsn, what, older_than, dry_run=dry_run, yes=yes, as_json=as_json))


def erase(
    user: Annotated[str, typer.Argument(metavar="USER", help="The person's id.")],
    *,
    dsn: Dsn = None,
    tenant: Tenant,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete everything of a person, as they have the right to ask, and print a receipt."""
    run(_erase(dsn, tenant, user, yes=yes, as_json=as_json))


@dataclass(frozen=True, slots=True)
class _What:
    """The conversations that a purge is about, but for their age."""

    tenant_id: str
    dialog_id: str | None
    by: By
    tz: str

    async def purge(
        self, svc: AsyncSvc, older_than: timedelta | datetime, shown: Bar, *, dry_run: bool
    ) -> PurgeReport:
        def show(report: PurgeReport) -> None:
            shown.show(many(report.conversations, "conversation"), report.conversations)

        return await svc.conversations.purge(
            older_than,
            tenant_id=self.tenant_id,
            dialog_id=ANY if self.dialog_id is None else self.dialog_id,
            by="updated_at" if self.by is By.UPDATED else "created_at",
            dry_run=dry_run,
            tz=self.tz,
            on_batch=show,
        )


async def _purge(
    dsn: str | None, what: _What, text: str, *, dry_run: bool, yes: bool, as_json: bool
) -> None:
    older_than, total = _older_than(text, what.tz), None
    async with connected(dsn, max_size=1) as svc:
        if dry_run or not yes:
            with bar("counting") as shown:
                report = await what.purge(svc, older_than, shown, dry_run=True)
            # What is asked about is what goes, however long the answer takes.
            older_than, total = report.before, report.conversations
        if not dry_run:
            if not yes and total and not confirmed(f"Delete {_told(report)}?"):
                _say_that_nothing_was_deleted()
                return
            with bar("purging", total) as shown:
                report = await what.purge(svc, older_than, shown, dry_run=False)
    if as_json:
        print_json(report)
    else:
        _print_purge(report)


def _older_than(text: str, tz: str) -> timedelta | datetime:
    length = age(text)
    if length is not None:
        return length
    try:
        return first_instant("older_than", text, tz)
    except InvalidInput as error:
        if error.field != "older_than":
            raise
        raise CommandError(
            f"'{text}' is neither an age, as 90d, nor a date, as 2026-01-31"
        ) from None


def _say_that_nothing_was_deleted() -> None:
    messages().print("nothing was deleted")


def _told(report: PurgeReport) -> str:
    return (
        f"{many(report.conversations, 'conversation')} with {many(report.messages, 'message')},"
        f" older than {report.before:%Y-%m-%d %H:%M} UTC"
    )


def _print_purge(report: PurgeReport) -> None:
    skipped = "in use, or changed: run it again" if report.skipped else ""
    print_pairs(
        {
            "older than": f"{report.before:%Y-%m-%d %H:%M:%S} UTC",
            "would delete" if report.dry_run else "deleted": (
                f"{many(report.conversations, 'conversation')}, {many(report.messages, 'message')}"
            ),
        }
        | ({"skipped": f"{report.skipped:,} {skipped}"} if report.skipped else {})
    )


async def _erase(dsn: str | None, tenant: str, user: str, *, yes: bool, as_json: bool) -> None:
    async with connected(dsn, max_size=1) as svc:
        if not yes and not confirmed(f"Delete everything of {user} in {tenant}?"):
            _say_that_nothing_was_deleted()
            return
        with bar(f"erasing {user}") as shown:

            def show(receipt: ErasureReceipt) -> None:
                shown.show(many(receipt.conversations, "conversation"))

            receipt = await svc.conversations.erase_user(user, tenant_id=tenant, on_batch=show)
    if as_json:
        print_json(receipt)
    else:
        print_pairs(
            {
                "tenant": receipt.tenant_id,
                "user": receipt.user_id,
                "deleted": f"{many(receipt.conversations, 'conversation')},"
                f" {many(receipt.messages, 'message')},"
                f" {many(receipt.append_keys, 'append key')}",
                "nothing left at": f"{receipt.erased_at:%Y-%m-%d %H:%M:%S} UTC",
            }
        )
