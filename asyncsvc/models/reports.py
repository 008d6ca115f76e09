"""Reports of imports, purges, erasures and maintenance."""

from __future__ import annotations

from datetime import datetime

from asyncsvc.models.base import Row


class ImportReport(Row):
    """What a load did.

    `present` conversations were there already, and are as they were. `rejected` ones went to
    `on_rejected`. Reports of several loads can be added.
    """

    conversations: int = 0
    messages: int = 0
    present: int = 0
    rejected: int = 0

    def __add__(self, other: ImportReport) -> ImportReport:
        """Return the report of both loads together."""
        return ImportReport(
            conversations=self.conversations + other.conversations,
            messages=self.messages + other.messages,
            present=self.present + other.present,
            rejected=self.rejected + other.rejected,
        )


class TokenImportReport(Row):
    """What a load of tokens did; `present` ones were there already, `rejected` ones reported."""

    tokens: int = 0
    present: int = 0
    rejected: int = 0


class PurgeReport(Row):
    """What a purge deleted, or with `dry_run` would delete.

    `before` is the instant that what went was older than. `skipped` conversations were old, but
    changed, gone or held by somebody else when their turn came: the next purge looks again.
    """

    before: datetime
    dry_run: bool
    conversations: int = 0
    messages: int = 0
    skipped: int = 0


class MaintenanceReport(Row):
    """The work done by maintenance. Reports can be added."""

    append_keys: int = 0
    """The number of expired idempotency keys deleted."""
    ledger_rows: int = 0
    """The number of usage ledger rows rolled up."""
    messages: int = 0
    """The number of messages added to the search index."""
    titles: int = 0
    """The number of conversation titles (id and name) added to the search index."""

    def __add__(self, other: MaintenanceReport) -> MaintenanceReport:
        """Return the sum of both reports."""
        return MaintenanceReport(
            append_keys=self.append_keys + other.append_keys,
            ledger_rows=self.ledger_rows + other.ledger_rows,
            messages=self.messages + other.messages,
            titles=self.titles + other.titles,
        )


class ErasureReceipt(Row):
    """What was deleted of one person, for whoever has to prove it.

    Nothing of the person was left at `erased_at`, by the server's clock, when a last look found
    nothing more. It counts what this call deleted: after one that was broken off, the rest.
    """

    tenant_id: str
    user_id: str
    conversations: int
    messages: int
    append_keys: int
    erased_at: datetime
