"""Each method gives the same results if the node of a tenant runs its statements, as on Citus.

These tests need no Citus: `tests/support/sql/one_node.sql` makes the server the node.
"""

import asyncpg
import pytest

import asyncsvc
from asyncsvc import Settings
from asyncsvc.database import sql_files
from asyncsvc.database.citus import call_on_node
from tests.database.test_sql_files import NAMES, variants
from tests.every_method.test_isolation import empty, outcome, stable_rows_of
from tests.support.citus import ON_CITUS, ONE_NODE
from tests.support.registry import SERVICE_METHODS, furnish

pytestmark = pytest.mark.skipif(ON_CITUS, reason="on Citus all tests run on the node of a tenant")
OF_A_TENANT = [method for method in SERVICE_METHODS if method.tenant == "parameter"]


@pytest.fixture
async def node(shared_dsns):
    """The DSN of a database that runs the statements for one node."""
    connection = await asyncpg.connect(shared_dsns[1])
    await connection.execute(ONE_NODE)
    await connection.close()
    return shared_dsns[1]


@pytest.mark.parametrize("method", OF_A_TENANT, ids=str)
async def test_a_method_does_the_same_on_the_node_of_a_tenant(method, shared_dsns, node):
    async with (
        asyncsvc.connect(shared_dsns[0]) as plain,
        asyncsvc.connect(node, settings=Settings(citus=True)) as on_node,
    ):
        tenants = []
        for svc in (plain, on_node):
            await empty(svc)
            tenants.append(await furnish(svc, "acme"))
        for variant in method.isolation:
            results = [
                await outcome(svc, method, variant(method.arguments(tenant)))
                for svc, tenant in zip((plain, on_node), tenants, strict=True)
            ]
            assert results[0] == results[1]
            assert await stable_rows_of("acme", plain) == await stable_rows_of("acme", on_node)


def queries_of(name):
    """Yield the variants of a statement that run on one node."""
    statement = sql_files.load(name)
    for present in variants(statement):
        values = dict.fromkeys((statement.optional & present) | statement.required, 0)
        query = statement.bind(present & statement.flags, values)
        if query.is_for_one_node:
            yield query


@pytest.mark.parametrize("name", [name for name in NAMES if any(queries_of(name))])
async def test_every_variant_for_one_node_is_prepared_there(name, node):
    connection = await asyncpg.connect(node)
    try:
        for query in queries_of(name):
            call = await call_on_node(connection, query, 60)
            plain, on_node = [
                [(each.name, each.type) for each in statement.get_attributes()]
                for text in (query.text, call.text)
                for statement in [await connection.prepare(text, name="")]
            ]
            assert on_node == plain
            _, statement, _ = call.text.split("$statement$")
            await connection.execute(f"PREPARE one (text[]) AS {statement}; DEALLOCATE one")
    finally:
        await connection.close()
