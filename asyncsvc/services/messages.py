"""Changes of the messages of a conversation: append, put, edit, rate, delete."""

from __future__ import annotations

from functools import partial

from asyncsvc.errors import (
    AlreadyExists,
    Conflict,
    IdempotencyConflict,
    InvalidInput,
    NotFound,
    StaleSequence,
)
from asyncsvc.models import (
    Appended,
    Message,
    MessagePatch,
    ModelLike,
    NewConversation,
    StoredMessage,
    Turn,
    as_model,
    microseconds,
)
from asyncsvc.repositories.conversation_rows import AppendRejection, ConversationRow
from asyncsvc.services.common import (
    ConversationServiceBase,
    oversized_merge,
    row_or_not_found,
    row_to_create,
    unset_if_any,
)
from asyncsvc.services.idempotency import hash_of_turn
from asyncsvc.threads import run_apart
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.json_values import stored_size
from asyncsvc.validation.types import (
    ANY,
    MAX_DURATION,
    MAX_INT,
    MAX_TOKENS,
    UNSET,
    Id,
    IdempotencyKey,
    JsonObject,
    MessageBound,
    MessageKey,
    OrAny,
    OrUnset,
    Seq,
    Thumb,
    UnsetType,
    UserId,
)

_APPEND_ATTEMPTS = 3
_PUT_ATTEMPTS = 2
_ID_EXISTS = "the conversation has a message with this id"


