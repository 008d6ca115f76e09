"""API tokens: issued once, kept as a hash, checked in one round trip.

A secret is `prefix_` + 43 characters of 256 random bits + 6 of a checksum, in base 62. The
checksum is CRC-32 over what stands before it: a typo, or a scanner's guess, is refused without
asking the database. It is no protection; the 256 bits are. At rest there is the SHA-256 of the
whole secret, which suffices for a secret that nobody can guess (OWASP ASVS 5.0, 6.5.2).
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from asyncsvc import paging
from asyncsvc.errors import InsufficientScope, InvalidToken
from asyncsvc.fields import (
    ANY,
    UNSET,
    Cursor,
    Id,
    Instant,
    Name,
    OrAny,
    PageSize,
    Scopes,
    Secret,
    Source,
    TokenKind,
    UnsetType,
)
from asyncsvc.models import APIToken, IssuedToken, Page, TokenPatchLike
from asyncsvc.repositories import APITokenRepository
from asyncsvc.services.common import CommonService, columns, found, new_id
from asyncsvc.validation import validated

if TYPE_CHECKING:
    from asyncsvc.executor import Executor
    from asyncsvc.settings import Settings

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET: Final = re.compile(r"[a-z][a-z0-9]{1,9}_[0-9A-Za-z]{49}", re.ASCII)
_RANDOM_DIGITS, _CHECKSUM_DIGITS, _HINT_DIGITS = 43, 6, 4
ALL_SCOPES: Final = "*"
"""The scope that has every other; a token has it only when it was asked for."""


class APITokenService(CommonService):
    """The life of API tokens: create, verify, list, change, revoke.

    A token's secret is in the answer to `create`, and nowhere else: in no column, log or error.
    A token is of the kind "api", or "beta" for embedded chats; one never passes as the other.
    Round trips are those of the statements; a pool adds one, after the answer, to reset the
    connection.
    """

    def __init__(self, executor: Executor, settings: Settings) -> None:
        """Run on this executor; see `asyncsvc.connect` and `asyncsvc.AsyncSvc` for callers."""
        super().__init__(executor, settings)
        self._tokens = APITokenRepository(executor)

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
        expires_at: Instant | None = None,
    ) -> IssuedToken:
        """Issue a token; its `.secret` is shown this once.

        The token is accepted from now until `expires_at`, by the server's clock, or until it is
        revoked. Without scopes it passes where none is asked for; `*` has all of them.

        One round trip; locks the new row.
        """
        secret = _new_secret(self._settings.token_prefix)
        token = await self._tokens.create(
            id=new_id(),
            tenant_id=tenant_id,
            name=name,
            token_hash=_hash(secret),
            hint=secret[: len(self._settings.token_prefix) + 1 + _HINT_DIGITS],
            kind=kind,
            scopes=scopes,
            dialog_id=dialog_id,
            source=source,
            expires_at=expires_at,
        )
        return IssuedToken(token=token, secret=SecretStr(secret))

    @validated
    async def verify(
        self, secret: Secret, *, kind: TokenKind = "api", scopes: Scopes = (), touch: bool = True
    ) -> APIToken:
        """Return the token of this secret, if it is good now and of this kind.

        It stamps `last_used_at`, at most once in `Settings.touch_interval`, without ever waiting
        for a lock. With `touch=False` it only reads, so that a replica can answer.

        Raises InvalidToken, one and the same for unknown, malformed, expired, revoked or of
        another kind; InsufficientScope when the token lacks one of `scopes`. One round trip on the
        unique index of hashes, none for what is not shaped like a secret of ours. It fails closed:
        Unavailable when the database does not answer. Inside a transaction of a stricter isolation
        than READ COMMITTED pass `touch=False`: there the stamp of another session is a conflict.
        """
        token = await self._look_up(secret, kind=kind, touch=touch)
        if token is None or token.status != "active":
            raise InvalidToken
        missing = set(scopes) - set(token.scopes)
        if missing and ALL_SCOPES not in token.scopes:
            raise InsufficientScope(f"the token lacks {', '.join(sorted(missing))}")
        return token

    @validated
    async def used(self, secret: Secret) -> bool:
        """Mark a token of any kind as used, as `verify` does, and say whether it is good now.

        One round trip.
        """
        token = await self._look_up(secret, kind=UNSET, touch=True)
        return token is not None and token.status == "active"

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
        belongs_to = paging.fingerprint(
            {"tenant_id": tenant_id, "kind": kind, "dialog_id": dialog_id}
        )
        position = None if after is None else paging.decode(after, belongs_to, self._settings)
        tokens = await self._tokens.get_list(
            flags=("dialog_id_is_null",) if dialog_id is None else (),
            tenant_id=tenant_id,
            kind=UNSET if kind is ANY else kind,
            dialog_id=UNSET if dialog_id is ANY or dialog_id is None else dialog_id,
            after_at=UNSET if position is None else position.at,
            after_id=UNSET if position is None else position.id,
            limit=limit + 1,
        )
        following = None
        if len(tokens) > limit:
            last = tokens[limit - 1]
            following = paging.encode(last.created_at, last.id, belongs_to)
        return Page(None, tokens[:limit], next=following)

    @validated
    async def get_by_id(self, id: Id, *, tenant_id: Id) -> APIToken:
        """Return one token.

        Raises NotFound. One round trip on the primary key, no locks.
        """
        return found(await self._tokens.get_by_id(tenant_id=tenant_id, id=id), "token")

    @validated
    async def update_by_id(self, id: Id, patch: TokenPatchLike, *, tenant_id: Id) -> APIToken:
        """Set columns of a token and return it as it is now; the next verify sees them.

        Raises NotFound. One round trip; locks the row.
        """
        token = await self._tokens.update_by_id(tenant_id=tenant_id, id=id, patch=columns(patch))
        return found(token, "token")

    @validated
    async def revoke(self, id: Id, *, tenant_id: Id) -> APIToken:
        """End a token now, for good, and return it; the next verify refuses it.

        A token that is revoked already keeps the instant of the first time. Its row stays.

        Raises NotFound. One round trip; locks the row.
        """
        return found(await self._tokens.revoke(tenant_id=tenant_id, id=id), "token")

    @validated
    async def delete_by_tenant_id(self, tenant_id: Id) -> int:
        """Delete all tokens of a tenant, without a trace; return how many there were.

        One round trip; locks the rows.
        """
        return await self._tokens.delete_by_tenant_id(tenant_id=tenant_id)

    async def _look_up(
        self, secret: SecretStr | str, *, kind: str | UnsetType, touch: bool
    ) -> APIToken | None:
        text = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
        if not _is_well_formed(text):
            return None
        interval = self._settings.touch_interval
        if not touch or interval is None:
            return await self._tokens.verify_readonly(token_hash=_hash(text), kind=kind)
        return await self._tokens.verify(
            token_hash=_hash(text), kind=kind, touch_interval=timedelta(seconds=interval)
        )


def _new_secret(prefix: str) -> str:
    body = f"{prefix}_{_base62(secrets.randbits(256), _RANDOM_DIGITS)}"
    return body + _checksum(body)


def _is_well_formed(text: str) -> bool:
    return (
        _SECRET.fullmatch(text) is not None
        and _checksum(text[:-_CHECKSUM_DIGITS]) == text[-_CHECKSUM_DIGITS:]
    )


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_DIGITS)


def _base62(number: int, digits: int) -> str:
    """Write a number with this many digits of 0-9, A-Z, a-z, the highest first."""
    text = ""
    for _ in range(digits):
        number, digit = divmod(number, len(_ALPHABET))
        text = _ALPHABET[digit] + text
    return text


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
