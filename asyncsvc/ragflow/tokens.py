"""RAGFlow's `APITokenService`."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from asyncsvc.client import Services
from asyncsvc.errors import AlreadyExists, InvalidInput
from asyncsvc.models import APIToken
from asyncsvc.ragflow.arguments import storable_ids
from asyncsvc.ragflow.columns import check_columns, select
from asyncsvc.ragflow.common import Columns, CommonService
from asyncsvc.ragflow.conditions import APIToken as Column
from asyncsvc.ragflow.conditions import Filters, ValuesByColumn, satisfies, values_by_column
from asyncsvc.ragflow.shapes import Record, times
from asyncsvc.ragflow.token_rows import (
    KINDS,
    SECRET_COLUMNS,
    VALID,
    RowImportReport,
    TokenRow,
    TokenRows,
)

_SETTABLE: Final = ("dialog_id", "source")
_COLUMNS: Final = frozenset(
    {*_SETTABLE, "tenant_id", "token", "beta", "hint"}
    | {"create_time", "create_date", "update_time", "update_date"}
)
_ACTOR: Final = "ragflow"


class APITokenService(CommonService):
    """API tokens of one tenant, with RAGFlow's methods, arguments and results.

    Only hashes of secrets are stored, so no row contains a secret. `token` of a row is the id of
    the token, and `hint` the beginning of its secret. The beta of a row is a second token, which is
    revoked with the first; `beta` is the beginning of its secret. `query` finds a row by its secret
    only, because an id is no credential. `filter_update` and `filter_delete` also accept the id.
    Methods by id take the id of the token. Secrets of RAGFlow's format need
    `Settings.accept_foreign_tokens`.
    """

    resource = "token"
    filter_columns = _COLUMNS

    async def get_by_ids(self, pids: Collection[str], cols: Columns = None) -> list[Record]:
        """Return the rows of valid tokens with these ids.

        Args:
            pids: The ids of tokens.
            cols: The columns of the records; all by default.

        Cost:
            1 round trip; for each row, 1 for each 100 betas of the tenant.
        """
        ids = storable_ids(pids, "pids")
        rows = self._token_rows(self._svc)
        stored = await self._svc.tokens.get_by_ids(ids, tenant_id=self._tenant_id)
        tokens = [each for each in stored if each.kind == "api" and each.status in VALID]
        return [select(self._record(await rows.of(token)), cols) for token in tokens]

    async def used(self, token: str) -> int:
        """Mark a token as used; return 1, or 0 if it is not valid.

        Args:
            token: The secret of a token or a beta.

        Cost:
            2 round trips; 3 for a beta.
        """
        rows = self._token_rows(self._svc)
        if not (await rows.find_valid(token, "api") or await rows.find_valid(token, "beta")):
            return 0
        return int(await self._svc.tokens.used(token))

    async def update_by_id(self, pid: str, data: dict[str, Any]) -> int:
        """Set columns of the row of a token, like `filter_update`.

        Args:
            pid: The id of the token.
            data: Columns of the row. `id` is ignored.

        Returns:
            1, or 0 if there is no valid token with this id.
        """
        columns = {name: value for name, value in data.items() if name != "id"}
        return await self.filter_update([Column.token == pid], columns) if pid else 0

    async def filter_update(self, filters: Filters, update_data: Mapping[str, Any]) -> int:
        """Set `dialog_id`, `source` and `beta` of a row.

        A new beta replaces the old one, which is revoked. The hint of the current beta, which rows
        contain, changes nothing. Other columns are accepted if they have the value of the row.

        Args:
            filters: A condition on `token`; further ones on `tenant_id`, `dialog_id` and `source`.
            update_data: Columns of a row. Both tokens of the row get `dialog_id` and `source`.

        Returns:
            1, or 0 if there is no such row.

        Raises:
            InvalidInput: A column is unknown, or `tenant_id` or `token` differs from the row.
            AlreadyExists: The beta is a secret of another row.

        Cost:
            A transaction with 1 or 2 round trips to find the row, 1 for each 100 betas of the
            tenant and 1 for each token of the row; 1 to store a beta and 2 to revoke each old one.
        """
        check_columns(update_data, _COLUMNS)
        if update_data.get("tenant_id") is not None:
            self._check_tenant(update_data["tenant_id"])
        columns, beta = _settable(update_data), update_data.get("beta")
        async with self._svc.transaction() as tx:
            rows = self._token_rows(tx)
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
                new = TokenRow.from_columns({"beta": beta, **fields})
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
        """Revoke all rows that match.

        A row is a token with its betas in all dialogs. A beta without a valid token is a row too.
        Revoked tokens are kept for the audit.

        Args:
            filters: Conditions on `token`, `dialog_id`, `source` or `tenant_id`; at least one.

        Returns:
            The number of revoked rows.

        Cost:
            A transaction with 1 round trip for each 100 tokens of the tenant, and 2 for each
            revoked token.
        """
        if not all(self._values(filters).values()):
            return 0
        async with self._svc.transaction() as tx:
            rows = self._token_rows(tx)
            revoked = await self._matching(rows, filters)
            await rows.revoke(*itertools.chain(*revoked))
        return len(revoked)

    async def delete_by_ids(self, pids: Collection[str]) -> int:
        """Revoke the rows of tokens with these ids; return the number of revoked rows."""
        async with self._svc.transaction() as tx:
            bound = self._on(tx)
            return sum(
                [
                    await bound.filter_delete([Column.token == id])
                    for id in storable_ids(pids, "pids")
                ]
            )

    async def delete_by_tenant_id(self, tenant_id: str) -> int:
        """Delete all tokens of the tenant; return their number."""
        self._check_tenant(tenant_id)
        return await self._svc.tokens.delete_by_tenant_id(tenant_id=self._tenant_id, actor=_ACTOR)

    async def _rows(self, where: ValuesByColumn) -> list[Record]:
        for tenant_id in where.get("tenant_id", ()):
            self._check_tenant(str(tenant_id))
        token_rows = self._token_rows(self._svc)
        if where.keys() & set(SECRET_COLUMNS):
            selected = await self._find_by_secrets(token_rows, where)
        else:
            selected = [
                row for row in reversed(await token_rows.all()) if row[0].kind == KINDS["token"]
            ]
        columns = {name: where[name] for name in where.keys() - set(SECRET_COLUMNS)}
        records = map(self._record, selected)
        return [record for record in records if satisfies(vars(record), columns)]

    async def _find_by_secrets(
        self, token_rows: TokenRows, where: ValuesByColumn
    ) -> list[list[APIToken]]:
        """Return the valid tokens of secrets. Secrets of both columns must belong to one row."""
        tokens = {
            column: [
                [token]
                for secret in where[column]
                if (token := await token_rows.find_valid(secret, KINDS[column]))
            ]
            for column in SECRET_COLUMNS
            if column in where
        }
        if len(tokens) < len(SECRET_COLUMNS):
            return next(iter(tokens.values()))
        betas = {token.id for (token,) in tokens["beta"]}
        rows = [await token_rows.of(token) for (token,) in tokens["token"]]
        return [row for row in rows if betas & {beta.id for beta in row[1:]}]

    async def _store(self, tx: Services, rows: Sequence[Mapping[str, Any]]) -> None:
        new = []
        for row in rows:
            if row.get("tenant_id") is not None:
                self._check_tenant(row["tenant_id"])
            names = {*SECRET_COLUMNS, *_SETTABLE}
            new.append(TokenRow.from_columns({name: row[name] for name in names & row.keys()}))
        if not all(row.secrets for row in new):
            raise InvalidInput("token", "is required")
        _check_new(await self._token_rows(tx).import_(new))

    async def _matching(self, rows: TokenRows, filters: Filters) -> list[list[APIToken]]:
        values = self._values(filters)
        if "token" in values:
            token = await self._find(rows, filters)
            return [] if token is None else [await rows.of(token)]
        return [row for row in await rows.all() if self._has(row[0], values)]

    async def _find(self, rows: TokenRows, filters: Filters) -> APIToken | None:
        """Return the valid token of an id or a secret."""
        values = self._values(filters)
        if len(values.get("token", ())) != 1:
            raise InvalidInput("filters", "must be on one token")
        (id_or_secret,) = values["token"]
        ids = storable_ids([id_or_secret], "token")
        stored = await rows.svc.tokens.get_by_ids(ids, tenant_id=self._tenant_id)
        token = stored[0] if stored else await rows.find_valid(id_or_secret, KINDS["token"])
        if token is None or token.status not in VALID:
            return None
        return token if self._has(token, values) else None

    def _has(self, token: APIToken, values: ValuesByColumn) -> bool:
        """Return whether the columns of a row, except its secret, have these values."""
        columns = {name: values[name] for name in values.keys() - {"token"}}
        return satisfies(vars(self._record([token])), columns)

    def _values(self, filters: Filters) -> ValuesByColumn:
        values = values_by_column(filters, {"tenant_id", "token", *_SETTABLE})
        for tenant_id in values.get("tenant_id", ()):
            self._check_tenant(str(tenant_id))
        if not values:
            raise InvalidInput("filters", "must be on token, dialog_id, source or tenant_id")
        return values

    def _token_rows(self, svc: Services) -> TokenRows:
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


def _settable(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settable columns of a row."""
    return {name: row[name] for name in _SETTABLE if name in row}


def _check_new(report: RowImportReport) -> None:
    """Raise the error of the first secret that was rejected or was stored before."""
    if report.rejected:
        raise report.rejected[0].error
    if report.present:
        raise AlreadyExists("the tenant has a token with this secret")
