"""`asyncsvc migrate` and `asyncsvc status`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Annotated

from typer import Option

from asyncsvc import Migration
from asyncsvc.cli.options import AsJson, Dsn
from asyncsvc.cli.output import counted, print_json
from asyncsvc.cli.progress import progress_bar
from asyncsvc.cli.runner import Exit, asynchronous, connected
from asyncsvc.cli.terminal import Column, print_table, say
from asyncsvc.cli.times import format_time


@asynchronous
async def migrate(
    *,
    dsn: Dsn,
    check: Annotated[
        bool, Option("--check", help="Change nothing; exit with 3 if migrations are pending.")
    ] = False,
    citus: Annotated[
        bool, Option("--citus", help="Distribute the tables by tenant, with Citus.")
    ] = False,
    as_json: AsJson = False,
) -> Exit:
    """Apply the pending migrations. Several processes may run it at once."""
    async with connected(dsn) as svc:
        with progress_bar("checking" if check else "migrating"):
            migrations = await (svc.pending() if check else svc.migrate(citus=citus))
    state = "pending" if check else "applied"
    if as_json:
        print_json({state: migrations})
    elif migrations:
        _print_migrations(migrations, state)
    else:
        say("The schema is up to date.")
    return Exit.ATTENTION if check and migrations else Exit.DONE


@asynchronous
async def status(*, dsn: Dsn, as_json: AsJson = False) -> Exit:
    """Show the applied and the pending migrations; exit with 3 if one is pending."""
    async with connected(dsn) as svc:
        applied, pending = await svc.applied(), await svc.pending()
    if as_json:
        print_json({"applied": applied, "pending": pending})
    else:
        _print_migrations([*applied, *pending], "pending")
        state = f"lacks {counted(len(pending), 'migration')}" if pending else "is up to date"
        say(f"The schema {state}.")
    return Exit.ATTENTION if pending else Exit.DONE


def _print_migrations(migrations: Sequence[Migration], without_time: str) -> None:
    """Print a table of migrations; `without_time` replaces a missing time."""
    columns: list[Column[Migration]] = [
        Column("version", lambda migration: f"{migration.version:04}"),
        Column("name", lambda migration: migration.name),
        Column(
            "applied (UTC)",
            lambda migration: (
                format_time(migration.applied_at, UTC) if migration.applied_at else without_time
            ),
        ),
    ]
    print_table(columns, migrations)
