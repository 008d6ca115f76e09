"""A PgBouncer before a server, where there is one: `apt-get install pgbouncer`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import urllib.parse
from collections.abc import AsyncIterator, Sequence

import asyncpg

from benchmarks.server import free_port


def program() -> str | None:
    """The path of PgBouncer, which Debian keeps out of an ordinary user's way."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


@contextlib.asynccontextmanager
async def running(dsn: str, *, server_connections: int) -> AsyncIterator[dict[str, str]]:
    """Lend the DSN of this database through a PgBouncer, for each of two ways of pooling.

    `server_connections` is how many it opens for each. The server's other databases are pooled by
    transactions under their own names.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="asyncsvc-") as name:
        as_nobody = ["--user=nobody"] if os.geteuid() == 0 else []
        path = _configured(pathlib.Path(name), dsn, port, server_connections)
        command = [str(program()), "--quiet", *as_nobody, path]
        keeping = asyncio.create_task(_kept_running(command))
        modes = ("session", "transaction")
        dsns = {mode: f"postgresql://any@127.0.0.1:{port}/{mode}" for mode in modes}
        try:
            await _wait_for(dsns["session"])
            yield dsns
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})


async def _kept_running(command: Sequence[str]) -> None:
    """Run it until this is cancelled; start it again when it ends, as a service manager does.

    Seldom PgBouncer 1.18 ends by itself when its servers are terminated under load.
    """
    while True:
        process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
        try:
            await process.wait()
        except asyncio.CancelledError:
            process.terminate()
            await process.wait()
            raise


def _configured(room: pathlib.Path, dsn: str, port: int, server_connections: int) -> str:
    """Write the configuration into this room and return its path."""
    room.chmod(0o777)  # where root starts it, it runs as somebody else
    parts = urllib.parse.urlsplit(dsn)
    anywhere = f"host={parts.hostname} port={parts.port}"
    anywhere += f" user={parts.username} password={parts.password or 'none'}"
    server = f"{anywhere} dbname={parts.path[1:]}"
    path = room / "bouncer.ini"
    path.write_text(
        f"[databases]\nsession = {server} pool_mode=session\n"
        f"transaction = {server} pool_mode=transaction\n"
        f"* = {anywhere} pool_mode=transaction\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\n"
        f"default_pool_size = {server_connections}\n"
        f"unix_socket_dir =\nlogfile = {room}/log\npidfile = {room}/pid\n"
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
