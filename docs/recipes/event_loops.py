"""One pool belongs to one event loop: keep a loop for all calls of a script or a notebook."""

import asyncio
import os

import asyncsvc
from asyncsvc import ConcurrentUse

DSN = os.environ["ASYNCSVC_DSN"]


def main() -> None:
    with asyncio.Runner() as runner:  # one loop for several calls
        svc = runner.run(open_services())
        chat = runner.run(svc.conversations.create(tenant_id="acme", dialog_id="support"))
        try:
            asyncio.run(svc.conversations.get_by_id(chat.id, tenant_id="acme"))  # a second loop
        except ConcurrentUse as error:
            print(type(error).__name__)
            # > ConcurrentUse
        page = runner.run(svc.conversations.get_list(tenant_id="acme"))
        print(page.total, "conversation")
        # > 1 conversation
        runner.run(svc.close())


async def open_services() -> asyncsvc.AsyncSvc:
    """Open a pool. The caller closes it."""
    return await asyncsvc.connect(DSN)


if __name__ == "__main__":
    main()
