"""`asyncsvc tokens`: API tokens, whose secret is seen once, on stdout, when one is issued."""

from __future__ import annotations

import enum
import errno
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Annotated, Final

import typer
from rich.text import Text

from asyncsvc.cli.ages import age
from asyncsvc.cli.commands.token_import import import_
from asyncsvc.cli.drawing import Column, console, plain, table
from asyncsvc.cli.options import Actor, After, AsJson, Dsn, Tenant, Tz, Yes
from asyncsvc.cli.printing import many, print_json, when
from asyncsvc.cli.progress import messages
from asyncsvc.cli.running import CommandError, Exit, confirmed, connected, run
from asyncsvc.errors import InsufficientScope, InvalidToken
from asyncsvc.models import IssuedToken
from asyncsvc.validation.dates import instant_after, zone
from asyncsvc.validation.types import ANY, MAX_INSTANT, UNSET

_MOST: Final = 1_000
_LONGEST_INPUT: Final = 4_096
_ROOMY: Final = 100
_NARROW: Final = 64

tokens = typer.Typer(
    name="tokens",
    help="Create, list, verify, rotate and revoke API tokens, and read their audit.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


class Kind(enum.StrEnum):
    """What a token is for; one kind never passes as the other."""

    API = "api"
    BETA = "beta"


TokenId = Annotated[str, typer.Argument(metavar="ID", help="The token's id, as `list` shows it.")]
Scope = Annotated[
    list[str] | None,
    typer.Option("--scope", metavar="TEXT", help="A scope; * is all. Give it once for each."),
]


Expires = Annotated[
    str | None,
    typer.Option(
        "--expires",
        metavar="AGE|DATE",
        help="When it ends: in 12h, 90d or 52w; or the last day, as 2026-12-31.",
    ),
]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the audit.")]


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
    actor: str | None


def _end(expires: str | None, tz: str) -> datetime | None:
    """Return when a token ends: after so long, or behind the day that was named."""
    if expires is None:
        return None
    term, now = age(expires), datetime.now(UTC)
    try:
        end = instant_after("expires", expires, tz) if term is None else now + term
    except OverflowError:
        end = MAX_INSTANT
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
    expires: Expires = None,
    actor: Actor,
    tz: Tz = "UTC",
    as_json: AsJson = False,
) -> None:
    """Create a token. Its secret is all that stdout gets, this once; the rest goes to stderr.

    So it can go where it belongs without being seen: `asyncsvc tokens create … | your-vault put`.
    """
    wish = _Wish(tenant, name, tuple(scope or ()), dialog, source, kind, expires, tz, actor)
    run(_create(dsn, wish, as_json=as_json))


async def _create(dsn: str | None, wish: _Wish, *, as_json: bool) -> None:
    expires_at, local = _end(wish.expires, wish.tz), zone(wish.tz)
    async with connected(dsn, max_size=1) as svc:
        issued = await svc.tokens.create(
            wish.tenant,
            name=wish.name,
            scopes=wish.scopes,
            dialog_id=wish.dialog,
            source=wish.source,
            kind=wish.kind.value,
            expires_at=expires_at,
            actor=wish.actor,
        )
    _print_issued(issued, local, as_json=as_json)


def _print_issued(issued: IssuedToken, local: tzinfo, *, as_json: bool) -> None:
    """Print the secret alone to stdout, and what is to be said of it to stderr."""
    token, secret = issued.token, issued.secret.get_secret_value()
    try:
        if as_json:
            print_json({"token": token, "secret": secret})
        else:
            print(secret)  # noqa: T201 - alone, and never wrapped
        _flush_stdout()
    except OSError:
        lost = f"Nobody has the secret of token {token.id}, which is good: revoke it."
        messages().print(Text(lost))
        raise
    if as_json:
        return
    ends = when(token.expires_at, local) if token.expires_at else "it is revoked"
    messages().print(
        Text(f"Token {token.id} is good until {ends}. Nobody can read its secret again.")
    )


