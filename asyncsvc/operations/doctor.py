"""Looks at the server and the schema as an operator would, and says what to do.

Each check is a function that returns one finding or more. One that cannot be made is a finding
too, so that the others are heard.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo, available_timezones

from asyncsvc.database.migration_files import migration_files
from asyncsvc.errors import AsyncSvcError, MigrationError
from asyncsvc.models import Finding, Level
from asyncsvc.operations import migrations
from asyncsvc.repositories import MigrationRepository, ServerRepository, UsageRepository
from asyncsvc.repositories.server import Index, ServerSettings, Table

if TYPE_CHECKING:
    from asyncsvc.database import Executor

OLDEST: Final = 15
"""The oldest PostgreSQL that is supported."""
NEWEST: Final = 18
"""The newest PostgreSQL that it was tested on."""
_INDEX: Final = re.compile(r"CREATE (?:UNIQUE )?INDEX (\w+)")
_CLOCK_APART: Final = timedelta(seconds=1)
_MANY_ROWS: Final = 10_000
_DEAD_SHARE: Final = 0.2
_ZONES_NAMED: Final = 5
_MIB: Final = 2**20
_UNSEEN: Final = (
    "mend what the server says, as by granting this role what it lacks, then look again"
)
_ANOTHER_TEXT: Final = (
    "install the asyncsvc that migrated this database, or one with its files as they were released"
)
_STATEMENT_LOST: Final = {"26000", "42P05"}
_POOLED: Final = (
    "where it pools transactions set Settings.pgbouncer, or open a pool that you lend to AsyncSvc"
    " with statement_cache_size=0"
)

Check = Callable[["Executor"], Awaitable[list[Finding]]]


async def examine(executor: Executor) -> list[Finding]:
    """Make all checks, one after the other; none changes anything."""
    return [finding for check in _CHECKS for finding in await _made(check, executor)]


async def _made(check: Check, executor: Executor) -> list[Finding]:
    try:
        return await check(executor)
    except AsyncSvcError as error:
        name = check.__name__.removeprefix("_check_")
        if getattr(error, "sqlstate", None) in _STATEMENT_LOST:
            return [_pooler_problem(f"prepared statements get lost or mixed up: {error}")]
        advice = _ANOTHER_TEXT if isinstance(error, MigrationError) else _UNSEEN
        found = f"cannot be looked at: {error}"
        return [Finding(check=name, level="problem", found=found, advice=advice)]


def _ok(check: str, found: str) -> Finding:
    return Finding(check=check, level="ok", found=found)


async def _check_server(executor: Executor) -> list[Finding]:
    """Its version, durability, and whether a pooler is in between, all from one connection."""
    async with executor.transaction() as transaction:
        settings, told = await ServerRepository(transaction).settings(), transaction.reported_pid
    pooled = pooler(settings, told, expected=executor.settings.pgbouncer)
    return [version(settings), replica(settings), durability(settings), pooled]


def version(settings: ServerSettings) -> Finding:
    """Judge the version and the encoding."""
    found = f"PostgreSQL {settings.version}, {settings.encoding}"
    major = settings.version_number // 10_000
    if major < OLDEST:
        advice = f"upgrade to PostgreSQL {OLDEST} or newer: older ones were never tested"
        return Finding(check="server", level="problem", found=found, advice=advice)
    if settings.encoding != "UTF8":
        advice = "move to a database that was created with the encoding UTF8: others lose text"
        return Finding(check="server", level="problem", found=found, advice=advice)
    if major > NEWEST:
        advice = f"look for a newer asyncsvc: this one was tested up to PostgreSQL {NEWEST}"
        return Finding(check="server", level="note", found=found, advice=advice)
    return _ok("server", found)


def replica(settings: ServerSettings) -> Finding:
    """Judge whether it can be written to."""
    if not settings.is_replica:
        return _ok("replica", "it is a primary, which can be written to")
    advice = "connect to the primary to write; on this one pass touch=False to verify"
    return Finding(check="replica", level="warning", found="it is a replica", advice=advice)


def durability(settings: ServerSettings) -> Finding:
    """Judge whether what was acknowledged survives a crash."""
    on = {True: "on", False: "off"}
    found = (
        f"fsync {on[settings.fsync]}, full_page_writes {on[settings.full_page_writes]},"
        f" synchronous_commit {settings.synchronous_commit}"
    )
    if not (settings.fsync and settings.full_page_writes):
        advice = "turn both on: a crash of the machine can destroy the database"
        return Finding(check="durability", level="problem", found=found, advice=advice)
    if settings.synchronous_commit == "off":
        advice = "turn synchronous_commit on: a crash loses the last half second of answers"
        return Finding(check="durability", level="warning", found=found, advice=advice)
    return _ok("durability", found)


def pooler(settings: ServerSettings, reported_pid: int, *, expected: bool) -> Finding:
    """Judge whether a pooler answers for the server: it makes up the process id that it tells."""
    if reported_pid == settings.backend_pid:
        return _ok("pooler", "none is in between")
    if expected:
        return _ok("pooler", "one is in between, and the settings say so")
    return Finding(check="pooler", level="note", found="one is in between", advice=_POOLED)


def _pooler_problem(found: str) -> Finding:
    return Finding(
        check="pooler",
        level="problem",
        found=found,
        advice=_POOLED,
    )


async def _check_clock(executor: Executor) -> list[Finding]:
    before = datetime.now(UTC)
    server = await ServerRepository(executor).clock()
    return [clock(server, before, datetime.now(UTC))]


def clock(server: datetime, before: datetime, after: datetime) -> Finding:
    """Judge the server's clock by this machine's, before and after it was asked."""
    apart = max(before - server, server - after, timedelta(0))
    if apart < _CLOCK_APART:
        return _ok("clock", "the server's and this machine's agree to the second")
    return Finding(
        check="clock",
        level="warning",
        found=f"the server's and this machine's are {apart.total_seconds():,.1f} s apart",
        advice="let both follow NTP; the server's decides about expiry, ages and times",
    )


async def _check_zones(executor: Executor) -> list[Finding]:
    known = available_timezones()
    offsets = await ServerRepository(executor).zones()
    return [
        zones(
            zone.name
            for zone in offsets
            if zone.name in known and "/" in zone.name and not zone.name.startswith("posix/")
            if zone.at.astimezone(ZoneInfo(zone.name)).utcoffset()
            != timedelta(seconds=zone.seconds)
        )
    ]


def zones(differing: Iterable[str]) -> Finding:
    """Judge whether the server and Python mean the same by the names of zones."""
    names = sorted(differing)
    if not names:
        return _ok("zones", "the server and Python agree on each time zone that both know")
    named = ", ".join(names[:_ZONES_NAMED]) + (", …" if len(names) > _ZONES_NAMED else "")
    return Finding(
        check="zones",
        level="warning",
        found=f"the server and Python differ on {len(names)} time zones: {named}",
        advice="update the older one's time zone database (tzdata): days there are cut wrongly",
    )


async def _check_migrations(executor: Executor) -> list[Finding]:
    pending = await migrations.pending(executor)
    if not pending:
        applied = await migrations.applied(executor)
        return [_ok("migrations", f"{len(applied)} applied, none pending")]
    names = ", ".join(f"{migration.version:04}_{migration.name}" for migration in pending)
    return [
        Finding(
            check="migrations",
            level="problem",
            found=f"pending: {names}",
            advice="run `asyncsvc migrate` as a role that may create",
        )
    ]


async def _check_tables(executor: Executor) -> list[Finding]:
    tables = await ServerRepository(executor).tables()
    return [rights(tables), sizes(tables), *map(dead_rows, _bloated(tables))] if tables else []


def rights(tables: list[Table]) -> Finding:
    """Judge whether this role may read and change every table but the migrations' own."""
    ours = [table for table in tables if table.name != "migration"]
    unreadable = [table.name for table in ours if not table.is_readable]
    unwritable = [table.name for table in ours if not table.is_writable]
    advice = "grant USAGE on the schema and SELECT, INSERT, UPDATE, DELETE on its tables"
    if unreadable:
        found = f"this role may not read {', '.join(unreadable)}"
        return Finding(check="rights", level="problem", found=found, advice=advice)
    if unwritable:
        found = f"this role may not change {', '.join(unwritable)}"
        return Finding(check="rights", level="note", found=found, advice=advice)
    return _ok("rights", "this role may read and change every table")


