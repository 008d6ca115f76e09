"""No statement and no migration contains a construct that Citus rejects: see `citus_shapes`."""

import pytest
from pglast import ast

from asyncsvc.database import sql_files
from asyncsvc.database.migration_files import migration_files
from tests.database.test_sql_files import NAMES, few_variants
from tests.support.citus_shapes import LOCAL, faults, of, parsed

OF_ALL_TENANTS = {
    "append_key/find_expired",
    "maintenance/backlog",
    "maintenance/find_due",
    "search/next_tenants",
    "usage/backlog",
    "usage/find_old_users",
    "usage/find_tenants_to_roll_up",
    "usage_key/find_expired",
}
"""Statements of maintenance that read all tenants. Citus sends them to all nodes."""
NOT_DISTRIBUTED = ("migration/", "replica/", "row_security/", "server/")
STATEMENTS = [name for name in NAMES if not name.startswith(NOT_DISTRIBUTED)]


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_has_a_construct_that_citus_rejects(name):
    statement = sql_files.load(name)
    for present in few_variants(statement):
        if name == "api_token/verify" and ("tenant_id" not in present or "budgets" in present):
            continue  # a variant for a server without Citus
        values = dict.fromkeys((statement.optional & present) | statement.required, 0)
        query = statement.bind(present & statement.flags, values)
        (tree,) = parsed(query.text)
        constructs = faults(
            tree, of_all_tenants=name in OF_ALL_TENANTS, for_one_node=query.is_for_one_node
        )
        assert constructs == [], sorted(present)


def test_a_statement_for_one_node_has_no_table_of_the_coordinator():
    names = set[str]()
    for name in STATEMENTS:
        statement = sql_files.load(name)
        for present in few_variants(statement):
            values = dict.fromkeys((statement.optional & present) | statement.required, 0)
            query = statement.bind(present & statement.flags, values)
            if query.is_for_one_node:
                names.add(name)
                (tree,) = parsed(query.text)
                assert not {each.relname for each in of(ast.RangeVar, tree)} & LOCAL, name
    assert {"conversation/append_message", "api_token/create", "usage/roll_up"} <= names
    assert not names & {"api_token/find_tenant", "conversation/get_list", "record/put"}


@pytest.mark.parametrize("file", migration_files(), ids=lambda file: file.name)
def test_no_migration_has_a_construct_that_citus_rejects(file):
    for command in sql_files.commands(file.source):
        for tree in parsed(command):
            assert faults(tree, of_all_tenants=True) == [], command


CONV = "asyncsvc.conversation AS c"
BOUND = "c.tenant_id = $1"


