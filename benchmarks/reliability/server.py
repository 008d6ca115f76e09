"""Start, kill and restart an embedded server, without effects on other processes."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from asyncsvc import EmbeddedServerError, embedded
from asyncsvc.cli.runner import CommandError
from benchmarks.server import connected

DURABLE: Final = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
_OPTIONS: Final = {"max_connections": "200", **DURABLE}
_START_SECONDS: Final = 120.0
_END_SECONDS: Final = 10.0
_PAUSE: Final = 0.02
_PROCESSES: Final = Path("/proc")


@dataclass(slots=True)
class Server:
    """The server of a directory; the file `address` in it contains the current DSN."""

    directory: Path
    attempts: list[int] = field(default_factory=list)
    """The number of attempts of each start."""

    @property
    def address(self) -> Path:
        """The file with the DSN, which clients read to reconnect."""
        return self.directory / "address"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Run the server inside the block, which may kill it; yield its DSN.

        Raises CommandError unless its commits are durable.
        """
        async with AsyncExitStack() as stack:
            dsn = await self._start(stack)
            for name, value in (await described(dsn)).items():
                if value != DURABLE.get(name, value):
                    raise CommandError(f"{name} is {value}, so the result would be meaningless")
            new = self.address.with_suffix(".new")
            new.write_text(dsn, encoding="ascii")
            new.replace(self.address)
            yield dsn

    async def _start(self, stack: AsyncExitStack) -> str:
        """Start the server; retry, because a killed one may hold its shared memory for a while."""
        give_up = time.monotonic() + _START_SECONDS
        self.attempts.append(0)
        while True:
            self.attempts[-1] += 1
            try:
                running = embedded.running(self.directory / "data", options=_OPTIONS)
                return (await stack.enter_async_context(running)).dsn
            except EmbeddedServerError:
                if time.monotonic() > give_up:
                    raise
                await asyncio.sleep(_PAUSE)

    async def kill(self) -> int:
        """Kill the postmaster and all its children with SIGKILL; return the number of processes.

        SIGSTOP comes first, so that the postmaster does not fork or handle the death of a child.
        """
        postmaster = self._postmaster()
        os.kill(postmaster, signal.SIGSTOP)
        killed = [*_children(postmaster), postmaster]
        for pid in killed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        give_up = time.monotonic() + _END_SECONDS
        while any(map(_is_running, killed)):
            if time.monotonic() > give_up:
                raise CommandError("a process of the server survived SIGKILL")
            await asyncio.sleep(_PAUSE)
        return len(killed)

    def _postmaster(self) -> int:
        cluster = self.directory / "data/pgdata"
        pid = int((cluster / "postmaster.pid").read_text(encoding="ascii").split("\n", 1)[0])
        if not (_PROCESSES / str(pid) / "cwd").samefile(cluster):
            raise CommandError(f"process {pid} is not the server of this run")
        return pid


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """Yield a directory for a server, which is removed at the end of the block.

    Raises CommandError without Linux's /proc.
    """
    if not (_PROCESSES / "self/stat").exists():
        raise CommandError("this needs Linux's /proc")
    with tempfile.TemporaryDirectory(prefix="asyncsvc-reliability-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # if root starts the server, it runs as another user
        yield directory


async def described(dsn: str) -> dict[str, str]:
    """Return the server's version and its durability settings."""
    async with connected(dsn) as connection:
        names = ("server_version", *DURABLE)
        return {name: str(await connection.fetchval(f"SHOW {name}")) for name in names}


def _children(parent: int) -> list[int]:
    pids = (int(path.name) for path in _PROCESSES.iterdir() if path.name.isdecimal())
    return [pid for pid in pids if _state(pid)[1:2] == [str(parent)]]


def _is_running(pid: int) -> bool:
    return _state(pid)[:1] not in ([], ["Z"])  # an orphan that is not reaped stays a zombie


def _state(pid: int) -> list[str]:
    """Return the fields of a process's stat from its state on, or [] if it does not exist."""
    try:
        stat = (_PROCESSES / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return stat.rpartition(")")[2].split()
