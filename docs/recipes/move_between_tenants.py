"""Move the conversations of a dialog to another tenant."""

import asyncio
import os

import asyncsvc
from asyncsvc import Message, Turn

DSN = os.environ["ASYNCSVC_DSN"]


async def main() -> None:
    async with asyncsvc.connect(DSN) as svc:
        for number in range(3):
            chat = await svc.conversations.create(
                tenant_id="acme", dialog_id="support", id=f"chat-{number}"
            )
            turn = Turn(messages=[Message(role="user", content="Hello")])
            await svc.conversations.append_message(chat.id, turn, tenant_id="acme")

        # Ids are unique within a tenant, and the import keeps them. It can be repeated: it does not
        # change the conversations that exist already.
        exported = svc.conversations.export(tenant_id="acme", dialog_id="support")
        report = await svc.conversations.import_(exported, tenant_id="acme-europe")
        print(report.conversations, "conversations,", report.messages, "messages")
        # > 3 conversations, 3 messages

        deleted = await svc.conversations.delete_by_dialog_ids(["support"], tenant_id="acme")
        print(deleted, "deleted")
        # > 3 deleted


if __name__ == "__main__":
    asyncio.run(main())
