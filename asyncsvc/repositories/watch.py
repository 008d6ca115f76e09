"""The statements of `sql/watch`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from pydantic import Json

from asyncsvc.database import build_model, build_models
from asyncsvc.models.columns import Timestamp
from asyncsvc.repositories.base import Repository
from asyncsvc.validation.cursors import Position
from asyncsvc.validation.types import UNSET


class RunningTransactions(NamedTuple):
    """The transactions of the database at one instant of the server's clock."""

    read_at: Timestamp
    transactions: Json[dict[str, Timestamp]]
    """A time before the first statement of each transaction."""


class NewAppend(NamedTuple):
    """A conversation to which messages were appended."""

    id: str
    dialog_id: str
    user_id: str
    last_seq: int
    appended_at: Timestamp
    updated_at: Timestamp


class WatchRepository(Repository):
    """The reads of watchers, and the tenants that they watch."""

    folder = "watch"

    async def get_running(self, *, hidden_age: timedelta) -> RunningTransactions:
        """Return the server's clock and the running transactions."""
        (row,) = await self._rows("get_running", hidden_age=hidden_age)
        return build_model(RunningTransactions, row)

    async def get_new(
        self, *, tenant_id: str, since: datetime, after: Position | None, limit: int
    ) -> list[NewAppend]:
        """Return the next conversations to which messages were appended since an instant."""
        rows = await self._rows(
            "get_new",
            tenant_id=tenant_id,
            since=since,
            after_at=UNSET if after is None else after.at,
            after_id=UNSET if after is None else after.id,
            limit=limit,
        )
        return build_models(NewAppend, rows)

    async def renew(self, *, tenant_id: str, lease: timedelta) -> None:
        """Make the appends of a tenant send notifications for `lease`."""
        await self._rows("renew", tenant_id=tenant_id, lease=lease)

    async def delete(self, *, tenant_id: str) -> int:
        """Delete the row of a tenant; return the number of rows."""
        return await self._count("delete", tenant_id=tenant_id)
