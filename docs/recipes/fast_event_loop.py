"""Run on uvloop."""

import asyncio
import os

import uvloop

import asyncsvc

DSN = os.environ["ASYNCSVC_DSN"]


async def main() -> None:
    async with asyncsvc.connect(DSN) as svc:
        page = await svc.conversations.get_list(tenant_id="acme")
        print(type(asyncio.get_running_loop()).__module__, page.total)
        # > uvloop 0


if __name__ == "__main__":
    uvloop.run(main())
