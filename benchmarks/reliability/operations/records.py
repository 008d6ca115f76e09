"""Operations on records."""

from __future__ import annotations

import secrets
from contextlib import suppress

import asyncsvc
from benchmarks.reliability.application import DIALOGS, Application
from benchmarks.reliability.operations.registry import operation


@operation("records.put", "records.merge", weight=2)
async def _put_records(app: Application) -> None:
    data = {"n": app.chance.random()}
    await app.records.put("state", app.chance.choice(DIALOGS), data, tenant_id=app.tenant)
    await app.records.merge("state", "all", {secrets.token_hex(1): data}, tenant_id=app.tenant)
    user = app.chance.choice(("ann", "bob", "eve"))
    await app.records.put("user", user, data, tenant_id=app.tenant, user_id=user)


@operation("records.get_many", "records.list", weight=2)
async def _read_records(app: Application) -> None:
    await app.records.get_many("state", DIALOGS, tenant_id=app.tenant)
    page = await app.records.list("user", tenant_id=app.tenant, limit=2)
    if page.next is not None:
        await app.records.list("user", tenant_id=app.tenant, limit=2, after=page.next)


@operation("records.get", "records.delete")
async def _delete_record(app: Application) -> None:
    id = app.chance.choice(DIALOGS)
    with suppress(asyncsvc.NotFound):
        await app.records.get("state", id, tenant_id=app.tenant)
    await app.records.delete("state", id, tenant_id=app.tenant)
