"""What `Settings.citus` changes in sessions and statements. The tests need no Citus."""

import asyncsvc
from asyncsvc import Message, MessagePatch, Settings, Turn
from asyncsvc.database.pool_executor import PoolExecutor
from asyncsvc.database.pools import open_pools


async def test_the_sessions_of_connect_compile_no_plans(dsn):
    pools = await open_pools(dsn, None, Settings(citus=True), min_size=1, max_size=1)
    try:
        assert await pools.primary.fetchval("SHOW jit") == "off"
    finally:
        await pools.primary.close()
        await pools.maintenance.close()


async def test_an_update_of_a_message_runs_in_a_transaction(dsn, monkeypatch):
    begun = list[object]()
    begin = PoolExecutor.transaction
    monkeypatch.setattr(
        PoolExecutor, "transaction", lambda self, **how: begun.append(how) or begin(self, **how)
    )
    async with asyncsvc.connect(dsn, settings=Settings(citus=True)) as svc:
        await svc.conversations.create(id="c", dialog_id="d", tenant_id="t")
        turn = Turn(messages=[Message(role="user", content="hello")])
        await svc.conversations.append_message("c", turn, tenant_id="t")
        patch = MessagePatch(content="bye")
        changed = await svc.conversations.update_message("c", 1, patch, tenant_id="t")
    assert changed.content == "bye"
    assert len(begun) == 1
