"""The fixtures of `asyncsvc_pytest`, in runs of pytest of their own."""

import pathlib
import shutil
import tempfile

import asyncpg
import pytest

from asyncsvc.operations.testing import migrated_database
from tests.conftest import fetch

pytest_plugins = ["pytester"]

STORE = """
    import asyncio
    import pytest
    import asyncsvc

    async def use(svc):
        # Raises AlreadyExists if a row of another test is there.
        await svc.conversations.create(id="a", dialog_id="support", tenant_id="acme")
        turn = asyncsvc.Turn(messages=[asyncsvc.Message(role="user", content="Hello")])
        await svc.conversations.append_message("a", turn, tenant_id="acme")
        await svc.tokens.create(tenant_id="acme", name="token", scopes=["chat"])
        assert len((await svc.tokens.get_list(tenant_id="acme")).items) == 1
"""
TWICE = '@pytest.mark.parametrize("n", [1, 2])'


@pytest.fixture
def run(pytester, server_dsn, monkeypatch):
    """Return the function that runs tests of an application with the plugin."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("ASYNCSVC_TEST_DSN", server_dsn)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(source: str, *arguments: str, plugins: str = "asyncio anyio") -> pytest.RunResult:
        pytester.makepyfile(source)
        options = [part for name in plugins.split() for part in ("-p", name)]
        if "asyncio" in plugins.split():
            options += ["-o", "asyncio_default_fixture_loop_scope=function"]
        return pytester.runpytest_subprocess(
            "-p", "asyncsvc_pytest", *options, "-W", "error", *arguments
        )

    return run


@pytest.fixture
def directory(monkeypatch):
    """An empty directory for temporary files that other users can enter, and no other server."""
    directory = pathlib.Path(tempfile.mkdtemp())
    directory.chmod(0o711)
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.delenv("ASYNCSVC_TEST_DSN")
    yield directory
    shutil.rmtree(directory)


def test_each_test_has_a_store_without_rows(run):
    source = f"""{STORE}
    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    {TWICE}
    @pytest.mark.asyncio
    async def test_with_pytest_asyncio(n, asyncsvc_services):
        await use(asyncsvc_services)

    {TWICE}
    @pytest.mark.anyio
    async def test_with_anyio(n, asyncsvc_services):
        await use(asyncsvc_services)

    {TWICE}
    def test_without_a_loop(n, asyncsvc_dsn):
        async def main():
            async with asyncsvc.connect(asyncsvc_dsn) as svc:
                await use(svc)
        asyncio.run(main())
    """
    run(source).assert_outcomes(passed=6)


def test_each_test_has_a_store_without_rows_in_auto_mode(run):
    source = f"""{STORE}
    {TWICE}
    async def test_in_auto_mode(n, asyncsvc_services):
        await use(asyncsvc_services)
    """
    run(source, "--asyncio-mode=auto", plugins="asyncio").assert_outcomes(passed=2)


def test_each_test_has_a_store_without_rows_with_anyio_alone(run):
    source = f"""{STORE}
    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    {TWICE}
    async def test_with_anyio(n, asyncsvc_services):
        await use(asyncsvc_services)
    """
    run(source, plugins="anyio").assert_outcomes(passed=2)


def test_the_services_need_a_plugin_for_coroutines(run):
    result = run("def test_it(asyncsvc_services): pass", plugins="")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines("*asyncsvc_services needs pytest-asyncio*")


NAMES_OF_DATABASES = f"""{STORE}
    import os
    import pathlib

    @pytest.mark.parametrize("n", range(8))
    def test_it(n, asyncsvc_dsn):
        worker = os.environ["PYTEST_XDIST_WORKER"]
        pathlib.Path(f"{{worker}}.dsn").write_text(asyncsvc_dsn)

        async def main():
            async with asyncsvc.connect(asyncsvc_dsn) as svc:
                await use(svc)
                await asyncio.sleep(0.05)  # so that each worker gets tests
        asyncio.run(main())
