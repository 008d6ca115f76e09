"""Test an application on the embedded server: one server for the run, a rollback for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

import asyncsvc
from asyncsvc import Message, Turn, embedded


# The fixtures belong into conftest.py.
@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def dsn(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A migrated database on a server of its own."""
    directory: Path = tmp_path_factory.mktemp("postgres")
    # No test survives a crash of the machine, so nothing has to be written to disk.
    async with embedded.running(directory, options={"fsync": "off"}) as server:
        async with asyncsvc.connect(server.dsn) as svc:
            await svc.migrate()
        yield server.dsn


@pytest_asyncio.fixture
async def svc(dsn: str) -> AsyncIterator[asyncsvc.Services]:
    """The services in a transaction that is rolled back: no test sees the rows of another."""
    async with asyncpg.create_pool(dsn, min_size=0) as pool, pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        yield asyncsvc.AsyncSvc(pool).on(connection)
        await transaction.rollback()


async def greet(svc: asyncsvc.Services) -> str:
    """Stand in for a function of the application."""
    chat = await svc.conversations.create(tenant_id="acme", dialog_id="support")
    turn = Turn(messages=[Message(role="assistant", content="Hello")])
    await svc.conversations.append_message(chat.id, turn, tenant_id="acme")
    return chat.id


@pytest.mark.asyncio
async def test_a_greeting_is_stored(svc: asyncsvc.Services) -> None:
    id = await greet(svc)
    (message,) = await svc.conversations.messages(id, tenant_id="acme")
    assert message.content == "Hello"


@pytest.mark.asyncio
async def test_the_database_is_empty_again(svc: asyncsvc.Services) -> None:
    assert (await svc.conversations.get_list(tenant_id="acme")).total == 0
