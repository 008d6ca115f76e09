"""`asyncsvc import-ragflow`: the conversations and tokens of a RAGFlow database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, tzinfo
from typing import Annotated

from typer import Argument, Option

from asyncsvc.cli.options import Actor, AsJson, Dsn, parse_zone
from asyncsvc.cli.output import counted, print_json, print_pairs
from asyncsvc.cli.progress import Bar, progress_bar
from asyncsvc.cli.rejections import Rejections
from asyncsvc.cli.runner import Exit, asynchronous, connected
from asyncsvc.cli.terminal import Column, print_table, remark
from asyncsvc.ragflow.data_import import DataImport, Part
from asyncsvc.ragflow.reports import DataImportReport, Note, Repair, RepairCount, Skip, TableReport

SourceDsn = Annotated[
    str,
    Argument(
        metavar="SOURCE_DSN",
        envvar="ASYNCSVC_RAGFLOW_DSN",
        show_envvar=True,
        help="RAGFlow's database: mysql://user:password@host:3306/rag_flow, or postgresql://….",
    ),
]
SourceZone = Annotated[
    tzinfo,
    Option(
        "--tz",
        metavar="ZONE",
        parser=parse_zone,
        help="The time zone of the dates in RAGFlow's database, for example Asia/Shanghai.",
    ),
]
OneTenant = Annotated[str | None, Option("--tenant", metavar="ID", help="Import only this tenant.")]
OrphanTenant = Annotated[
    str | None,
    Option(metavar="ID", help="The tenant for conversations whose dialog or agent was deleted."),
]
AfterId = Annotated[
    str | None,
    Option(metavar="ID", help="Start after this conversation, in the order of the source's ids."),
]


@asynchronous
async def import_ragflow(
    source: SourceDsn,
    *,
    dsn: Dsn,
    tz: SourceZone = UTC,
    tenant_id: OneTenant = None,
    orphans: OrphanTenant = None,
    only: Annotated[Part | None, Option(help="Import only this part.")] = None,
    after: AfterId = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Import everything, and roll it back.")
    ] = False,
    verbose: Annotated[bool, Option("--verbose", help="Also report each repaired row.")] = False,
    actor: Actor,
    as_json: AsJson = False,
) -> Exit:
    """Import conversations and API tokens from RAGFlow's database, which is only read.

    RAGFlow may run meanwhile. Run the import again to continue an interrupted one, or to append
    newer messages to imported conversations. Rejected rows are reported on stderr, and the exit
    code is 3.
    """
    async with connected(dsn, foreign_tokens=True) as svc:
        with _progress(verbose=verbose) as progress:
            report = await DataImport(svc).run(
                source,
                tz=str(tz),
                tenant_id=tenant_id,
                orphans=orphans,
                only=only,
                after=after,
                dry_run=dry_run,
                actor=actor,
                on_batch=progress.show,
                on_note=progress.log,
            )
    if as_json:
        print_json(report)
    else:
        print_report(report)
    return Exit.DONE if report.is_complete else Exit.ATTENTION


class _Progress:
    """The progress of an import, and its skipped rows."""

    def __init__(self, bar: Bar, *, verbose: bool) -> None:
        self._bar = bar
        self._verbose = verbose
        self.rejections = Rejections()
        self.last_id: str | None = None

    def show(self, report: DataImportReport) -> None:
        self.last_id = report.after
        counts = (counted(report.messages, "message"), counted(report.tokens.read, "token"))
        self._bar.show(", ".join(counts), report.conversations.read, report.total or 1)

    def log(self, note: Note) -> None:
        if self._verbose:
            self._bar.log(f"{note.table} {note.row}: {note.kind}: {note.reason}")
        elif note.kind is Repair.LOST or isinstance(note.kind, Skip):
            self.rejections.add(note.table, note.row, f"{note.kind}: {note.reason}")


@contextmanager
def _progress(*, verbose: bool) -> Iterator[_Progress]:
    """Show the progress, then the skipped rows; after a failure print how to continue."""
    with progress_bar("importing", total=1) as bar:
        progress = _Progress(bar, verbose=verbose)
        try:
            yield progress
        except BaseException:
            if progress.last_id is not None:
                advice = f"run the same command to continue, faster with --after {progress.last_id}"
                remark(f"stopped: the imported conversations are complete; {advice}")
            raise
        finally:
            progress.rejections.report()


def print_report(report: DataImportReport) -> None:
    """Print the numbers of imported, repaired and skipped rows."""
    parts = {"conversation": report.conversations, "token": report.tokens}
    columns: list[Column[tuple[str, TableReport]]] = [
        Column("", lambda part: f"{part[0]}s"),
        Column("read", lambda part: f"{part[1].read:,}", right=True),
        Column("imported", lambda part: f"{part[1].imported:,}", right=True),
        Column("updated", lambda part: f"{part[1].updated:,}", right=True),
        Column("present", lambda part: f"{part[1].present:,}", right=True),
        Column("skipped", lambda part: f"{sum(part[1].skipped.values()):,}", right=True),
    ]
    print_table(columns, list(parts.items()))
    print_pairs(
        {
            "messages": f"{report.messages:,} imported",
            **{f"{kind}": text for kind in Skip if (text := _skipped(parts, kind))},
            **{
                f"{kind}": f"{counted(repaired.rows, 'conversation')} repaired: {_ids(repaired)}"
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
        remark("This was a dry run: nothing was stored.")
    elif report.tokens.imported or report.tokens.present:
        remark("Tokens are valid where Settings.accept_foreign_tokens is on.")


def _skipped(parts: Mapping[str, TableReport], kind: Skip) -> str:
    """Return how many rows were skipped for a reason; empty if none."""
    counts = {noun: part.skipped.get(kind, 0) for noun, part in parts.items()}
    texts = [counted(count, noun) for noun, count in counts.items() if count]
    return " and ".join(texts) + (" skipped" if texts else "")


def _ids(repaired: RepairCount) -> str:
    return ", ".join(repaired.ids) + (", …" if repaired.rows > len(repaired.ids) else "")
