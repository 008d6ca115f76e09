"""The model of `APITokenService`."""

import copy
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from asyncsvc import ANY, UNSET, Conflict, InsufficientScope, InvalidToken
from tests.models.state import Row, Tenant, Token, matches, now


class TokenModel:
    """The tokens of all tenants."""

    def __init__(self, tenants: defaultdict[str, Tenant]) -> None:
        self._tenants = tenants

    # ------------------------------------------------------------ issue and verify

    def create(self, *, tenant_id, actor=None, **fields) -> Row:
        token = Token(created_by=actor, **copy.deepcopy(fields))
        self._add(tenant_id, token, "create", actor)
        return {"token": token.row()}

    def _add(self, tenant_id: str, token: Token, action: str, actor: str | None) -> None:
        self._tenants[tenant_id].tokens.append(token)
        self._tenants[tenant_id].audit.append((action, token, actor))

    def import_(self, records, *, tenant_id, actor=None) -> Row:
        """Store tokens. A token whose secret exists is rejected in the report, without an error."""
        report = dict.fromkeys(("tokens", "present", "rejected"), 0)
        for record in records:
            defaults = {"name": "", "scopes": ("*",), "created_by": actor}
            token = Token(**defaults | copy.deepcopy(record))
            owner, stored = self._with_secret(token.secret)
            if stored is None:
                self._add(tenant_id, token, "import", actor)
            is_taken = stored and (owner, stored.kind) != (tenant_id, token.kind)
            report["rejected" if is_taken else "present" if stored else "tokens"] += 1
        return report

    def _with_secret(self, secret: str) -> tuple[str, Token | None]:
        """Return the token that has a secret, and its tenant."""
        for tenant_id, tenant in self._tenants.items():
            for token in tenant.tokens:
                if token.secret == secret:
                    return tenant_id, token
        return "", None

    def verify(
        self,
        secret,
        *,
        kind="api",
        scopes=(),
        record_use=True,
        budgets=False,
        user_id=None,
        dialog_id=None,
    ) -> Row:
        assert (budgets, user_id, dialog_id) == (False, None, None)
        tenant_id, token = self._with_secret(secret)
        if token is None or token.kind != kind or not token.is_valid:
            raise InvalidToken
        row = {"tenant_id": tenant_id, **token.row()}
        token.is_used |= record_use
        if not set(scopes) <= set(token.scopes) and "*" not in token.scopes:
            raise InsufficientScope
        return row

    def used(self, secret) -> bool:
        _, token = self._with_secret(secret)
        is_valid = token is not None and token.is_valid
        if is_valid:
            token.is_used = True
        return is_valid

    # ------------------------------------------------------------ reads

    def get_list(self, *, tenant_id, kind=ANY, dialog_id=ANY) -> list[Row]:
        return [
            token.row()
            for token in sorted(
                self._tenants[tenant_id].tokens,
                key=lambda each: (each.created_at or now(), each.id or ""),
            )[::-1]
            if matches(kind, token.kind) and matches(dialog_id, token.dialog_id)
        ]

    def get_by_id(self, id, *, tenant_id) -> Row:
        return self._tenants[tenant_id].token(id).row()

    def get_by_ids(self, ids, *, tenant_id) -> list[Row]:
        rows = {token.id: token.row() for token in self._tenants[tenant_id].tokens}
        return [rows[id] for id in ids if id in rows]

    def audit(self, *, tenant_id, token_id=ANY) -> list[Row]:
        """Return the events, newest first. Events of one statement have no order."""
        return [
            {"action": action, "token_id": token.id, "actor": actor}
            for action, token, actor in self._tenants[tenant_id].audit[::-1]
            if matches(token_id, token.id)
        ]

    # ------------------------------------------------------------ changes

    def update_by_id(self, id, patch, *, tenant_id, actor=None) -> Row:
        token = self._tenants[tenant_id].token(id)
        self.update_many_by_id({id: patch}, tenant_id=tenant_id, actor=actor)
        return token.row()

    def update_many_by_id(self, patches, *, tenant_id, actor=None) -> int:
        tenant = self._tenants[tenant_id]
        updated = [token for token in tenant.tokens if token.id in patches]
        for token in updated:
            for name, value in patches[token.id].items():
                setattr(token, name, copy.deepcopy(value))
            tenant.audit.append(("update", token, actor))
        return len(updated)

    def rotate(self, id, *, tenant_id, overlap=UNSET, expires_at=UNSET, actor=None) -> Row:
        token = self._tenants[tenant_id].token(id)
        if token.status != "active":
            raise Conflict
        successor = copy.copy(token)
        successor.id = successor.secret = successor.created_at = None
        successor.is_used = False
        successor.created_by, successor.rotated_from = actor, token.id
        successor.family = token.family or token
        successor.expires_at = token.expires_at if expires_at is UNSET else expires_at
        token.end = "retiring" if overlap else "revoked"
        token.reason = "rotated"
        self._tenants[tenant_id].audit.append(("rotate", token, actor))
        self._add(tenant_id, successor, "create", actor)
        return {"token": successor.row()}

    def revoke(self, id, *, tenant_id, reason=None, actor=None) -> Row:
        token = self._tenants[tenant_id].token(id)
        self._revoke(tenant_id, [token], reason, actor)
        return token.row()

    def revoke_family(self, id, *, tenant_id, reason=None, actor=None) -> int:
        token = self._tenants[tenant_id].token(id)
        first = token.family or token
        family = [
            each for each in self._tenants[tenant_id].tokens if (each.family or each) is first
        ]
        return self._revoke(tenant_id, family, reason, actor)

    def revoke_all(
        self,
        *,
        tenant_id,
        kind=ANY,
        dialog_id=ANY,
        unused_since=None,
        keep=(),
        reason=None,
        actor=None,
    ) -> int:
        tokens = [
            each
            for each in self._tenants[tenant_id].tokens
            if matches(kind, each.kind)
            and matches(dialog_id, each.dialog_id)
            and (unused_since is None or last_seen(each) < unused_since)
            and each.id not in keep
        ]
        return self._revoke(tenant_id, tokens, reason, actor)

    def _revoke(
        self, tenant_id: str, tokens: Iterable[Token], reason: str | None, actor: str | None
    ) -> int:
        """Revoke tokens. A revoked token keeps its first revocation."""
        ended = [each for each in tokens if each.end != "revoked"]
        for token in ended:
            token.end, token.reason = "revoked", reason
            self._tenants[tenant_id].audit.append(("revoke", token, actor))
        return len(ended)

    def delete_by_id(self, id, *, tenant_id, actor=None) -> int:
        return self.delete_by_ids([id], tenant_id=tenant_id, actor=actor)

    def delete_by_ids(self, ids, *, tenant_id, actor=None) -> int:
        tenant = self._tenants[tenant_id]
        deleted = [token for token in tenant.tokens if token.id in ids]
        tenant.tokens = [token for token in tenant.tokens if token.id not in ids]
        tenant.audit += [("delete", token, actor) for token in deleted]
        return len(deleted)

    def delete_by_tenant_id(self, *, tenant_id, actor=None) -> int:
        ids = [token.id for token in self._tenants[tenant_id].tokens]
        return self.delete_by_ids(ids, tenant_id=tenant_id, actor=actor)


def last_seen(token: Token) -> datetime:
    """Return the time at which a token was issued or last used. A use is always recent."""
    return now() if token.is_used or token.created_at is None else token.created_at
