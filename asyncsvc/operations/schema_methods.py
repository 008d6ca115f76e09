"""The methods of `AsyncSvc` that migrate the schema and check it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from asyncsvc.models import Migration, MigrationProgress, MigrationStep
from asyncsvc.operations import migrations
from asyncsvc.validation.arguments import HasSettings, validated

if TYPE_CHECKING:
    from asyncsvc.database import Executor


class SchemaMethods(HasSettings):
    """Migrates and checks the schema, on the executor of `AsyncSvc`."""

    _executor: Executor

    @validated
    async def migrate(
        self,
        *,
        citus: bool = False,
        on_batch: Callable[[MigrationProgress], None] | None = None,
    ) -> list[Migration]:
        """Bring the schema up to date, beside the reads and writes of the application.

        Any number of processes may call this at the same time. A call may be cancelled or killed;
        the next one continues. A lock on a table is awaited for 0.1 s at a time, with pauses, and
        for `Settings.lock_timeout` in total. `migration_plan` shows the locks. With
        `Settings.row_level_security` it also enables row-level security, permanently. The role
        needs the right to create; a deployment without it calls `check`.

        Args:
            citus: Distribute the tables and their rows over the nodes of Citus, by tenant. Pass it
                at each call, for tables that a migration adds. See docs/guides/citus.md.
            on_batch: Called after each batch of a migration that changes the rows of a table.

        Returns:
            The migrations that this call applied.

        Raises:
            MigrationError: The commands of an applied migration have changed, the database has no
                Citus, or an index waited for an older transaction.
            LockTimeout: Other transactions held a table for longer than `Settings.lock_timeout`.
            InvalidInput: Citus and row-level security together.

        Cost:
            7 round trips if the schema is up to date; each migration and each batch of one adds 8
            and its commands. Concurrent calls wait for one lock.
        """
        return await migrations.migrate(self._executor, citus=citus, on_batch=on_batch)

    async def applied(self) -> list[Migration]:
        """Return the applied migrations, oldest first.

        Returns:
            The migrations, also those of a newer version of the library.

        Cost:
            At most 2 round trips, read-only.
        """
        return await migrations.applied(self._executor)

    async def pending(self) -> list[Migration]:
        """Return the migrations that `migrate` would apply.

        Returns:
            The pending migrations, in the order of their numbers.

        Raises:
            MigrationError: The commands of an applied migration have changed.

        Cost:
            At most 2 round trips, read-only.
        """
        return await migrations.pending(self._executor)

    async def migration_plan(self) -> list[MigrationStep]:
        """Return what `migrate` would lock and change, and an estimate of its duration.

        Returns:
            The pending migrations, in the order of their numbers.

        Raises:
            MigrationError: The commands of an applied migration have changed.

        Cost:
            At most 4 round trips, and 1 for each pending backfill; read-only. On Citus also
            a command to each node.
        """
        return await migrations.plan(self._executor)

    async def check(self) -> None:
        """Check that the schema is up to date and has the state that the settings need.

        With `Settings.row_level_security`, check also that it restricts this role. On Citus, check
        also that the tables are distributed, and log a warning for a worker that is down, disabled
        or of another version. So the check passes while the tenants of other workers are served.

        Raises:
            MigrationError: A migration is pending or has changed; row-level security does not
                restrict this role; `Settings.citus` does not fit the database, a table is not
                distributed by its tenant, or the extension has another version than its library.

        Cost:
            At most 3 round trips, read-only; 1 more with row-level security, and 2 more on Citus,
            which asks each worker.
        """
        await migrations.check(self._executor)
