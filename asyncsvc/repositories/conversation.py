"""The statements of `sql/conversation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from asyncsvc.models import (
    Appended,
    Conversation,
    ConversationName,
    ConversationPatch,
    Turn,
    microseconds,
)
from asyncsvc.repositories.base import (
    Repository,
    build_model,
    build_models,
    columns_to_set,
    to_json,
)
from asyncsvc.repositories.query import Include, ListFilter, Order, PageSlice
from asyncsvc.validation.types import UNSET, AgeBy, UnsetType


class AppendRejection(NamedTuple):
    """The state of a conversation and an idempotency key after an append that changed no row."""

    current_seq: int
    """The `last_seq` of the conversation."""
    body_hash: bytes | None
    """The hash of the turn that was appended under the key."""
    replay: Appended | None
    """The result of the append under the key."""


class Batch(NamedTuple):
    """What one round of a deletion found, and how many of it it deleted."""

    found: int
    deleted: int


class Old(NamedTuple):
    """A conversation that a purge may delete, and where its walk goes on."""

    id: str
    dialog_id: str
    at: datetime
    messages: int


class Purged(NamedTuple):
    """What one batch of a purge deleted."""

    conversations: int
    messages: int


class Erased(NamedTuple):
    """What one batch of an erasure found and deleted, and when."""

    found: int
    conversations: int
    messages: int
    append_keys: int
    at: datetime


_WHOLE_DIALOG: Final = frozenset({"tenant_id", "dialog_id"})


class ConversationRepository(Repository):
    """The statements on conversations, and the append to a conversation."""

    folder = "conversation"

    async def create_many(
        self, *, tenant_id: str, records: Sequence[Mapping[str, object]]
    ) -> list[Conversation]:
        """Store new conversations; return those whose ids were free."""
        rows = await self._rows("create_many", tenant_id=tenant_id, records=to_json(records))
        return build_models(Conversation, rows)

    async def get_by_ids(
        self, *, tenant_id: str, ids: Sequence[str], include: Include
    ) -> list[Conversation]:
        """Return the conversations that exist, in the order of the ids."""
        rows = await self._rows(
            "get_by_ids",
            tenant_id=tenant_id,
            ids=ids,
            include_dsl=include.dsl,
            include_messages=include.messages,
        )
        return build_models(Conversation, rows)

    async def get_list(
        self, where: ListFilter, *, order: Order, page: PageSlice, include: Include
    ) -> tuple[int, list[Conversation]]:
        """Return the total and one page of a dialog's conversations."""
        conditions = where.conditions()
        # Usage has the total of a whole dialog, so no conversation is counted.
        is_counted_by_usage = page.count_limit != 0 and conditions.keys() == _WHOLE_DIALOG
        rows = await self._rows(
            "get_list",
            *order.flags,
            *(["unfiltered"] if is_counted_by_usage else []),
            **conditions,
            after_at=UNSET if page.after is None else page.after.at,
            after_id=UNSET if page.after is None else page.after.id,
            limit=page.limit,
            offset=page.offset,
            count_limit=page.count_limit,
            include_dsl=include.dsl,
            include_messages=include.messages,
        )
        items = build_models(Conversation, (row for row in rows if row["id"] is not None))
        return rows[0]["total"], items

    async def get_names(
        self, *, tenant_id: str, dialog_id: str, exp_user_id: str, limit: int
    ) -> list[ConversationName]:
        """Return id and name of a person's conversations in a dialog, newest first."""
        rows = await self._rows(
            "get_names",
            tenant_id=tenant_id,
            dialog_id=dialog_id,
            exp_user_id=exp_user_id,
            limit=limit,
        )
        return build_models(ConversationName, rows)

    async def append_message(
        self,
        *,
        tenant_id: str,
        id: str,
        turn: Turn,
        expected_seq: int | UnsetType,
        idempotency_key: str | UnsetType,
        body_hash: bytes | UnsetType,
    ) -> Appended | None:
        """Append a turn; None if no row changed. The key and the hash are passed together."""
        messages = turn.messages
        rows = await self._rows(
            "append_message",
            tenant_id=tenant_id,
            id=id,
            expected_seq=expected_seq,
            idempotency_key=idempotency_key,
            body_hash=body_hash,
            roles=[message.role for message in messages],
            contents=[message.content for message in messages],
            payloads=[to_json(message.payload) for message in messages],
            references=[to_json(message.reference) for message in messages],
            round=turn.round,
            tokens=turn.tokens,
            duration=microseconds(turn.duration),
            errors=turn.errors,
            dsl=UNSET if turn.dsl is UNSET else to_json(turn.dsl),
            token_id=turn.token_id,
        )
        return build_model(Appended, rows[0]) if rows else None

    async def explain_append(
        self, *, tenant_id: str, id: str, idempotency_key: str | None
    ) -> AppendRejection | None:
        """Return why an append changed no row; None if the conversation does not exist."""
        rows = await self._rows(
            "explain_append", tenant_id=tenant_id, id=id, idempotency_key=idempotency_key
        )
        if not rows:
            return None
        row = rows[0]
        if row["body_hash"] is None:
            return AppendRejection(row["current_seq"], None, None)
        replay = Appended(
            first_seq=row["first_seq"],
            last_seq=row["last_seq"],
            round=row["round"],
            replayed=True,
        )
        return AppendRejection(row["current_seq"], row["body_hash"], replay)

    async def update_many_by_id(
        self, *, tenant_id: str, patches: Mapping[str, ConversationPatch]
    ) -> list[Conversation]:
        """Set columns of conversations, by id; return the changed conversations."""
        columns = {id: columns_to_set(patch) for id, patch in patches.items()}
        rows = await self._rows("update_many_by_id", tenant_id=tenant_id, patches=to_json(columns))
        return build_models(Conversation, rows)

    async def delete_by_ids(self, *, tenant_id: str, ids: Sequence[str]) -> int:
        """Delete conversations; return how many there were."""
        return await self._count("delete_by_ids", tenant_id=tenant_id, ids=ids)

    async def delete_by_dialog_ids(
        self, *, tenant_id: str, dialog_ids: Sequence[str], batch: int
    ) -> Batch:
        """Delete one batch of these dialogs' conversations."""
        (row,) = await self._rows(
            "delete_by_dialog_ids", tenant_id=tenant_id, dialog_ids=dialog_ids, batch=batch
        )
        return Batch(**row)

    async def erase_user(
        self, *, tenant_id: str, user_id: str, limit: int, most_messages: int
    ) -> Erased:
        """Delete one batch of a person's conversations."""
        (row,) = await self._rows(
            "erase_user",
            tenant_id=tenant_id,
            user_id=user_id,
            limit=limit,
            most_messages=most_messages,
        )
        return Erased(**row)

    async def find_old(
        self,
        *,
        by: AgeBy,
        tenant_id: str,
        dialog_id: str | UnsetType,
        before: datetime,
        after: Old | None,
        limit: int,
        most_messages: int,
        count_messages: bool,
    ) -> list[Old]:
        """Return the next batch of a purge."""
        rows = await self._rows(
            "find_old",
            f"by_{by}",
            tenant_id=tenant_id,
            dialog_id=dialog_id,
            before=before,
            after_dialog_id=UNSET if after is None else after.dialog_id,
            after_at=UNSET if after is None else after.at,
            after_id=UNSET if after is None else after.id,
            limit=limit,
            most_messages=most_messages,
            count_messages=count_messages,
        )
        return [Old(**row) for row in rows]

    async def delete_old(
        self, *, by: AgeBy, tenant_id: str, ids: Sequence[str], before: datetime
    ) -> Purged:
        """Delete one batch of a purge."""
        (row,) = await self._rows(
            "delete_old",
            tenant_id=tenant_id,
            ids=ids,
            before=before,
            by_updated_at=by == "updated_at",
        )
        return Purged(**row)

    async def load(
        self, *, tenant_id: str, records: Sequence[Mapping[str, object]]
    ) -> dict[str, datetime]:
        """Store conversations with their counters; return the creation of those that are new."""
        rows = await self._rows("load", tenant_id=tenant_id, records=to_json(records))
        return {row["id"]: row["created_at"] for row in rows}

    async def export(
        self,
        *,
        tenant_id: str,
        dialog_id: str | UnsetType,
        user_id: str | UnsetType,
        after: Conversation | None,
        limit: int,
        most_messages: int,
        most_bytes: int,
    ) -> list[Conversation]:
        """Return the next conversations, whole."""
        of_tenant = dialog_id is UNSET and user_id is UNSET
        rows = await self._rows(
            "export",
            "by_id" if of_tenant else "by_created",
            tenant_id=tenant_id,
            dialog_id=dialog_id,
            user_id=user_id,
            after_id=UNSET if after is None else after.id,
            after_at=UNSET if after is None or of_tenant else after.created_at,
            limit=limit,
            most_messages=most_messages,
            most_bytes=most_bytes,
        )
        return build_models(Conversation, rows)
