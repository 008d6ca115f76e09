"""Give the conversations of an anonymous visitor to the account that the visitor logs into."""

import asyncio
import os

import asyncsvc
from asyncsvc import ConversationPatch

DSN = os.environ["ASYNCSVC_DSN"]


async def log_in(svc: asyncsvc.AsyncSvc, visitor: str, account: str) -> int:
    """Move all conversations of a visitor, batch by batch, and return their number."""
    moved = 0
    while True:
        page = await svc.conversations.get_list(
            tenant_id="acme", user_id=visitor, items_per_page=100, total="none", include_dsl=False
        )
        if not page.items:
            return moved
        patch = ConversationPatch(user_id=account)
        moved += await svc.conversations.update_many_by_id(
            {chat.id: patch for chat in page.items}, tenant_id="acme"
        )


async def main() -> None:
    async with asyncsvc.connect(DSN) as svc:
        for _ in range(3):  # the id of a visitor is random, and in a cookie
            await svc.conversations.create(
                tenant_id="acme", dialog_id="support", user_id="visitor-7f3a"
            )
        print(await log_in(svc, "visitor-7f3a", "ann"), "moved")
        # > 3 moved
        page = await svc.conversations.get_list(tenant_id="acme", user_id="ann")
        print(page.total, "of ann")
        # > 3 of ann


if __name__ == "__main__":
    asyncio.run(main())
