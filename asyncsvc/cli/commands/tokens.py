"""`asyncsvc tokens`: API tokens, whose secret is seen once, on stdout, when one is created."""

from __future__ import annotations

import enum
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Annotated, Final

import typer
from rich.text import Text

from asyncsvc.cli.ages import age
from asyncsvc.cli.drawing import Column, console, plain, table
from asyncsvc.cli.options import After, AsJson, Dsn, Tenant, Tz
from asyncsvc.cli.printing import print_json, when
from asyncsvc.cli.progress import messages
from asyncsvc.cli.running import CommandError, Exit, connected, run
from asyncsvc.dates import instants, zone
from asyncsvc.errors import InsufficientScope, InvalidToken
from asyncsvc.fields import ANY, LATEST
from asyncsvc.models import APIToken

_MOST: Final = 1_000
_LONGEST_INPUT: Final = 4_096
_ROOMY: Final = 100
_NARROW: Final = 64

tokens = typer.Typer(
    name="tokens",
    help="Create, list, verify and revoke API tokens.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


class Kind(enum.StrEnum):
    """What a token is for; one kind never passes as the other."""

    API = "api"
    BETA = "beta"


Scope = Annotated[
    list[str] | None,
    typer.Option("--scope", metavar="TEXT", help="A scope; * is all. Give it once for each."),
]


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a new token is to be."""

    tenant: str
    name: str
    scopes: tuple[str, ...]
    dialog: str | None
    source: str | None
    kind: Kind
    expires: str | None
    tz: str

    def expires_at(self) -> datetime | None:
        """Return when it ends: after so long, or behind the day that was named."""
        if self.expires is None:
            return None
        term, now = age(self.expires), datetime.now(UTC)
        try:
            end = instants(None, self.expires, self.tz)[1] if term is None else now + term
        except OverflowError:
            end = LATEST
        if end is None or end <= now:
            raise CommandError("--expires must not be over already", Exit.MISUSED)
        return end


@tokens.command()
def create(
    *,
    dsn: Dsn = None,
    tenant: Tenant,
    name: Annotated[str, typer.Option(metavar="TEXT", help="What people call it.")],
    scope: Scope = None,
    dialog: Annotated[str | None, typer.Option(metavar="ID", help="For this dialog.")] = None,
    source: Annotated[str | None, typer.Option(metavar="TEXT", help="Where it is used.")] = None,
    kind: Annotated[Kind, typer.Option(help="beta is for embedded chats.")] = Kind.API,
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="AGE|DATE",
            help="When it ends: in 12h, 90d or 52w; or the last day, as 2026-12-31.",
            show_default="never",
        ),
    ] = None,
    tz: Tz = "UTC",
    as_json: AsJson = False,
) -> None:
    """Create a token. Its secret is all that stdout gets, this once; the rest goes to stderr.

    So it can go where it belongs without being seen: `asyncsvc tokens create … | your-vault put`.
    """
    wish = _Wish(tenant, name, tuple(scope or ()), dialog, source, kind, expires, tz)
    run(_create(dsn, wish, as_json=as_json))


async def _create(dsn: str | None, wish: _Wish, *, as_json: bool) -> None:
    expires_at, local = wish.expires_at(), zone(wish.tz)
    async with connected(dsn, max_size=1) as svc:
        issued = await svc.tokens.create(
            wish.tenant,
            name=wish.name,
            scopes=wish.scopes,
            dialog_id=wish.dialog,
            source=wish.source,
            kind=wish.kind.value,
            expires_at=expires_at,
        )
    secret = issued.secret.get_secret_value()
    if as_json:
        print_json({"token": issued.token, "secret": secret})
        return
    print(secret)  # noqa: T201 - alone, and never wrapped
    ends = when(issued.token.expires_at, local) if expires_at else "it is revoked"
    messages().print(
        Text(f"Token {issued.token.id} is good until {ends}. Nobody can read its secret again.")
    )


@tokens.command("list")
def list_(
    *,
    dsn: Dsn = None,
    tenant: Tenant,
    dialog: Annotated[str | None, typer.Option(metavar="ID", help="This dialog alone.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="This kind alone.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=_MOST, help="Tokens a page.")] = 100,
    after: After = None,
    tz: Tz = "UTC",
    as_json: AsJson = False,
) -> None:
    """List a tenant's tokens, newest first, with the expired and the revoked ones."""
    run(_list(dsn, _Page(tenant, dialog, kind, limit, after), tz, as_json=as_json))


@dataclass(frozen=True, slots=True)
class _Page:
    """Which tokens are asked for."""

    tenant: str
    dialog: str | None
    kind: Kind | None
    limit: int
    after: str | None


async def _list(dsn: str | None, asked: _Page, tz: str, *, as_json: bool) -> None:
    local = zone(tz)
    async with connected(dsn, max_size=1) as svc:
        found = await svc.tokens.get_list(
            asked.tenant,
            kind=asked.kind.value if asked.kind else ANY,
            dialog_id=ANY if asked.dialog is None else asked.dialog,
            after=asked.after,
            limit=asked.limit,
        )
    if as_json:
        print_json({"items": found.items, "next": found.next})
        return
    if not found.items:
        console().print("no tokens")
        return
    _print_list(found.items, local)
    if found.next is not None:
        more = f"The next page: the same command with --after {found.next}"
        console().print(Text(more), soft_wrap=True)


def _print_list(found: list[APIToken], local: tzinfo) -> None:
    columns = (
        Column("id"),
        Column("name", share=2),
        Column("hint", least_width=_ROOMY),
        Column("scopes", share=1, least_width=_ROOMY),
        Column("expires", least_width=_NARROW),
        Column("status"),
    )
    rows = [
        (
            token.id,
            token.name,
            f"{token.hint}…",
            " ".join(token.scopes) or "-",
            when(token.expires_at, local),
            token.status,
        )
        for token in found
    ]
    console().print(table(columns, rows))


@tokens.command()
def verify(
    *,
    dsn: Dsn = None,
    scope: Scope = None,
    kind: Annotated[Kind, typer.Option(help="The kind that it must be.")] = Kind.API,
    as_json: AsJson = False,
) -> None:
    """Say whether a token is good now: exit code 0 if it is, 3 if it is not.

    The secret is read from standard input, or asked for without showing it; it is no argument,
    since everybody on a machine can see those. It does not count as a use of the token.
    """
    run(_verify(dsn, _read_secret(), tuple(scope or ()), kind, as_json=as_json))


def _read_secret() -> str:
    """Read the secret from the pipe, or ask for it."""
    if sys.stdin.isatty():
        return str(typer.prompt("The token's secret", hide_input=True, err=True)).strip()
    return sys.stdin.buffer.read(_LONGEST_INPUT).decode(errors="replace").strip()


async def _verify(
    dsn: str | None, secret: str, scopes: tuple[str, ...], kind: Kind, *, as_json: bool
) -> Exit:
    token, reason = None, ""
    async with connected(dsn, max_size=1) as svc:
        try:
            token = await svc.tokens.verify(secret, kind=kind.value, scopes=scopes, touch=False)
        except (InvalidToken, InsufficientScope) as error:
            reason = plain(str(error))
    if as_json:
        print_json({"valid": token is not None, "reason": reason or None, "token": token})
    elif token is None:
        console().print(Text(reason), soft_wrap=True)
    else:
        said = f"valid: {token.id}, “{token.name}” of the tenant {token.tenant_id}"
        console().print(Text(plain(said)), soft_wrap=True)
    return Exit.ATTENTION if token is None else Exit.DONE


@tokens.command()
def revoke(
    id: Annotated[str, typer.Argument(metavar="ID", help="The token's id, as `list` shows it.")],
    *,
    dsn: Dsn = None,
    tenant: Tenant,
    tz: Tz = "UTC",
    as_json: AsJson = False,
) -> None:
    """End a token now, and for good: the next use of it is refused. Its row stays."""
    run(_revoke(dsn, tenant, id, tz, as_json=as_json))


async def _revoke(dsn: str | None, tenant: str, id: str, tz: str, *, as_json: bool) -> None:
    local = zone(tz)
    async with connected(dsn, max_size=1) as svc:
        token = await svc.tokens.revoke(id, tenant_id=tenant)
    if as_json:
        print_json(token)
    else:
        said = f"“{token.name}” is revoked since {when(token.revoked_at, local)}"
        console().print(Text(plain(said)), soft_wrap=True)
