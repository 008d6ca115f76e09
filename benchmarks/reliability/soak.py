"""Call the whole public API for a long time and watch the process's resources.

Tasks of one process call every public method, for 3 tenants. 1 of 10 operations is cancelled, and
the server terminates a connection every 0.5 s. Memory, tasks, descriptors and connections must not
grow.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import asyncpg

import asyncsvc
from asyncsvc.cli.runner import CommandError
from benchmarks.reliability import Frozen
from benchmarks.reliability.application import TENANTS, Application
from benchmarks.reliability.operations import OLD, OPERATIONS, Operation, all_calls
from benchmarks.reliability.samples import MEASURES, Figure, Sample, Watch
from benchmarks.reliability.server import Server, described, temporary_directory
from benchmarks.server import connected

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

Show = Callable[[float, int], None]
"""Called with the seconds and the number of operations."""

_NAME: Final = "asyncsvc-soak"
_POOL: Final = 8
_CANCELLED: Final = 0.1
"""The fraction of operations that are cancelled, if they last long enough."""
_MAX_CANCEL_SECONDS: Final = 0.01
_LOSS_SECONDS: Final = 0.5
_RESET: Final = "Resetting connection with an active transaction"
_CALL_TIMEOUT: Final = 120.0
_WARM_UP: Final = 0.25
"""The fraction of the run that is not evaluated, because caches and the allocator still grow."""
_SAMPLES: Final = 120
_MAX_PAUSE: Final = 5.0
_EXPECTED: Final = (
    asyncsvc.NotFound,
    asyncsvc.Conflict,
    asyncsvc.InvalidToken,
    asyncsvc.Unavailable,
)
"""The expected errors; any other error makes the soak fail."""
_LOSE: Final = """
    SELECT pg_terminate_backend(pid)
      FROM pg_stat_activity
     WHERE application_name = $1
     ORDER BY random()
     LIMIT 1
