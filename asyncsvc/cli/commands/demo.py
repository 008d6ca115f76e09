"""`asyncsvc demo`: the main functions of the library on a new server, in a few seconds."""

from __future__ import annotations

import atexit
import io
import os
import re
import shlex
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from datetime import time as clock_time
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from rich.table import Table
from rich.text import Text
from typer import Option

from asyncsvc import AsyncSvc, Conversation, ImportReport, InvalidInput, Settings, connect, embedded
from asyncsvc.cli.commands.conversations import print_conversations, print_hits
from asyncsvc.cli.commands.stats import print_usage
from asyncsvc.cli.files import open_seekable
from asyncsvc.cli.importer import ConversationImporter
from asyncsvc.cli.json_lines import count_lines, read_objects
from asyncsvc.cli.options import TimeZone
from asyncsvc.cli.output import counted
from asyncsvc.cli.progress import Bar, progress_bar
from asyncsvc.cli.runner import CommandError, Exit, asynchronous, this_program
from asyncsvc.cli.sample_data import SampleData
from asyncsvc.cli.terminal import console, printable, say
from asyncsvc.exports.record_lines import read_record

TENANT: Final = "demo"
DIALOG: Final = "assistant"
SAMPLE: Final = Path(__file__).with_name("sample.jsonl")
SAMPLE_TEXT: Final = "train"
_SETTINGS: Final = Settings(maintenance_interval=None)
_DAYS: Final = 30
_LISTED: Final = 8
_HITS: Final = 4
_STEP_WIDTH: Final = 14
_WORD: Final = re.compile(r"[^\W\d_]{4,}")

SourceFile = Annotated[
    Path | None,
    Option(
        "--from",
        readable=False,
        metavar="FILE",
        help="Import this file instead of the sample: one JSON object per line, plain or gzip, with"
        ' "id" and "messages" of "role" and "content"; "user_id", "created_at" and "name" are'
        " optional.",
    ),
]
DataDirectory = Annotated[
    Path | None,
    Option(
        "--data",
        readable=False,
        metavar="DIR",
        help="Store the server's data here and keep them. The default is a temporary directory.",
    ),
]
Keep = Annotated[bool, Option("--keep", help="Keep the server running, and print how to use it.")]
DemoDsn = Annotated[
    str | None,
    Option(
        "--dsn",
        metavar="URL",
        help="Use this database instead of a new server. The demo deletes nothing in it."
        " Without --data and --keep, the default is ASYNCSVC_DSN in the environment.",
    ),
]
SearchText = Annotated[
    str | None, Option(metavar="TEXT", help="Search for this text. The default is a frequent word.")
]


@asynchronous
async def demo(
    *,
    source: SourceFile = None,
    data: DataDirectory = None,
    keep: Keep = False,
    dsn: DemoDsn = None,
    search: SearchText = None,
    tz: TimeZone = UTC,
) -> Exit:
    """Start PostgreSQL, import conversations, list and search them, and show their statistics.

    This takes a few seconds. Unless --keep, --data or --dsn is used, the server and its data are
    then removed. Rejected lines of the file are reported on stderr, and the exit code is 3.
    """
    if data is None and not keep:
        dsn = dsn or os.environ.get("ASYNCSVC_DSN")
    elif dsn is not None:
        raise InvalidInput("dsn", "cannot be combined with --data and --keep, which start a server")
    path = source or SAMPLE
    with open_seekable(path) as file:
        lines = count_lines(file)
        if not lines:
            raise CommandError(f"{path}: is empty")
        async with _services(dsn, data, keep=keep) as svc:
            await _migrate(svc)
            await _try_token(svc)
            report = await _import(svc, file, lines, tz)
            if not report.conversations + report.present:
                raise CommandError(f"{path}: no line is a conversation")
            newest = await _list(svc, tz)
            text = search or (SAMPLE_TEXT if source is None else await _frequent_word(svc, newest))
            await _search(svc, text, tz)
            await _show_stats(svc, tz, min(newest.created_at, datetime.now(UTC)).astimezone(tz))
    return Exit.ATTENTION if report.rejected else Exit.DONE


# --- the server


