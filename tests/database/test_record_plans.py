"""Rows and indexes that the statements on records read, with any statistics."""

import contextlib

import pytest

from tests.database.test_plans import executed, indexes, rows_read

RECORDS = 20_000
FILL = f"""
    INSERT INTO asyncsvc.record (tenant_id, kind, id, user_id, data, created_at, updated_at)
    SELECT 'big', 'k' || n % 3, 'r' || n, CASE WHEN n % 2 = 1 THEN 'u' || n % 500 ELSE '' END,
           '{{}}', now(), now()
      FROM generate_series(1, {RECORDS}) AS n
"""
ONE_RECORD_PER_TENANT = f"""
    INSERT INTO asyncsvc.record (tenant_id, kind, id, user_id, data, created_at, updated_at)
    SELECT 't' || n, 'k' || n, 'r' || n, 'u' || n, '{{}}', now(), now()
      FROM generate_series(1, {RECORDS}) AS n
"""
STORES = {
    "empty": ("ANALYZE asyncsvc.record", FILL),
    "unknown": (FILL,),
    "misled": (ONE_RECORD_PER_TENANT, "ANALYZE asyncsvc.record", FILL),
    "real": (ONE_RECORD_PER_TENANT, FILL, "VACUUM ANALYZE asyncsvc.record"),
}
USER = {"user_id": "u7"}
NOBODY = {"user_id": ""}
KIND = {"kind": "k1"}
PAGE = KIND | {"limit": 31}
MIDDLE = {"after_id": "r50"}
KEY, BY_USER = "record_pkey", "record_user_idx"
READS = [
    ("get_many", ["one"], KIND | {"ids": ["r7"]}, KEY),
    ("get_many", ["one"], KIND | USER | {"ids": ["r7"]}, KEY),
    ("get_many", [], KIND | {"ids": ["r7", "r10", "absent"]}, KEY),
    ("get_many", [], KIND | NOBODY | {"ids": ["r7", "r10", "absent"]}, KEY),
    ("get_list", [], PAGE, KEY),
    ("get_list", [], PAGE | MIDDLE, KEY),
    ("get_list", [], PAGE | USER, BY_USER),
    ("get_list", [], PAGE | USER | MIDDLE, BY_USER),
    ("get_list", [], PAGE | NOBODY, BY_USER),
    ("get_list", [], PAGE | NOBODY | MIDDLE, BY_USER),
]
DELETIONS = [
    (KIND | {"id": "r7"}, 1),
    (KIND | USER | {"id": "r7"}, 1),
    ({"batch_size": 100} | USER, 100),
    ({"batch_size": 100} | NOBODY, 100),
    ({"batch_size": 100}, 100),
]


@pytest.mark.parametrize("store", STORES)
async def test_reads_use_one_index_and_read_the_rows_that_they_return(pool, store):
    async with filled(pool, store) as explain:
        for name, flags, parameters, index in READS:
            for plan in await explain(f"record/{name}", *flags, **parameters):
                assert indexes(plan) == {index}, (name, parameters)
                assert rows_read(plan) <= 31, (name, parameters)
                assert plan[0]["Shared Hit Blocks"] <= 40, (name, parameters)


@pytest.mark.parametrize("store", STORES)
async def test_deletions_read_the_rows_that_they_delete(pool, store):
    async with filled(pool, store) as explain:
        for parameters, rows in DELETIONS:
            is_sorted = "user_id" not in parameters and rows > 1 and store in {"empty", "unknown"}
            # A table that the server takes for a small one is sorted for each batch.
            max_rows = 3 * rows + (2 * RECORDS if is_sorted else 0)
            for plan in await explain("record/delete", **{"batch_size": 1} | parameters):
                assert rows_read(plan) <= max_rows, parameters
                assert plan[0]["Shared Hit Blocks"] <= 40 + 12 * rows, parameters


@contextlib.asynccontextmanager
async def filled(pool, store):
    """Fill the table; yield a function that returns both plans of a statement."""
    async with pool.acquire() as connection:
        await connection.execute("ALTER TABLE asyncsvc.record SET (autovacuum_enabled = off)")
        for command in STORES[store]:
            await connection.execute(command)

        async def explain(name, *flags, **parameters):
            plans = []
            for mode in ("force_custom_plan", "force_generic_plan"):
                await connection.execute(f"SET plan_cache_mode = {mode}")
                plan = await executed(connection, name, *flags, tenant_id="big", **parameters)
                plans.append(plan)
            return plans

        yield explain
