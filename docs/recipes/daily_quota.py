"""Limit the language model tokens that an API token may use in 24 hours."""

import asyncio
import os
from datetime import UTC, datetime, timedelta

import asyncsvc
from asyncsvc import APIToken, Message, Turn

DSN = os.environ["ASYNCSVC_DSN"]
MAX_TOKENS = 100


async def recent_usage(svc: asyncsvc.AsyncSvc, token: APIToken) -> int:
    """Return the usage of a token in the last 24 hours. Deletions do not decrease it."""
    now = datetime.now(UTC)
    buckets = await svc.conversations.stats(
        tenant_id=token.tenant_id,
        from_date=now - timedelta(days=1),
        to_date=now,
        basis="activity",
        token_id=token.id,
    )
    return sum(bucket.tokens for bucket in buckets)


async def main() -> None:
    async with asyncsvc.connect(DSN) as svc:
        issued = await svc.tokens.create(tenant_id="acme", name="web shop", scopes=["chat"])
        chat = await svc.conversations.create(tenant_id="acme", dialog_id="support")
        for _ in range(3):
            token = await svc.tokens.verify(issued.secret, scopes=["chat"])
            used = await recent_usage(svc, token)
            if used >= MAX_TOKENS:
                print("rejected after", used, "tokens")
                # > rejected after 120 tokens
                break
            turn = Turn(
                messages=[Message(role="user", content="Hello")], tokens=60, token_id=token.id
            )
            await svc.conversations.append_message(chat.id, turn, tenant_id="acme")


if __name__ == "__main__":
    asyncio.run(main())
