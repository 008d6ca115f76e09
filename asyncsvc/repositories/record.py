"""The statements of `sql/record`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asyncsvc.models import Record
from asyncsvc.repositories.base import Repository, to_json_apart
from asyncsvc.repositories.large_rows import build_rows
from asyncsvc.validation.types import UNSET, UnsetType


class RecordRepository(Repository):
    """The statements on records."""

    folder = "record"

    async def put(
        self,
        *,
        tenant_id: str,
        kind: str,
        id: str,
        data: Mapping[str, object],
        user_id: str | UnsetType,
        max_merged_bytes: int | UnsetType = UNSET,
    ) -> Record | None:
        """Create or replace a record; None if it belongs to another user.

        With `max_merged_bytes`, `data` is a merge patch; None also if the result would exceed it.
        """
        rows = await self._rows(
            "put",
            *([] if max_merged_bytes is UNSET else ["merge"]),
            tenant_id=tenant_id,
            kind=kind,
            id=id,
            user_id=user_id,
            data=await to_json_apart(data),
            max_json_bytes=max_merged_bytes,
        )
        return (await build_rows(Record, rows))[0] if rows else None

    async def get_many(
        self, *, tenant_id: str, kind: str, ids: Sequence[str], user_id: str | UnsetType
    ) -> list[Record]:
        """Return the records that exist, in the order of the ids."""
        rows = await self._rows(
            "get_many",
            *(["one"] if len(ids) == 1 else []),
            tenant_id=tenant_id,
            kind=kind,
            ids=ids,
            user_id=user_id,
        )
        return await build_rows(Record, rows)

    async def get_list(
        self,
        *,
        tenant_id: str,
        kind: str,
        user_id: str | UnsetType,
        after_id: str | UnsetType,
        limit: int,
    ) -> list[Record]:
        """Return the records of a kind after an id, in the order of their ids."""
        rows = await self._rows(
            "get_list",
            tenant_id=tenant_id,
            kind=kind,
            user_id=user_id,
            after_id=after_id,
            limit=limit,
        )
        return await build_rows(Record, rows)

    async def delete(
        self,
        *,
        tenant_id: str,
        user_id: str | UnsetType = UNSET,
        kind: str | UnsetType = UNSET,
        id: str | UnsetType = UNSET,
        batch_size: int = 1,
    ) -> int:
        """Delete a record by kind and id, or a batch of records; return their number."""
        return await self._count(
            "delete",
            tenant_id=tenant_id,
            user_id=user_id,
            kind=kind,
            id=id,
            batch_size=batch_size,
        )
