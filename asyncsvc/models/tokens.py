"""API tokens: inputs of the methods, stored rows, and records of an import."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Annotated

from pydantic import Field, JsonValue, PlainValidator, SecretStr
from pydantic import Json as JsonText

from asyncsvc.models.base import Model
from asyncsvc.models.columns import Timestamp
from asyncsvc.validation.checks import check_iterable
from asyncsvc.validation.inputs import Input
from asyncsvc.validation.types import (
    UNSET,
    Id,
    Instant,
    JsonObject,
    Name,
    OrUnset,
    Scopes,
    Secret,
    Source,
    TokenAction,
    TokenKind,
    TokenStatus,
)


class TokenPatch(Input):
    """The columns of a token to set. UNSET leaves a column unchanged, None sets NULL."""

    name: OrUnset[Name] = UNSET
    """The name for people."""
    scopes: OrUnset[Scopes] = UNSET
    """All scopes of the token; the previous ones are replaced."""
    dialog_id: OrUnset[Id | None] = UNSET
    """The dialog that the token belongs to."""
    source: OrUnset[Source | None] = UNSET
    """The application's label for where the token is used."""
    metadata: OrUnset[JsonObject] = UNSET
    """The whole JSON object; the previous one is replaced."""
    expires_at: OrUnset[Instant | None] = UNSET
    """The instant from which the token is invalid. None: it does not expire."""


class TokenRecord(Input):
    """A token that another system issued, with its secret in clear text, to import."""

    secret: Secret
    """The secret: 1 to 255 visible ASCII characters, or a secret that this library generated."""
    kind: TokenKind = "api"
    """The kind as which the token passes verification."""
    name: Name = ""
    """The name for people."""
    scopes: Scopes = ("*",)
    """The scopes that the token grants; by default all."""
    dialog_id: Id | None = None
    """The dialog that the token belongs to."""
    source: Source | None = None
    """The application's label for where the token is used."""
    metadata: JsonObject = Field(default_factory=dict)
    """A JSON object of the application."""
    created_at: Instant | None = None
    """The time of creation. None: the server's clock."""
    expires_at: Instant | None = None
    """The instant from which the token is invalid. None: it does not expire."""


TokenRecords = Annotated[
    Iterable[TokenRecord | Mapping[str, object]]
    | AsyncIterable[TokenRecord | Mapping[str, object]],
    PlainValidator(check_iterable),
]
"""The input of an import: records, or mappings with the same fields."""


class APIToken(Model):
    """A token without its secret."""

    id: str
    """The id of the token, unique among all tenants."""
    tenant_id: str
    """The tenant that the token belongs to."""
    name: str
    """The name for people."""
    hint: str
    """The first characters of the secret, by which people recognize it."""
    kind: TokenKind
    """The kind as which the token passes verification."""
    scopes: tuple[str, ...]
    """The scopes that the token grants. "*" grants all."""
    dialog_id: str | None
    """The dialog that the token belongs to."""
    source: str | None
    """The application's label for where the token is used."""
    metadata: JsonText[dict[str, JsonValue]]
    """A JSON object of the application."""
    created_at: Timestamp
    """The time of creation."""
    created_by: str | None
    """The `actor` of the creation, import or rotation."""
    expires_at: Timestamp | None
    """The instant from which the token is invalid. None: it does not expire."""
    revoked_at: Timestamp | None
    """The instant of the revocation. It is in the future while the token is retiring."""
    revoked_reason: str | None
    """The reason of the revocation, "rotated" after a rotation."""
    last_used_at: Timestamp | None
    """The time of the last use, accurate to `Settings.last_used_resolution`. `verify` returns the
    time of the previous use."""
    rotated_from: str | None
    """The id of the predecessor by rotation."""
    family_id: str
    """The id of the first token of its chain of rotations; its own id if no rotation created it."""
    pepper_version: int
    """The version of the pepper of the stored hash; 0 without a pepper. `verify` returns the
    version before its own update."""
    status: TokenStatus
    """The status by the server's clock, when the statement ran."""


class IssuedToken(Model):
    """A new token and its secret."""

    token: APIToken
    """The token as it is stored."""
    secret: SecretStr
    """The secret. It is not stored and cannot be read again."""


class TokenEvent(Model):
    """An event of the audit of tokens."""

    id: int
    """The number of the event, unique within the tenant."""
    tenant_id: str
    """The tenant that the token belongs to."""
    token_id: str
    """The token that was changed."""
    action: TokenAction
    """The change."""
    actor: str | None
    """The `actor` that the caller passed."""
    at: Timestamp
    """The time of the change."""
    detail: JsonText[dict[str, JsonValue]]
    """The fields of a created or imported token, the patch of an update, the successor and the end
    of a rotated token, or the reason of a revocation."""
