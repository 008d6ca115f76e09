"""Fixtures: one server for the run, one database for each test.

`tests/support/servers.py` chooses the server; the first line of the run names it. A template
database is migrated once. Each test with the fixture `dsn`, `svc` or `pool` gets a copy of the
template, or the emptied database of an earlier test. After the test `sql/invariants.sql` checks the
database.
"""

import asyncio
import contextlib
import itertools
import os
import pathlib
import re
import secrets
import signal
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Protocol
from unittest import mock

import asyncpg
import pytest
import pytest_asyncio

import asyncsvc
from asyncsvc import Settings
from asyncsvc.operations.background import BackgroundMaintenance
from benchmarks import pgbouncer as pgbouncer_server
from tests.support import citus
from tests.support.citus import ON_CITUS
from tests.support.memory import use_memory
from tests.support.servers import Server, ServerError, start_server

if TYPE_CHECKING:
    from xdist.scheduler import Scheduling
    from xdist.workermanage import WorkerController

    from asyncsvc import AsyncSvc

SQL = pathlib.Path(__file__).parent / "support" / "sql"
INVARIANTS, FINGERPRINT, EMPTY = (
    (SQL / f"{name}.sql").read_text(encoding="utf-8")
    for name in ("invariants", "fingerprint", "empty_citus" if ON_CITUS else "empty")
)
OTHER_SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    " AND NOT starts_with(application_name, 'citus_internal')"  # of the nodes of Citus
)
HAS_SCHEMA = (
    "SELECT to_regclass('asyncsvc.conversation') IS NOT NULL"
    " AND to_regclass('asyncsvc.message') IS NOT NULL"
)
MAY_HAVE_ROWS = (
    "SELECT bool_or(pg_relation_size(c.oid) > 0) FROM pg_class AS c"
    " WHERE c.relnamespace = 'asyncsvc'::regnamespace"
    " AND c.relkind = 'r' AND c.relname <> 'migration'"
)
"""Whether any table has been written to. Of a distributed table it does not see the rows."""
POOLER_SETTING = os.environ.get("ASYNCSVC_TEST_PGBOUNCER")
"""`Settings.pgbouncer` of `svc`, which then connects through a PgBouncer in transaction mode."""
SERVER_CONNECTIONS = 4
"""Server connections of a PgBouncer: fewer than a test has clients, so that clients share them."""
KEPT_STATEMENTS = 100
"""Prepared statements that a PgBouncer keeps for each server connection."""
DEFAULT_INTERVAL = 60
SERVER = pytest.StashKey[Server]()
EXPENSIVE = (
    "tests/cli/test_demo.py",
    "tests/database/test_lost_nodes.py",
    "tests/database/test_plans.py",
    "tests/database/test_replicas.py",
    "tests/embedded/test_embedded.py",
    "tests/project/test_chat_app.py",
    "tests/ragflow/test_ragflow_import.py",
)
"""Modules whose fixtures start a server or fill a database; one worker runs all their tests."""


LONG = (
    "tests/api/test_usage_mutations.py",
    "tests/api/test_usage_roll_up.py",
    "tests/models/test_state_machine.py",
    "tests/project/test_benchmarks.py",
    "tests/project/test_soak.py",
)
"""Modules with a long test. They run early, so that workers end at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the tests of the modules `LONG` to the start, and skip tests on Citus."""
    citus.skip_tests(items)
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def pytest_configure() -> None:
    """Let programs of tests receive SIGINT, which a shell ignores in its background jobs."""
    citus.use_settings()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Start the server before the first test and before pytest's own first line."""
    if session.config.option.collectonly or is_worker(session.config):
        return
    use_memory()
    try:
        server = start_server()
    except ServerError as error:
        raise pytest.UsageError(f"asyncsvc tests: no server: {error}") from error
    session.config.stash[SERVER] = server
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"asyncsvc tests on: {server.description}")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_configure_node(node: "WorkerController") -> None:
    """Pass the DSN of the server to a worker of `pytest -n`: all workers use one server."""
    node.workerinput["server_dsn"] = node.config.stash[SERVER].dsn


