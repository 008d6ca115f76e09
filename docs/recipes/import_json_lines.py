"""Import a file of JSON lines in constant memory, and report the rejected lines."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import asyncsvc
from asyncsvc import AsyncSvcError

DSN = os.environ["ASYNCSVC_DSN"]
PATH = Path("chats.jsonl")
LINES = """\
{"id": "1", "user": "ann", "messages": [{"role": "user", "content": "Where is my parcel?"}]}
{"id": "2", "user": "bob", "messages": [{"role": "user"}]}
{"id": "3", "user": "eve", "messages": [{"role": "user", "content": "Thanks"}]}
"""


def records(path: Path) -> Iterator[dict[str, object]]:
    """Yield a record for each line, with the names that asyncsvc has."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            chat = json.loads(line)
            yield {
                "id": chat["id"],
                "dialog_id": "support",
                "user_id": chat["user"],
                "source": "old system",
                "messages": chat["messages"],
            }


async def main() -> None:
    def reject(index: int, error: AsyncSvcError) -> None:
        print(f"line {index + 1}: {error}")

    async with asyncsvc.connect(DSN) as svc:
        report = await svc.conversations.import_(
            records(PATH), tenant_id="acme", on_rejected=reject
        )
        # > line 2: ...
        print(report.conversations, "imported,", report.rejected, "rejected")
        # > 2 imported, 1 rejected
        await svc.maintain()  # indexes the texts for searches


if __name__ == "__main__":
    PATH.write_text(LINES, encoding="utf-8")
    asyncio.run(main())
