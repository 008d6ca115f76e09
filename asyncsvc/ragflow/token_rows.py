"""The rows of RAGFlow's table `api_token` as tokens of this library.

A row of RAGFlow has 2 secrets and no id. In this library it is a token and a beta. The id of the
row is that of the token, and is in the metadata of the beta. A beta without a token belongs to no
row.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from pydantic import SecretStr

from asyncsvc.client import Services
from asyncsvc.errors import AsyncSvcError, Conflict, InvalidInput, InvalidToken
from asyncsvc.models import APIToken, TokenRecord
from asyncsvc.ragflow.shapes import METADATA_KEY, kept_values
from asyncsvc.validation.types import TokenKind

SecretColumn = Literal["token", "beta"]
SECRET_COLUMNS: Final[tuple[SecretColumn, ...]] = ("token", "beta")
KINDS: Final[Mapping[SecretColumn, TokenKind]] = {"token": "api", "beta": "beta"}
VALID: Final = frozenset({"active", "retiring"})
"""The statuses of valid tokens."""
_SHARED_FIELDS: Final = frozenset(TokenRecord.model_fields) - {"secret", "kind"}


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A row to store: its secrets, and the fields of both tokens."""

    secrets: Mapping[SecretColumn, SecretStr]
    fields: Mapping[str, object]
    """Fields of `asyncsvc.models.TokenRecord`, without `secret` and `kind`."""

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> TokenRow:
        """Build a row from a mapping with `token`, `beta` and shared fields. Others are ignored."""
        return cls(
            {name: _hidden(columns[name]) for name in SECRET_COLUMNS if columns.get(name)},
            {name: value for name, value in columns.items() if name in _SHARED_FIELDS},
        )

    def record(self, column: SecretColumn, *, row_id: str | None = None) -> dict[str, object]:
        """Return the record of one secret; `row_id` is the row of a beta."""
        record = dict(self.fields)
        metadata = record.get("metadata") or {}
        if row_id is not None and isinstance(metadata, Mapping):
            record["metadata"] = {**metadata, METADATA_KEY: {"row": row_id}}
        return record | {"secret": self.secrets[column], "kind": KINDS[column]}


def _hidden(secret: object) -> SecretStr:
    """Return the secret as SecretStr. Raises InvalidInput if it is not text."""
    if not isinstance(secret, str | SecretStr):
        raise InvalidInput("secret", "must be text")
    return secret if isinstance(secret, SecretStr) else SecretStr(secret)


@dataclass(frozen=True, slots=True)
class RejectedSecret:
    """A rejected secret, and the reason."""

    index: int
    """The index of its row in the import."""
    column: SecretColumn
    error: AsyncSvcError