async def _check_row_security(executor: Executor) -> list[Finding]:
    tables = await ServerRepository(executor).tables()
    unrestricted = await MigrationRepository(executor).get_unrestricted_tables()
    wanted = executor.settings.row_level_security
    return [row_security(tables, unrestricted, wanted=wanted)] if tables else []


def row_security(tables: list[Table], unrestricted: list[str], *, wanted: bool) -> Finding:
    """Judge whether row-level security is what the settings say."""
    restricted = {table.name for table in tables} - {"migration"} - set(unrestricted)
    if wanted and unrestricted:
        found = f"this role sees the rows of all tenants in {', '.join(unrestricted)}"
        advice = (
            "migrate with Settings.row_level_security, and connect as a role that does not own"
            " the tables"
        )
        return Finding(check="row security", level="problem", found=found, advice=advice)
    if restricted and not wanted:
        found = f"this role sees no rows of {', '.join(sorted(restricted))}"
        advice = "set Settings.row_level_security, or connect as the owner of the tables"
        return Finding(check="row security", level="problem", found=found, advice=advice)
    return _ok("row security", "on, and this role is bound to it" if wanted else "not asked for")


def sizes(tables: list[Table]) -> Finding:
    """Tell how large the tables are."""
    each = ", ".join(f"{table.name} {_size(table.bytes)} ({table.live:,} rows)" for table in tables)
    return _ok("size", f"{_size(sum(table.bytes for table in tables))}: {each}")


