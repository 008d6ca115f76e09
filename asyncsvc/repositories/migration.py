"""`sql/migration`."""

from __future__ import annotations

from asyncsvc.models import Migration
from asyncsvc.repositories.base import Repository, build_models


class MigrationRepository(Repository):
    """The statements about the schema itself and the record of its migrations."""

    folder = "migration"

    async def lock(self) -> None:
        """Wait until no other transaction migrates; the lock ends with this one."""
        await self._rows("lock")

    async def create_schema(self) -> None:
        """Make the schema where it is not there."""
        await self._rows("create_schema")

    async def create_table(self) -> None:
        """Make the record of migrations where it is not there."""
        await self._rows("create_table")

    async def is_recorded(self) -> bool:
        """Say whether the record of migrations exists."""
        (row,) = await self._rows("is_recorded")
        return bool(row["is_recorded"])

    async def get_applied(self) -> list[Migration]:
        """Return the applied migrations, oldest first."""
        return build_models(Migration, await self._rows("get_applied"))

    async def record(self, *, version: int, name: str, checksum: str) -> None:
        """Write down that a migration was applied."""
        await self._rows("record", version=version, name=name, checksum=checksum)

    async def enable_row_security(self) -> None:
        """Turn row-level security on where it is not."""
        await self._rows("enable_row_security")

    async def has_citus(self) -> bool:
        """Say whether the database has Citus."""
        (row,) = await self._rows("has_citus")
        return bool(row["is_there"])

    async def distribute(self) -> None:
        """Distribute what is not distributed yet."""
        await self._rows("distribute")

    async def unrestricted_tables(self) -> list[str]:
        """Return the tables whose rows of all tenants this role can see."""
        return [row["name"] for row in await self._rows("unrestricted_tables")]