SHAPES = {
    "a function in DO UPDATE": ("INSERT INTO asyncsvc.usage_zone (tenant_id, zone) VALUES ($1, 'a')"
        " ON CONFLICT (tenant_id, zone) DO UPDATE SET zone = now()::text"),
    "a function that reads tables, beside a table":
        f"SELECT b.used FROM {CONV} CROSS JOIN asyncsvc.budget_status_v1($1) AS b WHERE {BOUND}",
    "a subquery in DO UPDATE": ("INSERT INTO asyncsvc.usage_zone (tenant_id, zone) VALUES ($1, 'a')"
        " ON CONFLICT (tenant_id, zone) DO UPDATE SET zone = (SELECT 'x')"),
    "a subquery in VALUES":
        "INSERT INTO asyncsvc.usage_zone (tenant_id, zone) VALUES ($1, (SELECT 'x'))",
    "a function in RETURNING": f"UPDATE {CONV} SET name = $2 WHERE {BOUND} RETURNING c.id, now()",
    "a volatile function in SET": f"UPDATE {CONV} SET updated_at = clock_timestamp() WHERE {BOUND}",
    "a function that is not immutable in CASE or COALESCE of an UPDATE":
        f"UPDATE {CONV} SET updated_at = CASE WHEN $2 THEN statement_timestamp() END WHERE {BOUND}",
    "an UPDATE of tenant_id": f"UPDATE {CONV} SET tenant_id = $2 WHERE {BOUND}",
    "a write whose tenant no parameter gives":
        ("UPDATE asyncsvc.message AS m SET dialog_id = c.dialog_id FROM unnest($2::text[]) AS g"
        f" CROSS JOIN LATERAL (SELECT c.tenant_id, c.dialog_id FROM {CONV} WHERE {BOUND} LIMIT 1)"
        " AS c"
        " WHERE m.tenant_id = c.tenant_id"),
    "MERGE":
        f"MERGE INTO {CONV} USING (VALUES ($1)) AS v (id) ON c.id = v.id WHEN MATCHED THEN DELETE",
    "a lock of rows of all tenants": f"SELECT c.id FROM {CONV} WHERE c.id = $1 FOR UPDATE",
    "a lock of one of several tables, in a statement that inserts":
        (f"WITH l AS (SELECT c.id FROM {CONV} CROSS JOIN (SELECT 1) AS x WHERE {BOUND}"
        " FOR UPDATE OF c),"
        " i AS (INSERT INTO asyncsvc.usage_zone (tenant_id, zone) SELECT $1, l.id FROM l)"
        " SELECT 1"),
    "a subquery without columns of all tenants":
        f"SELECT count(*) FROM (SELECT FROM {CONV} LIMIT 5) AS c",
    "a read of c whose tenant no parameter gives": f"SELECT c.id FROM {CONV} WHERE c.id = $1",
    "a read of m whose tenant no parameter gives":
        (f"WITH l AS (SELECT c.tenant_id, c.id FROM {CONV} WHERE {BOUND}) SELECT (SELECT count(*)"
        " FROM asyncsvc.message AS m WHERE m.tenant_id = l.tenant_id) FROM l"),
    "a recursion over more than one tenant":
        ("WITH RECURSIVE t AS (SELECT min(u.tenant_id) AS id FROM asyncsvc.usage_ledger AS u"
        " UNION ALL SELECT (SELECT min(u.tenant_id) FROM asyncsvc.usage_ledger AS u"
        " WHERE u.tenant_id > t.id) FROM t WHERE t.id IS NOT NULL) SELECT t.id FROM t"),
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON asyncsvc.message EXECUTE FUNCTION asyncsvc.f()",
    "ADD COLUMN with a CHECK":
        "ALTER TABLE asyncsvc.message ADD COLUMN kind text CHECK (kind <> '')",
    "a unique index without the tenant":
        "CREATE UNIQUE INDEX i ON asyncsvc.message (conversation_id)",
    "a key without the tenant": "CREATE TABLE asyncsvc.x (tenant_id text, id text PRIMARY KEY)",
    "a reference to a table of the coordinator":
        ("CREATE TABLE asyncsvc.x (tenant_id text, token_hash bytea,"
        " FOREIGN KEY (token_hash) REFERENCES asyncsvc.api_token_hash (token_hash))"),
}  # fmt: skip
MORE_SHAPES = {
    f"UPDATE {CONV} SET updated_at = coalesce(c.updated_at, CURRENT_TIMESTAMP) WHERE {BOUND}":
        "a function that is not immutable in CASE or COALESCE of an UPDATE",
    "CREATE TABLE asyncsvc.x (tenant_id text, id text, UNIQUE (id))": "a key without the tenant",
    (
        "WITH RECURSIVE o AS (SELECT t.id FROM asyncsvc.api_token AS t WHERE t.id = $1 UNION"
        " SELECT t.id FROM o JOIN asyncsvc.api_token AS t ON t.rotated_from = o.id), n AS ("
        " INSERT INTO asyncsvc.token_audit (tenant_id, token_id) SELECT $2, o.id FROM o) SELECT 1"
    ): "a recursion over more than one tenant",
    (
        f"WITH l AS (SELECT c.tenant_id, c.id FROM {CONV} WHERE {BOUND} FOR UPDATE)"
        f" DELETE FROM {CONV} USING l WHERE c.tenant_id = l.tenant_id AND c.id = l.id"
    ): "a write whose tenant no parameter gives",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "fault"), [*((text, fault) for fault, text in SHAPES.items()), *MORE_SHAPES.items()]
)
def test_each_rejected_construct_is_detected(text, fault):
    (tree,) = parsed(text)
    assert fault in faults(tree)


def test_each_command_of_a_migration_file_is_sent_alone():
    """Citus rejects several commands in one string if one of them creates an index."""
    for file in migration_files():
        assert all(len(parsed(command)) == 1 for command in sql_files.commands(file.source))
