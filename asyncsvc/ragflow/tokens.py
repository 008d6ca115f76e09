"""RAGFlow's `APITokenService`, and the rows of its table `api_token` as tokens of this library.

A row has two secrets and no id. Here it is a token and a beta, and its id is that of the token,
which the beta has in its metadata. A beta that was stored without a token belongs to no row.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from asyncsvc.client import Services
from asyncsvc.errors import (
    AlreadyExists,
    AsyncSvcError,
    Conflict,
    InvalidInput,
    InvalidToken,
    NotFound,
)
from asyncsvc.models import APIToken, TokenRecord
from asyncsvc.ragflow.base import TenantService
from asyncsvc.ragflow.columns import check_columns
from asyncsvc.ragflow.conditions import Filters, values_by_column
from asyncsvc.ragflow.shapes import METADATA_KEY, Record, kept_values, times
from asyncsvc.validation.types import TokenKind

SecretColumn = Literal["token", "beta"]
SECRET_COLUMNS: Final[tuple[SecretColumn, ...]] = ("token", "beta")
_KINDS: Final[Mapping[SecretColumn, TokenKind]] = {"token": "api", "beta": "beta"}
_SHARED_FIELDS: Final = frozenset(TokenRecord.model_fields) - {"secret", "kind"}
_SETTABLE: Final = ("dialog_id", "source")
_COLUMNS: Final = frozenset(
    {*_SETTABLE, "tenant_id", "token", "beta", "hint"}
    | {"create_time", "create_date", "update_time", "update_date"}
)
_VALID: Final = {"active", "retiring"}
_ACTOR: Final = "ragflow"


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A row to store: its secrets in clear text, and the fields that both tokens share."""

    secrets: Mapping[SecretColumn, str] = field(repr=False)
    fields: Mapping[str, object]
    """Fields of `asyncsvc.models.TokenRecord`, without `secret` and `kind`."""

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> TokenRow:
        """Take the secrets `token` and `beta`, and the shared fields, from a mapping."""
        return cls(
            {name: columns[name] for name in SECRET_COLUMNS if columns.get(name)},
            {name: value for name, value in columns.items() if name in _SHARED_FIELDS},
        )

    def record(self, column: SecretColumn, *, row_id: str | None = None) -> dict[str, object]:
        """Return the record of one secret. A beta gets the id of its row."""
        record = dict(self.fields)
        metadata = record.get("metadata") or {}
        if row_id is not None and isinstance(metadata, Mapping):
            record["metadata"] = {**metadata, METADATA_KEY: {"row": row_id}}
        return record | {"secret": self.secrets[column], "kind": _KINDS[column]}


