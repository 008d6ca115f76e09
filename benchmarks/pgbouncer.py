"""Run PgBouncer in front of a server, if it is installed: `apt-get install pgbouncer`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import urllib.parse
from collections.abc import AsyncIterator, Sequence

import asyncpg

from benchmarks.server import free_port


def program() -> str | None:
    """Return the path of PgBouncer, which Debian installs outside of a user's PATH."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


def can_keep_statements() -> bool:
    """Return whether PgBouncer is installed and can keep prepared statements: 1.21 or newer."""
    path = program()
    if path is None:
        return False
    version = subprocess.check_output([path, "--version"], text=True)  # noqa: S603
    major, minor = re.findall(r"\d+", version)[:2]
    return (int(major), int(minor)) >= (1, 21)


@contextlib.asynccontextmanager
async def running(
    dsn: str, *, server_connections: int, max_prepared_statements: int = 0
) -> AsyncIterator[dict[str, str]]:
    """Run PgBouncer; yield the DSNs of this database for session and for transaction pooling.

    `console` is the DSN of PgBouncer's own console, which takes commands by `Connection.execute`.

    Args:
        dsn: The database.
        server_connections: The maximum number of server connections per mode. The server's other
            databases use transaction pooling under their own names.
        max_prepared_statements: Of each server connection. Ignored unless `can_keep_statements`.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="asyncsvc-") as name:
        unprivileged = ["--user=nobody"] if os.geteuid() == 0 else []  # it does not run as root
        path = _configured(
            pathlib.Path(name), dsn, port, server_connections, max_prepared_statements
        )
        command = [str(program()), "--quiet", *unprivileged, path]
        keeping = asyncio.create_task(_kept_running(command))
        names = {"session": "session", "transaction": "transaction", "console": "pgbouncer"}
        dsns = {key: f"postgresql://any@127.0.0.1:{port}/{name}" for key, name in names.items()}
        try:
            await _wait_for(dsns["session"])
            yield dsns
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})


async def _kept_running(command: Sequence[str]) -> None:
    """Run the command until this task is cancelled; restart it when it ends.

    PgBouncer 1.18 sometimes exits when its server connections are terminated under load.
    """
    while True:
        process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
        try:
            await process.wait()
        except asyncio.CancelledError:
            process.kill()  # it would wait for its clients
            await process.wait()
            raise


def _configured(
    directory: pathlib.Path,
    dsn: str,
    port: int,
    server_connections: int,
    max_prepared_statements: int,
) -> str:
    """Write the configuration into this directory and return its path."""
    directory.chmod(0o777)  # if root starts PgBouncer, it runs as another user
    parts = urllib.parse.urlsplit(dsn)
    anywhere = f"host={parts.hostname} port={parts.port}"
    anywhere += f" user={parts.username} password={parts.password or 'none'}"
    server = f"{anywhere} dbname={parts.path[1:]}"
    path = directory / "bouncer.ini"
    kept = f"max_prepared_statements = {max_prepared_statements}\n"
    path.write_text(
        f"[databases]\nsession = {server} pool_mode=session\n"
        f"transaction = {server} pool_mode=transaction\n"
        f"* = {anywhere} pool_mode=transaction\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\n"
        "admin_users = any\nserver_login_retry = 0.2\n"
        f"default_pool_size = {server_connections}\n"
        f"unix_socket_dir =\nlogfile = {directory}/log\npidfile = {directory}/pid\n"
        + (kept if can_keep_statements() else "")
    )
    return str(path)


async def _wait_for(dsn: str) -> None:
    for _ in range(100):
        try:
            connection = await asyncpg.connect(dsn, statement_cache_size=0)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            return await connection.close()
    raise TimeoutError("PgBouncer does not answer")
