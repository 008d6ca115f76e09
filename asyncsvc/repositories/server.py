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