class APITokenService(TenantService):
    """API tokens of one tenant, with RAGFlow's methods, arguments and results.

    Only hashes of secrets are stored, so no row contains one: its `token` is the token's id, which
    filters accept like the secret, and `hint` is the beginning of the secret. `beta` is the
    beginning of the row's other secret, a second token that is revoked with the first. Secrets of
    RAGFlow's format need `Settings.accept_foreign_tokens`.
    """

    async def query(
        self,
        *,
        tenant_id: str | None = None,
        dialog_id: str | None = None,
        token: str | None = None,
        beta: str | None = None,
    ) -> list[Record]:
        """Return the row of a valid secret, or none; without a secret all rows, newest first.

        Cost:
            1 round trip for a secret, which is not marked as used. All rows: 1 for each 100 tokens.
        """
        if tenant_id is not None:
            self._check_tenant(tenant_id)
        rows = self._rows(self._svc)
        for secret, kind in ((token, _KINDS["token"]), (beta, _KINDS["beta"])):
            if secret is not None:
                valid = await rows.find_valid(secret, kind)
                matches = valid is not None and dialog_id in {None, valid.dialog_id}
                return [self._record([valid])] if valid and matches else []
        return [
            self._record(row)
            for row in await rows.all()
            if row[0].kind == "api" and (not dialog_id or row[0].dialog_id == dialog_id)
        ]

    async def save(self, **row: Any) -> int:  # noqa: ANN401 - RAGFlow's columns
        """Store the secrets `token` and `beta` of a row; return 1.

        Raises:
            AlreadyExists: A secret is stored already.

        Cost:
            A transaction with 1 round trip, with a beta 3.
        """
        if row.get("tenant_id") is not None:
            self._check_tenant(row["tenant_id"])
        names = {*SECRET_COLUMNS, *_SETTABLE}
        new = TokenRow.from_columns({name: row[name] for name in names & row.keys()})
        if not new.secrets:
            raise InvalidInput("token", "must be given")
        async with self._svc.transaction() as tx:
            _check_new(await self._rows(tx).import_([new]))
        return 1

    async def insert(self, **row: Any) -> int:  # noqa: ANN401 - RAGFlow's columns
        """Store the secrets of a row, like `save`."""
        return await self.save(**row)

    async def used(self, token: str) -> int:
        """Mark a token as used; return 1, or 0 if it is not valid. 2 or 3 round trips."""
        rows = self._rows(self._svc)
        if not (await rows.find_valid(token, "api") or await rows.find_valid(token, "beta")):
            return 0
        return int(await self._svc.tokens.used(token))

    async def filter_update(self, filters: Filters, update_data: Mapping[str, Any]) -> int:
        """Set `dialog_id` and `source` of a row, or its `beta`; return 1, or 0 if there is none.

        A new beta replaces the old one, which is revoked. The beginning of the current beta, as
        rows contain it, changes nothing. The other columns of a row are accepted unchanged.

        Args:
            filters: On `token`, and optionally `tenant_id` and `dialog_id`.
            update_data: Columns of a row. Both tokens of the row get `dialog_id` and `source`.

        Raises:
            InvalidInput: A column is unknown, or tenant or token differ from the row's.
            AlreadyExists: The beta is a secret of another row.

        Cost:
            A transaction with 1 round trip for each 100 betas of the tenant and some for the row.
        """
        check_columns(update_data, _COLUMNS)
        if update_data.get("tenant_id") is not None:
            self._check_tenant(update_data["tenant_id"])
        columns, beta = _settable(update_data), update_data.get("beta")
        async with self._svc.transaction() as tx:
            rows = self._rows(tx)
            token = await self._find(rows, filters)
            if token is None:
                return 0
            if update_data.get("token", token.id) not in (
                token.id,
                *self._values(filters)["token"],
            ):
                raise InvalidInput("token", "cannot be set")
            row = await rows.of(token)
            if beta and beta not in {each.hint for each in row[1:]}:
                fields = {"dialog_id": token.dialog_id, "source": token.source, **columns}
                new = TokenRow({"beta": beta}, fields)
                report = RowImportReport()
                await rows.put_beta(new, token, row[1:], report)
                _check_new(report)
                row = [token]
            for each in row if columns else ():
                await tx.tokens.update_by_id(
                    each.id, columns, tenant_id=self._tenant_id, actor=_ACTOR
                )
        return 1

    async def filter_delete(self, filters: Filters) -> int:
        """Revoke one row, or all of the tenant or of dialogs; return the number of rows.

        A row is a token with its betas, whatever their dialogs. A beta without a valid token is a
        row of its own. Revoked tokens are kept for the audit.

        Args:
            filters: On `token`, `dialog_id` or `tenant_id`.

        Cost:
            A transaction with 1 round trip for each 100 tokens of the tenant, and 2 for each
            revoked token.
        """
        if not all(self._values(filters).values()):
            return 0
        async with self._svc.transaction() as tx:
            rows = self._rows(tx)
            revoked = await self._matching(rows, filters)
            await rows.revoke(*itertools.chain(*revoked))
        return len(revoked)

    async def delete_by_tenant_id(self, tenant_id: str) -> int:
        """Delete all tokens of the tenant; return their number."""
        self._check_tenant(tenant_id)
        return await self._svc.tokens.delete_by_tenant_id(tenant_id=self._tenant_id, actor=_ACTOR)

    async def _matching(self, rows: TokenRows, filters: Filters) -> list[list[APIToken]]:
        values = self._values(filters)
        if "token" in values:
            token = await self._find(rows, filters)
            return [] if token is None else [await rows.of(token)]
        dialogs = values.get("dialog_id")
        return [row for row in await rows.all() if dialogs is None or row[0].dialog_id in dialogs]

    async def _find(self, rows: TokenRows, filters: Filters) -> APIToken | None:
        """Return the valid token of an id or a secret."""
        values = self._values(filters)
        if len(values.get("token", ())) != 1:
            raise InvalidInput("filters", "must be on one token")
        (id_or_secret,) = values["token"]
        token: APIToken | None
        try:
            token = await rows.svc.tokens.get_by_id(id_or_secret, tenant_id=self._tenant_id)
        except NotFound:
            token = await rows.find_valid(id_or_secret, "api")
        if token is None or token.status not in _VALID:
            return None
        return token if token.dialog_id in values.get("dialog_id", (token.dialog_id,)) else None

    def _values(self, filters: Filters) -> dict[str, tuple[str, ...]]:
        values = values_by_column(filters, {"tenant_id", "token", "dialog_id"})
        for tenant_id in values.get("tenant_id", ()):
            self._check_tenant(tenant_id)
        if not values:
            raise InvalidInput("filters", "must be on token, dialog_id or tenant_id")
        return values

    def _rows(self, svc: Services) -> TokenRows:
        return TokenRows(svc, self._tenant_id, _ACTOR)

    def _record(self, row: Sequence[APIToken]) -> Record:
        token = row[0]
        return Record(
            tenant_id=token.tenant_id,
            token=token.id,
            hint=token.hint,
            dialog_id=token.dialog_id,
            source=token.source,
            beta=row[1].hint if len(row) > 1 else "",
            **times(token.created_at, token.last_used_at, self._local),
        )


