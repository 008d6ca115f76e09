"""Import the records of a file in batches of one tenant, several batches at a time."""

from __future__ import annotations

import abc
import asyncio
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

from asyncsvc import AsyncSvc, AsyncSvcError, ImportReport, InvalidInput
from asyncsvc.cli.json_lines import Item
from asyncsvc.cli.rejections import Rejections
from asyncsvc.cli.streams import read_in_thread

CONVERSATION_CONCURRENCY: Final = 3
"""The number of batches of conversations that run at once, each on one connection."""
_BATCH_MESSAGES: Final = 5_000
_BATCH_BYTES: Final = 2**22


@dataclass(kw_only=True)
class Importer(abc.ABC):
    """Imports items and counts the rejected ones; one invalid item does not stop the import."""

    concurrency: ClassVar = 1
    batch_size: ClassVar = 1_000

    svc: AsyncSvc
    tenant_id: str | None
    """The tenant of items without a tenant; items of other tenants are rejected."""
    on_batch: Callable[[], None]
    """Called after each batch."""
    rejections: Rejections = field(default_factory=Rejections)

    @abc.abstractmethod
    async def import_batch(self, tenant_id: str, items: list[Item]) -> None:
        """Import valid items into one tenant."""

    async def run(self, items: Iterable[Item], source: io.BufferedReader | None) -> None:
        """Import all items, and print the reasons of rejected ones.

        The items are read in a thread while batches are imported, from `source` if it is a pipe.
        """
        if self.tenant_id is not None:  # reject wrong options before any item is read
            await self.import_batch(self.tenant_id, [])
        slots, batches = asyncio.Semaphore(self.concurrency), _batches(items, self.batch_size)
        running = set[asyncio.Task[None]]()
        try:
            async with asyncio.TaskGroup() as group:
                while batch := await read_in_thread(source, lambda: next(batches, None)):
                    if running and any(item.is_repeated for item in batch):
                        await asyncio.wait(running)  # which may store the older form
                    await slots.acquire()
                    task = group.create_task(self._import(batch, slots))
                    running.add(task)
                    task.add_done_callback(running.discard)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self.rejections.report()

    async def _import(self, batch: list[Item], slots: asyncio.Semaphore) -> None:
        try:
            by_tenant = dict[str, list[Item]]()
            for item in batch:
                tenant_id = item.tenant_id or self.tenant_id
                if reason := self._invalid_reason(item, tenant_id):
                    self.reject(item, reason)
                elif tenant_id is not None:
                    by_tenant.setdefault(tenant_id, []).append(item)
            for tenant_id, items in by_tenant.items():
                await self.import_batch(tenant_id, items)
            self.on_batch()
        finally:
            slots.release()

    def reject(self, item: Item, reason: str) -> None:
        """Count a rejected item."""
        self.rejections.add(item.noun, item.number, reason)

    def _invalid_reason(self, item: Item, tenant_id: str | None) -> str | None:
        if item.reason is not None:
            return item.reason
        if tenant_id is None:
            return "tenant_id: is missing, and there is no --tenant"
        if self.tenant_id not in {None, tenant_id}:
            return "tenant_id: differs from --tenant"
        return None


@dataclass(kw_only=True)
class ConversationImporter(Importer):
    """Imports conversations."""

    concurrency = CONVERSATION_CONCURRENCY
    batch_size = 2_000

    complete: Callable[[Item], Mapping[str, object]]
    """Returns the fields of an item, with values for missing fields."""
    on_stored: Callable[[Item], None] = lambda _: None
    """Called for each item that is stored after its batch."""
    on_rejected: Callable[[Item, str], None] = lambda _item, _reason: None
    """Called for each item that is not stored after its batch."""
    _report: ImportReport = field(default_factory=ImportReport)

    @property
    def report(self) -> ImportReport:
        """The report so far, including items that were invalid before the import."""
        return self._report.model_copy(update={"rejected": self.rejections.count})

    async def import_batch(self, tenant_id: str, items: list[Item]) -> None:
        """Import conversations into one tenant."""
        rejected = set[int]()

        def reject(index: int, error: AsyncSvcError) -> None:
            rejected.add(index)
            self.reject(items[index], self._reason(error, items[index]))

        report = await self.svc.conversations.import_(
            (self.complete(item) for item in items),
            tenant_id=tenant_id,
            on_rejected=reject,
            update=True,
        )
        self._report += report  # after the await, because other batches are added meanwhile
        for index, item in enumerate(items):
            if index not in rejected:
                self.on_stored(item)

    def reject(self, item: Item, reason: str) -> None:
        """Count a rejected item."""
        super().reject(item, reason)
        self.on_rejected(item, reason)

    def _reason(self, error: AsyncSvcError, item: Item) -> str:
        """Return why an item was rejected. Raises the error of a value that an option supplied."""
        if isinstance(error, InvalidInput) and item.fields.get(error.field) is None:
            if self.complete(item).get(error.field) is not None:
                raise error
            if error.field == "dialog_id":
                return "dialog_id: is missing, and there is no --dialog"
        return str(error)


def _batches(items: Iterable[Item], max_items: int) -> Iterator[list[Item]]:
    """Group items into batches of a bounded number of items, messages and bytes."""
    batch: list[Item] = []
    messages = size = 0
    for item in items:
        batch.append(item)
        of_item = item.fields.get("messages")
        messages += len(of_item) if isinstance(of_item, list) else 0
        size += item.size
        if len(batch) >= max_items or messages >= _BATCH_MESSAGES or size >= _BATCH_BYTES:
            yield batch
            batch, messages, size = [], 0, 0
    if batch:
        yield batch
