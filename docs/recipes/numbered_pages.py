"""Show page 2 of 3, with the number of pages."""

import asyncio
import os

import asyncsvc
from asyncsvc import NewConversation

DSN = os.environ["ASYNCSVC_DSN"]
PAGE_SIZE = 2


async def main() -> None:
    async with asyncsvc.connect(DSN) as svc:
        new = [NewConversation(dialog_id="support", name=f"Chat {number}") for number in range(5)]
        await svc.conversations.create_many(new, tenant_id="acme")

        page = await svc.conversations.get_list(
            tenant_id="acme",
            dialog_id="support",
            page_number=2,
            items_per_page=PAGE_SIZE,
            orderby="name",
            desc=False,
            total="capped",  # counts up to 10,000, so that a large list stays fast
        )
        pages = -(-(page.total or 0) // PAGE_SIZE)
        print([chat.name for chat in page.items], "page 2 of", f"{pages}{'+' * page.total_capped}")
        # > ['Chat 2', 'Chat 3'] page 2 of 3


if __name__ == "__main__":
    asyncio.run(main())