def is_worker(config: pytest.Config) -> bool:
    """Return whether this process is a worker of `pytest -n`."""
    return hasattr(config, "workerinput")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the server, also after Ctrl-C."""
    server = config.stash.get(SERVER, None)
    if server is not None:
        server.stop()


class DatabaseFactory(Protocol):
    """Creates another database for this test and returns its DSN."""

    async def __call__(self, *, migrated: bool = True) -> str: ...


@pytest.fixture(scope="session", autouse=True)
def no_maintenance_at_the_default_interval() -> Iterator[None]:
    """Keep maintenance out of tests that count statements, rows or connections.

    A test that needs it in the background sets a short `Settings.maintenance_interval`.
    """
    start = BackgroundMaintenance.start

    def start_if_short(self: BackgroundMaintenance) -> None:
        if self.interval < DEFAULT_INTERVAL:
            start(self)

    with mock.patch.object(BackgroundMaintenance, "start", start_if_short):
        yield


@pytest.fixture(scope="session")
def server_dsn(pytestconfig: pytest.Config) -> str:
    """The DSN of the maintenance database. It only creates and drops other databases."""
    if is_worker(pytestconfig):
        return str(pytestconfig.workerinput["server_dsn"])
    return pytestconfig.stash[SERVER].dsn


@pytest.fixture(scope="session")
def database_prefix() -> str:
    """The prefix of the names of all databases of this run. No other run has it."""
    return f"asyncsvc_test_{secrets.token_hex(4)}"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def template(server_dsn: str, database_prefix: str) -> AsyncIterator[str]:
    """The name of the migrated database from which the other databases are copied."""
    name = f"{database_prefix}_template"
    await create_database(server_dsn, name, template="template0")
    dsn = dsn_of(server_dsn, name)
    if ON_CITUS:
        await citus.create_cluster(server_dsn, name)
    async with asyncsvc.connect(dsn) as svc:
        await svc.migrate(citus=ON_CITUS)
    if ON_CITUS:
        await citus.close_template(server_dsn, name)
    yield name
    await drop_database(server_dsn, name)


class DatabasePool:
    """The databases of this process. A database whose schema is unchanged is used again.

    A copy of the template takes longer than most tests. After a test, a database with an unchanged
    schema and without sessions is emptied for the next test. Other databases are dropped.
    """

    def __init__(
        self, server_dsn: str, prefix: str, template: str, numbers: "itertools.count[int]"
    ) -> None:
        self._server_dsn = server_dsn
        self._prefix = prefix
        self._template = template
        self._numbers = numbers
        self._spare: list[str] = []
        self._sessions: dict[str, asyncpg.Connection] = {}
        self._fingerprint: object = None

    @contextlib.asynccontextmanager
    async def factory(self, *, damaged: bool = False) -> AsyncIterator[DatabaseFactory]:
        """Yield a factory of databases, and check the invariants at the end unless `damaged`."""
        names: list[str] = []
        empty: list[str] = []

        async def create(*, migrated: bool = True) -> str:
            name = await self._take_migrated() if migrated else await self._create("template0")
            (names if migrated else empty).append(name)
            return dsn_of(self._server_dsn, name)

        yield create
        broken: list[str] = []
        for name in (*names, *empty):
            if await self._is_emptied(name, broken, damaged=damaged, migrated=name in names):
                self._spare.append(name)
            else:
                await drop_database(self._server_dsn, name)
        if broken:
            message = "\n".join(["the test left rows that contradict each other:", *broken])
            pytest.fail(message, pytrace=False)

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        for name in self._spare:
            await drop_database(self._server_dsn, name)

    async def _create(self, template: str) -> str:
        name = f"{self._prefix}_{next(self._numbers)}"
        await create_database(self._server_dsn, name, template=template)
        return name

    async def _take_migrated(self) -> str:
        if self._spare:
            return self._spare.pop()
        name = await self._create(self._template)
        if self._fingerprint is None:
            self._fingerprint = await fetch(dsn_of(self._server_dsn, name), FINGERPRINT)
        return name

    async def _is_emptied(
        self, name: str, broken: list[str], *, damaged: bool, migrated: bool
    ) -> bool:
        """Check the invariants, empty the database, and return whether another test can use it.

        The session stays open for the next test of the database. In a new session the first
        statement on each table takes longer than all of the following ones.
        """
        try:
            session = await self._session(name)
        except asyncpg.InvalidCatalogNameError:  # the test dropped it
            return False
        except (asyncpg.PostgresError, OSError):
            if damaged:
                return False
            raise
        is_reset = False
        try:
            if not damaged:
                broken += await broken_rules(session)
            is_reset = migrated and await self._is_reset(session)
        finally:
            if is_reset:
                self._sessions[name] = session
            else:
                await session.close()
        return is_reset

    async def _session(self, name: str) -> asyncpg.Connection:
        """Return the session that an earlier test kept unless it has ended, or a new one."""
        kept = self._sessions.pop(name, None)
        if kept is not None:
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await kept.execute("SELECT 1")
                return kept
        return await asyncpg.connect(dsn_of(self._server_dsn, name), timeout=60)

    async def _is_reset(self, session: asyncpg.Connection) -> bool:
        """Empty the database unless it is in use or its schema changed; return whether it did."""
        if self._fingerprint is None:
            return False
        try:
            for _ in range(50):  # a closed connection may still end
                if not await session.fetchval(OTHER_SESSIONS):
                    break
                await asyncio.sleep(0.01)
            else:
                return False
            if self._fingerprint != await session.fetchval(FINGERPRINT):
                return False
            await session.execute(EMPTY, timeout=10)
        except (asyncpg.PostgresError, TimeoutError):
            return False
        return True


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def database_pool(
    server_dsn: str, database_prefix: str, template: str, numbers: "itertools.count[int]"
) -> AsyncIterator[DatabasePool]:
    """The databases of this process."""
    pool = DatabasePool(server_dsn, database_prefix, template, numbers)
    yield pool
    await pool.close()


@pytest_asyncio.fixture(loop_scope="session")
async def database_factory(
    database_pool: DatabasePool, request: pytest.FixtureRequest
) -> AsyncIterator[DatabaseFactory]:
    """A factory of databases for this test: copies of the template, or empty databases.

    It runs in the loop of the whole run, to which the sessions of the pool belong.
    """
    damaged = request.node.get_closest_marker("damages") is not None
    async with database_pool.factory(damaged=damaged) as create:
        yield create


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_dsns(database_pool: DatabasePool) -> AsyncIterator[tuple[str, str]]:
    """The DSNs of two migrated databases for all tests of a module. Each test has its own tenants.

    Creating a database takes about 100 times as long as a call, so the tests of all methods share
    these two.
    """
    async with database_pool.factory() as create:
        yield await create(), await create()


@pytest.fixture(scope="session")
def numbers() -> "itertools.count[int]":
    """Numbers for the databases of this run."""
    return itertools.count(1)


@pytest_asyncio.fixture
async def dsn(database_factory: DatabaseFactory) -> str:
    """The DSN of a migrated database for this test alone."""
    return await database_factory()


@pytest_asyncio.fixture
async def empty_dsn(database_factory: DatabaseFactory) -> str:
    """The DSN of an empty database, without the schema, for this test alone."""
    return await database_factory(migrated=False)


@pytest_asyncio.fixture
async def svc(dsn: str, pooler: str | None) -> "AsyncIterator[AsyncSvc]":
    """The library on `dsn`, as an application opens it; with POOLER_SETTING, by a PgBouncer.

    Usage names persons for 31 years, since the times in tests are of any year.
    """
    if pooler is None:
        async with asyncsvc.connect(dsn, settings=Settings(usage_retention=10**9)) as service:
            yield service
    else:
        pooled = dsn_of(pooler, urllib.parse.urlsplit(dsn).path.removeprefix("/"))
        async with asyncsvc.connect(
            pooled, settings=Settings(pgbouncer=POOLER_SETTING, usage_retention=10**9)
        ) as service:
            yield service


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def pooler(server_dsn: str) -> AsyncIterator[str | None]:
    """The DSN of a PgBouncer in transaction mode for all databases; None if tests use none."""
    if not POOLER_SETTING:
        yield None
        return
    async with pgbouncer_server.running(
        server_dsn,
        server_connections=SERVER_CONNECTIONS,
        max_prepared_statements=KEPT_STATEMENTS if POOLER_SETTING == "prepared" else 0,
    ) as dsns:
        yield dsns["transaction"]


@pytest_asyncio.fixture
async def pool(dsn: str) -> "AsyncIterator[asyncpg.Pool]":
    """A plain asyncpg pool on `dsn`, like the pool of an application."""
    async with asyncpg.create_pool(dsn, min_size=0, max_size=10) as plain:
        yield plain


@pytest_asyncio.fixture
async def pgbouncer(dsn: str) -> AsyncIterator[dict[str, str]]:
    """The DSNs of a PgBouncer on `dsn`, by its pool mode."""
    if pgbouncer_server.program() is None:
        pytest.skip("there is no pgbouncer")
    async with pgbouncer_server.running(dsn, server_connections=SERVER_CONNECTIONS) as dsns:
        yield dsns


@pytest_asyncio.fixture
async def keeping_pgbouncer(dsn: str) -> AsyncIterator[dict[str, str]]:
    """The DSNs of a PgBouncer on `dsn` that keeps prepared statements in transaction mode."""
    if not pgbouncer_server.can_keep_statements():
        pytest.skip("there is no pgbouncer 1.21 or newer")
    async with pgbouncer_server.running(
        dsn, server_connections=SERVER_CONNECTIONS, max_prepared_statements=KEPT_STATEMENTS
    ) as dsns:
        yield dsns


@pytest.fixture(params=["transaction", "prepared"])
def pooler_setting(request: pytest.FixtureRequest) -> tuple[dict[str, str], str]:
    """The DSNs of a PgBouncer and `Settings.pgbouncer`, without and with prepared statements."""
    fixture = "keeping_pgbouncer" if request.param == "prepared" else "pgbouncer"
    return request.getfixturevalue(fixture), request.param


def dsn_of(server_dsn: str, database: str) -> str:
    """Return the DSN of another database on the same server."""
    return urllib.parse.urlsplit(server_dsn)._replace(path=f"/{database}").geturl()


async def create_database(server_dsn: str, name: str, *, template: str) -> None:
    """Create a database as a copy of a template without sessions."""
    await citus.on_each_node(server_dsn, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    if ON_CITUS:
        await citus.configure(server_dsn, name)


async def drop_database(server_dsn: str, name: str) -> None:
    """Drop a database and terminate its sessions."""
    await citus.on_each_node(server_dsn, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


async def fetch(dsn: str, query: str) -> object:
    """Return the first value of the first row."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def broken_rules(connection: asyncpg.Connection) -> list[str]:
    """Return the rules of `sql/invariants.sql` that do not hold; nothing without schema or rows."""
    if not await connection.fetchval(HAS_SCHEMA):
        return []
    if not ON_CITUS and not await connection.fetchval(MAY_HAVE_ROWS):
        return []
    rows = await contradictions(connection)
    return [f"tenant {row['tenant_id']!r}, {row['what']}: {row['broken']}" for row in rows]


async def contradictions(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    """Run `sql/invariants.sql` and return its rows. Citus rejects it, so there it reads copies."""
    if not ON_CITUS:
        return await connection.fetch(INVARIANTS, timeout=120)
    text = INVARIANTS
    for table in sorted(set(re.findall(r"(?:FROM|JOIN) asyncsvc\.(\w+) AS", INVARIANTS))):
        await connection.execute(f"DROP TABLE IF EXISTS pg_temp.{table}")
        await connection.execute(f"CREATE TEMP TABLE {table} AS SELECT * FROM asyncsvc.{table}")
        text = re.sub(rf"\basyncsvc\.{table}\b", f"pg_temp.{table}", text)
    rows = await connection.fetch(text)
    await connection.execute("DISCARD TEMP")
    return rows


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> "Scheduling | None":
    """Run all tests of an expensive module on one worker; distribute other tests one by one."""
    if config.option.dist != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class OneWorkerForAModule(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((module for module in EXPENSIVE if nodeid.startswith(module)), nodeid)

    return OneWorkerForAModule(config, log)
