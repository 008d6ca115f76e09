"""Log slow and failed statements, and count all of them."""

import asyncio
import logging
import os
from collections import Counter

import asyncsvc
from asyncsvc import Settings

DSN = os.environ["ASYNCSVC_DSN"]
SLOW = 0.5  # seconds
log = logging.getLogger("app.sql")
calls: Counter[str] = Counter()


def on_query(name: str, seconds: float, rows: int, error: BaseException | None) -> None:
    """Record a statement by the name of its SQL file. Values and texts are not passed."""
    calls[name] += 1
    if error is not None:
        log.warning("%s failed after %.3f s: %s", name, seconds, type(error).__name__)
    elif seconds > SLOW:
        log.warning("%s took %.3f s for %d rows", name, seconds, rows)


async def main() -> None:
    async with asyncsvc.connect(DSN, settings=Settings(on_query=on_query)) as svc:
        chat = await svc.conversations.create(tenant_id="acme", dialog_id="support")
        await svc.conversations.get_by_id(chat.id, tenant_id="acme")
        print(dict(calls))
        # > {'conversation/create_many': 1, 'conversation/get_by_ids': 1}


if __name__ == "__main__":
    asyncio.run(main())
