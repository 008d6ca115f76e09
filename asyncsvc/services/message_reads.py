"""Reads of the messages of a conversation: pages, iterations, single messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Final

from pydantic import JsonValue

from asyncsvc.errors import InvalidInput
from asyncsvc.models import FoundMessage, StoredMessage
from asyncsvc.repositories.message import MESSAGES, PAYLOADS
from asyncsvc.repositories.message_rows import MessageBounds
from asyncsvc.services.common import ConversationServiceBase, row_or_not_found, unset_if_any
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.types import (
    ANY,
    UNSET,
    AnyType,
    Count,
    Id,
    MessageBound,
    MessageKey,
    OrAny,
    PageSize,
    UserId,
)

_CHUNK_BYTES: Final = 2**20


class ConversationMessageReads(ConversationServiceBase):
    """Reads of the messages of a conversation."""

    @validated
    async def messages(
        self,
        id: Id,
        *,
        tenant_id: Id,
        after: MessageBound | None = None,
        before: MessageBound | None = None,
        last: PageSize | None = None,
        limit: PageSize = 100,
        user_id: OrAny[UserId] = ANY,
    ) -> list[StoredMessage]:
        """Return the first `limit` or the `last` messages of a conversation, in order of `seq`.

        For the next page, pass the last `seq` of this page as `after`. For the previous page, pass
        the first `seq` of this page as `before`, with `last`.

        Args:
            after: Exclusive lower bound: a `seq`, the own id of a message, or an aware datetime. A
                time selects messages by their `created_at`.
            before: Exclusive upper bound, like `after`.
            last: Return at most this number of messages, the last within the bounds. None: the
                first `limit` messages. At most `Settings.max_page_size`.
            limit: Maximum number of messages without `last`. At most `Settings.max_page_size`.
            user_id: Only if the conversation belongs to this user.

        Returns:
            The messages, the lowest `seq` first.

        Raises:
            NotFound: The tenant has no conversation with this id, or the conversation has no
                message with the id of a bound ("message").

        Cost:
            1 round trip on the primary key, no locks. The cost grows with the number of returned
            messages, not with the length of the conversation. With a time it also reads the
            messages outside of the bounds that come first in the order.
        """
        return await self._messages.get_list(
            tenant_id=tenant_id,
            id=id,
            user_id=unset_if_any(user_id),
            after=after,
            before=before,
            limit=limit if last is None else last,
            part="first" if last is None else "last",
            returning=MESSAGES,
        )

    async def iter_messages(
        self,
        id: str,
        *,
        tenant_id: str,
        after: int | str | datetime | None = None,
        before: int | str | datetime | None = None,
        user_id: str | AnyType = ANY,
    ) -> AsyncGenerator[StoredMessage]:
        """Iterate over the messages of a conversation of any length, in order of `seq`.

        Messages that are appended after the first step are not returned.

        Args:
            after: Exclusive lower bound: a `seq`, the own id of a message, or an aware datetime. A
                time selects messages by their `created_at`.
            before: Exclusive upper bound, like `after`.
            user_id: Only if the conversation belongs to this user.

        Returns:
            The messages, the lowest `seq` first.

        Raises:
            InvalidInput: A parameter is invalid. Raised at the first step, like NotFound.
            NotFound: The tenant has no conversation with this id, or the conversation has no
                message with the id of a bound ("message").

        Cost:
            1 round trip, and 1 for each MiB of messages or less: the first reads at most 64
            messages, each further one 4 times as many as the one before, up to 5,000. No locks,
            and no connection between them. Memory for 1 MiB and 1 message.
        """
        bounds = await self._bounds(
            id, tenant_id=tenant_id, after=after, before=before, user_id=user_id
        )
        async for chunk in self._messages.chunks(
            tenant_id=tenant_id, id=id, bounds=bounds, max_bytes=_CHUNK_BYTES
        ):
            for message in chunk:
                yield message

    @validated
    async def _bounds(
        self,
        id: Id,
        *,
        tenant_id: Id,
        after: MessageBound | None,
        before: MessageBound | None,
        user_id: OrAny[UserId],
    ) -> MessageBounds:
        """Return the bounds of an iteration. Raises NotFound if one of them does not exist."""
        return await self._messages.get_bounds(
            tenant_id=tenant_id,
            id=id,
            user_id=unset_if_any(user_id),
            after=after,
            before=before,
        )

    @validated
    async def payloads(
        self,
        id: Id,
        *,
        tenant_id: Id,
        user_id: OrAny[UserId] = ANY,
        after: MessageBound | None = None,
        before: MessageBound | None = None,
        last: Count | None = None,
        limit: Count | None = None,
    ) -> list[dict[str, JsonValue]]:
        """Return the payloads of all, the first `limit` or the `last` messages of a conversation.

        For applications that store each message whole in its payload: reading the payloads alone
        takes about a third of the time of `messages`.

        Args:
            user_id: Only a conversation of this user; ANY for every user.
            after: Exclusive lower bound: a `seq`, the own id of a message, or an aware datetime. A
                time selects messages by their `created_at`.
            before: Exclusive upper bound, like `after`.
            last: Return at most this number of payloads, the last within the bounds. 0 reads none.
            limit: Return at most this number of payloads, the first within the bounds. 0 reads
                none. Without `last` and `limit`: all within the bounds.

        Returns:
            The payloads, in the order of `seq`.

        Raises:
            NotFound: The tenant, or the user, has no conversation with this id, or the conversation
                has no message with the id of a bound ("message").
            InvalidInput: A value is out of range, or `last` and `limit` come together.

        Cost:
            1 round trip on the primary key, no locks. The cost and the memory grow with the number
            of returned payloads, which no setting limits. With a time it also reads the messages
            outside of the bounds that come first in the order.
        """
        if last is not None and limit is not None:
            raise InvalidInput("limit", "cannot be combined with last")
        count = limit if last is None else last
        return await self._messages.get_list(
            tenant_id=tenant_id,
            id=id,
            user_id=unset_if_any(user_id),
            after=after,
            before=before,
            limit=UNSET if count is None else count,
            part="first" if last is None else "last",
            returning=PAYLOADS,
        )

    @validated
    async def get_message(
        self, id: Id, message: MessageKey, *, tenant_id: Id, user_id: OrAny[UserId] = ANY
    ) -> StoredMessage:
        """Return one message of a conversation.

        Args:
            message: The `seq` of the message, or its own id.
            user_id: Only if the conversation belongs to this user.

        Returns:
            The message.

        Raises:
            NotFound: The conversation has no such message.

        Cost:
            1 round trip on the primary key or the index of ids, no locks.
        """
        stored = await self._messages.get(
            tenant_id=tenant_id, id=id, message=message, user_id=unset_if_any(user_id)
        )
        return row_or_not_found(stored, "message")

    @validated
    async def find_message(
        self,
        message_id: Id,
        *,
        tenant_id: Id,
        dialog_id: OrAny[Id] = ANY,
        user_id: OrAny[UserId] = ANY,
    ) -> FoundMessage:
        """Return the message with an own id, and its conversation.

        If several conversations have a message with this id, it returns the message with the latest
        `created_at`.

        Args:
            message_id: The own id of the message.
            dialog_id: Only in conversations of this dialog.
            user_id: Only in conversations of this user.

        Returns:
            The message, and the conversation without its messages.

        Raises:
            NotFound: There is no such message.

        Cost:
            1 round trip on the index of ids, no locks. The cost grows with the number of
            conversations of the tenant that have a message with this id.
        """
        newest = await self._messages.find(
            tenant_id=tenant_id,
            message_id=message_id,
            dialog_id=unset_if_any(dialog_id),
            user_id=unset_if_any(user_id),
        )
        return row_or_not_found(newest, "message")
