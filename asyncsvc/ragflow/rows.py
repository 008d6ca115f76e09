"""Rows of RAGFlow's `api_token`, as tokens here: a row is a token, and a beta that knows it.

RAGFlow's rows have no id; here one is known by the id of its token. A beta has that in its
metadata, and one that came without a token belongs to no row.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from asyncsvc.client import Services
from asyncsvc.errors import AsyncSvcError, Conflict, InvalidToken
from asyncsvc.models import APIToken, TokenImportReport
from asyncsvc.ragflow.shapes import SECRETS, row_of, token_record
from asyncsvc.validation.types import TokenKind

GOOD: Final = {"active", "retiring"}
_REPLACED: Final = "replaced"

Row: TypeAlias = Mapping[str, Any]
"""The columns `token` and `beta`, and what both have in common, as a record of a token has it."""
OnRejected: TypeAlias = Callable[[int, str, AsyncSvcError], None]
"""Hears of a secret that is rejected: the place of its row, its column, and why."""


@dataclass(frozen=True, slots=True)
class TokenRows:
    """The rows of a tenant, where these services keep them; the audit names the actor."""

    svc: Services
    tenant_id: str
    actor: str | None = None

    async def load(
        self, rows: Sequence[Row], on_rejected: OnRejected | None = None
    ) -> TokenImportReport:
        """Store the secrets of rows as hashes; return how many are new, were here, are rejected.

        A secret that is here already is left as it is. A beta that is new takes the place of the
        one that its row has here, which is revoked. One whose token is not good here any more is
        rejected with Conflict; one whose token is rejected belongs to no row.

        What is wrong raises the errors of `tokens.load`, and nothing is stored; with `on_rejected`
        it is handed to that, and the rest goes in. One transaction, with a round trip for the
        tokens and two for each beta; where some were here, one for each 100 betas of the tenant.
        """
        async with self.svc.transaction() as tx:
            return await _Load(replace(self, svc=tx), on_rejected).run(rows)

    async def put_beta(
        self,
        row: Row,
        token: APIToken | None,
        old: Sequence[APIToken],
        on_rejected: Callable[[int, AsyncSvcError], None] | None = None,
    ) -> TokenImportReport:
        """Store the beta of a token's row, or of none; where it is new, revoke the old ones."""
        record = token_record(row, "beta", token_id=None if token is None else token.id)
        report = await self.svc.tokens.import_(
            [record], tenant_id=self.tenant_id, actor=self.actor, on_rejected=on_rejected
        )
        if report.tokens:
            await self.revoke(*old, reason=_REPLACED)
        return report

    async def all(self) -> list[list[APIToken]]:
        """Return the rows that are good, newest first: each a token with its betas, newest first.

        Betas of no row, and those whose token is not good any more, are rows by themselves. A round
        trip for each 100 tokens, and one for each time that one was rotated.
        """
        betas = await self.betas()
        rows = [[token, *await self.take(token, betas)] async for token in self._good("api")]
        return rows + [[each] for alone in betas.values() for each in alone]

    async def of(self, token: APIToken) -> list[APIToken]:
        """Return a token and the good betas of its row. A round trip for each 100 betas."""
        return [token, *await self.take(token, await self.betas())]

    async def verified(self, secret: str, kind: TokenKind) -> APIToken | None:
        """Return the good token of a secret, if it is this tenant's. One round trip."""
        try:
            token = await self.svc.tokens.verify(secret, kind=kind, touch=False)
        except InvalidToken:
            return None
        return token if token.tenant_id == self.tenant_id else None

    async def revoke(self, *tokens: APIToken, reason: str | None = None) -> None:
        """Revoke tokens with what was rotated from them. Two round trips each."""
        for token in tokens:
            await self.svc.tokens.revoke_family(
                token.id, tenant_id=self.tenant_id, reason=reason, actor=self.actor
            )

    async def revoke_secrets(self, row: Row, reason: str) -> set[str]:
        """Revoke the tokens of a row's secrets that are good here, with all betas of the row.

        It returns the columns of those secrets. A round trip for each secret; where there is
        something to revoke what that costs, in a transaction.
        """
        found = {
            column: token
            for column, kind in SECRETS.items()
            if row.get(column) and (token := await self.verified(row[column], kind))
        }
        if found:
            async with self.svc.transaction() as tx:
                here = replace(self, svc=tx)
                ended = list(found.values())
                if "token" in found:
                    ended += await here.of(found["token"])
                await here.revoke(*{each.id: each for each in ended}.values(), reason=reason)
        return set(found)

    async def betas(self) -> dict[str, list[APIToken]]:
        """Return the good betas by the ids of their rows. A round trip for each 100."""
        betas = dict[str, list[APIToken]]()
        async for beta in self._good("beta"):
            betas.setdefault(row_of(beta), []).append(beta)
        return betas

    async def take(self, token: APIToken, betas: dict[str, list[APIToken]]) -> list[APIToken]:
        """Take the betas of a token's row, which may know it by what it was rotated from."""
        taken = betas.pop(token.id, [])
        while token.rotated_from is not None:
            token = await self.svc.tokens.get_by_id(token.rotated_from, tenant_id=self.tenant_id)
            taken = taken + betas.pop(token.id, [])
        return taken

    async def _good(self, kind: TokenKind) -> AsyncIterator[APIToken]:
        after = None
        while True:
            page = await self.svc.tokens.get_list(self.tenant_id, kind=kind, after=after)
            for token in page.items:
                if token.status in GOOD:
                    yield token
            if page.next is None:
                return
            after = page.next


@dataclass(slots=True)
class _Load:
    """One load of rows: first their tokens, whose ids the betas then have."""

    rows: TokenRows
    on_rejected: OnRejected | None
    loaded: int = 0
    present: int = 0
    rejected: set[tuple[int, str]] = field(default_factory=set)

    async def run(self, rows: Sequence[Row]) -> TokenImportReport:
        places = [place for place, row in enumerate(rows) if row.get("token")]
        report = await self.rows.svc.tokens.import_(
            [token_record(rows[place], "token") for place in places],
            tenant_id=self.rows.tenant_id,
            actor=self.rows.actor,
            on_rejected=self._rejecter(places, "token"),
        )
        self._count(report)
        old = await self.rows.betas() if report.present else {}
        for place, row in enumerate(rows):
            if row.get("beta"):
                await self._beta(place, row, old)
        return TokenImportReport(
            tokens=self.loaded, present=self.present, rejected=len(self.rejected)
        )

    async def _beta(self, place: int, row: Row, old: dict[str, list[APIToken]]) -> None:
        token, replaced = None, list[APIToken]()
        if row.get("token") and (place, "token") not in self.rejected:
            token = await self.rows.verified(row["token"], "api")
            if token is None:
                self._reject(place, "beta", Conflict("its token is not good here any more"))
                return
            replaced = await self.rows.take(token, old)
        reject = self._rejecter([place], "beta")
        self._count(await self.rows.put_beta(row, token, replaced, reject))

    def _count(self, report: TokenImportReport) -> None:
        self.loaded += report.tokens
        self.present += report.present

    def _rejecter(
        self, places: Sequence[int], column: str
    ) -> Callable[[int, AsyncSvcError], None] | None:
        """Return what a load hands its rejections to: it knows them by their places in the load."""
        if self.on_rejected is None:
            return None
        return lambda at, error: self._reject(places[at], column, error)

    def _reject(self, place: int, column: str, error: AsyncSvcError) -> None:
        if self.on_rejected is None:
            raise error
        self.rejected.add((place, column))
        self.on_rejected(place, column, error)
