"""Sample the resources of an idle process, and detect growth.

Each sample is taken when the process is idle: the load is paused, every connection is in its pool,
the driver has no prepared statements, and the garbage is collected. So the counts are exact.
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

from benchmarks.reliability import Frozen

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_IDLE_TIMEOUT: Final = 3.0
_PAUSE: Final = 0.02
_MIB: Final = 2**20
_SESSIONS: Final = """
    SELECT count(*), count(*) FILTER (WHERE xact_start IS NOT NULL)
      FROM pg_stat_activity
     WHERE application_name = $1
"""


class Sample(Frozen):
    """The resources of the idle process."""

    seconds: float
    """Seconds since the start of the load."""
    operations: int
    """The number of operations until then."""
    resident: int
    """Resident memory in bytes, as reported by the kernel."""
    blocks: int
    """Allocated blocks of Python's allocator, which excludes fragmentation."""
    tasks: int
    descriptors: int
    pool_size: int
    backends: int
    """The application's sessions, as reported by the server."""
    open_transactions: int


class Figure(Frozen):
    """The change of a measure from the first quarter of the samples to the last quarter."""

    name: str
    first: float
    last: float
    per_hour: float
    """The slope of the linear regression over all samples."""
    maximum: float
    """The maximum of `last`."""

    @property
    def is_flat(self) -> bool:
        """Whether `last` is within its maximum."""
        return self.last <= self.maximum


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure of the samples that must not grow."""

    name: str
    value: Callable[[Sample], float]
    summary: Callable[[Iterable[float]], float] = max
    """The summary of a quarter of the samples."""
    tolerance: float = 0.0
    """The permitted growth."""

    def figure(self, samples: Sequence[Sample]) -> Figure:
        """Compare the first and the last quarter."""
        values = [self.value(sample) for sample in samples]
        quarter = max(1, len(values) // 4)
        first, last = self.summary(values[:quarter]), self.summary(values[-quarter:])
        hours = [sample.seconds / 3_600 for sample in samples]
        return Figure(
            name=self.name,
            first=first,
            last=last,
            per_hour=statistics.linear_regression(hours, values).slope,
            maximum=first + self.tolerance,
        )


MEASURES: Final = (
    # Memory is noisy: caches fill over time, and an allocator keeps freed memory. A leak grows with
    # the duration of the run and noise does not, so a longer run detects a smaller leak.
    Measure("resident MiB", lambda sample: sample.resident / _MIB, statistics.median, tolerance=8),
    Measure("Python's blocks", lambda sample: sample.blocks, statistics.median, tolerance=12_000),
    # The other counts are exact in an idle process and must not grow.
    Measure("tasks", lambda sample: sample.tasks),
    Measure("other descriptors", lambda sample: sample.descriptors - sample.pool_size),
    Measure("pool connections", lambda sample: sample.pool_size),
    Measure("other backends", lambda sample: sample.backends - sample.pool_size),
    Measure("open transactions", lambda sample: sample.open_transactions),
)


@dataclass(slots=True)
class Watch:
    """Takes samples of an application that uses this pool."""

    pool: Pool
    own: asyncpg.Connection[asyncpg.Record]
    """A connection with another application name."""
    name: str
    """The application name of the pool's sessions."""
    began: float = field(default_factory=time.monotonic)

    async def sample(self, operations: int) -> Sample:
        """Take a sample when the process is idle, or after a timeout."""
        give_up = time.monotonic() + _IDLE_TIMEOUT
        while not await self._is_idle() and time.monotonic() < give_up:
            await asyncio.sleep(_PAUSE)
        await self._forget_statements()
        gc.collect()
        backends, open_transactions = await self._sessions()
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

    async def _is_idle(self) -> bool:
        """Return whether cancelled calls and lost connections are cleaned up on both sides."""
        backends, _ = await self._sessions()
        size = self.pool.get_size()
        return self.pool.get_idle_size() == size == backends

    async def _forget_statements(self) -> None:
        """Empty the driver's cache of prepared statements on each connection of the pool.

        The cache contains up to 100 statements per connection, of about 100 blocks each, and is
        empty on a new connection. Its size depends on the speed of the machine, so it could hide a
        leak or look like one.
        """
        async with AsyncExitStack() as stack:
            for _ in range(self.pool.get_idle_size()):
                connection = await stack.enter_async_context(self.pool.acquire())
                await connection.reload_schema_state()
                await connection.fetch("SELECT")  # the next statement closes the dropped ones

    async def _sessions(self) -> tuple[int, int]:
        (row,) = await self.own.fetch(_SESSIONS, self.name)
        return int(row[0]), int(row[1])


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
