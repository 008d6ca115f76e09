"""`asyncsvc demo`: what the library does, on a server of its own, in some seconds."""

from __future__ import annotations

import atexit
import shlex
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from pathlib import Path
from typing import IO, Annotated, Final
from urllib.parse import urlsplit

import typer
from rich.text import Text

from asyncsvc import embedded
from asyncsvc.cli.drawing import Column, around, bars, beside, console, in_blocks, plain, table
from asyncsvc.cli.inventing import Inventor
from asyncsvc.cli.lines import conversations, count, twice
from asyncsvc.cli.loading import Loader, Rejection
from asyncsvc.cli.printing import many
from asyncsvc.cli.running import CommandError, run, this_command
from asyncsvc.cli.steps import note, step
from asyncsvc.client import AsyncSvc, connect
from asyncsvc.models import Conversation, ImportReport, StoredMessage, UsageBucket
from asyncsvc.validation.dates import zone

TENANT: Final = "demo"
DIALOG: Final = "assistant"
SAMPLE: Final = Path(__file__).with_name("sample.jsonl")
SAMPLE_WORD: Final = "train"
_DAYS: Final = 30
_LISTED: Final = 8
_HITS: Final = 4
_READ_AT_ONCE: Final = 1_000
_LONGEST_CELL: Final = 400
_LONGEST_ID: Final = 12
_BAD_SHOWN: Final = 5
_ROOMY: Final = 96
_NARROW: Final = 64
_LOADING_OPTIONS: Final = {"synchronous_commit": "off", "gin_pending_list_limit": "64MB"}
_EMBEDDED_OPTIONS: Final = ("data", "keep")


def demo(
    context: typer.Context,
    *,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            readable=False,
            metavar="FILE",
            help="Load this file instead of the sample: a JSON object a line, plain or gzip, with"
            ' "id" and "messages" of "role" and "content"; perhaps "user", "created_at", "name".',
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            metavar="DIR",
            help="Keep the server's data here. Otherwise: in a temporary directory that is removed"
            " at the end.",
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the server running, and say how to use it.")
    ] = False,
    dsn: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="ASYNCSVC_DSN",
            help="Use this database instead of a server of its own. Nothing in it is dropped.",
        ),
    ] = None,
    find: Annotated[
        str | None,
        typer.Option(metavar="WORD", help="Look for this word; otherwise for a frequent one."),
    ] = None,
    tz: Annotated[str, typer.Option(metavar="ZONE", help="The time zone of days.")] = "UTC",
) -> None:
    """Start a PostgreSQL, load conversations, list and search them, and draw their statistics.

    It takes some seconds and leaves nothing behind, unless asked to with --keep or --data.
    """
    run(_checked(context, _Options(source, data, keep, dsn, find, tz)))


@dataclass(frozen=True, slots=True)
class _Options:
    source: Path | None
    data: Path | None
    keep: bool
    dsn: str | None
    find: str | None
    tz: str


async def _checked(context: typer.Context, options: _Options) -> None:
    """Settle what excludes each other; a word on the command line beats the environment."""
    given = {name for name in context.params if _was_typed(context, name)}
    if options.dsn is not None and given.intersection(_EMBEDDED_OPTIONS):
        if "dsn" in given:
            raise CommandError("--data and --keep are for the server of the demo, not for --dsn")
        options = _Options(
            options.source, options.data, options.keep, None, options.find, options.tz
        )
    await _demo(options)


def _was_typed(context: typer.Context, name: str) -> bool:
    found = context.get_parameter_source(name)
    return found is not None and found.name == "COMMANDLINE"


async def _demo(options: _Options) -> None:
    path = options.source or SAMPLE
    local = zone(options.tz)
    with twice(path) as file:
        lines = count(file)
        if not lines:
            raise CommandError(f"{path}: is empty")
        async with _database(options) as dsn, _connected(options, dsn) as svc:
            await _migrate(svc)
            await _try_token(svc)
            report, words = await _load(svc, file, lines, local)
            if not report.conversations + report.present:
                raise CommandError(f"{path}: none of its lines is a conversation")
            listed = await _list(svc, local)
            await _find(svc, options.find or _default_word(options, words))
            newest = min(listed[0].created_at, datetime.now(UTC))
            await _draw_stats(svc, options.tz, newest.astimezone(local).date())


# --- where it runs


