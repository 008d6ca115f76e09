"""`asyncsvc import` and `asyncsvc export`."""

from __future__ import annotations

import enum
import gc
import gzip
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated, Any, Final

import typer

from asyncsvc.cli import chatgpt, lines
from asyncsvc.cli.files import replacing
from asyncsvc.cli.lines import STDIO, Item, UnreadableError
from asyncsvc.cli.loading import AT_ONCE, Loader, Rejection
from asyncsvc.cli.options import AsJson, Dsn, Tenant, TenantOfLines, Tz
from asyncsvc.cli.pipes import aside
from asyncsvc.cli.printing import many, print_json, print_pairs
from asyncsvc.cli.progress import bar, messages
from asyncsvc.cli.running import CommandError, Exit, connected, interruptible, run
from asyncsvc.models import Conversation, ImportReport
from asyncsvc.validation.dates import zone
from asyncsvc.validation.types import ANY

_LEFT_OUT: Final = {"tenant_id", "thumb_up", "thumb_down"}
"""What an import is told, or counts."""
_GARBAGE: Final = 200_000
"""Objects until the collector looks for circles: records have none, and looking takes a third."""


class Format(enum.StrEnum):
    """The forms of file that can be imported."""

    AUTO = "auto"
    LINES = "lines"
    CHATGPT = "chatgpt"


@dataclass(frozen=True, slots=True)
class _Defaults:
    """What a record gets that does not say it itself."""

    dialog_id: str | None
    user_id: str | None
    source: str | None
    created_at: datetime | None

    def fill(self, item: Item) -> Mapping[str, Any]:
        given = {
            "dialog_id": self.dialog_id,
            "user_id": self.user_id,
            "source": self.source,
            "created_at": self.created_at,
        }
        missing = {
            name: value
            for name, value in given.items()
            if value is not None and item.fields.get(name) is None
        }
        return item.fields | missing


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file; - is standard input.")],
    *,
    dsn: Dsn = None,
    tenant: TenantOfLines = None,
    dialog: Annotated[
        str | None, typer.Option(metavar="ID", help="The dialog, where a line names none.")
    ] = None,
    user: Annotated[
        str | None, typer.Option(metavar="ID", help="The user, where a line names none.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The source, where a line names none.")
    ] = None,
    created_at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="The creation, where neither a line nor its messages do."
        ),
    ] = None,
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="lines: a JSON object a line. chatgpt: the conversations.json of its export."
            " auto: by the first character.",
        ),
    ] = Format.AUTO,
    tz: Tz = "UTC",
    as_json: AsJson = False,
) -> None:
    """Import conversations from a file, plain or gzip, with all their messages.

    Run it again, and it adds nothing twice and goes on where it was broken off. A line that is
    wrong is named on stderr with the reason, the rest goes in, and the exit code is 3.
    """
    at = _instant(created_at, tz)
    defaults = _Defaults(dialog, user, source, at)
    run(_import(_Source(file, form, tz), dsn, tenant, defaults, as_json=as_json))


def _instant(text: str | None, tz: str) -> datetime | None:
    try:
        return None if text is None else lines.instant(text, zone(tz), "created_at")
    except UnreadableError as error:
        raise typer.BadParameter(str(error), param_hint="--created-at") from None


@dataclass(frozen=True, slots=True)
class _Source:
    """The file to import."""

    name: str
    form: Format
    tz: str

    def items(self, stream: IO[bytes]) -> tuple[Iterator[Item], str]:
        """Return what the stream holds, and what one of it is called."""
        form = self.form
        if form is Format.AUTO:
            begins = lines.beginning(stream).removeprefix(b"\xef\xbb\xbf").lstrip()
            form = Format.CHATGPT if begins.startswith(b"[") else Format.LINES
        if form is Format.CHATGPT:
            return chatgpt.conversations(stream, self.name), "conversation"
        return lines.conversations(stream, zone(self.tz)), "line"


