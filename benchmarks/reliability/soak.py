"""Work the whole public API for long, with cancelled calls and lost connections, and watch it.

Tasks of one process call whatever an application may call, on three tenants. One call in ten is
cancelled somewhere, and now and then the server ends a connection. Memory, tasks, descriptors and
connections must stay what they were.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from pydantic import BaseModel, ConfigDict

import asyncsvc
from asyncsvc.cli.running import CommandError
from benchmarks.reliability.operations import (
    OLD,
    OPERATIONS,
    TENANTS,
    Application,
    Operation,
    public_calls,
)
from benchmarks.reliability.samples import MEASURES, Figure, Sample, Watch
from benchmarks.reliability.server import (
    Server,
    described,
    refuse_other_systems,
    temporary_directory,
)

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

Show = Callable[[float, int], None]
"""Is told the seconds and the operations so far."""

_NAME: Final = "asyncsvc-soak"
_POOL: Final = 8
_CANCELLED: Final = 0.1
"""The share of operations that are cancelled, if they last long enough."""
_LATEST_CANCEL: Final = 0.01
_LOSS_SECONDS: Final = 0.5
_RESET: Final = "Resetting connection with an active transaction"
_PATIENCE: Final = 120.0
_WARM: Final = 0.25
"""The share of the run that is not judged: caches fill, and the allocator finds its size."""
_SAMPLES: Final = 120
_LONGEST_PAUSE: Final = 5.0
_EXPECTED: Final = (
    asyncsvc.NotFound,
    asyncsvc.Conflict,
    asyncsvc.InvalidToken,
    asyncsvc.Unavailable,
)
"""What an application must reckon with; any other error makes the soak fail."""
_LOSE: Final = """
    SELECT pg_terminate_backend(pid)
      FROM pg_stat_activity
     WHERE application_name = $1
     ORDER BY random()
     LIMIT 1