def _bloated(tables: list[Table]) -> list[Table]:
    return [
        table
        for table in tables
        if table.dead > _MANY_ROWS and table.dead > _DEAD_SHARE * (table.live + table.dead)
    ]


def dead_rows(table: Table) -> Finding:
    """Tell of a table that waits for VACUUM."""
    share = table.dead / (table.live + table.dead)
    return Finding(
        check="dead rows",
        level="warning",
        found=f"{share:.0%} of {table.name} are dead: {table.dead:,} rows",
        advice=f"see that autovacuum runs, and VACUUM asyncsvc.{table.name} now",
    )


async def _check_usage(executor: Executor) -> list[Finding]:
    try:
        unfolded = await UsageRepository(executor).backlog(most=_MANY_ROWS + 1)
    except MigrationError:
        return []  # nothing is migrated, which another check says
    return [usage(unfolded)]


def usage(unfolded: int) -> Finding:
    """Judge whether maintenance keeps up with what happens."""
    if unfolded <= _MANY_ROWS:
        return _ok("usage", f"{unfolded:,} bookings are not folded yet")
    return Finding(
        check="usage",
        level="warning",
        found=f"more than {_MANY_ROWS:,} bookings are not folded, and statistics read them all",
        advice="run `asyncsvc maintain` more often, as with --every 60",
    )


async def _check_indexes(executor: Executor) -> list[Finding]:
    found = {index.name: index for index in await ServerRepository(executor).indexes()}
    if not found:
        return []  # nothing is migrated, which another check says
    return indexes(found)


def indexes(found: dict[str, Index]) -> list[Finding]:
    """Judge which indexes are missing, broken or unused."""
    expected = expected_indexes()
    missing = sorted(expected.keys() - found.keys())
    create = "; ".join(expected[name] for name in missing)
    broken = [index.name for index in found.values() if not index.is_valid]
    unused = [
        f"{index.name} ({_size(index.bytes)})"
        for index in found.values()
        if not index.scans and not index.is_unique and index.rows >= _MANY_ROWS
    ]
    told: list[tuple[Level, str, list[str], str]] = [
        ("problem", "missing", missing, f"as the owner of the tables: {create}"),
        ("problem", "invalid", broken, "REINDEX INDEX CONCURRENTLY each: its build was broken off"),
        ("note", "unused so far", unused, "look again after a month of real use"),
    ]
    return [
        Finding(check="indexes", level=level, found=f"{what}: {', '.join(names)}", advice=advice)
        for level, what, names, advice in told
        if names
    ] or [_ok("indexes", f"all {len(found)} are there and whole")]


def expected_indexes() -> dict[str, str]:
    """Return the indexes that the migrations create: the command for each, by its name."""
    commands = (command for file in migration_files() for command in file.commands)
    return {
        match[1]: " ".join(command.split())
        for command in commands
        if (match := _INDEX.match(command))
    }


def _size(count: int) -> str:
    return f"{count / _MIB:,.1f} MiB"


_CHECKS: Final[tuple[Check, ...]] = (
    _check_server,
    _check_clock,
    _check_zones,
    _check_migrations,
    _check_indexes,
    _check_tables,
    _check_row_security,
    _check_usage,
)