@dataclass(frozen=True, slots=True)
class RejectedSecret:
    """A secret that was not stored, and the reason."""

    index: int
    """The index of its row in the import."""
    column: SecretColumn
    error: AsyncSvcError


@dataclass(slots=True)
class RowImportReport:
    """The results of an import of rows, by secrets."""

    tokens: int = 0
    """Secrets that were stored."""
    present: int = 0
    """Secrets that were stored before."""
    rejected: list[RejectedSecret] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TokenRows:
    """The rows of one tenant as tokens. A stored row is a token followed by its betas."""

    svc: Services
    tenant_id: str
    actor: str | None = None
    """The name in the audit."""

    async def import_(self, rows: Sequence[TokenRow]) -> RowImportReport:
        """Store the secrets of rows as hashes, in one transaction.

        A stored secret does not change. A new beta replaces that of its row, which is revoked. A
        beta is rejected with Conflict if its token is stored and not valid any more; if its token
        is rejected, it belongs to no row.

        Cost:
            1 round trip for the tokens and 2 for each beta. If some tokens were stored, 1 more for
            each 100 betas of the tenant.
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
        """Store the beta of a token's row, or of none. If it is new, revoke the old ones."""
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
        """Store the secrets of rows with these indexes; return how many are new."""

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

        1 round trip for each 100 tokens, and 1 for each rotation of a token.
        """
        betas = await self.betas()
        rows = [[token, *await self.take_betas(token, betas)] async for token in self._valid("api")]
        return rows + [[beta] for group in betas.values() for beta in group]

    async def of(self, token: APIToken) -> list[APIToken]:
        """Return a token and its valid betas. 1 round trip for each 100 betas of the tenant."""
        return [token, *await self.take_betas(token, await self.betas())]

    async def find_valid(self, secret: str, kind: TokenKind) -> APIToken | None:
        """Return the valid token of a secret, if it belongs to this tenant. 1 round trip."""
        try:
            token = await self.svc.tokens.verify(secret, kind=kind, record_use=False)
        except InvalidToken:
            return None
        return token if token.tenant_id == self.tenant_id else None

    async def revoke(self, *tokens: APIToken, reason: str | None = None) -> None:
        """Revoke tokens and their rotated successors. 2 round trips each."""
        for token in tokens:
            await self.svc.tokens.revoke_family(
                token.id, tenant_id=self.tenant_id, reason=reason, actor=self.actor
            )

    async def revoke_secrets(self, row: TokenRow, reason: str) -> set[SecretColumn]:
        """Revoke the valid tokens of a row's secrets, with all betas of the row.

        It returns the columns of those secrets. 1 round trip for each secret. If one is valid, also
        a transaction with the cost of `of` and `revoke`.
        """
        valid = {
            column: token
            for column, secret in row.secrets.items()
            if (token := await self.find_valid(secret, _KINDS[column]))
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
        """Return the valid betas by the ids of their rows. 1 round trip for each 100."""
        betas = dict[str, list[APIToken]]()
        async for beta in self._valid("beta"):
            row_id = str(kept_values(beta).get("row", beta.id))
            betas.setdefault(row_id, []).append(beta)
        return betas

    async def take_betas(self, token: APIToken, betas: dict[str, list[APIToken]]) -> list[APIToken]:
        """Remove the betas of a token, and of those it was rotated from, and return them."""
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
                if token.status in _VALID:
                    yield token
            if page.next is None:
                return
            after = page.next


def _settable(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a row that can be set."""
    return {name: row[name] for name in _SETTABLE if name in row}


def _check_new(report: RowImportReport) -> None:
    """Raise the error of a secret that was not stored now."""
    if report.rejected:
        raise report.rejected[0].error
    if report.present:
        raise AlreadyExists("the tenant has a token with this secret")
