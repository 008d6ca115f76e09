"""`sql/server`."""

from __future__ import annotations

from datetime import datetime

from asyncsvc.repositories.base import Repository


class ServerRepository(Repository):
    """The statements about the server, and what it knows of the schema."""

    folder = "server"

    async def clock(self) -> datetime:
        """Return what time it is there."""
        (row,) = await self._rows("clock")
        now: datetime = row["now"]
        return now
