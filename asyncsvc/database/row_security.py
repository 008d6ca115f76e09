"""Row-level security: the tenant whose rows a statement may see and write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from asyncsvc.database import sql_files
from asyncsvc.database.sql_files import Query

_HASHES: Final = ("token_hash", "second_hash", "third_hash", "fourth_hash")


def set_tenant(query: Query) -> Query | None:
    """Return the statement that makes the rows visible that this statement needs.

    These are the rows of its tenant and the tokens whose hashes it looks up. None if the statement
    has neither: then it needs no row of a tenant.
    """
    tenant_id, hashes = query.values.get("tenant_id"), _hashes(query.values)
    if tenant_id is None and not hashes:
        return None
    return _set_tenant(cast("str", tenant_id or ""), hashes)


def clear_tenant() -> Query:
    """Return the statement that makes all rows of all tenants invisible."""
    return _set_tenant("", [])


def _hashes(values: Mapping[str, object]) -> list[bytes]:
    """Return the hashes of tokens that a statement looks for, whosever they are.

    One that has a tenant writes the hash of a token of its own, and looks for none by it.
    """
    known = values.get("hashes", ())
    one_by_one = () if "tenant_id" in values else [values[n] for n in _HASHES if n in values]
    return cast("list[bytes]", [*one_by_one, *cast("list[bytes]", known)])


def _set_tenant(tenant_id: str, hashes: list[bytes]) -> Query:
    written = ",".join(f"\\x{each.hex()}" for each in hashes)
    return sql_files.load("row_security/set_tenant").bind(
        (), {"tenant_id": tenant_id, "token_hashes": written}
    )
