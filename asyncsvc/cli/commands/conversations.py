"""`asyncsvc list`, `search` and `show`: what is in the database, for a person to read."""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Annotated, Final

import typer
from rich.padding import Padding
from rich.text import Text

from asyncsvc.cli.drawing import Column, as_written, console, plain, table
from asyncsvc.cli.options import After, AsJson, Dsn, From, Tenant, To, Tz
from asyncsvc.cli.printing import many, print_json, print_pairs, when
from asyncsvc.cli.progress import bar
from asyncsvc.cli.running import connected, run
from asyncsvc.client import AsyncSvc
from asyncsvc.models import Conversation, Hits, Page, StoredMessage
from asyncsvc.validation.dates import zone
from asyncsvc.validation.types import ANY

_MOST: Final = 1_000
_SHOWN: Final = 20
_INDENT: Final = 4
"""A UUID; who has longer ids gets them whole by --json."""
_ROOMY: Final = 80
_NARROW: Final = 64


class Order(enum.StrEnum):
    """What a list is ordered by; the names are the library's."""

    CREATE_TIME = "created_at"
    UPDATE_TIME = "updated_at"
    NAME = "name"
    ROUND = "round"
    TOKENS = "tokens"
    DURATION = "duration"
    THUMB_UP = "thumb_up"


@dataclass(frozen=True, slots=True)
class _Query:
    """Which conversations are asked for."""

    tenant: str
    dialog: str
    user: str | None
    exp_user: str | None
    keywords: str
    since: str | None
    until: str | None
    order: Order
    ascending: bool
    page: int
    limit: int
    after: str | None
    tz: str

    async def ask(self, svc: AsyncSvc) -> Page[Conversation]:
        return await svc.conversations.get_list(
            self.dialog,
            self.tenant,
            self.page,
            self.limit,
            self.order.value,
            not self.ascending,
            user_id=self.user,
            exp_user_id=self.exp_user,
            include_dsl=False,
            keywords=self.keywords,
            from_date=self.since,
            to_date=self.until,
            after=self.after,
            tz=self.tz,
        )


def list_(
    *,
    dsn: Dsn = None,
    tenant: Tenant,
    dialog: Annotated[str, typer.Option(metavar="ID", help="The dialog.")],
    user: Annotated[str | None, typer.Option(metavar="ID", help="This user alone.")] = None,
    exp_user: Annotated[
        str | None, typer.Option(metavar="ID", help="This exp_user_id alone.")
    ] = None,
    keywords: Annotated[
        str,
        typer.Option(metavar="TEXT", help="Only where this occurs in id, name or a message."),
    ] = "",
    since: From = None,
    until: To = None,
    order: Annotated[
        Order,
        typer.Option(help="What to order by. By update_time the dates mean that, too."),
    ] = Order.CREATE_TIME,
    ascending: Annotated[
        bool, typer.Option("--asc", help="The least or oldest first, instead of last.")
    ] = False,
    page: Annotated[int, typer.Option(min=1, help="The number of the page.")] = 1,
    limit: Annotated[int, typer.Option(min=1, max=_MOST, help="Conversations a page.")] = 30,
    after: After = None,
    tz: Tz = "UTC",
    as_json: AsJson = False,
) -> None:
    """List the conversations of a dialog, newest first, and say how to get the next page."""
    query = _Query(
        tenant, dialog, user, exp_user, keywords, since, until, order, ascending,
        page, limit, after, tz,
    )  # fmt: skip
    run(_list(dsn, query, as_json=as_json))


async def _list(dsn: str | None, query: _Query, *, as_json: bool) -> None:
    local = zone(query.tz)
    async with connected(dsn, max_size=1) as svc:
        with bar("looking"):
            found = await query.ask(svc)
    if as_json:
        print_json({"total": found.total, "items": found.items, "next": found.next})
        return
    if found.items:
        _print_list(found.items, local)
    total = many(found.total or 0, "conversation")
    console().print(f"{len(found.items):,} of {total}" if found.total else "no conversations")
    _print_next(found, query)


def _print_list(conversations: Sequence[Conversation], local: tzinfo) -> None:
    columns = (
        Column("id", share=3),
        Column("name", share=2),
        Column("user", share=1, least_width=_ROOMY),
        Column("messages", right=True, least_width=_NARROW),
        Column("tokens", right=True, least_width=_ROOMY),
        Column("created", least_width=_NARROW),
    )
    rows = [
        (
            found.id,
            (found.name or "-")[:_MOST],
            found.user_id or "-",
            f"{found.last_seq:,}",
            f"{found.tokens:,}",
            when(found.created_at, local),
        )
        for found in conversations
    ]
    console().print(table(columns, rows))


def _print_next(page: Page[Conversation], query: _Query) -> None:
    """Say what to add to the same command for the next page."""
    if page.next is not None:
        more = f"--after {page.next}"
    elif query.after is None and query.page * query.limit < (page.total or 0):
        more = f"--page {query.page + 1}"  # this order has no cursors
    else:
        return
    console().print(Text(f"The next page: the same command with {more}"), soft_wrap=True)


