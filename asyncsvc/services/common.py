"""The base classes of the services, and helpers that both services use."""

from __future__ import annotations

import abc
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from asyncsvc.errors import InvalidInput, NotFound, Resource
from asyncsvc.models import (
    Conversation,
    ConversationPatch,
    Model,
    ModelLike,
    NewConversation,
    PatchesById,
    as_model,
)
from asyncsvc.repositories import ConversationRepository, MessageRepository
from asyncsvc.repositories.base import KeyedRepository
from asyncsvc.repositories.conversation_rows import ConversationRow
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.inputs import Input
from asyncsvc.validation.types import ANY, UNSET, AnyType, Id, Ids, UnsetType

if TYPE_CHECKING:
    from asyncsvc.database import Executor
    from asyncsvc.settings import Settings

T = TypeVar("T")
Stored = TypeVar("Stored", bound=Model)
Patch = TypeVar("Patch", bound=Input)
Store = TypeVar("Store", bound=KeyedRepository[Any, Any])


class CommonService(abc.ABC, Generic[Stored, Patch, Store]):
    """The methods that both services share: rows by id. Any number of tasks can use one service.

    A subclass sets the model of its rows, the model of their patches, and the name of a row.
    """

    model: type[Stored]
    """The model of a row."""
    patch_model: type[Patch]
    """The model of the columns that can be set."""
    resource: ClassVar[Resource]
    """The name of a row in `NotFound`."""
    type_arguments: ClassVar[Mapping[str, type]]

    def __init_subclass__(cls) -> None:
        """Bind the type variables of the shared methods."""
        super().__init_subclass__()
        if hasattr(cls, "patch_model"):
            cls.type_arguments = {"Patch": cls.patch_model}

    def __init__(self, executor: Executor, settings: Settings, repository: Store) -> None:
        """Run statements on this executor, within the limits of these settings."""
        self._executor = executor
        self._settings = settings
        self._repository = repository

    @property
    def settings(self) -> Settings:
        """The settings, with the limits that arguments are validated against."""
        return self._settings

    @validated
    async def get_by_id(self, id: Id, *, tenant_id: Id) -> Stored:
        """Return one row.

        Returns:
            The row. A conversation comes without its messages.

        Raises:
            NotFound: The tenant has no row with this id.

        Cost:
            1 round trip on the primary key, no locks.
        """
        return self._first(await self._repository.get_by_ids(tenant_id=tenant_id, ids=[id]))

    @validated
    async def get_by_ids(self, ids: Ids, *, tenant_id: Id) -> list[Stored]:
        """Return rows in the order of their ids, without those that do not exist.

        Args:
            ids: At most `Settings.max_batch_size` ids. A repeated id is returned again.

        Returns:
            The rows. Conversations come without their messages.

        Cost:
            1 round trip on the primary key, no locks.
        """
        rows: list[Stored] = await self._repository.get_by_ids(tenant_id=tenant_id, ids=ids)
        return rows

    @validated
    async def update_by_id(self, id: Id, patch: ModelLike[Patch], *, tenant_id: Id) -> Stored:
        """Set columns of a row.

        Args:
            patch: The columns to set, as a model or an equal mapping.

        Returns:
            The row after the update. A conversation comes without its messages.

        Raises:
            NotFound: The tenant has no row with this id.

        Cost:
            1 round trip; 4 if the patch moves a conversation to another dialog, since its messages
            move too. Locks the row until the end of the transaction.
        """
        return self._first(await self._update({id: as_model(self.patch_model, patch)}, tenant_id))

    @validated
    async def update_many_by_id(self, patches: PatchesById[Patch], *, tenant_id: Id) -> int:
        """Set columns of rows, each by its own patch.

        Args:
            patches: At most `Settings.max_batch_size` patches by id. Ids that do not exist are
                ignored.

        Returns:
            The number of updated rows.

        Cost:
            1 round trip; 4 if a patch moves a conversation to another dialog, since its messages
            move too. Locks the rows in the order of their ids, until the end of the transaction.
        """
        models = {id: as_model(self.patch_model, patch) for id, patch in patches.items()}
        return len(await self._update(models, tenant_id))

    async def _update(self, patches: Mapping[str, Patch], tenant_id: str) -> list[Stored]:
        rows: list[Stored] = await self._repository.update_many_by_id(
            tenant_id=tenant_id, patches=patches
        )
        return rows

    @validated
    async def delete_by_id(self, id: Id, *, tenant_id: Id) -> int:
        """Delete a row; a conversation with its messages.

        Returns:
            1, or 0 if the row does not exist.

        Cost:
            1 round trip; locks the row. The cost grows with the number of messages.
        """
        return await self._delete([id], tenant_id)

    @validated
    async def delete_by_ids(self, ids: Ids, *, tenant_id: Id) -> int:
        """Delete rows in one transaction; conversations with their messages.

        Args:
            ids: At most `Settings.max_batch_size` ids.

        Returns:
            The number of deleted rows.

        Cost:
            1 round trip; locks the rows in the order of their ids. The cost grows with the number
            of messages.
        """
        return await self._delete(ids, tenant_id)

    @abc.abstractmethod
    async def _delete(self, ids: Sequence[str], tenant_id: str) -> int:
        """Delete rows and return their number."""

    def _first(self, rows: list[Stored]) -> Stored:
        """Return the only row. Raises NotFound if there is none."""
        return row_or_not_found(rows[0] if rows else None, self.resource)


