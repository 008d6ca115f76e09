"""A writer process of a crash run: `python -m benchmarks.reliability.writer ORDER`.

The writer appends turns with a new key each, and writes each acknowledgement to its output before
the next turn. If the library raises Unavailable, the writer repeats the call with the same key. For
every second writer the library does not retry. At the end of its input, which is also the end of
its parent, the writer exits after the next acknowledgement.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import os
import sys
import threading
import time
from contextlib import AsyncExitStack
from typing import Final
from urllib.parse import quote

import asyncsvc
from benchmarks.reliability.plan import TENANT, Ack, Order, planned

PAUSE: Final = 0.02
MAINTENANCE_INTERVAL: Final = 0.1
"""Seconds between the runs of maintenance of a writer, so that many kills interrupt one."""
ACK_TIMEOUT: Final = 120.0
"""Seconds until a turn without an acknowledgement ends the writer, which fails the run."""


def main() -> None:
    """Write the turns of the order until the end of the input."""
    for library in ("asyncpg", "asyncsvc"):  # they log lost connections, which are expected
        logging.getLogger(library).addHandler(logging.NullHandler())
    stopped = threading.Event()
    threading.Thread(target=_await_end, args=(stopped,), daemon=True).start()
    asyncio.run(_write(Order.model_validate_json(sys.argv[1]), stopped))


def _await_end(stopped: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    stopped.set()


async def _write(order: Order, stopped: threading.Event) -> None:
    number = order.first
    async with AsyncExitStack() as stack:
        database = _Database(order, stack)
        while not stopped.is_set():
            ack = await _acknowledged(database, order, number)
            # One system call, so that a killed writer has written the line completely or not.
            os.write(sys.stdout.fileno(), ack.model_dump_json().encode() + b"\n")
            number += 1


async def _acknowledged(database: _Database, order: Order, number: int) -> Ack:
    """Append the turn; repeat the call until it is acknowledged."""
    turn = planned(order.plan, order.writer, number)
    repeats, retries = collections.Counter[str](), database.retries
    give_up = time.monotonic() + ACK_TIMEOUT
    while True:
        try:
            svc = await database.services()
            appended = await svc.conversations.append_message(
                str(turn.conversation.id), turn.turn, tenant_id=TENANT, idempotency_key=turn.key
            )
        except asyncsvc.Unavailable as error:
            if time.monotonic() > give_up:
                raise
            repeats[type(error).__name__] += 1
            await asyncio.sleep(PAUSE)
        else:
            return Ack(
                writer=order.writer,
                number=number,
                first_seq=appended.first_seq,
                last_seq=appended.last_seq,
                round=appended.round,
                replayed=appended.replayed,
                repeats=dict(repeats),
                retries=database.retries - retries,
            )


class _Database:
    """The services, on a pool that is reopened when the server has another port."""

    def __init__(self, order: Order, stack: AsyncExitStack) -> None:
        self._order = order
        self._stack = stack
        self._dsn = ""
        self._settings = asyncsvc.Settings(
            retry_timeout=order.retry_timeout,
            on_retry=self._count_retry,
            maintenance_interval=MAINTENANCE_INTERVAL,
        )
        self.retries = 0

    def _count_retry(self, *_: object) -> None:
        self.retries += 1

    async def services(self) -> asyncsvc.AsyncSvc:
        dsn = self._order.plan.address.read_text(encoding="ascii")
        if dsn != self._dsn:
            await self._stack.aclose()
            named = f"{dsn}?application_name={quote(self._order.name)}"
            opened = asyncsvc.connect(named, max_size=2, settings=self._settings)
            self._svc = await self._stack.enter_async_context(opened)
            self._dsn = dsn
        return self._svc


if __name__ == "__main__":
    main()
