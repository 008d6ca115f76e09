"""The session stores of agent frameworks, and the library with the same operations.

The frameworks are of the dependency group `contenders`. One that is not installed is left out.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import AsyncIterator
from importlib import metadata
from typing import Final, Protocol, TypeAlias, runtime_checkable

import asyncsvc
from benchmarks.bench import Bench
from benchmarks.contenders.library import Library, connect
from benchmarks.server import connected, sql

Texts: TypeAlias = list[tuple[str, str]]
FRAMEWORKS: Final = {
    "OpenAI Agents": ("agents", "openai-agents"),
    "ADK": ("adk", "google-adk"),
    "Chainlit": ("chainlit", "chainlit"),
    "ChatKit": ("chatkit", "openai-chatkit"),
}
"""The frameworks by name: the module here, and the distribution."""
_MAX_SESSIONS: Final = 1_000
"""More sessions than a user has."""


class Sessions(Protocol):
    """The sessions of a tenant's users."""

    async def append(self, user_id: str, id: str, /) -> object:
        """Append the turn of `benchmarks.data` to a session."""

    async def whole(self, user_id: str, id: str, /) -> Texts:
        """Return all messages of a session."""


@runtime_checkable
class HasLast(Protocol):
    """Sessions that return their last messages alone."""

    async def last(self, user_id: str, id: str, count: int, /) -> Texts:
        """Return the last messages of a session."""


@runtime_checkable
class HasItems(Protocol):
    """Sessions whose first message can be read and replaced by its id."""

    async def first(self, user_id: str, id: str, /) -> tuple[str, str]:
        """Return the first message."""

    async def save_first(self, user_id: str, id: str, /) -> object:
        """Replace the first message by another text."""


@runtime_checkable
class HasStates(Protocol):
    """Sessions with states, which are created before their first message."""

    async def set_state(self, user_id: str, id: str, /) -> object:
        """Append a message that changes the state of the session."""

    async def set_all_states(self, user_id: str, id: str, /) -> object:
        """Append a message that changes the states of session, user and app."""

    async def create(self, user_id: str, id: str, /) -> object:
        """Create another session of the user."""


@runtime_checkable
class HasLists(Protocol):
    """Sessions that can be listed."""

    async def of_user(self, user_id: str, /) -> list[str]:
        """Return the ids of all sessions of a user, the latest first."""


class Framework(Protocol):
    """An opened store of a framework."""

    schema: str
    """The schema of its tables."""

    def of_tenant(self, tenant_id: str) -> Sessions:
        """Return the sessions of a tenant."""


class LibrarySessions:
    """The conversations of a tenant, each with its user."""

    def __init__(self, svc: asyncsvc.AsyncSvc, tenant_id: str) -> None:
        """Borrow the services."""
        self._library = Library(svc)
        self._conversations = svc.conversations
        self._tenant_id = tenant_id

    async def append(self, _user_id: str, id: str) -> object:
        """Append the turn."""
        return await self._library.append(self._tenant_id, id)

    async def whole(self, _user_id: str, id: str) -> Texts:
        """Return all messages."""
        return await self._library.messages(self._tenant_id, id)

    async def last(self, _user_id: str, id: str, count: int) -> Texts:
        """Return the last messages."""
        messages = await self._conversations.messages(id, tenant_id=self._tenant_id, last=count)
        return [(each.role, each.content) for each in messages]

    async def of_user(self, user_id: str) -> list[str]:
        """Return the ids of all conversations of a user, the latest first."""
        page = await self._conversations.get_list(
            tenant_id=self._tenant_id,
            user_id=user_id,
            orderby="updated_at",
            items_per_page=_MAX_SESSIONS,
            total="none",
        )
        return [each.id for each in page.items]


class OpenedLibrary:
    """The library on a pool of its own."""

    schema = "asyncsvc"

    def __init__(self, svc: asyncsvc.AsyncSvc) -> None:
        """Borrow the services."""
        self._svc = svc

    def of_tenant(self, tenant_id: str) -> LibrarySessions:
        """Return the conversations of a tenant."""
        return LibrarySessions(self._svc, tenant_id)


def installed() -> dict[str, str]:
    """Return the versions of the frameworks that are installed, by name."""
    versions = {}
    for name, (_, distribution) in FRAMEWORKS.items():
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(distribution)
    return versions


@contextlib.asynccontextmanager
async def opened(bench: Bench) -> AsyncIterator[dict[str, Framework]]:
    """Open the library and the frameworks that are installed, by name.

    A framework's module with the class `Integrated` compares the integration of the library too.
    """
    async with contextlib.AsyncExitStack() as stack:
        svc = await stack.enter_async_context(connect(bench.dsn))
        await svc.migrate()
        stores: dict[str, Framework] = {"asyncsvc": OpenedLibrary(svc)}
        for name in installed():
            module = importlib.import_module(f"benchmarks.contenders.{FRAMEWORKS[name][0]}")
            async with connected(bench.dsn) as connection:
                await connection.execute(f"CREATE SCHEMA {module.SCHEMA}")
            stores[name] = await stack.enter_async_context(module.opened(bench.dsn))
            if hasattr(module, "Integrated"):
                stores[f"asyncsvc for {name}"] = module.Integrated(svc)
        yield stores


async def copy(bench: Bench, schema: str, tenant_id: str) -> None:
    """Copy the conversations of a tenant from the library's tables into those of a framework."""
    async with connected(bench.dsn, schema) as connection:
        for command in sql(f"fill_{schema}").split(";\n"):
            await connection.execute(command, tenant_id)
        await connection.execute("VACUUM ANALYZE")
