"""The statements of `sql/migration`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from asyncsvc.database import build_models, build_value, build_values
from asyncsvc.models import Migration
from asyncsvc.repositories.base import Repository

if TYPE_CHECKING:
    from asyncsvc.database import Row


class TableSize(NamedTuple):
    """The size of a table of the schema, by the server's statistics."""

    name: str
    rows: int
    bytes: int


class Shard(NamedTuple):
    """A shard of a distributed table."""

    bound: int
    """The lowest hash of a tenant."""
    is_reached: bool
    tenant_id: str
    """One of its tenants, empty for a shard without rows; an error if its node was not reached."""


class MigrationRepository(Repository):
    """The schema, and the table of applied migrations."""

    folder = "migration"

    async def try_lock(self) -> bool:
        """Take the lock of all migrating processes until the transaction ends, if it is free."""
        (row,) = await self._rows("try_lock")
        return build_value(bool, row, "is_locked")

    async def create_schema(self) -> None:
        """Create the schema if it does not exist."""
        await self._rows("create_schema")

    async def create_table(self) -> None:
        """Create the table of applied migrations if it does not exist."""
        await self._rows("create_table")

    async def has_table(self) -> bool:
        """Return whether the table of applied migrations exists."""
        (row,) = await self._rows("has_table")
        return build_value(bool, row, "exists")

    async def get_applied(self) -> list[Migration]:
        """Return the applied migrations, oldest first."""
        return build_models(Migration, await self._rows("get_applied"))

    async def record(self, *, version: int, name: str, checksum: str) -> None:
        """Record a migration as applied."""
        await self._rows("record", version=version, name=name, checksum=checksum)

    async def get_sizes(self, *, with_shards: bool) -> list[TableSize]:
        """Return the sizes of the tables, by name, with those of their shards on Citus."""
        flags = ["with_shards"] if with_shards else []
        return build_models(TableSize, await self._rows("get_sizes", *flags))

    async def get_progress(self, *, version: int, checksum: str) -> list[Row]:
        """Return the progress of a backfill that is not finished, or no row."""
        return await self._rows("get_progress", version=version, checksum=checksum)

    async def record_progress(
        self, *, version: int, name: str, checksum: str, position: str, rows: int
    ) -> None:
        """Record the progress of a backfill."""
        await self._rows(
            "record_progress",
            version=version,
            name=name,
            checksum=checksum,
            position=position,
            rows=rows,
        )

    async def set_lock_timeout(self) -> None:
        """Limit the wait for each lock in the open transaction to 0.1 s."""
        await self._rows("set_lock_timeout")

    async def enable_row_security(self) -> None:
        """Turn row-level security on for the tables on which it is off."""
        await self._rows("enable_row_security")

    async def has_citus(self) -> bool:
        """Return whether the database has Citus."""
        (row,) = await self._rows("has_citus")
        return build_value(bool, row, "exists")

    async def get_shards(self, *, table: str) -> list[Shard]:
        """Return the shards of a table, none if it is not distributed. The database has Citus."""
        return build_models(Shard, await self._rows("get_shards", name=table))

    async def distribute(self) -> None:
        """Distribute tables and functions over the nodes of Citus."""
        await self._rows("distribute")

    async def get_unrestricted_tables(self) -> list[str]:
        """Return the tables on which row-level security does not restrict the current role."""
        return build_values(str, await self._rows("get_unrestricted_tables"), "name")