@asynccontextmanager
async def _services(dsn: str | None, data: Path | None, *, keep: bool) -> AsyncIterator[AsyncSvc]:
    """Open the services on a database or on a new server; at the end print where the data are."""
    async with AsyncExitStack() as stack:
        if dsn is not None:
            with _step("server", "connecting …") as step:
                svc = await stack.enter_async_context(connect(dsn, settings=_SETTINGS))
                _print_title()
                step.result = f"connected to {_without_secrets(dsn)}"
            yield svc
            _print_advice(f"The rows remain in {_without_secrets(dsn)}, in the tenant {TENANT}.")
            return
        directory = data or _temporary_directory()
        with _step("server", "starting PostgreSQL …") as step:
            server = await stack.enter_async_context(embedded.running(directory))
            _print_title()
            state = "" if server.started else " was running already"
            step.result = f"PostgreSQL {server.version}{state}, data in {directory}"
        async with connect(server.dsn, settings=_SETTINGS) as svc:
            yield svc
    if keep or not server.started:
        # Start it again now: an earlier Ctrl-C would have left a server without its advice.
        server = await embedded.start(directory)
        atexit.unregister(_remove_directory)
        _print_instructions(server)
    else:
        _print_stopped(directory, is_temporary=data is None)


def _print_title() -> None:
    console().print(Text("asyncsvc demo", style="bold"), end="\n\n")


def _temporary_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="asyncsvc-demo-"))
    # At exit, because `embedded` may have to stop an interrupted demo's server at exit too.
    atexit.register(_remove_directory, directory)
    return directory


def _remove_directory(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)


def _without_secrets(dsn: str) -> str:
    """Return the host, port and database of a DSN."""
    try:
        parts = urlsplit(dsn)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "the database"
    return printable(f"{parts.hostname or ''}{port}{parts.path}") or "the database"


# --- the steps


@dataclass(slots=True)
class _Step:
    bar: Bar
    result: str = ""


@contextmanager
def _step(name: str, task: str, total: int | None = None) -> Iterator[_Step]:
    """Show a progress bar, then the result and the time of a step. A failed step prints nothing."""
    started = time.perf_counter()
    with progress_bar(task, total) as bar:
        step = _Step(bar)
        yield step
    milliseconds = (time.perf_counter() - started) * 1_000
    grid = Table.grid(expand=True)
    grid.add_column(width=_STEP_WIDTH)
    grid.add_column(ratio=1, overflow="fold")
    grid.add_column(justify="right", min_width=10, no_wrap=True)
    grid.add_row(
        Text.assemble(("✓ ", "green"), (name, "bold")),
        Text(step.result),
        Text(f"{milliseconds:,.0f} ms", style="cyan"),
    )
    console().print(grid)


async def _migrate(svc: AsyncSvc) -> None:
    with _step("schema", "migrating …") as step:
        applied = await svc.migrate()
        names = ", ".join(f"{migration.version:04} {migration.name}" for migration in applied)
        step.result = f"migrated: {names}" if applied else "up to date"


async def _try_token(svc: AsyncSvc) -> None:
    """Issue, verify and revoke a token. Its secret is not printed, so nobody can use it."""
    with _step("token", "issuing a token …") as step:
        issued = await svc.tokens.create(tenant_id=TENANT, name="demo", scopes=("read",))
        token = await svc.tokens.verify(issued.secret, scopes=("read",))
        await svc.tokens.revoke(token.id, tenant_id=token.tenant_id)
        step.result = f"{token.hint}… issued, verified and revoked"


async def _import(
    svc: AsyncSvc, file: io.BufferedReader, lines: int, local: tzinfo
) -> ImportReport:
    """Import all lines; conversations without a time are spread over the last 30 days."""
    now = datetime.now(UTC)
    first_day = now.astimezone(local).date() - timedelta(days=_DAYS - 1)
    start = datetime.combine(first_day, clock_time(), local).astimezone(UTC)
    sample = SampleData(DIALOG, lambda number: start + (now - start) * min(number / lines, 1.0))

    with _step("import", "importing", total=lines) as step:

        def show() -> None:
            report = importer.report
            done = report.conversations + report.present + report.rejected
            step.bar.show(counted(report.messages, "message"), done)

        importer = ConversationImporter(
            svc=svc,
            tenant_id=TENANT,
            complete=sample.complete,
            on_batch=show,
        )
        await importer.run(read_objects(file, lambda line: read_record(line, local)), file)
        step.result = _import_result(importer.report, sample.added)
    return importer.report


