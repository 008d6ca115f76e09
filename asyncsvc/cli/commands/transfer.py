"""`asyncsvc import` and `asyncsvc export`."""

from __future__ import annotations

import gc
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from typer import Argument, Option

from asyncsvc import Conversation, InvalidInput
from asyncsvc.cli.export_reader import UnknownFormatError
from asyncsvc.cli.files import STDIO, open_input, open_output
from asyncsvc.cli.import_context import ImportContext, Rejection
from asyncsvc.cli.import_report import needs_attention, print_import
from asyncsvc.cli.import_sources import is_side_file, read_file, read_folder
from asyncsvc.cli.importer import CONVERSATION_CONCURRENCY, ConversationImporter
from asyncsvc.cli.json_lines import Item
from asyncsvc.cli.options import AsJson, DefaultTenant, Dialog, Dsn, Tenant, TimeZone, User, or_any
from asyncsvc.cli.output import counted
from asyncsvc.cli.progress import Bar, progress_bar
from asyncsvc.cli.runner import CommandError, Exit, asynchronous, command_settings, connected
from asyncsvc.cli.terminal import remark
from asyncsvc.exports import READERS, Notes, UnreadableError
from asyncsvc.exports.record_lines import parse_instant

_NOT_EXPORTED: Final = {"tenant_id", "thumb_up", "thumb_down"}
"""Fields that an import gets from its options or counts itself."""
_GC_THRESHOLD: Final = 200_000
"""Records have no reference cycles. With the default threshold, a third of the time is lost."""

Files = Annotated[
    list[str],
    Argument(metavar="FILE...", help="Files, archives or folders; - is standard input."),
]
Format: TypeAlias = Literal[
    "auto", "lines", "chatgpt", "claude", "openwebui", "librechat", "deepseek", "openai"
]
InputFormat = Annotated[
    Format,
    Option(
        "--format",
        help="The format of all files. lines: one JSON object per line. auto: by their content.",
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
    Option(metavar="TIME", help="The creation time of conversations without any time."),
]


@asynchronous
async def import_(
    files: Files,
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
    """Import conversations with their messages: exports of chats, or lines of `asyncsvc export`.

    FILE is a plain file, a gzip or ZIP file, or a folder. Exports of ChatGPT, Claude, Open WebUI,
    LibreChat and DeepSeek, and lines of OpenAI's messages, are read unchanged. A later export of a
    stored conversation adds its new messages, so an import can be repeated and continued. Rejected
    records are reported on stderr; the others are imported, and the exit code is 3.
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

    context = ImportContext(
        tz=tz,
        settings=command_settings(),
        reader=next((reader for reader in READERS if reader.name == input_format), None),
        only_lines=input_format == "lines",
        several_files=len(files) > 1,
    )
    gc.set_threshold(_GC_THRESHOLD)
    async with connected(dsn, max_size=CONVERSATION_CONCURRENCY) as svc:
        importer = ConversationImporter(
            svc=svc,
            tenant_id=tenant_id,
            complete=complete,
            on_stored=lambda item: context.notes.add(item.notes or Notes()),
            on_rejected=lambda item, reason: context.add_rejection(_rejection(item, reason)),
            on_batch=lambda: None,
        )
        for name in sorted(files, key=lambda name: not is_side_file(Path(name).name)):
            await _import(name, importer, context)
    _check_recognized(context)
    print_import(importer.report, context, time.perf_counter() - started, as_json=as_json)
    is_complete = not needs_attention(importer.report, context) and not context.unreadable
    return Exit.DONE if is_complete else Exit.ATTENTION


def _rejection(item: Item, reason: str) -> Rejection:
    id = item.fields.get("id")
    file, _, _ = item.noun.rpartition(": ")
    return Rejection(file, item.number, id if isinstance(id, str) else None, reason)


def _instant(text: str, local: tzinfo) -> object:
    try:
        return parse_instant(text, local, "created_at")
    except UnreadableError as error:
        raise InvalidInput("created_at", str(error).removeprefix("created_at: ")) from None


def _check_recognized(context: ImportContext) -> None:
    """Raise the error of the files if none of them was recognized."""
    if context.unreadable and not context.formats:
        raise CommandError("; ".join(context.unreadable))
    for text in context.unreadable:
        remark(text)


async def _import(name: str, importer: ConversationImporter, context: ImportContext) -> None:
    """Import one file, archive or folder."""
    try:
        if Path(name).is_dir():  # noqa: ASYNC240 - no request waits
            with progress_bar(f"importing {name}") as bar:
                _show_progress(importer, bar, lambda: None)
                await _run(importer, read_folder(Path(name), context), None)
            return
        async with open_input(name) as file:
            with progress_bar(f"importing {name}", file.size) as bar:
                _show_progress(importer, bar, lambda: file.position)
                await _run(importer, read_file(file.stream, name, context), file.raw)
    except UnknownFormatError as error:
        context.unreadable.append(str(error))


def _show_progress(
    importer: ConversationImporter, bar: Bar, position: Callable[[], int | None]
) -> None:
    importer.on_batch = lambda: bar.show(counted(importer.report.messages, "message"), position())


async def _run(
    importer: ConversationImporter, items: Iterator[Item], source: io.BufferedReader | None
) -> None:
    try:
        await importer.run(items, source)
    except (InvalidInput, UnknownFormatError):  # of an option; before the first item
        raise
    except BaseException:
        remark("stopped: the imported conversations are complete; run the same command to continue")
        raise


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
    """Export whole conversations, one JSON object per line, in the format of `asyncsvc import`.

    The file appears when it is complete. An interrupted export creates no file.
    """
    async with connected(dsn) as svc:
        conversations = svc.conversations.export(
            tenant_id=tenant_id, dialog_id=or_any(dialog_id), user_id=or_any(user_id), split=True
        )
        total, last_id = 0, None
        with progress_bar(f"exporting {tenant_id}") as bar, open_output(output) as write:
            async for conversation in conversations:
                write(_line(conversation))
                total += conversation.id != last_id  # the parts of a conversation are several lines
                last_id = conversation.id
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
