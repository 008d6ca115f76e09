"""Use the asyncpg pool that the application has."""

import asyncio
import os

import asyncpg

import asyncsvc

DSN = os.environ["ASYNCSVC_DSN"]


async def main() -> None:
    async with asyncpg.create_pool(DSN, min_size=0, max_size=5) as pool:
        svc = asyncsvc.AsyncSvc(pool)  # borrows the pool: it neither closes nor configures it
        chat = await svc.conversations.create(tenant_id="acme", dialog_id="support", user_id="ann")
        print(chat.dialog_id, chat.last_seq)
        # > support 0
        print(await pool.fetchval("SELECT 'the pool still serves the application'"))
        # > the pool still serves the application


if __name__ == "__main__":
    asyncio.run(main())