async def _import(
    source: _Source, dsn: str | None, tenant: str | None, defaults: _Defaults, *, as_json: bool
) -> Exit:
    began = time.perf_counter()
    gc.set_threshold(_GARBAGE)
    async with lines.arriving(source.name) as file:
        with bar(f"importing {source.name}", file.size) as shown:
            items, noun = await aside(file.raw, lambda: source.items(file.stream))

            def reject(rejection: Rejection) -> None:
                shown.say(f"{noun} {rejection.number}: {rejection.reason}")

            def advance(_: int) -> None:
                shown.show(many(loader.report.messages, "message"), file.place)

            async with connected(dsn, max_size=AT_ONCE) as svc:
                loader = Loader(svc, tenant, defaults.fill, reject, advance)
                try:
                    report = await loader.load(items, file.raw)
                except BaseException:
                    messages().print("stopped: what went in is whole; the same command goes on")
                    raise
    _print_import(report, time.perf_counter() - began, as_json=as_json)
    return Exit.ATTENTION if report.rejected else Exit.DONE


def _print_import(report: ImportReport, seconds: float, *, as_json: bool) -> None:
    if as_json:
        print_json(report.model_dump() | {"seconds": round(seconds, 3)})
        return
    rate = f"{report.messages / max(seconds, 1e-3):,.0f} a second"
    print_pairs(
        {
            "conversations": f"{report.conversations:,}",
            "messages": f"{report.messages:,}, {rate}",
            "there already": f"{report.present:,}",
            "rejected": f"{report.rejected:,}",
        }
    )


def export(
    *,
    dsn: Dsn = None,
    tenant: Tenant,
    dialog: Annotated[str | None, typer.Option(metavar="ID", help="This dialog alone.")] = None,
    user: Annotated[str | None, typer.Option(metavar="ID", help="This user alone.")] = None,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The file; gzip when its name ends in .gz. - is standard output.",
        ),
    ] = STDIO,
) -> None:
    """Export whole conversations, one JSON object a line, as `asyncsvc import` takes them.

    A file appears when it is complete; broken off, nothing is left of it.
    """
    run(_export(dsn, tenant, dialog, user, output))


async def _export(
    dsn: str | None, tenant: str, dialog: str | None, user: str | None, output: str
) -> None:
    async with connected(dsn, max_size=1) as svc:
        exported = svc.conversations.export(
            tenant_id=tenant,
            dialog_id=ANY if dialog is None else dialog,
            user_id=ANY if user is None else user,
        )
        total = 0
        with bar(f"exporting {tenant}") as shown, _written(output) as write:
            async for conversation in exported:
                write(_line(conversation))
                total += 1
                shown.show(many(total, "conversation"))
    messages().print(f"exported {many(total, 'conversation')}")


def _line(conversation: Conversation) -> bytes:
    """Write a conversation as a line; what is None or empty by default is not there."""
    fields = conversation.model_dump(mode="json", exclude=_LEFT_OUT, exclude_none=False)
    fields["messages"] = [_without_defaults(message) for message in fields["messages"]]
    line = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def _without_defaults(message: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in message.items()
        if value is not None and (name, value) != ("payload", {})
    }


def _print_line(line: bytes) -> None:
    with interruptible():  # who reads it may take hours
        sys.stdout.buffer.write(line)


@contextmanager
def _written(output: str) -> Iterator[Callable[[bytes], object]]:
    """Lend what writes to the file, which gets its name when all is on the disk."""
    if output == STDIO:
        if sys.stdout is None:
            raise CommandError("standard output is closed")
        yield _print_line
        with interruptible():
            sys.stdout.buffer.flush()
        return
    path = Path(output)
    try:
        with replacing(path) as raw:
            if path.suffix != ".gz":
                yield raw.write
                return
            with gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as zipped:
                yield zipped.write
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror or error}") from error
