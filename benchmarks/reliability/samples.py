"""What a process holds, looked at while nothing is going on, and whether that grows.

Each sample is taken at a calm moment: the load stands still, every connection is back in its pool,
the driver has no statement prepared and the garbage is collected. So what is counted is what stays,
and the counts can be exact.
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_CALM_SECONDS: Final = 3.0
_PAUSE: Final = 0.02
_MIB: Final = 2**20
_OURS: Final = """
    SELECT count(*), count(*) FILTER (WHERE xact_start IS NOT NULL)
      FROM pg_stat_activity
     WHERE application_name = $1
"""


class Sample(BaseModel):
    """What the process held at a calm moment."""

    model_config = ConfigDict(frozen=True)

    seconds: float
    """Since the load began."""
    operations: int
    """Done until then."""
    resident: int
    """Bytes of memory that the process has, by the kernel's count."""
    blocks: int
    """Blocks that Python's allocator has given out: its objects, without the room between them."""
    tasks: int
    descriptors: int
    pool_size: int
    backends: int
    """Processes of the server that serve us, by the server's count."""
    open_transactions: int


class Figure(BaseModel):
    """How something went from the first quarter of the samples to the last."""

    model_config = ConfigDict(frozen=True)

    name: str
    first: float
    last: float
    an_hour: float
    """The slope of the line through all samples, by least squares."""
    allowed: float
    """The most that `last` may be."""

    @property
    def is_flat(self) -> bool:
        """Whether it stayed within what is allowed."""
        return self.last <= self.allowed


@dataclass(frozen=True, slots=True)
class Measure:
    """Something of the samples that must not grow."""

    name: str
    value: Callable[[Sample], float]
    middle: Callable[[Iterable[float]], float] = max
    """What stands for a quarter of the samples."""
    room: float = 0.0
    """By how much it may grow all the same."""

    def figure(self, samples: Sequence[Sample]) -> Figure:
        """Compare the first and the last quarter."""
        values = [self.value(sample) for sample in samples]
        quarter = max(1, len(values) // 4)
        first, last = self.middle(values[:quarter]), self.middle(values[-quarter:])
        hours = [sample.seconds / 3_600 for sample in samples]
        return Figure(
            name=self.name,
            first=first,
            last=last,
            an_hour=statistics.linear_regression(hours, values).slope,
            allowed=first + self.room,
        )


MEASURES: Final = (
    # Memory is noisy: caches of ours fill by and by, and an allocator keeps room that it had.
    # A leak grows with the run and noise does not: the longer the run, the smaller a leak it finds.
    Measure("resident MiB", lambda sample: sample.resident / _MIB, statistics.median, room=8),
    Measure("Python's blocks", lambda sample: sample.blocks, statistics.median, room=12_000),
    # What is counted one by one at calm moments is exact: nothing may be added to it.
    Measure("tasks", lambda sample: sample.tasks),
    Measure("other descriptors", lambda sample: sample.descriptors - sample.pool_size),
    Measure("pool connections", lambda sample: sample.pool_size),
    Measure("other backends", lambda sample: sample.backends - sample.pool_size),
    Measure("open transactions", lambda sample: sample.open_transactions),
)


@dataclass(slots=True)
class Watch:
    """Takes the samples of an application that uses this pool."""

    pool: Pool
    own: asyncpg.Connection[asyncpg.Record]
    """A connection of its own, under another name than the application's."""
    name: str
    """What the application calls itself at the server."""
    began: float = field(default_factory=time.monotonic)

    async def sample(self, operations: int) -> Sample:
        """Look, as soon as all is calm, or when it should long have been."""
        give_up = time.monotonic() + _CALM_SECONDS
        while not await self._is_calm() and time.monotonic() < give_up:
            await asyncio.sleep(_PAUSE)
        await self._forget_statements()
        gc.collect()
        backends, open_transactions = await self._at_the_server()
        return Sample(
            seconds=time.monotonic() - self.began,
            operations=operations,
            resident=_resident(),
            blocks=sys.getallocatedblocks(),
            tasks=len(asyncio.all_tasks()),
            descriptors=_descriptors(),
            pool_size=self.pool.get_size(),
            backends=backends,
            open_transactions=open_transactions,
        )

    async def _is_calm(self) -> bool:
        """Whether what was cancelled or lost is cleaned up, on both sides."""
        backends, _ = await self._at_the_server()
        size = self.pool.get_size()
        return self.pool.get_idle_size() == size == backends

    async def _forget_statements(self) -> None:
        """Empty the driver's cache of prepared statements, on each connection of the pool.

        It holds up to 100 a connection, of some 100 blocks each, and starts anew where a connection
        was lost. So how full it is follows from how many calls a connection lived through, that is
        from how fast the machine happens to be, and would hide a leak or look like one.
        """
        async with AsyncExitStack() as stack:
            for _ in range(self.pool.get_idle_size()):
                connection = await stack.enter_async_context(self.pool.acquire())
                await connection.reload_schema_state()
                await connection.fetch("SELECT")  # a new statement ends those that were dropped

    async def _at_the_server(self) -> tuple[int, int]:
        (row,) = await self.own.fetch(_OURS, self.name)
        return int(row[0]), int(row[1])


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
