"""`sql/message`."""

from __future__ import annotations

from collections.abc import Mapping

from asyncsvc.fields import UnsetType
from asyncsvc.models import StoredMessage
from asyncsvc.repositories.base import Repository, to_json


class MessageRepository(Repository):
    """The statements about the messages of a conversation, but for the append."""

    folder = "message"

    async def get_list(
        self,
        *,
        tenant_id: str,
        id: str,
        after_seq: int | UnsetType,
        before_seq: int | UnsetType,
        limit: int,
        order: str,
    ) -> list[StoredMessage] | None:
        """Return messages in the order of seq; None when there is no conversation."""
        rows = await self._rows(
            "get_list",
            order,
            tenant_id=tenant_id,
            id=id,
            after_seq=after_seq,
            before_seq=before_seq,
            limit=limit,
        )
        if not rows:
            return None
        return [StoredMessage(**row) for row in rows if row["seq"] is not None]

    async def set_thumb(
        self, *, tenant_id: str, id: str, seq: int, thumb: int | None
    ) -> StoredMessage | None:
        """Set the thumb; None when there is no such message."""
        rows = await self._rows("set_thumb", tenant_id=tenant_id, id=id, seq=seq, thumb=thumb)
        return StoredMessage(**rows[0]) if rows else None

    async def update(
        self, *, tenant_id: str, id: str, seq: int, patch: Mapping[str, object]
    ) -> StoredMessage | None:
        """Set columns; None when there is no such message."""
        rows = await self._rows("update", tenant_id=tenant_id, id=id, seq=seq, patch=to_json(patch))
        return StoredMessage(**rows[0]) if rows else None

    async def delete(self, *, tenant_id: str, id: str, seq: int) -> int:
        """Delete one message; return how many there were."""
        return await self._count("delete", tenant_id=tenant_id, id=id, seq=seq)

    async def clear(self, *, tenant_id: str, id: str) -> int:
        """Delete all messages; return how many there were."""
        return await self._count("clear", tenant_id=tenant_id, id=id)

    async def pop(self, *, tenant_id: str, id: str) -> list[StoredMessage] | None:
        """Take the last message off: a list of it, or of none; None without a conversation."""
        rows = await self._rows("pop", tenant_id=tenant_id, id=id)
        if not rows:
            return None
        return [StoredMessage(**row) for row in rows if row["seq"] is not None]
