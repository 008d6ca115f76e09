"""Examine the server and the schema, and give advice to the operator.

A check makes one observation and has rules, each with a condition, a level and an advice. The first
rule whose condition holds determines the finding; without such a rule the level is "ok". A check
that fails, for example without the necessary right, is a finding too.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from zoneinfo import ZoneInfo, available_timezones

from asyncsvc.database import LOST_STATEMENT, PREPARED_ADVICE
from asyncsvc.database.migration_files import migration_files
from asyncsvc.errors import AsyncSvcError, DatabaseError, MigrationError, Unavailable
from asyncsvc.models import Finding, Level
from asyncsvc.operations import cluster, migrations
from asyncsvc.operations.findings import finding
from asyncsvc.repositories import MigrationRepository, ServerRepository, UsageRepository
from asyncsvc.repositories.server import Index, ServerSettings, Table, ZoneOffset

if TYPE_CHECKING:
    from asyncsvc.database import Executor

MIN_VERSION: Final = 15
"""The oldest supported major version of PostgreSQL."""
MAX_VERSION: Final = 18
"""The newest major version that the library was tested with."""
_CREATE_INDEX: Final = re.compile(r"CREATE (?:UNIQUE )?INDEX (\w+)")
_MAX_CLOCK_DIFFERENCE: Final = timedelta(seconds=1)
_MANY_ROWS: Final = 10_000
_MAX_DEAD_SHARE: Final = 0.2
_MAX_NAMED_ZONES: Final = 5
_MIB: Final = 2**20
_MIN_VACUUM_RATE: Final = 100_000
"""Cost units per second with PostgreSQL's defaults."""
_MIN_VACUUM_MEMORY: Final = 64 * _MIB
"""The default of maintenance_work_mem, and the size of the pending list of the search index."""
_OWNERS_TABLES: Final = {"maintenance", "migration"}
"""The tables without a tenant, which only the owner of the tables needs."""
_POOLER_ADVICE: Final = (
    "if it pools transactions, set Settings.pgbouncer, or open the pool that you pass to AsyncSvc"
    " with statement_cache_size=0"
)
_KEPT_ADVICE: Final = (
    'set Settings.pgbouncer to "prepared", so that the server does not plan each statement again'
)

Check: TypeAlias = Callable[["Executor"], Awaitable[list[Finding]]]


async def examine(executor: Executor) -> list[Finding]:
    """Run all checks one after the other. Read-only."""
    return [each for check in _CHECKS for each in await _run(check, executor)]


async def _run(check: Check, executor: Executor) -> list[Finding]:
    try:
        return await check(executor)
    except AsyncSvcError as error:
        return [_failure(check.__name__.removeprefix("_check_"), error)]


def _failure(check: str, error: AsyncSvcError) -> Finding:
    """Return the finding for a check that failed."""
    if isinstance(error, DatabaseError) and error.sqlstate in LOST_STATEMENT:
        observed = f"prepared statements are lost or confused: {error}"
        return Finding(check="pooler", level="problem", observed=observed, advice=_POOLER_ADVICE)
    if isinstance(error, MigrationError):
        advice = "install the version of asyncsvc that migrated this database"
    elif isinstance(error, Unavailable):
        advice = "repeat it when the server and all nodes answer"
    else:
        advice = "resolve the error of the server, for example by granting the missing right"
    return Finding(check=check, level="problem", observed=f"check failed: {error}", advice=advice)


async def _check_server(executor: Executor) -> list[Finding]:
    """Check version, durability and pooler, all on one connection."""
    async with executor.transaction() as transaction:
        is_kept = await transaction.keeps_prepared_statements()
        server, pid = await ServerRepository(transaction).settings(), transaction.reported_pid
    setting = executor.settings.pgbouncer
    return [
        version(server),
        replica(server),
        durability(server),
        autovacuum(server),
        pooler(server, pid, setting, is_kept=is_kept),
        search(server),
    ]


def version(server: ServerSettings) -> Finding:
    """Check the version and the encoding."""
    major = server.version_number // 10_000
    return finding(
        "server",
        f"PostgreSQL {server.version}, {server.encoding}",
        (major < MIN_VERSION, "problem", f"upgrade to PostgreSQL {MIN_VERSION} or newer"),
        (server.encoding != "UTF8", "problem", "move to a database with the encoding UTF8"),
        (major > MAX_VERSION, "note", f"this version is tested up to PostgreSQL {MAX_VERSION}"),
    )


def search(server: ServerSettings) -> Finding:
    """Check whether a search finds capital letters of all alphabets."""
    locale = server.search_locale
    advice = (
        "move to PostgreSQL 17, to a server with ICU or to a database with a UTF-8 locale: a search"
        " for öl does not find Öl"
    )
    return finding(
        "search",
        "a search ignores upper and lower case by Unicode's rules"
        if locale is None
        else f"a search ignores upper and lower case by the rules of the locale {locale}",
        (locale in {"C", "POSIX"}, "warning", advice),
    )