class ConversationServiceBase(
    CommonService[Conversation, ConversationPatch, ConversationRepository]
):
    """The base of each concern of the conversation service: the repositories that they share."""

    model = Conversation
    patch_model = ConversationPatch
    resource = "conversation"

    def __init__(self, executor: Executor, settings: Settings) -> None:
        """Run statements on this executor, within the limits of these settings."""
        super().__init__(executor, settings, ConversationRepository(executor))
        self._messages = MessageRepository(executor)


def row_or_not_found(row: T | None, resource: Resource) -> T:
    """Return the row. Raises NotFound if it is None."""
    if row is None:
        raise NotFound(resource)
    return row


def conversation_row(conversation: NewConversation, id: str | None = None) -> ConversationRow:
    """Return the columns of a new conversation: with this id, its own or a new one."""
    return ConversationRow(
        id=id or conversation.id or new_id(),
        columns=conversation,
        created_at=conversation.created_at,
    )


def unset_if_any(condition: T | AnyType) -> T | UnsetType:
    """Return the condition of a filter as repositories take it."""
    return UNSET if condition is ANY else condition


def row_to_create(
    field: str, conversation: NewConversation, id: str, user_id: str | AnyType
) -> ConversationRow:
    """Return the columns of a conversation to create under this id, for this user.

    Raises InvalidInput, by the name of the argument, if it has another id or user.
    """
    if conversation.id not in {None, id}:
        raise InvalidInput(f"{field}.id", "must be None or the id of the call")
    if user_id not in {ANY, conversation.user_id}:
        raise InvalidInput(f"{field}.user_id", "must be the user_id of the call")
    return conversation_row(conversation, id)


def oversized_merge(field: str, settings: Settings) -> InvalidInput:
    """Return the error for a merge whose result exceeds the limit."""
    reason = f"the merged value must be at most {settings.max_json_bytes} bytes of JSON"
    return InvalidInput(field, reason)


def new_id() -> str:
    """Return a new UUID of version 7 (RFC 9562, section 5.7) as 32 hex characters.

    It starts with the time in milliseconds, so that rows of about the same time are neighbours in
    an index. No order depends on it.
    """
    random = int.from_bytes(os.urandom(10), "big")
    milliseconds = time.time_ns() // 1_000_000
    version_7 = milliseconds << 80 | 0x7 << 76 | (random >> 68 & 0xFFF) << 64
    return f"{version_7 | 0b10 << 62 | random & (1 << 62) - 1:032x}"
