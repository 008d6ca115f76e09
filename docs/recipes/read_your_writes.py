"""Read from replicas, but never an older state than the caller has written."""

import asyncio
import os

import asyncsvc
from asyncsvc import Settings

DSN = os.environ["ASYNCSVC_DSN"]
REPLICAS = os.environ.get("ASYNCSVC_REPLICAS", "").split()


async def create(svc: asyncsvc.AsyncSvc) -> str:
    """Create a conversation, and return the position of the primary after it."""
    await svc.conversations.create(tenant_id="acme", dialog_id="support", user_id="ann")
    return await svc.position()  # a short text: send it to the client, for example in a cookie


async def list_all(svc: asyncsvc.AsyncSvc, position: str | None) -> int | None:
    """Count the conversations, of which the client has seen the state at `position`."""
    reader = svc if position is None else svc.at_least(position)
    page = await reader.conversations.get_list(tenant_id="acme", dialog_id="support")
    return page.total


async def main() -> None:
    settings = Settings(replica_lag=5)  # without a position: at most 5 s old
    async with asyncsvc.connect(DSN, replicas=REPLICAS, settings=settings) as svc:
        cookie = await create(svc)
        print("conversations:", await list_all(svc, cookie))
        # > conversations: 1


if __name__ == "__main__":
    asyncio.run(main())
