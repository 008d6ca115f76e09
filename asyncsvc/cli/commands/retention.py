"""`asyncsvc purge`, `asyncsvc erase-user` and `asyncsvc delete-tenant`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated, Literal

from typer import Argument, Option

from asyncsvc import ErasureReceipt, InvalidInput, PurgeReport, TenantReceipt
from asyncsvc.cli.options import AsJson, Dialog, Dsn, Tenant, TimeZone, User, Yes, or_any
from asyncsvc.cli.output import counted, print_json, print_pairs
from asyncsvc.cli.progress import Bar, progress_bar
from asyncsvc.cli.runner import asynchronous, confirm, connected
from asyncsvc.cli.times import AGE_FORMS, age_or_none
from asyncsvc.validation.dates import first_instant

OlderThan = Annotated[
    str, Argument(metavar="AGE|DATE", help=f"An age: {AGE_FORMS}. Or a date: 2026-01-31.")
]


@asynchronous
async def purge(
    older_than: OlderThan,
    *,
    dsn: Dsn,
    tenant_id: Tenant,
    dialog_id: Dialog = None,
    user_id: User = None,
    by: Annotated[
        Literal["created_at", "updated_at"], Option(help="The time that the age or date refers to.")
    ] = "updated_at",
    dry_run: Annotated[bool, Option("--dry-run", help="Count, and delete nothing.")] = False,
    yes: Yes = False,
    tz: TimeZone = UTC,
    as_json: AsJson = False,
) -> None:
    """Delete conversations older than an age or a date. If it is interrupted, run it again."""
    before, report = _age_or_instant(older_than, tz), None
    async with connected(dsn) as svc:

        async def run(*, only_count: bool, total: int | None = None) -> PurgeReport:
            with progress_bar("counting" if only_count else "purging", total) as bar:
                return await svc.conversations.purge(
                    before,
                    tenant_id=tenant_id,
                    dialog_id=or_any(dialog_id),
                    user_id=or_any(user_id),
                    by=by,
                    dry_run=only_count,
                    on_batch=lambda report: _show(bar, report),
                )

        if dry_run or not yes:
            report = await run(only_count=True)
            # Delete exactly the conversations of the question: an age must not move on meanwhile.
            before = report.before
            if report.conversations and not dry_run and not confirm(_question(report)):
                return
        if not dry_run:
            report = await run(only_count=False, total=report.conversations if report else None)
    _print_purge(report, as_json=as_json)


def _show(bar: Bar, report: PurgeReport | ErasureReceipt | TenantReceipt) -> None:
    bar.show(counted(report.conversations, "conversation"), report.conversations)


def _age_or_instant(text: str, tz: tzinfo) -> timedelta | datetime:
    age = age_or_none(text)
    if age is not None:
        return age
    try:
        return first_instant("older_than", text, str(tz))
    except InvalidInput:
        reason = f"must be an age: {AGE_FORMS}; or a date: 2026-01-31"
        raise InvalidInput("older_than", reason) from None


def _question(report: PurgeReport) -> str:
    return (
        f"Delete {counted(report.conversations, 'conversation')} with"
        f" {counted(report.messages, 'message')}, older than {report.before:%Y-%m-%d %H:%M} UTC?"
    )


def _print_purge(report: PurgeReport | None, *, as_json: bool) -> None:
    if as_json or report is None:
        print_json(report)
        return
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
        if not yes and not confirm(f"Delete all data of {user_id} in {tenant_id}?"):
            return
        with progress_bar(f"erasing {user_id}") as bar:
            receipt = await svc.conversations.erase_user(
                user_id, tenant_id=tenant_id, on_batch=lambda receipt: _show(bar, receipt)
            )
    _print_receipt(receipt, {"user": receipt.user_id}, receipt.erased_at, as_json=as_json)


@asynchronous
async def delete_tenant(
    tenant_id: Annotated[str, Argument(metavar="TENANT", help="The id of the tenant.")],
    *,
    dsn: Dsn,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete everything of a tenant, and print a receipt.

    Its tokens are deleted first, then conversations, records, usage and audit. After an
    interruption, run it again.
    """
    async with connected(dsn) as svc:
        if not yes and not confirm(f"Delete the tenant {tenant_id} with all its data?"):
            return
        with progress_bar(f"deleting {tenant_id}") as bar:
            receipt = await svc.conversations.delete_tenant(
                tenant_id=tenant_id, on_batch=lambda receipt: _show(bar, receipt)
            )
    _print_receipt(receipt, {}, receipt.deleted_at, as_json=as_json)


def _print_receipt(
    receipt: ErasureReceipt | TenantReceipt,
    subject: dict[str, str],
    moment: datetime | None,
    *,
    as_json: bool,
) -> None:
    if as_json:
        print_json(receipt)
        return
    counts = {name: value for name, value in receipt if isinstance(value, int)}
    deleted = [
        counted(count, name.removesuffix("s").replace("append_", "idempotency ").replace("_", " "))
        for name, count in counts.items()
    ]
    print_pairs(
        {"tenant": receipt.tenant_id}
        | subject
        | {"deleted": ", ".join(deleted), "nothing left at": f"{moment:%Y-%m-%d %H:%M:%S} UTC"}
    )
