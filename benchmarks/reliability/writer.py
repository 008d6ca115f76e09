"""A writer of a crash run: `python -m benchmarks.reliability.writer ORDER`.

It appends turn after turn, each under a key of its own, and writes each acknowledgement to its
output before it goes on. When the library gives up, which that of every second writer does at once,
it repeats the call with the same key. It ends after the acknowledgement that follows the end of its
input, and so with whoever started it.
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
PATIENCE: Final = 120.0
"""Seconds until a turn that is not acknowledged ends the writer, which the run then reports."""


def main() -> None:
    """Write what the order says until the input ends."""
    for library in ("asyncpg", "asyncsvc"):  # what they log of lost connections is expected
        logging.getLogger(library).addHandler(logging.NullHandler())
    told = threading.Event()
    threading.Thread(target=_await_end, args=(told,), daemon=True).start()
    asyncio.run(_write(Order.model_validate_json(sys.argv[1]), told))


def _await_end(told: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    told.set()


async def _write(order: Order, told: threading.Event) -> None:
    number = order.first
    async with AsyncExitStack() as stack:
        database = _Database(order, stack)
        while not told.is_set():
            ack = await _acknowledged(database, order, number)
            # One call of the system: a writer that is killed has told it in full or not at all.
            os.write(sys.stdout.fileno(), ack.model_dump_json().encode() + b"\n")
            number += 1


async def _acknowledged(database: _Database, order: Order, number: int) -> Ack:
    """Append the turn, again and again if need be, until it is acknowledged."""
    what = planned(order.plan, order.writer, number)
    repeats, retries = collections.Counter[str](), database.retries
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            svc = await database.opened()
            appended = await svc.conversations.append_message(
                what.conversation, what.turn, tenant_id=TENANT, idempotency_key=what.key
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
    """The services, on a pool that is opened again where the server came back on another port."""

    def __init__(self, order: Order, stack: AsyncExitStack) -> None:
        self._order = order
        self._stack = stack
        self._dsn = ""
        self._settings = asyncsvc.Settings(
            retry_timeout=order.retry_timeout, on_retry=self._note_retry
        )
        self.retries = 0

    def _note_retry(self, *_: object) -> None:
        self.retries += 1

    async def opened(self) -> asyncsvc.AsyncSvc:
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
