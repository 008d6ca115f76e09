"""API tokens: issued once, kept as a hash, checked in one round trip.

`asyncsvc.services.credentials` has the format of their secrets, and how they are hashed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from asyncsvc.errors import (
    AsyncSvcError,
    Conflict,
    InsufficientScope,
    InvalidToken,
    NotFound,
)
from asyncsvc.models import (
    APIToken,
    IssuedToken,
    Page,
    TokenEvent,
    TokenImportReport,
    TokenPatchLike,
    TokenRecords,
)
from asyncsvc.repositories import APITokenRepository, TokenAuditRepository
from asyncsvc.repositories.api_token import Ended
from asyncsvc.services.common import (
    CommonService,
    columns_to_set,
    given,
    new_id,
    row_or_not_found,
    wanted,
)
from asyncsvc.services.credentials import Keyring, hint, is_foreign, is_ours, new_secret
from asyncsvc.services.token_import import TokenLoad
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
    Secret,
    Source,
    TokenKind,
    UnsetType,
)

if TYPE_CHECKING:
    from asyncsvc.database import Executor
    from asyncsvc.settings import Settings

_log: Final = logging.getLogger(__name__)
_GOOD: Final = {"active", "retiring"}
ROTATED: Final = "rotated"
"""The reason that sql/api_token/rotate.sql gives the end of a token."""
ALL_SCOPES: Final = "*"
"""The scope that has every other; a token has it only when it was asked for."""


class APITokenService(CommonService):
    """The life of API tokens: create, verify, list, change, rotate, revoke.

    A token's secret is in the answer to `create` or `rotate`, and nowhere else: in no column, log
    or error. A token is of the kind "api", or "beta" for embedded chats; one never passes as the
    other. Whatever changes a token is noted in the audit, with the `actor` that the caller names.
    Round trips are those of the statements; a pool of yours adds one, after the answer, to reset
    the connection.
    """

    def __init__(self, executor: Executor, settings: Settings) -> None:
        """Run on this executor; see `asyncsvc.connect` and `asyncsvc.AsyncSvc` for callers."""
        super().__init__(executor, settings)
        self._tokens = APITokenRepository(executor)
        self._audit = TokenAuditRepository(executor)
        self._keyring = Keyring(settings)

    @validated
    async def create(
        self,
        tenant_id: Id,
        *,
        name: Name,
        scopes: Scopes = (),
        dialog_id: Id | None = None,
        source: Source | None = None,
        kind: TokenKind = "api",
        metadata: JsonObject | None = None,
        expires_at: Instant | None = None,
        actor: Actor | None = None,
    ) -> IssuedToken:
        """Issue a token; its `.secret` is shown this once.

        The token is accepted from now until `expires_at`, by the server's clock, or until it is
        revoked. Without scopes it passes where none is asked for; `*` has all of them.

        One round trip; locks the new row.
        """
        secret = SecretStr(new_secret(self._settings.token_prefix))
        token = await self._tokens.create(
            id=new_id(),
            tenant_id=tenant_id,
            name=name,
            token_hash=self._keyring.hash(secret.get_secret_value()),
            pepper_version=self._keyring.version,
            hint=hint(secret.get_secret_value()),
            kind=kind,
            scopes=scopes,
            dialog_id=dialog_id,
            source=source,
            metadata=metadata or {},
            expires_at=expires_at,
            actor=actor,
        )
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
        """Store tokens that another system issued, given in clear text, as hashes.

        `Settings.accept_foreign_tokens` must be on, here and where they are verified. Without
        scopes of its own a record gets all of them, as in a system that knows none. A token that is
        there already is left as it is, so a load can be made again.

        A record that is wrong raises InvalidInput: one whose secret has under 22 characters too,
        unless there are peppers, for its hash would give it away, and one that has its secret in
        another field as well, where it would be stored in clear text. A secret that another tenant
        has, or a token of another kind, raises AlreadyExists. With `on_rejected` either is handed
        to that, with the record's place from 0 on, and the rest goes in.

        One round trip for every 1,000 records, each a transaction of its own unless the caller has
        a transaction. It locks the new rows.
        """
        return await TokenLoad(self._tokens, self._settings, tenant_id, actor, on_rejected).run(
            records
        )

    @validated
    async def verify(
        self, secret: Secret, *, kind: TokenKind = "api", scopes: Scopes = (), touch: bool = True
    ) -> APIToken:
        """Return the token of this secret, if it is good now and of this kind.

        It stamps `last_used_at`, at most once in `Settings.last_used_resolution`, and hashes the
        secret anew where that was done by an older pepper, without ever waiting for a lock. With
        `touch=False` it only reads, which a standby's own pool can do, too.

        Raises InvalidToken, one and the same for unknown, malformed, expired, revoked or of
        another kind, which only the log tells apart; InsufficientScope when the token lacks one of
        `scopes`. One round trip on the unique index of hashes, one more where it stamps, none for
        what is not shaped like a secret of ours. It fails closed: Unavailable when the database
        does not answer. Inside a long transaction of yours pass `touch=False`: its stamp keeps the
        row's lock to the end, and a revocation waits for that; and under a stricter isolation than
        READ COMMITTED the stamp of another session is a conflict.
        """
        token = await self._look_up(secret, kind=kind, touch=touch)
        if token is None or token.status not in _GOOD:
            raise InvalidToken
        missing = set(scopes) - set(token.scopes)
        if missing and ALL_SCOPES not in token.scopes:
            _log.info("token %s lacks a scope that was asked for", token.id)
            raise InsufficientScope(f"the token lacks {', '.join(sorted(missing))}")
        return token

    @validated
    async def used(self, secret: Secret) -> bool:
        """Mark a token of any kind as used, as `verify` does, and say whether it is good now.

        One round trip, one more where it stamps, none for what is not shaped like a secret of ours.
        """
        token = await self._look_up(secret, kind=UNSET, touch=True)
        return token is not None and token.status in _GOOD

    @validated
    async def get_list(
        self,
        tenant_id: Id,
        *,
        kind: OrAny[TokenKind] = ANY,
        dialog_id: OrAny[Id | None] = ANY,
        after: Cursor | None = None,
        limit: PageSize = 100,
    ) -> Page[APIToken]:
        """Return one page of a tenant's tokens, newest first, expired and revoked ones included.

        `next` of a page is the cursor of the one after it. The total is not counted.

        Raises InvalidInput for a cursor of other filters. One round trip on the index by tenant
        and creation, no locks.
        """
        belongs_to = cursors.fingerprint(
            {"tenant_id": tenant_id, "kind": kind, "dialog_id": dialog_id}
        )
        position = (
            None if after is None else cursors.decode_cursor(after, belongs_to, self._settings)
        )
        tokens = await self._tokens.get_list(
            flags=("dialog_id_is_null",) if dialog_id is None else (),
            tenant_id=tenant_id,
            kind=wanted(kind),
            dialog_id=wanted(dialog_id),
            after_at=UNSET if position is None else position.at,
            after_id=UNSET if position is None else position.id,
            limit=limit + 1,
        )
        following = cursors.next_cursor(
            tokens, limit, lambda token: Position(token.created_at, token.id), belongs_to
        )
        return Page(None, tokens[:limit], next=following)

    @validated
    async def get_by_id(self, id: Id, *, tenant_id: Id) -> APIToken:
        """Return one token.

        Raises NotFound. One round trip on the primary key, no locks.
        """
        return row_or_not_found(await self._tokens.get_by_id(tenant_id=tenant_id, id=id), "token")

    @validated
    async def update_by_id(
        self, id: Id, patch: TokenPatchLike, *, tenant_id: Id, actor: Actor | None = None
    ) -> APIToken:
        """Set columns of a token and return it as it is now; the next verify sees them.

        Raises NotFound. One round trip; locks the row.
        """
        token = await self._tokens.update_by_id(
            tenant_id=tenant_id, id=id, patch=columns_to_set(patch), actor=actor
        )
        return row_or_not_found(token, "token")

    @validated
    async def rotate(
        self,
        id: Id,
        *,
        tenant_id: Id,
        overlap: Overlap = timedelta(0),
        expires_at: OrUnset[Instant | None] = UNSET,
        actor: Actor | None = None,
    ) -> IssuedToken:
        """Issue the successor of a token: a new secret, and all else alike.

        The old secret stays good for the `overlap`, at most `Settings.max_rotation_overlap`, but
        never beyond the token's own end. The successor ends when the token would have, unless
        `expires_at` says otherwise. A token has one successor at most, also when two rotate it at
        once.

        Raises NotFound; Conflict for a token that is not active: expired, revoked, or rotated
        before. One round trip, two when it raises; locks the row.
        """
        secret = SecretStr(new_secret(self._settings.token_prefix))
        token = await self._tokens.rotate(
            tenant_id=tenant_id,
            id=id,
            successor_id=new_id(),
            token_hash=self._keyring.hash(secret.get_secret_value()),
            pepper_version=self._keyring.version,
            hint=hint(secret.get_secret_value()),
            overlap=overlap,
            keep_expiry=expires_at is UNSET,
            expires_at=None if expires_at is UNSET else expires_at,
            actor=actor,
        )
        if token is None:
            old = row_or_not_found(
                await self._tokens.get_by_id(tenant_id=tenant_id, id=id), "token"
            )
            raise Conflict(f"the token cannot be rotated: it is {old.status}")
        return IssuedToken(token=token, secret=secret)

    @validated
    async def revoke(
        self, id: Id, *, tenant_id: Id, reason: Reason | None = None, actor: Actor | None = None
    ) -> APIToken:
        """End a token now, for good, and return it; the next verify refuses it.

        A token that is revoked already keeps the instant and the reason of the first time. Its row
        stays, and so does its successor.

        Raises NotFound. One round trip, two when it raises or the token is revoked already; locks
        the row.
        """
        token = await self._tokens.revoke(
            tenant_id=tenant_id, id=id, reason=reason, actor=actor
        ) or await self._tokens.get_by_id(tenant_id=tenant_id, id=id)
        return row_or_not_found(token, "token")

    @validated
    async def revoke_family(
        self, id: Id, *, tenant_id: Id, reason: Reason | None = None, actor: Actor | None = None
    ) -> int:
        """End a token, what it was rotated from and what was rotated from it; return how many.

        It leaves none, also when one of them is being rotated at this moment.

        Raises NotFound. Three round trips, one when there is nothing to end, two more for each such
        rotation; locks the rows.
        """
        is_there = False

        async def revoke() -> Ended:
            nonlocal is_there
            family = await self._tokens.get_family(tenant_id=tenant_id, id=id)
            is_there = is_there or bool(family)
            live = [member for member, is_live in family.items() if is_live]
            if not live:
                return Ended(0, 0)
            ended = await self._tokens.revoke_family(
                tenant_id=tenant_id, id=id, ids=live, reason=reason, actor=actor
            )
            return Ended(len(live), ended)

        total = await _until_none(revoke)
        if not is_there:
            raise NotFound("no such token")
        return total

    @validated
    async def revoke_all(
        self,
        tenant_id: Id,
        *,
        kind: OrAny[TokenKind] = ANY,
        dialog_id: OrAny[Id | None] = ANY,
        unused_since: Instant | None = None,
        keep: Ids = (),
        reason: Reason | None = None,
        actor: Actor | None = None,
    ) -> int:
        """End all tokens of a tenant that the filters leave, but for the ids to `keep`.

        `unused_since` takes those that were neither used nor issued since then. It returns how many
        it ended, and leaves none, also when one of them is being rotated at this moment.

        Two round trips, one when there is nothing to end, one more where tokens came meanwhile;
        locks the rows.
        """
        return await _until_none(
            lambda: self._tokens.revoke_all(
                flags=("dialog_id_is_null",) if dialog_id is None else (),
                tenant_id=tenant_id,
                kind=wanted(kind),
                dialog_id=wanted(dialog_id),
                unused_since=given(unused_since),
                keep=keep,
                reason=reason,
                actor=actor,
            )
        )

    @validated
    async def delete_by_tenant_id(self, tenant_id: Id, *, actor: Actor | None = None) -> int:
        """Delete all tokens of a tenant, as when it leaves; return how many there were.

        The audit stays. Two round trips, one when nothing is there, one more where tokens came
        meanwhile; locks the rows.
        """
        return await _until_none(
            lambda: self._tokens.delete_by_tenant_id(tenant_id=tenant_id, actor=actor)
        )

    @validated
    async def audit(
        self,
        tenant_id: Id,
        *,
        token_id: OrAny[Id] = ANY,
        after: Cursor | None = None,
        limit: PageSize = 100,
    ) -> Page[TokenEvent]:
        """Return one page of what was done to a tenant's tokens, newest first.

        Each is written by the statement that does it: create, import, update, rotate, revoke,
        delete; a verification is none. `next` of a page is the cursor of the one after it. The
        total is not counted.

        Raises InvalidInput for a cursor of other filters. One round trip on the primary key, or the
        index by token; no locks.
        """
        belongs_to = cursors.fingerprint({"tenant_id": tenant_id, "audit_of": token_id})
        position = (
            None if after is None else cursors.decode_cursor(after, belongs_to, self._settings)
        )
        events = await self._audit.get_list(
            tenant_id=tenant_id,
            token_id=wanted(token_id),
            after_at=UNSET if position is None else position.at,
            after_id=UNSET if position is None else position.number,
            limit=limit + 1,
        )
        following = cursors.next_cursor(
            events, limit, lambda event: Position(event.at, str(event.id)), belongs_to
        )
        return Page(None, events[:limit], next=following)

    async def _look_up(
        self, secret: SecretStr | str, *, kind: str | UnsetType, touch: bool
    ) -> APIToken | None:
        hashes = self._hashes(secret)
        if not hashes:
            _log.info("refused a token: it is malformed")
            return None
        found = await self._tokens.verify(
            hashes=hashes,
            kind=kind,
            last_used_resolution=self._touch_interval,
            pepper_version=self._keyring.version,
        )
        if found is None:
            _log.info("refused a token: it is unknown, or of another kind")
            return None
        token = found.token
        if token.status in _GOOD:
            if touch and found.is_due:
                await self._touch(token, hashes[0])
        elif token.revoked_reason == ROTATED:  # somebody may have kept it who should not have
            _log.warning("refused token %s: it was rotated, and its secret came back", token.id)
        else:
            _log.info("refused token %s: it is %s", token.id, token.status)
        return token

    def _hashes(self, secret: SecretStr | str) -> list[bytes]:
        """Return what may stand for a secret; nothing when it has not the form of one.

        The clear text stays in here: what waits for the database has none in its variables, which
        a careless log prints with the traceback of an error.
        """
        text = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
        foreign = self._settings.accept_foreign_tokens
        if is_ours(text) or (foreign and is_foreign(text, self._settings.token_prefix)):
            return self._keyring.hashes(text)
        return []

    @property
    def _touch_interval(self) -> timedelta | None:
        seconds = self._settings.last_used_resolution
        return None if seconds is None else timedelta(seconds=seconds)

    async def _touch(self, token: APIToken, token_hash: bytes) -> None:
        interval = self._touch_interval
        await self._tokens.touch(
            tenant_id=token.tenant_id,
            id=token.id,
            token_hash=token_hash,
            last_used_resolution=UNSET if interval is None else interval,
            pepper_version=self._keyring.version,
        )


async def _until_none(work: Callable[[], Awaitable[Ended]]) -> int:
    """Do it until it finds nothing that came after its statement had begun; return the sum."""
    total, found_any = 0, True
    while found_any:
        found, ended = await work()
        total += ended
        found_any = found > 0
    return total
