"""`sql/api_token`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asyncsvc.models import APIToken
from asyncsvc.repositories.base import Repository, build_model, build_models, to_json
from asyncsvc.validation.types import UnsetType

if TYPE_CHECKING:
    from asyncsvc.database import Row

_OLDER_HASHES: Final = 3


class Ended(NamedTuple):
    """How many tokens a statement found, and how many it ended: it may have waited for one."""

    found: int
    ended: int


class Verified(NamedTuple):
    """A token that was looked up, and whether its use is to be noted."""

    token: APIToken
    is_due: bool


class APITokenRepository(Repository):
    """The statements about API tokens."""

    folder = "api_token"

    async def create(
        self,
        *,
        id: str,
        tenant_id: str,
        name: str,
        token_hash: bytes,
        pepper_version: int,
        hint: str,
        kind: str,
        scopes: Sequence[str],
        dialog_id: str | None,
        source: str | None,
        metadata: Mapping[str, object],
        expires_at: datetime | None,
        actor: str | None,
    ) -> APIToken:
        """Store a new token."""
        (row,) = await self._rows(
            "create",
            id=id,
            tenant_id=tenant_id,
            name=name,
            token_hash=token_hash,
            pepper_version=pepper_version,
            hint=hint,
            kind=kind,
            scopes=scopes,
            dialog_id=dialog_id,
            source=source,
            metadata=to_json(metadata),
            expires_at=expires_at,
            actor=actor,
        )
        return build_model(APIToken, row)

    async def load(
        self,
        *,
        tenant_id: str,
        pepper_version: int,
        actor: str | None,
        tokens: Sequence[Mapping[str, Any]],
        hashes: Sequence[Sequence[bytes]],
    ) -> list[str | None]:
        """Store tokens with all that may stand for each; return what became of each, in order."""
        known = [(place, hash) for place, each in enumerate(hashes, 1) for hash in each]
        rows = await self._rows(
            "load",
            tenant_id=tenant_id,
            pepper_version=pepper_version,
            actor=actor,
            ids=[token["id"] for token in tokens],
            names=[token["name"] for token in tokens],
            token_hashes=[token["token_hash"] for token in tokens],
            hints=[token["hint"] for token in tokens],
            kinds=[token["kind"] for token in tokens],
            scopes=[to_json(token["scopes"]) for token in tokens],
            dialog_ids=[token["dialog_id"] for token in tokens],
            sources=[token["source"] for token in tokens],
            metadatas=[to_json(token["metadata"]) for token in tokens],
            created_ats=[token["created_at"] for token in tokens],
            expires_ats=[token["expires_at"] for token in tokens],
            positions=[place for place, _ in known],
            hashes=[hash for _, hash in known],
        )
        outcomes = {row["position"]: row["outcome"] for row in rows}
        return [outcomes[place] for place in range(1, len(tokens) + 1)]

    async def verify(
        self,
        *,
        hashes: Sequence[bytes],
        kind: str | UnsetType,
        last_used_resolution: timedelta | None,
        pepper_version: int,
    ) -> Verified | None:
        """Look a token up."""
        rows = await self._rows(
            "verify",
            kind=kind,
            last_used_resolution=last_used_resolution,
            pepper_version=pepper_version,
            **_hashes(hashes),
        )
        token = _only(rows)
        return None if token is None else Verified(token, rows[0]["is_due"])

    async def touch(
        self,
        *,
        tenant_id: str,
        id: str,
        token_hash: bytes,
        last_used_resolution: timedelta | UnsetType,
        pepper_version: int,
    ) -> None:
        """Note the use of a token, and renew its hash, where that is due."""
        await self._rows(
            "touch",
            tenant_id=tenant_id,
            id=id,
            token_hash=token_hash,
            last_used_resolution=last_used_resolution,
            pepper_version=pepper_version,
        )

    async def get_list(
        self,
        *,
        flags: Iterable[str],
        tenant_id: str,
        kind: str | UnsetType,
        dialog_id: str | UnsetType,
        after_at: datetime | UnsetType,
        after_id: str | UnsetType,
        limit: int,
    ) -> list[APIToken]:
        """Return tokens, newest first."""
        rows = await self._rows(
            "get_list",
            *flags,
            tenant_id=tenant_id,
            kind=kind,
            dialog_id=dialog_id,
            after_at=after_at,
            after_id=after_id,
            limit=limit,
        )
        return build_models(APIToken, rows)

    async def get_by_id(self, *, tenant_id: str, id: str) -> APIToken | None:
        """Return one token."""
        return _only(await self._rows("get_by_id", tenant_id=tenant_id, id=id))

    async def update_by_id(
        self, *, tenant_id: str, id: str, patch: Mapping[str, object], actor: str | None
    ) -> APIToken | None:
        """Set columns."""
        return _only(
            await self._rows(
                "update_by_id", tenant_id=tenant_id, id=id, patch=to_json(patch), actor=actor
            )
        )

    async def rotate(
        self,
        *,
        tenant_id: str,
        id: str,
        successor_id: str,
        token_hash: bytes,
        pepper_version: int,
        hint: str,
        overlap: timedelta,
        keep_expiry: bool,
        expires_at: datetime | None,
        actor: str | None,
    ) -> APIToken | None:
        """Retire a token and store its successor, which is returned."""
        return _only(
            await self._rows(
                "rotate",
                tenant_id=tenant_id,
                id=id,
                successor_id=successor_id,
                token_hash=token_hash,
                pepper_version=pepper_version,
                hint=hint,
                overlap=overlap,
                keep_expiry=keep_expiry,
                expires_at=expires_at,
                actor=actor,
            )
        )

    async def revoke(
        self, *, tenant_id: str, id: str, reason: str | None, actor: str | None
    ) -> APIToken | None:
        """End a token now, unless it is over."""
        return _only(
            await self._rows("revoke", tenant_id=tenant_id, id=id, reason=reason, actor=actor)
        )

    async def get_family(self, *, tenant_id: str, id: str) -> dict[str, bool]:
        """Return the ids of a token and its kin, each with whether it is not over."""
        rows = await self._rows("get_family", tenant_id=tenant_id, id=id)
        return {row["id"]: row["is_live"] for row in rows}

    async def revoke_family(
        self, *, tenant_id: str, id: str, ids: Sequence[str], reason: str | None, actor: str | None
    ) -> int:
        """End these tokens of a family; return how many that were."""
        (row,) = await self._rows(
            "revoke_family", tenant_id=tenant_id, id=id, ids=ids, reason=reason, actor=actor
        )
        return int(row["revoked"])

    async def revoke_all(
        self,
        *,
        flags: Iterable[str],
        tenant_id: str,
        kind: str | UnsetType,
        dialog_id: str | UnsetType,
        unused_since: datetime | UnsetType,
        keep: Sequence[str],
        reason: str | None,
        actor: str | None,
    ) -> Ended:
        """End tokens of a tenant."""
        (row,) = await self._rows(
            "revoke_all",
            *flags,
            tenant_id=tenant_id,
            kind=kind,
            dialog_id=dialog_id,
            unused_since=unused_since,
            keep=keep,
            reason=reason,
            actor=actor,
        )
        return Ended(row["found"], row["revoked"])

    async def delete_by_tenant_id(self, *, tenant_id: str, actor: str | None) -> Ended:
        """Delete a tenant's tokens."""
        deleted = await self._count("delete_by_tenant_id", tenant_id=tenant_id, actor=actor)
        return Ended(deleted, deleted)


def _hashes(hashes: Sequence[bytes]) -> dict[str, bytes]:
    """Return the present hash, and the older ones, if there are any, as often as there is room."""
    present, *older = hashes
    if not older:
        return {"token_hash": present}
    second, third, fourth = (older * _OLDER_HASHES)[:_OLDER_HASHES]
    return {
        "token_hash": present,
        "second_hash": second,
        "third_hash": third,
        "fourth_hash": fourth,
    }


def _only(rows: Sequence[Row]) -> APIToken | None:
    # Of two, which nothing here ever stores, neither is the one that was meant.
    return build_model(APIToken, rows[0]) if len(rows) == 1 else None