"""


class Settings(BaseModel):
    """What a soak does."""

    model_config = ConfigDict(frozen=True)

    minutes: float
    tasks: int
    seed: int


class Report(BaseModel):
    """What a soak did, and how it went."""

    model_config = ConfigDict(frozen=True)

    settings: Settings
    server: dict[str, str]
    operations: int
    cancelled: int
    connections_lost: int
    retries: int
    """How often the library began a call again by itself."""
    errors: dict[str, int]
    """The errors that calls raised, by their name; they are expected here."""
    calls: dict[str, int]
    """How often each public method did what it should."""
    figures: list[Figure]
    failures: list[str]
    samples: list[Sample]

    @property
    def judged(self) -> Sequence[Sample]:
        """The samples behind the warm-up."""
        return _judged(self.samples)


class _Gate:
    """Lets operations pass, and stops them all for a calm moment."""

    def __init__(self) -> None:
        self._passing = 0
        self._open = asyncio.Event()
        self._open.set()
        self._empty = asyncio.Event()
        self._empty.set()

    @asynccontextmanager
    async def passed(self) -> AsyncIterator[None]:
        await self._open.wait()
        self._passing += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._passing -= 1
            if not self._passing:
                self._empty.set()

    @asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        self._open.clear()
        await self._empty.wait()
        try:
            yield
        finally:
            self._open.set()


async def soak(settings: Settings, show: Show) -> Report:
    """Run it on a server of its own, and report."""
    refuse_other_systems()
    for library in ("asyncpg", "asyncsvc"):  # what they log of lost connections is expected
        logging.getLogger(library).addHandler(logging.NullHandler())
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(temporary_directory())
        dsn = await stack.enter_async_context(Server(directory).life())
        own = await asyncpg.connect(dsn)
        stack.push_async_callback(own.close)
        named = f"{dsn}?application_name={_NAME}"
        pool = await stack.enter_async_context(
            asyncpg.create_pool(named, min_size=0, max_size=_POOL, command_timeout=30)
        )
        return await _Run(settings, show, named, pool, own).report()


@dataclass(slots=True)
class _Run:
    settings: Settings
    show: Show
    dsn: str
    pool: Pool
    own: asyncpg.Connection[asyncpg.Record]
    gate: _Gate = field(default_factory=_Gate)
    operations: int = 0
    cancelled: int = 0
    lost: int = 0
    retries: int = 0
    calls: collections.Counter[str] = field(default_factory=collections.Counter)
    errors: collections.Counter[str] = field(default_factory=collections.Counter)
    surprises: collections.Counter[str] = field(default_factory=collections.Counter)

    async def report(self) -> Report:
        asyncio.get_running_loop().set_exception_handler(self._note_unheard)
        library = asyncsvc.Settings(
            accept_foreign_tokens=True,
            key_lifetime=OLD.total_seconds(),
            on_retry=self._note_retry,
        )
        svc = asyncsvc.AsyncSvc(self.pool, settings=library)
        await svc.migrate()
        apps = [self._application(svc, number) for number in range(self.settings.tasks)]
        for operation in OPERATIONS:  # each once, so that rare ones are warm, too
            await self._run(apps[0], operation, None)
        samples = await self._load(apps)
        figures = [measure.figure(_judged(samples)) for measure in MEASURES]
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
            failures=[*_not_flat(figures), *self._not_called(), *self._surprising()],
            samples=samples,
        )

    def _note_retry(self, *_: object) -> None:
        self.retries += 1

    def _note_unheard(self, _loop: object, context: dict[str, Any]) -> None:
        """Note an error that nobody waited for; the driver's, of lost connections, are expected.

        Where a task is cancelled while its connection goes back to the pool, the driver goes on
        with that in a task of its own. Where the server ended a transaction's connection and the
        driver has not read the end of it, it says that it resets an active transaction; it cannot,
        and drops the connection. What stays open at the server is counted in the samples.
        """
        error = context.get("exception")
        if str(context["message"]).startswith(_RESET):
            self.errors["unheard reset"] += 1
        elif isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | ConnectionError):
            self.errors[f"unheard {type(error).__name__}"] += 1
        else:
            self.surprises[f"{context['message']}: {error!r}"] += 1

    def _application(self, svc: asyncsvc.AsyncSvc, number: int) -> Application:
        chance = random.Random(f"{self.settings.seed}/{number}")  # noqa: S311 - no secret
        return Application(svc, self.pool, self.dsn, TENANTS[number % len(TENANTS)], chance)

    async def _load(self, apps: Sequence[Application]) -> list[Sample]:
        """Have them work, with calm moments for the samples, and stop them at the last."""
        watch, samples = Watch(self.pool, self.own, _NAME), list[Sample]()
        seconds = self.settings.minutes * 60
        pause = min(seconds / _SAMPLES, _LONGEST_PAUSE)
        async with asyncio.TaskGroup() as group:
            working = [group.create_task(self._work(app)) for app in apps]
            working.append(group.create_task(self._lose_connections()))
            while not samples or samples[-1].seconds < seconds:
                await asyncio.sleep(pause)
                async with self._calm():
                    samples.append(await watch.sample(self.operations))
                    self.show(samples[-1].seconds, self.operations)
            async with self._calm():
                for task in working:
                    task.cancel()
        return samples

    @asynccontextmanager
    async def _calm(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await stack.enter_async_context(self.gate.closed())
            except TimeoutError:
                raise CommandError(f"a call did not end in {_PATIENCE:g} s") from None
            yield

    async def _work(self, app: Application) -> None:
        weights = list(itertools.accumulate(operation.weight for operation in OPERATIONS))
        while True:
            (operation,) = app.chance.choices(OPERATIONS, cum_weights=weights)
            is_cancelled = app.chance.random() < _CANCELLED
            after = app.chance.uniform(0, _LATEST_CANCEL) if is_cancelled else None
            async with self.gate.passed():
                await self._run(app, operation, after)

    async def _lose_connections(self) -> None:
        while True:
            await asyncio.sleep(_LOSS_SECONDS)
            async with self.gate.passed():
                self.lost += len(await self.own.fetch(_LOSE, _NAME))

    async def _run(self, app: Application, operation: Operation, after: float | None) -> None:
        """Run it, cancel it after so many seconds unless that is None, and note what it did."""
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
        except Exception as error:  # noqa: BLE001 - it is told at the end
            because = f", since {error.__cause__!r}" if error.__cause__ else ""
            self.surprises[f"{operation.calls[0]}: {error!r}{because}"] += 1
        else:
            self.calls.update(operation.calls)
        self.operations += 1

    def _not_called(self) -> list[str]:
        missing = sorted(public_calls() - self.calls.keys())
        return [f"{call} was never called with success" for call in missing]

    def _surprising(self) -> list[str]:
        return [f"{count} times {surprise}" for surprise, count in self.surprises.items()]


def _judged(samples: Sequence[Sample]) -> Sequence[Sample]:
    return samples[int(len(samples) * _WARM) :]


def _not_flat(figures: Sequence[Figure]) -> list[str]:
    return [
        f"{figure.name}: from {figure.first:,.1f} to {figure.last:,.1f},"
        f" more than {figure.allowed:,.1f}"
        for figure in figures
        if not figure.is_flat
    ]
