"""`asyncsvc migrate` and `asyncsvc status`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, timedelta
from typing import Annotated, Final

from typer import Option

from asyncsvc import AsyncSvc, Migration, MigrationProgress, MigrationStep
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
    plan: Annotated[
        bool,
        Option(
            "--plan",
            help="Change nothing; show the locks and estimated durations of migrations.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> Exit:
    """Apply the pending migrations beside the application; run it again after an interruption.

    Several processes may run it at once.
    """
    # One connection holds the lock of all migrating processes, one builds an index.
    async with connected(dsn, max_size=2) as svc:
        if plan:
            return _print_plan(await svc.migration_plan(), as_json=as_json)
        if check:
            migrations = await svc.pending()
        else:
            migrations = await _migrate(svc, citus=citus)
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


async def _migrate(svc: AsyncSvc, *, citus: bool) -> list[Migration]:
    """Migrate with a progress bar. A bar of a backfill counts the rows of its table."""
    backfills = [step for step in await svc.migration_plan() if step.kind == "backfill"]
    with progress_bar("migrating", sum(step.rows for step in backfills)) as bar:

        def show(progress: MigrationProgress) -> None:
            before = sum(step.rows for step in backfills if step.version < progress.version)
            text = f"{progress.version:04}_{progress.name}: {counted(progress.rows, 'row')}"
            bar.show(text, before + progress.rows)

        return await svc.migrate(citus=citus, on_batch=show)


_IF_INTERRUPTED: Final[dict[str, str]] = {
    "transaction": "nothing is applied",
    "concurrent": "is repeated",
    "backfill": "continues",
}
_WAITING_STATEMENTS: Final[dict[str, str]] = {
    "none": "no statement waits",
    "writes": "writes wait",
    "reads and writes": "reads and writes wait for up to 0.1 s at a time",
}


def _print_plan(steps: Sequence[MigrationStep], *, as_json: bool) -> Exit:
    if as_json:
        print_json({"plan": steps})
    elif steps:
        columns: list[Column[MigrationStep]] = [
            Column("migration", lambda step: f"{step.version:04}_{step.name}"),
            Column("locks", _locks),
            Column("rows", lambda step: f"{step.rows - step.rows_done:,}", right=True),
            Column("size", lambda step: f"{step.bytes / 2**20:,.0f} MiB", right=True),
            Column(
                "estimate", lambda step: str(timedelta(seconds=math.ceil(step.seconds))), right=True
            ),
            Column("if interrupted", lambda step: _IF_INTERRUPTED[step.kind]),
            Column("needs", lambda step: step.oldest_release or "-"),
        ]
        print_table(columns, steps)
        say("Durations are estimates from the sizes; a busy server takes longer.")
    else:
        say("The schema is up to date.")
    return Exit.ATTENTION if steps else Exit.DONE


def _locks(step: MigrationStep) -> str:
    """Return the locked tables with the statements that wait for them."""
    texts = (f"{lock.table}: {_WAITING_STATEMENTS[lock.waiting]}" for lock in step.locks)
    return ", ".join(texts) or "no existing table"


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
