"""Delete everything of a person, and keep a receipt."""

import asyncio
import os

import asyncsvc
from asyncsvc import Message, Turn

DSN = os.environ["ASYNCSVC_DSN"]


async def main() -> None:
    async with asyncsvc.connect(DSN) as svc:
        for user_id in ("ann", "ann", "bob"):
            chat = await svc.conversations.create(
                tenant_id="acme", dialog_id="support", user_id=user_id
            )
            turn = Turn(messages=[Message(role="user", content="Hello")])
            await svc.conversations.append_message(chat.id, turn, tenant_id="acme")

        # A copy for the person, before it is gone.
        copy = [chat async for chat in svc.conversations.export(tenant_id="acme", user_id="ann")]
        print(len(copy), "conversations, the first as JSON:", copy[0].model_dump_json()[:20])
        # > 2 conversations, the first as JSON: {"tenant_id":"acme",

        receipt = await svc.conversations.erase_user("ann", tenant_id="acme")
        print(receipt.model_dump_json(exclude={"erased_at"}))
        # > {"tenant_id":"acme","user_id":"ann","conversations":2,"messages":2,"append_keys":0,...}


if __name__ == "__main__":
    asyncio.run(main())
