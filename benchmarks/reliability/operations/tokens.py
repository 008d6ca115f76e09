"""Operations on tokens and budgets."""

from __future__ import annotations

import secrets
from datetime import timedelta

from benchmarks.reliability.application import DIALOGS, USERS, Application
from benchmarks.reliability.operations.registry import operation


@operation("tokens.create", weight=2)
async def _create_token(app: Application) -> None:
    await app.create_token()


@operation("tokens.verify", weight=9)
async def _verify(app: Application) -> None:
    """Verify a token, or an unknown secret."""
    secret = (await app.token()).secret.get_secret_value()
    if app.chance.random() < 1 / 9:
        secret = secret.swapcase()
    record_use = app.chance.random() < 1 / 2
    await app.tokens.verify(secret, scopes=["chat"], record_use=record_use)


@operation(
    *("tokens.get_list", "tokens.get_by_id", "tokens.get_by_ids", "tokens.update_by_id"),
    *("tokens.update_many_by_id", "tokens.audit", "tokens.used"),
)
async def _manage_token(app: Application) -> None:
    issued, tenant = await app.token(), app.tenant
    page = await app.tokens.get_list(tenant_id=tenant, limit=10)
    if page.next is not None:
        await app.tokens.get_list(tenant_id=tenant, limit=10, after=page.next)
    id, patch = issued.token.id, {"name": "renamed"}
    await app.tokens.get_by_id(id, tenant_id=tenant)
    await app.tokens.get_by_ids([id, "absent"], tenant_id=tenant)
    await app.tokens.update_by_id(id, patch, tenant_id=tenant)
    await app.tokens.update_many_by_id({id: patch, "absent": patch}, tenant_id=tenant)
    await app.tokens.audit(tenant_id=tenant, limit=20)
    await app.tokens.used(issued.secret)


@operation("tokens.rotate", "tokens.revoke")
async def _rotate(app: Application) -> None:
    """Rotate a token and revoke the old or the new one."""
    old = await app.token()
    overlap = timedelta(seconds=app.chance.choice((0, 60)))
    new = await app.tokens.rotate(old.token.id, tenant_id=app.tenant, overlap=overlap)
    app.issued.append(new)
    await app.tokens.revoke(app.chance.choice((old, new)).token.id, tenant_id=app.tenant)


@operation(
    *("tokens.revoke_family", "tokens.revoke_all", "tokens.delete_by_tenant_id"),
    *("tokens.delete_by_id", "tokens.delete_by_ids"),
    weight=0.2,
)
async def _revoke_many(app: Application) -> None:
    await app.tokens.revoke_family((await app.token()).token.id, tenant_id=app.tenant)
    await app.tokens.revoke_all(tenant_id=app.tenant, reason="a soak")
    issued = [await app.token() for _ in range(2)]
    await app.tokens.delete_by_id(issued[0].token.id, tenant_id=app.tenant)
    await app.tokens.delete_by_ids([each.token.id for each in issued], tenant_id=app.tenant)
    await app.tokens.delete_by_tenant_id(tenant_id=app.tenant)


@operation("tokens.import_", weight=0.5)
async def _import_token(app: Application) -> None:
    record = {"secret": f"ragflow-{secrets.token_hex(16)}"}
    await app.tokens.import_([record], tenant_id=app.tenant)


@operation("budgets.set", "budgets.raise_limit", "budgets.delete")
async def _change_budgets(app: Application) -> None:
    for window in ("hour", "month"):
        await app.budgets.set(
            tenant_id=app.tenant, scope="user", metric="rounds", limit=10**9, window=window
        )
    budget = await app.budgets.set(
        tenant_id=app.tenant, scope="dialog", subject=app.chance.choice(DIALOGS), limit=10**9
    )
    await app.budgets.raise_limit(budget.id, tenant_id=app.tenant, by=1)
    await app.budgets.delete(budget.id, tenant_id=app.tenant)


@operation("budgets.status", "budgets.check", "budgets.list", "budgets.audit", weight=2)
async def _read_budgets(app: Application) -> None:
    subjects = {"user_id": app.chance.choice(USERS), "dialog_id": app.chance.choice(DIALOGS)}
    await app.budgets.status(tenant_id=app.tenant, **subjects)
    await app.budgets.check(tenant_id=app.tenant, **subjects)
    await app.budgets.list(tenant_id=app.tenant, limit=2)
    await app.budgets.audit(tenant_id=app.tenant, limit=2)
