"""API tokens: inputs of the methods, and stored rows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

from pydantic import Json as JsonText
from pydantic import (
    JsonValue,
    SecretStr,
)

from asyncsvc.models.base import ModelOrMapping, Row
from asyncsvc.validation.inputs import Input
from asyncsvc.validation.types import (
    UNSET,
    Id,
    Instant,
    JsonObject,
    Name,
    OrUnset,
    Scopes,
    Source,
    TokenAction,
    TokenKind,
    TokenStatus,
)


class TokenPatch(Input):
    """The columns of a token to set; UNSET leaves one as it is, None sets NULL."""

    name: OrUnset[Name] = UNSET
    scopes: OrUnset[Scopes] = UNSET
    dialog_id: OrUnset[Id | None] = UNSET
    source: OrUnset[Source | None] = UNSET
    metadata: OrUnset[JsonObject] = UNSET
    expires_at: OrUnset[Instant | None] = UNSET


TokenPatchLike = Annotated[TokenPatch | Mapping[str, object], ModelOrMapping(TokenPatch)]


class APIToken(Row):
    """A token, without its secret. `status` is by the server's clock, as of the answer.

    `hint` is how its secret begins. `revoked_at` lies ahead while the token is retiring.
    `last_used_at` is the stamp, and `pepper_version` what its secret was hashed by (0 for none), as
    they were before the call that returned this. `rotated_from` is the id of its predecessor.
    """

    id: str
    tenant_id: str
    name: str
    hint: str
    kind: TokenKind
    scopes: tuple[str, ...]
    dialog_id: str | None
    source: str | None
    metadata: JsonText[dict[str, JsonValue]]
    created_at: datetime
    created_by: str | None
    expires_at: datetime | None
    revoked_at: datetime | None
    revoked_reason: str | None
    last_used_at: datetime | None
    rotated_from: str | None
    pepper_version: int
    status: TokenStatus


class IssuedToken(Row):
    """A new token and its secret, which nobody can read again."""

    token: APIToken
    secret: SecretStr


class TokenEvent(Row):
    """What was done to a token, when, and by whom, as far as the caller said so.

    `detail` has what belongs to the action: the fields of a token that was created or imported, the
    patch of an update, the successor and the end of a rotated one, the reason of a revocation.
    """

    id: int
    tenant_id: str
    token_id: str
    action: TokenAction
    actor: str | None
    at: datetime
    detail: JsonText[dict[str, JsonValue]]
