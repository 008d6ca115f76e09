"""Messages of a conversation: append, read, edit, delete."""

from __future__ import annotations

import hashlib
import json
from typing import Final

from asyncsvc.errors import (
    Conflict,
    IdempotencyConflict,
    StaleSequence,
)
from asyncsvc.models import (
    Appended,
    MessagePatch,
    MessagePatchLike,
    StoredMessage,
    Turn,
    TurnLike,
    as_model,
    microseconds,
)
from asyncsvc.services.common import (
    ConversationServiceBase,
    row_or_not_found,
)
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.types import (
    UNSET,
    Id,
    IdempotencyKey,
    PageSize,
    Seq,
    Thumb,
)

_CANONICAL: Final = json.JSONEncoder(sort_keys=True)
_APPEND_ATTEMPTS = 3


class ConversationMessages(ConversationServiceBase):
    """Messages of a conversation: append, read, edit, delete."""

    @validated
    async def messages(
        self,
        id: Id,
        *,
        tenant_id: Id,
        after_seq: Seq | None = None,
        before_seq: Seq | None = None,
        last: PageSize | None = None,
        limit: PageSize = 100,
    ) -> list[StoredMessage]:
        """Return messages in the order of `seq`: the first `limit`, or the `last` so many.

        `after_seq` and `before_seq` bound them and are not included. The page after this one is
        `after_seq=` its last seq; the page before it is `before_seq=` its first seq together with
        `last`, which takes the place of `limit`.

        Raises NotFound without such a conversation. One round trip on the primary key, no locks;
        it costs the messages returned, wherever in the conversation they are.
        """
        messages = await self._messages.get_list(
            tenant_id=tenant_id,
            id=id,
            after_seq=UNSET if after_seq is None else after_seq,
            before_seq=UNSET if before_seq is None else before_seq,
            limit=limit if last is None else last,
            part="first" if last is None else "last",
        )
        return row_or_not_found(messages, "conversation")

    @validated
    async def append_message(
        self,
        id: Id,
        turn: TurnLike,
        *,
        tenant_id: Id,
        idempotency_key: IdempotencyKey | None = None,
        expected_seq: Seq | None = None,
    ) -> Appended:
        """Append the messages of a turn and bump the conversation's counters, all or nothing.

        With an `idempotency_key` a replay of the same turn returns the first answer and adds
        nothing. Pass one: when the connection is lost the append is made again for you, and a call
        whose outcome is unknown all the same (a cancelled task) can be made again. With
        `expected_seq`, the `last_seq` that the caller saw, it only appends when nobody else has
        since; a replay does not mind.

        Raises NotFound; IdempotencyConflict when the key was used for another turn; StaleSequence;
        Conflict when the conversation kept changing. One round trip, two when it raises or replays,
        at most six in a race. A key is remembered for `Settings.key_lifetime`. It locks the
        conversation's row to the end of the transaction; the cost does not depend on the
        conversation's length.
        """
        turn = as_model(Turn, turn)
        body_hash = None if idempotency_key is None else _body_hash(turn)
        for _ in range(_APPEND_ATTEMPTS):
            appended = await self._conversations.append_message(
                tenant_id=tenant_id,
                id=id,
                turn=turn,
                expected_seq=UNSET if expected_seq is None else expected_seq,
                idempotency_key=UNSET if idempotency_key is None else idempotency_key,
                body_hash=UNSET if body_hash is None else body_hash,
            )
            if appended is None:
                appended = await self._replay_or_raise(
                    tenant_id=tenant_id,
                    id=id,
                    expected_seq=expected_seq,
                    idempotency_key=idempotency_key,
                    body_hash=body_hash,
                )
            if appended is not None:
                return appended
        raise Conflict("the conversation kept changing; try again")

    async def _replay_or_raise(
        self,
        *,
        tenant_id: str,
        id: str,
        expected_seq: int | None,
        idempotency_key: str | None,
        body_hash: bytes | None,
    ) -> Appended | None:
        """Return the replay of a keyed append, or raise why an append changed no row.

        None: the reason no longer holds, since the conversation was created or changed meanwhile.
        """
        rejection = row_or_not_found(
            await self._conversations.explain_append(
                tenant_id=tenant_id, id=id, idempotency_key=idempotency_key
            ),
            "conversation",
        )
        if rejection.replay is not None:
            if rejection.body_hash != body_hash:
                raise IdempotencyConflict("the idempotency key was used for another turn")
            return rejection.replay
        if expected_seq not in {None, rejection.current_seq}:
            raise StaleSequence(
                f"expected_seq is {expected_seq}, but last_seq is {rejection.current_seq}"
            )
        return None

    @validated
    async def set_feedback(
        self, id: Id, seq: Seq, thumb: Thumb | None, *, tenant_id: Id
    ) -> StoredMessage:
        """Judge a message with thumb 1 or -1, or withdraw it with None; return the message.

        The conversation's counters follow, also when many judge at once. Its update time stays.

        Raises NotFound. One round trip; locks the conversation's row, then the message's.
        """
        message = await self._messages.set_feedback(
            tenant_id=tenant_id, id=id, seq=seq, thumb=thumb
        )
        return row_or_not_found(message, "message")

    @validated
    async def update_message(
        self, id: Id, seq: Seq, patch: MessagePatchLike, *, tenant_id: Id
    ) -> StoredMessage:
        """Edit a message and return it as it is now; its conversation counts as updated.

        Raises NotFound. One round trip; locks the conversation's row, then the message's.
        """
        message = await self._messages.update(
            tenant_id=tenant_id, id=id, seq=seq, patch=as_model(MessagePatch, patch)
        )
        return row_or_not_found(message, "message")

    @validated
    async def delete_message(self, id: Id, seq: Seq, *, tenant_id: Id) -> int:
        """Delete a message and withdraw its thumb; return 1, or 0 where there was none.

        Its seq is not used again. One round trip; locks the conversation's row, then the
        message's.
        """
        deleted = await self._messages.delete(tenant_id=tenant_id, id=id, seq=seq)
        return 0 if deleted is None else deleted.count

    @validated
    async def pop_message(self, id: Id, *, tenant_id: Id) -> StoredMessage | None:
        """Take the last message off and return it, or None where there is none left.

        Raises NotFound without such a conversation. One round trip; locks the conversation's row,
        then the message's. Two that pop at once get two messages.
        """
        deleted = await self._messages.delete(tenant_id=tenant_id, id=id, newest=True)
        return row_or_not_found(deleted, "conversation").newest

    @validated
    async def clear_messages(self, id: Id, *, tenant_id: Id) -> int:
        """Delete all messages of a conversation, withdraw their thumbs, return how many.

        It is 0 also where there is no such conversation.

        One round trip; locks the conversation's row, then the messages'.
        """
        deleted = await self._messages.delete(tenant_id=tenant_id, id=id)
        return 0 if deleted is None else deleted.count


def _body_hash(turn: Turn) -> bytes:
    """Return the SHA-256 by which a replay is told from another turn under the same key."""
    # Made again with the successor of a rotated token, it is still the same turn.
    messages = [[each.role, each.content, each.reference, each.payload] for each in turn.messages]
    replaced = {
        name: value for name in ("errors", "dsl") if (value := getattr(turn, name)) is not UNSET
    }
    body = [messages, turn.tokens, microseconds(turn.duration), turn.round, replaced]
    return hashlib.sha256(_CANONICAL.encode(body).encode()).digest()
