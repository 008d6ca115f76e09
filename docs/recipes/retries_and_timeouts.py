"""Bound the time of each call, and repeat a write whose outcome is unknown."""

import asyncio
import os

import asyncsvc
from asyncsvc import Message, Settings, Turn, Unavailable

DSN = os.environ["ASYNCSVC_DSN"]


def report(statement: str, attempt: int, pause: float, error: Unavailable) -> None:
    print(f"{statement}: attempt {attempt} failed, next in {pause:.1f} s: {error}")


SETTINGS = Settings(
    acquire_timeout=2,  # wait for a connection of the pool, then PoolExhausted
    statement_timeout=5,  # wait for one statement, then StatementTimeout
    lock_timeout=2,  # wait for a row of another transaction, then LockTimeout
    retry_timeout=5,  # reads and appends with a key are retried after a lost connection
    on_retry=report,
)


async def main() -> None:
    async with asyncsvc.connect(DSN, settings=SETTINGS) as svc:
        chat = await svc.conversations.create(tenant_id="acme", dialog_id="support")
        turn = Turn(messages=[Message(role="user", content="Hello")])
        for _ in range(3):
            try:
                async with asyncio.timeout(10):  # the deadline of the request
                    appended = await svc.conversations.append_message(
                        chat.id, turn, tenant_id="acme", idempotency_key="request-1"
                    )
            except (Unavailable, TimeoutError):
                continue  # with the same key and turn it is safe to repeat
            print("stored as message", appended.last_seq)
            # > stored as message 1
            break


if __name__ == "__main__":
    asyncio.run(main())