@dataclass(slots=True)
class RowImportReport:
    """The result of an import of rows. It counts secrets."""

    tokens: int = 0
    """The number of secrets that the import stored."""
    present: int = 0
    """The number of secrets that were stored before."""
    rejected: list[RejectedSecret] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TokenRows:
    """The rows of one tenant. A stored row is a list: a token, then its betas."""

    svc: Services
    tenant_id: str
    actor: str | None = None
    """The actor in the audit."""

    async def import_(self, rows: Sequence[TokenRow]) -> RowImportReport:
        """Store the secrets of rows as hashes, in 1 transaction.

        A stored secret does not change. A new beta replaces the old one of its row, which is
        revoked. If the token of a beta is stored but no longer valid, the beta is rejected with
        Conflict. If the token is rejected, the beta belongs to no row.

        Returns:
            The numbers of stored and present secrets, and the rejected ones.

        Cost:
            1 round trip for the tokens and 2 for each beta. If a token was stored before, 1 more
            for each 100 betas of the tenant.
        """
        report = RowImportReport()
        async with self.svc.transaction() as tx:
            stored = replace(self, svc=tx)
            indexes = [index for index, row in enumerate(rows) if "token" in row.secrets]
            records = [rows[index].record("token") for index in indexes]
            await stored.import_secrets("token", indexes, records, report)
            rejected = {each.index for each in report.rejected}
            betas = await stored.betas() if report.present else {}
            for index, row in enumerate(rows):
                if "beta" not in row.secrets:
                    continue
                token, old = None, list[APIToken]()
                if "token" in row.secrets and index not in rejected:
                    token = await stored.find_valid(row.secrets["token"], "api")
                    if token is None:
                        error = Conflict("its token is not valid here any more")
                        report.rejected.append(RejectedSecret(index, "beta", error))
                        continue
                    old = await stored.take_betas(token, betas)
                await stored.put_beta(row, token, old, report, index=index)
        return report

    async def put_beta(
        self,
        row: TokenRow,
        token: APIToken | None,
        old: Sequence[APIToken],
        report: RowImportReport,
        *,
        index: int = 0,
    ) -> None:
        """Store a beta, of the row of a token or of no row. A new beta revokes the old ones."""
        record = row.record("beta", row_id=None if token is None else token.id)
        if await self.import_secrets("beta", [index], [record], report):
            await self.revoke(*old, reason="replaced")

    async def import_secrets(
        self,
        column: SecretColumn,
        indexes: Sequence[int],
        records: Sequence[Mapping[str, object]],
        report: RowImportReport,
    ) -> int:
        """Store one secret of each row, by `indexes`; return the number of new secrets."""

        def reject(position: int, error: AsyncSvcError) -> None:
            report.rejected.append(RejectedSecret(indexes[position], column, error))

        imported = await self.svc.tokens.import_(
            records, tenant_id=self.tenant_id, actor=self.actor, on_rejected=reject
        )
        report.tokens += imported.tokens
        report.present += imported.present
        return imported.tokens

    async def all(self) -> list[list[APIToken]]:
        """Return all rows of valid tokens, newest first, then the betas without a valid token.

        Cost:
            1 round trip for each 100 tokens, and 1 for each rotation of a token.
        """
        betas = await self.betas()
        rows = [[token, *await self.take_betas(token, betas)] async for token in self._valid("api")]
        return rows + [[beta] for group in betas.values() for beta in group]

    async def of(self, token: APIToken) -> list[APIToken]:
        """Return a token and its valid betas.

        Cost:
            1 round trip for each 100 betas of the tenant.
        """
        return [token, *await self.take_betas(token, await self.betas())]

    async def find_valid(self, secret: object, kind: TokenKind) -> APIToken | None:
        """Return the valid token of a secret, or None if it has none in this tenant.

        Cost:
            1 round trip.
        """
        if not isinstance(secret, str | SecretStr):
            return None
        verification = self.svc.tokens.verify(secret, kind=kind, record_use=False)
        del secret  # a frame of a traceback must not show it
        try:
            token = await verification
        except InvalidToken:
            return None
        return token if token.tenant_id == self.tenant_id else None

    async def revoke(self, *tokens: APIToken, reason: str | None = None) -> None:
        """Revoke tokens and their rotated successors.

        Cost:
            2 round trips for each token.
        """
        for token in tokens:
            await self.svc.tokens.revoke_family(
                token.id, tenant_id=self.tenant_id, reason=reason, actor=self.actor
            )

    async def revoke_secrets(self, row: TokenRow, reason: str) -> set[SecretColumn]:
        """Revoke the valid tokens of the secrets of a row, with all betas of the row.

        Returns:
            The columns of the secrets whose tokens were valid.

        Cost:
            1 round trip for each secret. If one is valid, also a transaction with the cost of `of`
            and `revoke`.
        """
        valid = {
            column: token
            for column, secret in row.secrets.items()
            if (token := await self.find_valid(secret, KINDS[column]))
        }
        if valid:
            async with self.svc.transaction() as tx:
                rows = replace(self, svc=tx)
                revoked = list(valid.values())
                if "token" in valid:
                    revoked += await rows.of(valid["token"])
                await rows.revoke(*{each.id: each for each in revoked}.values(), reason=reason)
        return set(valid)

    async def betas(self) -> dict[str, list[APIToken]]:
        """Return the valid betas, by the id of their row.

        Cost:
            1 round trip for each 100 betas.
        """
        betas = dict[str, list[APIToken]]()
        async for beta in self._valid("beta"):
            row_id = str(kept_values(beta).get("row", beta.id))
            betas.setdefault(row_id, []).append(beta)
        return betas

    async def take_betas(self, token: APIToken, betas: dict[str, list[APIToken]]) -> list[APIToken]:
        """Remove and return the betas of a token and of the tokens before its rotations."""
        taken = betas.pop(token.id, [])
        while token.rotated_from is not None:
            token = await self.svc.tokens.get_by_id(token.rotated_from, tenant_id=self.tenant_id)
            taken = taken + betas.pop(token.id, [])
        return taken

    async def _valid(self, kind: TokenKind) -> AsyncIterator[APIToken]:
        after = None
        while True:
            page = await self.svc.tokens.get_list(tenant_id=self.tenant_id, kind=kind, after=after)
            for token in page.items:
                if token.status in VALID:
                    yield token
            if page.next is None:
                return
            after = page.next