class ConversationMessages(ConversationServiceBase):
    """Changes of the messages of a conversation: append, put, edit, rate, delete."""

    @validated
    async def append_message(
        self,
        id: Id,
        turn: ModelLike[Turn],
        *,
        tenant_id: Id,
        idempotency_key: IdempotencyKey | None = None,
        expected_seq: Seq | None = None,
        create: ModelLike[NewConversation] | None = None,
        user_id: OrAny[UserId] = ANY,
    ) -> Appended:
        """Append the messages of a turn and update the conversation's counters, atomically.

        Args:
            turn: The messages and their usage, as a model or an equal mapping.
            idempotency_key: A key for this turn. A second call with the same key and turn returns
                the result of the first and appends nothing. With a key the library retries the
                append after a lost connection, and a caller can repeat a call whose outcome is
                unknown, for example a cancelled one. The key is stored for
                `Settings.key_lifetime`. Without a key the library never retries.
            expected_seq: Append only if this is the `last_seq` of the conversation. A replay
                ignores it.
            create: The conversation to create if the tenant has none with this id, as a model or an
                equal mapping. Its `id` is None or this id. An existing conversation keeps its
                columns. A conversation that was appended to is not created again: with an
                `expected_seq` other than 0 a missing one is NotFound.
            user_id: Only if the conversation belongs to this user, who must be that of `create`.

        Returns:
            The position of the messages and the rounds of the conversation.

        Raises:
            NotFound: The tenant has no conversation with this id, and `create` is None or
                `expected_seq` is greater than 0; or the conversation is another user's.
            IdempotencyConflict: The key was used for another turn.
            AlreadyExists: The conversation has a message with the id of a message of the turn.
            StaleSequence: `last_seq` is not `expected_seq`.
            InvalidInput: A counter of the conversation would exceed its maximum: `last_seq` and
                `round` 2**31 - 1, `tokens` 2**63 - 1, `duration` 9 * 10**12. Or a merge would
                store more than `Settings.max_json_bytes`.
            Conflict: The conversation kept changing during 3 attempts.

        Cost:
            1 round trip, also if it creates the conversation; 2 if it replays or raises; 3 if
            another call has created the conversation meanwhile; at most 6 in a race. Locks the
            conversation row until the end of the transaction. The cost does not depend on the
            length of the conversation.
        """
        turn = as_model(Turn, turn)
        new = None
        if create is not None:
            new = row_to_create("create", as_model(NewConversation, create), id, user_id)
        if expected_seq not in {None, 0}:
            new = None
        body_hash = None
        if idempotency_key is not None:
            body_hash = await run_apart(partial(hash_of_turn, turn), turn)
        for _ in range(_APPEND_ATTEMPTS):
            appended = await self._repository.append_message(
                tenant_id=tenant_id,
                id=id,
                turn=turn,
                expected_seq=UNSET if expected_seq is None else expected_seq,
                idempotency_key=UNSET if idempotency_key is None else idempotency_key,
                body_hash=UNSET if body_hash is None else body_hash,
                create=UNSET if new is None else new,
                user_id=unset_if_any(user_id),
                max_json_bytes=self._settings.max_json_bytes,
            )
            if appended is None:
                appended = await self._replay_or_raise(
                    tenant_id=tenant_id,
                    id=id,
                    turn=turn,
                    expected_seq=expected_seq,
                    idempotency_key=idempotency_key,
                    body_hash=body_hash,
                    new=new,
                    user_id=unset_if_any(user_id),
                )
            if appended is not None:
                return appended
        raise Conflict("the conversation kept changing; try again")

    async def _check_first_merges(self, turn: Turn, new: ConversationRow) -> None:
        """Raise InvalidInput if the merges of a turn can be too large for a new conversation."""
        for column, value, patch in (
            ("metadata", new.columns.metadata, turn.merge_metadata),
            ("dsl", new.columns.dsl, turn.merge_dsl),
        ):
            if value is None or patch is UNSET:
                continue
            size = await run_apart(partial(stored_size, [value, patch]), value, patch)
            if size > self._settings.max_json_bytes:
                raise oversized_merge(f"turn.merge_{column}", self._settings)

    async def _replay_or_raise(
        self,
        *,
        tenant_id: str,
        id: str,
        turn: Turn,
        expected_seq: int | None,
        idempotency_key: str | None,
        body_hash: bytes | None,
        new: ConversationRow | None,
        user_id: str | UnsetType,
    ) -> Appended | None:
        """Return the replay of a keyed append, or raise why an append changed no row.

        None: the reason no longer holds, since another call created, changed or deleted the
        conversation.
        """
        rejection = await self._repository.explain_append(
            tenant_id=tenant_id,
            id=id,
            turn=turn,
            idempotency_key=idempotency_key,
            user_id=user_id,
        )
        if rejection is None and new is not None:
            await self._check_first_merges(turn, new)
            return None
        rejection = row_or_not_found(rejection, "conversation")
        if not rejection.is_of_user:
            raise NotFound("conversation")
        if rejection.replay is not None:
            if rejection.body_hash != body_hash:
                raise IdempotencyConflict("the idempotency key was used for another turn")
            return rejection.replay
        if rejection.has_ids:
            raise AlreadyExists(_ID_EXISTS)
        if expected_seq not in {None, rejection.current_seq}:
            raise StaleSequence(
                f"expected_seq is {expected_seq}, but last_seq is {rejection.current_seq}"
            )
        _check_counters(turn, rejection)
        for column, size in (("metadata", rejection.metadata_bytes), ("dsl", rejection.dsl_bytes)):
            if size is not None and size > self._settings.max_json_bytes:
                raise oversized_merge(f"turn.merge_{column}", self._settings)
        return None

    @validated
    async def put_message(
        self,
        id: Id,
        message: ModelLike[Message],
        *,
        tenant_id: Id,
        patch: ModelLike[MessagePatch] | None = None,
        create: ModelLike[NewConversation] | None = None,
        user_id: OrAny[UserId] = ANY,
    ) -> StoredMessage:
        """Store a message under its own id: replace it, or append it if the conversation lacks it.

        An existing message keeps `seq` and `thumb`, and its `created_at` unless the new one has a
        time. A new message adds no round and no usage. `updated_at` of the conversation is set.

        Args:
            message: The message with its `id`, as a model or an equal mapping.
            patch: The columns to set or to merge if the message exists, in place of its
                replacement. So concurrent calls that each know a part of it lose nothing.
            create: The conversation to create if the tenant has none with this id. Its `id` is None
                or this id. An existing conversation keeps its columns.
            user_id: Only if the conversation belongs to this user, who must be that of `create`.

        Returns:
            The message as stored.

        Raises:
            NotFound: The tenant has no conversation with this id and `create` is None, or the
                conversation is another user's.
            InvalidInput: The message has no id, or `last_seq` of the conversation is 2**31 - 1, or
                a merge would store more than `Settings.max_json_bytes`.
            Conflict: The conversation kept changing during 2 attempts.

        Cost:
            1 round trip on the primary keys and the index of ids; 1 more if another call has
            created or deleted the conversation meanwhile, or if with `create` it is another user's.
            Locks the conversation row, then the message, until the end of the transaction.
        """
        message = as_model(Message, message)
        if message.id is None:
            raise InvalidInput("message.id", "must be an id")
        changes = UNSET if patch is None else as_model(MessagePatch, patch)
        condition = unset_if_any(user_id)
        new: ConversationRow | UnsetType = UNSET
        if create is not None:
            new = row_to_create("create", as_model(NewConversation, create), id, user_id)
        for _ in range(1 if new is UNSET else _PUT_ATTEMPTS):
            stored = await self._messages.put(
                tenant_id=tenant_id,
                id=id,
                message=message,
                patch=changes,
                create=new,
                user_id=condition,
                max_json_bytes=self._settings.max_json_bytes,
            )
            if stored == "oversized":
                raise oversized_merge("patch.merge_payload", self._settings)
            if stored == "full":
                raise InvalidInput("message", "exceeds what the conversation can still count")
            if stored is not None:
                return stored
        if new is not UNSET and user_id is ANY:
            raise Conflict("the conversation kept changing; try again")
        raise NotFound("conversation")

    @validated
    async def set_feedback(
        self,
        id: Id,
        message: MessageKey,
        thumb: Thumb | None,
        *,
        tenant_id: Id,
        merge_payload: OrUnset[JsonObject] = UNSET,
        user_id: OrAny[UserId] = ANY,
    ) -> StoredMessage:
        """Set or remove the feedback of a message.

        The counters of the conversation change accordingly, also under concurrent calls. Its
        `updated_at` does not change.

        Args:
            message: The `seq` of the message, or its own id.
            thumb: 1 is positive, -1 is negative, None removes the feedback.
            merge_payload: A merge patch (RFC 7396) of the payload, for example with the comment of
                the user. UNSET: it does not change.
            user_id: Only if the conversation belongs to this user.

        Returns:
            The message after the update.

        Raises:
            NotFound: The conversation has no such message.
            InvalidInput: A merge would store more than `Settings.max_json_bytes`.

        Cost:
            1 round trip on the primary keys; locks the conversation row, then the message. A merge
            costs linear time in the stored value.
        """
        rated = await self._messages.set_feedback(
            tenant_id=tenant_id,
            id=id,
            message=message,
            thumb=thumb,
            merge_payload=merge_payload,
            user_id=unset_if_any(user_id),
            max_json_bytes=self._settings.max_json_bytes,
        )
        if isinstance(rated, str):
            raise oversized_merge("merge_payload", self._settings)
        return row_or_not_found(rated, "message")

    @validated
    async def update_message(
        self,
        id: Id,
        message: MessageKey,
        patch: ModelLike[MessagePatch],
        *,
        tenant_id: Id,
        user_id: OrAny[UserId] = ANY,
    ) -> StoredMessage:
        """Set or merge columns of a message, and set `updated_at` of its conversation.

        Args:
            message: The `seq` of the message, or its own id.
            patch: The columns to set or to merge, as a model or an equal mapping.
            user_id: Only if the conversation belongs to this user.

        Returns:
            The message after the update.

        Raises:
            NotFound: The conversation has no such message.
            InvalidInput: A merge would store more than `Settings.max_json_bytes`.

        Cost:
            1 round trip on the primary keys; locks the conversation row, then the message. A merge
            costs linear time in the stored value.
        """
        updated = await self._messages.update(
            tenant_id=tenant_id,
            id=id,
            message=message,
            patch=as_model(MessagePatch, patch),
            user_id=unset_if_any(user_id),
            max_json_bytes=self._settings.max_json_bytes,
        )
        if isinstance(updated, str):
            raise oversized_merge("patch.merge_payload", self._settings)
        return row_or_not_found(updated, "message")

    @validated
    async def delete_message(
        self, id: Id, message: MessageKey, *, tenant_id: Id, user_id: OrAny[UserId] = ANY
    ) -> int:
        """Delete a message and withdraw its feedback from the counters.

        Its `seq` is not used again.

        Args:
            message: The `seq` of the message, or its own id.
            user_id: Only if the conversation belongs to this user.

        Returns:
            1, or 0 if the message does not exist.

        Cost:
            1 round trip on the primary keys; locks the conversation row, then the message.
        """
        deleted = await self._messages.delete(
            tenant_id=tenant_id, id=id, message=message, user_id=unset_if_any(user_id)
        )
        return 0 if deleted is None else deleted.count

    @validated
    async def pop_message(
        self, id: Id, *, tenant_id: Id, user_id: OrAny[UserId] = ANY
    ) -> StoredMessage | None:
        """Delete the newest message and withdraw its feedback from the counters.

        2 concurrent calls delete 2 messages.

        Args:
            user_id: Only if the conversation belongs to this user.

        Returns:
            The deleted message, or None if the conversation has no messages.

        Raises:
            NotFound: The tenant has no conversation with this id.

        Cost:
            1 round trip on the primary keys; locks the conversation row, then the message.
        """
        deleted = await self._messages.delete(
            tenant_id=tenant_id, id=id, newest=True, user_id=unset_if_any(user_id)
        )
        return row_or_not_found(deleted, "conversation").newest

    @validated
    async def clear_messages(
        self,
        id: Id,
        *,
        tenant_id: Id,
        user_id: OrAny[UserId] = ANY,
        after: MessageBound | None = None,
        before: MessageBound | None = None,
    ) -> int:
        """Delete all messages of a conversation and withdraw their feedback from the counters.

        Args:
            user_id: Only if the conversation belongs to this user.
            after: Exclusive lower bound: a `seq`, the own id of a message, or an aware datetime. A
                time compares with `created_at`.
            before: Exclusive upper bound, like `after`.

        Returns:
            The number of deleted messages; 0 also if the conversation does not exist.

        Raises:
            NotFound: The conversation exists, and has no message with the id of a bound.

        Cost:
            1 round trip on the primary keys; locks the conversation row, then the messages. A time
            reads all messages within the other bound.
        """
        deleted = await self._messages.delete(
            tenant_id=tenant_id,
            id=id,
            user_id=unset_if_any(user_id),
            after=after,
            before=before,
        )
        return 0 if deleted is None else deleted.count


def _check_counters(turn: Turn, current: AppendRejection) -> None:
    """Raise InvalidInput if the turn would increase a counter beyond its maximum."""
    for field, total, maximum in (
        ("messages", current.current_seq + len(turn.messages), MAX_INT),
        ("round", current.current_round + turn.round, MAX_INT),
        (
            "tokens" if turn.usage is None else "usage",
            current.current_tokens + turn.total_tokens,
            MAX_TOKENS,
        ),
        (
            "duration",
            current.current_duration + microseconds(turn.duration),
            microseconds(MAX_DURATION),
        ),
    ):
        if total > maximum:
            raise InvalidInput(f"turn.{field}", "exceeds what the conversation can still count")
