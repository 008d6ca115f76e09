"""`asyncsvc import-ragflow`: the conversations and tokens of a RAGFlow database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.text import Text

from asyncsvc.cli.drawing import Column, console, plain, table
from asyncsvc.cli.options import Actor, AsJson, Dsn
from asyncsvc.cli.printing import many, print_json, print_pairs
from asyncsvc.cli.progress import Bar, bar, messages
from asyncsvc.cli.running import Exit, connected, run
from asyncsvc.client import AsyncSvc
from asyncsvc.ragflow.data_import import DataImport, Part
from asyncsvc.ragflow.reports import (
    DataImportReport,
    Note,
    Repair,
    RepairCount,
    Skip,
    TableReport,
)


@dataclass(frozen=True, slots=True)
class _What:
    """What is moved, and how."""

    source: str
    tz: str
    tenant_id: str | None
    orphans: str | None
    only: Part | None
    after: str | None
    dry_run: bool
    actor: str | None
    verbose: bool

    async def move(self, svc: AsyncSvc, shown: Bar) -> DataImportReport:
        """Move it, and show how it goes; broken off, say how to go on."""
        reached = None

        def show(report: DataImportReport) -> None:
            nonlocal reached
            reached = report.after
            done = f"{many(report.messages, 'message')}, {many(report.tokens.read, 'token')}"
            shown.show(done, report.conversations.read, report.total or 1)

        def tell(note: Note) -> None:
            if self.verbose or note.kind is Repair.LOST or isinstance(note.kind, Skip):
                shown.say(f"{note.table} {note.row}: {note.kind}: {note.reason}")

        try:
            return await DataImport(svc).run(
                self.source,
                tz=self.tz,
                tenant_id=self.tenant_id,
                orphans=self.orphans,
                only=self.only,
                after=self.after,
                dry_run=self.dry_run,
                actor=self.actor,
                on_batch=show,
                on_note=tell,
            )
        except BaseException:
            if reached is not None:
                again = f"the same command goes on, and faster with --after {reached}"
                messages().print(Text(plain(f"stopped: what went in is whole; {again}")))
            raise


def import_ragflow(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE_DSN",
            envvar="ASYNCSVC_RAGFLOW_DSN",
            show_envvar=True,
            help="RAGFlow's database: mysql://user:password@host:3306/rag_flow, or postgresql://….",
        ),
    ],
    *,
    dsn: Dsn = None,
    tz: Annotated[
        str,
        typer.Option(
            "--tz",
            metavar="ZONE",
            help="The zone that RAGFlow's server writes dates in, as Asia/Shanghai.",
        ),
    ] = "UTC",
    tenant: Annotated[
        str | None, typer.Option(metavar="ID", help="Move what belongs to this tenant alone.")
    ] = None,
    orphans: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="The tenant of conversations whose dialog or agent is gone."
        ),
    ] = None,
    only: Annotated[Part | None, typer.Option(help="Move these alone.")] = None,
    after: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Begin behind this conversation, in the source's order."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do everything, and roll it back.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Name each row that was repaired, too.")
    ] = False,
    actor: Actor,
    as_json: AsJson = False,
) -> None:
    """Import conversations and API tokens from the database of RAGFlow, which is only read.

    It may go on running meanwhile: run this again, and it adds nothing twice, goes on where it was
    broken off, and appends what conversations have got since. A row that does not go in is named on
    stderr with the reason, and the exit code is 3.
    """
    what = _What(
        source, tz, tenant, orphans, only, after, dry_run=dry_run, actor=actor, verbose=verbose
    )
    run(_import(dsn, what, as_json=as_json))


async def _import(dsn: str | None, what: _What, *, as_json: bool) -> Exit:
    async with connected(dsn, max_size=1, foreign_tokens=True) as svc:
        with bar("importing", total=1) as shown:
            report = await what.move(svc, shown)
    if as_json:
        print_json(report)
    else:
        _print(report)
    return Exit.DONE if report.is_complete else Exit.ATTENTION


def _print(report: DataImportReport) -> None:
    titles = ("read", "imported", "updated", "present", "skipped")
    columns = [Column(""), *(Column(title, right=True) for title in titles)]
    parts = {"conversation": report.conversations, "token": report.tokens}
    console().print(table(columns, [_row(f"{noun}s", moved) for noun, moved in parts.items()]))
    print_pairs(
        {
            "messages": f"{report.messages:,} imported",
            **{f"{kind}": _skipped(parts, kind) for kind in Skip if _skipped(parts, kind)},
            **{
                f"{kind}": f"{many(repaired.rows, 'conversation')} repaired: {_some(repaired)}"
                for kind, repaired in sorted(report.repaired.items())
            },
            **({"missing": ", ".join(report.missing)} if report.missing else {}),
            **(
                {"skipped tables": ", ".join(report.skipped_tables)}
                if report.skipped_tables
                else {}
            ),
        }
    )
    if report.dry_run:
        messages().print("This was a dry run: nothing of it was stored.")
    elif report.tokens.imported or report.tokens.present:
        messages().print("Tokens are good where Settings.accept_foreign_tokens is on.")


def _row(name: str, moved: TableReport) -> list[str]:
    skipped = sum(moved.skipped.values())
    numbers = (moved.read, moved.imported, moved.updated, moved.present, skipped)
    return [name, *(f"{number:,}" for number in numbers)]


def _skipped(parts: Mapping[str, TableReport], kind: Skip) -> str:
    """Return how many were skipped for a reason; nothing where none was."""
    counts = {noun: moved.skipped.get(kind, 0) for noun, moved in parts.items()}
    some = [many(count, noun) for noun, count in counts.items() if count]
    return " and ".join(some) + (" skipped" if some else "")


def _some(repaired: RepairCount) -> str:
    return ", ".join(repaired.ids) + (", …" if repaired.rows > len(repaired.ids) else "")
