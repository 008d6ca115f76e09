"""`asyncsvc import` and `asyncsvc export`."""

from __future__ import annotations

import gc
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, tzinfo
from typing import Annotated, Final, Literal, TypeAlias

from typer import Argument, Option

from asyncsvc import Conversation, ImportReport, InvalidInput
from asyncsvc.cli import chatgpt, json_lines
from asyncsvc.cli.files import STDIO, first_bytes, open_input, open_output
from asyncsvc.cli.importer import CONVERSATION_CONCURRENCY, ConversationImporter
from asyncsvc.cli.json_lines import InvalidRecordError, Item, parse_instant
from asyncsvc.cli.options import AsJson, DefaultTenant, Dialog, Dsn, Tenant, TimeZone, User, or_any
from asyncsvc.cli.output import counted, print_json, print_pairs
from asyncsvc.cli.progress import progress_bar
from asyncsvc.cli.runner import Exit, asynchronous, connected
from asyncsvc.cli.streams import read_in_thread
from asyncsvc.cli.terminal import remark

_NOT_EXPORTED: Final = {"tenant_id", "thumb_up", "thumb_down"}
"""Fields that an import gets from its options or counts itself."""
_GC_THRESHOLD: Final = 200_000
"""Records have no reference cycles, and the default threshold costs a third of the time."""

File = Annotated[str, Argument(metavar="FILE", help="The file; - is standard input.")]
Format: TypeAlias = Literal["auto", "lines", "chatgpt"]
InputFormat = Annotated[
    Format,
    Option(
        "--format",
        help="lines: one JSON object a line. chatgpt: the conversations.json of its export."
        " auto: by the first character.",
    ),
]
DefaultDialog = Annotated[
    str | None, Option("--dialog", metavar="ID", help="The dialog of lines without dialog_id.")
]
DefaultUser = Annotated[
    str | None, Option("--user", metavar="ID", help="The user of lines without user_id.")
]
DefaultSource = Annotated[
    str | None, Option(metavar="TEXT", help="The source of lines without source.")
]
DefaultTime = Annotated[
    str | None,
    Option(
        metavar="TIME", help="The creation of conversations that have no time, nor their messages."
    ),
]


@asynchronous
async def import_(
    file: File,
    *,
    dsn: Dsn,
    tenant_id: DefaultTenant = None,
    dialog_id: DefaultDialog = None,
    user_id: DefaultUser = None,
    source: DefaultSource = None,
    created_at: DefaultTime = None,
    input_format: InputFormat = "auto",
    tz: TimeZone = UTC,
    as_json: AsJson = False,
) -> Exit:
    """Import conversations with their messages from a file, plain or gzip.

    Stored conversations are skipped, so an interrupted import continues when it is run again. An
    invalid line is reported on stderr; the other lines are imported, and the exit code is 3.
    """
    started = time.perf_counter()
    options = {
        "dialog_id": dialog_id,
        "user_id": user_id,
        "source": source,
        "created_at": None if created_at is None else _instant(created_at, tz),
    }
    defaults = {name: value for name, value in options.items() if value is not None}

    def complete(item: Item) -> Mapping[str, object]:
        missing = {name for name in defaults if item.fields.get(name) is None}
        return item.fields | {name: defaults[name] for name in missing}

    report = await _import(file, dsn, tenant_id, complete, input_format, tz)
    _print_import(report, time.perf_counter() - started, as_json=as_json)
    return Exit.ATTENTION if report.rejected else Exit.DONE


def _instant(text: str, local: tzinfo) -> object:
    try:
        return parse_instant(text, local, "created_at")
    except InvalidRecordError as error:
        raise InvalidInput("created_at", str(error).removeprefix("created_at: ")) from None


async def _import(
    name: str,
    dsn: str,
    tenant_id: str | None,
    complete: Callable[[Item], Mapping[str, object]],
    input_format: Format,
    local: tzinfo,
) -> ImportReport:
    gc.set_threshold(_GC_THRESHOLD)
    async with open_input(name) as file:
        with progress_bar(f"importing {name}", file.size) as bar:
            items, noun = await read_in_thread(
                file.raw, lambda: _read_items(file.stream, name, input_format, local)
            )
            async with connected(dsn, max_size=CONVERSATION_CONCURRENCY) as svc:
                importer = ConversationImporter(
                    svc=svc,
                    tenant_id=tenant_id,
                    complete=complete,
                    noun=noun,
                    on_batch=lambda: bar.show(
                        counted(importer.report.messages, "message"), file.position
                    ),
                )
                try:
                    await importer.run(items, file.raw)
                except InvalidInput:  # of an option
                    raise
                except BaseException:
                    remark(
                        "stopped: the imported conversations are complete;"
                        " run the same command to continue"
                    )
                    raise
    return importer.report


def _read_items(
    stream: io.BufferedReader, name: str, input_format: Format, local: tzinfo
) -> tuple[Iterator[Item], str]:
    """Return the conversations of a stream, and the noun for one of its items."""
    if input_format == "auto":
        first = first_bytes(stream).removeprefix(b"\xef\xbb\xbf").lstrip()
        input_format = "chatgpt" if first.startswith(b"[") else "lines"
    if input_format == "chatgpt":
        return chatgpt.read_conversations(stream, name), "conversation"
    return json_lines.read_conversations(stream, local), "line"


def _print_import(report: ImportReport, seconds: float, *, as_json: bool) -> None:
    if as_json:
        print_json(report.model_dump() | {"seconds": round(seconds, 3)})
        return
    rate = f"{report.messages / max(seconds, 1e-3):,.0f} a second"
    print_pairs(
        {
            "conversations": f"{report.conversations:,}",
            "messages": f"{report.messages:,}, {rate}",
            "present": f"{report.present:,}",
            "rejected": f"{report.rejected:,}",
        }
    )


@asynchronous
async def export(
    *,
    dsn: Dsn,
    tenant_id: Tenant,
    dialog_id: Dialog = None,
    user_id: User = None,
    output: Annotated[
        str,
        Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The file, gzip if its name ends in .gz; - is standard output.",
        ),
    ] = STDIO,
) -> None:
    """Export whole conversations, one JSON object a line, in the format of `asyncsvc import`.

    The file appears when it is complete; an interrupted export leaves nothing behind.
    """
    async with connected(dsn) as svc:
        conversations = svc.conversations.export(
            tenant_id=tenant_id, dialog_id=or_any(dialog_id), user_id=or_any(user_id)
        )
        total = 0
        with progress_bar(f"exporting {tenant_id}") as bar, open_output(output) as write:
            async for conversation in conversations:
                write(_line(conversation))
                total += 1
                bar.show(counted(total, "conversation"))
    remark(f"exported {counted(total, 'conversation')}")


def _line(conversation: Conversation) -> bytes:
    """Return a conversation as a line, without fields that are None or empty by default."""
    fields = conversation.model_dump(mode="json", exclude=_NOT_EXPORTED)
    fields["messages"] = [
        {
            name: value
            for name, value in message.items()
            if value is not None and (name, value) != ("payload", {})
        }
        for message in fields["messages"]
    ]
    line = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"
