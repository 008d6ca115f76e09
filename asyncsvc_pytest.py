"""Fixtures for the tests of applications: a store without rows for each test.

pytest imports this module at each start, in any project. So it is outside the package, whose
import takes longer than the start of pytest, and a fixture imports the package when a test uses it.
"""
# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
import tempfile
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pytest

if TYPE_CHECKING:
    from asyncsvc import AsyncSvc, Settings
    from asyncsvc.operations.testing import DatabaseForTests

T = TypeVar("T")

_VARIABLE = "ASYNCSVC_TEST_DSN"
_SERVER_OPTIONS = {"fsync": "off", "full_page_writes": "off", "max_connections": "300"}
"""Options of the embedded server: its data need not survive a crash, and each worker has a pool."""
_DIRECTORY = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that name the server."""
    text = "PostgreSQL server for the asyncsvc fixtures, as a URL; its role may create databases"
    parser.getgroup("asyncsvc").addoption("--asyncsvc-dsn", metavar="URL", help=text)
    parser.addini("asyncsvc_dsn", f"{text}; --asyncsvc-dsn and {_VARIABLE} take precedence")


def pytest_configure(config: pytest.Config) -> None:
    """Register the asynchronous fixture of pytest-asyncio, if that plugin is active."""
    if config.pluginmanager.has_plugin("asyncio"):
        import pytest_asyncio

        fixtures = types.ModuleType("asyncsvc_pytest.asyncio")
        vars(fixtures)["_asyncsvc_in_asyncio"] = pytest_asyncio.fixture(
            _connected, name="_asyncsvc_in_asyncio"
        )
        config.pluginmanager.register(fixtures)


class _Node(Protocol):
    """A worker of pytest-xdist, which has no types."""

    config: pytest.Config
    workerinput: dict[str, object]


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_configure_node(node: _Node) -> None:
    """Let all workers of `pytest -n` use one embedded server, which the first of them starts."""
    node.workerinput["asyncsvc_directory"] = str(_server_directory(node.config))


def _server_directory(config: pytest.Config) -> Path:
    """Return the directory of the embedded server. The process that chose it removes it."""
    if hasattr(config, "workerinput"):
        return Path(config.workerinput["asyncsvc_directory"])
    if _DIRECTORY not in config.stash:
        name = f"asyncsvc-pytest-{secrets.token_hex(8)}"
        directory = config.stash[_DIRECTORY] = Path(tempfile.gettempdir(), name)
        config.add_cleanup(functools.partial(_remove_server, directory))
    return config.stash[_DIRECTORY]


def _remove_server(directory: Path) -> None:
    if directory.exists():
        from asyncsvc import embedded

        with _event_loop() as run:
            run(embedded.stop(directory))
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def asyncsvc_settings() -> Settings:
    """The settings of the fixtures. Override it to use those of the application."""
    import asyncsvc

    return asyncsvc.Settings(maintenance_interval=None)


@pytest.fixture(scope="session")
def _asyncsvc_store(
    pytestconfig: pytest.Config, asyncsvc_settings: Settings
) -> Iterator[tuple[str, Callable[[], None]]]:
    """The DSN of the database, and the function that empties it."""
    dsn, source = _server(pytestconfig)
    with _event_loop() as run:

        def do(work: Coroutine[Any, Any, T], purpose: str) -> T:
            from asyncsvc import AsyncSvcError

            try:
                return run(work)
            except AsyncSvcError as error:
                pytest.fail(f"asyncsvc cannot {purpose} on {source}: {error}", pytrace=False)

        directory = _server_directory(pytestconfig)
        opened = _database(dsn, directory, is_restricted=asyncsvc_settings.row_level_security)
        database = do(opened.__aenter__(), "create a database")
        yield database.dsn, lambda: do(database.empty(), "empty the database")
        do(opened.__aexit__(None, None, None), "drop the database")


def _server(config: pytest.Config) -> tuple[str, str]:
    """Return the DSN of the server, empty for the embedded one, and its name for errors."""
    if dsn := config.getoption("asyncsvc_dsn"):
        return dsn, "the server of --asyncsvc-dsn"
    if dsn := os.environ.get(_VARIABLE):
        return dsn, f"the server of {_VARIABLE}"
    if dsn := config.getini("asyncsvc_dsn"):
        return dsn, "the server of asyncsvc_dsn in the configuration of pytest"
    options = f"--asyncsvc-dsn, {_VARIABLE} and asyncsvc_dsn name no other server"
    return "", f"the embedded server ({options})"


@contextlib.asynccontextmanager
async def _database(
    dsn: str, directory: Path, *, is_restricted: bool
) -> AsyncIterator[DatabaseForTests]:
    """Create a database on the server of the DSN, or on the embedded server of the directory."""
    from asyncsvc import embedded
    from asyncsvc.operations.testing import migrated_database

    if not dsn:
        dsn = (await embedded.start(directory, options=_SERVER_OPTIONS)).dsn
    async with migrated_database(dsn, row_level_security=is_restricted) as database:
        yield database


@contextlib.contextmanager
def _event_loop() -> Iterator[Callable[[Coroutine[Any, Any, T]], T]]:
    """Yield a function that runs coroutines in a loop of its own, in a thread.

    So it does not matter whether a loop runs in the calling thread, or which one is set there.
    """
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, "asyncsvc_pytest") as thread:
        runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        try:
            yield lambda work: thread.submit(runner.run, work).result()
        finally:
            thread.submit(runner.close).result()


@pytest.fixture(scope="session")
def asyncsvc_database(_asyncsvc_store: tuple[str, Callable[[], None]]) -> str:
    """The DSN of the migrated database of this process.

    Override it to create tables of the application there. The fixtures do not empty those.
    """
    return _asyncsvc_store[0]


@pytest.fixture
def asyncsvc_dsn(asyncsvc_database: str, _asyncsvc_store: tuple[str, Callable[[], None]]) -> str:
    """The DSN of a store without rows. After the test the rows stay until the next one begins."""
    _asyncsvc_store[1]()
    return asyncsvc_database


@pytest.fixture
def asyncsvc_services(request: pytest.FixtureRequest) -> AsyncSvc:
    """The services on a store without rows, in the event loop of an asynchronous test.

    It needs pytest-asyncio or the plugin of anyio.
    """
    if "anyio_backend" in request.fixturenames:
        name = "_asyncsvc_in_anyio"
    elif request.config.pluginmanager.has_plugin("asyncio"):
        name = "_asyncsvc_in_asyncio"
    else:
        pytest.fail("asyncsvc_services needs pytest-asyncio, or anyio's mark", pytrace=False)
    services: AsyncSvc = request.getfixturevalue(name)
    return services


async def _connected(asyncsvc_dsn: str, asyncsvc_settings: Settings) -> AsyncIterator[AsyncSvc]:
    """Open the services in the event loop of the test."""
    import asyncsvc

    async with asyncsvc.connect(asyncsvc_dsn, settings=asyncsvc_settings) as services:
        yield services


_asyncsvc_in_anyio = pytest.fixture(_connected, name="_asyncsvc_in_anyio")