@asynccontextmanager
async def _database(options: _Options) -> AsyncIterator[str]:
    """Lend a database for the demo, and say at the end what became of it."""
    console().print(Text("asyncsvc demo", style="bold"), end="\n\n")
    if options.dsn is not None:
        yield options.dsn
        _print_closing(f"The rows stay in {_named(options.dsn)}, as those of the tenant {TENANT}.")
        return
    place = _Place.named(options.data) if options.data else _Place.temporary()
    async with _server(place, durable=options.keep or not place.is_temporary) as server:
        yield server.dsn
    if options.keep or not server.started:
        # Started anew, on the same port, because nothing is left that Ctrl-C could break off.
        _print_connecting(await embedded.start(place.path))
        place.keep()
        return
    place.remove()
    _print_stopped(place)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the server keeps its data; a temporary place is removed at exit, if not before."""

    path: Path
    is_temporary: bool

    @classmethod
    def named(cls, path: Path) -> _Place:
        return cls(path, is_temporary=False)

    @classmethod
    def temporary(cls) -> _Place:
        place = cls(Path(tempfile.mkdtemp(prefix="asyncsvc-demo-")), is_temporary=True)
        # At exit, so that whatever happens it goes after the server.
        atexit.register(place.remove)
        return place

    def keep(self) -> None:
        atexit.unregister(self.remove)

    def remove(self) -> None:
        if self.is_temporary:
            shutil.rmtree(self.path, ignore_errors=True)


@asynccontextmanager
async def _server(place: _Place, *, durable: bool) -> AsyncIterator[embedded.EmbeddedPostgres]:
    """Have the server running, set up for loading much at once.

    A load that a crash cuts short is made good by the next one, so no commit waits for the disk;
    and data that will be removed need not get there at all.
    """
    options = _LOADING_OPTIONS if durable else {**_LOADING_OPTIONS, "fsync": "off"}
    async with AsyncExitStack() as stack:
        with step("server", "starting PostgreSQL …") as done:
            running = embedded.running(place.path, options=options)
            server = await stack.enter_async_context(running)
            how = "" if server.started else " was running already"
            done.did = f"PostgreSQL {server.version}{how}, data in {place.path}"
        yield server


def _named(dsn: str) -> str:
    """Name a database without what is secret in its DSN."""
    try:
        parts = urlsplit(dsn)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "the given database"
    return plain(f"{parts.hostname or ''}{port}{parts.path}") or "the given database"


@asynccontextmanager
async def _connected(options: _Options, dsn: str) -> AsyncIterator[AsyncSvc]:
    async with AsyncExitStack() as stack:
        if options.dsn is None:
            yield await stack.enter_async_context(connect(dsn))
            return
        with step("server", "connecting …") as done:
            svc = await stack.enter_async_context(connect(dsn))
            done.did = f"connected to {_named(dsn)}"
        yield svc


# --- the steps


async def _migrate(svc: AsyncSvc) -> None:
    with step("schema", "migrating …") as done:
        applied = await svc.migrate()
        names = ", ".join(f"{migration.version:04} {migration.name}" for migration in applied)
        done.did = f"migrated: {names}" if applied else "up to date"


async def _try_token(svc: AsyncSvc) -> None:
    """Show a token's life. It is revoked at once, since nobody can have seen its secret."""
    with step("token", "issuing a token …") as done:
        issued = await svc.tokens.create(TENANT, name="demo", scopes=("read",))
        token = await svc.tokens.verify(issued.secret, scopes=("read",))
        await svc.tokens.revoke(token.id, tenant_id=token.tenant_id)
        done.did = f"{token.hint}… issued, verified and revoked again"


async def _load(
    svc: AsyncSvc, file: IO[bytes], lines: int, local: tzinfo
) -> tuple[ImportReport, Counter[str]]:
    """Load all lines; return what went in, and the words that are in it."""
    now = datetime.now(UTC)
    first_day = now.astimezone(local).date() - timedelta(days=_DAYS - 1)
    since = datetime.combine(first_day, time(), local).astimezone(UTC)

    def invent_time(number: int) -> datetime:
        return since + (now - since) * min(number / lines, 1.0)

    inventor, bad = Inventor(DIALOG, invent_time), list[Rejection]()

    def reject(rejection: Rejection) -> None:
        bad.append(rejection)
        bad.sort(key=lambda rejection: rejection.number)
        del bad[_BAD_SHOWN:]

    with step("load", "loading", total=lines) as done:
        loader = Loader(svc, TENANT, inventor.fill, reject, done.advance)
        report = await loader.load(conversations(file, local), file)
        done.did = _loaded(report)
    _print_load(report, inventor.invented, bad)
    return report, inventor.words


def _loaded(report: ImportReport) -> str:
    new = f"{many(report.conversations, 'conversation')}, {many(report.messages, 'message')}"
    if not report.present:
        return new
    present = f"{many(report.present, 'conversation')} there already"
    return f"{new}; {present}" if report.conversations else f"nothing new: {present}"


def _print_load(report: ImportReport, invented: set[str], bad: Sequence[Rejection]) -> None:
    if invented and report.conversations:
        note(f"invented, as the lines do not say: {', '.join(sorted(invented))}")
    for line in bad:
        note(f"bad line {line.number}: {plain(line.reason)}", style="yellow")
    if report.rejected > len(bad):
        note(f"and {many(report.rejected - len(bad), 'more bad line')}", style="yellow")


