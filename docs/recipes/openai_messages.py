"""Store the messages of OpenAI's chat API, with null or list content and tool calls."""

import asyncio
import os
from collections.abc import Mapping

from pydantic import JsonValue

import asyncsvc
from asyncsvc import Message, Settings, Turn

DSN = os.environ["ASYNCSVC_DSN"]
# Tools write NUL and half emojis, which PostgreSQL cannot store. Without this they are rejected.
SETTINGS = Settings(unstorable_text="replace")
HISTORY: list[Mapping[str, JsonValue]] = [
    {"role": "user", "content": [{"type": "text", "text": "Where is my parcel?"}]},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function"}]},
    {"role": "tool", "tool_call_id": "c1", "content": "in the van\x00"},
    {"role": "assistant", "content": "It arrives today."},
]


def text_of(content: JsonValue) -> str:
    """Return the text of a content that is null, a string or a list of parts."""
    if isinstance(content, list):
        texts = [part for part in content if isinstance(part, dict) and part["type"] == "text"]
        return "\n".join(str(part["text"]) for part in texts)
    return content if isinstance(content, str) else ""


def to_message(item: Mapping[str, JsonValue]) -> Message:
    """Put the text into `content`, which searches read, and the rest into `payload`."""
    content = item["content"]
    payload = {key: value for key, value in item.items() if key not in {"role", "content"}}
    if isinstance(content, list):
        payload["content"] = content  # images and files
    return Message(role=str(item["role"]), content=text_of(content), payload=payload)


async def main() -> None:
    async with asyncsvc.connect(DSN, settings=SETTINGS) as svc:
        chat = await svc.conversations.create(tenant_id="acme", dialog_id="support")
        turn = Turn(messages=[to_message(item) for item in HISTORY])
        await svc.conversations.append_message(chat.id, turn, tenant_id="acme")
        for message in await svc.conversations.messages(chat.id, tenant_id="acme"):
            print(message.role, repr(message.content), sorted(message.payload))
        # > user 'Where is my parcel?' ['content']
        # > assistant '' ['tool_calls']
        # > tool 'in the van�' ['tool_call_id']
        # > assistant 'It arrives today.' []


if __name__ == "__main__":
    asyncio.run(main())
