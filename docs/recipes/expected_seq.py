"""Append an answer only if no other turn came in between."""

import asyncio
import os

import asyncsvc
from asyncsvc import Message, StaleSequence, Turn

DSN = os.environ["ASYNCSVC_DSN"]


async def answer(svc: asyncsvc.AsyncSvc, id: str, name: str) -> int:
    """Answer the newest state of a conversation, and return the number of attempts."""
    for attempt in range(1, 10):
        history = await svc.conversations.messages(id, tenant_id="acme", last=20)
        seen = history[-1].seq if history else 0
        turn = Turn(messages=[Message(role="assistant", content=f"{name} has read {seen}")])
        try:
            await svc.conversations.append_message(id, turn, tenant_id="acme", expected_seq=seen)
        except StaleSequence:
            continue  # another worker was faster: read its message and answer again
        return attempt
    raise TimeoutError("the conversation is too busy")


async def main() -> None:
    async with asyncsvc.connect(DSN) as svc:
        chat = await svc.conversations.create(tenant_id="acme", dialog_id="support")
        attempts = await asyncio.gather(*(answer(svc, chat.id, name) for name in ("A", "B")))
        contents = [
            message.content[2:]
            for message in await svc.conversations.messages(chat.id, tenant_id="acme")
        ]
        print(contents, "in", max(attempts), "attempts at most")
        # > ['has read 0', 'has read 1'] in ... attempts at most


if __name__ == "__main__":
    asyncio.run(main())
