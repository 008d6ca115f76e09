"""The statements of `sql/api_token`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from asyncsvc.database import build_model, build_models, build_value, build_values, extend_model
from asyncsvc.models import APIToken, BudgetStatus, TokenPatch, VerifiedToken
from asyncsvc.repositories.base import (
    KeyedRepository,
    columns_to_set,
    to_json,
    to_json_apart,
)
from asyncsvc.repositories.budget import CheckedBudget, build_status
from asyncsvc.repositories.large_rows import build_row, build_rows
from asyncsvc.validation.cursors import Position
from asyncsvc.validation.types import UNSET, TokenKind, UnsetType

if TYPE_CHECKING:
    from asyncsvc.database import Row

_OLDER_HASHES: Final = 3

ImportOutcome: TypeAlias = Literal["imported", "present", "taken"] | None
"""The outcome of one token; None if a concurrent transaction stored its secret first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HashedSecret:
    """The columns that are stored in place of a secret."""

    token_hash: bytes
    """32 bytes."""
    pepper_version: int
    """The version of the pepper of the hash; 0 without one."""
    hint: str
    """The first characters of the secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """The columns of a token to store."""

    id: str
    secret: HashedSecret
    name: str
    kind: TokenKind
    scopes: Sequence[str]
    dialog_id: str | None
    source: str | None
    expires_at: datetime | None
    metadata: Mapping[str, object] = field(default_factory=dict)
    created_at: datetime | None = None
    """Only imports set it. None: the server's clock."""


class RevokedBatch(NamedTuple):
    """The result of `revoke_many`."""

    revoked: int
    may_remain: bool
    """Whether live tokens that match may remain, so that the call must be repeated."""


class _Outcome(NamedTuple):
    """The outcome of the token at a position of an import, from 1."""

    position: int
    outcome: ImportOutcome


class _StoredHash(NamedTuple):
    """A token that has one of the hashes at a position of an import, from 1."""

    position: int
    tenant_id: str
    token_id: str


class _Relative(NamedTuple):
    """A token, or a predecessor or successor of it by rotation."""

    id: str
    is_live: bool


class TokenLookup(NamedTuple):
    """The token of a secret, whether `record_use` must write, and the tightest budget."""

    token: APIToken
    is_due: bool
    budget: CheckedBudget | None
    """None without `subjects`, or if no budget applies."""

    def with_budget(self, budget: BudgetStatus | None) -> VerifiedToken:
        """Return the token with its tightest budget."""
        return extend_model(VerifiedToken, self.token, budget=budget)


class Subjects(NamedTuple):
    """The user and the dialog of a request, beside the tenant and the family of its token."""

    user_id: str | None
    dialog_id: str | None
    """The dialog, unless the token belongs to one."""


