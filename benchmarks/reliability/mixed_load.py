"""The loads of a mixed run: many small tenants at a constant rate, and one large tenant.

`python -m benchmarks.reliability.mixed_load ORDER` is the process of the large tenant. It works
until the end of its input, and then prints its calls as JSON.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import os
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

import asyncsvc
from asyncsvc import Message, Turn, Usage
from benchmarks.reliability import Frozen

LARGE: Final = "large"
"""The id of the large tenant. The small ones are s1, s2, ..."""
_FIRST_ID: Final = 1_000_000_000
"""The number before the id of the first conversation of each tenant."""
_WORDS: Final = ("parcel", "Message 2", "zq absent")
_YEAR: Final = timedelta(days=365)
_CYCLES: Final = 500
"""The number of purges that would delete all conversations that the large tenant has at first."""
_CYCLE_SECONDS: Final = 60.0
_POLL: Final = 0.2
_RATES: Final = {
    "append": 5.0,
    "update": 1.0,
    "list by creation": 1.0,
    "list by activity": 1.0,
    "list with total": 0.2,
    "deep page": 0.1,
    "search": 1.0,
    "stats": 0.5,
    "stats by model": 0.1,
}
"""The operations of the large tenant, each with its number per second."""
_WEIGHTS: Final = {
    "append": 30, "list": 20, "messages": 20, "search": 5, "stats": 5, "verify": 15, "update": 5
}  # fmt: skip
"""The operations of the small tenants, each with its share in percent."""

Work: TypeAlias = Callable[[], Awaitable[object]]


class Order(Frozen):
    """The task of the process of the large tenant."""

    dsn: str
    conversations: int
    seed: int


class Calls(Frozen):
    """The seconds of each call by operation, and the number of errors by name."""

    seconds: dict[str, list[float]]
    errors: dict[str, int]


@dataclass(slots=True)
class OpenLoop:
    """Starts operations at a constant rate, whether or not the earlier ones have ended.

    The time of a call begins when it is due, so a stall counts for each call that it delays.
    """

    works: Mapping[str, Work]
    seconds: dict[str, list[float]] = field(
        default_factory=lambda: collections.defaultdict(list[float])
    )
    errors: collections.Counter[str] = field(default_factory=collections.Counter)
    recent: list[float] = field(default_factory=list)
    """The seconds of the calls since the last sample."""

    @property
    def calls(self) -> Calls:
        """The calls so far."""
        return Calls(seconds=dict(self.seconds), errors=dict(self.errors))

    async def run(self, names: Iterator[str], rate: float, stopped: Callable[[], bool]) -> None:
        """Start `rate` operations per second until `stopped`, then wait for their ends."""
        running, began = set[asyncio.Task[None]](), time.perf_counter()
        for number, name in enumerate(names):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if stopped():
                break
            task = asyncio.create_task(self.call(name, self.works[name](), due))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)

    async def call(self, name: str, work: Awaitable[object], due: float) -> None:
        """Await a call that was due then, and record its time or its error."""
        try:
            await work
        except asyncsvc.AsyncSvcError as error:
            self.errors[f"{name}: {type(error).__name__}"] += 1
        seconds = time.perf_counter() - due
        self.seconds[name].append(seconds)
        self.recent.append(seconds)


@dataclass(slots=True)
class SmallTenants:
    """The operations of small tenants. Each call is of a random tenant."""

    svc: asyncsvc.AsyncSvc
    tenants: int
    conversations: int
    chance: random.Random
    secrets: list[str]
    """The secrets of tokens of some of the tenants."""

    @property
    def works(self) -> dict[str, Work]:
        """The operations by name."""
        return {name: getattr(self, f"_{name}") for name in _WEIGHTS}

    def names(self) -> Iterator[str]:
        """Yield the names of the operations in random order."""
        while True:
            yield from self.chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()), k=100)

    def _tenant(self) -> str:
        return f"s{self.chance.randint(1, self.tenants)}"

    def _id(self) -> str:
        return str(_FIRST_ID + self.chance.randint(1, self.conversations))

    async def _append(self) -> None:
        await _append(self.svc, self._tenant(), self._id(), self.chance)

    async def _list(self) -> None:
        await self.svc.conversations.get_list(tenant_id=self._tenant(), items_per_page=20)

    async def _messages(self) -> None:
        await self.svc.conversations.messages(self._id(), tenant_id=self._tenant())

    async def _search(self) -> None:
        word = self.chance.choice(_WORDS)
        await self.svc.conversations.search(word, tenant_id=self._tenant())

    async def _stats(self) -> None:
        await _stats(self.svc, self._tenant())

    async def _verify(self) -> None:
        await self.svc.tokens.verify(self.chance.choice(self.secrets))

    async def _update(self) -> None:
        name = f"Parcel {self.chance.randrange(10**6)}"
        await self.svc.conversations.update_by_id(
            self._id(), {"name": name}, tenant_id=self._tenant()
        )


@dataclass(slots=True)
class _LargeTenant:
    """The operations of the large tenant, and the purge of its oldest conversations."""

    svc: asyncsvc.AsyncSvc
    order: Order
    chance: random.Random

    @property
    def works(self) -> dict[str, Work]:
        conversations, any_id = self.svc.conversations, self._id
        pages = max(1, self.order.conversations // 20 // 2)

        def get_list(**arguments: object) -> Work:
            return lambda: conversations.get_list(
                tenant_id=LARGE,
                items_per_page=20,
                **arguments,  # type: ignore[arg-type]
            )

        return {
            "append": lambda: _append(self.svc, LARGE, any_id(), self.chance),
            "update": lambda: conversations.update_by_id(
                any_id(), {"name": f"Parcel {self.chance.randrange(10**6)}"}, tenant_id=LARGE
            ),
            "list by creation": get_list(total="none"),
            "list by activity": get_list(total="none", orderby="updated_at"),
            "list with total": get_list(dialog_id=f"{LARGE}-d0"),
            "deep page": get_list(total="none", page_number=pages),
            "search": lambda: conversations.search(
                self.chance.choice((*_WORDS, any_id())), tenant_id=LARGE
            ),
            "stats": lambda: _stats(self.svc, LARGE),
            "stats by model": lambda: _stats(self.svc, LARGE, group_by="model"),
        }

    def _id(self) -> str:
        """Return the id of a conversation of the newer half, which no purge deletes."""
        newer = self.order.conversations // 2
        return str(_FIRST_ID + self.chance.randint(newer, self.order.conversations))

    async def replace_oldest(self, loop: OpenLoop, stopped: Callable[[], bool]) -> None:
        """Purge the oldest conversations each minute and import as many new ones."""
        conversations = self.svc.conversations
        count, began = max(1, self.order.conversations // _CYCLES), time.perf_counter()
        for cycle in itertools.count(1):
            page = await conversations.get_list(
                tenant_id=LARGE, desc=False, items_per_page=1, total="none"
            )
            before = page.items[0].created_at + _YEAR / _CYCLES
            for name, work in (
                ("purge", conversations.purge(before, tenant_id=LARGE, by="created_at")),
                ("import", conversations.import_(_records(count), tenant_id=LARGE)),
            ):
                await loop.call(name, work, time.perf_counter())
            while time.perf_counter() < began + cycle * _CYCLE_SECONDS:
                if stopped():
                    return
                await asyncio.sleep(_POLL)


def _records(count: int) -> Iterator[dict[str, object]]:
    now = datetime.now(UTC)
    for number in range(count):
        id = f"new{now.timestamp():.0f}-{number}"
        yield {
            "id": id,
            "dialog_id": f"{LARGE}-d{number % 10}",
            "user_id": f"u{number}",
            "name": f"Parcel {number}",
            "created_at": now - timedelta(minutes=1) * number / count,
            "messages": [
                {"role": "user" if seq % 2 else "assistant",
                 "content": f"Message {seq} of {id}: where is my parcel, and when will it come?"}
                for seq in (1, 2)
            ],
        }  # fmt: skip


async def _append(svc: asyncsvc.AsyncSvc, tenant: str, id: str, chance: random.Random) -> None:
    number = chance.randrange(10**9)
    text = f"of {number}: where is my parcel, and when will it come?"
    turn = Turn(
        messages=[
            Message(role="user", content=f"Message 1 {text}"),
            Message(role="assistant", content=f"Message 2 {text}"),
        ],
        usage=Usage(input_tokens=40, output_tokens=20, model=chance.choice(("small", "large"))),
    )
    await svc.conversations.append_message(
        id, turn, tenant_id=tenant, idempotency_key=f"{time.time_ns()}/{number}"
    )


async def _stats(svc: asyncsvc.AsyncSvc, tenant: str, **arguments: object) -> None:
    today = datetime.now(UTC).date()
    await svc.conversations.stats(
        tenant_id=tenant,
        from_date=today - timedelta(days=90),
        to_date=today,
        **arguments,  # type: ignore[arg-type]
    )


def _await_end(stopped: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    stopped.set()


async def _work(order: Order, stopped: threading.Event) -> Calls:
    chance = random.Random(f"{order.seed}/large")  # noqa: S311 - no secret
    async with asyncsvc.connect(order.dsn, max_size=10) as svc, asyncio.TaskGroup() as group:
        tenant = _LargeTenant(svc, order, chance)
        loop = OpenLoop(tenant.works)
        for name, rate in _RATES.items():
            group.create_task(loop.run(itertools.repeat(name), rate, stopped.is_set))
        await tenant.replace_oldest(loop, stopped.is_set)
    return loop.calls


def _main() -> None:
    stopped = threading.Event()
    threading.Thread(target=_await_end, args=(stopped,), daemon=True).start()
    order = Order.model_validate_json(sys.argv[1])
    print(asyncio.run(_work(order, stopped)).model_dump_json())


if __name__ == "__main__":
    _main()
