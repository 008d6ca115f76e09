"""Loads tokens that another system issued: hashed at once, stored in batches, none twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from asyncsvc.errors import AlreadyExists, AsyncSvcError, Conflict, InvalidInput
from asyncsvc.models import TokenImportReport, TokenRecord, TokenRecords
from asyncsvc.repositories import APITokenRepository
from asyncsvc.services.common import new_id
from asyncsvc.services.credentials import UNPEPPERED, Keyring, hint, is_foreign, is_ours, is_strong
from asyncsvc.services.record_reader import OnRejected, RecordReader

if TYPE_CHECKING:
    from asyncsvc.settings import Settings

_TOKENS_AT_ONCE: Final = 1_000
_ROUNDS: Final = 5
_BESIDE: Final = ("name", "scopes", "dialog_id", "source", "metadata")


class TokenLoad:
    """One load of tokens into one tenant."""

    def __init__(
        self,
        tokens: APITokenRepository,
        settings: Settings,
        tenant_id: str,
        actor: str | None,
        on_rejected: OnRejected | None,
    ) -> None:
        """Store by this repository, and hand what is rejected to `on_rejected`, or raise it."""
        self._tokens = tokens
        self._keyring = Keyring(settings)
        self._settings = settings
        self._tenant_id = tenant_id
        self._actor = actor
        self._reader = RecordReader(TokenRecord, settings, on_rejected)
        self._loaded = self._present = 0

    async def run(self, records: TokenRecords) -> TokenImportReport:
        """Store all records, batch by batch."""
        batch: list[tuple[int, TokenRecord]] = []
        async for place, record in self._reader.read(records):
            wrong = self._unusable(_text(record)) or _repeated(record)
            if wrong is not None:
                self._reader.reject(place, wrong)
                continue
            batch.append((place, record))
            if len(batch) == _TOKENS_AT_ONCE:
                await self._store(batch)
                batch = []
        await self._store(batch)
        return TokenImportReport(
            tokens=self._loaded, present=self._present, rejected=self._reader.rejected
        )

    def _unusable(self, secret: str) -> AsyncSvcError | None:
        if is_ours(secret):
            return None
        if not is_foreign(secret, self._settings.token_prefix):
            return InvalidInput(
                "secret", "must be 1 to 255 visible characters of ASCII, and not look like ours"
            )
        if not self._settings.accept_foreign_tokens:
            return InvalidInput(
                "secret", "is not of our format: without Settings.accept_foreign_tokens it is void"
            )
        if not is_strong(secret) and self._keyring.version == UNPEPPERED:
            return InvalidInput(
                "secret", "is so short that its hash gives it away: set Settings.token_peppers"
            )
        return None

    async def _store(self, batch: Sequence[tuple[int, TokenRecord]]) -> None:
        for _ in range(_ROUNDS):  # a secret that somebody else is storing now is asked for again
            if not batch:
                return
            outcomes = await self._tokens.load(
                tenant_id=self._tenant_id,
                pepper_version=self._keyring.version,
                actor=self._actor,
                tokens=[self._row(record) for _, record in batch],
                hashes=[self._keyring.hashes(_text(record)) for _, record in batch],
            )
            self._loaded += outcomes.count("loaded")
            self._present += outcomes.count("present")
            told = list(zip(batch, outcomes, strict=True))
            for (place, _), outcome in told:
                if outcome == "taken":
                    self._reader.reject(
                        place, AlreadyExists("the secret is that of another token already")
                    )
            batch = [each for each, outcome in told if outcome is None]
        if batch:
            raise Conflict("the same tokens come and go meanwhile; try again")

    def _row(self, record: TokenRecord) -> dict[str, object]:
        secret = _text(record)
        kept = {"token_hash": self._keyring.hash(secret), "hint": hint(secret)}
        return {"id": new_id(), **dict(record), **kept}


def _repeated(record: TokenRecord) -> AsyncSvcError | None:
    """Refuse what would leave the secret in clear text beside its hash.

    A short secret may be a part of a word, and is told from one by nobody.
    """
    secret = _text(record)
    beside = json.dumps([getattr(record, name) for name in _BESIDE])
    if is_strong(secret) and json.dumps(secret)[1:-1] in beside:
        return InvalidInput("secret", "must not stand in another field too")
    return None


def _text(record: TokenRecord) -> str:
    secret = record.secret
    return secret.get_secret_value() if isinstance(secret, SecretStr) else secret
