"""Show conversations page after page, by cursor."""

import asyncio
import os

import asyncsvc
from asyncsvc import NewConversation

DSN = os.environ["ASYNCSVC_DSN"]


async def main() -> None:
    async with asyncsvc.connect(DSN) as svc:
        new = [
            NewConversation(dialog_id="support", user_id="ann", name=f"Chat {number}")
            for number in range(5)
        ]
        await svc.conversations.create_many(new, tenant_id="acme")

        after: str | None = None  # comes from the client, as `?after=...`
        while True:
            page = await svc.conversations.get_list(
                tenant_id="acme",
                user_id="ann",
                items_per_page=2,
                after=after,
                total="none",  # a page by cursor does not need the number of all
                include_dsl=False,
            )
            print(len(page.items), "conversations,", "more" if page.next else "no more")
            if page.next is None:
                break
            after = page.next
        # > 2 conversations, more
        # > 2 conversations, more
        # > 1 conversations, no more


if __name__ == "__main__":
    asyncio.run(main())
