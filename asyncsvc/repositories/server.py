"""The statements of `sql/server`."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from asyncsvc.database import build_model, build_models, build_value
from asyncsvc.models.columns import Timestamp
from asyncsvc.repositories.base import Repository


class ServerSettings(NamedTuple):
    """The version of the server and the settings that the doctor checks."""

    version: str
    version_number: int
    encoding: str
    is_replica: bool
    fsync: bool
    full_page_writes: bool
    synchronous_commit: str
    backend_pid: int
    search_locale: str | None
    """The locale of the database if it decides which letters a search considers equal."""
    autovacuum: bool
    vacuum_rate: int
    """The cost units of autovacuum per second; 0: no limit."""
    vacuum_memory: int
    """The memory of each worker of autovacuum in bytes."""


class Table(NamedTuple):
    """A table of the schema, with row counts of the server's statistics."""

    name: str
    bytes: int
    live: int
    dead: int
    is_readable: bool
    is_writable: bool


class Index(NamedTuple):
    """An index of the schema, with counts of the server's statistics."""

    name: str
    is_valid: bool
    is_unique: bool
    scans: int
    bytes: int
    rows: int


class ZoneOffset(NamedTuple):
    """The offset of a time zone from UTC at one instant."""

    name: str
    seconds: int
    at: Timestamp


class Cluster(NamedTuple):
    """The version of Citus, and how it distributes the tables with a tenant."""

    extension: str
    """The version of the extension in the database, such as 13.2."""
    library: str
    """The version of the library that the server has loaded."""
    has_jit: bool
    turn_jit_off: str
    """The command that turns JIT off for this role."""
    distributed: list[str]
    misplaced: list[str]
    """The tables that are not distributed by their tenant together with the conversations, and the
    function of writes unless Citus calls it on the node of the tenant."""


class Worker(NamedTuple):
    """A worker of Citus. It has no versions and no `lock_timeout` if it was not reached."""

    node: str
    is_active: bool
    is_reached: bool
    extension: str | None
    library: str | None
    lock_timeout: int | None
    """In milliseconds; 0: no limit."""
    set_lock_timeout: str
    """The command that sets `lock_timeout` to that of the settings, for this role."""


class ServerRepository(Repository):
    """The server and its catalog."""

    folder = "server"

    async def clock(self) -> datetime:
        """Return the server's time."""
        (row,) = await self._rows("clock")
        return build_value(Timestamp, row, "now")

    async def settings(self) -> ServerSettings:
        """Return the version and the settings for durability."""
        (row,) = await self._rows("settings")
        return build_model(ServerSettings, row)

    async def tables(self) -> list[Table]:
        """Return the tables of the schema, by name."""
        return build_models(Table, await self._rows("tables"))

    async def indexes(self) -> list[Index]:
        """Return the indexes of the schema, by name."""
        return build_models(Index, await self._rows("indexes"))

    async def zones(self) -> list[ZoneOffset]:
        """Return the time zones that a tenant declared."""
        return build_models(ZoneOffset, await self._rows("zones"))

    async def cluster(self) -> Cluster:
        """Return the state of Citus on the coordinator. The database has the extension."""
        (row,) = await self._rows("cluster")
        return build_model(Cluster, row)

    async def workers(self, *, lock_timeout: float) -> list[Worker]:
        """Ask each worker for its state. The database has the extension.

        Args:
            lock_timeout: The seconds that `Worker.set_lock_timeout` sets.
        """
        rows = await self._rows("workers", lock_timeout=round(lock_timeout * 1_000))
        return build_models(Worker, rows)
