"""Run maintenance on a pool of the application, beside its requests."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator

import asyncpg

import asyncsvc
from asyncsvc import AsyncSvcError, Message, Turn

DSN = os.environ["ASYNCSVC_DSN"]


async def maintain_forever(svc: asyncsvc.AsyncSvc, seconds: float) -> None:
    """Roll up usage, index texts and delete expired keys, again and again."""
    while True:
        try:
            await svc.maintain()
        except AsyncSvcError:
            logging.getLogger(__name__).exception("maintenance failed, and is tried again")
        await asyncio.sleep(seconds)


@contextlib.asynccontextmanager
async def maintained(
    svc: asyncsvc.AsyncSvc, *, seconds: float = 60
) -> AsyncGenerator[asyncsvc.AsyncSvc]:
    """Maintain the store while the block runs."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(maintain_forever(svc, seconds))
        try:
            yield svc
        finally:
            task.cancel()  # at any moment: each batch is committed, and a batch is all or nothing


async def main() -> None:
    async with (
        asyncpg.create_pool(DSN, min_size=1) as pool,
        maintained(asyncsvc.AsyncSvc(pool), seconds=0.1) as svc,
    ):
        chat = await svc.conversations.create(tenant_id="acme", dialog_id="support")
        turn = Turn(messages=[Message(role="user", content="Where is my parcel?")])
        await svc.conversations.append_message(chat.id, turn, tenant_id="acme")
        hits = await svc.conversations.search("parcel", tenant_id="acme")
        print(hits.items[0].snippet)
        # > Where is my parcel?


if __name__ == "__main__":
    asyncio.run(main())
