"""Maintenance in the background, which `connect` starts.

Each process looks for work at intervals, which is 1 short statement. If there is work, it claims
the maintenance for all processes on the database, runs the jobs on a connection of its own, and
renews the claim between batches. The claim saves work. It protects no rows: each batch locks those
that it changes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Sequence
from contextlib import aclosing
from contextvars import Context
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from asyncsvc.errors import AsyncSvcError, DatabaseError, PoolExhausted
from asyncsvc.models import MaintenanceJob, MaintenanceReport
from asyncsvc.operations.maintenance import run_jobs
from asyncsvc.operations.maintenance_failures import log_failure
from asyncsvc.repositories import MaintenanceRepository

if TYPE_CHECKING:
    from asyncsvc.database import Executor

_log: Final = logging.getLogger(__name__)

_JITTER: Final = 0.2
"""The part of the interval by which a pause is longer or shorter, so that processes spread."""
_MAX_DOUBLINGS: Final = 4
"""After consecutive failures the pause grows up to 2**4 intervals."""


class BackgroundMaintenance:
    """Runs maintenance at intervals in the event loop that called `start`, until `stop`."""

    def __init__(self, executor: Executor, worker: Executor, interval: float) -> None:
        """Prepare the runs.

        Args:
            executor: Looks for work and claims it, on the pool of the application.
            worker: Runs the jobs, on a connection beside that pool. So a long batch does not make
                the application wait for a connection.
            interval: The average pause between two runs, in seconds.
        """
        self._repository = MaintenanceRepository(executor)
        self._worker = worker
        self._settings = worker.settings
        self.interval = interval
        self._lease = interval * (1 - _JITTER)
        self._name = secrets.token_hex(8)
        self._role_is_checked = False
        self._consecutive_failures = 0
        self._logged_errors: set[str] = set()
        self._logged_tenants: set[tuple[MaintenanceJob, str | None]] = set()
        self._report = MaintenanceReport()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False

    def start(self) -> None:
        """Schedule the next run, after about one interval."""
        pause = self.interval * 2 ** min(self._consecutive_failures, _MAX_DOUBLINGS)
        pause *= random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - not a secret
        # An event loop that is closed without `stop` drops a timer silently, but warns of a task.
        # The empty context keeps the caller's variables, for example its request, out of the runs.
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(pause, self._begin, context=Context())

    async def stop(self) -> None:
        """Cancel a run and wait until it has returned its connections. No run follows."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._run(), name="asyncsvc maintenance")

    async def _run(self) -> None:
        """Run once and schedule the next run. No error ends the runs, or reaches the caller."""
        self._report, start = MaintenanceReport(), time.monotonic()
        try:
            if not self._role_is_checked and not await self._check_role():
                return
            if self._role_is_checked and await self._work():
                self._log_report(time.monotonic() - start)
                self._call_hook(time.monotonic() - start, None)
        except PoolExhausted as error:
            _log.debug("maintenance is postponed: %s", error)
        except Exception as error:  # noqa: BLE001 - a later run may succeed
            self._log_new_error(error)
            self._call_hook(time.monotonic() - start, error)
        if not self._is_stopped:
            self.start()

    async def _check_role(self) -> bool:
        """Check whether the role can run maintenance; return whether it may be able to later."""
        role = await self._repository.get_role()
        if not role.is_migrated or not role.is_writable:
            _log.debug("maintenance waits for a migrated database that accepts writes")
            return True
        if not role.is_owner:
            _log.info(
                "maintenance does not run in the background: this role does not own the tables, or"
                " row-level security restricts it; run `asyncsvc maintain` as their owner"
            )
            return False
        self._role_is_checked = True
        return True

    async def _work(self) -> bool:
        """Run the jobs that are due; return whether there were any and this process ran them."""
        settings, start = self._settings, time.monotonic()
        due = await self._repository.find_due(
            lifetime=timedelta(seconds=settings.key_lifetime),
            retention=timedelta(seconds=settings.usage_retention),
        )
        if not due:
            self._succeed()
            return False
        if not await self._claim():
            _log.debug("maintenance is skipped: another process runs it")
            return False
        return await self._run_claimed(due, start)

    async def _run_claimed(self, due: Sequence[MaintenanceJob], start: float) -> bool:
        renewal = time.monotonic() + self._lease / 2
        async with aclosing(run_jobs(self._worker, due, start)) as batches:
            async for batch in batches:
                self._report += batch
                self._log_new_failures(batch)
                if time.monotonic() < renewal:
                    continue
                if not await self._claim():
                    _log.debug("maintenance ends: a batch took long, and another process goes on")
                    return True
                renewal = time.monotonic() + self._lease / 2
        self._succeed()
        return True

    async def _claim(self) -> bool:
        return await self._repository.claim(worker=self._name, lease=timedelta(seconds=self._lease))

    def _succeed(self) -> None:
        if self._consecutive_failures:
            _log.info("maintenance works again")
        self._consecutive_failures = 0
        self._logged_errors.clear()
        self._logged_tenants &= {(each.job, each.tenant_id) for each in self._report.failures}

    def _log_report(self, seconds: float) -> None:
        done = self._report
        _log.info(
            "maintenance deleted %d idempotency keys, rolled up %d ledger rows, removed persons"
            " from %d months, and indexed %d messages and %d titles in %.2f s",
            *(done.append_keys, done.ledger_rows, done.user_months, done.messages, done.titles),
            seconds,
        )

    def _log_new_error(self, error: Exception) -> None:
        """Count a failure, and log the first one of each kind since the last success."""
        self._consecutive_failures += 1
        self._role_is_checked = False
        name = type(error).__name__
        kind = f"{name} {error.sqlstate}" if isinstance(error, DatabaseError) else name
        level = logging.DEBUG if kind in self._logged_errors else logging.WARNING
        self._logged_errors.add(kind)
        unexpected = None if isinstance(error, AsyncSvcError) else error
        _log.log(level, "maintenance failed: %s: %s", name, error, exc_info=unexpected)

    def _log_new_failures(self, batch: MaintenanceReport) -> None:
        """Log the failures of a batch that the previous run did not have."""
        for failed in batch.failures:
            key = (failed.job, failed.tenant_id)
            if key not in self._logged_tenants:
                log_failure(failed)
                self._logged_tenants.add(key)

    def _call_hook(self, seconds: float, error: Exception | None) -> None:
        if self._settings.on_maintenance is None:
            return
        try:
            self._settings.on_maintenance(self._report, seconds, error)
        except Exception:  # noqa: BLE001 - it is the application's
            _log.exception("Settings.on_maintenance raised")
