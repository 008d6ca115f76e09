"""`asyncsvc tokens`: API tokens. A secret is printed once, on stdout, when its token is issued."""

from __future__ import annotations

import errno
import sys
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated, Final, Literal

import typer
from typer import Argument, Option

from asyncsvc import (
    UNSET,
    APIToken,
    InsufficientScope,
    InvalidInput,
    InvalidToken,
    IssuedToken,
    TokenEvent,
)
from asyncsvc.cli.commands.token_import import import_
from asyncsvc.cli.options import Actor, After, AsJson, Dialog, Dsn, Tenant, TimeZone, Yes, or_any
from asyncsvc.cli.output import counted, print_json, print_page
from asyncsvc.cli.runner import Exit, asynchronous, confirm, connected, interruptible
from asyncsvc.cli.terminal import Column, remark, say
from asyncsvc.cli.times import AGE_FORMS, age_or_none, format_time, parse_age
from asyncsvc.validation.dates import instant_after

_MAX_PAGE_SIZE: Final = 1_000
_MAX_INPUT: Final = 4_096

tokens = typer.Typer(
    name="tokens",
    help="Create, list, verify, rotate and revoke API tokens, and read their audit.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Kind = Literal["api", "beta"]
TokenId = Annotated[str, Argument(metavar="ID", help="The id of the token, as `list` prints it.")]
Scopes = Annotated[
    list[str] | None,
    Option("--scope", metavar="TEXT", help="A scope; * is all scopes. Repeat for several."),
]
ExpiresAt = Annotated[
    str | None,
    Option(
        "--expires",
        metavar="AGE|DATE",
        help=f"When the token expires: after an age, {AGE_FORMS}; or its last day, 2026-12-31.",
    ),
]
Reason = Annotated[str | None, Option("--reason", metavar="TEXT", help="The reason in the audit.")]


@tokens.command()
@asynchronous
async def create(
    *,
    dsn: Dsn,
    tenant_id: Tenant,
    name: Annotated[str, Option(metavar="TEXT", help="The name of the token.")],
    scopes: Scopes = None,
    dialog_id: Annotated[
        str | None, Option("--dialog", metavar="ID", help="The dialog of the token.")
    ] = None,
    source: Annotated[str | None, Option(metavar="TEXT", help="The source of the token.")] = None,
    kind: Annotated[Kind, Option(help="beta is for embedded chats.")] = "api",
    expires_at: ExpiresAt = None,
    actor: Actor,
    tz: TimeZone = UTC,
    as_json: AsJson = False,
) -> None:
    """Create a token, and print its secret once: only the secret on stdout, the rest on stderr.

    So a secret can be stored without being shown: `asyncsvc tokens create … | your-vault put`.
    """
    end = _expiry(expires_at, tz)
    async with connected(dsn) as svc:
        issued = await svc.tokens.create(
            tenant_id=tenant_id,
            name=name,
            scopes=tuple(scopes or ()),
            dialog_id=dialog_id,
            source=source,
            kind=kind,
            expires_at=end,
            actor=actor,
        )
    _print_issued(issued, tz, as_json=as_json)


def _expiry(text: str | None, tz: tzinfo) -> datetime | None:
    """Return the end of a token: after an age, or at the end of a day."""
    if text is None:
        return None
    age, now = age_or_none(text), datetime.now(UTC)
    try:
        end = instant_after("expires_at", text, str(tz)) if age is None else now + age
    except InvalidInput:
        reason = f"must be an age: {AGE_FORMS}; or the last day: 2026-12-31"
        raise InvalidInput("expires_at", reason) from None
    except OverflowError:
        raise InvalidInput("expires_at", "is too far in the future") from None
    if end <= now:
        raise InvalidInput("expires_at", "must be in the future")
    return end


def _print_issued(issued: IssuedToken, local: tzinfo, *, as_json: bool) -> None:
    """Print the secret to stdout, and everything else to stderr."""
    token, secret = issued.token, issued.secret.get_secret_value()
    try:
        if as_json:
            print_json({"token": token, "secret": secret})
        else:
            print(secret)  # noqa: T201 - the only line on stdout, never wrapped
        _flush_stdout()
    except OSError:
        remark(f"The secret of token {token.id} could not be written. Revoke the token.")
        raise
    if as_json:
        return
    end = format_time(token.expires_at, local) if token.expires_at else "it is revoked"
    remark(f"Token {token.id} is valid until {end}.")
    remark("Its secret cannot be read again.")


def _flush_stdout() -> None:
    """Write the buffer now. Raises OSError if stdout is full or closed."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")
    sys.stdout.flush()


@tokens.command("list")
@asynchronous
async def list_tokens(
    *,
    dsn: Dsn,
    tenant_id: Tenant,
    dialog_id: Dialog = None,
    kind: Annotated[Kind | None, Option(help="Only this kind.")] = None,
    limit: Annotated[int, Option(min=1, max=_MAX_PAGE_SIZE, help="Tokens per page.")] = 100,
    after: After = None,
    tz: TimeZone = UTC,
    as_json: AsJson = False,
) -> None:
    """List a tenant's tokens, newest first, including expired and revoked ones."""
    async with connected(dsn) as svc:
        page = await svc.tokens.get_list(
            tenant_id=tenant_id,
            kind=or_any(kind),
            dialog_id=or_any(dialog_id),
            after=after,
            limit=limit,
        )
    columns: list[Column[APIToken]] = [
        Column("id", lambda token: token.id),
        Column("name", lambda token: token.name, share=2),
        Column("hint", lambda token: f"{token.hint}…", rank=3),
        Column("scopes", lambda token: " ".join(token.scopes) or "-", share=1, rank=4),
        Column("expires", lambda token: format_time(token.expires_at, tz), rank=2),
        Column("status", lambda token: token.status, rank=1),
    ]
    print_page("tokens", columns, page, as_json=as_json)


@tokens.command()
@asynchronous
async def verify(
    *,
    dsn: Dsn,
    scopes: Scopes = None,
    kind: Annotated[Kind, Option(help="The kind that the token must have.")] = "api",
    as_json: AsJson = False,
) -> Exit:
    """Print whether a token is valid now; the exit code is 0 if it is, 3 if not.

    The secret is read from standard input, or from a hidden prompt. It is not an argument, because
    other users of the machine can read arguments. This does not count as a use of the token.
    """
    token, reason = None, None
    secret = _read_secret()
    async with connected(dsn, foreign_tokens=True) as svc:
        try:
            token = await svc.tokens.verify(
                secret, kind=kind, scopes=tuple(scopes or ()), record_use=False
            )
        except (InvalidToken, InsufficientScope) as error:
            reason = str(error)
    if as_json:
        print_json({"valid": token is not None, "reason": reason, "token": token})
    else:
        description = reason or "valid"
        if token is not None:
            description = f"valid: {token.id}, “{token.name}” of the tenant {token.tenant_id}"
        say(description)
    return Exit.ATTENTION if token is None else Exit.DONE


def _read_secret() -> str:
    """Read a secret from a pipe or from a prompt."""
    with interruptible():
        if sys.stdin.isatty():
            return str(typer.prompt("The token's secret", hide_input=True, err=True)).strip()
        return sys.stdin.buffer.read(_MAX_INPUT).decode(errors="replace").strip()


@tokens.command()
@asynchronous
async def rotate(
    id: TokenId,
    *,
    dsn: Dsn,
    tenant_id: Tenant,
    overlap: Annotated[
        timedelta | None,
        Option(
            metavar="AGE",
            parser=parse_age,
            help="How long the old secret stays valid. [default: rotation_overlap of the settings]",
        ),
    ] = None,
    expires_at: ExpiresAt = None,
    actor: Actor,
    tz: TimeZone = UTC,
    as_json: AsJson = False,
) -> None:
    """Issue the successor of a token: a new secret with the same properties. It is printed once.

    The old secret stays valid for the overlap. Without --expires, the successor keeps the expiry
    of the token.
    """
    end = _expiry(expires_at, tz)
    async with connected(dsn) as svc:
        overlap = svc.tokens.rotation_overlap if overlap is None else overlap
        issued = await svc.tokens.rotate(
            id, tenant_id=tenant_id, overlap=overlap, expires_at=end or UNSET, actor=actor
        )
    _print_issued(issued, tz, as_json=as_json)
    if overlap and not as_json:
        latest = format_time(datetime.now(UTC) + overlap, tz)
        remark(f"The old secret stays valid until {latest}, or until it expires.")


@tokens.command()
@asynchronous
async def revoke(
    id: Annotated[
        str | None, Argument(metavar="ID", help="The id of the token, as `list` prints it.")
    ] = None,
    *,
    dsn: Dsn,
    tenant_id: Tenant,
    family: Annotated[
        bool, Option("--family", help="Also its predecessors and successors from rotations.")
    ] = False,
    every: Annotated[bool, Option("--all", help="All tokens of the tenant. Replaces ID.")] = False,
    reason: Reason = None,
    actor: Actor,
    yes: Yes = False,
    tz: TimeZone = UTC,
    as_json: AsJson = False,
) -> None:
    """Revoke a token at once and permanently. Its row remains."""
    if (id is None) is not every or (every and family):
        raise InvalidInput("id", "pass an ID, with or without --family, or --all")
    async with connected(dsn) as svc:
        if id is None:
            if not yes and not confirm(f"Revoke all tokens of {tenant_id}?"):
                return
            count = await svc.tokens.revoke_all(tenant_id=tenant_id, reason=reason, actor=actor)
        elif family:
            count = await svc.tokens.revoke_family(
                id, tenant_id=tenant_id, reason=reason, actor=actor
            )
        else:
            token = await svc.tokens.revoke(id, tenant_id=tenant_id, reason=reason, actor=actor)
            _print_revoked_token(token, tz, as_json=as_json)
            return
    if as_json:
        print_json({"revoked": count})
    else:
        say(f"revoked {counted(count, 'token')}")


def _print_revoked_token(token: APIToken, local: tzinfo, *, as_json: bool) -> None:
    if as_json:
        print_json(token)
        return
    say(f"“{token.name}” was revoked at {format_time(token.revoked_at, local)}")


@tokens.command()
@asynchronous
async def audit(
    *,
    dsn: Dsn,
    tenant_id: Tenant,
    token_id: Annotated[
        str | None, Option("--token", metavar="ID", help="Only this token.")
    ] = None,
    limit: Annotated[int, Option(min=1, max=_MAX_PAGE_SIZE, help="Events per page.")] = 100,
    after: After = None,
    tz: TimeZone = UTC,
    as_json: AsJson = False,
) -> None:
    """Show the events of a tenant's tokens and their actors, newest first."""
    async with connected(dsn) as svc:
        page = await svc.tokens.audit(
            tenant_id=tenant_id, token_id=or_any(token_id), after=after, limit=limit
        )
    columns: list[Column[TokenEvent]] = [
        Column("at", lambda event: format_time(event.at, tz), rank=1),
        Column("action", lambda event: event.action),
        Column("token", lambda event: event.token_id),
        Column("actor", lambda event: event.actor or "-", share=1, rank=2),
        Column("detail", _detail, share=3, rank=3),
    ]
    print_page("events", columns, page, as_json=as_json)


def _detail(event: TokenEvent) -> str:
    return " ".join(f"{name}={value}" for name, value in event.detail.items() if value)


tokens.command("import")(import_)
