"""The report of an import from RAGFlow's database, and its notes about single rows."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from asyncsvc.models import Model
from asyncsvc.ragflow.source import CONVERSATIONS

_MAX_NAMED_IDS: Final = 5


class Skip(enum.StrEnum):
    """The reason why a row was not imported."""

    NO_TENANT = "no_tenant"
    """Its dialog or agent was deleted, so its tenant is unknown."""
    TOO_LONG = "too_long"
    """It is too long to read, or its messages are unreadable and too long to be kept as text."""
    REJECTED = "rejected"
    """It violates a rule and cannot be repaired. The reason names the rule."""
    DIVERGED = "diverged"
    """A conversation with this id exists, and its messages are not the start of this one."""
    TAKEN = "taken"
    """The secret belongs to another tenant, or to a token of another kind."""
    WEAK = "weak"
    """The secret is short, so that its hash would reveal it without a pepper."""
    REVOKED = "revoked"
    """The token was revoked in RAGFlow and is not valid here, or it is a beta of such a token."""


class Repair(enum.StrEnum):
    """A change to a row that made it storable."""

    UNWRAPPED = "json_in_json"
    """JSON within a JSON string was replaced by its value."""
    CHARACTERS = "characters"
    """NUL and lone surrogates, which PostgreSQL cannot store, were replaced by U+FFFD."""
    NUMBERS = "numbers"
    """NaN and infinity became null, and integers of over 4,300 digits became text."""
    DUPLICATE_KEYS = "duplicate_keys"
    """An object has a key twice, and only the last value was kept, as in RAGFlow."""
    DEPTH = "depth"
    """Values nested deeper than `Settings.max_json_depth` became their JSON as text."""
    NOT_JSON = "not_json"
    """A cell that is not JSON, or too deep for Python to parse, was kept as text."""
    SHAPE = "shape"
    """A cell that is not a list, or a message that is not an object, was kept in the metadata."""
    ROLE = "role"
    """A message without a valid role got the role "unknown"; the payload keeps the old one."""
    CONTENT = "content"
    """Content that is not text became text; the payload keeps the old one."""
    REFERENCES = "references"
    """References after the last answer were kept in the metadata."""
    THUMBS = "thumbs"
    """Thumbs that only the row counted were assigned to the last answers."""
    COUNTERS = "counters"
    """An invalid counter became 0 and was kept in the metadata."""
    TIMES = "times"
    """A missing or invalid time was replaced by another time of the row."""
    USERS = "users"
    """A user id of over 128 characters was shortened, and kept whole in the metadata."""
    LOST = "lost"
    """A value exceeded the limits and was dropped. Higher limits in the settings keep it."""


class Note(Model):
    """A row that was skipped or repaired, and the reason.

    `row` is the id of a conversation. For a token it is the tenant, the number of the row and the
    hint of the secret.
    """

    table: str
    row: str
    kind: Skip | Repair
    reason: str


class TableReport(Model):
    """The results for the rows of one table: `read` is the sum of all other counts.

    Each secret of a token row counts as one row.
    """

    read: int = 0
    imported: int = 0
    updated: int = 0
    """Existing conversations with new messages, and revoked tokens."""
    present: int = 0
    """Existing rows that did not change."""
    skipped: Mapping[Skip, int] = {}

    def __add__(self, other: TableReport) -> TableReport:
        """Return the sums of both."""
        return TableReport(
            read=self.read + other.read,
            imported=self.imported + other.imported,
            updated=self.updated + other.updated,
            present=self.present + other.present,
            skipped=Counter(self.skipped) + Counter(other.skipped),
        )


class RepairCount(Model):
    """The number of conversations with one kind of repair, and the first 5 ids."""

    rows: int
    ids: tuple[str, ...]


class DataImportReport(Model):
    """The results of an import, or in a dry run the results that it would have."""

    dry_run: bool
    total: int
    """The number of conversations to read when the import began."""
    conversations: TableReport
    messages: int
    """The number of messages stored."""
    tokens: TableReport
    repaired: Mapping[Repair, RepairCount]
    """The repairs of the conversations that are stored now, by this import or an earlier one."""
    skipped_tables: tuple[str, ...]
    """Tables that lack a required column."""
    missing: tuple[str, ...]
    """All tables and columns that this version of RAGFlow lacks."""
    after: str | None
    """The id to pass as `after` to continue an interrupted import."""

    @property
    def is_complete(self) -> bool:
        """Whether no row was skipped, nothing was dropped and no table was skipped."""
        skipped = {**self.conversations.skipped, **self.tokens.skipped}
        return not skipped and not self.skipped_tables and Repair.LOST not in self.repaired


@dataclass(slots=True, kw_only=True)
class Progress:
    """The report of a running import, and the callbacks of the caller."""

    dry_run: bool
    after: str | None
    on_batch: Callable[[DataImportReport], None] | None
    on_note: Callable[[Note], None] | None
    total: int = 0
    messages: int = 0
    conversations: TableReport = field(default_factory=TableReport)
    tokens: TableReport = field(default_factory=TableReport)
    repaired: dict[Repair, RepairCount] = field(default_factory=dict)
    skipped_tables: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def report(self) -> DataImportReport:
        """Return the report so far."""
        return DataImportReport.model_validate(self, from_attributes=True)

    def end_batch(self) -> None:
        """Call `on_batch`."""
        if self.on_batch is not None:
            self.on_batch(self.report())

    def skip(self, table: str, row: str, kind: Skip, reason: str) -> None:
        """Count a row that is not imported, and report it."""
        skipped = TableReport(skipped={kind: 1})
        if table == CONVERSATIONS:
            self.conversations += skipped
        else:
            self.tokens += skipped
        self._report_row(table, row, kind, reason)

    def repair(self, id: str, repairs: Mapping[Repair, str]) -> None:
        """Count the repairs of a stored conversation, and report each with its place."""
        for kind, place in repairs.items():
            before = self.repaired.get(kind, RepairCount(rows=0, ids=()))
            ids = (*before.ids, id)[:_MAX_NAMED_IDS]
            self.repaired[kind] = RepairCount(rows=before.rows + 1, ids=ids)
            self._report_row(CONVERSATIONS, id, kind, place)

    def _report_row(self, table: str, row: str, kind: Skip | Repair, reason: str) -> None:
        if self.on_note is not None:
            self.on_note(Note(table=table, row=row, kind=kind, reason=reason))