class APITokenRepository(KeyedRepository[APIToken, TokenPatch]):
    """The statements about API tokens."""

    folder = "api_token"

    async def create(self, token: NewToken, *, tenant_id: str, actor: str | None) -> APIToken:
        """Store a new token."""
        (row,) = await self._write(
            "create",
            lambda tokens, _: tokens.add_hashes([(token.id, token.secret)], tenant_id=tenant_id),
            tenant_id=tenant_id,
            id=token.id,
            name=token.name,
            token_hash=token.secret.token_hash,
            pepper_version=token.secret.pepper_version,
            hint=token.secret.hint,
            kind=token.kind,
            scopes=token.scopes,
            dialog_id=token.dialog_id,
            source=token.source,
            metadata=await to_json_apart(token.metadata),
            expires_at=token.expires_at,
            actor=actor,
        )
        return await build_row(APIToken, row)

    async def import_many(
        self,
        tokens: Sequence[NewToken],
        *,
        accepted_hashes: Sequence[Sequence[bytes]],
        tenant_id: str,
        actor: str | None,
    ) -> list[ImportOutcome]:
        """Store tokens whose secret is not stored under one of its accepted hashes."""
        positions_and_hashes = [
            (position, hash)
            for position, hashes in enumerate(accepted_hashes, 1)
            for hash in hashes
        ]
        rows = await self._import(
            [(token.id, token.secret) for token in tokens],
            [position for position, _ in positions_and_hashes],
            [hash for _, hash in positions_and_hashes],
            tenant_id=tenant_id,
            ids=[token.id for token in tokens],
            names=[token.name for token in tokens],
            token_hashes=[token.secret.token_hash for token in tokens],
            pepper_versions=[token.secret.pepper_version for token in tokens],
            hints=[token.secret.hint for token in tokens],
            kinds=[token.kind for token in tokens],
            scopes=[to_json(list(token.scopes)) for token in tokens],
            dialog_ids=[token.dialog_id for token in tokens],
            sources=[token.source for token in tokens],
            metadatas=[await to_json_apart(token.metadata) for token in tokens],
            created_ats=[token.created_at for token in tokens],
            expires_ats=[token.expires_at for token in tokens],
            actor=actor,
        )
        outcomes = {each.position: each.outcome for each in build_models(_Outcome, rows)}
        return [outcomes[position] for position in range(1, len(tokens) + 1)]

    async def _import(
        self,
        secrets: Sequence[tuple[str, HashedSecret]],
        positions: Sequence[int],
        hashes: Sequence[bytes],
        /,
        *,
        tenant_id: str,
        **parameters: object,
    ) -> list[Row]:
        """Import tokens. On Citus the coordinator stores the hashes, then the node the tokens."""
        if not self._executor.settings.citus:
            return await self._rows(
                "import_many", tenant_id=tenant_id, positions=positions, hashes=hashes, **parameters
            )
        async with self._executor.transaction() as transaction:
            tokens = APITokenRepository(transaction)
            stored = await tokens.find_hashes(positions=positions, hashes=hashes)
            known = {each.position for each in stored}
            new = [each for position, each in enumerate(secrets, 1) if position not in known]
            added = await tokens.add_hashes(new, tenant_id=tenant_id, if_new=True)
            await tokens.use_two_phases(tenant_id=tenant_id)
            return await tokens._rows(
                "import_many",
                tenant_id=tenant_id,
                stored_positions=[each.position for each in stored],
                stored_tenants=[each.tenant_id for each in stored],
                stored_ids=[each.token_id for each in stored],
                added_ids=added,
                **parameters,
            )

    async def find_tenant(self, *, hashes: Sequence[bytes]) -> str | None:
        """Return the tenant of a token by the hashes of its secret, the current one first."""
        rows = await self._rows("find_tenant", **_hash_parameters(hashes))
        return build_value(str, rows[0], "tenant_id") if len(rows) == 1 else None

    async def verify(
        self,
        *,
        tenant_id: str | UnsetType,
        hashes: Sequence[bytes],
        kind: TokenKind | UnsetType,
        last_used_resolution: timedelta | UnsetType,
        pepper_version: int,
        subjects: Subjects | None = None,
    ) -> TokenLookup | None:
        """Look a token up by the hashes of its secret, the current one first.

        With `subjects` also read the tightest budget that applies to them.
        """
        rows = await self._rows(
            "verify",
            *([] if subjects is None else ["budgets"]),
            **_hash_parameters(hashes),
            tenant_id=tenant_id,
            kind=kind,
            last_used_resolution=last_used_resolution,
            pepper_version=pepper_version,
            user_id=UNSET if subjects is None else subjects.user_id,
            dialog_id=UNSET if subjects is None else subjects.dialog_id,
        )
        if len(rows) != 1:  # no method stores a secret twice; such a secret is ambiguous
            return None
        (row,) = rows
        token = await build_row(APIToken, row)
        has_budget = subjects is not None and row["budget_id"] is not None
        budget = build_status(row) if has_budget else None
        return TokenLookup(token, build_value(bool, row, "is_due"), budget)

    async def record_use(
        self,
        *,
        tenant_id: str,
        id: str,
        token_hash: bytes | UnsetType,
        last_used_resolution: timedelta | UnsetType,
        pepper_version: int,
    ) -> None:
        """Record the use of a token and update its hash, if either is due. UNSET: keep the hash."""
        if token_hash is UNSET:
            await self._rows(
                "record_use",
                tenant_id=tenant_id,
                id=id,
                last_used_resolution=last_used_resolution,
            )
            return

        async def follow(tokens: APITokenRepository, row: Row) -> None:
            if build_value(bool, row, "is_rehashed"):
                await tokens.replace_hash(tenant_id=tenant_id, token_id=id, token_hash=token_hash)

        await self._write(
            "record_use",
            follow,
            tenant_id=tenant_id,
            id=id,
            token_hash=token_hash,
            last_used_resolution=last_used_resolution,
            pepper_version=pepper_version,
        )

    async def get_list(
        self,
        *,
        tenant_id: str,
        kind: TokenKind | UnsetType,
        dialog_id: str | UnsetType | None,
        after: Position | None,
        limit: int,
    ) -> list[APIToken]:
        """Return tokens, newest first."""
        rows = await self._rows(
            "get_list",
            tenant_id=tenant_id,
            kind=kind,
            dialog_id=dialog_id,
            after_at=UNSET if after is None else after.at,
            after_id=UNSET if after is None else after.id,
            limit=limit,
        )
        return await build_rows(APIToken, rows)

    async def get_by_ids(self, *, tenant_id: str, ids: Sequence[str]) -> list[APIToken]:
        """Return the tokens that exist, in the order of the ids."""
        rows = await self._rows("get_by_ids", tenant_id=tenant_id, ids=ids)
        return await build_rows(APIToken, rows)

    async def update_many_by_id(
        self, *, tenant_id: str, patches: Mapping[str, TokenPatch], actor: str | None = None
    ) -> list[APIToken]:
        """Set columns of tokens, by id; return the changed tokens."""
        columns = {id: columns_to_set(patch) for id, patch in patches.items()}
        rows = await self._rows(
            "update_many_by_id",
            tenant_id=tenant_id,
            patches=await to_json_apart(columns),
            actor=actor,
        )
        return await build_rows(APIToken, rows)

    async def rotate(
        self,
        *,
        tenant_id: str,
        id: str,
        successor_id: str,
        secret: HashedSecret,
        overlap: timedelta,
        expires_at: datetime | UnsetType | None,
        actor: str | None,
    ) -> APIToken | None:
        """Retire a token and return its successor, which keeps `expires_at` if that is UNSET."""
        return await _token(
            await self._write(
                "rotate",
                lambda tokens, _: tokens.add_hashes([(successor_id, secret)], tenant_id=tenant_id),
                tenant_id=tenant_id,
                id=id,
                successor_id=successor_id,
                token_hash=secret.token_hash,
                pepper_version=secret.pepper_version,
                hint=secret.hint,
                overlap=overlap,
                expires_at=expires_at,
                actor=actor,
            )
        )

    async def revoke(
        self, *, tenant_id: str, id: str, reason: str | None, actor: str | None
    ) -> APIToken | None:
        """Revoke one live token and return it."""
        return await _token(
            await self._rows("revoke", tenant_id=tenant_id, id=id, reason=reason, actor=actor)
        )

    async def revoke_many(
        self,
        *,
        tenant_id: str,
        ids: Sequence[str] | UnsetType = UNSET,
        keep: Sequence[str] = (),
        kind: TokenKind | UnsetType = UNSET,
        dialog_id: str | UnsetType | None = UNSET,
        unused_since: datetime | UnsetType = UNSET,
        family_of: str | UnsetType = UNSET,
        reason: str | None,
        actor: str | None,
    ) -> RevokedBatch:
        """Revoke the live tokens that match. The audit records `family_of`."""
        (row,) = await self._rows(
            "revoke_many",
            tenant_id=tenant_id,
            ids=ids,
            keep=keep or UNSET,
            kind=kind,
            dialog_id=dialog_id,
            unused_since=unused_since,
            family_of=family_of,
            reason=reason,
            actor=actor,
        )
        return build_model(RevokedBatch, row)

    async def get_family(self, *, tenant_id: str, id: str) -> dict[str, bool]:
        """Return the ids of a token and its relatives by rotation, each with whether it is live."""
        rows = await self._rows("get_family", tenant_id=tenant_id, id=id)
        return {each.id: each.is_live for each in build_models(_Relative, rows)}

    async def delete(
        self,
        *,
        tenant_id: str,
        ids: Sequence[str] | UnsetType = UNSET,
        batch_size: int | UnsetType = UNSET,
        actor: str | None = None,
    ) -> int:
        """Delete tokens by id, or one batch of the tokens of a tenant; TypeError for both.

        Return their number.
        """
        if (ids is UNSET) == (batch_size is UNSET):
            raise TypeError("exactly one of ids and batch_size")
        (row,) = await self._write(
            "delete",
            lambda tokens, row: tokens.delete_hashes(
                tenant_id=tenant_id, token_ids=build_value(list[str], row, "ids")
            ),
            tenant_id=tenant_id,
            ids=ids,
            batch_size=batch_size,
            actor=actor,
        )
        return build_value(int, row, "deleted")

    async def _write(
        self,
        name: str,
        write_hashes: Callable[[APITokenRepository, Row], Awaitable[object]],
        /,
        **parameters: object,
    ) -> list[Row]:
        """Run a file that also writes hashes, which are not on the node of the tenant on Citus.

        There the node and then the coordinator write their part, in one transaction.
        """
        if not self._executor.settings.citus:
            return await self._rows(name, **parameters)
        async with self._executor.transaction() as transaction:
            tokens = APITokenRepository(transaction)
            rows = await tokens._rows(name, "hashes_apart", **parameters)
            for row in rows:
                await write_hashes(tokens, row)
                await tokens.use_two_phases(tenant_id=str(parameters["tenant_id"]))
        return rows

    async def find_hashes(
        self, *, positions: Sequence[int], hashes: Sequence[bytes]
    ) -> list[_StoredHash]:
        """Return the tokens that have one of the hashes at a position."""
        rows = await self._rows("find_hashes", positions=positions, hashes=hashes)
        return build_models(_StoredHash, rows)

    async def add_hashes(
        self, secrets: Sequence[tuple[str, HashedSecret]], *, tenant_id: str, if_new: bool = False
    ) -> list[str]:
        """Store the hashes of tokens, by id; return the ids of those that were stored.

        A hash that is stored already raises AlreadyExists, or with `if_new` is skipped.
        """
        rows = await self._rows(
            "add_hashes",
            *(["if_new"] if if_new else []),
            tenant_id=tenant_id,
            token_ids=[token_id for token_id, _ in secrets],
            token_hashes=[secret.token_hash for _, secret in secrets],
        )
        return build_values(str, rows, "token_id")

    async def delete_hashes(self, *, tenant_id: str, token_ids: Sequence[str]) -> None:
        """Delete the hashes of tokens."""
        await self._rows("delete_hashes", tenant_id=tenant_id, token_ids=token_ids)

    async def replace_hash(self, *, tenant_id: str, token_id: str, token_hash: bytes) -> None:
        """Set the hash of a token."""
        await self._rows(
            "replace_hash", tenant_id=tenant_id, token_id=token_id, token_hash=token_hash
        )

    async def use_two_phases(self, *, tenant_id: str) -> None:
        """Make Citus commit the open transaction in two phases."""
        await self._rows("use_two_phases", tenant_id=tenant_id)


async def _token(rows: Sequence[Row]) -> APIToken | None:
    return await build_row(APIToken, rows[0]) if rows else None


def _hash_parameters(hashes: Sequence[bytes]) -> dict[str, object]:
    """Return the parameters of a lookup by the hashes of a secret, the current one first."""
    token_hash, *older = hashes
    second, third, fourth = (older * _OLDER_HASHES)[:_OLDER_HASHES] or (UNSET,) * _OLDER_HASHES
    return {
        "token_hash": token_hash,
        "second_hash": second,
        "third_hash": third,
        "fourth_hash": fourth,
    }
