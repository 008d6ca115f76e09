"""`asyncsvc list`, `search` and `show`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, tzinfo
from typing import Annotated, Final, Literal

from rich.padding import Padding
from rich.text import Text
from typer import Argument, Option

from asyncsvc import Conversation, Hit, Page, StoredMessage
from asyncsvc.cli.options import (
    After,
    AsJson,
    Dialog,
    Dsn,
    FromDate,
    Tenant,
    TimeZone,
    ToDate,
    User,
    or_any,
)
from asyncsvc.cli.output import counted, print_json, print_next_page, print_pairs
from asyncsvc.cli.progress import progress_bar
from asyncsvc.cli.runner import asynchronous, connected
from asyncsvc.cli.terminal import Column, console, print_table, printable, printable_lines, say
from asyncsvc.cli.times import format_time

_MAX_PAGE_SIZE: Final = 1_000
_MAX_NAME: Final = 400
_SHOWN_MESSAGES: Final = 20
_INDENT: Final = 4

PageSize = Annotated[
    int, Option("--limit", min=1, max=_MAX_PAGE_SIZE, help="Conversations per page.")
]
PageNumber = Annotated[int, Option("--page", min=1, help="The number of the page.")]
ExpUser = Annotated[str | None, Option("--exp-user", metavar="ID", help="Only this exp_user_id.")]
Keywords = Annotated[
    str,
    Option(
        metavar="TEXT", help="Only conversations with this text in the id, the name or a message."
    ),
]
ListOrder = Annotated[
    Literal["created_at", "updated_at", "name", "round", "tokens", "duration", "thumb_up"],
    Option("--order", help="The order. With updated_at, --from and --to also refer to it."),
]
Ascending = Annotated[bool, Option("--asc", help="Ascending instead of descending order.")]
Last = Annotated[
    int | None,
    Option(
        min=1,
        max=_MAX_PAGE_SIZE,
        help="The number of messages, from the end.",
        show_default=str(_SHOWN_MESSAGES),
    ),
]
AfterSeq = Annotated[
    int | None,
    Option(
        min=0,
        metavar="SEQ",
        help=f"Only messages after this one: the first {_SHOWN_MESSAGES}; with --last, the last.",
    ),
]


@asynchronous
async def list_conversations(
    *,
    dsn: Dsn,
    tenant_id: Tenant,
    dialog_id: Dialog = None,
    user_id: User = None,
    exp_user_id: ExpUser = None,
    keywords: Keywords = "",
    from_date: FromDate = None,
    to_date: ToDate = None,
    orderby: ListOrder = "created_at",
    ascending: Ascending = False,
    page_number: PageNumber = 1,
    items_per_page: PageSize = 30,
    after: After = None,
    tz: TimeZone = UTC,
    as_json: AsJson = False,
) -> None:
    """List conversations, newest first, and print the option for the next page."""
    async with connected(dsn) as svc:
        with progress_bar("searching"):
            page = await svc.conversations.get_list(
                tenant_id=tenant_id,
                dialog_id=or_any(dialog_id),
                page_number=page_number,
                items_per_page=items_per_page,
                orderby=orderby,
                desc=not ascending,
                user_id=or_any(user_id),
                exp_user_id=or_any(exp_user_id),
                include_dsl=False,
                keywords=keywords,
                from_date=from_date,
                to_date=to_date,
                after=after,
                tz=str(tz),
            )
    if as_json:
        print_json(page)
        return
    print_conversations(page, tz)
    has_more = after is None and page_number * items_per_page < (page.total or 0)
    if page.next is not None or has_more:  # some orders have no cursors
        print_next_page(f"--after {page.next}" if page.next else f"--page {page_number + 1}")


def print_conversations(page: Page[Conversation], local: tzinfo) -> None:
    """Print a table of conversations and their total."""
    columns: list[Column[Conversation]] = [
        Column("id", lambda item: item.id),
        Column("name", lambda item: (item.name or "-")[:_MAX_NAME], share=1),
        Column("user", lambda item: item.user_id or "-", rank=4),
        Column("messages", lambda item: f"{item.last_seq:,}", right=True, rank=2),
        Column("tokens", lambda item: f"{item.tokens:,}", right=True, rank=3),
        Column("created", lambda item: format_time(item.created_at, local), rank=1),
    ]
    if page.items:
        print_table(columns, page.items)
    total = counted(page.total or 0, "conversation")
    say(f"{len(page.items):,} of {total}" if page.total else "no conversations")


@asynchronous
async def search(
    keywords: Annotated[str, Argument(metavar="TEXT", help="The text to find.")],
    *,
    dsn: Dsn,
    tenant_id: Tenant,
    dialog_id: Dialog = None,
    user_id: User = None,
    limit: PageSize = 20,
    after: After = None,
    tz: TimeZone = UTC,
    as_json: AsJson = False,
) -> None:
    """Find the newest conversations with a text in a message, and show the matches."""
    async with connected(dsn) as svc:
        with progress_bar("searching"):
            page = await svc.conversations.search(
                tenant_id=tenant_id,
                keywords=keywords,
                dialog_id=or_any(dialog_id),
                user_id=or_any(user_id),
                after=after,
                limit=limit,
            )
    if as_json:
        print_json(page)
        return
    print_hits(page.items, tz)
    if page.next is not None:
        print_next_page(f"--after {page.next}")


def print_hits(hits: Sequence[Hit], local: tzinfo) -> None:
    """Print the matches of a search, each with the text around it."""
    for hit in hits:
        say(f"{hit.id}  #{hit.seq}  {format_time(hit.created_at, local)}", "bold cyan")
        _print_indented(Text(printable(hit.snippet)))
    if not hits:
        say("no conversations")


@asynchronous
async def show(
    id: Annotated[str, Argument(metavar="ID", help="The conversation.")],
    *,
    dsn: Dsn,
    tenant_id: Tenant,
    last: Last = None,
    after_seq: AfterSeq = None,
    tz: TimeZone = UTC,
    as_json: AsJson = False,
) -> None:
    """Show one conversation: its fields and its last messages, with --json also its dsl."""
    if last is None and after_seq is None:
        last = _SHOWN_MESSAGES
    async with connected(dsn) as svc:
        conversation = await svc.conversations.get_by_id(
            id, tenant_id=tenant_id, include_dsl=as_json
        )
        messages = await svc.conversations.messages(
            id, tenant_id=tenant_id, after=after_seq, last=last, limit=_SHOWN_MESSAGES
        )
    if as_json:
        print_json(conversation.model_copy(update={"messages": tuple(messages)}))
        return
    _print_fields(conversation, tz)
    for message in messages:
        _print_message(message, tz)
    console().print()
    _print_range(messages, conversation.last_seq)


def _print_fields(conversation: Conversation, local: tzinfo) -> None:
    usage = (
        f"{counted(conversation.round, 'round')}, {counted(conversation.tokens, 'token')},"
        f" {conversation.duration:,.1f} s,"
        f" {conversation.thumb_up:,} up, {conversation.thumb_down:,} down"
    )
    fields = {
        "id": conversation.id,
        "name": conversation.name,
        "tenant": conversation.tenant_id,
        "dialog": conversation.dialog_id,
        "user": conversation.user_id,
        "exp_user": conversation.exp_user_id,
        "source": conversation.source,
        "version": conversation.version_title,
        "created": format_time(conversation.created_at, local),
        "updated": format_time(conversation.updated_at, local),
        "usage": usage,
        "errors": conversation.errors,
        "metadata": _json(conversation.metadata) if conversation.metadata else None,
    }
    print_pairs({name: value for name, value in fields.items() if value})


def _print_message(message: StoredMessage, local: tzinfo) -> None:
    thumb = {1: "  thumb up", -1: "  thumb down"}.get(message.thumb or 0, "")
    time = format_time(message.created_at, local)
    console().print()
    say(f"#{message.seq}  {message.role}  {time}{thumb}", "bold cyan")
    _print_indented(printable_lines(message.content))
    for name, value in (("payload", message.payload), ("reference", message.reference)):
        if value:
            _print_indented(Text(f"{name}: {printable(_json(value))}", style="dim"))


def _print_indented(text: Text) -> None:
    text.overflow = "fold"
    console().print(Padding(text, (0, 0, 0, _INDENT)))


def _print_range(messages: Sequence[StoredMessage], last_seq: int) -> None:
    """Print which messages were shown, and the option for others."""
    if not messages:
        say("no such messages" if last_seq else "no messages")
        return
    first, last = messages[0].seq, messages[-1].seq
    say(f"messages {first:,} to {last:,}, the newest is {last_seq:,}")
    if last < last_seq:
        say(f"The next messages: the same command with --after-seq {last}")
    elif first > 1:
        say("Earlier messages: the same command with a greater --last, or --after-seq 0")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
