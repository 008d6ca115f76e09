"""Choose and start the PostgreSQL server of a test run.

1. `ASYNCSVC_TEST_DSN`, if set: an external server. Its role must be allowed to create databases;
   the tests use the database of the DSN only for that.
2. A container of `ASYNCSVC_TEST_IMAGE` (default `postgres:17`), started by testcontainers, if a
   container engine answers and has the image or can download it. `none` disables containers.
3. The embedded server of `asyncsvc.embedded`.

If the environment names a server, its failure ends the run. Only the default container falls back
to the embedded server; `Server.description` contains the reason.

A server that this module starts listens on the loopback interface, runs without fsync, and is
deleted at the end.
"""

import asyncio
import contextlib
import gc
import os
import pathlib
import shutil
import socket
import tempfile
import time
import warnings
from typing import TYPE_CHECKING, Protocol

import asyncpg

from asyncsvc.errors import AsyncSvcError

if TYPE_CHECKING:
    from testcontainers.community.postgres import PostgresContainer
    from testcontainers.core.docker_client import DockerClient

DEFAULT_IMAGE = "postgres:17"
LABEL = "asyncsvc.tests"  # on every container, to find the containers of a killed run
OLDEST_VERSION = 15

ENGINE_SECONDS = 20.0  # for a reply of the engine, and for progress of a download
PULL_SECONDS = 300.0  # for a whole download
START_SECONDS = 60.0  # for a container, until its server answers
POLL_SECONDS = 0.1

SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "max_wal_size": "256MB",
}


class ServerError(Exception):
    """A server is not available; the text is the reason in one sentence."""


class Server(Protocol):
    """A PostgreSQL server for one run of the tests."""

    description: str  # the server in words, for the first line of the run
    dsn: str  # the DSN of its maintenance database

    def start(self) -> None:
        """Start the server and wait until it answers; raise `ServerError` if it cannot."""

    def stop(self) -> None:
        """Stop the server and remove its files. Further calls have no effect."""


async def server_version(dsn: str) -> str:
    """Return the version of the server; raise `ServerError` if the library does not support it."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        # For example "15.18 (Debian 15.18-0+deb12u1)": the packager adds the second part.
        version = str(connection.get_settings().server_version).partition(" ")[0]
        major = connection.get_server_version().major
    finally:
        await connection.close()
    if major < OLDEST_VERSION:
        raise ServerError(f"PostgreSQL {version} is older than {OLDEST_VERSION}")
    return f"PostgreSQL {version}"


def connected_version(dsn: str) -> str:
    """Return `server_version` in code without an event loop."""
    try:
        return asyncio.run(server_version(dsn))
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise ServerError(f"cannot connect: {one_line(error)}") from error


def answering_version(dsn: str) -> str:
    """Return `connected_version`, and retry until the connection to a ready server works.

    A container engine's proxy accepts a connection before it can connect to the container, and
    closes it if it cannot.
    """
    give_up = time.monotonic() + START_SECONDS
    while True:
        try:
            return connected_version(dsn)
        except ServerError as error:
            if not isinstance(error.__cause__, OSError) or time.monotonic() > give_up:
                raise
        time.sleep(POLL_SECONDS)


class ExternalServer:
    """The server of `ASYNCSVC_TEST_DSN`. This module neither starts nor stops it."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.description = "the server of ASYNCSVC_TEST_DSN"

    def start(self) -> None:
        try:
            self.description = f"{connected_version(self.dsn)}, {self.description}"
        except (ServerError, ValueError) as error:
            raise ServerError(f"ASYNCSVC_TEST_DSN: {one_line(error)}") from error

    def stop(self) -> None:
        pass


