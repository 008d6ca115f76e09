"""The batches of a backfill: on one server over the table, on Citus over one shard after the other.

Citus has no `FOR UPDATE` over several shards. So it runs the statement of a batch on the node of a
shard, with the name of the shard instead of the table's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from asyncsvc.database import build_model
from asyncsvc.errors import Unavailable
from asyncsvc.repositories import MigrationRepository

if TYPE_CHECKING:
    from asyncsvc.database import Executor
    from asyncsvc.database.migration_files import MigrationFile
    from asyncsvc.repositories.migration import Shard


class Batch(NamedTuple):
    """The result of a batch: its last position, or None if no row is left, and the changed rows."""

    position: str | None
    rows: int


class Backfill:
    """Runs the batches of one file. A position on Citus is the bound of a shard and a place in it.

    The shards are listed again before each step to the next one. So a split of a shard loses no
    row: the new shard has a higher bound than the place of the backfill, or no row to change.
    """

    def __init__(self, file: MigrationFile) -> None:  # noqa: D107
        self._file = file
        self._is_distributed: bool | None = None
        self._shard: Shard | None = None

    async def run_batch(self, transaction: Executor, position: str, limit: int) -> Batch:
        """Change at most `limit` rows after `position`."""
        if self._is_distributed is None:
            self._is_distributed = bool(await self._get_shards(transaction))
        if not self._is_distributed:
            return await self._run(transaction, position, limit)
        bound, place = json.loads(position) or (None, "[]")
        shard = self._shard
        if shard is None or shard.bound != bound:
            shard = await self._find_shard(transaction, bound)
            place = place if shard is not None and shard.bound == bound else "[]"
        while shard is not None:
            batch = await self._run(transaction, place, limit, shard)
            if batch.position is not None:
                self._shard = shard
                return batch._replace(position=json.dumps([shard.bound, batch.position]))
            shard, place = await self._find_shard(transaction, shard.bound + 1), "[]"
        return Batch(None, 0)

    async def _run(
        self, transaction: Executor, position: str, limit: int, shard: Shard | None = None
    ) -> Batch:
        query = self._file.batch(position, limit, shard_of=shard and shard.tenant_id)
        (row,) = await transaction.fetch(query)
        return build_model(Batch, row)

    async def _find_shard(self, transaction: Executor, bound: int | None) -> Shard | None:
        """Return the first shard with rows from this bound on."""
        shards = await self._get_shards(transaction)
        return next(
            (each for each in shards if each.tenant_id and (bound is None or each.bound >= bound)),
            None,
        )

    async def _get_shards(self, transaction: Executor) -> list[Shard]:
        """Return the shards of the table, none if it is not distributed."""
        repository = MigrationRepository(transaction)
        if not await repository.has_citus():
            return []
        shards = await repository.get_shards(table=self._file.backfilled_table)
        for shard in shards:
            if not shard.is_reached:
                raise Unavailable(f"a backfill needs all nodes of Citus: {shard.tenant_id}")
        return shards
