"""The statements of `sql/conversation`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from asyncsvc.database import build_model, build_models, build_value, build_values
from asyncsvc.models import (
    Appended,
    Conversation,
    ConversationName,
    ConversationPatch,
    DialogSummary,
    StoredMessage,
    Turn,
    microseconds,
)
from asyncsvc.models.columns import Timestamp
from asyncsvc.repositories.base import KeyedRepository, columns_to_set, to_json, to_json_apart
from asyncsvc.repositories.conversation_rows import (
    AppendRejection,
    ConversationExtension,
    ConversationRow,
    CreatedConversation,
    DeletedBatch,
    ExpiredConversation,
    ExportPage,
    ExtendedConversation,
    LockedBatch,
    OversizedMergeError,
    columns_to_create,
)
from asyncsvc.repositories.large_rows import build_conversation, build_rows
from asyncsvc.repositories.message import MessageRepository
from asyncsvc.repositories.message_rows import MessageBounds
from asyncsvc.repositories.query import WHOLE, Include, ListFilter, Order, PageSlice, list_flags
from asyncsvc.repositories.session import SessionRepository
from asyncsvc.repositories.usage_rows import usages_by_id_to_json, usages_to_json
from asyncsvc.threads import run_apart
from asyncsvc.validation.cursors import Position
from asyncsvc.validation.types import UNSET, AgeBy, UnsetType

if TYPE_CHECKING:
    from asyncsvc.database import Executor

_MERGES: Final = ("merge_metadata", "merge_dsl")


Created = TypeVar("Created", Conversation, CreatedConversation)
T = TypeVar("T")


class ConversationRepository(KeyedRepository[Conversation, ConversationPatch]):
    """The statements on conversations, and the append to a conversation."""

    folder = "conversation"

    def __init__(self, executor: Executor) -> None:
        """Run the statements on this executor."""
        super().__init__(executor)
        self._messages = MessageRepository(executor)

    async def create_many(
        self,
        *,
        tenant_id: str,
        conversations: Sequence[ConversationRow],
        returning: type[Created],
        is_imported: bool = False,
    ) -> list[Created]:
        """Create conversations; return the created ones. Existing ids are skipped."""
        rows = await self._rows(
            "create_many",
            *(["full_row"] if returning is Conversation else []),
            tenant_id=tenant_id,
            conversations=await to_json_apart([columns_to_create(each) for each in conversations]),
            is_imported=is_imported,
            usages=usages_by_id_to_json({each.id: each.usages for each in conversations}),
        )
        return await build_rows(returning, rows)

    async def get_by_ids(
        self,
        *,
        tenant_id: str,
        ids: Sequence[str],
        include: Include = WHOLE,
        user_id: str | UnsetType = UNSET,
    ) -> list[Conversation]:
        """Return the conversations that exist, in the order of the ids."""
        if include.messages:
            return await SessionRepository(self._executor).get_by_ids(
                build_conversation,
                tenant_id=tenant_id,
                ids=ids,
                include_dsl=include.dsl,
                user_id=user_id,
            )
        rows = await self._rows(
            "get_by_ids",
            *(["one"] if len(ids) == 1 else []),
            tenant_id=tenant_id,
            ids=ids,
            user_id=user_id,
            include_dsl=include.dsl,
        )
        return await build_rows(Conversation, rows)

    async def get_list(
        self, where: ListFilter, *, order: Order, page: PageSlice, include_dsl: bool
    ) -> tuple[int, list[Conversation]] | None:
        """Return the total and one page of the conversations of a tenant or a dialog.

        None if the conversation `page.after_id` does not exist.
        """
        rows = await self._rows(
            "get_list",
            *order.flags,
            *list_flags(where, order, page),
            **where.conditions(),
            after_at=UNSET if page.after is None else page.after.at,
            after_id=UNSET if page.after is None else page.after.id,
            anchor_id=page.after_id,
            limit=page.limit,
            offset=page.offset or UNSET,
            count_limit=UNSET if page.count_limit == 0 else page.count_limit,
            include_dsl=include_dsl,
        )
        if not rows and page.after_id is not UNSET:
            return None
        total = build_value(int, rows[0], "total") if rows else 0
        if rows and rows[0]["id"] is None:  # only the total
            return total, []
        return total, await build_rows(Conversation, rows)

    async def list_dialogs(
        self, *, tenant_id: str, after_id: str | UnsetType, limit: int
    ) -> list[DialogSummary]:
        """Return the dialogs after an id that have conversations, in the order of their ids."""
        rows = await self._rows("list_dialogs", tenant_id=tenant_id, after_id=after_id, limit=limit)
        return build_models(DialogSummary, rows)

    async def get_names(
        self, *, tenant_id: str, dialog_id: str | UnsetType, exp_user_id: str, limit: int
    ) -> list[ConversationName]:
        """Return id and name of a person's conversations, newest first."""
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
        created_at: datetime | UnsetType = UNSET,
        user_id: str | UnsetType = UNSET,
        create: ConversationRow | UnsetType = UNSET,
        max_json_bytes: int | UnsetType = UNSET,
    ) -> Appended | None:
        """Append a turn; None if no row changed. The key and the hash are passed together.

        `create` is stored if there is no conversation of this id; its counters are ignored.
        `max_json_bytes` limits what a merge of the turn stores.
        """
        messages = turn.messages
        json_values = [turn.dsl, *((each.payload, each.reference) for each in messages)]
        payloads, references, dsl = await run_apart(partial(_json_columns, turn), json_values)
        merges = await _merges(turn)
        rows = await self._append(
            "append_message",
            *(["merges"] if merges else []),
            tenant_id=tenant_id,
            id=id,
            expected_seq=expected_seq,
            created_at=created_at,
            user_id=user_id,
            idempotency_key=idempotency_key,
            body_hash=body_hash,
            roles=[message.role for message in messages],
            contents=[message.content for message in messages],
            payloads=payloads,
            references=references,
            message_ids=_unless_empty([message.id for message in messages]),
            message_times=_unless_empty([message.created_at for message in messages]),
            round=turn.round,
            tokens=turn.total_tokens,
            duration=microseconds(turn.duration),
            errors=turn.errors,
            dsl=dsl,
            **merges,
            max_json_bytes=max_json_bytes if merges else UNSET,
            token_id=UNSET if turn.token_id is None else turn.token_id,
            acting_user_id=UNSET if turn.user_id is None else turn.user_id,
            usages=usages_to_json(turn.usages),
            conversation=UNSET
            if create is UNSET
            else await to_json_apart(columns_to_create(create)),
        )
        return build_model(Appended, rows[0]) if rows else None

    async def extend(
        self, *, tenant_id: str, id: str, expected_seq: int, extension: ConversationExtension
    ) -> ExtendedConversation | None:
        """Set columns; None if the conversation does not exist or has another last_seq."""
        metadata = extension.metadata
        rows = await self._rows(
            "extend",
            tenant_id=tenant_id,
            id=id,
            expected_seq=expected_seq,
            last_seq=extension.last_seq,
            round=extension.round,
            tokens=extension.tokens,
            duration=microseconds(extension.duration),
            thumb_up=extension.thumb_up,
            thumb_down=extension.thumb_down,
            updated_at=extension.updated_at,
            name=extension.name,
            metadata=UNSET if metadata is UNSET else await to_json_apart(metadata),
            keep_seq=extension.keep_seq,
        )
        return build_model(ExtendedConversation, rows[0]) if rows else None

    async def explain_append(
        self,
        *,
        tenant_id: str,
        id: str,
        turn: Turn,
        idempotency_key: str | None,
        user_id: str | UnsetType,
    ) -> AppendRejection | None:
        """Return why an append changed no row; None if the conversation does not exist."""
        rows = await self._rows(
            "explain_append",
            tenant_id=tenant_id,
            id=id,
            message_ids=_unless_empty([message.id for message in turn.messages]),
            idempotency_key=idempotency_key,
            user_id=user_id,
            **await _merges(turn),
        )
        if not rows:
            return None
        values = dict(rows[0].items())
        if values["body_hash"] is not None:
            values["replay"] = {**values, "replayed": True}
        return build_model(AppendRejection, values)

    async def update_many_by_id(
        self,
        *,
        tenant_id: str,
        patches: Mapping[str, ConversationPatch],
        user_id: str | UnsetType = UNSET,
        create: ConversationRow | UnsetType = UNSET,
        max_json_bytes: int | UnsetType = UNSET,
    ) -> list[Conversation]:
        """Set columns of conversations, by id; return the changed conversations.

        `create` is stored if the conversation of the only patch does not exist.

        Raises OversizedMergeError if a merge would store more than `max_json_bytes`.
        """
        columns = {id: columns_to_set(patch) for id, patch in patches.items()}
        merges = any(each.keys() & {*_MERGES} for each in columns.values())
        rows = await self._rows(
            "update_many_by_id",
            *(["merges"] if merges else []),
            tenant_id=tenant_id,
            patches=await to_json_apart(columns),
            user_id=user_id,
            conversation=UNSET
            if create is UNSET
            else await to_json_apart(columns_to_create(create)),
            max_json_bytes=max_json_bytes if merges else UNSET,
        )
        if merges and rows and rows[0]["oversized_id"] is not None:
            raise OversizedMergeError(
                build_value(str, rows[0], "oversized_id"),
                build_value(str, rows[0], "oversized_column"),
            )
        return await build_rows(Conversation, rows)

    async def find_expired(
        self,
        *,
        tenant_id: str,
        dialog_id: str | UnsetType,
        user_id: str | UnsetType,
        by: AgeBy,
        before: datetime,
        after: ExpiredConversation | None,
        batch_size: int,
        max_messages: int,
        count_messages: bool,
    ) -> list[ExpiredConversation]:
        """Return the next conversations that were created or last updated before an instant."""
        rows = await self._rows(
            "find_expired",
            f"by_{by}",
            *(["count_messages"] if count_messages else []),
            tenant_id=tenant_id,
            dialog_id=dialog_id,
            user_id=user_id,
            before=before,
            after_dialog_id=UNSET if after is None else after.dialog_id,
            after_at=UNSET if after is None else after.at,
            after_id=UNSET if after is None else after.id,
            batch_size=batch_size,
            max_messages=max_messages,
        )
        return build_models(ExpiredConversation, rows)

    async def lock(
        self,
        *,
        tenant_id: str,
        user_id: str | UnsetType,
        batch_size: int,
        max_messages: int,
    ) -> LockedBatch:
        """Lock a batch of the conversations of a tenant, or of a user in it."""
        (row,) = await self._rows(
            "lock",
            tenant_id=tenant_id,
            user_id=user_id,
            batch_size=batch_size,
            max_messages=max_messages,
        )
        return build_model(LockedBatch, row)

    async def delete(
        self,
        *,
        tenant_id: str,
        ids: Sequence[str] | UnsetType = UNSET,
        dialog_ids: Sequence[str] | UnsetType = UNSET,
        dialog_id: str | UnsetType = UNSET,
        user_id: str | UnsetType = UNSET,
        by: AgeBy = "updated_at",
        before: datetime | UnsetType = UNSET,
        batch_size: int | UnsetType = UNSET,
        max_messages: int | UnsetType = UNSET,
        count_messages: bool = False,
        count_append_keys: bool = False,
    ) -> DeletedBatch:
        """Delete conversations by id, or one batch of the conversations of dialogs.

        Raises TypeError unless exactly one of `ids` and `dialog_ids` is passed.

        All conditions are checked under the lock. With `before`, locked conversations are skipped.
        """
        if (ids is UNSET) == (dialog_ids is UNSET):
            raise TypeError("exactly one of ids and dialog_ids")
        (row,) = await self._rows(
            "delete",
            *([f"by_{by}"] if before is not UNSET else []),
            *(["count_messages"] if count_messages else []),
            *(["count_append_keys"] if count_append_keys else []),
            tenant_id=tenant_id,
            ids=ids,
            dialog_ids=dialog_ids,
            dialog_id=dialog_id,
            user_id=user_id,
            before=before,
            batch_size=batch_size,
            max_messages=max_messages,
        )
        return build_model(DeletedBatch, row)

    async def export(
        self,
        *,
        tenant_id: str,
        dialog_id: str | UnsetType,
        user_id: str | UnsetType,
        after: Position | None,
        batch_size: int,
        max_messages: int,
        max_bytes: int,
        split: bool,
    ) -> ExportPage:
        """Return the next conversations with their messages.

        With `split` one whose messages have more than `max_bytes` is returned without them.
        """
        is_by_id = dialog_id is UNSET and user_id is UNSET
        rows = await self._rows(
            "export",
            "by_id" if is_by_id else "by_created_at",
            tenant_id=tenant_id,
            dialog_id=dialog_id,
            user_id=user_id,
            after_id=UNSET if after is None else after.id,
            after_at=UNSET if after is None or is_by_id else after.at,
            batch_size=batch_size,
            max_messages=max_messages,
            max_bytes=max_bytes,
        )
        if not rows:
            return ExportPage([], None, None)
        ids, last = build_values(str, rows, "id"), rows[-1]
        position = Position(build_value(Timestamp, last, "created_at"), ids[-1])
        long = None
        if split and build_value(bool, last, "is_long"):
            long = next(iter(await self.get_by_ids(tenant_id=tenant_id, ids=[ids.pop()])), None)
        whole = await self.get_by_ids(tenant_id=tenant_id, ids=ids, include=Include(messages=True))
        return ExportPage(whole, long, position)

    def messages(
        self, conversation: Conversation, max_bytes: int
    ) -> AsyncGenerator[list[StoredMessage]]:
        """Iterate over the messages of a conversation, in chunks of about so many bytes."""
        return self._messages.chunks(
            tenant_id=conversation.tenant_id,
            id=conversation.id,
            bounds=MessageBounds(after_seq=0, last_seq=conversation.last_seq),
            max_bytes=max_bytes,
        )


def _unless_empty(values: list[T | None]) -> list[T | None] | UnsetType:
    """Return the values, or UNSET if all are None."""
    return UNSET if all(value is None for value in values) else values


def _json_columns(
    turn: Turn,
) -> tuple[list[str | None], list[str | None], str | UnsetType | None]:
    """Return the payloads, the references and the dsl of a turn as JSON."""
    payloads = [to_json(message.payload) for message in turn.messages]
    references = [to_json(message.reference) for message in turn.messages]
    return payloads, references, UNSET if turn.dsl is UNSET else to_json(turn.dsl)


async def _merges(turn: Turn) -> dict[str, str | None]:
    """Return the merge patches of a turn as JSON, by parameter."""
    if turn.merge_metadata is turn.merge_dsl is UNSET:  # almost always
        return {}
    patches = {name: getattr(turn, name) for name in _MERGES}
    return {
        name: await to_json_apart(patch) for name, patch in patches.items() if patch is not UNSET
    }
