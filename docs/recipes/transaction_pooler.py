"""Connect through PgBouncer in transaction mode."""

import asyncio
import os

import asyncpg

import asyncsvc
from asyncsvc import Message, Settings, Turn

DSN = os.environ["ASYNCSVC_PGBOUNCER_DSN"]
SETTINGS = Settings(pgbouncer="transaction")  # prepares no statement, and sets no session parameter


async def main() -> None:
    async with asyncsvc.connect(DSN, settings=SETTINGS) as svc:
        chat = await svc.conversations.create(tenant_id="acme", dialog_id="support")
        turn = Turn(messages=[Message(role="user", content="Hello")])
        await svc.conversations.append_message(chat.id, turn, tenant_id="acme")

    # A pool of the application needs the same.
    async with asyncpg.create_pool(DSN, min_size=0, statement_cache_size=0) as pool:
        svc = asyncsvc.AsyncSvc(pool, settings=SETTINGS)
        messages = await svc.conversations.messages(chat.id, tenant_id="acme")
        print(messages[0].content)
        # > Hello


if __name__ == "__main__":
    asyncio.run(main())
