"""Records: the data of an application that is not a conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsvc.errors import AlreadyExists
from asyncsvc.models import Page, Record
from asyncsvc.repositories import RecordRepository
from asyncsvc.services.common import oversized_merge, row_or_not_found, unset_if_any
from asyncsvc.validation import cursors
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.cursors import Position
from asyncsvc.validation.types import (
    ANY,
    UNSET,
    Cursor,
    Id,
    Ids,
    JsonObject,
    OrAny,
    PageSize,
    UserId,
)

if TYPE_CHECKING:
    from asyncsvc.database import Executor
    from asyncsvc.settings import Settings


class RecordService:
    """JSON objects of an application, by kind and id: attachments, users, shared state.

    A record has at most one owner, its `user_id`, which never changes. Each method takes the owner
    as a condition: the record of another user behaves like one that does not exist, and cannot be
    overwritten. `erase_user` and `delete_tenant` of `svc.conversations` delete records too. No
    statistic counts them.

    Each method works on 1 tenant and raises the errors that `API4ConversationService` lists.
    """

    def __init__(self, executor: Executor, settings: Settings) -> None:
        """Run statements on this executor, within the limits of these settings."""
        self._settings = settings
        self._repository = RecordRepository(executor)

    @property
    def settings(self) -> Settings:
        """The settings, with the limits that arguments are validated against."""
        return self._settings

    @validated
    async def put(
        self,
        kind: Id,
        id: Id,
        data: JsonObject,
        *,
        tenant_id: Id,
        user_id: OrAny[UserId] = ANY,
    ) -> Record:
        """Create a record, or replace the data of the existing one.

        Args:
            kind: The kind of the record, such as "attachment".
            id: An id of the application, unique within the kind.
            data: The whole JSON object.
            user_id: The owner. ANY: a new record has no owner, an existing one keeps its owner.

        Returns:
            The record as stored.

        Raises:
            AlreadyExists: Another user owns the record.

        Cost:
            1 round trip on the primary key; locks the row.
        """
        record = await self._repository.put(
            tenant_id=tenant_id,
            kind=kind,
            id=id,
            data=data,
            user_id=unset_if_any(user_id),
        )
        if record is None:
            raise AlreadyExists("another user owns the record")
        return record

    @validated
    async def merge(
        self,
        kind: Id,
        id: Id,
        patch: JsonObject,
        *,
        tenant_id: Id,
        user_id: OrAny[UserId] = ANY,
    ) -> Record:
        """Merge an object into the data of a record, which is created if it does not exist.

        This is a merge patch (RFC 7396): members of the patch are set, objects are merged, and None
        removes a member. Concurrent patches of different members all count.

        Args:
            kind: The kind of the record.
            patch: The members to set and to remove.
            user_id: The owner. ANY: a new record has no owner, an existing one keeps its owner.

        Returns:
            The record with the merged data.

        Raises:
            AlreadyExists: Another user owns the record.
            InvalidInput: The merged data would exceed `Settings.max_json_bytes`. Nothing changed.

        Cost:
            1 round trip on the primary key, 1 more before an error; locks the row. Linear in the
            size of the data and of the patch.
        """
        owner = unset_if_any(user_id)
        record = await self._repository.put(
            tenant_id=tenant_id,
            kind=kind,
            id=id,
            data=patch,
            user_id=owner,
            max_merged_bytes=self._settings.max_json_bytes,
        )
        if record is not None:
            return record
        if owner is not UNSET and not await self._repository.get_many(
            tenant_id=tenant_id, kind=kind, ids=[id], user_id=owner
        ):
            raise AlreadyExists("another user owns the record")
        raise oversized_merge("patch", self._settings)

    @validated
    async def get(self, kind: Id, id: Id, *, tenant_id: Id, user_id: OrAny[UserId] = ANY) -> Record:
        """Return a record.

        Args:
            kind: The kind of the record.
            user_id: The owner. ANY: any owner.

        Returns:
            The record.

        Raises:
            NotFound: The tenant has no such record, or another user owns it.

        Cost:
            1 round trip on the primary key, no locks.
        """
        records = await self._repository.get_many(
            tenant_id=tenant_id, kind=kind, ids=[id], user_id=unset_if_any(user_id)
        )
        return row_or_not_found(records[0] if records else None, "record")

    @validated
    async def get_many(
        self, kind: Id, ids: Ids, *, tenant_id: Id, user_id: OrAny[UserId] = ANY
    ) -> list[Record]:
        """Return records in the order of their ids, without those that do not exist.

        Args:
            kind: The kind of the records.
            ids: At most `Settings.max_batch_size` ids. A repeated id is returned again.
            user_id: Only records of this owner; ANY for all owners.

        Returns:
            The records that exist.

        Cost:
            1 round trip on the primary key, no locks.
        """
        return await self._repository.get_many(
            tenant_id=tenant_id, kind=kind, ids=ids, user_id=unset_if_any(user_id)
        )

    @validated
    async def delete(self, kind: Id, id: Id, *, tenant_id: Id, user_id: OrAny[UserId] = ANY) -> int:
        """Delete a record.

        Args:
            kind: The kind of the record.
            user_id: The owner. ANY: any owner.

        Returns:
            1, or 0 if the record does not exist or another user owns it.

        Cost:
            1 round trip on the primary key; locks the row.
        """
        return await self._repository.delete(
            tenant_id=tenant_id, kind=kind, id=id, user_id=unset_if_any(user_id)
        )

    @validated
    async def list(
        self,
        kind: Id,
        *,
        tenant_id: Id,
        user_id: OrAny[UserId] = ANY,
        after: Cursor | None = None,
        limit: PageSize = 100,
    ) -> Page[Record]:
        """Return one page of the records of a kind, in the order of their ids.

        Ids are compared byte by byte, so pages neither overlap nor skip a record.

        Args:
            kind: The kind of the records.
            user_id: Only records of this owner; ANY for all owners.
            after: The `next` of the previous page, with the same conditions.
            limit: At most `Settings.max_page_size`.

        Returns:
            The page, with the cursor `next`. Its `total` is None.

        Raises:
            InvalidInput: A value is out of range, or the cursor belongs to other conditions.

        Cost:
            1 round trip, no locks. Reads the rows of the page from the primary key or from the
            index on owners.
        """
        owner = unset_if_any(user_id)
        filters = cursors.fingerprint(
            {"order": "records", "tenant_id": tenant_id, "kind": kind, "user_id": owner}
        )
        position = None if after is None else cursors.decode_cursor(after, filters, self._settings)
        records = await self._repository.get_list(
            tenant_id=tenant_id,
            kind=kind,
            user_id=owner,
            after_id=UNSET if position is None else position.id,
            limit=limit + 1,
        )
        following = cursors.next_cursor(
            records, limit, lambda record: Position(record.created_at, record.id), filters
        )
        return Page(total=None, items=records[:limit], next=following)
