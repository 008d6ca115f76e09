"""Import of tokens that another system issued: hash their secrets and store them in batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from asyncsvc.errors import AlreadyExists, Conflict, InvalidInput
from asyncsvc.models import TokenImportReport, TokenRecord, TokenRecords
from asyncsvc.repositories import APITokenRepository
from asyncsvc.repositories.api_token import NewToken
from asyncsvc.services.common import new_id
from asyncsvc.services.credentials import (
    UNPEPPERED,
    Keyring,
    has_foreign_format,
    has_own_format,
    is_strong,
)
from asyncsvc.services.record_reader import OnRejected, RecordReader

if TYPE_CHECKING:
    from asyncsvc.settings import Settings

_BATCH_SIZE: Final = 1_000
_MAX_ATTEMPTS: Final = 5
_CLEAR_TEXT_FIELDS: Final = ("name", "scopes", "dialog_id", "source", "metadata")


class TokenImport:
    """One import of tokens into one tenant."""

    def __init__(
        self,
        tokens: APITokenRepository,
        settings: Settings,
        tenant_id: str,
        actor: str | None,
        on_rejected: OnRejected | None,
    ) -> None:
        """Import by this repository. Without `on_rejected` a rejected record raises its error."""
        self._tokens = tokens
        self._settings = settings
        self._tenant_id = tenant_id
        self._actor = actor
        self._reader = RecordReader(TokenRecord, settings, on_rejected)
        self._keyring = Keyring(settings)
        self._imported = self._present = 0

    async def run(self, records: TokenRecords) -> TokenImportReport:
        """Import all records, batch by batch."""
        batch: list[tuple[int, TokenRecord]] = []
        valid_records = self._reader.read(records)
        del records  # a frame of a traceback must not show their secrets
        async for index, record in valid_records:
            error = self._error_of_secret(_clear_text(record)) or _error_of_copies(record)
            if error is not None:
                self._reader.reject(index, error)
                continue
            batch.append((index, record))
            if len(batch) == _BATCH_SIZE:
                await self._store(batch)
                batch = []
        await self._store(batch)
        return TokenImportReport(
            tokens=self._imported, present=self._present, rejected=self._reader.rejected
        )

    def _error_of_secret(self, secret: str) -> InvalidInput | None:
        """Return the reason why a secret cannot be imported."""
        if has_own_format(secret):
            return None
        if not has_foreign_format(secret, self._settings.token_prefix):
            return InvalidInput(
                "secret",
                "must be 1 to 255 visible ASCII characters, and not a mistyped secret of asyncsvc",
            )
        if not self._settings.accept_foreign_tokens:
            return InvalidInput(
                "secret", "has the format of another system: set Settings.accept_foreign_tokens"
            )
        if not is_strong(secret) and self._keyring.version == UNPEPPERED:
            return InvalidInput(
                "secret", "is so short that its hash reveals it: set Settings.token_peppers"
            )
        return None

    async def _store(self, batch: Sequence[tuple[int, TokenRecord]]) -> None:
        """Store a batch; retry the tokens that a concurrent transaction stored first."""
        for _ in range(_MAX_ATTEMPTS):
            if not batch:
                return
            outcomes = await self._tokens.import_many(
                [self._new_token(record) for _, record in batch],
                accepted_hashes=[
                    self._keyring.accepted_hashes(_clear_text(record)) for _, record in batch
                ],
                tenant_id=self._tenant_id,
                actor=self._actor,
            )
            self._imported += outcomes.count("imported")
            self._present += outcomes.count("present")
            undecided = []
            for (index, record), outcome in zip(batch, outcomes, strict=True):
                if outcome == "taken":
                    self._reader.reject(index, AlreadyExists("another token has this secret"))
                elif outcome is None:
                    undecided.append((index, record))
            batch = undecided
        if batch:
            raise Conflict("concurrent calls store and delete the same tokens; try again")

    def _new_token(self, record: TokenRecord) -> NewToken:
        return NewToken(
            id=new_id(),
            secret=self._keyring.hash(_clear_text(record)),
            name=record.name,
            kind=record.kind,
            scopes=record.scopes,
            dialog_id=record.dialog_id,
            source=record.source,
            metadata=record.metadata,
            created_at=record.created_at,
            expires_at=record.expires_at,
        )


def _error_of_copies(record: TokenRecord) -> InvalidInput | None:
    """Return an error if another field would store the secret in clear text.

    Short secrets are not checked, since they may be part of a word.
    """
    secret = _clear_text(record)
    if not is_strong(secret):
        return None
    fields = json.dumps([getattr(record, name) for name in _CLEAR_TEXT_FIELDS])
    if json.dumps(secret)[1:-1] in fields:
        return InvalidInput("secret", "must not be part of another field")
    return None


def _clear_text(record: TokenRecord) -> str:
    secret = record.secret
    return secret.get_secret_value() if isinstance(secret, SecretStr) else secret
