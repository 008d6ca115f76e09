"""The base of the data layer of Chainlit: its constructor, and the users."""

from __future__ import annotations

import unicodedata
import uuid
from typing import TYPE_CHECKING, Any, Final

from chainlit.data.base import BaseDataLayer
from chainlit.user import PersistedUser

from asyncsvc import InvalidInput, NewConversation, NotFound
from asyncsvc.integrations.chainlit import items
from asyncsvc.integrations.extras import require_services

if TYPE_CHECKING:
    from chainlit.data.storage_clients.base import BaseStorageClient
    from chainlit.user import User

    from asyncsvc import Record, Services

_USERS: Final = "chainlit-user"
"""The kind of the records of users, each with the id and the identifier of a user."""
_USER_IDS: Final = uuid.UUID("4b8e1c53-6d0f-4c6b-9b34-0f2a5e7d91c8")
"""The namespace of the ids of users."""


class UserStore(BaseDataLayer):
    """The part of the data layer that stores users."""

    def __init__(
        self,
        svc: Services,
        *,
        tenant_id: str,
        dialog_id: str,
        token_id: str | None = None,
        storage_client: BaseStorageClient | None = None,
    ) -> None:
        """Use the conversations of a dialog. No statement runs before the first call.

        Args:
            svc: The services. The application closes them, not `close`.
            tenant_id: The tenant. Another tenant's thread with the same id is another one.
            dialog_id: The dialog of the threads, for example the name of the application.
            token_id: The API token to which the usage is attributed.
            storage_client: The files of elements. None: only the data of elements is stored.
        """
        self._svc = require_services(svc)
        self._tenant_id = tenant_id
        self._dialog_id = dialog_id
        self._new = NewConversation(dialog_id=dialog_id)
        self._token_id = token_id
        self._storage = storage_client

    async def get_user(self, identifier: str) -> PersistedUser | None:
        """Return a user; None if there is none. 1 round trip."""
        id, tenant_id = user_id_of(identifier), self._tenant_id
        try:
            return _user(await self._svc.records.get(_USERS, id, tenant_id=tenant_id))
        except NotFound:
            return None

    async def create_user(self, user: User) -> PersistedUser | None:
        """Store a user, or replace the metadata and the name of an existing one. 1 round trip."""
        data = {"metadata": user.metadata, "display_name": user.display_name}
        return _user(
            await self._svc.records.put(
                _USERS,
                user_id_of(user.identifier),
                data,
                tenant_id=self._tenant_id,
                user_id=user.identifier,
            )
        )

    async def _identifier(self, user_id: str) -> str:
        """Return the identifier of a user. An unknown id is an identifier itself."""
        try:
            return (await self._svc.records.get(_USERS, user_id, tenant_id=self._tenant_id)).user_id
        except (InvalidInput, NotFound):
            return user_id


def user_id_of(identifier: str) -> str:
    """Return the id of the user with this identifier: a UUID, as in Chainlit's own stores."""
    return str(uuid.uuid5(_USER_IDS, ascii(unicodedata.normalize("NFC", identifier))))


def _user(record: Record) -> PersistedUser:
    data: dict[str, Any] = dict(record.data)
    return PersistedUser(
        id=record.id, identifier=record.user_id, createdAt=items.iso(record.created_at), **data
    )
