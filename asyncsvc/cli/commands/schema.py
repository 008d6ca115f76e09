"""`asyncsvc migrate` and `asyncsvc status`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Annotated

import typer

from asyncsvc.cli.drawing import Column, console, table
from asyncsvc.cli.options import AsJson, Dsn
from asyncsvc.cli.printing import many, print_json, when
from asyncsvc.cli.progress import bar
from asyncsvc.cli.running import Exit, connected, run
from asyncsvc.models import Migration


def migrate(
    *,
    dsn: Dsn = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Change nothing; leave with 3 when migrations are pending."),
    ] = False,
    citus: Annotated[
        bool, typer.Option("--citus", help="Distribute the tables by tenant, by Citus.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the schema up to date. Any number of processes may do it at once."""
    run(_migrate(dsn, check=check, citus=citus, as_json=as_json))


def status(*, dsn: Dsn = None, as_json: AsJson = False) -> None:
    """Show which migrations are applied, and which are pending; leave with 3 if any is."""
    run(_status(dsn, as_json=as_json))


async def _migrate(dsn: str | None, *, check: bool, citus: bool, as_json: bool) -> Exit:
    async with connected(dsn) as svc:
        with bar("looking" if check else "migrating"):
            found = await (svc.pending() if check else svc.migrate(citus=citus))
    if as_json:
        print_json({"pending" if check else "applied": found})
    elif found:
        verb = "pending" if check else "applied"
        _print_migrations(found, verb)
    else:
        console().print("The schema is up to date.")
    return Exit.ATTENTION if check and found else Exit.DONE


async def _status(dsn: str | None, *, as_json: bool) -> Exit:
    async with connected(dsn) as svc:
        applied, pending = await svc.applied(), await svc.pending()
    if as_json:
        print_json({"applied": applied, "pending": pending})
    else:
        _print_migrations([*applied, *pending], "pending")
        state = f"lacks {many(len(pending), 'migration')}" if pending else "is up to date"
        console().print(f"The schema {state}.")
    return Exit.ATTENTION if pending else Exit.DONE


def _print_migrations(migrations: Sequence[Migration], without_time: str) -> None:
    """Print a table of migrations; `without_time` says what is so of those that have no time."""
    rows = [
        (
            f"{migration.version:04}",
            migration.name,
            when(migration.applied_at, UTC) if migration.applied_at else without_time,
        )
        for migration in migrations
    ]
    console().print(table([Column("version"), Column("name"), Column("applied (UTC)")], rows))