def replica(server: ServerSettings) -> Finding:
    """Check whether the server accepts writes."""
    return finding(
        "replica",
        "a read replica" if server.is_replica else "a primary, which accepts writes",
        (server.is_replica, "warning", "connect to the primary to write, and verify tokens there"),
    )


def durability(server: ServerSettings) -> Finding:
    """Check whether acknowledged writes survive a crash."""
    fsync, pages = ("on" if on else "off" for on in (server.fsync, server.full_page_writes))
    commit = server.synchronous_commit
    return finding(
        "durability",
        f"fsync {fsync}, full_page_writes {pages}, synchronous_commit {commit}",
        ("off" in {fsync, pages}, "problem", "turn both on: a crash can destroy the database"),
        (commit == "off", "warning", "turn it on: a crash loses the last 0.6 s of writes"),
    )


def autovacuum(server: ServerSettings) -> Finding:
    """Check whether autovacuum keeps up with new and changed rows."""
    rate = f"{server.vacuum_rate:,} cost units a second" if server.vacuum_rate else "no cost limit"
    is_slow = 0 < server.vacuum_rate < _MIN_VACUUM_RATE
    faster = (
        "set autovacuum_vacuum_cost_delay = 2ms and autovacuum_vacuum_cost_limit = 200 or more: a"
        " slower autovacuum may not keep up with indexing and purges"
    )
    larger = (
        "set maintenance_work_mem = 64MB or more: with less, autovacuum and the search index read"
        " each large index several times"
    )
    return finding(
        "autovacuum",
        f"{'on' if server.autovacuum else 'off'}, {rate}, {_size(server.vacuum_memory)} of memory",
        (not server.autovacuum, "problem", "turn autovacuum and track_counts on: tables grow"),
        (is_slow, "warning", faster),
        (server.vacuum_memory < _MIN_VACUUM_MEMORY, "warning", larger),
    )


def pooler(
    server: ServerSettings,
    reported_pid: int,
    setting: Literal["transaction", "prepared"] | None,
    *,
    is_kept: bool,
) -> Finding:
    """Check for a pooler, which reports another process id than the server, and its setting."""
    if reported_pid == server.backend_pid:
        return finding("pooler", "no pooler is in use")
    return finding(
        "pooler",
        "a pooler is in use, which keeps prepared statements"
        if is_kept
        else "a pooler is in use, which keeps no prepared statements",
        (setting is None, "note", _POOLER_ADVICE),
        (setting == "prepared" and not is_kept, "problem", PREPARED_ADVICE),
        (setting == "transaction" and is_kept, "note", _KEPT_ADVICE),
    )


async def _check_clock(executor: Executor) -> list[Finding]:
    before = datetime.now(UTC)
    server = await ServerRepository(executor).clock()
    return [clock(server, before, datetime.now(UTC))]


def clock(server: datetime, before: datetime, after: datetime) -> Finding:
    """Compare the server's clock with this machine's clock before and after the query."""
    difference = max(before - server, server - after, timedelta(0))
    return finding(
        "clock",
        f"the server's clock and this machine's differ by {difference.total_seconds():,.1f} s",
        (
            difference >= _MAX_CLOCK_DIFFERENCE,
            "warning",
            "synchronise both by NTP; expiry, ages and times follow the server's clock",
        ),
    )


async def _check_zones(executor: Executor) -> list[Finding]:
    try:
        offsets = await ServerRepository(executor).zones()
    except MigrationError:
        return []  # the check of the migrations reports it
    known = {name for name in available_timezones() if "/" in name}
    return [zones(sorted(zone.name for zone in offsets if _differs(zone, known)))]


def _differs(zone: ZoneOffset, known: set[str]) -> bool:
    """Return whether Python has another offset for the zone. `posix/` is a directory of copies."""
    if zone.name not in known or zone.name.startswith("posix/"):
        return False
    return zone.at.astimezone(ZoneInfo(zone.name)).utcoffset() != timedelta(seconds=zone.seconds)


def zones(differing: Sequence[str]) -> Finding:
    """Check whether the server and Python have the same rules for the declared time zones."""
    names = ", ".join(differing[:_MAX_NAMED_ZONES])
    more = ", …" if len(differing) > _MAX_NAMED_ZONES else ""
    return finding(
        "zones",
        f"the server and Python differ on {len(differing)} declared time zones: {names}{more}"
        if differing
        else "the server and Python agree on each declared time zone that both know",
        (bool(differing), "warning", "update the older time zone database (tzdata)"),
    )


async def _check_migrations(executor: Executor) -> list[Finding]:
    pending = [f"{each.version:04}_{each.name}" for each in await migrations.pending(executor)]
    return [
        finding(
            "migrations",
            f"pending: {', '.join(pending)}" if pending else "all are applied",
            (bool(pending), "problem", "run `asyncsvc migrate` as a role that may create"),
        )
    ]


