"""Replace the last answer by a new one, unless the conversation has gone on."""

import asyncio
import os

import asyncsvc
from asyncsvc import Message, StaleSequence, Turn

DSN = os.environ["ASYNCSVC_DSN"]


async def regenerate(svc: asyncsvc.AsyncSvc, id: str, seq: int) -> None:
    """Replace the answer `seq`, which must be the last message."""
    (question,) = await svc.conversations.messages(id, tenant_id="acme", before=seq, last=1)
    # Ask the model before the transaction, which must be short.
    message = Message(role="assistant", content=f"Once more: {question.content}")
    # `round=0`: it is still the same question and answer.
    turn = Turn(messages=[message], tokens=21, round=0)
    async with svc.transaction() as tx:
        await tx.conversations.append_message(id, turn, tenant_id="acme", expected_seq=seq)
        await tx.conversations.delete_message(id, seq, tenant_id="acme")


async def main() -> None:
    async with asyncsvc.connect(DSN) as svc:
        chat = await svc.conversations.create(tenant_id="acme", dialog_id="support")
        pair = [Message(role="user", content="Why?"), Message(role="assistant", content="Because.")]
        await svc.conversations.append_message(chat.id, Turn(messages=pair), tenant_id="acme")
        await regenerate(svc, chat.id, 2)
        for message in await svc.conversations.messages(chat.id, tenant_id="acme"):
            print(message.seq, message.role, message.content)
        # > 1 user Why?
        # > 3 assistant Once more: Why?
        try:  # a second click on the same answer
            await regenerate(svc, chat.id, 2)
        except StaleSequence as error:
            print(type(error).__name__)
            # > StaleSequence


if __name__ == "__main__":
    asyncio.run(main())