class ContainerServer:
    """A container of an image that behaves like the official `postgres`."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.dsn = ""
        self.description = f"a container of {image} (testcontainers)"
        self._container: PostgresContainer | None = None

    def start(self) -> None:
        import docker.errors
        import requests

        try:
            self._start()
        except (
            docker.errors.DockerException,
            requests.RequestException,
            OSError,
            TimeoutError,
            RuntimeError,  # testcontainers: the container ended before its server answered
        ) as error:
            self.stop()
            raise ServerError(f"{self.image}: {one_line(error)}") from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        import docker.errors

        container, self._container = self._container, None
        if container is not None:
            with contextlib.suppress(docker.errors.DockerException, OSError):
                container.stop()

    def _start(self) -> None:
        import docker.errors
        import requests
        from testcontainers.community.postgres import PostgresContainer
        from testcontainers.core.config import testcontainers_config
        from testcontainers.core.docker_client import DockerClient

        if "TESTCONTAINERS_RYUK_DISABLED" not in os.environ:
            # Ryuk is one more image to download; this module removes its container itself.
            testcontainers_config.ryuk_disabled = True
        testcontainers_config.sleep_time = POLL_SECONDS
        testcontainers_config.max_tries = int(START_SECONDS / POLL_SECONDS)

        try:
            client = DockerClient(timeout=ENGINE_SECONDS)
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            raise ServerError(f"no container engine answers: {root_cause(error)}") from error
        try:
            engine_is_here = prefer_loopback(client)
            pull_if_missing(client, self.image)
        finally:
            client.client.close()

        container = PostgresContainer(
            self.image, username="postgres", password="postgres", dbname="postgres", driver=None
        )
        self._container = container
        if engine_is_here:
            # Without an address the engine would publish the port on every interface.
            container.ports = {"5432/tcp": ("127.0.0.1",)}
        container.with_kwargs(labels={LABEL: "true"})
        container.with_env("PGDATA", "/pgdata/data").with_tmpfs_mount("/pgdata")
        container.with_command(
            ["postgres", *(part for item in SETTINGS.items() for part in ("-c", "=".join(item)))]
        )
        container.start()
        self.dsn = container.get_connection_url()
        self.description = f"{answering_version(self.dsn)} in {self.description}"


def prefer_loopback(client: "DockerClient") -> bool:
    """Return whether the engine publishes ports on this machine; if so, connect to 127.0.0.1.

    In a container testcontainers assumes that the engine runs outside of it, and uses the address
    of the gateway. This is right if the host's socket is mounted, and wrong if the engine runs in
    the same container as the tests. In the latter case the engine reports this host name.
    """
    from testcontainers.core.config import ConnectionMode, testcontainers_config

    if not client.client.api.base_url.startswith("http+docker://"):
        return False  # over TCP or SSH the engine may be on another machine
    if client.client.info().get("Name") == socket.gethostname():
        if testcontainers_config.tc_host_override is None:
            testcontainers_config.tc_host_override = "127.0.0.1"
        if testcontainers_config.connection_mode_override is None:
            testcontainers_config.connection_mode_override = ConnectionMode.docker_host
        return True
    return not pathlib.Path("/.dockerenv").exists()  # the engine is in a virtual machine


def pull_if_missing(client: "DockerClient", image: str) -> None:
    """Download the image unless the engine has it. Give up if the download makes no progress."""
    import docker.errors
    import requests
    import urllib3.exceptions
    from docker.utils import parse_repository_tag

    with contextlib.suppress(docker.errors.ImageNotFound):
        client.client.images.get(image)
        return
    repository, tag = parse_repository_tag(image)
    give_up = time.monotonic() + PULL_SECONDS
    try:
        # The client's timeout applies to each read, not to the whole download.
        for event in client.client.api.pull(repository, tag or "latest", stream=True, decode=True):
            if "error" in event:
                raise ServerError(f"the image {image} cannot be downloaded: {event['error']}")
            if time.monotonic() > give_up:
                raise ServerError(f"the download of the image {image} takes too long")
    except docker.errors.APIError as error:
        why = one_line(error.explanation or error)
        raise ServerError(f"the image {image} cannot be downloaded: {why}") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise ServerError(f"the download of the image {image} makes no progress") from error


class EmbeddedServer:
    """The embedded server, in a temporary directory."""

    def __init__(self) -> None:
        self.dsn = ""
        self.description = "embedded"
        self._directory: pathlib.Path | None = None

    def start(self) -> None:
        from asyncsvc import embedded

        self._directory = pathlib.Path(tempfile.mkdtemp(prefix="asyncsvc-tests-"))
        self._directory.chmod(0o711)  # if root starts the server, it runs as another user
        try:
            self.dsn = asyncio.run(embedded.start(self._data(), options=SETTINGS)).dsn
            self.description = f"{connected_version(self.dsn)}, {self.description}"
        except AsyncSvcError as error:
            self.stop()
            raise ServerError(f"embedded: {one_line(error)}") from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        from asyncsvc import embedded

        if self._directory is None:
            return
        if self._data().exists():
            asyncio.run(embedded.stop(self._data()))
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory = None

    def _data(self) -> pathlib.Path:
        assert self._directory is not None
        return self._directory / "data"


def start_server() -> Server:
    """Choose a server in the order of the module's docstring, start it and return it."""
    if dsn := os.environ.get("ASYNCSVC_TEST_DSN"):
        return started(ExternalServer(dsn))
    image = os.environ.get("ASYNCSVC_TEST_IMAGE")
    if image == "none":
        why = "ASYNCSVC_TEST_IMAGE=none"
    elif image:
        return started(ContainerServer(image))
    else:
        try:
            return started(ContainerServer(DEFAULT_IMAGE))
        except ServerError as error:
            why = str(error)
        close_forgotten_sockets()
    server = started(EmbeddedServer())
    server.description += f" ({why})"
    return server


def started(server: Server) -> Server:
    server.start()
    return server


def close_forgotten_sockets() -> None:
    """Close the sockets that the engine's client leaves open after a failure.

    Otherwise the first test would get their warnings.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def root_cause(error: BaseException) -> str:
    """Return the first error of the chain, on one line."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return one_line(error)


def one_line(error: BaseException | str) -> str:
    """Return the error on one line of at most 120 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else f"{text[:117]}..."