"""


async def test_each_worker_has_a_database_and_drops_it(run, pytester, server_dsn):
    run(NAMES_OF_DATABASES, "-n", "2", plugins="xdist").assert_outcomes(passed=8)
    names = {path.read_text().rpartition("/")[2] for path in pytester.path.glob("*.dsn")}
    assert len(names) == 2
    known = await fetch(server_dsn, "SELECT string_agg(datname, ' ') FROM pg_database")
    assert not names & set(known.split())


def test_all_workers_use_one_embedded_server_which_the_run_removes(run, pytester, directory):
    run(NAMES_OF_DATABASES, "-n", "2", plugins="xdist").assert_outcomes(passed=8)
    dsns = [path.read_text() for path in pytester.path.glob("*.dsn")]
    assert len({dsn.rpartition("/")[0] for dsn in dsns}) == 1
    assert list(directory.glob("asyncsvc-pytest-*")) == []


@pytest.mark.parametrize(
    ("dsn", "text"),
    [
        ("mysql://localhost/app", "*--asyncsvc-dsn: dsn: must be a PostgreSQL URL*"),
        ("postgresql://postgres@127.0.0.1:1/app", "*cannot create a database on*--asyncsvc-dsn*"),
    ],
)
def test_a_bad_dsn_is_an_error_and_not_a_skip(run, dsn, text):
    result = run("def test_it(asyncsvc_dsn): pass", "--asyncsvc-dsn", dsn)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(text)


def test_the_command_line_precedes_the_environment_which_precedes_the_configuration(
    run, pytester, server_dsn, monkeypatch
):
    source = "def test_it(asyncsvc_dsn): pass"
    refused = "postgresql://postgres@127.0.0.1:1/app"
    pytester.makeini(f"[pytest]\nasyncsvc_dsn = {server_dsn}")
    monkeypatch.setenv("ASYNCSVC_TEST_DSN", refused)
    run(source, plugins="").assert_outcomes(errors=1)
    run(source, "--asyncsvc-dsn", server_dsn, plugins="").assert_outcomes(passed=1)
    monkeypatch.delenv("ASYNCSVC_TEST_DSN")
    run(source, plugins="").assert_outcomes(passed=1)


def test_without_a_server_the_error_names_the_options(run, pytester, directory):
    pytester.makeconftest("from asyncsvc.embedded import programs; programs.WHEELS = ()")
    result = run("def test_it(asyncsvc_dsn): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        "*--asyncsvc-dsn, ASYNCSVC_TEST_DSN and asyncsvc_dsn*'asyncsvc[[]embedded]'*"
    )
    assert list(directory.glob("asyncsvc-pytest-*")) == []


def test_a_role_that_may_not_create_databases_is_an_error(run, server_dsn):
    source = """
    import asyncpg
    import asyncio
    import pytest

    def test_it(asyncsvc_dsn): pass
    """
    result = run(source, "--asyncsvc-dsn", f"{server_dsn}?options=-c%20role%3Dpg_monitor")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines("*permission denied to create database*")


def test_a_test_may_end_all_sessions(run):
    source = f"""{STORE}
    import asyncpg

    {TWICE}
    @pytest.mark.asyncio
    async def test_it(n, asyncsvc_dsn):
        connection = await asyncpg.connect(asyncsvc_dsn)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await connection.close()
    """
    run(source).assert_outcomes(passed=2)


def test_a_transaction_that_a_test_leaves_open_is_an_error_of_the_next_test(run):
    source = f"""{STORE}
    import asyncpg
    kept = []

    @pytest.mark.asyncio(loop_scope="module")
    async def test_that_leaves_it_open(asyncsvc_dsn):
        async with asyncsvc.connect(asyncsvc_dsn) as svc:
            await use(svc)
        kept.append(await asyncpg.connect(asyncsvc_dsn))
        await kept[0].execute("BEGIN; UPDATE asyncsvc.conversation SET name = 'x'")

    def test_next(asyncsvc_dsn): pass

    @pytest.mark.asyncio(loop_scope="module")
    async def test_that_ends_it():
        await kept[0].close()
    """
    result = run(source)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines("*asyncsvc cannot empty the database on*ASYNCSVC_TEST_DSN*lock*")


def test_a_server_that_stops_is_an_error_of_the_next_tests(run, directory):
    source = f"""{STORE}
    import pathlib
    from asyncsvc import embedded

    @pytest.mark.asyncio
    async def test_that_stops_it(asyncsvc_dsn):
        (data,) = pathlib.Path({str(directory)!r}).glob("asyncsvc-pytest-*")
        await embedded.stop(data)

    def test_next(asyncsvc_dsn): pass
    """
    result = run(source)
    result.assert_outcomes(passed=1, errors=2)  # of the test, and of the drop at its end
    result.stdout.fnmatch_lines("*asyncsvc cannot empty the database on the embedded server*")
    assert list(directory.glob("asyncsvc-pytest-*")) == []


def test_an_application_adds_its_tables_and_settings(run, pytester):
    pytester.makeconftest("""
    import asyncio
    import asyncpg
    import pytest
    import asyncsvc

    @pytest.fixture(scope="session")
    def asyncsvc_settings():
        return asyncsvc.Settings(max_batch_size=7, row_level_security=True)

    @pytest.fixture(scope="session")
    def asyncsvc_database(asyncsvc_database):
        async def create():
            connection = await asyncpg.connect(asyncsvc_database)
            await connection.execute("CREATE TABLE parcel (number text)")
            await connection.close()
        asyncio.run(create())
        return asyncsvc_database
    """)
    source = f"""{STORE}
    import asyncpg

    @pytest.mark.asyncio
    async def test_it(asyncsvc_services, asyncsvc_dsn):
        assert asyncsvc_services.settings.max_batch_size == 7
        await use(asyncsvc_services)
        connection = await asyncpg.connect(asyncsvc_dsn)
        assert await connection.fetchval("SELECT count(*) FROM parcel") == 0
        assert await connection.fetchval(
            "SELECT relrowsecurity FROM pg_class WHERE oid = 'asyncsvc.message'::regclass"
        )
        await connection.close()
    """
    run(source).assert_outcomes(passed=1)


def test_a_run_that_uses_no_fixture_imports_nothing(run, directory):
    source = """
    import sys

    def test_it():
        assert "asyncsvc" not in sys.modules
        assert "asyncio" not in sys.modules
    """
    run(source, plugins="").assert_outcomes(passed=1)
    assert list(directory.glob("asyncsvc-pytest-*")) == []


async def test_tables_of_any_size_are_emptied(server_dsn):
    filenode = "SELECT pg_relation_filenode('asyncsvc.conversation')"
    async with migrated_database(f"{server_dsn}?application_name=x&dbname=y") as database:
        connection = await asyncpg.connect(database.dsn)
        try:
            await connection.execute(
                "INSERT INTO asyncsvc.conversation"
                " (tenant_id, id, dialog_id, created_at, updated_at)"
                " SELECT 'acme', n, 'd', now(), now() FROM generate_series(1, 20000) AS n"
            )
            before = await connection.fetchval(filenode)
            await database.empty()
            assert await connection.fetchval("SELECT count(*) FROM asyncsvc.conversation") == 0
            assert await connection.fetchval("SELECT count(*) FROM asyncsvc.migration") == 1
            assert await connection.fetchval(filenode) != before  # it was truncated
        finally:
            await connection.close()
