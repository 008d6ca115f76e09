"""New messages are watched: each commit is reported; an append notifies only a listener."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import asyncpg
import pytest

CHANNEL = "asyncsvc_new_messages"
TURN = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
async def notifications(dsn: str) -> AsyncIterator[asyncio.Queue[str]]:
    """The payloads that a session of its own receives."""
    received = asyncio.Queue[str]()
    connection = await asyncpg.connect(dsn)
    await connection.add_listener(CHANNEL, lambda *arguments: received.put_nowait(arguments[-1]))
    yield received
    await connection.close()


async def received_before(notifications: asyncio.Queue[str], dsn: str) -> list[str]:
    """Return the payloads of all transactions that committed before this call."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"NOTIFY {CHANNEL}, 'end'")
    await connection.close()
    payloads = []
    while (payload := await notifications.get()) != "end":
        payloads.append(payload)
    return payloads


@pytest.mark.parametrize("key", [None, "k"], ids=["without a key", "with a key"])
async def test_an_append_notifies_only_while_its_tenant_is_watched(
    svc, pool, dsn, notifications, key
):
    async def append(tenant_id: str) -> None:
        await svc.conversations.append_message("a", TURN, tenant_id=tenant_id, idempotency_key=key)

    for tenant_id in ("acme", "expired", "nobody"):
        await svc.conversations.create(tenant_id=tenant_id, dialog_id="d", id="a")
    await pool.execute(
        "INSERT INTO asyncsvc.watched_tenant (tenant_id, expires_at)"
        " VALUES ('acme', statement_timestamp() + interval '1 hour'),"
        " ('expired', statement_timestamp())"
    )
    await append("nobody")
    await append("expired")
    assert await received_before(notifications, dsn) == []
    await append("acme")
    assert await received_before(notifications, dsn) == [hashlib.sha256(b"acme").hexdigest()]
