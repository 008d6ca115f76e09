"""Read the usage of a month into pandas DataFrames: by day, and by model."""

import asyncio
import os
from decimal import Decimal

import pandas as pd

import asyncsvc
from asyncsvc import Message, Turn, Usage

DSN = os.environ["ASYNCSVC_DSN"]


async def main() -> None:
    async with asyncsvc.connect(DSN) as svc:
        for user_id, model in (("ann", "openai/gpt-5"), ("bob", "openai/gpt-5-mini")):
            chat = await svc.conversations.create(
                tenant_id="acme", dialog_id="support", user_id=user_id
            )
            usage = Usage(input_tokens=30, output_tokens=10, cost=Decimal("0.0001375"), model=model)
            turn = Turn(messages=[Message(role="user", content="Hello")], usage=usage, duration=1.5)
            await svc.conversations.append_message(chat.id, turn, tenant_id="acme")

        now = chat.created_at
        first, last = now.date().replace(day=1), now.date()
        buckets = await svc.conversations.stats(tenant_id="acme", from_date=first, to_date=last)
        days = pd.DataFrame([bucket.model_dump() for bucket in buckets]).set_index("dt")
        print(days[["conversations", "users", "tokens", "duration"]].sum().to_dict())
        # > {'conversations': 2.0, 'users': 2.0, 'tokens': 80.0, 'duration': 3.0}
        busiest = days["tokens"].idxmax()
        print(busiest.date() == now.date(), days.index.is_monotonic_increasing)
        # > True True

        models = pd.DataFrame(
            bucket.model_dump()
            for bucket in await svc.conversations.stats(
                tenant_id="acme", from_date=first, to_date=last, group_by="model"
            )
        )
        print(models.groupby("group")["cost"].sum().to_dict())  # exact: the costs are Decimals
        # > {'openai/gpt-5': Decimal('0.000137500'), 'openai/gpt-5-mini': Decimal('0.000137500')}


if __name__ == "__main__":
    asyncio.run(main())