def _import_result(report: ImportReport, added: set[str]) -> str:
    parts = (
        f"{counted(report.conversations, 'conversation')}, {counted(report.messages, 'message')}",
        f"{report.present:,} present" if report.present else "",
        f"{report.rejected:,} rejected" if report.rejected else "",
        f"sample values for {', '.join(sorted(added))}" if added and report.conversations else "",
    )
    return "; ".join(filter(None, parts))


async def _list(svc: AsyncSvc, local: tzinfo) -> Conversation:
    """List the newest conversations and return the first."""
    with _step("list", "listing …") as step:
        page = await svc.conversations.get_list(
            tenant_id=TENANT, dialog_id=DIALOG, items_per_page=_LISTED, include_dsl=False
        )
        step.result = "the newest conversations"
    print_conversations(page, local)
    return page.items[0]


async def _frequent_word(svc: AsyncSvc, conversation: Conversation) -> str | None:
    """Return the most frequent word of at least 4 letters in a conversation."""
    messages = await svc.conversations.messages(conversation.id, tenant_id=TENANT)
    words = Counter(word for message in messages for word in _WORD.findall(message.content.lower()))
    return next((word for word, _ in words.most_common(1)), None)


async def _search(svc: AsyncSvc, text: str | None, local: tzinfo) -> None:
    if text is None:
        return
    with _step("search", "searching …") as step:
        page = await svc.conversations.search(
            tenant_id=TENANT, keywords=text, dialog_id=DIALOG, limit=_HITS
        )
        at_least = "" if page.next is None else "at least "
        conversations = counted(len(page.items), "conversation")
        step.result = f"“{printable(text)}” occurs in {at_least}{conversations}"
    print_hits(page.items, local)


async def _show_stats(svc: AsyncSvc, tz: tzinfo, newest: datetime) -> None:
    last_day = newest.date()
    with _step("statistics", "counting …") as step:
        buckets = await svc.conversations.stats(
            tenant_id=TENANT,
            from_date=last_day - timedelta(days=_DAYS - 1),
            to_date=last_day,
            basis="creation",
            dialog_id=DIALOG,
            tz=str(tz),
        )
        total = sum(bucket.conversations for bucket in buckets)
        tokens = sum(bucket.tokens for bucket in buckets)
        usage = f"{counted(total, 'conversation')}, {counted(tokens, 'token')}"
        step.result = f"{usage} in {_DAYS} days"
    print_usage("day", buckets, with_average=False)


# --- what to do next


def _print_stopped(directory: Path, *, is_temporary: bool) -> None:
    command = f"{this_program()} demo --keep"
    if is_temporary:
        _print_advice("The server is stopped and its data are removed. To keep both:", command)
        return
    path = shlex.quote(str(directory))
    _print_advice(
        f"The server is stopped; its data remain in {path}. To keep it running:",
        f"{command} --data {path}",
    )


def _print_instructions(server: embedded.EmbeddedPostgres) -> None:
    _print_advice(
        f"The server keeps running on port {server.port}. To use it from a shell:",
        f"export ASYNCSVC_DSN={server.dsn} ASYNCSVC_TENANT={TENANT}",
        f"{this_program()} list",
    )
    _print_advice(
        "To use it from python -m asyncio:",
        "import asyncsvc",
        f'svc = await asyncsvc.connect("{server.dsn}")',
        f'page = await svc.conversations.get_list(tenant_id="{TENANT}")',
    )
    path = shlex.quote(str(server.data_dir))
    _print_advice("To stop it:", f"{this_program()} postgres stop --data {path}")


def _print_advice(text: str, *code: str) -> None:
    """Print a sentence, and lines of code for pasting."""
    console().print()
    say(text)
    for line in code:
        say(line, "green")
