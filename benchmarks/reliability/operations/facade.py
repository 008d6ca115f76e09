"""Operations of the facade: transactions, connections, maintenance and reports."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import asyncpg

import asyncsvc
from benchmarks.reliability.application import Application
from benchmarks.reliability.operations.registry import operation


class _RollBack(Exception):
    """Rolls back a transaction."""


@operation("transaction", weight=2)
async def _transaction(app: Application) -> None:
    """Use both services in a transaction with a rolled back savepoint; commit or roll back."""
    with suppress(_RollBack):
        async with app.svc.transaction() as tx:
            conversation = await tx.conversations.create(tenant_id=app.tenant, dialog_id="support")
            with suppress(_RollBack):
                async with tx.transaction() as inner:
                    await inner.tokens.create(tenant_id=app.tenant, name="never")
                    raise _RollBack
            await tx.conversations.append_message(
                conversation.id, app.turn(), tenant_id=app.tenant, idempotency_key="first"
            )
            if app.chance.random() < 1 / 3:
                raise _RollBack


@operation("on", weight=2)
async def _on(app: Application) -> None:
    """Use the library in a transaction on a connection of the application's own pool."""
    id = await app.id()
    with _driver_errors_as_unavailable():
        async with app.pool.acquire(timeout=5) as connection, connection.transaction():
            services = app.svc.on(connection)
            await services.conversations.append_message(id, app.turn(), tenant_id=app.tenant)


@contextmanager
def _driver_errors_as_unavailable() -> Iterator[None]:
    """Raise the driver's errors of the application's own BEGIN and COMMIT as Unavailable."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise asyncsvc.Unavailable(str(error)) from error


@operation("connect", "close", weight=0.5)
async def _connect(app: Application) -> None:
    """Open and close a second pool, with maintenance in the background."""
    often = asyncsvc.Settings(maintenance_interval=0.02)
    svc = await asyncsvc.connect(app.dsn, max_size=2, settings=often)
    try:
        await svc.conversations.get_list(tenant_id=app.tenant, items_per_page=1)
        await asyncio.sleep(0.05)
    finally:
        await svc.close()


@operation("position", "at_least", weight=0.5)
async def _at_least(app: Application) -> None:
    """Read at a position. The load has no replica, so the primary answers."""
    svc = app.svc.at_least(await app.svc.position())
    await svc.conversations.get_list(tenant_id=app.tenant, items_per_page=1)


@operation("migrate", "pending", "applied", "migration_plan", "check", weight=0.2)
async def _migrate(app: Application) -> None:
    await app.svc.migrate()
    await app.svc.pending()
    await app.svc.applied()
    await app.svc.migration_plan()
    await app.svc.check()


@operation("maintain", weight=0.5)
async def _maintain(app: Application) -> None:
    await app.svc.maintain()


@operation("doctor", "explain", "backlog", "pool_stats", weight=0.1)
async def _doctor(app: Application) -> None:
    await app.svc.doctor()
    await app.svc.backlog()
    app.svc.pool_stats()
    await app.svc.explain("conversation/get_list", present=["user_id"])
