"""Row-level security: whose rows a statement may see, told to the server before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from asyncsvc.database import sql_files
from asyncsvc.database.sql_files import Query

_HASHES: Final = ("token_hash", "second_hash", "third_hash", "fourth_hash")


def narrowing(query: Query) -> Query | None:
    """Return what shows this statement the rows of its tenant, and the tokens of its hashes.

    None for a statement that is bound to neither: it asks for nobody's rows.
    """
    tenant_id, hashes = query.values.get("tenant_id"), _hashes(query.values)
    if tenant_id is None and not hashes:
        return None
    return _narrow(cast("str", tenant_id or ""), hashes)


def nobody() -> Query:
    """Return what lets the statements that follow see nothing."""
    return _narrow("", [])


def _hashes(values: Mapping[str, object]) -> list[bytes]:
    """Return the hashes of tokens that a statement looks for, whosever they are.

    One that has a tenant writes the hash of a token of its own, and looks for none by it.
    """
    known = values.get("hashes", ())
    one_by_one = () if "tenant_id" in values else [values[n] for n in _HASHES if n in values]
    return cast("list[bytes]", [*one_by_one, *cast("list[bytes]", known)])


def _narrow(tenant_id: str, hashes: list[bytes]) -> Query:
    written = ",".join(f"\\x{each.hex()}" for each in hashes)
    return sql_files.load("row_security/narrow").bind(
        (), {"tenant_id": tenant_id, "token_hashes": written}
    )
