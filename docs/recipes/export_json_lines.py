"""Export the conversations of a tenant into a compressed file of JSON lines."""

import asyncio
import gzip
import os
from pathlib import Path

import asyncsvc
from asyncsvc import ConversationRecord, Message, Turn

DSN = os.environ["ASYNCSVC_DSN"]
PATH = Path("acme.jsonl.gz")
NOT_IN_A_RECORD = {"tenant_id", "thumb_up", "thumb_down"}  # an import derives them


async def main() -> None:
    async with asyncsvc.connect(DSN) as svc:
        chat = await svc.conversations.create(tenant_id="acme", dialog_id="support", id="c1")
        turn = Turn(messages=[Message(role="user", content="Where is my parcel?")])
        await svc.conversations.append_message(chat.id, turn, tenant_id="acme")

        unfinished = PATH.with_suffix(".part")
        with gzip.open(unfinished, "wt", encoding="utf-8") as file:
            async for conversation in svc.conversations.export(tenant_id="acme"):
                file.write(conversation.model_dump_json(exclude=NOT_IN_A_RECORD) + "\n")
        unfinished.rename(PATH)  # the file appears when it is complete

        with gzip.open(PATH, "rt", encoding="utf-8") as file:
            records = [ConversationRecord.model_validate_json(line) for line in file]
        print(len(records), "line:", records[0].id, records[0].messages[0].content)
        # > 1 line: c1 Where is my parcel?
        report = await svc.conversations.import_(records, tenant_id="copy")
        print(report.conversations, "imported")
        # > 1 imported


if __name__ == "__main__":
    asyncio.run(main())
