"""The states of ADK's apps, users and sessions, as the session service stores them.

The state of a session is in the `dsl` of its conversation. The states of an app and of a user are
records of the kind "google_adk.state", since all sessions share them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from google.adk.sessions import State

from asyncsvc.integrations.packing import pack_id, unwrap_values, wrap_values

if TYPE_CHECKING:
    from asyncsvc import Services

_KIND: Final = "google_adk.state"


class Delta(NamedTuple):
    """The changes of the three states, as stored."""

    app: dict[str, Any]
    user: dict[str, Any]
    session: dict[str, Any]

    @classmethod
    def of(cls, state: Mapping[str, Any] | None) -> Self:
        """Split a state by the prefixes of its keys. Temporary values are not stored."""
        stored = wrap_values(state or {})
        scopes = (State.APP_PREFIX, State.USER_PREFIX, State.TEMP_PREFIX)
        app, user, _ = (
            {
                key.removeprefix(scope): value
                for key, value in stored.items()
                if key.startswith(scope)
            }
            for scope in scopes
        )
        return cls(app, user, {k: v for k, v in stored.items() if not k.startswith(scopes)})


class SharedStates:
    """The states of the apps and users of one tenant."""

    def __init__(self, svc: Services, tenant_id: str) -> None:
        """Read and write through these services."""
        self._svc = svc
        self._tenant_id = tenant_id

    @asynccontextmanager
    async def merging(self, app_name: str, user_id: str, delta: Delta) -> AsyncGenerator[Services]:
        """Yield services for one statement, and merge the changes in its transaction.

        The state of the app comes last, because all users of the app wait for its lock.
        """
        if not delta.app and not delta.user:
            yield self._svc
            return
        async with self._svc.transaction() as tx:
            yield tx
            for id, owner, values in (
                (pack_id(app_name, user_id), user_id, delta.user),
                (pack_id(app_name), "", delta.app),
            ):
                if values:
                    await tx.records.merge(
                        _KIND, id, values, tenant_id=self._tenant_id, user_id=owner
                    )

    async def of_user(self, app_name: str, user_id: str) -> dict[str, Any]:
        """Return the state of a user without the prefix. 1 round trip."""
        id = pack_id(app_name, user_id)
        return (await self._read([id])).get(id, {})

    async def of_users(self, app_name: str, users: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the state of each user with that of the app, by user.

        1 round trip for each `Settings.max_batch_size` users.
        """
        app_id = pack_id(app_name)
        ids = {user: pack_id(app_name, user) for user in users}
        states = await self._read([app_id, *ids.values()])
        app = _prefixed(State.APP_PREFIX, states.get(app_id, {}))
        return {
            user: app | _prefixed(State.USER_PREFIX, states.get(id, {})) for user, id in ids.items()
        }

    async def _read(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        states = dict[str, dict[str, Any]]()
        size = self._svc.settings.max_batch_size
        for start in range(0, len(ids), size):
            records = await self._svc.records.get_many(
                _KIND, ids[start : start + size], tenant_id=self._tenant_id
            )
            states |= {each.id: unwrap_values(each.data) for each in records}
        return states


def _prefixed(scope: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {scope + key: value for key, value in values.items()}
