"""Measure the time and the peak memory of a call in a process of its own.

`python -m benchmarks.child_process NAME DSN ARGUMENT...` prints both as JSON.
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
_CONVERSATION = (
    "tenant_id", "id", "dialog_id", "user_id", "name", "source", "round", "tokens", "duration",
    "thumb_up", "last_seq", "created_at", "updated_at",
)  # fmt: skip


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


async def import_(dsn: str, tenant: str, conversations: str) -> None:
    """Import conversations with the library."""
    async with asyncsvc.connect(dsn) as svc:
        await svc.conversations.import_(_records(int(conversations)), tenant_id=tenant)


async def copy(dsn: str, tenant: str, conversations: str) -> None:
    """Import conversations with psycopg's COPY, in 2 streams and 1 transaction."""
    from benchmarks.contenders import psycopg  # noqa: PLC0415 - not in the others' memory

    count = int(conversations)
    async with (
        psycopg.connected(dsn, COPY_SCHEMA) as connection,
        connection.transaction(),
    ):
        rows = (tuple(_conversation(tenant, number).values()) for number in range(count))
        await psycopg.copy(connection, "conversation", _CONVERSATION, rows)
        messages = (
            (tenant, str(number), seq, message["role"], message["content"], "{}", _AT)
            for number in range(count)
            for seq, message in enumerate(_messages(number), 1)
        )
        await psycopg.copy(connection, "message", psycopg.COPIED, messages)


async def insert(dsn: str, tenant: str, conversations: str) -> None:
    """Import conversations with SQLAlchemy's bulk inserts, in batches."""
    from benchmarks.contenders.sqlalchemy import Orm  # noqa: PLC0415 - as above

    orm = Orm(dsn, 1)
    for numbers in _batches(range(int(conversations))):
        messages = [
            {"tenant_id": tenant, "conversation_id": str(number), "seq": seq, "created_at": _AT,
             "payload": {}, **message}
            for number in numbers for seq, message in enumerate(_messages(number), 1)
        ]  # fmt: skip
        await orm.store([_conversation(tenant, number) for number in numbers], messages)
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


def _records(count: int) -> Iterator[dict[str, object]]:
    for number in range(count):
        yield {
            "id": str(number), "dialog_id": "d", "messages": _messages(number),
            "created_at": _AT, "updated_at": _AT,
        }  # fmt: skip


def _messages(number: int) -> list[dict[str, str]]:
    return [
        {"role": "user" if seq % 2 else "assistant",
         "content": f"Message {seq} of {number}: where is my parcel, and when will it come?"}
        for seq in range(1, MESSAGES + 1)
    ]  # fmt: skip


def _conversation(tenant: str, number: int) -> dict[str, object]:
    return {
        "tenant_id": tenant, "id": str(number), "dialog_id": "d", "user_id": "", "name": None,
        "source": None, "round": MESSAGES // 2, "tokens": 0, "duration": 0, "thumb_up": 0,
        "last_seq": MESSAGES, "created_at": _AT, "updated_at": _AT,
    }  # fmt: skip


def _batches(numbers: range) -> Iterator[list[int]]:
    rest = iter(numbers)
    while batch := list(itertools.islice(rest, _BATCH_SIZE)):
        yield batch


def _peak() -> float:
    """Return the peak memory of this process in MiB.

    VmHWM comes first, because ru_maxrss includes the peak of the parent before the fork.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1_024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024


def main() -> None:
    """Run one of `WORKS` and print its time and peak memory."""
    name, *arguments = sys.argv[1:]
    began = time.perf_counter()
    asyncio.run(_do(name, arguments))
    print(json.dumps({"seconds": time.perf_counter() - began, "peak": _peak()}))


async def _do(name: str, arguments: list[str]) -> None:
    await WORKS[name](*arguments)


if __name__ == "__main__":
    main()
