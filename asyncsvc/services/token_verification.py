"""Verification of API tokens: 1 query by the hash of the secret, no cache."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal, overload

from pydantic import SecretStr

from asyncsvc.errors import AsyncSvcError, InsufficientScope, InvalidInput, InvalidToken
from asyncsvc.models import APIToken, TokenPatch, VerifiedToken
from asyncsvc.repositories import APITokenRepository, BudgetRepository
from asyncsvc.repositories.api_token import Subjects, TokenLookup
from asyncsvc.services.budgets import refuse_if_spent
from asyncsvc.services.common import CommonService
from asyncsvc.services.credentials import Keyring, has_foreign_format, has_own_format
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.types import UNSET, Id, Scopes, Secret, TokenKind, UnsetType, UserId

if TYPE_CHECKING:
    from asyncsvc.database import Executor
    from asyncsvc.repositories.budget import CheckedBudget
    from asyncsvc.settings import Settings

_log: Final = logging.getLogger(__name__)
_VALID: Final = frozenset({"active", "retiring"})
_ROTATED: Final = "rotated"
"""The reason that sql/api_token/rotate.sql stores."""
_ALL_SCOPES: Final = "*"
_MAX_RECORD_USE_SECONDS: Final = 0.5
"""The longest time by which the record of its use delays a verification."""


class TokenVerification(CommonService[APIToken, TokenPatch, APITokenRepository]):
    """The methods that take the secret of a token."""

    model = APIToken
    patch_model = TokenPatch
    resource = "token"

    def __init__(self, executor: Executor, settings: Settings) -> None:
        """Run on this executor, with the peppers of these settings."""
        super().__init__(executor, settings, APITokenRepository(executor))
        self._keyring = Keyring(settings)
        self._reads_budgets_apart = settings.row_level_security or settings.citus
        seconds = settings.last_used_resolution
        self._last_used_resolution = UNSET if seconds is None else timedelta(seconds=seconds)

    @overload
    @validated
    async def verify(
        self,
        secret: Secret,
        *,
        kind: TokenKind = "api",
        scopes: Scopes = (),
        record_use: bool = True,
        budgets: Literal[False] = False,
    ) -> APIToken: ...

    @overload
    @validated
    async def verify(
        self,
        secret: Secret,
        *,
        kind: TokenKind = "api",
        scopes: Scopes = (),
        record_use: bool = True,
        budgets: Literal[True],
        user_id: UserId | None = None,
        dialog_id: Id | None = None,
    ) -> VerifiedToken: ...

    @validated
    async def verify(
        self,
        secret: Secret,
        *,
        kind: TokenKind = "api",
        scopes: Scopes = (),
        record_use: bool = True,
        budgets: bool = False,
        user_id: UserId | None = None,
        dialog_id: Id | None = None,
    ) -> APIToken:
        """Return the token of a secret if it is valid and of this kind.

        Records the use in `last_used_at`, at most once per `Settings.last_used_resolution`, and
        replaces a hash under an older pepper. Outside of a transaction this write never fails a
        verification, and delays it by at most 0.5 s: otherwise it is skipped and logged, and the
        next verification repeats it. It does not wait for a locked row.

        Args:
            secret: The secret that a client presented.
            kind: The kind of token that is accepted here.
            scopes: Scopes that the token must have. A token with the scope "*" has all.
            record_use: False: only read, for example on a standby. Pass False in a long
                transaction, since the write locks the token row until the transaction ends, and
                delays a revocation. Inside a transaction an error of the write is raised, since it
                aborts the transaction. Above READ COMMITTED a concurrent write of the same row is
                such an error.
            budgets: Also check the budgets of the tenant, of the token's family, of `user_id` and
                of `dialog_id`.
            user_id: The acting user, from the authenticated session. None or empty: budgets of
                users do not apply.
            dialog_id: The dialog. A token that belongs to a dialog has that one.

        Returns:
            The token as it was before this use was recorded; with `budgets` a `VerifiedToken`,
            whose `budget` is the tightest one.

        Raises:
            InvalidInput: `user_id` or `dialog_id` without `budgets`.
            InvalidToken: The secret is malformed, or its token is unknown, expired, revoked or of
                another kind. The error is the same in all cases; only the log names the case.
            InsufficientScope: The token lacks one of `scopes`.
            BudgetExceeded: The token is valid, and a budget is spent. The error names the tightest
                one. The use is recorded all the same.
            Unavailable: The database does not answer. Verification fails closed.

        Cost:
            1 round trip on the unique index of hashes, 2 on Citus, 1 more if the write is due. 0
            for a malformed secret. With `budgets` it costs what `budgets.status` does in the same
            round trip, or in 1 more under row-level security and on Citus. The first refusal in a
            window has 1 more, which records the crossing, unless it runs inside a transaction or
            `record_use` is False.
        """
        for name, subject in (("user_id", user_id), ("dialog_id", dialog_id)):
            if subject is not None and not budgets:
                raise InvalidInput(name, "applies to budgets only: pass budgets=True")
        subjects = Subjects(user_id, dialog_id) if budgets else None
        lookup = await self._find_valid(secret, kind=kind, record_use=record_use, subjects=subjects)
        if lookup is None:
            raise InvalidToken
        token = lookup.token
        missing = set(scopes) - set(token.scopes)
        if missing and _ALL_SCOPES not in token.scopes:
            _log.info("token %s lacks a requested scope", token.id)
            raise InsufficientScope(f"the token lacks {', '.join(sorted(missing))}")
        if subjects is None:
            return token
        budget = await refuse_if_spent(
            self._executor,
            await self._tightest(lookup, subjects),
            tenant_id=token.tenant_id,
            may_write=record_use,
        )
        return lookup.with_budget(budget)

    async def _tightest(self, lookup: TokenLookup, subjects: Subjects) -> CheckedBudget | None:
        """Return the tightest budget, in a second statement if the first one cannot read it."""
        if not self._reads_budgets_apart:
            return lookup.budget
        statuses = await BudgetRepository(self._executor).get_status(
            tenant_id=lookup.token.tenant_id,
            family_id=lookup.token.family_id,
            user_id=subjects.user_id,
            dialog_id=lookup.token.dialog_id or subjects.dialog_id,
        )
        return statuses[0] if statuses else None

    @validated
    async def used(self, secret: Secret) -> bool:
        """Record the use of a token of any kind, and return whether the token is valid.

        The use is recorded as by `verify`.

        Args:
            secret: The secret as the client sent it.

        Returns:
            False if the secret is malformed, or its token is unknown, expired or revoked.

        Raises:
            Unavailable: The database does not answer.

        Cost:
            1 round trip on the unique index of hashes, 2 on Citus, 1 more if the write is due. 0
            for a malformed secret.
        """
        return await self._find_valid(secret, kind=UNSET, record_use=True) is not None

    async def _find_valid(
        self,
        secret: SecretStr | str,
        *,
        kind: TokenKind | UnsetType,
        record_use: bool,
        subjects: Subjects | None = None,
    ) -> TokenLookup | None:
        """Return the token of a secret if it is valid, record its use, and log a rejection."""
        hashes = self._hashes(secret)
        if not hashes:
            _log.info("rejected a token: it is malformed")
            return None
        tenant_id: str | UnsetType | None = UNSET
        if self._settings.citus:
            tenant_id = await self._repository.find_tenant(hashes=hashes)
        lookup = None
        if tenant_id is not None:
            lookup = await self._repository.verify(
                tenant_id=tenant_id,
                hashes=hashes,
                kind=kind,
                last_used_resolution=self._last_used_resolution,
                pepper_version=self._keyring.version,
                subjects=None if self._reads_budgets_apart else subjects,
            )
        if lookup is None:
            _log.info("rejected a token: it is unknown or of another kind")
            return None
        token = lookup.token
        if token.status not in _VALID:
            _log_rejection(token)
            return None
        if record_use and lookup.is_due:
            await self._record_use(token, token_hash=hashes[0])
        return lookup

    async def _record_use(self, token: APIToken, *, token_hash: bytes) -> None:
        """Record the use of a token. Outside of a transaction skip a write that fails or waits."""
        is_in_transaction = self._executor.is_in_transaction
        version = self._keyring.version
        try:
            async with asyncio.timeout(None if is_in_transaction else _MAX_RECORD_USE_SECONDS):
                await self._repository.record_use(
                    tenant_id=token.tenant_id,
                    id=token.id,
                    token_hash=token_hash if token.pepper_version < version else UNSET,
                    last_used_resolution=self._last_used_resolution,
                    pepper_version=version,
                )
        except (AsyncSvcError, TimeoutError) as error:
            if is_in_transaction:
                raise
            reason = error if isinstance(error, AsyncSvcError) else "the database is too slow"
            _log.warning("the use of token %s is not recorded: %s", token.id, reason)

    def _hashes(self, secret: SecretStr | str) -> list[bytes]:
        """Return the hashes under which a secret may be stored; none if it is malformed.

        The clear text stays in this function. In a frame that waits for the database it would be
        in logs that print the variables of a traceback.
        """
        text = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
        if has_own_format(text) or (
            self._settings.accept_foreign_tokens
            and has_foreign_format(text, self._settings.token_prefix)
        ):
            return self._keyring.accepted_hashes(text)
        return []


def _log_rejection(token: APIToken) -> None:
    if token.revoked_reason == _ROTATED:  # a copy of the old secret may be in wrong hands
        _log.warning("rejected token %s: it was rotated, but its old secret is used", token.id)
    else:
        _log.info("rejected token %s: it is %s", token.id, token.status)
