"""`asyncsvc purge` and `asyncsvc erase-user`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from typing import Annotated, Literal

from typer import Argument, Option

from asyncsvc import ErasureReceipt, InvalidInput, PurgeReport
from asyncsvc.cli.options import AsJson, Dialog, Dsn, Tenant, TimeZone, Yes, or_any
from asyncsvc.cli.output import counted, print_json, print_pairs
from asyncsvc.cli.progress import progress_bar
from asyncsvc.cli.runner import asynchronous, confirm, connected
from asyncsvc.cli.terminal import remark
from asyncsvc.cli.times import AGE_FORMS, age_or_none
from asyncsvc.validation.dates import first_instant

OlderThan = Annotated[
    str,
    Argument(
        metavar="AGE|DATE",
        help=f"An age: {AGE_FORMS}. Or a date: 2026-01-31.",
    ),
]


@asynchronous
async def purge(
    older_than: OlderThan,
    *,
    dsn: Dsn,
    tenant_id: Tenant,
    dialog_id: Dialog = None,
    by: Annotated[
        Literal["created_at", "updated_at"], Option(help="The time that the age or date refers to.")
    ] = "updated_at",
    dry_run: Annotated[bool, Option("--dry-run", help="Count, and delete nothing.")] = False,
    yes: Yes = False,
    tz: TimeZone = UTC,
    as_json: AsJson = False,
) -> None:
    """Delete conversations that are older than an age or a date, in batches.

    It waits for no lock and holds none for long. After an interruption, run it again.
    """
    age_or_instant, total, report = _age_or_instant(older_than, tz), None, None
    async with connected(dsn) as svc:
        purge_batches = partial(
            svc.conversations.purge,
            tenant_id=tenant_id,
            dialog_id=or_any(dialog_id),
            by=by,
            tz=str(tz),
        )
        if dry_run or not yes:
            report = await _purge(purge_batches, age_or_instant, dry_run=True)
            # Delete what the question names, however long the answer takes.
            age_or_instant, total = report.before, report.conversations
            if total and not dry_run and not _is_confirmed(_question(report)):
                return
        if not dry_run:
            report = await _purge(purge_batches, age_or_instant, dry_run=False, total=total)
    if as_json or report is None:
        print_json(report)
    else:
        _print_purge(report)


def _age_or_instant(text: str, tz: tzinfo) -> timedelta | datetime:
    age = age_or_none(text)
    if age is not None:
        return age
    try:
        return first_instant("older_than", text, str(tz))
    except InvalidInput:
        reason = f"must be an age, {AGE_FORMS}; or a date, 2026-01-31"
        raise InvalidInput("older_than", reason) from None


async def _purge(
    purge_batches: Callable[..., Awaitable[PurgeReport]],
    age_or_instant: timedelta | datetime,
    *,
    dry_run: bool,
    total: int | None = None,
) -> PurgeReport:
    with progress_bar("counting" if dry_run else "purging", total) as bar:

        def show(report: PurgeReport) -> None:
            bar.show(counted(report.conversations, "conversation"), report.conversations)

        return await purge_batches(age_or_instant, dry_run=dry_run, on_batch=show)


def _is_confirmed(question: str) -> bool:
    is_confirmed = confirm(question)
    if not is_confirmed:
        remark("nothing was deleted")
    return is_confirmed


def _question(report: PurgeReport) -> str:
    return (
        f"Delete {counted(report.conversations, 'conversation')} with"
        f" {counted(report.messages, 'message')}, older than {report.before:%Y-%m-%d %H:%M} UTC?"
    )


def _print_purge(report: PurgeReport) -> None:
    conversations = counted(report.conversations, "conversation")
    pairs = {
        "older than": f"{report.before:%Y-%m-%d %H:%M:%S} UTC",
        "would delete" if report.dry_run else "deleted": (
            f"{conversations}, {counted(report.messages, 'message')}"
        ),
    }
    if report.skipped:
        pairs["skipped"] = f"{report.skipped:,}, locked or changed: run it again"
    print_pairs(pairs)


@asynchronous
async def erase_user(
    user_id: Annotated[str, Argument(metavar="USER", help="The id of the user.")],
    *,
    dsn: Dsn,
    tenant_id: Tenant,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete all data of a user (right to erasure), and print a receipt."""
    async with connected(dsn) as svc:
        if not yes and not _is_confirmed(f"Delete all data of {user_id} in {tenant_id}?"):
            return
        with progress_bar(f"erasing {user_id}") as bar:

            def show(receipt: ErasureReceipt) -> None:
                bar.show(counted(receipt.conversations, "conversation"))

            receipt = await svc.conversations.erase_user(
                user_id, tenant_id=tenant_id, on_batch=show
            )
    if as_json:
        print_json(receipt)
        return
    deleted = (
        counted(receipt.conversations, "conversation"),
        counted(receipt.messages, "message"),
        counted(receipt.append_keys, "idempotency key"),
    )
    print_pairs(
        {
            "tenant": receipt.tenant_id,
            "user": receipt.user_id,
            "deleted": ", ".join(deleted),
            "nothing left at": f"{receipt.erased_at:%Y-%m-%d %H:%M:%S} UTC",
        }
    )