def search(
    keywords: Annotated[str, typer.Argument(metavar="TEXT", help="What a message should hold.")],
    *,
    dsn: Dsn = None,
    tenant: Tenant,
    dialog: Annotated[str | None, typer.Option(metavar="ID", help="This dialog alone.")] = None,
    user: Annotated[str | None, typer.Option(metavar="ID", help="This user alone.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=_MOST, help="Conversations a page.")] = 20,
    after: After = None,
    tz: Tz = "UTC",
    as_json: AsJson = False,
) -> None:
    """Find the newest conversations in which a message holds a text, and show where."""
    sought = _Sought(tenant, keywords, dialog, user, limit, after)
    run(_search(dsn, sought, tz, as_json=as_json))


@dataclass(frozen=True, slots=True)
class _Sought:
    """What is searched for, and where."""

    tenant: str
    keywords: str
    dialog: str | None
    user: str | None
    limit: int
    after: str | None

    async def ask(self, svc: AsyncSvc) -> Hits:
        return await svc.conversations.search(
            self.tenant,
            self.keywords,
            dialog_id=ANY if self.dialog is None else self.dialog,
            user_id=ANY if self.user is None else self.user,
            after=self.after,
            limit=self.limit,
        )


async def _search(dsn: str | None, sought: _Sought, tz: str, *, as_json: bool) -> None:
    local = zone(tz)
    async with connected(dsn, max_size=1) as svc:
        with bar("looking"):
            found = await sought.ask(svc)
    if as_json:
        print_json({"items": found.items, "next": found.next})
        return
    for hit in found.items:
        head = f"{plain(hit.id)}  #{hit.seq}  {when(hit.created_at, local)}"
        console().print(Text(head, style="bold cyan"))
        _print_indented(Text(plain(hit.snippet)))
    if not found.items:
        console().print("no conversations")
    if found.next is not None:
        more = f"The next page: the same command with --after {found.next}"
        console().print(Text(more), soft_wrap=True)


def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="The conversation.")],
    *,
    dsn: Dsn = None,
    tenant: Tenant,
    last: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=_MOST,
            help="How many of the last messages.",
            show_default=str(_SHOWN),
        ),
    ] = None,
    after_seq: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="SEQ",
            help=f"Only messages behind this one: the first {_SHOWN}, or with --last the last.",
        ),
    ] = None,
    tz: Tz = "UTC",
    as_json: AsJson = False,
) -> None:
    """Show one conversation: its fields, and its last messages. With --json its dsl, too."""
    run(_show(dsn, _Wanted(tenant, id, last, after_seq), tz, as_json=as_json))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A conversation, and which of its messages."""

    tenant: str
    id: str
    last: int | None
    after_seq: int | None

    async def messages(self, svc: AsyncSvc) -> list[StoredMessage]:
        last = _SHOWN if self.last is None and self.after_seq is None else self.last
        return await svc.conversations.messages(
            self.id, tenant_id=self.tenant, after_seq=self.after_seq, last=last, limit=_SHOWN
        )


async def _show(dsn: str | None, wanted: _Wanted, tz: str, *, as_json: bool) -> None:
    local = zone(tz)
    async with connected(dsn, max_size=1) as svc:
        found = await svc.conversations.get_by_id(
            wanted.id, tenant_id=wanted.tenant, include_dsl=as_json
        )
        messages = await wanted.messages(svc)
    if as_json:
        print_json(found.model_copy(update={"messages": tuple(messages)}))
        return
    _print_fields(found, local)
    for message in messages:
        _print_message(message, local)
    _print_shown(found, messages)


def _print_fields(found: Conversation, local: tzinfo) -> None:
    counters = (
        f"{many(found.round, 'round')}, {many(found.tokens, 'token')}, {found.duration:,.1f} s,"
        f" {found.thumb_up:,} up, {found.thumb_down:,} down"
    )
    fields = {
        "id": found.id,
        "name": found.name,
        "tenant": found.tenant_id,
        "dialog": found.dialog_id,
        "user": found.user_id,
        "exp_user": found.exp_user_id,
        "source": found.source,
        "version": found.version_title,
        "created": when(found.created_at, local),
        "updated": when(found.updated_at, local),
        "usage": counters,
        "errors": found.errors,
        "metadata": _json(found.metadata) if found.metadata else None,
    }
    print_pairs({name: value for name, value in fields.items() if value})


def _print_message(message: StoredMessage, local: tzinfo) -> None:
    thumb = {1: "  thumb up", -1: "  thumb down"}.get(message.thumb or 0, "")
    head = f"#{message.seq}  {plain(message.role)}  {when(message.created_at, local)}{thumb}"
    console().print()
    console().print(Text(head, style="bold cyan"))
    _print_indented(as_written(message.content))
    for name, value in (("payload", message.payload), ("reference", message.reference)):
        if value:
            _print_indented(Text(f"{name}: {plain(_json(value))}", style="dim"))


def _print_indented(text: Text) -> None:
    text.overflow = "fold"
    console().print(Padding(text, (0, 0, 0, _INDENT)))


def _print_shown(found: Conversation, messages: Sequence[StoredMessage]) -> None:
    console().print()
    if not messages:
        console().print("no messages" if not found.last_seq else "no such messages")
        return
    first, last = messages[0].seq, messages[-1].seq
    console().print(f"messages {first:,} to {last:,}, the newest is {found.last_seq:,}")
    if last < found.last_seq:
        console().print(f"The next ones: the same command with --after-seq {last}")
    elif first > 1:
        console().print("Earlier ones: the same command with a greater --last, or --after-seq 0")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
