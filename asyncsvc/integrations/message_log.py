"""The messages of one conversation as a framework writes and reads them.

The adapters that store the history of a conversation share this module. They convert the items of
their framework to messages and back.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from copy import copy
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypedDict

from asyncsvc import AlreadyExists, NewConversation, NotFound, Usage
from asyncsvc.integrations.extras import require_services

if TYPE_CHECKING:
    from pydantic import JsonValue

    from asyncsvc import Appended, Services, StoredMessage

_MAX_USAGES: Final = 32
_COUNTERS: Final = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "requests",
)
_ZERO: Final = Decimal(0)
_MAX_UTF8_BYTES_OF_NFC: Final = 12
"""The most bytes of UTF-8 that NFC can make of one character."""


class Owner(TypedDict):
    """The condition of each statement."""

    tenant_id: str
    user_id: str


class MessageLog:
    """The messages of a conversation, each with an item of a framework in its payload.

    Any number of logs, tasks and processes can use one conversation at a time.
    """

    def __init__(
        self,
        id: str,
        svc: Services,
        *,
        tenant_id: str,
        dialog_id: str,
        user_id: str = "",
        token_id: str | None = None,
    ) -> None:
        """Use the conversation with this id. No statement runs before the first call.

        Args:
            id: The id of the conversation. The first append creates it.
            svc: The services, also those of a transaction.
            tenant_id: The tenant. Another tenant's conversation with this id is another one.
            dialog_id: The dialog of a new conversation, for example the name of the agent.
            user_id: The end user. A conversation of another user has no messages, and raises
                NotFound when it is written.
            token_id: The API token to which the usage is attributed.

        Raises:
            InvalidInput: An argument has another type.
        """
        self.svc = require_services(svc)
        self.id = id
        self._owner: Owner = {"tenant_id": tenant_id, "user_id": user_id}
        self._new = NewConversation(id=id, dialog_id=dialog_id, user_id=user_id)
        self._token_id = token_id

    async def read(
        self,
        newest: int | None,
        *,
        is_item: Callable[[dict[str, JsonValue]], bool],
        item: Callable[[StoredMessage], Any],
    ) -> list[Any]:
        """Return the items of all or of the newest messages, oldest first. 1 round trip.

        Args:
            newest: The number of items; None for all.
            is_item: Whether a payload is an item.
            item: Returns the item of a message, also of one whose payload is none: another program
                may have appended it. Then the messages are read too.
        """
        try:
            payloads = await self.svc.conversations.payloads(self.id, **self._owner, last=newest)
        except NotFound:
            return []
        if all(map(is_item, payloads)):
            return payloads
        return [item(each) for each in await self._messages(len(payloads))]

    async def _messages(self, newest: int) -> list[StoredMessage]:
        conversations = self.svc.conversations
        if newest <= self.svc.settings.max_page_size:
            return await conversations.messages(self.id, **self._owner, last=newest)
        messages = [each async for each in conversations.iter_messages(self.id, **self._owner)]
        return messages[-newest:]

    async def append(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tokens: int = 0,
        usage: Sequence[Usage] = (),
        rounds: int = 0,
    ) -> None:
        """Append messages as one turn, all of them or none. 1 round trip for up to 1,000.

        Messages whose ids the conversation has are appended without their ids.

        Args:
            messages: The fields of `Message`.
            tokens: The language model tokens to count, if only their number is known.
            usage: The usage to count. Of more than 32, those of the same model are summed first; of
                more than 32 models only the number of tokens is counted.
            rounds: The rounds to count.
        """
        size = self.svc.settings.max_batch_size
        counts: dict[str, object] = {"round": rounds, "tokens": tokens}
        if len(usage) > _MAX_USAGES:
            usage = _sum_by_model(usage)
        if len(usage) > _MAX_USAGES:
            counts["tokens"] = sum(each.tokens for each in usage)
        elif usage:
            counts["usage"] = usage
        if len(messages) <= size:
            await self._append(self.svc, messages, counts)
            return
        async with self.svc.transaction() as tx:
            await self._append(tx, messages[:size], counts)
            for start in range(size, len(messages), size):
                await self._append(tx, messages[start : start + size], {"round": 0})

    async def _append(
        self,
        svc: Services,
        messages: Sequence[Mapping[str, object]],
        counts: Mapping[str, object],
    ) -> Appended:
        turn = {"token_id": self._token_id, **counts}
        append = partial(svc.conversations.append_message, self.id, **self._owner, create=self._new)
        try:
            return await append(turn=turn | {"messages": messages})
        except AlreadyExists:
            without_ids = [dict(each, id=None) for each in messages]
            return await append(turn=turn | {"messages": without_ids})

    async def pop(self) -> StoredMessage | None:
        """Delete and return the newest message; None if there is none. 1 round trip."""
        try:
            return await self.svc.conversations.pop_message(self.id, **self._owner)
        except NotFound:
            return None

    async def newest(self, count: int) -> list[StoredMessage]:
        """Return the newest messages, oldest first. 1 round trip for up to 1,000."""
        try:
            return await self._messages(count)
        except NotFound:
            return []

    async def replace(
        self,
        old: list[StoredMessage],
        messages: Sequence[Mapping[str, object]],
        *,
        is_expired: Callable[[StoredMessage], bool] | None = None,
    ) -> bool:
        """Replace the newest messages in one transaction, unless they have changed.

        6 round trips. With `is_expired` 2 more, and 1 more for each 8 MiB of expired messages.

        Args:
            old: The newest messages: 1 or more of those that `newest` returned, fewer than
                `Settings.max_page_size`.
            messages: The fields of the messages that take their place.
            is_expired: Says of the oldest messages which to delete too, until it says no.

        Returns:
            Whether the messages were replaced.
        """
        after = old[0].seq - 1
        async with self.svc.transaction() as tx:
            read, clear = tx.conversations.messages, tx.conversations.clear_messages
            # It deletes nothing, but it locks the conversation until the end of the transaction.
            await clear(self.id, **self._owner, after=after, before=after + 1)
            try:
                current = await read(self.id, **self._owner, after=after, limit=len(old) + 1)
            except NotFound:
                return False
            if current != old:
                return False
            await clear(self.id, **self._owner, after=after)
            if is_expired is not None:
                await self._clear_expired(tx, is_expired)
            if messages:
                await self._append(tx, messages, {"round": 0})
        return True

    async def _clear_expired(
        self, tx: Services, is_expired: Callable[[StoredMessage], bool]
    ) -> None:
        """Delete the oldest messages until one is not expired."""
        last = 0
        async with aclosing(tx.conversations.iter_messages(self.id, **self._owner)) as messages:
            async for message in messages:
                if not is_expired(message):
                    break
                last = message.seq
        if last:
            clear = tx.conversations.clear_messages
            await clear(self.id, **self._owner, before=last + 1)

    async def replace_all(self, messages: Sequence[Mapping[str, object]]) -> None:
        """Delete all messages and append others, in one transaction. 4 round trips."""
        async with self.svc.transaction() as tx:
            log = copy(self)
            log.svc = tx
            await log.clear()
            if messages:
                await log.append(messages)

    async def clear(self) -> None:
        """Delete all messages. The conversation and its usage stay. 1 round trip."""
        await self.svc.conversations.clear_messages(self.id, **self._owner)

    def searchable(self, text: str) -> str:
        """Return as much of a text as the content of a message may have. The payload has all."""
        return searchable(text, self.svc.settings.max_message_bytes)


def searchable(text: str, max_bytes: int) -> str:
    """Return as much of a text as fits into the content of a message."""
    if len(text) * _MAX_UTF8_BYTES_OF_NFC <= max_bytes:
        return text
    stored = unicodedata.normalize("NFC", text[:max_bytes])
    return stored.encode(errors="replace")[:max_bytes].decode(errors="ignore")


def _sum_by_model(usages: Sequence[Usage]) -> list[Usage]:
    """Return one usage of each model, and one of its requests without a cost."""
    groups = dict[tuple[str | None, bool], list[Usage]]()
    for each in usages:
        groups.setdefault((each.model, each.cost is None), []).append(each)
    return [
        Usage(
            **{name: sum(getattr(each, name) for each in group) for name in _COUNTERS},
            cost=None if is_unpriced else sum((each.cost or _ZERO for each in group), _ZERO),
            model=model,
        )
        for (model, is_unpriced), group in groups.items()
    ]
