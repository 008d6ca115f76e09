"""Reports of imports, purges, erasures and maintenance."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from asyncsvc.models.base import Model


class ImportReport(Model):
    """The counts of an import of conversations. Reports can be added."""

    conversations: int = 0
    """The number of stored conversations."""
    messages: int = 0
    """The number of stored messages."""
    present: int = 0
    """The number of records whose conversations existed already, with the same messages or more."""
    rejected: int = 0
    """The number of records passed to `on_rejected`."""
    older: int = 0
    """The number of records in `present` with fewer messages than their conversations."""
    renamed: int = 0
    """The number of records in `present` whose newer name was stored."""
    grown: int = 0
    """The number of conversations to which messages were appended."""
    rewritten: int = 0
    """The number of conversations whose last messages were replaced: the record shows another
    branch."""
    diverged: int = 0
    """The number of records in `rejected` whose conversations have other messages."""
    messages_appended: int = 0
    """The number of messages that were stored in grown and rewritten conversations."""
    messages_replaced: int = 0
    """The number of messages that were deleted from rewritten conversations."""
    replaced_characters: int = 0
    """The number of characters of valid records that `Settings.unstorable_text` replaced."""

    def __add__(self, other: ImportReport) -> ImportReport:
        """Return the sum of both reports."""
        return ImportReport(**{name: value + getattr(other, name) for name, value in self})


class TokenImportReport(Model):
    """The counts of an import of tokens."""

    tokens: int = 0
    """The number of stored tokens."""
    present: int = 0
    """The number of records whose tokens existed already and did not change."""
    rejected: int = 0
    """The number of records passed to `on_rejected`."""


class PurgeReport(Model):
    """The counts of a purge, or with `dry_run` of the rows that it would delete."""

    before: datetime
    """The instant before which a conversation is old."""
    dry_run: bool
    """Whether the call only counted."""
    conversations: int = 0
    """The number of deleted conversations."""
    messages: int = 0
    """The number of their messages."""
    skipped: int = 0
    """The number of old conversations that were locked, changed or deleted by another session.
    The next purge checks them again."""


MaintenanceJob = Literal["append_keys", "usage", "search"]
"""A part of maintenance."""


class MaintenanceFailure(Model):
    """Rows that maintenance could not process. The next run tries them again."""

    job: MaintenanceJob
    """The part of maintenance."""
    tenant_id: str | None
    """The tenant of the rows. None: rows of all tenants."""
    error: str
    """The error, with its name."""


class MaintenanceReport(Model):
    """The work done by maintenance. Reports can be added."""

    append_keys: int = 0
    """The number of expired idempotency keys deleted."""
    ledger_rows: int = 0
    """The number of usage ledger rows rolled up."""
    user_months: int = 0
    """The number of months of persons that are older than `Settings.usage_retention`, whose usage
    was added to that of no person."""
    messages: int = 0
    """The number of messages added to the search index."""
    titles: int = 0
    """The number of conversation titles (id and name) added to the search index."""
    failures: tuple[MaintenanceFailure, ...] = ()
    """The tenants whose rows could not be processed. All others were."""

    def __add__(self, other: MaintenanceReport) -> MaintenanceReport:
        """Return the sum of both reports."""
        return MaintenanceReport(**{name: value + getattr(other, name) for name, value in self})


class Backlog(Model):
    """The rows of all tenants that maintenance has not processed yet."""

    ledger_rows: int
    """The number of usage ledger rows that are not rolled up."""
    messages: int
    """The number of messages outside the search index."""
    titles: int
    """The number of conversation titles (id and name) outside the search index."""
    age: float
    """The seconds since the begin of the last run that processed all rows, in any process, by the
    server's clock. No row of the backlog is older. Without such a run, the seconds since the first
    migration. A run without work is not recorded."""

    @property
    def is_empty(self) -> bool:
        """Whether maintenance has processed all rows."""
        return not (self.ledger_rows or self.messages or self.titles)


class TenantReceipt(Model):
    """The counts of a deletion of a tenant: the rows that this call deleted."""

    tenant_id: str
    """The tenant."""
    conversations: int = 0
    """The number of deleted conversations."""
    messages: int = 0
    """The number of their messages."""
    append_keys: int = 0
    """The number of their idempotency keys."""
    records: int = 0
    """The number of deleted records."""
    tokens: int = 0
    """The number of deleted API tokens."""
    audit_events: int = 0
    """The number of deleted events of the audit, with those of the deletion of the tokens."""
    usage_rows: int = 0
    """The number of deleted rows of usage: the sums, the declared zones, the keys of recorded
    usage, and the ledger, including the ledger rows of this deletion."""
    deleted_at: datetime | None
    """The time, by the server's clock, of the last pass, which found no rows of the tenant.

    None in a report of progress before the first conversations were read.
    """


class ErasureReceipt(Model):
    """The counts of an erasure of a person: the rows that this call deleted."""

    tenant_id: str
    """The tenant of the person."""
    user_id: str
    """The person."""
    conversations: int
    """The number of deleted conversations."""
    messages: int
    """The number of their messages."""
    append_keys: int
    """The number of their idempotency keys."""
    records: int
    """The number of deleted records of the person."""
    erased_at: datetime
    """The time, by the server's clock, at which no conversation or record named the person."""
