"""Give a language model the newest messages that fit into its context."""

import asyncio
import os

import asyncsvc
from asyncsvc import Message, Turn

DSN = os.environ["ASYNCSVC_DSN"]
PAGE_SIZE = 20


async def context(svc: asyncsvc.AsyncSvc, id: str, *, max_characters: int) -> list[dict[str, str]]:
    """Return the newest messages, oldest first, with at most `max_characters` together."""
    newest: list[dict[str, str]] = []
    before: int | None = None
    while page := await svc.conversations.messages(
        id, tenant_id="acme", before=before, last=PAGE_SIZE
    ):
        for message in reversed(page):
            max_characters -= len(message.content)
            if max_characters < 0:
                return newest[::-1]
            newest.append({"role": message.role, "content": message.content})
        before = page[0].seq
    return newest[::-1]


async def main() -> None:
    async with asyncsvc.connect(DSN) as svc:
        chat = await svc.conversations.create(tenant_id="acme", dialog_id="support")
        for number in range(100):
            turn = Turn(messages=[Message(role="user", content=f"Message {number}")])
            await svc.conversations.append_message(chat.id, turn, tenant_id="acme")
        messages = await context(svc, chat.id, max_characters=300)
        print(len(messages), messages[0], messages[-1])
        # > 30 {'role': 'user', 'content': 'Message 70'} {'role': 'user', 'content': 'Message 99'}


if __name__ == "__main__":
    asyncio.run(main())