"""


class Settings(Frozen):
    """The options of a soak."""

    minutes: float
    tasks: int
    seed: int


class Report(Frozen):
    """The results of a soak."""

    settings: Settings
    server: dict[str, str]
    operations: int
    cancelled: int
    connections_lost: int
    retries: int
    """The number of retries by the library."""
    errors: dict[str, int]
    """The number of expected errors, by name."""
    calls: dict[str, int]
    """The number of successful calls, by public method."""
    figures: list[Figure]
    failures: list[str]
    samples: list[Sample]

    @property
    def summary(self) -> dict[str, object]:
        """The values by name, without the samples."""
        return {
            "PostgreSQL": self.server["server_version"],
            "minutes": self.settings.minutes,
            "operations": self.operations,
            "cancelled": self.cancelled,
            "connections lost": self.connections_lost,
            "retried by the library": self.retries,
            "errors": ", ".join(f"{count:,} {name}" for name, count in self.errors.items()),
        }

    @property
    def evaluated(self) -> Sequence[Sample]:
        """The samples after the warm-up."""
        return _evaluated(self.samples)


async def soak(settings: Settings, show: Show) -> Report:
    """Run on a new server and return the report."""
    with temporary_directory() as directory:
        async with Server(directory).running() as dsn, connected(dsn) as own:
            named = f"{dsn}?application_name={_NAME}"
            opened = asyncpg.create_pool(named, min_size=0, max_size=_POOL, command_timeout=30)
            async with opened as pool:
                gate = asyncio.Semaphore(settings.tasks + 1)
                return await _Run(settings, show, named, pool, own, gate).report()


@dataclass(slots=True)
class _Run:
    settings: Settings
    show: Show
    dsn: str
    pool: Pool
    own: asyncpg.Connection[asyncpg.Record]
    gate: asyncio.Semaphore
    """Has one permit per working task. A pause takes all permits."""
    operations: int = 0
    cancelled: int = 0
    lost: int = 0
    retries: int = 0
    calls: collections.Counter[str] = field(default_factory=collections.Counter)
    errors: collections.Counter[str] = field(default_factory=collections.Counter)
    unexpected: collections.Counter[str] = field(default_factory=collections.Counter)

    async def report(self) -> Report:
        asyncio.get_running_loop().set_exception_handler(self._count_unretrieved)
        library = asyncsvc.Settings(
            accept_foreign_tokens=True,
            key_lifetime=OLD.total_seconds(),
            on_retry=self._count_retry,
        )
        svc = asyncsvc.AsyncSvc(self.pool, settings=library)
        await svc.migrate()
        apps = [self._application(svc, number) for number in range(self.settings.tasks)]
        for operation in OPERATIONS:  # run each once, which also warms up the rare operations
            await self._run(apps[0], operation, None)
        samples = await self._load(apps)
        figures = [measure.figure(_evaluated(samples)) for measure in MEASURES]
        return Report(
            settings=self.settings,
            server=await described(self.dsn),
            operations=self.operations,
            cancelled=self.cancelled,
            connections_lost=self.lost,
            retries=self.retries,
            errors=dict(self.errors.most_common()),
            calls=dict(self.calls.most_common()),
            figures=figures,
            failures=[*_growing(figures), *self._not_called(), *self._unexpected()],
            samples=samples,
        )

    def _count_retry(self, *_: object) -> None:
        self.retries += 1

    def _count_unretrieved(self, _loop: object, context: dict[str, Any]) -> None:
        """Count an error of a task that no other task awaits.

        The driver's errors about lost connections are expected. If a task is cancelled while it
        releases its connection, the driver continues the release in a task of its own. If the
        server terminated the connection of a transaction and the driver has not read this yet, the
        driver logs that it resets an active transaction, fails, and drops the connection. The
        samples count sessions that stay open on the server.
        """
        error = context.get("exception")
        if str(context["message"]).startswith(_RESET):
            self.errors["unretrieved reset"] += 1
        elif isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | ConnectionError):
            self.errors[f"unretrieved {type(error).__name__}"] += 1
        else:
            self.unexpected[f"{context['message']}: {error!r}"] += 1

    def _application(self, svc: asyncsvc.AsyncSvc, number: int) -> Application:
        chance = random.Random(f"{self.settings.seed}/{number}")  # noqa: S311 - no secret
        return Application(svc, self.pool, self.dsn, TENANTS[number % len(TENANTS)], chance)

    async def _load(self, apps: Sequence[Application]) -> list[Sample]:
        """Run the operations with pauses for the samples, and stop after the last sample."""
        watch, samples = Watch(self.pool, self.own, _NAME), list[Sample]()
        seconds = self.settings.minutes * 60
        pause = min(seconds / _SAMPLES, _MAX_PAUSE)
        async with asyncio.TaskGroup() as group:
            working = [group.create_task(self._work(app)) for app in apps]
            working.append(group.create_task(self._lose_connections()))
            while not samples or samples[-1].seconds < seconds:
                await asyncio.sleep(pause)
                async with self._paused():
                    samples.append(await watch.sample(self.operations))
                    self.show(samples[-1].seconds, self.operations)
            async with self._paused():
                for task in working:
                    task.cancel()
        return samples

    @asynccontextmanager
    async def _paused(self) -> AsyncIterator[None]:
        """Wait for the end of the current operations; none starts inside the block."""
        permits = range(self.settings.tasks + 1)
        try:
            async with asyncio.timeout(_CALL_TIMEOUT):
                await asyncio.gather(*(self.gate.acquire() for _ in permits))
        except TimeoutError:
            raise CommandError(f"a call did not end within {_CALL_TIMEOUT:g} s") from None
        yield
        for _ in permits:
            self.gate.release()

    async def _work(self, app: Application) -> None:
        weights = list(itertools.accumulate(operation.weight for operation in OPERATIONS))
        while True:
            (operation,) = app.chance.choices(OPERATIONS, cum_weights=weights)
            is_cancelled = app.chance.random() < _CANCELLED
            after = app.chance.uniform(0, _MAX_CANCEL_SECONDS) if is_cancelled else None
            async with self.gate:
                await self._run(app, operation, after)

    async def _lose_connections(self) -> None:
        while True:
            await asyncio.sleep(_LOSS_SECONDS)
            async with self.gate:
                self.lost += len(await self.own.fetch(_LOSE, _NAME))

    async def _run(self, app: Application, operation: Operation, after: float | None) -> None:
        """Run an operation, cancel it after this time unless it is None, and count the result."""
        call = asyncio.ensure_future(operation.run(app))
        try:
            if after is not None:
                await asyncio.wait([call], timeout=after)
                call.cancel()
            await call
        except asyncio.CancelledError:
            if not call.cancelled():
                raise
            self.cancelled += 1
        except _EXPECTED as error:
            self.errors[type(error).__name__] += 1
        except Exception as error:  # noqa: BLE001 - the report contains it
            cause = f", caused by {error.__cause__!r}" if error.__cause__ else ""
            self.unexpected[f"{', '.join(operation.calls)}: {error!r}{cause}"] += 1
        else:
            self.calls.update(operation.calls)
        self.operations += 1

    def _not_called(self) -> list[str]:
        missing = sorted(all_calls() - self.calls.keys())
        return [f"no call of {call} succeeded" for call in missing]

    def _unexpected(self) -> list[str]:
        return [f"{count} times {error}" for error, count in self.unexpected.items()]


def _evaluated(samples: Sequence[Sample]) -> Sequence[Sample]:
    return samples[int(len(samples) * _WARM_UP) :]


def _growing(figures: Sequence[Figure]) -> list[str]:
    return [
        f"{figure.name}: from {figure.first:,.1f} to {figure.last:,.1f},"
        f" more than {figure.maximum:,.1f}"
        for figure in figures
        if not figure.is_flat
    ]
