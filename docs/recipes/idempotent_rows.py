"""Apply a request once, with its turn and its row, although the client sends it again."""

import asyncio
import os

import asyncpg

import asyncsvc
from asyncsvc import Message, Turn

DSN = os.environ["ASYNCSVC_DSN"]


async def order(pool: "asyncpg.Pool[asyncpg.Record]", chat_id: str, request_id: str) -> bool:
    """Store an order, and return whether this call stored it."""
    svc = asyncsvc.AsyncSvc(pool)
    turn = Turn(messages=[Message(role="user", content="One pizza, please.")])
    async with pool.acquire() as connection, connection.transaction():
        # The append comes first. It locks the conversation, so a second request with the same key
        # waits here for the commit of the first, and is then a replay.
        appended = await svc.on(connection).conversations.append_message(
            chat_id, turn, tenant_id="acme", idempotency_key=request_id
        )
        if not appended.replayed:
            await connection.execute("INSERT INTO pizza_order VALUES ($1)", chat_id)
        return not appended.replayed


async def main() -> None:
    async with asyncpg.create_pool(DSN, min_size=0) as pool:
        await pool.execute("CREATE TABLE pizza_order (conversation_id text)")
        svc = asyncsvc.AsyncSvc(pool)
        chat = await svc.conversations.create(tenant_id="acme", dialog_id="shop")
        stored = await asyncio.gather(*(order(pool, chat.id, "request-1") for _ in range(3)))
        print("stored by", sum(stored), "of", len(stored), "requests")
        # > stored by 1 of 3 requests
        print("orders:", await pool.fetchval("SELECT count(*) FROM pizza_order"))
        # > orders: 1


if __name__ == "__main__":
    asyncio.run(main())
