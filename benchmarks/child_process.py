"""Measure the time and the peak memory of a call in a process of its own.

`python -m benchmarks.child_process NAME DSN TENANT [CONVERSATIONS]` prints both as JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncsvc

MESSAGES = 10
"""Messages per imported conversation."""
COPY_SCHEMA = "copied"
_BATCH_SIZE = 500
_AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Spent:
    """The time and the peak memory of a process."""

    seconds: float
    peak: float  # MiB


async def measured(name: str, *arguments: object) -> Spent:
    """Run one of `WORKS` in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.child_process", name, *map(str, arguments),
        cwd=Path(__file__).parents[1], stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    printed, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{name}: the process failed, see above")
    return Spent(**json.loads(printed))


async def import_(dsn: str, tenant: str, count: str) -> None:
    """Import conversations with the library."""
    records = (
        {"id": str(number), "dialog_id": "d", "messages": _messages(number),
         "created_at": _AT, "updated_at": _AT}
        for number in range(int(count))
    )  # fmt: skip
    async with asyncsvc.connect(dsn) as svc:
        await svc.conversations.import_(records, tenant_id=tenant)


async def copy(dsn: str, tenant: str, count: str) -> None:
    """Import conversations with psycopg's COPY, in 2 streams and 1 transaction."""
    from benchmarks.contenders import psycopg  # noqa: PLC0415 - only this call needs its memory

    conversations = (_conversation(tenant, number) for number in range(int(count)))
    messages = itertools.chain.from_iterable(_rows(tenant, n, "{}") for n in range(int(count)))
    async with psycopg.connected(dsn, COPY_SCHEMA) as connection, connection.transaction():
        await psycopg.copy(connection, "conversation", conversations)
        await psycopg.copy(connection, "message", messages)


async def insert(dsn: str, tenant: str, count: str) -> None:
    """Import conversations with SQLAlchemy's bulk inserts, in batches."""
    from benchmarks.contenders.sqlalchemy import Orm  # noqa: PLC0415 - as above

    orm, numbers = Orm(dsn, 1), iter(range(int(count)))
    while batch := list(itertools.islice(numbers, _BATCH_SIZE)):
        messages = itertools.chain.from_iterable(_rows(tenant, number, {}) for number in batch)
        await orm.store([_conversation(tenant, number) for number in batch], messages)
    await orm.close()


async def export(dsn: str, tenant: str) -> None:
    """Export all conversations of a tenant."""
    async with asyncsvc.connect(dsn) as svc:
        async for _ in svc.conversations.export(tenant_id=tenant):
            pass


async def purge(dsn: str, tenant: str) -> None:
    """Delete all conversations of a tenant by `created_at`."""
    async with asyncsvc.connect(dsn) as svc:
        await svc.conversations.purge(timedelta(hours=1), tenant_id=tenant, by="created_at")


WORKS: Mapping[str, Callable[..., Awaitable[None]]] = {
    work.__name__: work for work in (import_, copy, insert, export, purge)
}


def _messages(number: int) -> list[dict[str, str]]:
    return [
        {"role": "user" if seq % 2 else "assistant",
         "content": f"Message {seq} of {number}: where is my parcel, and when will it come?"}
        for seq in range(1, MESSAGES + 1)
    ]  # fmt: skip


def _conversation(tenant: str, number: int) -> dict[str, object]:
    """Return the row of a conversation by column."""
    return {
        "tenant_id": tenant, "id": str(number), "dialog_id": "d", "user_id": "", "name": None,
        "source": None, "round": MESSAGES // 2, "tokens": 0, "duration": 0, "thumb_up": 0,
        "last_seq": MESSAGES, "created_at": _AT, "updated_at": _AT,
    }  # fmt: skip


def _rows(tenant: str, number: int, payload: object) -> Iterator[dict[str, object]]:
    """Yield the rows of a conversation's messages by column."""
    for seq, message in enumerate(_messages(number), 1):
        yield {
            "tenant_id": tenant, "conversation_id": str(number), "seq": seq, **message,
            "payload": payload, "created_at": _AT,
        }  # fmt: skip


def _peak() -> float:
    """Return the peak memory of this process in MiB.

    VmHWM comes first, because ru_maxrss includes the peak of the parent before the fork.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1_024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024


async def _main(name: str, *arguments: str) -> None:
    began = time.perf_counter()
    await WORKS[name](*arguments)
    print(json.dumps({"seconds": time.perf_counter() - began, "peak": _peak()}))


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
