"""A PgBouncer before the server of the tests, where there is one: `apt-get install pgbouncer`."""

import asyncio
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import urllib.parse
from collections.abc import AsyncIterator

import asyncpg

SERVER_CONNECTIONS = 4  # fewer than a test has clients, so that they share them


def program() -> str | None:
    """The path of PgBouncer, which Debian keeps out of an ordinary user's way."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


@contextlib.asynccontextmanager
async def running(dsn: str) -> AsyncIterator[dict[str, str]]:
    """Lend the DSN of this database through a PgBouncer, for each of two ways of pooling."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="asyncsvc-") as name:
        as_nobody = ["--user=nobody"] if os.geteuid() == 0 else []
        command = [str(program()), "--quiet", *as_nobody, configured(pathlib.Path(name), dsn, port)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            modes = ("session", "transaction")
            dsns = {mode: f"postgresql://any@127.0.0.1:{port}/{mode}" for mode in modes}
            try:
                await wait_for(dsns["session"])
                yield dsns
            finally:
                process.terminate()


def configured(room: pathlib.Path, dsn: str, port: int) -> str:
    """Write the configuration into this room and return its path."""
    room.chmod(0o777)  # where root starts it, it runs as somebody else
    parts = urllib.parse.urlsplit(dsn)
    server = f"host={parts.hostname} port={parts.port} dbname={parts.path[1:]}"
    server += f" user={parts.username} password={parts.password or 'none'}"
    path = room / "bouncer.ini"
    path.write_text(
        f"[databases]\nsession = {server} pool_mode=session\n"
        f"transaction = {server} pool_mode=transaction\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\n"
        f"default_pool_size = {SERVER_CONNECTIONS}\n"
        f"unix_socket_dir =\nlogfile = {room}/log\npidfile = {room}/pid\n"
    )
    return str(path)


async def wait_for(dsn: str) -> None:
    for _ in range(100):
        try:
            connection = await asyncpg.connect(dsn, statement_cache_size=0)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            return await connection.close()
    raise TimeoutError("PgBouncer does not answer")