async def _list(svc: AsyncSvc, local: tzinfo) -> list[Conversation]:
    with step("list", "listing …") as done:
        page = await svc.conversations.get_list(
            DIALOG, TENANT, items_per_page=_LISTED, include_dsl=False
        )
        first = [await _first_message(svc, found.id) for found in page.items]
        done.did = f"the newest {len(page.items)} of {many(page.total or 0, 'conversation')}"
    rows = [
        (
            _short(found.id),
            _titled(found) or message,
            message,
            str(found.last_seq),
            found.user_id,
            f"{found.created_at.astimezone(local):%m-%d %H:%M}",
        )
        for found, message in zip(page.items, first, strict=True)
    ]
    columns = (
        Column("id"),
        Column("name", share=2),
        Column("begins", share=3, least_width=_ROOMY),
        Column("messages", right=True),
        Column("user", least_width=_NARROW),
        Column("created"),
    )
    console().print(table(columns, rows))
    return page.items


async def _first_message(svc: AsyncSvc, id: str) -> str:
    messages = await svc.conversations.messages(id, tenant_id=TENANT, limit=1)
    return messages[0].content[:_LONGEST_CELL] if messages else ""


def _default_word(options: _Options, words: Counter[str]) -> str | None:
    if options.source is None:
        return SAMPLE_WORD
    return next((word for word, _ in words.most_common(1)), None)


async def _find(svc: AsyncSvc, word: str | None) -> None:
    if word is None:
        return  # not one word in the file is long enough to look for
    with step("find", "searching …") as done:
        page = await svc.conversations.get_list(
            DIALOG, TENANT, items_per_page=_HITS, keywords=word, include_dsl=False
        )
        hits = [(found, await _hit(svc, found.id, word)) for found in page.items]
        done.did = f"“{plain(word)}” occurs in {many(page.total or 0, 'conversation')}"
    rows = [
        (_titled(found) or _short(found.id), message.role, around(message.content, word))
        for found, message in hits
        if message is not None
    ]
    if rows:
        columns = (Column("name", share=2), Column("who"), Column("says", share=5))
        console().print(table(columns, rows))


async def _hit(svc: AsyncSvc, id: str, word: str) -> StoredMessage | None:
    """Return the first message with the word; none when it stands in the name or the id."""
    seq: int | None = None
    while messages := await svc.conversations.messages(
        id, tenant_id=TENANT, after_seq=seq, limit=_READ_AT_ONCE
    ):
        for message in messages:
            if word.lower() in message.content.lower():
                return message
        seq = messages[-1].seq
    return None


async def _draw_stats(svc: AsyncSvc, tz: str, last_day: date) -> None:
    with step("statistics", "counting …") as done:
        buckets = await svc.conversations.stats(
            TENANT, last_day - timedelta(days=_DAYS - 1), last_day, dialog_id=DIALOG, tz=tz
        )
        total = sum(bucket.pv for bucket in buckets)
        tokens = sum(bucket.tokens for bucket in buckets)
        done.did = f"{many(total, 'conversation')}, {many(tokens, 'token')} in {_DAYS} days"
    columns = (
        Column(f"{last_day:%Y}"),
        *(Column(name, right=True) for name in ("pv", "uv", "rounds", "tokens")),
    )
    rows = [
        (
            f"{bucket.dt:%m-%d}",
            *(f"{value:,}" for value in (bucket.pv, bucket.uv, bucket.rounds, bucket.tokens)),
        )
        for bucket in buckets
    ]
    console().print(in_blocks(columns, rows))
    _plot(buckets)


def _plot(buckets: Sequence[UsageBucket]) -> None:
    days = [f"{bucket.dt:%m-%d}" for bucket in buckets]
    views = bars("pv: conversations a day", days, [b.pv for b in buckets], style="cyan")
    tokens = bars("tokens a day", days, [b.tokens for b in buckets], style="magenta")
    console().print(beside([views, tokens]))


def _titled(found: Conversation) -> str:
    topic = (found.metadata or {}).get("topic")
    return (found.name or (topic if isinstance(topic, str) else ""))[:_LONGEST_CELL]


def _short(id: str) -> str:
    return id if len(id) <= _LONGEST_ID else f"{id[: _LONGEST_ID - 1]}…"


# --- what to do next


def _print_stopped(place: _Place) -> None:
    again = f"{this_command()} demo --keep"
    if place.is_temporary:
        _print_closing("The server is stopped and its data are removed. To keep both:", again)
        return
    where = shlex.quote(str(place.path))
    _print_closing(
        f"The server is stopped; its data stay in {where}. To leave it running:",
        f"{again} --data {where}",
    )


def _print_connecting(server: embedded.EmbeddedPostgres) -> None:
    _print_closing(
        f"The server keeps running on port {server.port}. Use it, here from python -m asyncio:",
        "import asyncsvc",
        f'async with asyncsvc.connect("{server.dsn}") as svc:',
        f'    page = await svc.conversations.get_list("{DIALOG}", "{TENANT}")',
    )
    where = shlex.quote(str(server.data_dir))
    _print_closing("Stop it:", f"{this_command()} postgres stop --data {where}")


def _print_closing(text: str, *code: str) -> None:
    """Print a sentence and lines to copy, which are never wrapped."""
    console().print()
    console().print(Text(text), soft_wrap=True)
    if code:
        console().print()
    for line in code:
        console().print(Text(f"    {line}", style="green"), soft_wrap=True)