async def _check_indexes(executor: Executor) -> list[Finding]:
    present = {index.name: index for index in await ServerRepository(executor).indexes()}
    return indexes(present) if present else []


def indexes(present: dict[str, Index]) -> list[Finding]:
    """Return a finding for missing, for invalid and for unused indexes, or one "ok"."""
    expected = expected_indexes()
    missing = sorted(expected.keys() - present.keys())
    invalid = [index.name for index in present.values() if not index.is_valid]
    unused = [
        f"{index.name} ({_size(index.bytes)})"
        for index in present.values()
        if not index.scans and not index.is_unique and index.rows >= _MANY_ROWS
    ]
    create = "; ".join(expected[name] for name in missing)
    groups: list[tuple[list[str], Level, str, str]] = [
        (missing, "problem", "missing", f"as the owner of the tables: {create}"),
        (invalid, "problem", "invalid", "REINDEX INDEX CONCURRENTLY each: its build failed"),
        (unused, "note", "unused so far", "check again after a month in production"),
    ]
    return [
        finding("indexes", f"{state}: {', '.join(names)}", (True, level, advice))
        for names, level, state, advice in groups
        if names
    ] or [finding("indexes", f"all {len(present)} exist and are valid")]


def expected_indexes() -> dict[str, str]:
    """Return the indexes that the migrations create: each command by the name of its index."""
    commands = (command for file in migration_files() for command in file.commands)
    return {match[1]: command for command in commands if (match := _CREATE_INDEX.match(command))}


async def _check_tables(executor: Executor) -> list[Finding]:
    """Check rights, sizes and dead rows. Before the first migration there are no tables."""
    tables = await ServerRepository(executor).tables()
    if not tables:
        return []
    sizes = ", ".join(
        f"{table.name} {_size(table.bytes)} ({table.live:,} rows)" for table in tables
    )
    total = _size(sum(table.bytes for table in tables))
    return [rights(tables), finding("size", f"{total}: {sizes}"), *dead_rows(tables)]


def rights(tables: Sequence[Table]) -> Finding:
    """Check whether this role may read and change every table of tenants."""
    own = [table for table in tables if table.name not in _OWNERS_TABLES]
    unreadable = ", ".join(table.name for table in own if not table.is_readable)
    unwritable = ", ".join(table.name for table in own if not table.is_writable)
    observed = f"may not read {unreadable}" if unreadable else f"may not change {unwritable}"
    advice = "grant USAGE on the schema and SELECT, INSERT, UPDATE, DELETE on its tables"
    return finding(
        "rights",
        f"this role {observed if unwritable or unreadable else 'may read and change every table'}",
        (bool(unreadable), "problem", advice),
        (bool(unwritable), "note", advice),
    )


def dead_rows(tables: Sequence[Table]) -> list[Finding]:
    """Return a finding for each table that waits for VACUUM."""
    return [
        finding(
            "dead rows",
            f"{share:.0%} of {table.name} are dead: {table.dead:,} rows",
            (True, "warning", f"check that autovacuum runs, and VACUUM asyncsvc.{table.name} now"),
        )
        for table in tables
        if table.dead > _MANY_ROWS
        and (share := table.dead / (table.live + table.dead)) > _MAX_DEAD_SHARE
    ]


async def _check_row_security(executor: Executor) -> list[Finding]:
    tables = {table.name for table in await ServerRepository(executor).tables()} - _OWNERS_TABLES
    if not tables:
        return []
    visible = await MigrationRepository(executor).get_unrestricted_tables()
    hidden = sorted(tables - set(visible))
    if executor.settings.row_level_security:
        advice = (
            "migrate with Settings.row_level_security, and connect as a role that does not own"
            " the tables"
        )
        observed = f"this role sees the rows of all tenants in {', '.join(visible)}"
        result = finding(
            "row security",
            observed if visible else "on, and it restricts this role",
            (bool(visible), "problem", advice),
        )
    else:
        advice = "set Settings.row_level_security, or connect as the owner of the tables"
        result = finding(
            "row security",
            f"this role sees no rows of {', '.join(hidden)}" if hidden else "not requested",
            (bool(hidden), "problem", advice),
        )
    return [result]


async def _check_citus(executor: Executor) -> list[Finding]:
    return await cluster.examine(executor)


async def _check_usage(executor: Executor) -> list[Finding]:
    try:
        rows = await UsageRepository(executor).backlog(limit=_MANY_ROWS + 1)
    except MigrationError:
        return []  # the check of the migrations reports it
    return [usage(rows)]


def usage(rows: int) -> Finding:
    """Check whether maintenance keeps up with new usage."""
    count = f"{rows:,}" if rows <= _MANY_ROWS else f"more than {_MANY_ROWS:,}"
    return finding(
        "usage",
        f"{count} rows of the usage ledger are not rolled up",
        (
            rows > _MANY_ROWS,
            "warning",
            "run `asyncsvc maintain --every 60` as the owner of the tables",
        ),
    )


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
    _check_citus,
    _check_usage,
)
