"""RAGFlow's `APITokenService`, on the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from asyncsvc.client import Services
from asyncsvc.errors import AlreadyExists, InvalidInput, InvalidToken, NotFound
from asyncsvc.fields import ANY, TokenKind
from asyncsvc.models import APIToken
from asyncsvc.ragflow import shapes
from asyncsvc.ragflow.bound import BoundService
from asyncsvc.ragflow.conditions import Filters, by_column
from asyncsvc.ragflow.shapes import Record, row_of
from asyncsvc.services.common import new_id

_GOOD: Final = {"active", "retiring"}
_ACTOR: Final = "ragflow"


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
        for name, secret in (("token", token), ("beta", beta)):
            if secret is not None:
                found = await self._verified(secret, shapes.SECRETS[name])
                is_asked_for = found is not None and dialog_id in {None, found.dialog_id}
                return [self._record(found, "")] if found and is_asked_for else []
        betas = {row_of(each): each.hint for each in reversed(await self._betas())}
        rows = self._all("api", dialog_id or ANY)
        return [self._record(each, betas.get(row_of(each), "")) async for each in rows]

    async def save(self, **row: Any) -> int:  # noqa: ANN401 - RAGFlow's
        """Store the secrets `token` and `beta` of a row as the hashes of two tokens; return 1.

        Raises AlreadyExists for a secret that is there already. One round trip.
        """
        if row.get("tenant_id") is not None:
            self._check_tenant(row["tenant_id"])
        secrets = {name: row.get(name) for name in shapes.SECRETS}
        await self._store(self._svc, _beside(row) | secrets, new_id())
        return 1

    async def _store(self, svc: Services, row: Mapping[str, Any], name_of_row: str) -> None:
        records = [each for _, each in shapes.token_records(row, name_of_row=name_of_row)]
        if not records:
            raise InvalidInput("token", "must be given")
        report = await svc.tokens.load(records, tenant_id=self._tenant_id, actor=_ACTOR)
        if report.present:
            raise AlreadyExists("the tenant has a token of this secret")

    async def insert(self, **row: Any) -> int:  # noqa: ANN401 - RAGFlow's
        """Store the secrets of a row, as `save`."""
        return await self.save(**row)

    async def used(self, token: str) -> int:
        """Mark a token as used; return 1, or 0 where it is not good. Two or three round trips."""
        if not (await self._verified(token, "api") or await self._verified(token, "beta")):
            return 0
        return int(await self._svc.tokens.used(token))

    async def filter_update(self, filters: Filters, update_data: Mapping[str, Any]) -> int:
        """Set `dialog_id` and `source` of a token, or a new `beta`; return 1, or 0 for none.

        The filter is on `token`, and may be on `tenant_id`. The beta that was there is revoked; a
        `beta` as a row shows it is the one that is there.
        """
        found = await self._one(filters)
        if found is None:
            return 0
        beta, columns = update_data.get("beta"), _beside(update_data)
        old = await self._betas(of=found) if beta else []
        async with self._svc.transaction() as tx:
            if beta and beta not in {each.hint for each in old}:
                kept = {"dialog_id": found.dialog_id, "source": found.source}
                await self._store(tx, kept | columns | {"beta": beta}, row_of(found))
                await self._revoke(tx, *old)
            await tx.tokens.update_by_id(found.id, columns, tenant_id=self._tenant_id, actor=_ACTOR)
        return 1

    async def filter_delete(self, filters: Filters) -> int:
        """Revoke a token with its beta, or all of the tenant or of dialogs; return how many.

        The filter is on `token`, where it returns 1, or 0 for none, on `dialog_id` or `tenant_id`.
        A revoked token is refused from then on, and stays for the audit.
        """
        wanted = self._wanted(filters)
        if not all(wanted.values()):
            return 0
        if "token" in wanted:
            found = await self._one(filters)
            if found is None:
                return 0
            betas = await self._betas(of=found)
            async with self._svc.transaction() as tx:
                await self._revoke(tx, found, *betas)
            return 1
        revoked = 0
        for dialog_id in wanted.get("dialog_id", (ANY,)):
            revoked += await self._svc.tokens.revoke_all(
                self._tenant_id, dialog_id=dialog_id, actor=_ACTOR
            )
        return revoked

    async def delete_by_tenant_id(self, tenant_id: str) -> int:
        """Delete all tokens; return how many there were."""
        self._check_tenant(tenant_id)
        return await self._svc.tokens.delete_by_tenant_id(self._tenant_id, actor=_ACTOR)

    async def _all(self, kind: TokenKind, dialog_id: Any = ANY) -> AsyncIterator[APIToken]:  # noqa: ANN401
        after = None
        while True:
            page = await self._svc.tokens.get_list(
                self._tenant_id, kind=kind, dialog_id=dialog_id, after=after
            )
            for token in page.items:
                if token.status in _GOOD:
                    yield token
            if page.next is None:
                return
            after = page.next

    async def _one(self, filters: Filters) -> APIToken | None:
        wanted = self._wanted(filters)
        if len(wanted.get("token", ())) != 1:
            raise InvalidInput("filters", "must be on one token")
        (token,) = wanted["token"]
        found: APIToken | None
        try:
            found = await self._svc.tokens.get_by_id(token, tenant_id=self._tenant_id)
        except NotFound:
            found = await self._verified(token, "api")
        if found is None or found.dialog_id not in wanted.get("dialog_id", (found.dialog_id,)):
            return None
        return found

    def _wanted(self, filters: Filters) -> dict[str, tuple[str, ...]]:
        wanted = by_column(filters, {"tenant_id", "token", "dialog_id"})
        for tenant_id in wanted.get("tenant_id", ()):
            self._check_tenant(tenant_id)
        if not wanted:
            raise InvalidInput("filters", "must be on token, dialog_id or tenant_id")
        return wanted

    async def _verified(self, secret: str, kind: TokenKind) -> APIToken | None:
        try:
            token = await self._svc.tokens.verify(secret, kind=kind, touch=False)
        except InvalidToken:
            return None
        return token if token.tenant_id == self._tenant_id else None

    async def _betas(self, *, of: APIToken | None = None) -> list[APIToken]:
        """Return the betas of the row of a token, or all, newest first."""
        betas = [each async for each in self._all("beta")]
        return [each for each in betas if of is None or row_of(each) == row_of(of)]

    async def _revoke(self, svc: Services, *tokens: APIToken) -> None:
        for token in tokens:
            await svc.tokens.revoke(token.id, tenant_id=self._tenant_id, actor=_ACTOR)

    def _record(self, token: APIToken, beta: str) -> Record:
        return Record(
            tenant_id=token.tenant_id,
            token=token.id,
            hint=token.hint,
            dialog_id=token.dialog_id,
            source=token.source,
            beta=beta,
            **shapes.times(token.created_at, token.last_used_at, self._local),
        )


def _beside(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row says of a token beside its secrets."""
    return {name: row[name] for name in ("dialog_id", "source") if name in row}
