"""API tokens: issue, import, list, update, rotate, revoke and delete them.

`asyncsvc.services.credentials` defines the format and the hashes of their secrets,
`asyncsvc.services.token_verification` verifies them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from asyncsvc.errors import AsyncSvcError, Conflict, NotFound
from asyncsvc.models import (
    APIToken,
    IssuedToken,
    ModelLike,
    Page,
    PatchesById,
    TokenEvent,
    TokenImportReport,
    TokenPatch,
    TokenRecords,
    as_model,
)
from asyncsvc.repositories import TokenAuditRepository
from asyncsvc.repositories.api_token import NewToken
from asyncsvc.services.common import new_id, unset_if_any
from asyncsvc.services.credentials import new_secret
from asyncsvc.services.token_import import TokenImport
from asyncsvc.services.token_verification import TokenVerification
from asyncsvc.validation import cursors
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.cursors import Position
from asyncsvc.validation.types import (
    ANY,
    UNSET,
    Actor,
    Cursor,
    Id,
    Ids,
    Instant,
    JsonObject,
    Name,
    OrAny,
    OrUnset,
    Overlap,
    PageSize,
    Reason,
    Scopes,
    Source,
    TokenKind,
)

if TYPE_CHECKING:
    from asyncsvc.database import Executor
    from asyncsvc.settings import Settings


_BATCH_SIZE: Final = 1_000


class APITokenService(TokenVerification):
    """Issue, verify and manage API tokens.

    A secret is returned once, by `create` or `rotate`. It is in no column, log or error. A token is
    of the kind "api", or "beta" for embedded chats, and passes as that kind only. The audit records
    each change, with the `actor` and the `reason` that the caller passes.

    Each method raises InvalidInput for a value out of range, before any SQL.

    The round trips under `Cost` are those of statements. A borrowed pool adds 1 at the end of each
    call, to reset the connection.
    """

    def __init__(self, executor: Executor, settings: Settings) -> None:
        """Run on this executor; see `asyncsvc.connect` and `asyncsvc.AsyncSvc` for callers."""
        super().__init__(executor, settings)
        self._audit = TokenAuditRepository(executor)

    @validated
    async def create(
        self,
        *,
        tenant_id: Id,
        name: Name,
        scopes: Scopes = (),
        dialog_id: Id | None = None,
        source: Source | None = None,
        kind: TokenKind = "api",
        metadata: JsonObject | None = None,
        expires_at: Instant | None = None,
        actor: Actor | None = None,
    ) -> IssuedToken:
        """Issue a token.

        Args:
            name: A name for people; it need not be unique.
            scopes: The scopes that the token grants. "*" grants all, none grants none.
            dialog_id: The dialog that the token belongs to.
            source: The application's label for where the token is used.
            kind: The only kind as which the token passes verification.
            metadata: A JSON object of the application.
            expires_at: The instant from which the token is invalid, by the server's clock.
                None: the token does not expire.

        Returns:
            The token and its `secret`, which cannot be read again.

        Cost:
            1 round trip, 5 on Citus; locks the new row.
        """
        secret = SecretStr(new_secret(self._settings.token_prefix))
        new = NewToken(
            id=new_id(),
            secret=self._keyring.hash(secret.get_secret_value()),
            name=name,
            kind=kind,
            scopes=scopes,
            dialog_id=dialog_id,
            source=source,
            metadata=metadata or {},
            expires_at=expires_at,
        )
        token = await self._repository.create(new, tenant_id=tenant_id, actor=actor)
        return IssuedToken(token=token, secret=secret)

    @validated
    async def import_(
        self,
        records: TokenRecords,
        *,
        tenant_id: Id,
        actor: Actor | None = None,
        on_rejected: Callable[[int, AsyncSvcError], None] | None = None,
    ) -> TokenImportReport:
        """Import tokens that another system issued, and store the hashes of their secrets.

        An import can be repeated: a token that the tenant has already stays unchanged.
        `Settings.accept_foreign_tokens` must be on, here and where the tokens are verified.

        Args:
            records: The tokens, with their secrets in clear text. A record without `scopes` gets
                all scopes.
            on_rejected: Receives the index of a rejected record, from 0, and the error. The other
                records are imported. Without it the first rejected record raises its error.

        Returns:
            The numbers of imported, present and rejected tokens.

        Raises:
            InvalidInput: A record is invalid. Also: its secret has less than 22 characters after
                its prefix and there are no peppers, so that its hash would reveal it; or another
                field contains the secret, and would store it in clear text.
            AlreadyExists: Another tenant has the secret, or this tenant has it under another kind.
            Conflict: Concurrent calls repeatedly stored and deleted the same tokens.

        Cost:
            1 round trip per 1,000 records, 6 on Citus, each in a transaction of its own unless the
            caller has one; locks the new rows.
        """
        run = TokenImport(self._repository, self._settings, tenant_id, actor, on_rejected).run
        importing = run(records)
        del records  # a frame of a traceback must not show their secrets
        return await importing

    @validated
    async def get_list(
        self,
        *,
        tenant_id: Id,
        kind: OrAny[TokenKind] = ANY,
        dialog_id: OrAny[Id | None] = ANY,
        after: Cursor | None = None,
        limit: PageSize = 100,
    ) -> Page[APIToken]:
        """Return one page of a tenant's tokens, newest first, including expired and revoked ones.

        Args:
            kind: Only tokens of this kind.
            dialog_id: Only tokens of this dialog; None for tokens without a dialog.
            after: The `next` of the previous page.
            limit: At most `Settings.max_page_size`.

        Returns:
            The page, with the cursor `next`. Its `total` is None.

        Raises:
            InvalidInput: A parameter is out of range, or the cursor belongs to other filters.

        Cost:
            1 round trip, no locks. Reads the rows of the page from the index on tenant and
            creation; filters also read the rows between them.
        """
        filters = cursors.fingerprint(
            {"tenant_id": tenant_id, "kind": kind, "dialog_id": dialog_id}
        )
        tokens = await self._repository.get_list(
            tenant_id=tenant_id,
            kind=unset_if_any(kind),
            dialog_id=unset_if_any(dialog_id),
            after=self._position(after, filters),
            limit=limit + 1,
        )
        following = cursors.next_cursor(
            tokens, limit, lambda token: Position(token.created_at, token.id), filters
        )
        return Page(total=None, items=tokens[:limit], next=following)

    @validated
    async def update_by_id(
        self, id: Id, patch: ModelLike[TokenPatch], *, tenant_id: Id, actor: Actor | None = None
    ) -> APIToken:
        """Set columns of a token. The next verification applies them.

        Args:
            patch: The columns to set, as a model or an equal mapping.

        Returns:
            The token after the update.

        Raises:
            NotFound: The tenant has no token with this id.

        Cost:
            1 round trip on the primary key; locks the token row.
        """
        patches = {id: as_model(TokenPatch, patch)}
        return self._first(
            await self._repository.update_many_by_id(
                tenant_id=tenant_id, patches=patches, actor=actor
            )
        )

    @validated
    async def update_many_by_id(
        self, patches: PatchesById[TokenPatch], *, tenant_id: Id, actor: Actor | None = None
    ) -> int:
        """Set columns of tokens, each by its own patch. The next verification applies them.

        Args:
            patches: At most `Settings.max_batch_size` patches by id. Ids that do not exist are
                ignored.

        Returns:
            The number of updated tokens.

        Cost:
            1 round trip on the primary key; locks the token rows in the order of their ids.
        """
        models = {id: as_model(TokenPatch, patch) for id, patch in patches.items()}
        updated = await self._repository.update_many_by_id(
            tenant_id=tenant_id, patches=models, actor=actor
        )
        return len(updated)

    @validated
    async def delete_by_id(self, id: Id, *, tenant_id: Id, actor: Actor | None = None) -> int:
        """Delete a token. The audit is kept. The next verification rejects the secret.

        Returns:
            1, or 0 if the token does not exist.

        Cost:
            1 round trip on the primary key, 5 on Citus; locks the token row.
        """
        return await self._delete([id], tenant_id, actor)

    @validated
    async def delete_by_ids(self, ids: Ids, *, tenant_id: Id, actor: Actor | None = None) -> int:
        """Delete tokens in one transaction, as `delete_by_id` does.

        Args:
            ids: At most `Settings.max_batch_size` ids.

        Returns:
            The number of deleted tokens.

        Cost:
            1 round trip on the primary key, 5 on Citus; locks the token rows.
        """
        return await self._delete(ids, tenant_id, actor)

    async def _delete(self, ids: Sequence[str], tenant_id: str, actor: str | None = None) -> int:
        return await self._repository.delete(tenant_id=tenant_id, ids=ids, actor=actor)

    @property
    def rotation_overlap(self) -> timedelta:
        """The time for which a rotated token stays valid by default."""
        settings = self._settings
        return timedelta(seconds=min(settings.rotation_overlap, settings.max_rotation_overlap))

    @validated
    async def rotate(
        self,
        id: Id,
        *,
        tenant_id: Id,
        overlap: OrUnset[Overlap] = UNSET,
        expires_at: OrUnset[Instant | None] = UNSET,
        actor: Actor | None = None,
    ) -> IssuedToken:
        """Issue the successor of a token: a new secret, all else equal. Retire the token.

        Concurrent rotations of one token create at most one successor.

        Args:
            overlap: The time for which the old secret stays valid, at most
                `Settings.max_rotation_overlap`. UNSET: `Settings.rotation_overlap`, 1 day by
                default. The token's `expires_at` also ends it.
            expires_at: When the successor expires. UNSET: when the token does. None: never.

        Returns:
            The successor and its `secret`, which cannot be read again.

        Raises:
            NotFound: The tenant has no token with this id.
            Conflict: The token is expired, revoked or already rotated.

        Cost:
            1 round trip on the primary key, 2 if it raises, 5 on Citus; locks the token row.
        """
        secret = SecretStr(new_secret(self._settings.token_prefix))
        token = await self._repository.rotate(
            tenant_id=tenant_id,
            id=id,
            successor_id=new_id(),
            secret=self._keyring.hash(secret.get_secret_value()),
            overlap=self.rotation_overlap if overlap is UNSET else overlap,
            expires_at=expires_at,
            actor=actor,
        )
        if token is None:
            old = await self.get_by_id(id, tenant_id=tenant_id)
            raise Conflict(f"the token cannot be rotated: it is {old.status}")
        return IssuedToken(token=token, secret=secret)

    @validated
    async def revoke(
        self, id: Id, *, tenant_id: Id, reason: Reason | None = None, actor: Actor | None = None
    ) -> APIToken:
        """Revoke a token with immediate effect. The next verification rejects it.

        The row remains, and the token's successor stays valid. A revoked token keeps the time and
        the reason of its first revocation.

        Returns:
            The revoked token.

        Raises:
            NotFound: The tenant has no token with this id.

        Cost:
            1 round trip on the primary key, 2 if it raises or the token is revoked already; locks
            the token row.
        """
        token = await self._repository.revoke(
            tenant_id=tenant_id, id=id, reason=reason, actor=actor
        )
        return token or await self.get_by_id(id, tenant_id=tenant_id)

    @validated
    async def revoke_family(
        self, id: Id, *, tenant_id: Id, reason: Reason | None = None, actor: Actor | None = None
    ) -> int:
        """Revoke a token and all its predecessors and successors by rotation.

        None of them stays valid, even if one is rotated concurrently.

        Returns:
            The number of tokens that this call revoked.

        Raises:
            NotFound: The tenant has no token with this id.

        Cost:
            3 round trips on the primary key and the index of families, 1 if no token is live, 2
            more for each concurrent rotation; locks the token rows.
        """
        family = await self._repository.get_family(tenant_id=tenant_id, id=id)
        if not family:
            raise NotFound("token")
        revoked = 0
        while live := [member for member, is_live in family.items() if is_live]:
            batch = await self._repository.revoke_many(
                tenant_id=tenant_id, ids=live, family_of=id, reason=reason, actor=actor
            )
            revoked += batch.revoked
            family = await self._repository.get_family(tenant_id=tenant_id, id=id)
        return revoked

    @validated
    async def revoke_all(
        self,
        *,
        tenant_id: Id,
        kind: OrAny[TokenKind] = ANY,
        dialog_id: OrAny[Id | None] = ANY,
        unused_since: Instant | None = None,
        keep: Ids = (),
        reason: Reason | None = None,
        actor: Actor | None = None,
    ) -> int:
        """Revoke all tokens of a tenant that match.

        None of them stays valid, even if one is rotated concurrently.

        Args:
            kind: Only tokens of this kind.
            dialog_id: Only tokens of this dialog; None for tokens without a dialog.
            unused_since: Only tokens that were neither issued nor used since this instant.
            keep: Ids of tokens to leave unchanged.

        Returns:
            The number of tokens that this call revoked.

        Cost:
            2 round trips on the index on tenant, 1 if no token matches, 1 more for tokens that were
            created during the call; locks the token rows.
        """
        revoked, may_remain = 0, True
        while may_remain:
            batch = await self._repository.revoke_many(
                tenant_id=tenant_id,
                keep=keep,
                kind=unset_if_any(kind),
                dialog_id=unset_if_any(dialog_id),
                unused_since=UNSET if unused_since is None else unused_since,
                reason=reason,
                actor=actor,
            )
            revoked += batch.revoked
            may_remain = batch.may_remain
        return revoked

    @validated
    async def delete_by_tenant_id(self, *, tenant_id: Id, actor: Actor | None = None) -> int:
        """Delete all tokens of a tenant. The audit is kept.

        Returns:
            The number of deleted tokens.

        Cost:
            1 round trip for each 1,000 tokens on the index on tenant, and 1 that finds no token;
            on Citus 5 instead of 1. Locks the token rows.
        """
        total = 0
        while deleted := await self._repository.delete(
            tenant_id=tenant_id, batch_size=_BATCH_SIZE, actor=actor
        ):
            total += deleted
        return total

    @validated
    async def audit(
        self,
        *,
        tenant_id: Id,
        token_id: OrAny[Id] = ANY,
        after: Cursor | None = None,
        limit: PageSize = 100,
    ) -> Page[TokenEvent]:
        """Return one page of the audit of a tenant's tokens, newest first.

        Each statement that creates, imports, updates, rotates, revokes or deletes a token also
        writes its event. Verifications are not recorded.

        Args:
            token_id: Only events of this token.
            after: The `next` of the previous page.
            limit: At most `Settings.max_page_size`.

        Returns:
            The page, with the cursor `next`. Its `total` is None.

        Raises:
            InvalidInput: A parameter is out of range, or the cursor belongs to other filters.

        Cost:
            1 round trip on the primary key, or on the index by token; no locks.
        """
        filters = cursors.fingerprint({"tenant_id": tenant_id, "audit_of": token_id})
        events = await self._audit.get_list(
            tenant_id=tenant_id,
            token_id=unset_if_any(token_id),
            after=self._position(after, filters),
            limit=limit + 1,
        )
        following = cursors.next_cursor(
            events, limit, lambda event: Position(event.at, str(event.id)), filters
        )
        return Page(total=None, items=events[:limit], next=following)

    def _position(self, after: str | None, filters: str) -> Position | None:
        """Return the position after which a page starts, None for the first page."""
        return None if after is None else cursors.decode_cursor(after, filters, self._settings)
