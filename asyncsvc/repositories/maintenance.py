"""The statements of `sql/maintenance`."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from asyncsvc.database import build_model
from asyncsvc.models import MaintenanceJob
from asyncsvc.repositories.base import Repository


class MaintenanceRole(NamedTuple):
    """What the role of the connections can do."""

    is_migrated: bool
    """Whether the table of claims exists."""
    is_writable: bool
    """Whether the server accepts writes; a read replica does not."""
    is_owner: bool
    """Whether the role has the rights of the owner of all tables, and no policy restricts it."""


class DueJobs(NamedTuple):
    """Which jobs have rows to process."""

    append_keys: bool
    usage: bool
    search: bool

    def names(self) -> list[MaintenanceJob]:
        """Return the names of the jobs, in the order in which they run."""
        due: dict[MaintenanceJob, bool] = {
            "append_keys": self.append_keys,
            "usage": self.usage,
            "search": self.search,
        }
        return [job for job, is_due in due.items() if is_due]


class BacklogRow(NamedTuple):
    """The numbers of rows that are not processed, and the age of the last complete run."""

    ledger_rows: int
    messages: int
    titles: int
    age: float
    is_restricted: bool
    """Whether row-level security hides rows from the role."""


class MaintenanceRepository(Repository):
    """The maintenance in the background: its work and its claim."""

    folder = "maintenance"

    async def get_role(self) -> MaintenanceRole:
        """Return what the role of the connections can do."""
        (row,) = await self._rows("get_role")
        return build_model(MaintenanceRole, row)

    async def find_due(self, *, lifetime: timedelta, retention: timedelta) -> list[MaintenanceJob]:
        """Return the jobs that have rows to process.

        Keys older than `lifetime` are expired, and sums older than `retention` name no persons.
        """
        (row,) = await self._rows("find_due", lifetime=lifetime, retention=retention)
        return build_model(DueJobs, row).names()

    async def backlog(self, *, limit: int) -> BacklogRow:
        """Count the rows that are not processed, of all tenants and each kind up to the limit."""
        (row,) = await self._rows("backlog", limit=limit)
        return build_model(BacklogRow, row)

    async def record_run(self, *, seconds: float) -> None:
        """Record a run that began `seconds` ago and has processed all rows of before."""
        await self._rows("record_run", seconds=seconds)

    async def claim(self, *, worker: str, lease: timedelta) -> bool:
        """Claim the maintenance, or renew the claim; False if another worker has claimed it."""
        return bool(await self._rows("claim", worker=worker, lease=lease))
