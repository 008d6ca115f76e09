"""Imports of conversations and tokens from RAGFlow's database. RAGFlow may run meanwhile.

The import reads, repairs and stores conversations page by page. It stores a conversation completely
or not at all. A stored conversation does not change, but gets the messages that RAGFlow has added
since. A second run continues an interrupted import, and a run after the switch imports the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Final, Literal

from asyncsvc.client import Services
from asyncsvc.errors import AlreadyExists, AsyncSvcError, Conflict, InvalidInput
from asyncsvc.ragflow import repair
from asyncsvc.ragflow.conversation_import import import_conversations
from asyncsvc.ragflow.drivers import Cells
from asyncsvc.ragflow.reports import DataImportReport, Note, Progress, Skip, TableReport
from asyncsvc.ragflow.source import CONVERSATIONS, MAX_ROW_BYTES, TOKENS, Source, open_source
from asyncsvc.ragflow.token_rows import SECRET_COLUMNS, SecretColumn, TokenRow, TokenRows
from asyncsvc.services.credentials import hint, is_strong
from asyncsvc.settings import Settings
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.dates import zone
from asyncsvc.validation.types import Actor, Id, Zone

_REVOKED: Final = "0"
"""The status of a revoked token."""

Part = Literal["conversations", "tokens"]


class DataImport:
    """Imports the data of a RAGFlow database.

    The role of the services needs the rights of `import_`. Imported tokens need
    `Settings.accept_foreign_tokens`, in the import and in the application.
    """

    def __init__(self, svc: Services) -> None:
        """Store the data with these services."""
        self._svc = svc

    @property
    def settings(self) -> Settings:
        """The settings, whose limits apply to the arguments of `run`."""
        return self._svc.conversations.settings

    @validated
    async def run(
        self,
        source: str,
        *,
        tz: Zone = "UTC",
        tenant_id: Id | None = None,
        orphans: Id | None = None,
        only: Part | None = None,
        after: Id | None = None,
        dry_run: bool = False,
        actor: Actor | None = None,
        on_batch: Callable[[DataImportReport], None] | None = None,
        on_note: Callable[[Note], None] | None = None,
    ) -> DataImportReport:
        """Import conversations and tokens.

        If the stored messages of a conversation are the start of those in the source, the others
        are appended. Usage by activity attributes them to the time of the import. A token that was
        revoked in the source is revoked with the betas of its row. A beta that was replaced in the
        source is replaced.

        After a failure the stored batches remain, and a second call imports the rest.

        Args:
            source: The URL of the database, `mysql://…` or `postgresql://…`. The import only reads
                it.
            tz: The time zone of RAGFlow's server, for columns with a local time.
            tenant_id: Only the rows of this tenant. None: of all tenants.
            orphans: The tenant of conversations whose dialog and agent were deleted. None: these
                are skipped.
            only: Only this table. None: both.
            after: Only conversations after this id, in the order of the source.
            dry_run: Roll back each batch.
            actor: The actor in the audit of the tokens.
            on_batch: Called with the report after each batch.
            on_note: Called with each skipped or repaired row.

        Returns:
            The numbers of read, imported, updated, present and skipped rows.

        Raises:
            InvalidInput: An argument or the URL is invalid, the database is not RAGFlow's, or
                `orphans` is set and the table of agents is unreadable.
            Unavailable: One of the databases does not answer. The text of the error names the
                source if it is the source.
            DatabaseError: A statement on one of the databases failed.

        Cost:
            2 statements on the source for each page of at most 500 rows and 4 MiB, or of 1 larger
            row. 1 page is in memory. 1 `import_` for each page and tenant; 2 round trips for each
            conversation with new messages, and 1 for each of their turns; 2 for each beta; 1 for
            each revoked row, and 2 for each of its tokens.
        """
        if tenant_id is not None and orphans not in {None, tenant_id}:
            raise InvalidInput("orphans", "must be the only tenant that is imported")
        progress = Progress(dry_run=dry_run, after=after, on_batch=on_batch, on_note=on_note)
        run = _Run(
            svc=self._svc,
            tz=zone(tz),
            tenant_id=tenant_id,
            orphans=orphans,
            actor=actor,
            progress=progress,
        )
        allow_clear_text = self.settings.allow_clear_text_password
        async with open_source(source, allow_clear_text=allow_clear_text) as tables:
            progress.missing = tables.missing
            if orphans is not None and only != "tokens" and not tables.has_agents:
                raise InvalidInput(
                    "orphans", "cannot be distinguished from agents without user_canvas"
                )
            if only != "tokens":
                await run.import_conversations(tables)
            if only != "conversations":
                await run.import_tokens(tables)
        return progress.report()


class _RolledBackError(Exception):
    """Rolls back the transaction of a dry run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One run of an import."""

    svc: Services
    tz: tzinfo
    tenant_id: str | None
    orphans: str | None
    actor: str | None
    progress: Progress

    @asynccontextmanager
    async def _batch(self) -> AsyncIterator[Services]:
        """Yield the services of a batch; in a dry run, roll back its writes."""
        if not self.progress.dry_run:
            yield self.svc
            return
        with suppress(_RolledBackError):
            async with self.svc.transaction() as svc:
                yield svc
                raise _RolledBackError

    # --------------------------------------------------------- conversations

    async def import_conversations(self, source: Source) -> None:
        progress = self.progress
        if not source.can_read(CONVERSATIONS):
            progress.skipped_tables += (CONVERSATIONS,)
            return
        orphans = self.orphans is not None and self.orphans == self.tenant_id
        progress.total = await source.count(
            after=progress.after, tenant_id=self.tenant_id, orphans=orphans
        )
        progress.end_batch()
        async for page in source.pages(
            after=progress.after, tenant_id=self.tenant_id, orphans=orphans
        ):
            read = len(page.rows) + len(page.too_long)
            progress.conversations += TableReport(read=read)
            for id in page.too_long:
                reason = f"is longer than {MAX_ROW_BYTES // 2**20} MiB"
                progress.skip(CONVERSATIONS, id, Skip.TOO_LONG, reason)
            async with self._batch() as svc:
                for tenant_id, rows in self._repaired_by_tenant(page.rows).items():
                    await import_conversations(svc, rows, progress, tenant_id=tenant_id)
            progress.after = page.last_id
            progress.end_batch()

    def _repaired_by_tenant(
        self, rows: Sequence[Cells]
    ) -> dict[str, list[repair.RepairedConversation]]:
        """Repair rows and group them by tenant; skip rows without a tenant and unusable rows."""
        by_tenant = dict[str, list[repair.RepairedConversation]]()
        for row in rows:
            tenant_id = row["dialog_tenant_id"] or row.get("agent_tenant_id") or self.orphans
            if not tenant_id:
                reason = "its dialog or agent was deleted; --orphans sets the tenant of such rows"
                self.progress.skip(CONVERSATIONS, row["id"], Skip.NO_TENANT, reason)
                continue
            try:
                repaired = repair.repair_conversation(row, self.tz, self.svc.conversations.settings)
            except repair.UnusableRowError as error:
                self.progress.skip(CONVERSATIONS, row["id"], Skip.TOO_LONG, str(error))
            else:
                by_tenant.setdefault(tenant_id, []).append(repaired)
        return by_tenant

    # ---------------------------------------------------------------- tokens

    async def import_tokens(self, source: Source) -> None:
        """Import all tokens. A dry run is 1 transaction, in which equal secrets are found."""
        if not source.can_read(TOKENS):
            self.progress.skipped_tables += (TOKENS,)
            return
        numbers = itertools.count(1)
        async with self._batch() as svc:
            async for page in source.tokens(tenant_id=self.tenant_id):
                by_tenant = dict[str, list[_SourceToken]]()
                for row in page:
                    token = _SourceToken.from_cells(next(numbers), row, self.tz)
                    by_tenant.setdefault(row["tenant_id"], []).append(token)
                for tenant_id, tokens in by_tenant.items():
                    await self._import_token_rows(TokenRows(svc, tenant_id, self.actor), tokens)
                self.progress.end_batch()

    async def _import_token_rows(self, stored: TokenRows, tokens: Sequence[_SourceToken]) -> None:
        self.progress.tokens += TableReport(read=sum(len(token.row.secrets) for token in tokens))
        await self._store_tokens(stored, [token for token in tokens if not token.is_revoked])
        for token in tokens:
            if token.is_revoked:
                await self._revoke_token(stored, token)

    async def _store_tokens(self, stored: TokenRows, tokens: Sequence[_SourceToken]) -> None:
        try:
            report = await stored.import_([token.row for token in tokens])
        except InvalidInput as error:
            if error.field != "tenant_id":
                raise
            for token in tokens:
                self._skip_secrets(token, list(token.row.secrets), Skip.REJECTED, str(error))
            return
        self.progress.tokens += TableReport(imported=report.tokens, present=report.present)
        for rejected in report.rejected:
            token = tokens[rejected.index]
            kind = token.skip_kind(rejected.column, rejected.error)
            self._skip_secrets(token, [rejected.column], kind, str(rejected.error))

    async def _revoke_token(self, stored: TokenRows, token: _SourceToken) -> None:
        """Revoke the tokens of a row that is revoked in the source."""
        revoked = await stored.revoke_secrets(token.row, "revoked in RAGFlow")
        self.progress.tokens += TableReport(updated=len(revoked))
        others = [column for column in token.row.secrets if column not in revoked]
        self._skip_secrets(token, others, Skip.REVOKED, "is revoked in RAGFlow")

    def _skip_secrets(
        self, token: _SourceToken, columns: Sequence[SecretColumn], kind: Skip, reason: str
    ) -> None:
        for column in columns:
            self.progress.skip(TOKENS, token.secret_name(column), kind, reason)


@dataclass(frozen=True, slots=True)
class _SourceToken:
    """A row of api_token."""

    name: str
    """The tenant and the number of the row, for notes."""
    row: TokenRow = field(repr=False)
    is_revoked: bool

    @classmethod
    def from_cells(cls, number: int, cells: Cells, tz: tzinfo) -> _SourceToken:
        secrets: dict[str, object] = {
            name: repair.cell_text(cells.get(name)) for name in SECRET_COLUMNS
        }
        row = TokenRow.from_columns({**secrets, **repair.token_fields(cells, tz)})
        return cls(f"{cells['tenant_id']}, row {number}", row, cells.get("status") == _REVOKED)

    def secret_name(self, column: SecretColumn) -> str:
        """Return a name of a secret, which contains only its hint."""
        return f"{self.name}, {column} {hint(self.row.secrets[column].get_secret_value())}…"

    def skip_kind(self, column: SecretColumn, error: AsyncSvcError) -> Skip:
        """Return the kind of note for a rejected secret."""
        if isinstance(error, AlreadyExists):
            return Skip.TAKEN
        if isinstance(error, Conflict):
            return Skip.REVOKED
        is_about_secret = isinstance(error, InvalidInput) and error.field == "secret"
        is_weak = is_about_secret and not is_strong(self.row.secrets[column].get_secret_value())
        return Skip.WEAK if is_weak else Skip.REJECTED
