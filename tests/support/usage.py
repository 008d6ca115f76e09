"""Rows of the usage ledger, as usage of any kind writes them."""

from datetime import datetime

import asyncpg


async def spend(
    pool: asyncpg.Pool,
    *,
    tenant_id: str = "t",
    dialog_id: str = "d",
    user_id: str = "",
    at: datetime | None = None,
    **columns: object,
) -> None:
    """Insert usage that no conversation counts. A cost is in nano units."""
    names = ("token_id", "acting_user_id", "cost", "tokens", "cached_input_tokens", "rounds")
    values = [columns.get(name, 0 if name in {"tokens", "rounds"} else None) for name in names]
    await pool.execute(
        "INSERT INTO asyncsvc.usage_ledger (tenant_id, dialog_id, user_id, at, is_imported,"
        f" {', '.join(names)})"
        " VALUES ($1, $2, $3, coalesce($4, statement_timestamp()), $5, $6, $7, $8, $9, $10, $11)",
        tenant_id,
        dialog_id,
        user_id,
        at,
        columns.get("is_imported", False),
        *values,
    )
