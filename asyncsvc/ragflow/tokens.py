"""RAGFlow's `APITokenService`, on the real one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Final

from asyncsvc.client import Services
from asyncsvc.errors import AlreadyExists, InvalidInput, NotFound
from asyncsvc.models import APIToken, TokenImportReport
from asyncsvc.ragflow import shapes
from asyncsvc.ragflow.bound import BoundService, check_columns
from asyncsvc.ragflow.conditions import Filters, by_column
from asyncsvc.ragflow.rows import GOOD, TokenRows
from asyncsvc.ragflow.shapes import Record

_ACTOR: Final = "ragflow"
_SETTABLE: Final = ("dialog_id", "source")
_COLUMNS: Final = frozenset(
    {*_SETTABLE, "tenant_id", "token", "beta", "hint"}
    | {"create_time", "create_date", "update_time", "update_date"}
)
"""What a row has."""


class APITokenService(BoundService):
    """API tokens of one tenant, by RAGFlow's method names, with its arguments and results.

    Only hashes are kept, so no row can show a secret: its `token` is the token's id, which
    `filter_update` and `filter_delete` take as well as the secret, `hint` is how the secret begins,
    and `beta`, in a listing, how the row's other secret does: a token of its own, which lives and
    goes with the row. Secrets of RAGFlow's form need `Settings.accept_foreign_tokens`.
    """

    async def query(
        self,
        *,
        tenant_id: str | None = None,
        dialog_id: str | None = None,
        token: str | None = None,
        beta: str | None = None,
    ) -> list[Record]:
        """Return the good token of a secret, as a list of it or of none; else all, newest first.

        A secret is not marked as used. One round trip, and one for each 100 tokens.
        """
        if tenant_id is not None:
            self._check_tenant(tenant_id)
        rows = self._rows(self._svc)
        for name, secret in (("token", token), ("beta", beta)):
            if secret is not None:
                found = await rows.verified(secret, shapes.SECRETS[name])
                is_asked_for = found is not None and dialog_id in {None, found.dialog_id}
                return [self._record(found)] if found and is_asked_for else []
        return [
            self._record(*row)
            for row in await rows.all()
            if row[0].kind == "api" and (not dialog_id or row[0].dialog_id == dialog_id)
        ]

    async def save(self, **row: Any) -> int:  # noqa: ANN401 - RAGFlow's
        """Store the secrets `token` and `beta` of a row as the hashes of two tokens; return 1.

        Raises AlreadyExists for a secret that is there already. One round trip in a transaction of
        two more, with a beta three.
        """
        if row.get("tenant_id") is not None:
            self._check_tenant(row["tenant_id"])
        secrets = {name: row.get(name) for name in shapes.SECRETS}
        if not any(secrets.values()):
            raise InvalidInput("token", "must be given")
        async with self._svc.transaction() as tx:
            _check_new(await self._rows(tx).load([_beside(row) | secrets]))
        return 1

    async def insert(self, **row: Any) -> int:  # noqa: ANN401 - RAGFlow's
        """Store the secrets of a row, as `save`."""
        return await self.save(**row)

    async def used(self, token: str) -> int:
        """Mark a token as used; return 1, or 0 where it is not good. Two or three round trips."""
        rows = self._rows(self._svc)
        if not (await rows.verified(token, "api") or await rows.verified(token, "beta")):
            return 0
        return int(await self._svc.tokens.used(token))

    async def filter_update(self, filters: Filters, update_data: Mapping[str, Any]) -> int:
        """Set `dialog_id` and `source` of a row, or its `beta`; return 1, or 0 for none.

        The filter is on `token`, and may be on `tenant_id`. A new beta takes the place of the one
        that was there, which is revoked; a `beta` as a row shows it is the one that is there. All
        tokens of the row get the columns, in one transaction. What else a row has may be there, but
        its tenant and its token cannot be others.
        """
        check_columns(update_data, _COLUMNS)
        if update_data.get("tenant_id") is not None:
            self._check_tenant(update_data["tenant_id"])
        columns, beta = _beside(update_data), update_data.get("beta")
        async with self._svc.transaction() as tx:
            rows = self._rows(tx)
            found = await self._one(rows, filters)
            if found is None:
                return 0
            own = (found.id, *self._wanted(filters)["token"])
            if update_data.get("token", found.id) not in own:
                raise InvalidInput("token", "cannot be set")
            row = await rows.of(found)
            if beta and beta not in {each.hint for each in row[1:]}:
                there = {"dialog_id": found.dialog_id, "source": found.source}
                _check_new(await rows.put_beta(there | columns | {"beta": beta}, found, row[1:]))
                row = [found]
            for token in row if columns else ():
                await tx.tokens.update_by_id(
                    token.id, columns, tenant_id=self._tenant_id, actor=_ACTOR
                )
        return 1

    async def filter_delete(self, filters: Filters) -> int:
        """Revoke a row, or all of the tenant or of dialogs; return how many rows there were.

        The filter is on `token`, `dialog_id` or `tenant_id`. A row is a token with its betas,
        wherever these are; a beta of no good token is one by itself. What is revoked is refused
        from then on, and stays for the audit. One transaction, with a round trip for each 100
        tokens of the tenant, and two for each that goes.
        """
        wanted = self._wanted(filters)
        if not all(wanted.values()):
            return 0
        async with self._svc.transaction() as tx:
            rows = self._rows(tx)
            ended = await self._chosen(rows, filters)
            await rows.revoke(*itertools.chain(*ended))
        return len(ended)

    async def delete_by_tenant_id(self, tenant_id: str) -> int:
        """Delete all tokens; return how many there were."""
        self._check_tenant(tenant_id)
        return await self._svc.tokens.delete_by_tenant_id(self._tenant_id, actor=_ACTOR)

    async def _chosen(self, rows: TokenRows, filters: Filters) -> list[list[APIToken]]:
        """Return the rows that filters leave."""
        wanted = self._wanted(filters)
        if "token" in wanted:
            found = await self._one(rows, filters)
            return [] if found is None else [await rows.of(found)]
        dialogs = wanted.get("dialog_id")
        return [row for row in await rows.all() if dialogs is None or row[0].dialog_id in dialogs]

    async def _one(self, rows: TokenRows, filters: Filters) -> APIToken | None:
        """Return the good token of an id or a secret."""
        wanted = self._wanted(filters)
        if len(wanted.get("token", ())) != 1:
            raise InvalidInput("filters", "must be on one token")
        (token,) = wanted["token"]
        found: APIToken | None
        try:
            found = await rows.svc.tokens.get_by_id(token, tenant_id=self._tenant_id)
        except NotFound:
            found = await rows.verified(token, "api")
        if found is None or found.status not in GOOD:
            return None
        return found if found.dialog_id in wanted.get("dialog_id", (found.dialog_id,)) else None

    def _wanted(self, filters: Filters) -> dict[str, tuple[str, ...]]:
        wanted = by_column(filters, {"tenant_id", "token", "dialog_id"})
        for tenant_id in wanted.get("tenant_id", ()):
            self._check_tenant(tenant_id)
        if not wanted:
            raise InvalidInput("filters", "must be on token, dialog_id or tenant_id")
        return wanted

    def _rows(self, svc: Services) -> TokenRows:
        return TokenRows(svc, self._tenant_id, _ACTOR)

    def _record(self, token: APIToken, *betas: APIToken) -> Record:
        return Record(
            tenant_id=token.tenant_id,
            token=token.id,
            hint=token.hint,
            dialog_id=token.dialog_id,
            source=token.source,
            beta=betas[0].hint if betas else "",
            **shapes.times(token.created_at, token.last_used_at, self._local),
        )


def _beside(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row says of a token beside its secrets."""
    return {name: row[name] for name in _SETTABLE if name in row}


def _check_new(report: TokenImportReport) -> None:
    if report.present:
        raise AlreadyExists("the tenant has a token of this secret")
