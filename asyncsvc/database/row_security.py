"""Row-level security: the statement that sets the tenant of the next statement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from asyncsvc.database import sql_files
from asyncsvc.database.sql_files import Query

_VERIFIED_HASHES: Final = ("token_hash", "second_hash", "third_hash", "fourth_hash")


def set_tenant(query: Query) -> Query | None:
    """Return the statement that makes the rows of this statement visible.

    These are the rows of its tenant and the tokens that it looks up by hash. None if the statement
    has neither, since it then needs no row of a tenant.
    """
    tenant_id, hashes = query.values.get("tenant_id"), _looked_up_hashes(query.values)
    if tenant_id is None and not hashes:
        return None
    return _set_tenant("" if tenant_id is None else str(tenant_id), hashes)


def clear_tenant() -> Query:
    """Return the statement that makes the rows of all tenants invisible."""
    return _set_tenant("", ())


def _looked_up_hashes(values: Mapping[str, object]) -> list[bytes]:
    """Return the hashes by which a statement looks up tokens of any tenant.

    A statement with a tenant writes `token_hash`, and looks up the tokens of `hashes`.
    """
    looked_up: object
    if "tenant_id" in values:
        looked_up = values.get("hashes")
    else:
        looked_up = [values.get(name) for name in _VERIFIED_HASHES]
    if not isinstance(looked_up, Sequence):
        return []
    return [each for each in looked_up if isinstance(each, bytes)]


def _set_tenant(tenant_id: str, hashes: Iterable[bytes]) -> Query:
    token_hashes = ",".join(f"\\x{each.hex()}" for each in hashes)
    return sql_files.load("row_security/set_tenant").bind(
        (), {"tenant_id": tenant_id, "token_hashes": token_hashes}
    )
