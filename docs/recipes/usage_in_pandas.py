"""Read the usage of a month into a pandas DataFrame."""

import asyncio
import os

import pandas as pd

import asyncsvc
from asyncsvc import Message, Turn

DSN = os.environ["ASYNCSVC_DSN"]


async def main() -> None:
    async with asyncsvc.connect(DSN) as svc:
        for user_id in ("ann", "bob"):
            chat = await svc.conversations.create(
                tenant_id="acme", dialog_id="support", user_id=user_id
            )
            turn = Turn(messages=[Message(role="user", content="Hello")], tokens=40, duration=1.5)
            await svc.conversations.append_message(chat.id, turn, tenant_id="acme")

        now = chat.created_at
        buckets = await svc.conversations.stats(
            tenant_id="acme", from_date=now.date().replace(day=1), to_date=now.date(), tz="UTC"
        )
        days = pd.DataFrame([bucket.model_dump() for bucket in buckets]).set_index("dt")
        print(days[["conversations", "users", "tokens", "duration"]].sum().to_dict())
        # > {'conversations': 2.0, 'users': 2.0, 'tokens': 80.0, 'duration': 3.0}
        busiest = days["tokens"].idxmax()
        print(busiest.date() == now.date(), days.index.is_monotonic_increasing)
        # > True True


if __name__ == "__main__":
    asyncio.run(main())