def _flush_stdout() -> None:
    """Have it written now. Raises OSError where it cannot be: it is full, closed, or none."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")
    sys.stdout.flush()


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
    """What is asked for of a tenant: of a dialog, or of a token."""

    tenant: str
    of: str | None
    kind: Kind | None
    limit: int
    after: str | None


async def _list(dsn: str | None, asked: _Page, tz: str, *, as_json: bool) -> None:
    local = zone(tz)
    async with connected(dsn, max_size=1) as svc:
        found = await svc.tokens.get_list(
            asked.tenant,
            kind=asked.kind.value if asked.kind else ANY,
            dialog_id=ANY if asked.of is None else asked.of,
            after=asked.after,
            limit=asked.limit,
        )
    if as_json:
        print_json({"items": found.items, "next": found.next})
        return
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
        for token in found.items
    ]
    _print_page(columns, rows, found.next, "tokens")


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
    async with connected(dsn, max_size=1, foreign_tokens=True) as svc:
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
def rotate(
    id: TokenId,
    *,
    dsn: Dsn = None,
    tenant: Tenant,
    overlap: Annotated[
        str, typer.Option(metavar="AGE", help="How long the old secret stays good, as 24h.")
    ] = "0h",
    expires: Expires = None,
    actor: Actor,
    tz: Tz = "UTC",
    as_json: AsJson = False,
) -> None:
    """Issue a token's successor: a new secret, all else alike. stdout gets the secret, this once.

    The old one stays good for the overlap, then it ends. Without --expires the new one ends when
    the old one would have.
    """
    run(_rotate(dsn, tenant, id, _Rotation(overlap, expires, actor, tz), as_json=as_json))


@dataclass(frozen=True, slots=True)
class _Rotation:
    """How a token is to be rotated."""

    overlap: str
    expires: str | None
    actor: str | None
    tz: str


async def _rotate(dsn: str | None, tenant: str, id: str, how: _Rotation, *, as_json: bool) -> None:
    overlap, local = age(how.overlap), zone(how.tz)
    if overlap is None:
        raise CommandError("--overlap must be a length of time, as 24h or 7d", Exit.MISUSED)
    async with connected(dsn, max_size=1) as svc:
        issued = await svc.tokens.rotate(
            id,
            tenant_id=tenant,
            overlap=overlap,
            expires_at=_end(how.expires, how.tz) or UNSET,
            actor=how.actor,
        )
    _print_issued(issued, local, as_json=as_json)
    if not as_json:
        messages().print(Text(f"The old secret stays good for {how.overlap} at most."))


@tokens.command()
def revoke(
    id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="The token's id, as `list` shows it.")
    ] = None,
    *,
    dsn: Dsn = None,
    tenant: Tenant,
    family: Annotated[
        bool,
        typer.Option("--family", help="And what it was rotated from, and what came of it."),
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="All tokens of the tenant; no ID then.")
    ] = False,
    reason: Reason = None,
    actor: Actor,
    yes: Yes = False,
    tz: Tz = "UTC",
    as_json: AsJson = False,
) -> None:
    """End a token now, and for good: the next use of it is refused. Its row stays."""
    wish = _Revocation(tenant, id, reason, actor, tz)
    if every and (id is not None or family):
        raise typer.BadParameter("takes no ID, and is no family", param_hint="--all")
    if every:
        run(_revoke_all(dsn, wish, yes=yes, as_json=as_json))
    elif id is None:
        raise typer.BadParameter("which token? Give its ID, or --all", param_hint="ID")
    else:
        run((_revoke_family if family else _revoke)(dsn, id, wish, as_json=as_json))


@dataclass(frozen=True, slots=True)
class _Revocation:
    """Whose tokens are to end, and what the audit is to say."""

    tenant: str
    id: str | None
    reason: str | None
    actor: str | None
    tz: str


async def _revoke(dsn: str | None, id: str, wish: _Revocation, *, as_json: bool) -> None:
    local = zone(wish.tz)
    async with connected(dsn, max_size=1) as svc:
        token = await svc.tokens.revoke(
            id, tenant_id=wish.tenant, reason=wish.reason, actor=wish.actor
        )
    if as_json:
        print_json(token)
    else:
        said = f"“{token.name}” is revoked since {when(token.revoked_at, local)}"
        console().print(Text(plain(said)), soft_wrap=True)


async def _revoke_family(dsn: str | None, id: str, wish: _Revocation, *, as_json: bool) -> None:
    async with connected(dsn, max_size=1) as svc:
        count = await svc.tokens.revoke_family(
            id, tenant_id=wish.tenant, reason=wish.reason, actor=wish.actor
        )
    _print_revoked(count, as_json=as_json)


async def _revoke_all(dsn: str | None, wish: _Revocation, *, yes: bool, as_json: bool) -> None:
    async with connected(dsn, max_size=1) as svc:
        if not yes and not confirmed(f"Revoke all tokens of {wish.tenant}?"):
            return
        count = await svc.tokens.revoke_all(wish.tenant, reason=wish.reason, actor=wish.actor)
    _print_revoked(count, as_json=as_json)


def _print_revoked(count: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"revoked": count})
    else:
        console().print(f"revoked {many(count, 'token')}")


@tokens.command()
def audit(
    *,
    dsn: Dsn = None,
    tenant: Tenant,
    token: Annotated[str | None, typer.Option(metavar="ID", help="This token alone.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=_MOST, help="Events a page.")] = 100,
    after: After = None,
    tz: Tz = "UTC",
    as_json: AsJson = False,
) -> None:
    """Show what was done to a tenant's tokens, newest first, by whom."""
    run(_audit(dsn, _Page(tenant, token, None, limit, after), tz, as_json=as_json))


async def _audit(dsn: str | None, asked: _Page, tz: str, *, as_json: bool) -> None:
    local = zone(tz)
    async with connected(dsn, max_size=1) as svc:
        found = await svc.tokens.audit(
            asked.tenant,
            token_id=ANY if asked.of is None else asked.of,
            after=asked.after,
            limit=asked.limit,
        )
    if as_json:
        print_json({"items": found.items, "next": found.next})
        return
    columns = (
        Column("at"),
        Column("action"),
        Column("token"),
        Column("actor", share=1, least_width=_NARROW),
        Column("detail", share=3, least_width=_ROOMY),
    )
    rows = [
        (
            when(event.at, local),
            event.action,
            event.token_id,
            event.actor or "-",
            " ".join(f"{name}={value}" for name, value in event.detail.items() if value),
        )
        for event in found.items
    ]
    _print_page(columns, rows, found.next, "events")


def _print_page(
    columns: tuple[Column, ...],
    rows: Sequence[Sequence[str]],
    following: str | None,
    what: str,
) -> None:
    if not rows:
        console().print(f"no {what}")
        return
    console().print(table(columns, rows))
    if following is not None:
        more = f"The next page: the same command with --after {following}"
        console().print(Text(more), soft_wrap=True)


tokens.command("import")(import_)
