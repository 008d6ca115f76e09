"""The measured server: its start, settings and activity; and the SQL files of the benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import platform
import re
import secrets
import socket
import tempfile
import urllib.parse
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from asyncsvc import embedded

_SQL = Path(__file__).parent / "sql"
_OPTIONS = {"max_connections": "400"}
_SETTINGS = (
    *("server_version", "fsync", "synchronous_commit", "full_page_writes"),
    *("checkpoint_timeout", "max_wal_size", "shared_buffers"),
)
_NEWEST_WITH_BGWRITER = 16


@functools.cache
def sql(name: str) -> str:
    """Return the text of a file of `benchmarks/sql` without its header."""
    return re.sub(
        r"\A(--(?!\?).*\n)+", "", (_SQL / f"{name}.sql").read_text(encoding="utf-8")
    ).strip()


@contextlib.asynccontextmanager
async def serving(dsn: str | None) -> AsyncIterator[str]:
    """Yield `dsn`, or the DSN of a new embedded server with PostgreSQL's default settings."""
    if dsn is not None:
        yield dsn
        return
    with tempfile.TemporaryDirectory(prefix="asyncsvc-benchmarks-") as place:
        async with embedded.running(Path(place) / "data", options=_OPTIONS) as server:
            yield server.dsn


@contextlib.asynccontextmanager
async def database(dsn: str) -> AsyncIterator[str]:
    """Yield the DSN of a new, empty database, which is dropped at the end of the block."""
    name = f"asyncsvc_benchmarks_{secrets.token_hex(4)}"
    async with connected(dsn) as connection:
        await connection.execute(f"CREATE DATABASE {name}")
        try:
            yield urllib.parse.urlsplit(dsn)._replace(path=f"/{name}").geturl()
        finally:
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.asynccontextmanager
async def connected(dsn: str, search_path: str | None = None) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection, which is closed at the end of the block."""
    settings = {} if search_path is None else {"search_path": search_path}
    connection = await asyncpg.connect(dsn, server_settings=settings)
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def connections(
    dsn: str, count: int, search_path: str | None = None
) -> AsyncIterator[list[asyncpg.Connection]]:
    """Yield connections, which are closed at the end of the block."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connected(dsn, search_path)) for _ in range(count)]


def free_port() -> int:
    """Return an unused port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def settings(dsn: str) -> dict[str, str]:
    """Return the settings of the server and the properties of the machine."""
    async with connected(dsn) as connection:
        values = {name: str(await connection.fetchval(f"SHOW {name}")) for name in _SETTINGS}
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return values | {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@dataclass(frozen=True)
class Activity:
    """The server's counters since its creation."""

    checkpoints: int
    wal: int  # bytes


async def activity(connection: asyncpg.Connection) -> Activity:
    """Return the server's counters over all databases."""
    recent = connection.get_server_version().major > _NEWEST_WITH_BGWRITER
    row = await connection.fetchrow(sql("checkpoints" if recent else "checkpoints_16"))
    assert row is not None  # noqa: S101
    return Activity(row["checkpoints"], row["wal"])


async def updates(connection: asyncpg.Connection, table: str) -> tuple[int, int]:
    """Return the number of updates of a table's rows so far, and the number of HOT updates."""
    await connection.execute(sql("force_flush"))
    row = await connection.fetchrow(sql("updates"), table)
    assert row is not None  # noqa: S101
    return row["updates"], row["hot"]


async def wait_until_alone(connection: asyncpg.Connection) -> None:
    """Wait for the end of all other sessions of this database, which flushes their statistics."""
    while await connection.fetch(sql("other_sessions")):
        await asyncio.sleep(0.05)
