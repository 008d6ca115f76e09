"""Usage without a message: requests that no turn contains, and corrections."""

from __future__ import annotations

from asyncsvc.errors import Conflict, IdempotencyConflict, InvalidInput, NotFound
from asyncsvc.models import ModelLike, UsageAdjustment, UsagesLike, as_model, usages
from asyncsvc.repositories import UsageKeyRepository, UsageRepository
from asyncsvc.services.common import ConversationServiceBase
from asyncsvc.services.idempotency import hash_of_adjustment, hash_of_usage
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.types import Actor, Id, IdempotencyKey, Reason, Source, UserId

_ATTEMPTS = 2


class ConversationUsageRecording(ConversationServiceBase):
    """Usage without a message: requests that no turn contains, and corrections."""

    @validated
    async def record_usage(
        self,
        usage: UsagesLike,
        *,
        tenant_id: Id,
        conversation_id: Id | None = None,
        dialog_id: Id | None = None,
        source: Source | None = None,
        user_id: UserId | None = None,
        token_id: Id | None = None,
        idempotency_key: IdempotencyKey | None = None,
    ) -> bool:
        """Record the usage of requests that no turn contains, at the present time.

        For aborted streams, failed attempts, titles, embeddings, and costs that arrive later.
        Statistics by activity and budgets count it, with 0 rounds. The counters of the conversation
        do not change, and statistics by creation do not count it.

        Args:
            usage: One usage or up to 32, as models or equal mappings.
            conversation_id: The conversation whose dialog, source and user it belongs to.
            dialog_id: The dialog, if there is no conversation. None: the tenant alone.
            source: The source, if there is no conversation.
            user_id: The user who acts. None: that of the conversation, or none.
            token_id: The API token to attribute the usage to.
            idempotency_key: A key for this usage, unique in the tenant. A second call with the same
                key and usage records nothing. With a key the library retries after a lost
                connection. The key is stored for `Settings.key_lifetime`.

        Returns:
            Whether the usage was recorded. False: the key was used for the same usage.

        Raises:
            NotFound: The tenant has no conversation with this id.
            IdempotencyConflict: The key was used for another usage.
            InvalidInput: There is no usage, or a dialog or a source beside a conversation.
            Conflict: The key was deleted meanwhile, twice.

        Cost:
            1 round trip; 2 if it replays or raises. No lock.
        """
        if not usages(usage):
            raise InvalidInput("usage", "must have at least 1 usage")
        if conversation_id is not None and (dialog_id is not None or source is not None):
            name = "source" if dialog_id is None else "dialog_id"
            raise InvalidInput(name, "must not be passed together with conversation_id")
        body_hash = None
        if idempotency_key is not None:
            names = ("record", conversation_id, dialog_id, source, user_id)
            body_hash = hash_of_usage(usages(usage), *names)
        for _ in range(_ATTEMPTS):
            is_recorded = await UsageRepository(self._executor).record(
                tenant_id=tenant_id,
                usages=usages(usage),
                conversation_id=conversation_id,
                dialog_id=dialog_id,
                source=source,
                user_id=user_id,
                token_id=token_id,
                idempotency_key=idempotency_key,
                body_hash=body_hash,
            )
            if is_recorded:
                return True
            if await self._is_replay(tenant_id, idempotency_key, body_hash):
                return False
            if conversation_id is not None:
                raise NotFound("conversation")
        raise Conflict("the idempotency key kept changing; try again")

    @validated
    async def adjust_usage(
        self,
        adjustment: ModelLike[UsageAdjustment],
        *,
        tenant_id: Id,
        actor: Actor,
        reason: Reason,
        dialog_id: Id | None = None,
        source: Source | None = None,
        user_id: UserId | None = None,
        token_id: Id | None = None,
        idempotency_key: IdempotencyKey | None = None,
    ) -> bool:
        """Correct the usage of a tenant, at the present time, with an entry in the audit.

        Statistics by activity and budgets count it now; past windows do not change. The counters of
        conversations do not change.

        Args:
            adjustment: What is added to the counters, as a model or an equal mapping. Negative
                values withdraw.
            actor: The person or program that the audit names.
            reason: The reason that the audit states.
            dialog_id: The dialog that the usage belongs to. None: the tenant alone.
            source: The source.
            user_id: The user.
            token_id: The API token.
            idempotency_key: A key for this correction, unique among those of `record_usage`. A
                second call with the same key and correction changes nothing. With a key the library
                retries after a lost connection.

        Returns:
            Whether the correction was recorded. False: the key was used for the same one.

        Raises:
            IdempotencyConflict: The key was used for another call.
            InvalidInput: The correction changes no counter.
            Conflict: The key was deleted meanwhile, twice.

        Cost:
            1 round trip; 2 if it replays or raises. No lock.
        """
        adjustment = as_model(UsageAdjustment, adjustment)
        if not adjustment.model_dump(exclude={"model"}, exclude_defaults=True):
            raise InvalidInput("adjustment", "must change a counter")
        body_hash = None
        if idempotency_key is not None:
            names = ("adjust", actor, reason, dialog_id, source, user_id)
            body_hash = hash_of_adjustment(adjustment, *names)
        for _ in range(_ATTEMPTS):
            is_recorded = await UsageRepository(self._executor).adjust(
                tenant_id=tenant_id,
                adjustment=adjustment,
                actor=actor,
                reason=reason,
                dialog_id=dialog_id,
                source=source,
                user_id=user_id,
                token_id=token_id,
                idempotency_key=idempotency_key,
                body_hash=body_hash,
            )
            if is_recorded:
                return True
            if await self._is_replay(tenant_id, idempotency_key, body_hash):
                return False
        raise Conflict("the idempotency key kept changing; try again")

    async def _is_replay(self, tenant_id: str, key: str | None, body_hash: bytes | None) -> bool:
        """Return whether a key was used for the same call. Raises if it was used for another."""
        if key is None:
            return False
        stored = await UsageKeyRepository(self._executor).get(tenant_id=tenant_id, key=key)
        if stored not in {None, body_hash}:
            raise IdempotencyConflict("the idempotency key was used for another usage")
        return stored is not None
