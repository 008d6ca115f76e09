"""Spans and metrics of the calls to the database, by the semantic conventions of OpenTelemetry.

It needs the extra `opentelemetry`. The application configures the SDK and its exporters. The
exported data are names of SQL files, classes of errors, SQLSTATEs and numbers: no parameters, no
tenants, and no texts of errors, which may quote values.
https://opentelemetry.io/docs/specs/semconv/db/postgresql/
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Final, TypeAlias, TypeVarTuple

from asyncsvc.integrations.extras import needs_extra

with needs_extra("opentelemetry"):
    from opentelemetry.metrics import (
        CallbackOptions,
        Histogram,
        MeterProvider,
        Observation,
        get_meter,
    )
    from opentelemetry.trace import SpanKind, StatusCode, TracerProvider, get_tracer

from asyncsvc import (
    AsyncSvc,
    AsyncSvcError,
    Backlog,
    InvalidInput,
    MaintenanceReport,
    PoolExhausted,
    Settings,
)

_log: Final = logging.getLogger(__name__)
_BOUNDS: Final = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10]  # seconds, from the conventions
_INSUFFICIENT_PRIVILEGE: Final = "42501"
_POOL: Final = "db.client.connection.pool.name"
_STATE: Final = "db.client.connection.state"
_STATEMENT: Final = "db.query.summary"
_KIND: Final = "asyncsvc.maintenance.kind"
Attributes: TypeAlias = dict[str, str | int]
Error: TypeAlias = BaseException | None
Values = TypeVarTuple("Values")


class Telemetry:
    """The spans and metrics of the services on one database."""

    def __init__(
        self,
        *,
        attributes: Mapping[str, str | int] | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        """Create the instruments. A process needs one object for each database.

        Args:
            attributes: Added to all spans and metrics, such as `db.namespace`, `server.address` and
                `server.port`. They tell databases apart.
            tracer_provider: The provider of the tracer, by default the global one.
            meter_provider: The provider of the meter, by default the global one.
        """
        self._attributes: Attributes = {"db.system.name": "postgresql", **(attributes or {})}
        self._observed = list[_Observed]()
        self._tracer = get_tracer("asyncsvc", tracer_provider=tracer_provider)
        # A meter ignores the second instrument of a name, so each database has its own meter.
        self._meter = meter = get_meter(
            "asyncsvc", meter_provider=meter_provider, attributes=attributes
        )
        self._duration = self._histogram("db.client.operation.duration", _BOUNDS)
        self._wait = self._histogram("db.client.connection.wait_time", _BOUNDS)
        self._timeouts = meter.create_counter("db.client.connection.timeouts", "{timeout}")
        self._retries = meter.create_counter("asyncsvc.retries", "{retry}")
        self._runs = self._histogram("asyncsvc.maintenance.duration", [0.1, 1, 10, 60, 600])
        self._processed = meter.create_counter("asyncsvc.maintenance.processed", "{row}")
        self._failures = meter.create_counter("asyncsvc.maintenance.failures", "{failure}")
        up_down_counter = meter.create_observable_up_down_counter
        up_down_counter("db.client.connection.count", [self._count], "{connection}")
        up_down_counter("db.client.connection.max", [self._max], "{connection}")
        meter.create_observable_gauge("asyncsvc.maintenance.backlog", [self._backlog], "{row}")
        meter.create_observable_gauge("asyncsvc.maintenance.lag", [self._lag], "s")

    def instrument(self, settings: Settings) -> Settings:
        """Return settings with hooks that record, and then call the hooks of `settings`."""
        hooks = {
            "on_query": _chain(self._on_query, settings.on_query),
            "on_acquire": _chain(self._on_acquire, settings.on_acquire),
            "on_retry": _chain(self._on_retry, settings.on_retry),
            "on_maintenance": _chain(self._on_maintenance, settings.on_maintenance),
        }
        return settings.model_copy(update=hooks)

    @asynccontextmanager
    async def observe(self, svc: AsyncSvc, *, interval: float = 60.0) -> AsyncGenerator[None]:
        """Export the sizes of the pools, and the backlog and the lag of maintenance, in this block.

        A task reads the backlog every `interval` seconds, which is 1 statement. It ends if the role
        does not own the tables.

        Raises:
            InvalidInput: `interval` is not a positive number.
        """
        if not (isinstance(interval, int | float) and interval > 0):
            raise InvalidInput("interval", "must be a number of seconds above 0")
        observed = _Observed(svc)
        self._observed.append(observed)
        # The empty context keeps the caller's span out of the spans of the task.
        task = asyncio.create_task(observed.refresh(interval), context=Context())
        try:
            yield
        finally:
            self._observed.remove(observed)
            task.cancel()
            await asyncio.wait({task})

    def _histogram(self, name: str, bounds: list[float]) -> Histogram:
        return self._meter.create_histogram(name, "s", explicit_bucket_boundaries_advisory=bounds)

    def _on_query(self, name: str, seconds: float, _rows: int, error: Error) -> None:
        end = time.time_ns()
        attributes = _with_error(self._attributes | {_STATEMENT: name}, error)
        start = end - round(seconds * 1e9)
        span = self._tracer.start_span(name, None, SpanKind.CLIENT, attributes, None, start)
        if error is not None:
            span.set_status(StatusCode.ERROR)
        span.end(end)
        self._duration.record(seconds, attributes)

    def _on_acquire(self, pool: str, seconds: float, error: Error) -> None:
        attributes = self._attributes | {_POOL: pool}
        if error is None:
            self._wait.record(seconds, attributes)
        # Prometheus sees no rate in the first event of a counter that does not begin at 0.
        self._timeouts.add(isinstance(error, PoolExhausted), attributes)

    def _on_retry(self, name: str, _attempt: int, _pause: float, _error: object) -> None:
        self._retries.add(1, self._attributes | {_STATEMENT: name})

    def _on_maintenance(self, report: MaintenanceReport, seconds: float, error: Error) -> None:
        self._runs.record(seconds, _with_error(self._attributes, error))
        for kind in ("append_keys", "ledger_rows", "user_months", "messages", "titles"):
            self._processed.add(getattr(report, kind), self._attributes | {_KIND: kind})
        for failed in report.failures:
            self._failures.add(1, self._attributes | {"asyncsvc.maintenance.job": failed.job})

    def _count(self, _options: CallbackOptions) -> Iterable[Observation]:
        for each in self._observed:
            for pool in each.svc.pool_stats():
                attributes = self._attributes | {_POOL: pool.name}
                yield Observation(pool.idle, attributes | {_STATE: "idle"})
                yield Observation(pool.size - pool.idle, attributes | {_STATE: "used"})

    def _max(self, _options: CallbackOptions) -> Iterable[Observation]:
        for each in self._observed:
            for pool in each.svc.pool_stats():
                yield Observation(pool.max_size, self._attributes | {_POOL: pool.name})

    def _backlog(self, _options: CallbackOptions) -> Iterable[Observation]:
        for backlog in (each.backlog for each in self._observed if each.backlog):
            for kind in ("ledger_rows", "messages", "titles"):
                yield Observation(getattr(backlog, kind), self._attributes | {_KIND: kind})

    def _lag(self, _options: CallbackOptions) -> Iterable[Observation]:
        for each in self._observed:
            if each.backlog is not None:
                lag = time.monotonic() - each.processed_until
                yield Observation(0.0 if each.backlog.is_empty else lag, self._attributes)


class _Observed:
    """Services, and the backlog of their maintenance at the last read."""

    def __init__(self, svc: AsyncSvc) -> None:
        self.svc = svc
        self.backlog: Backlog | None = None
        self.processed_until = float("-inf")
        """A time, by `time.monotonic`, before which no row of the backlog was stored."""

    async def refresh(self, interval: float) -> None:
        """Read the backlog at intervals, until the server denies the right."""
        while True:
            start = time.monotonic()
            try:
                backlog = await self.svc.backlog()
                until = start - (0 if backlog.is_empty else backlog.age)
                self.processed_until = max(until, self.processed_until)
                self.backlog = backlog
            except AsyncSvcError as error:
                if getattr(error, "sqlstate", None) == _INSUFFICIENT_PRIVILEGE:
                    return _log.info("the backlog of maintenance is not exported: %s", error)
            await asyncio.sleep(interval)


def _chain(
    record: Callable[[*Values], None], hook: Callable[[*Values], None] | None
) -> Callable[[*Values], None]:
    """Return a hook that records, and then calls the hook of the caller."""

    def both(*values: *Values) -> None:
        record(*values)
        if hook is not None:
            hook(*values)

    return both


def _with_error(attributes: Attributes, error: Error) -> Attributes:
    """Add the class of an error and the SQLSTATE that the server sent."""
    if error is None:
        return attributes
    sqlstate = getattr(error, "sqlstate", getattr(error.__cause__, "sqlstate", None))
    code = {"db.response.status_code": sqlstate} if isinstance(sqlstate, str) else {}
    return {**attributes, "error.type": type(error).__qualname__, **code}
