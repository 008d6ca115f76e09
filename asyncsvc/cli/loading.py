"""Hands what was read to the library's `load`: in chunks, some at a time, each of one tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Final

from asyncsvc.cli.lines import Item
from asyncsvc.cli.pipes import aside
from asyncsvc.client import AsyncSvc
from asyncsvc.errors import AsyncSvcError
from asyncsvc.models import ImportReport

AT_ONCE: Final = 3
"""Chunks that are loaded at the same time, each on a connection: the server has more cores."""
_ITEMS_AT_ONCE: Final = 2_000
_MESSAGES_AT_ONCE: Final = 5_000
_CHARACTERS_AT_ONCE: Final = 2**22


@dataclass(frozen=True, slots=True)
class Rejection:
    """A line, or what stands for one, that did not go in, and why."""

    number: int
    reason: str


@dataclass(slots=True)
class Loader:
    """Loads items and keeps the report; `fill` completes a record that lacks something."""

    svc: AsyncSvc
    tenant_id: str | None
    fill: Callable[[Item], Mapping[str, Any]]
    reject: Callable[[Rejection], None]
    advance: Callable[[int], None]
    report: ImportReport = field(default_factory=ImportReport)

    async def load(self, items: Iterable[Item], source: IO[bytes]) -> ImportReport:
        """Load all items; one that is wrong is rejected and does not keep the others out.

        `source` is where they are read from, in a thread: what is being loaded goes on meanwhile.
        """
        slots, chunks = asyncio.Semaphore(AT_ONCE), _chunks(items)
        try:
            async with asyncio.TaskGroup() as group:
                while chunk := await aside(source, lambda: next(chunks, None)):
                    await slots.acquire()
                    group.create_task(self._load(chunk, slots))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return self.report

    async def _load(self, chunk: list[Item], slots: asyncio.Semaphore) -> None:
        try:
            of_tenants = dict[str, list[Item]]()
            for item in chunk:
                self._sort(item, of_tenants)
            for tenant_id, items in of_tenants.items():
                await self._load_into(tenant_id, items)
            self.advance(len(chunk))
        finally:
            slots.release()

    def _sort(self, item: Item, of_tenants: dict[str, list[Item]]) -> None:
        """Put an item to those of its tenant, or reject it."""
        tenant_id = item.tenant_id or self.tenant_id
        if item.reason is not None:
            self._reject(item, item.reason)
        elif tenant_id is None:
            self._reject(item, "tenant_id: is not there, and --tenant was not given")
        elif self.tenant_id not in {None, tenant_id}:
            self._reject(item, "tenant_id: is another than --tenant says")
        else:
            of_tenants.setdefault(tenant_id, []).append(item)

    async def _load_into(self, tenant_id: str, items: list[Item]) -> None:
        def reject(place: int, error: AsyncSvcError) -> None:
            self.reject(Rejection(items[place].number, _reason(error, items[place])))

        loaded = await self.svc.conversations.import_(
            (self.fill(item) for item in items), tenant_id=tenant_id, on_rejected=reject
        )
        self.report += loaded

    def _reject(self, item: Item, reason: str) -> None:
        self.report += ImportReport(rejected=1)
        self.reject(Rejection(item.number, reason))


def _reason(error: AsyncSvcError, item: Item) -> str:
    """Return why an item was rejected, in the words of the command's options where they matter."""
    if getattr(error, "field", None) == "dialog_id" and item.fields.get("dialog_id") is None:
        return "dialog_id: is not there, and --dialog was not given"
    return str(error)


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Group items so that a chunk is bounded: in their number, messages and characters."""
    chunk: list[Item] = []
    messages = characters = 0
    for item in items:
        chunk.append(item)
        of_item = item.fields.get("messages")
        messages += len(of_item) if isinstance(of_item, list) else 0
        characters += item.size
        if (
            len(chunk) >= _ITEMS_AT_ONCE
            or messages >= _MESSAGES_AT_ONCE
            or characters >= _CHARACTERS_AT_ONCE
        ):
            yield chunk
            chunk, messages, characters = [], 0, 0
    if chunk:
        yield chunk
