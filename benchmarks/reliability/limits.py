"""Measure the largest accepted inputs, and reads of as much: time, stall of the loop and memory.

Each text and JSON value has the maximum size of the default settings, in its most expensive form.
"""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import asyncsvc
from asyncsvc import Message, Settings, Turn
from benchmarks.reliability.server import Server

_LIMITS: Final = Settings()
_TEXT: Final = _LIMITS.max_message_bytes
_JSON: Final = _LIMITS.max_json_bytes
_PER_TURN: Final = _LIMITS.max_batch_bytes // _TEXT - 1
_JSON_PER_TURN: Final = _LIMITS.max_batch_bytes // _JSON - 1
_MEBIBYTES: Final = _JSON // 2**20
_REPEATS: Final = 3
_POLL: Final = 0.001
_KIBIBYTE: Final = 1024
_TENANT: Final = "limits"


class Measurement(NamedTuple):
    """The cost of one call."""

    call: str
    seconds: float
    stall: float
    """The longest time in seconds for which the event loop did not run."""
    memory: float
    """The growth of the maximum resident memory, in MiB."""


async def measure() -> list[Measurement]:
    """Measure each input on a new embedded server."""
    async with _running() as dsn, asyncsvc.connect(dsn) as svc:
        await svc.migrate()
        await svc.conversations.create(tenant_id=_TENANT, dialog_id="d", id="a")
        await _append(svc, Turn(messages=[_message("warm up")]))
        appends = [await _best(name, partial(_append, svc, turn)) for name, turn in _turns()]
        return appends + [
            await _best(name, partial(_read, svc, id)) for name, id in await _import(svc)
        ]


@asynccontextmanager
async def _running() -> AsyncIterator[str]:
    """Run a new server inside the block; yield its DSN."""
    with tempfile.TemporaryDirectory() as directory:
        async with Server(Path(directory)).running() as dsn:
            yield dsn


async def _best(name: str, call: Callable[[], Awaitable[None]]) -> Measurement:
    """Return the measurement with the shortest stall: other processes can only prolong it."""
    measurements = [await _measured(name, call()) for _ in range(_REPEATS)]
    return min(measurements, key=lambda each: each.stall)


async def _append(svc: asyncsvc.AsyncSvc, turn: Turn) -> None:
    await svc.conversations.append_message(
        "a", turn, tenant_id=_TENANT, idempotency_key=f"{time.perf_counter_ns()}"
    )


async def _import(svc: asyncsvc.AsyncSvc) -> list[tuple[str, str]]:
    """Store long conversations; return the name and the id of each."""
    words, zeros = "word " * (_TEXT // 5), {"zeros": [0] * (_JSON // 3 - 10)}
    short = {"zeros": [0] * (_KIBIBYTE // 3)}
    objects = {"objects": [dict[str, object]()] * (_JSON // 4 - 10)}
    text = {"text": "word " * (_JSON // 5 - 10)}
    messages = {
        f"read {_PER_TURN} x 1 MiB of words": [_message(words)] * _PER_TURN,
        f"read {_JSON_PER_TURN} x {_MEBIBYTES} MiB of JSON": [_message("", payload=zeros)]
        * _JSON_PER_TURN,
        f"read {_MEBIBYTES} MiB of JSON: empty objects": [_message("", payload=objects)],
        f"read {_MEBIBYTES} MiB of JSON: a text": [_message("", payload=text)],
        "read 16,000 x 1 KiB of words": [_message(words[:_KIBIBYTE])] * 16_000,
        "read 16,000 x 1 KiB of JSON": [_message("", payload=short)] * 16_000,
    }
    for number, each in enumerate(messages.values()):
        fields = [message.model_dump() for message in each]
        record = {"id": f"long{number}", "dialog_id": "d", "messages": fields}
        await svc.conversations.import_([record], tenant_id=_TENANT)
    return [(name, f"long{number}") for number, name in enumerate(messages)]


async def _read(svc: asyncsvc.AsyncSvc, id: str) -> None:
    await svc.conversations.get_by_id(id, tenant_id=_TENANT, include_messages=True)


async def _measured(name: str, call: Awaitable[None]) -> Measurement:
    stalls = [0.0]

    async def watch() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(_POLL)
            stalls.append(time.perf_counter() - before - _POLL)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(_POLL)
    memory, start = _max_memory(), time.perf_counter()
    await call
    seconds = time.perf_counter() - start
    await asyncio.sleep(2 * _POLL)  # the stall at the end of the call counts too
    watching.cancel()
    return Measurement(name, seconds, max(stalls), _max_memory() - memory)


def _max_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIBIBYTE


def _message(content: str, **fields: object) -> Message:
    return Message.model_validate({"role": "user", "content": content, **fields})


def _turns() -> Iterator[tuple[str, Turn]]:
    """Yield the name and the turn of each input."""
    texts: dict[str, str] = {
        "1 MiB of words": "Where is my parcel? " * (_TEXT // 20),
        "1 MiB of letters that NFC composes": "e\u0302\u0323 " * (_TEXT // 6),
        "1 letter with 1 MiB of marks": "a" + "\u0300\u0316" * (_TEXT // 4 - 1),
    }
    for name, text in texts.items():
        yield name, Turn(messages=[_message(text)])
    values: dict[str, Callable[[], list[object]]] = {
        f"{_MEBIBYTES} MiB of JSON: zeros": lambda: [0] * (_JSON // 3 - 1),
        f"{_MEBIBYTES} MiB of JSON: floats": lambda: [1.5] * (_JSON // 5 - 1),
        f"{_MEBIBYTES} MiB of JSON: empty objects": lambda: [{}] * (_JSON // 4 - 1),
        f"{_MEBIBYTES} MiB of JSON: integers of 4,000 digits": lambda: (
            [10**3_999] * (_JSON // 4_002)
        ),
    }
    for name, value in values.items():
        yield name, Turn(messages=[_message("", reference=value())])
    words = texts["1 MiB of words"]
    yield f"{_PER_TURN} MiB of words", Turn(messages=[_message(words)] * _PER_TURN)
    zeros = values[f"{_MEBIBYTES} MiB of JSON: zeros"]()
    yield (
        f"{_JSON_PER_TURN * _MEBIBYTES} MiB of JSON: zeros",
        Turn(messages=[_message("", reference=zeros)] * _JSON_PER_TURN),
    )
