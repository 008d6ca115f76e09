"""Kill the server, or its clients, again and again under load, and count what that did.

SIGKILL ends processes, not the machine: what the kernel was given it still writes. Whether `fsync`
and `synchronous_commit` are on, without which a power cut would take acknowledged turns along, the
server is asked each time it starts.
"""

from __future__ import annotations

import collections
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel, ConfigDict

import asyncsvc
from benchmarks.reliability import verdict
from benchmarks.reliability.plan import DIALOG, TENANT, Plan, conversations
from benchmarks.reliability.server import (
    Server,
    described,
    refuse_other_systems,
    temporary_directory,
)
from benchmarks.reliability.verdict import Verdict
from benchmarks.reliability.writers import Writers

Show = Callable[[int, int], None]
"""Is told the kills and the acknowledged turns so far."""

_LOADED_SECONDS: Final = (0.0, 1.5)
"""How long after all writers are at work the next kill comes."""


class Settings(BaseModel):
    """What a run does. The same seed kills after the same times, not in the same statements."""

    model_config = ConfigDict(frozen=True)

    kills: int
    writers: int
    clients: bool
    """Whether writers are killed, some of them each time, and not the server."""
    seed: int


class Report(BaseModel):
    """What a run did, and what came of it."""

    model_config = ConfigDict(frozen=True)

    settings: Settings
    server: dict[str, str]
    seconds: float
    processes_killed: int
    most_start_attempts: int
    replayed: int
    """Turns that were stored before anybody was told: without keys they would be doubled."""
    retries: int
    """How often the library began an append again by itself."""
    repeats: dict[str, int]
    """The errors that reached a writer, which then repeated its key."""
    longest_outage: float
    """The most seconds from a kill until all writers had an acknowledgement again."""
    verdict: Verdict


async def crash(settings: Settings, show: Show) -> Report:
    """Run it in a directory of its own, which is removed at the end, and report."""
    refuse_other_systems()
    with temporary_directory() as directory:
        server = Server(directory)
        writers = Writers(
            Plan(seed=settings.seed, address=server.address), directory / "writers.log"
        )
        run = _Run(settings, show, server, writers)
        try:
            return await run.report()
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
    longest_outage: float = 0.0
    left_open: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.settings.seed)  # noqa: S311 - no secret

    async def report(self) -> Report:
        began = time.monotonic()
        if not self.settings.clients:
            await self._kill_servers()
        async with self.server.life() as dsn:
            await self._begin(dsn)
            if self.settings.clients:
                await self._kill_writers(dsn)
            await self._load()
            await self.writers.stop()
            seconds = time.monotonic() - began
            self.left_open += await verdict.open_transactions(dsn, self.writers.names)
            return await self._judged(dsn, seconds)

    async def _kill_servers(self) -> None:
        for _ in range(self.settings.kills):
            async with self.server.life() as dsn:
                await self._begin(dsn)
                await self._load()
                self.killed_at = time.monotonic()
                self.processes_killed += await self.server.kill()
                self.kills += 1

    async def _kill_writers(self, dsn: str) -> None:
        for _ in range(self.settings.kills):
            await self._load()
            self.killed_at = time.monotonic()
            for writer in self._some():
                killed = await self.writers.kill(writer)
                # At once: the server may still be at work on what its predecessor asked for.
                await self.writers.start(writer)
                self.left_open += await verdict.open_transactions(dsn, [killed])
                self.processes_killed += 1
            self.kills += 1

    def _some(self) -> list[int]:
        count = self.settings.writers
        return self.chance.sample(range(count), self.chance.randint(1, count))

    async def _begin(self, dsn: str) -> None:
        """Prepare the database and start the writers, where that is not done yet."""
        if self.writers.are_started:
            return
        async with asyncsvc.connect(dsn, max_size=1) as svc:
            await svc.migrate()
            new = [{"id": id, "dialog_id": DIALOG} for id in conversations()]
            await svc.conversations.create_many(new, tenant_id=TENANT)
        for writer in range(self.settings.writers):
            await self.writers.start(writer)

    async def _load(self) -> None:
        """Wait until every writer is at work, then for a moment that nobody can foresee."""
        await self.writers.all_heard(self._show)
        if self.killed_at is not None:
            self.longest_outage = max(self.longest_outage, time.monotonic() - self.killed_at)
        await self.writers.wait(self.chance.uniform(*_LOADED_SECONDS), self._show)

    def _show(self) -> None:
        self.show(self.kills, len(self.writers.acks))

    async def _judged(self, dsn: str, seconds: float) -> Report:
        acks, repeats = self.writers.acks, collections.Counter[str]()
        for ack in acks:
            repeats.update(ack.repeats)
        return Report(
            settings=self.settings,
            server=await described(dsn),
            seconds=round(seconds, 1),
            processes_killed=self.processes_killed,
            most_start_attempts=max(self.server.attempts),
            replayed=sum(ack.replayed for ack in acks),
            retries=sum(ack.retries for ack in acks),
            repeats=dict(repeats.most_common()),
            longest_outage=round(self.longest_outage, 2),
            verdict=await verdict.judge(dsn, self.writers.plan, acks, self.left_open),
        )
