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


class MaintenanceRepository(Repository):
    """The maintenance in the background: its work and its claim."""

    folder = "maintenance"

    async def get_role(self) -> MaintenanceRole:
        """Return what the role of the connections can do."""
        (row,) = await self._rows("get_role")
        return build_model(MaintenanceRole, row)

    async def find_due(self, *, lifetime: timedelta) -> list[MaintenanceJob]:
        """Return the jobs that have rows to process. Keys older than `lifetime` are expired."""
        (row,) = await self._rows("find_due", lifetime=lifetime)
        return build_model(DueJobs, row).names()

    async def claim(self, *, worker: str, lease: timedelta) -> bool:
        """Claim the maintenance, or renew the claim; False if another worker has claimed it."""
        return bool(await self._rows("claim", worker=worker, lease=lease))
