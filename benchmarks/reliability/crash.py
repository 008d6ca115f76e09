"""Kill the server or its clients repeatedly under load, and count the effects.

SIGKILL ends processes but not the machine, so the kernel still writes its buffers. The run checks
`fsync` and `synchronous_commit` after each start of the server, because a power failure would lose
acknowledged turns without them.

Each writer also maintains the store in the background, so kills interrupt roll-ups of usage.
"""

from __future__ import annotations

import collections
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import asyncsvc
from benchmarks.reliability import Frozen, metered, verdict
from benchmarks.reliability.plan import TENANT, Plan, conversations
from benchmarks.reliability.server import Server, described, temporary_directory
from benchmarks.reliability.verdict import Verdict
from benchmarks.reliability.writers import Writers

Show: TypeAlias = Callable[[int, int], None]
"""Called with the number of kills and of acknowledged turns."""

_LOAD_SECONDS: Final = (0.0, 1.5)
"""The range of the random time between the first turn of all writers and the next kill."""


class Settings(Frozen):
    """The options of a run. The same seed gives the same times between kills."""

    kills: int
    writers: int
    clients: bool
    """Whether the run kills some of the writers instead of the server."""
    seed: int


class Report(Frozen):
    """The results of a run."""

    settings: Settings
    server: dict[str, str]
    seconds: float
    processes_killed: int
    max_start_attempts: int
    replayed: int
    """Turns that were stored without an acknowledgement; a repeat without a key would store them
    twice."""
    retries: int
    """The number of retries by the library."""
    repeats: dict[str, int]
    """The number of errors raised to a writer, which then repeated the call with the same key."""
    max_outage: float
    """The maximum number of seconds from a kill until each writer had an acknowledgement."""
    verdict: Verdict

    @property
    def summary(self) -> dict[str, object]:
        """The values by name, without the verdict."""
        return {
            "PostgreSQL": self.server["server_version"],
            "on": ", ".join(name for name, value in self.server.items() if value == "on"),
            "seconds": self.seconds,
            "kills": self.settings.kills,
            "processes killed": self.processes_killed,
            "maximum attempts of a start": self.max_start_attempts,
            "maximum outage, s": self.max_outage,
            "retried by the library": self.retries,
            "errors raised to writers": sum(self.repeats.values()),
            "stored but acknowledged by a replay": self.replayed,
        }


async def crash(settings: Settings, show: Show) -> Report:
    """Run in a temporary directory and return the report."""
    with temporary_directory() as directory:
        server = Server(directory)
        plan = Plan(seed=settings.seed, address=server.address)
        writers = Writers(plan, directory / "writers.log")
        try:
            return await _Run(settings, show, server, writers).report()
        finally:
            await writers.end()


@dataclass(slots=True)
class _Run:
    settings: Settings
    show: Show
    server: Server
    writers: Writers
    chance: random.Random = field(init=False)
    kills: int = 0
    processes_killed: int = 0
    killed_at: float | None = None
    max_outage: float = 0.0
    left_open: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.settings.seed)  # noqa: S311 - no secret

    async def report(self) -> Report:
        began = time.monotonic()
        if not self.settings.clients:
            await self._kill_servers()
        async with self.server.running() as dsn:
            await self._begin(dsn)
            if self.settings.clients:
                await self._kill_writers(dsn)
            await self._load()
            await self.writers.stop()
            seconds = time.monotonic() - began
            self.left_open += await verdict.open_transactions(dsn, self.writers.names)
            return await self._report(dsn, seconds)

    async def _kill_servers(self) -> None:
        for _ in range(self.settings.kills):
            async with self.server.running() as dsn:
                await self._begin(dsn)
                await self._load()
                self.killed_at = time.monotonic()
                self.processes_killed += await self.server.kill()
                self.kills += 1

    async def _kill_writers(self, dsn: str) -> None:
        count = self.settings.writers
        for _ in range(self.settings.kills):
            await self._load()
            self.killed_at = time.monotonic()
            for writer in self.chance.sample(range(count), self.chance.randint(1, count)):
                killed = await self.writers.kill(writer)
                # Start it immediately, so that the predecessor's call may still run on the server.
                await self.writers.start(writer)
                self.left_open += await verdict.open_transactions(dsn, [killed])
                self.processes_killed += 1
            self.kills += 1

    async def _begin(self, dsn: str) -> None:
        """Create conversations and budgets and start the writers, if this is the first start."""
        if self.writers.names:
            return
        async with asyncsvc.connect(dsn, max_size=1) as svc:
            await svc.migrate()
            await svc.conversations.create_many(conversations(), tenant_id=TENANT)
            await metered.set_budgets(svc)
        for writer in range(self.settings.writers):
            await self.writers.start(writer)

    async def _load(self) -> None:
        """Wait for an acknowledgement of each writer, then for a random time."""
        await self.writers.wait_for_acks(self._show)
        if self.killed_at is not None:
            self.max_outage = max(self.max_outage, time.monotonic() - self.killed_at)
        await self.writers.wait(self.chance.uniform(*_LOAD_SECONDS), self._show)

    def _show(self) -> None:
        self.show(self.kills, len(self.writers.acks))

    async def _report(self, dsn: str, seconds: float) -> Report:
        acks = self.writers.acks
        repeats = sum(
            (collections.Counter(ack.repeats) for ack in acks), collections.Counter[str]()
        )
        return Report(
            settings=self.settings,
            server=await described(dsn),
            seconds=round(seconds, 1),
            processes_killed=self.processes_killed,
            max_start_attempts=max(self.server.attempts),
            replayed=sum(ack.replayed for ack in acks),
            retries=sum(ack.retries for ack in acks),
            repeats=dict(repeats.most_common()),
            max_outage=round(self.max_outage, 2),
            verdict=await verdict.evaluate(dsn, self.writers.plan, acks, self.left_open),
        )
