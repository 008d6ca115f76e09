"""What `Settings.citus` changes in sessions and statements. The tests need no Citus."""

import asyncpg
import pytest

import asyncsvc
from asyncsvc import (
    ConversationPatch,
    Message,
    MessagePatch,
    NotFound,
    Settings,
    Turn,
)
from asyncsvc.database.pools import open_pools
from tests.support.citus import ON_CITUS, ONE_NODE, execute


async def test_the_sessions_of_connect_compile_no_plans_and_send_times_in_iso(dsn):
    await execute(dsn, f'ALTER DATABASE "{dsn.rpartition("/")[2]}" SET DateStyle = "SQL, DMY"')
    pools = await open_pools(dsn, None, Settings(citus=True), min_size=1, max_size=1)
    try:
        assert await pools.primary.fetchval("SHOW jit") == "off"
        assert await pools.primary.fetchval("SHOW DateStyle") == "ISO, MDY"
    finally:
        await pools.primary.close()
        await pools.maintenance.close()


@pytest.mark.skipif(ON_CITUS, reason="all tests on Citus run the statements of a node")
async def test_the_node_of_a_tenant_gets_the_whole_statement(dsn):
    connection = await asyncpg.connect(dsn)
    await connection.execute(ONE_NODE)
    names = list[str]()
    settings = Settings(citus=True, on_query=lambda name, *_: names.append(name))
    async with asyncsvc.connect(dsn, settings=settings, max_size=1) as svc:
        conversations = svc.conversations
        await conversations.create(id="c", dialog_id="d", tenant_id="t", metadata={"k": "'ä\\"})
        turn = Turn(messages=[Message(role="user", content='it\'s $1 \\ {NULL,""}')], tokens=3)
        for _ in range(8):  # more calls than custom plans
            await conversations.append_message("c", turn, tenant_id="t", idempotency_key=None)
        replayed = [
            await conversations.append_message("c", turn, tenant_id="t", idempotency_key="k")
            for _ in range(2)
        ]
        with pytest.raises(NotFound):
            await conversations.append_message("c", turn, tenant_id="other")
        await conversations.update_by_id("c", ConversationPatch(name="x"), tenant_id="t")
        patch = MessagePatch(merge_payload={"a": [1, None]})
        changed = await conversations.update_message("c", 1, patch, tenant_id="t")
        async with svc.transaction() as tx:
            await tx.conversations.set_feedback("c", 1, 1, tenant_id="t")
        await svc.maintain()
        assert await conversations.delete_by_id("c", tenant_id="t") == 1
    assert changed.content == turn.messages[0].content
    assert changed.payload == {"a": [1, None]}
    assert [each.replayed for each in replayed] == [False, True]
    assert replayed[1].last_seq == 9
    await connection.close()


async def test_indexing_reads_the_tenants_of_all_shards_once(dsn):
    if not ON_CITUS:
        await execute(dsn, ONE_NODE)
    names = list[str]()
    settings = Settings(
        citus=True, maintenance_interval=None, on_query=lambda name, *_: names.append(name)
    )
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        for tenant in ("a", "b", "c"):
            await svc.conversations.create(id="c", name="found", dialog_id="d", tenant_id=tenant)
        report = await svc.maintain()
    assert report.titles == 3
    assert names.count("search/next_tenants") == 2  # the second one finds none


async def test_a_verification_with_budgets_is_3_statements(dsn):
    """The node of the token's tenant is known after the first one."""
    if not ON_CITUS:
        await execute(dsn, ONE_NODE)
    names = list[str]()
    settings = Settings(
        citus=True, maintenance_interval=None, on_query=lambda name, *_: names.append(name)
    )
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        token = await svc.tokens.create(tenant_id="t", name="key")
        await svc.budgets.set(tenant_id="t", scope="tenant", metric="rounds", limit=5)
        names.clear()
        verified = await svc.tokens.verify(token.secret, budgets=True, record_use=False)
        assert names == ["api_token/find_tenant", "api_token/verify", "budget/get_status"]
        names.clear()
        assert await svc.budgets.check(tenant_id="t") == verified.budget
        assert names == ["budget/get_status"]
    assert verified.budget.limit == 5
