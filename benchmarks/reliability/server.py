"""An embedded server that is killed and started again; no other process is touched."""

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

import asyncpg

from asyncsvc import EmbeddedServerError, embedded
from asyncsvc.cli.running import CommandError

DURABLE: Final = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
_OPTIONS: Final = {"max_connections": "200", **DURABLE}
_START_SECONDS: Final = 120.0
_END_SECONDS: Final = 10.0
_PAUSE: Final = 0.02
_PROCESSES: Final = Path("/proc")


@dataclass(slots=True)
class Server:
    """The server of one directory; the file `address` in it holds its present DSN."""

    directory: Path
    attempts: list[int] = field(default_factory=list)
    """How many times each start was tried."""

    @property
    def address(self) -> Path:
        """Where those look who have to find the server again."""
        return self.directory / "address"

    @asynccontextmanager
    async def life(self) -> AsyncIterator[str]:
        """Run it inside the block, where it may be killed, and lend its DSN."""
        async with AsyncExitStack() as stack:
            dsn = await self._start(stack)
            await _refuse_lazy(dsn)
            new = self.address.with_suffix(".new")
            new.write_text(dsn, encoding="ascii")
            new.replace(self.address)
            yield dsn

    async def _start(self, stack: AsyncExitStack) -> str:
        """Start it, as often as that takes: what was killed can hold its memory for a while."""
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
        """Kill the postmaster and all its children with SIGKILL; return how many processes.

        The postmaster is stopped first, so that it neither forks nor tends to its children.
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
                raise CommandError("a process of the server outlived SIGKILL")
            await asyncio.sleep(_PAUSE)
        return len(killed)

    def _postmaster(self) -> int:
        cluster = self.directory / "data/pgdata"
        pid = int((cluster / "postmaster.pid").read_text(encoding="ascii").split("\n", 1)[0])
        if not (_PROCESSES / str(pid) / "cwd").samefile(cluster):
            raise CommandError(f"process {pid} is not the server that was started here")
        return pid


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """Lend a directory for a server, which is removed with all that is in it."""
    with tempfile.TemporaryDirectory(prefix="asyncsvc-reliability-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # where root starts the server, it runs as somebody else
        yield directory


def refuse_other_systems() -> None:
    """Raise CommandError where processes cannot be looked at as Linux lets one."""
    if not (_PROCESSES / "self/stat").exists():
        raise CommandError("this needs /proc, as Linux has it")


async def described(dsn: str) -> dict[str, str]:
    """Return the server's version, and whether it keeps what it acknowledges."""
    connection = await asyncpg.connect(dsn)
    try:
        names = ("server_version", *DURABLE)
        return {name: str(await connection.fetchval(f"SHOW {name}")) for name in names}
    finally:
        await connection.close()


async def _refuse_lazy(dsn: str) -> None:
    """Raise CommandError unless the server keeps what it acknowledges."""
    found = await described(dsn)
    for name, wanted in DURABLE.items():
        if found[name] != wanted:
            raise CommandError(f"{name} is {found[name]}: the run would show nothing")


def _children(parent: int) -> list[int]:
    pids = (int(path.name) for path in _PROCESSES.iterdir() if path.name.isdecimal())
    return [pid for pid in pids if _state(pid)[1:2] == [str(parent)]]


def _is_running(pid: int) -> bool:
    return _state(pid)[:1] not in ([], ["Z"])  # where nobody reaps orphans they stay as zombies


def _state(pid: int) -> list[str]:
    """Return a process's state and parent, and more; nothing where there is no such process."""
    try:
        stat = (_PROCESSES / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return stat.rpartition(")")[2].split()
