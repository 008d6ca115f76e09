"""Plans of the hot statements on seeded data: the indexes that they use and the rows they read."""

import functools
import hashlib
import itertools
import json
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest
import pytest_asyncio

from asyncsvc.database import sql_files
from asyncsvc.repositories.query import ListFilter, Order
from tests.conftest import create_database, drop_database, dsn_of

CONVERSATIONS = 20_000  # of the big tenant; the small tenant has 200
NOW = datetime(2026, 11, 22, tzinfo=UTC)
LAST_MAINTENANCE = NOW - timedelta(hours=1)


SEED_LEDGER = """
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, dialog_id, source, user_id, created_at, conversations)
    SELECT c.tenant_id, c.dialog_id, c.source, c.user_id, c.created_at, 1
      FROM asyncsvc.conversation AS c
"""
SEED = (
    f"""
    INSERT INTO asyncsvc.conversation (
           tenant_id, id, dialog_id, user_id, name, source, metadata, last_seq, created_at,
           updated_at)
    SELECT t.id, t.id || n, CASE n % 100 WHEN 99 THEN 'rare' ELSE 'd' || n % 2 END,
           'u' || n % 500, 'name ' || n, CASE n % 3 WHEN 1 THEN 'api' WHEN 2 THEN 'agent' END,
           jsonb_build_object('n', n, 'label',
               CASE WHEN t.id = 'small' OR n % 1000 = 0 THEN 'rare' ELSE 'common' END), 3,
           '{NOW}'::timestamptz - n * interval '1 minute',
           '{NOW}'::timestamptz - (n * 7919 % t.size) * interval '1 minute'
      FROM (VALUES ('big', {CONVERSATIONS}), ('small', {CONVERSATIONS // 100})) AS t (id, size),
           generate_series(1, t.size) AS n
    """,
    f"""
    INSERT INTO asyncsvc.message (
           tenant_id, conversation_id, seq, id, role, content, payload, created_at, dialog_id,
           conversation_created_at, is_indexed)
    SELECT c.tenant_id, c.id, seq, CASE seq WHEN 2 THEN 'same' WHEN 3 THEN c.id END, 'user',
           'please order coffee ' || md5(c.id || seq), '{{}}',
           c.created_at, c.dialog_id, c.created_at, seq > 1 OR c.created_at < '{LAST_MAINTENANCE}'
      FROM asyncsvc.conversation AS c, generate_series(1, 3) AS seq
    """,
    f"""
    INSERT INTO asyncsvc.conversation_title (
           tenant_id, conversation_id, name, dialog_id, conversation_created_at, is_indexed)
    SELECT c.tenant_id, c.id, c.name, c.dialog_id, c.created_at, c.created_at < '{LAST_MAINTENANCE}'
      FROM asyncsvc.conversation AS c
    """,
    """
    INSERT INTO asyncsvc.conversation_recency (tenant_id, id, dialog_id, updated_at)
    SELECT c.tenant_id, c.id, c.dialog_id, c.updated_at FROM asyncsvc.conversation AS c
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO asyncsvc.append_key
    SELECT c.tenant_id, c.id, 'key', '', 1, 1, 1, c.created_at FROM asyncsvc.conversation AS c
    """,
    """
    INSERT INTO asyncsvc.api_token (
           id, tenant_id, name, token_hash, pepper_version, hint, kind, scopes, metadata,
           created_at, rotated_from, family_id)
    SELECT 'token' || n, 'tenant' || n % 50, '', sha256(('secret' || n)::bytea), 0, '', 'api', '{}',
           '{}', now() - n * interval '1 second', CASE WHEN n > 4000 THEN 'token' || n - 50 END,
           'token' || CASE WHEN n > 4000 THEN 3951 + (n - 1) % 50 ELSE n END
      FROM generate_series(1, 5000) AS n
    """,
    """
    INSERT INTO asyncsvc.api_token_hash (token_hash, tenant_id, token_id)
    SELECT t.token_hash, t.tenant_id, t.id
      FROM asyncsvc.api_token AS t
    """,
    """
    INSERT INTO asyncsvc.token_audit (tenant_id, token_id, action, at, detail)
    SELECT 'tenant' || n % 50, 'token' || n % 5000, 'create', now() - n * interval '1 second', '{}'
      FROM generate_series(1, 20000) AS n
    """,
    f"""
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, at, dialog_id, token_id, user_id, model, tokens)
    SELECT t.id, '{NOW}'::timestamptz - n * interval '15 minutes', 'd', 'token' || n % 3,
           'u' || n % 1000, 'model' || n % 4, 5
      FROM (VALUES ('big', {CONVERSATIONS}), ('small', {CONVERSATIONS // 100})) AS t (id, size),
           generate_series(1, t.size) AS n
    """,
    SEED_LEDGER,
    "INSERT INTO asyncsvc.usage_zone (tenant_id, zone) VALUES ('big', 'UTC'), ('small', 'UTC')",
    # Like AsyncSvc.maintain for a tenant with many creations.
    *(
        sql_files.load(name)
        .bind((), {"tenant_id": tenant} | more)
        .text.replace("$1", f"'{tenant}'")
        .replace("$2", "date '-infinity'")
        for tenant in ("big", "small")
        for name, more in (("usage/roll_up", {}), ("usage/recount", {"users_since": None}))
    ),
    """
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, dialog_id, user_id, created_at, at, tokens)
    SELECT 'tenant' || n % 50, 'd', '', now(), now(), 5 FROM generate_series(1, 20000) AS n
    """,
    """
    INSERT INTO asyncsvc.budget (
           tenant_id, id, scope, subject, metric, grain, zone, max_used, created_at, updated_at)
    SELECT t.id, t.id || n, CASE n WHEN 0 THEN 'tenant' ELSE 'user' END,
           CASE n WHEN 0 THEN '' ELSE 'u' || n END, 'tokens', 'month', 'UTC', 1000000, now(), now()
      FROM (VALUES ('tenant7'), ('tenant8')) AS t (id), generate_series(0, 10000) AS n
    """,
    """
    INSERT INTO asyncsvc.budget_usage (tenant_id, budget_id, subject, window_start, used)
    SELECT b.tenant_id, b.id, b.subject, date_trunc('month', now(), 'UTC'), 5
      FROM asyncsvc.budget AS b
    """,
    "VACUUM ANALYZE",
)


MISLED = ("conversation", "message", "append_key", "usage_ledger")
"""Tables that the server must not analyze in `misled`."""


async def fill(connection, commands) -> None:
    """Run the commands. GIN indexes are built after the rows exist, which is much faster."""
    indexes = await connection.fetch(
        "SELECT c.oid::regclass::text AS name, pg_get_indexdef(c.oid) AS definition"
        "  FROM pg_class AS c JOIN pg_am AS a ON a.oid = c.relam"
        " WHERE a.amname = 'gin' AND c.relnamespace = 'asyncsvc'::regnamespace"
    )
    for name, _ in indexes:
        await connection.execute(f"DROP INDEX {name}")
    for command in commands:
        await connection.execute(command)
    for _, definition in indexes:
        await connection.execute(definition)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def misled(server_dsn, template, database_prefix):
    """The DSN of a database like `seeded`, with statistics of one conversation per tenant."""
    name = f"{database_prefix}_misled"
    await create_database(server_dsn, name, template=template)
    connection = await asyncpg.connect(dsn_of(server_dsn, name))
    for table in MISLED:
        await connection.execute(f"ALTER TABLE asyncsvc.{table} SET (autovacuum_enabled = off)")
    await connection.execute(
        f"""
        INSERT INTO asyncsvc.conversation (tenant_id, id, dialog_id, created_at, updated_at)
        SELECT 't' || n, 'c' || n, 'd', now(), now() FROM generate_series(1, {CONVERSATIONS}) AS n
        """
    )
    await connection.execute("ANALYZE asyncsvc.conversation")
    await fill(connection, SEED[:4])
    await connection.close()
    yield dsn_of(server_dsn, name)
    await drop_database(server_dsn, name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seeded(server_dsn, misled, database_prefix):
    """The DSN of a database with two tenants. Tests leave it unchanged.

    It is filled as a copy of `misled`, because the GIN indexes take most of the time.
    """
    name = f"{database_prefix}_plans"
    await create_database(server_dsn, name, template=f"{database_prefix}_misled")
    connection = await asyncpg.connect(dsn_of(server_dsn, name))
    for table in MISLED:
        await connection.execute(f"ALTER TABLE asyncsvc.{table} RESET (autovacuum_enabled)")
    await connection.execute("DELETE FROM asyncsvc.conversation WHERE tenant_id LIKE 't%'")
    await connection.execute("VACUUM (FULL, ANALYZE) asyncsvc.conversation")
    for command in SEED[4:]:
        await connection.execute(command)
    await connection.close()
    yield dsn_of(server_dsn, name)
    await drop_database(server_dsn, name)


@pytest_asyncio.fixture
async def explain(seeded):
    """Return `executed` for the seeded database."""
    connection = await asyncpg.connect(seeded)
    yield functools.partial(executed, connection)
    await connection.close()


async def executed(connection, name, *flags, **parameters):
    """Run a statement in a transaction that is rolled back; return the executed nodes of its plan.

    The statement is prepared in SQL, because EXPLAIN EXECUTE respects plan_cache_mode and a plain
    EXPLAIN always makes a plan for the values.
    """
    query = sql_files.load(name).bind(flags, parameters)
    arguments = ", ".join(await literals(connection, query))
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(f"PREPARE explained AS {query.text}")
    plan = await connection.fetchval(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE explained"
        + (arguments and f"({arguments})")
    )
    await connection.execute("DEALLOCATE explained")
    await transaction.rollback()
    return [node for node in nodes(json.loads(plan)[0]["Plan"]) if node["Actual Loops"]]


async def literals(connection, query):
    """Return the arguments of a query as SQL literals of the types that the statement expects."""
    prepared = await connection.prepare(query.text, name="")
    kinds = [kind.name for kind in prepared.get_parameters()]
    return [
        await connection.fetchval(f"SELECT format('%L::{kind}', $1::{kind})", argument)
        for kind, argument in zip(kinds, query.arguments, strict=True)
    ]


def nodes(plan):
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def scans(plan):
    """Return the table and the index of each scan. The index of a sequential scan is None."""
    return {
        (node["Relation Name"], node.get("Index Name"))
        for node in plan
        if node["Node Type"] in {"Seq Scan", "Index Scan", "Index Only Scan"}
    }


def rows_read(plan):
    """Return the number of rows that all scans read, including rows that a filter removed."""
    return sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in plan
        if "Relation Name" in node or node["Node Type"] == "Bitmap Index Scan"
    )


def indexes(plan):
    return {node["Index Name"] for node in plan if "Index Name" in node}


READ_BY_SESSION = """
    SELECT sum(t.seq_scan) AS sequential, sum(t.seq_tup_read + t.idx_tup_fetch) AS rows
      FROM pg_stat_xact_user_tables AS t
     WHERE t.schemaname = 'asyncsvc'
"""
"""The sequential scans of a new session, also in functions, and the rows that it read."""
REQUEST = {"user_id": "u7", "dialog_id": "d"}
PAGE = {
    "tenant_id": "big",
    "dialog_id": "d0",
    "limit": 31,
    "include_dsl": True,
}
TENANT_PAGE = {name: value for name, value in PAGE.items() if name != "dialog_id"}
MIDDLE = {"after_at": NOW - timedelta(minutes=CONVERSATIONS / 2), "after_id": "big5000"}
ANCHOR = {"anchor_id": "big5000"}


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("after", [{}, MIDDLE, ANCHOR])
@pytest.mark.parametrize(
    ("order", "index", "page"),
    [
        ("created_at", "conversation_created_idx", PAGE),
        ("updated_at", "conversation_recency_updated_idx", PAGE),
        ("created_at", "conversation_tenant_created_idx", TENANT_PAGE),
        ("updated_at", "conversation_recency_tenant_idx", TENANT_PAGE),
    ],
)
async def test_a_page_by_time_reads_the_page(explain, order, index, page, direction, after):
    by_update = order == "updated_at"
    table = "conversation_recency" if by_update else "conversation"
    flags = Order(column=order, descending=direction == "desc").flags
    plan = await explain("conversation/get_list", *flags, "unfiltered", "short", **page, **after)
    assert scans(plan) == {(table, index), ("conversation", "conversation_pkey")}
    assert rows_read(plan) <= 2 * 31 + len(after.keys() & ANCHOR)  # its ids and its rows


FILTERS = {
    "id": ("id", "big7"),
    "user_id": ("user_id", "u2"),
    "exp_user_id": ("exp_user_id", "nobody"),
    "from": ("{}_from", NOW - timedelta(minutes=9000)),
    "before": ("{}_before", NOW - timedelta(minutes=6000)),
}
COMBINED = [
    names for count in range(len(FILTERS) + 1) for names in itertools.combinations(FILTERS, count)
]


@pytest.mark.parametrize("after", [{}, MIDDLE])
@pytest.mark.parametrize("order", ["created", "updated"])
@pytest.mark.parametrize("page", [PAGE, TENANT_PAGE], ids=["dialog", "tenant"])
async def test_generic_plans_of_a_list_read_as_little_as_custom_plans(seeded, order, page, after):
    flags = Order(column=f"{order}_at").flags
    connection = await asyncpg.connect(seeded)
    for names in COMBINED:
        filters = {FILTERS[name][0].format(order): FILTERS[name][1] for name in names}
        is_owned = order == "updated" and {"id", "user_id", "exp_user_id"} & filters.keys()
        owned = ["owned"] if is_owned else []
        read = {}
        for mode in ("force_custom_plan", "force_generic_plan"):
            await connection.execute(f"SET plan_cache_mode = {mode}")
            plan = await executed(
                connection, "conversation/get_list", *flags, *owned, **page, **after, **filters
            )
            read[mode] = rows_read(plan)
        assert read["force_generic_plan"] <= 2 * read["force_custom_plan"] + 100, (names, read)
    await connection.close()


async def test_a_page_of_a_range_of_dates_reads_that_range(explain):
    bounds = {
        "created_from": NOW - timedelta(minutes=9000),
        "created_before": NOW - timedelta(minutes=8990),
    }
    plan = await explain("conversation/get_list", "by_created_at", **PAGE, **bounds)
    assert ("conversation", "conversation_created_idx") in scans(plan)
    assert rows_read(plan) <= 20


@pytest.mark.parametrize("flags", [("by_created_at",), ("by_updated_at", "owned")])
@pytest.mark.parametrize("page", [PAGE, TENANT_PAGE], ids=["dialog", "tenant"])
async def test_a_page_of_one_user_reads_no_other_conversations(explain, flags, page):
    page = page | {"count_limit": None}
    plan = await explain("conversation/get_list", *flags, **page, user_id="u2")
    assert rows_read(plan) <= 3 * CONVERSATIONS / 500 + 2 * 31


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("store", ["seeded", "misled"])
async def test_a_list_of_dialogs_reads_no_conversation(seeded, misled, store, mode):
    connection = await asyncpg.connect({"seeded": seeded, "misled": misled}[store])
    await connection.execute(f"SET plan_cache_mode = {mode}")
    plan = await executed(connection, "conversation/list_dialogs", tenant_id="big", limit=101)
    await connection.close()
    read = [node for node in plan if node.get("Relation Name") == "conversation_recency"]
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in read) <= 2 * 3 + 1
    assert {node["Index Name"] for node in read} == {"conversation_recency_updated_idx"}
    assert "conversation" not in {node.get("Relation Name") for node in plan}


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("flags", [("by_created_at",), ("by_updated_at", "owned")])
@pytest.mark.parametrize("page", [PAGE, TENANT_PAGE], ids=["dialog", "tenant"])
async def test_a_page_of_a_rare_label_reads_no_other_conversations(seeded, mode, flags, page):
    """The small tenant has the label in all of its conversations.

    A generic plan may also read the index entries of the dialog.
    """
    connection = await asyncpg.connect(seeded)
    await connection.execute(f"SET plan_cache_mode = {mode}")
    page = page | {"count_limit": None, "metadata": '{"label": "rare"}'}
    plan = await executed(connection, "conversation/get_list", *flags, **page)
    await connection.close()
    assert "conversation_metadata_idx" in indexes(plan)
    from_tables = [node for node in plan if "Relation Name" in node]
    assert rows_read(from_tables) <= 4 * CONVERSATIONS / 1_000 + 2 * 31
    if mode == "force_custom_plan":
        assert rows_read(plan) <= 6 * CONVERSATIONS / 1_000 + 2 * 31


@pytest.mark.parametrize(
    ("of", "is_sorted"),
    [
        ({}, False),
        ({"user_id": ""}, False),
        ({"user_id": "u2"}, True),
        ({"exp_user_id": "e"}, True),
        ({"metadata": "{}"}, True),
        ({"thumb": 1}, False),
    ],
)
def test_only_the_few_conversations_of_an_owner_are_sorted(of, is_sorted):
    assert ListFilter(tenant_id="big", **of).is_selective == is_sorted


async def test_an_exact_total_is_counted_on_an_index_alone(explain):
    plan = await explain("conversation/get_list", "by_created_at", **PAGE | {"count_limit": None})
    counting = max(plan, key=lambda node: node["Actual Rows"] * ("Relation Name" in node))
    assert counting["Node Type"] == "Index Only Scan"
    assert counting["Heap Fetches"] == 0


async def test_a_capped_total_stops_counting_at_its_limit(explain):
    plan = await explain("conversation/get_list", "by_created_at", **PAGE | {"count_limit": 101})
    assert rows_read(plan) <= 101 + 2 * 31


@pytest.mark.parametrize("order", ["created_at", "updated_at"])
async def test_a_deep_offset_reads_ids_from_the_index_and_the_rows_of_the_page(explain, order):
    flags = (*Order(column=order).flags, "unfiltered")
    plan = await explain("conversation/get_list", *flags, **PAGE | {"offset": 5000})
    wide = [node for node in plan if node.get("Index Name") == "conversation_pkey"]
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in wide) <= 31
    assert rows_read(plan) <= 5000 + 2 * 31


ABSENT = {"tenant_id": "big", "keywords": "no such words"}
NEWEST = ABSENT | {"limit": 21, "weeks": 8}
MATCHING = ABSENT | {"limit": 21, "offset": 0, "count_limit": None}
SCAN = ABSENT | {"limit": 21, "max_conversations": 100, "max_messages": 2_000}
INDEXED = {"tenant_id": "big", "limit": 40, "max_bytes": 10_000}
UNINDEXED = 60  # messages of a tenant, and titles


@pytest.mark.parametrize("of", [{}, {"dialog_id": "d0"}, {"user_id": "u7"}, MIDDLE])
async def test_a_search_for_an_absent_keyword_reads_only_the_indexes(explain, of):
    plan = await explain("search/newest_matches", **NEWEST, **of)
    assert {"message_search_idx", "message_unindexed_idx"} <= indexes(plan)
    assert ("message", None) not in scans(plan)
    assert rows_read(plan) <= UNINDEXED + 4  # 4 weeks contain conversations
    assert plan[0]["Shared Hit Blocks"] + plan[0]["Shared Read Blocks"] <= 150


async def test_a_list_by_an_absent_keyword_reads_only_the_indexes(explain):
    of = {"id_keywords": "no such words", "dialog_id": "d1"}
    plan = await explain("search/match_page", "by_created_at", **MATCHING, **of)
    assert {"message_search_idx", "conversation_title_search_idx"} <= indexes(plan)
    assert {"message_unindexed_idx", "conversation_title_unindexed_idx"} <= indexes(plan)
    assert rows_read(plan) <= 2 * UNINDEXED + 4
    assert plan[0]["Shared Hit Blocks"] + plan[0]["Shared Read Blocks"] <= 300


async def test_a_rare_keyword_reads_its_matches(explain):
    word = hashlib.md5(b"big100002").hexdigest()[:12]  # of the second message of one conversation
    plan = await explain("search/newest_matches", **NEWEST | {"keywords": word})
    assert rows_read(plan) <= UNINDEXED + 10


async def test_a_count_of_matches_stops_at_its_limit(explain):
    few = MATCHING | {"keywords": "coffee", "limit": 0, "count_limit": 101}
    plan = await explain("search/match_page", "by_created_at", **few)
    conversations = [node for node in plan if node.get("Index Name") == "conversation_pkey"]
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in conversations) <= 101


@pytest.mark.parametrize(
    "flags", [("descending",), ("ascending",), ("descending", "by_updated_at")], ids=" ".join
)
@pytest.mark.parametrize("keywords", ["coffee", "no such words"])
async def test_a_scan_reads_at_most_its_limits(explain, flags, keywords):
    of = {"dialog_id": "d0", "id_keywords": keywords} if "by_updated_at" in flags else {}
    plan = await explain("search/scan", *flags, **SCAN | {"keywords": keywords}, **of)
    max_rows = 100 * len(flags) + (100 * 3 if keywords != "coffee" else 21)
    assert rows_read(plan) <= max_rows
    assert None not in {index for _, index in scans(plan)}


@pytest.mark.parametrize("after", [{}, {"after_at": NOW, "after_id": "", "after_seq": 0}])
async def test_indexing_messages_reads_its_batch(explain, after):
    plan = await explain("search/index_messages", **INDEXED, **after)
    assert indexes(plan) <= {"message_unindexed_idx", "message_pkey"}
    assert None not in {index for _, index in scans(plan)}
    assert rows_read(plan) <= 4 * 40


async def test_the_next_tenant_is_one_entry_of_an_index(explain):
    for after in ({}, {"after_tenant_id": "big"}):
        plan = await explain("search/next_tenants", **after)
        assert indexes(plan) == {"message_unindexed_idx", "conversation_title_unindexed_idx"}
        assert rows_read(plan) <= 2


async def test_the_work_of_maintenance_is_found_by_one_entry_of_each_index(explain):
    plan = await explain(
        "maintenance/find_due", lifetime=timedelta(days=7), retention=timedelta(days=400)
    )
    assert indexes(plan) <= {
        *("append_key_created_idx", "usage_key_created_idx"),
        *("usage_ledger_tenant_idx", "usage_zone_users_since_idx"),
        *("message_unindexed_idx", "conversation_title_unindexed_idx"),
    }
    small = {"usage_zone", "usage_key"}  # of 1 page here, which is read as a whole
    assert None not in {index for table, index in scans(plan) if table not in small}
    assert rows_read(plan) <= 6


async def test_the_backlog_reads_no_more_rows_than_it_counts(explain):
    plan = await explain("maintenance/backlog", limit=10)
    assert {"message_unindexed_idx", "conversation_title_unindexed_idx"} <= indexes(plan)
    assert rows_read(plan) <= 3 * 10 + 2  # and the last run and the first migration


TURN = {
    "roles": ["user"],
    "contents": ["hello"],
    "payloads": ["{}"],
    "references": [None],
    "round": 1,
    "tokens": 1,
    "duration": 1,
    "token_id": "k",
}
USED = {"usages": '[{"input_tokens": 1, "output_tokens": 1}]', "acting_user_id": "u8"}
WITH_IDS = {"message_ids": ["same"]}
PUT = {"role": "user", "content": "hello", "payload": "{}", "reference": None}
IF_UNCHANGED = {"expected_seq": 1, "created_at": NOW}
WITH_A_KEY = {"idempotency_key": "k", "body_hash": b"h"}
OF_USER = {"user_id": "u7"}
MERGES = {"merge_metadata": '{"a": 1}', "merge_dsl": '{"a": 1}', "max_json_bytes": 2**20}
MERGE = {"merge_payload": '{"a": 1}', "max_json_bytes": 2**20}
CREATE = {"conversation": '{"dialog_id": "d", "user_id": "u"}'}


ON_ONE_CONVERSATION = [
    ("conversation/append_message", (), TURN),
    ("conversation/append_message", (), TURN | USED),
    ("conversation/append_message", (), TURN | USED | CREATE | WITH_A_KEY),
    ("conversation/append_message", (), TURN | IF_UNCHANGED),
    ("conversation/append_message", (), TURN | WITH_A_KEY),
    ("conversation/append_message", (), TURN | CREATE),
    ("conversation/append_message", (), TURN | CREATE | WITH_A_KEY),
    ("conversation/append_message", (), TURN | WITH_IDS),
    ("conversation/append_message", (), TURN | WITH_IDS | WITH_A_KEY),
    ("conversation/append_message", (), TURN | OF_USER),
    ("conversation/append_message", ("merges",), TURN | MERGES),
    ("conversation/append_message", ("merges",), TURN | MERGES | CREATE | OF_USER | WITH_A_KEY),
    ("conversation/append_message", (), TURN | WITH_A_KEY | OF_USER),
    ("conversation/explain_append", (), {"idempotency_key": "k"}),
    ("conversation/explain_append", (), {"idempotency_key": "k"} | WITH_IDS),
    ("message/get", (), {"seq": 1}),
    ("message/get", (), {"message_id": "same"} | OF_USER),
    ("message/put", (), PUT | {"message_id": "same"}),
    ("message/put", (), PUT | {"message_id": "new"} | OF_USER),
    ("message/put", ("patch",), PUT | {"message_id": "same"} | CREATE | MERGE),
    ("message/set_feedback", (), {"message_id": "same", "thumb": 1} | OF_USER),
    ("message/set_feedback", (), {"message_id": "same", "thumb": 1} | MERGE),
    ("message/update", (), {"message_id": "same", "content": "x", "payload": "{}"} | OF_USER),
    ("message/update", (), {"message_id": "same"} | MERGE),
    ("message/delete", (), {"message_id": "same"} | OF_USER),
    (
        "message/get_list",
        ("last", "full_row"),
        {"after_id": "same", "before_id": "big7", "limit": 9},
    ),
    ("message/get_list", ("last",), {"after_id": "same", "before_id": "big7", "limit": 9}),
    ("message/get_bounds", (), {"after_id": "same", "before_id": "big7"} | OF_USER),
    ("message/set_feedback", (), {"seq": 1, "thumb": 1}),
    ("message/update", (), {"seq": 1, "reference": None}),
    ("message/delete", (), {"seq": 1}),
    ("message/delete", ("newest",), {}),
    ("message/delete", (), {}),
    ("message/delete", (), {"after_seq": 1, "before_seq": 9}),
    ("message/delete", (), {"after_id": "same", "before_id": "big7"}),
]


@pytest.mark.parametrize(("name", "flags", "more"), ON_ONE_CONVERSATION)
async def test_a_change_of_one_conversation_reads_its_rows_by_key(explain, name, flags, more):
    plan = await explain(name, *flags, tenant_id="big", id="big7", **more)
    tables = ("conversation", "conversation_recency", "message", "append_key", "watched_tenant")
    keys = {f"{table}_pkey" for table in (*tables, "api_token")}
    assert indexes(plan) <= keys | {"message_id_idx"}
    # watched_tenant is empty here, and the server reads its first page instead of an index.
    assert scans(plan) <= {(key.removesuffix("_pkey"), key) for key in keys} | {
        ("watched_tenant", None),
        ("message", "message_id_idx"),
    }
    assert rows_read(plan) <= 14


@pytest.mark.parametrize("key", [{}, WITH_A_KEY])
@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("usage/record", {"usages": USED["usages"], "conversation_id": "big7"}),
        ("usage/record", {"usages": USED["usages"], "dialog_id": "d"}),
        (
            "usage/adjust",
            {"adjustment": '{"tokens": 1, "rounds": 0}', "detail": "{}", "actor": "a"},
        ),
    ],
)
async def test_usage_without_a_message_is_recorded_by_keys(explain, name, of, key):
    plan = await explain(name, tenant_id="big", token_id="k", **of, **key)
    assert scans(plan) <= {
        ("api_token", "api_token_pkey"),
        ("conversation", "conversation_pkey"),
    }
    assert rows_read(plan) <= 3


@pytest.mark.parametrize("key", [{}, WITH_A_KEY])
async def test_a_first_turn_reads_no_conversation(explain, key):
    plan = await explain(
        "conversation/append_message", tenant_id="big", id="absent", **TURN, **CREATE, **key
    )
    assert scans(plan) <= {
        ("conversation", "conversation_pkey"),
        ("conversation_recency", "conversation_recency_pkey"),
        ("api_token", "api_token_pkey"),
        ("watched_tenant", None),  # empty here
    }
    assert rows_read(plan) == 1  # the new row


@pytest.mark.parametrize("after", [{}, {"after_at": NOW, "after_id": ""}])
async def test_a_watch_reads_the_conversations_updated_since_an_instant(explain, after):
    plan = await explain("watch/get_new", tenant_id="big", since=NOW, limit=300, **after)
    assert indexes(plan) <= {"conversation_recency_tenant_idx", "conversation_pkey"}
    assert None not in {index for _, index in scans(plan)}
    assert rows_read(plan) <= 2 * 300


SHORT = ("unfiltered", "short")
BY_UPDATE = ("by_updated_at",)
HOT = [
    ("conversation/get_list", ("by_created_at", *SHORT), PAGE),
    ("conversation/get_list", ("by_created_at", *SHORT), PAGE | MIDDLE),
    ("conversation/get_list", ("by_created_at", *SHORT), TENANT_PAGE),
    ("conversation/get_list", (*BY_UPDATE, *SHORT), PAGE),
    ("conversation/get_list", (*BY_UPDATE, *SHORT), TENANT_PAGE),
    ("conversation/get_list", ("by_created_at", *SHORT), PAGE | {"offset": 31}),
    (
        "conversation/get_list",
        ("by_created_at", "by_usage", *SHORT),
        PAGE | {"count_limit": None},
    ),
    ("conversation/get_by_ids", ("one",), {"ids": ["big7"], "include_dsl": True}),
    ("session/get_by_ids", ("one",), {"ids": ["big7"], "include_dsl": True}),
    ("session/get_by_ids", ("message_models", "one"), {"ids": ["big7"], "include_dsl": True}),
    ("conversation/append_message", (), TURN | {"id": "big7"}),
    ("conversation/append_message", (), TURN | IF_UNCHANGED | {"id": "big7"}),
    ("conversation/append_message", (), TURN | WITH_IDS | {"id": "big7"}),
    ("message/get", (), {"id": "big7", "message_id": "same"}),
    ("message/put", (), PUT | {"id": "big7", "message_id": "same"}),
    ("message/put", ("patch",), PUT | {"id": "big7", "message_id": "same"} | CREATE | MERGE),
    ("conversation/append_message", (), TURN | CREATE | {"id": "big7"}),
    ("conversation/append_message", (), TURN | CREATE | {"id": "absent"}),
    ("message/get_list", ("first", "full_row"), {"id": "big7", "limit": 100}),
    ("message/get_list", ("last", "full_row"), {"id": "big7", "limit": 20}),
    ("api_token/verify", (), {"token_hash": b"", "kind": "api", "pepper_version": 0}),
    (
        "api_token/verify",
        ("budgets",),
        {"token_hash": b"", "kind": "api", "pepper_version": 0, "user_id": "u", "dialog_id": "d"},
    ),
]


@pytest.mark.parametrize(("name", "flags", "parameters"), HOT)
@pytest.mark.parametrize("store", ["seeded", "misled"])
async def test_a_hot_statement_is_not_planned_at_each_call(
    seeded, misled, store, name, flags, parameters
):
    connection = await asyncpg.connect({"seeded": seeded, "misled": misled}[store])
    if name != "api_token/verify":
        parameters = {"tenant_id": "big"} | parameters
    query = sql_files.load(name).bind(flags, parameters)
    for _ in range(8):
        async with rolled_back(connection):
            await connection.fetch(query.text, *query.arguments)
    plans = await connection.fetchrow(
        "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement = $1",
        query.text,
    )
    await connection.close()
    # The server compares the costs after 5 custom plans.
    assert plans["custom_plans"] <= 5 < sum(plans)


@asynccontextmanager
async def rolled_back(connection):
    """Roll back what the block does."""
    transaction = connection.transaction()
    await transaction.start()
    yield
    await transaction.rollback()


IDS = [f"big{number}" for number in range(1, 101)]
PATCHES = json.dumps({id: {"name": "new"} for id in IDS})
MERGED = json.dumps({id: {"merge_dsl": {"a": 1}} for id in IDS})
BATCH = {"batch_size": 100, "max_messages": 9_999}
ON_A_HUNDRED = [
    ("conversation/get_list", ("by_created_at",), PAGE | {"limit": 100}),
    ("conversation/get_by_ids", (), {"ids": IDS, "include_dsl": True}),
    ("session/get_by_ids", (), {"ids": IDS, "include_dsl": True}),
    ("conversation/update_many_by_id", (), {"patches": PATCHES}),
    (
        "conversation/update_many_by_id",
        ("merges",),
        {"patches": MERGED, "max_json_bytes": 2**20, **OF_USER, **CREATE},
    ),
    ("conversation/delete", (), {"ids": IDS}),
    ("conversation/lock", (), BATCH | {"user_id": "u1"}),
    ("conversation/lock", (), BATCH),
    ("conversation/delete", ("by_updated_at", "count_messages"), {"ids": IDS, "before": NOW}),
    ("conversation/delete", ("by_created_at", "count_messages"), {"ids": IDS, "before": NOW}),
    ("conversation/delete", (), BATCH | {"dialog_ids": ["rare"]}),
    ("conversation/export", ("by_id",), BATCH | {"max_bytes": 2**23}),
    ("conversation/find_expired", ("by_updated_at", "count_messages"), BATCH | {"before": NOW}),
    ("conversation/find_expired", ("by_created_at", "count_messages"), BATCH | {"before": NOW}),
    ("message/change_dialog", (), {"ids": IDS}),
    ("search/index_messages", (), INDEXED | {"limit": 100}),
    ("search/index_titles", (), {"limit": 100}),
    ("message/digests", (), {"ids": IDS, "last_seqs": [3] * 100}),
]


@pytest_asyncio.fixture(params=["force_custom_plan", "force_generic_plan"])
async def misled_connection(request, misled):
    connection = await asyncpg.connect(misled, server_settings={"plan_cache_mode": request.param})
    yield connection
    await connection.close()


@pytest.mark.parametrize(("name", "flags", "more"), ON_ONE_CONVERSATION)
async def test_a_change_of_one_conversation_reads_as_little_with_misleading_statistics(
    misled_connection, name, flags, more
):
    plan = await executed(misled_connection, name, *flags, tenant_id="big", id="big7", **more)
    assert rows_read(plan) <= 14


@pytest.mark.parametrize(("name", "flags", "more"), ON_A_HUNDRED)
async def test_a_statement_about_many_rows_reads_a_table_once_with_misleading_statistics(
    misled_connection, name, flags, more
):
    plan = await executed(misled_connection, name, *flags, **{"tenant_id": "big"} | more)
    # One scan of the table is acceptable for many rows, one scan per row is not.
    assert rows_read(plan) <= 4 * CONVERSATIONS


TENANT_SIZE = 2_000
NEW_IDS = [f"new{number}" for number in range(1, 101)]
KEY_LOOKUPS = [
    ("conversation/get_by_ids", (), {"ids": NEW_IDS, "include_dsl": True}),
    ("session/get_by_ids", (), {"ids": NEW_IDS, "include_dsl": True}),
    ("conversation/update_many_by_id", (), {"patches": json.dumps({id: {} for id in NEW_IDS})}),
    ("conversation/delete", ("by_updated_at", "count_messages"), {"ids": NEW_IDS, "before": NOW}),
    ("conversation/lock", (), BATCH | {"user_id": "u1"}),
    ("conversation/lock", (), BATCH),
    ("conversation/delete", ("count_messages", "count_append_keys"), {"ids": NEW_IDS}),
    ("conversation/delete", (), BATCH | {"dialog_ids": ["d1"]}),
    ("conversation/find_expired", ("by_updated_at", "count_messages"), BATCH | {"before": NOW}),
    ("conversation/find_expired", ("by_created_at", "count_messages"), BATCH | {"before": NOW}),
    ("conversation/export", ("by_id",), BATCH | {"max_bytes": 2**23}),
    ("message/change_dialog", (), {"ids": NEW_IDS}),
    ("message/digests", (), {"ids": NEW_IDS, "last_seqs": [3] * 100}),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grown(server_dsn, template, database_prefix):
    """The DSN of a database with three tenants. The third was imported after the last ANALYZE."""
    name = f"{database_prefix}_grown"
    await create_database(server_dsn, name, template=template)
    connection = await asyncpg.connect(dsn_of(server_dsn, name))
    for table in ("conversation", "conversation_recency", "message", "append_key", "api_token"):
        await connection.execute(f"ALTER TABLE asyncsvc.{table} SET (autovacuum_enabled = off)")
    for tenant_id in ("one", "two", "new"):
        if tenant_id == "new":
            await connection.execute("ANALYZE")
        await connection.execute(
            f"""
            INSERT INTO asyncsvc.conversation (
                   tenant_id, id, dialog_id, user_id, last_seq, created_at, updated_at)
            SELECT '{tenant_id}', '{tenant_id}' || n, 'd' || n % 3, 'u' || n % 10, 3,
                   '{NOW}'::timestamptz - n * interval '1 hour',
                   '{NOW}'::timestamptz - n * interval '1 hour'
              FROM generate_series(1, {TENANT_SIZE}) AS n
            """
        )
        of_tenant = f"(SELECT * FROM asyncsvc.conversation WHERE tenant_id = '{tenant_id}') AS c"
        for command in SEED[1:5]:
            await connection.execute(command.replace("asyncsvc.conversation AS c", of_tenant))
        await connection.execute(
            f"""
            INSERT INTO asyncsvc.api_token (
                   id, tenant_id, name, token_hash, pepper_version, hint, kind, scopes, metadata,
                   created_at, family_id)
            SELECT '{tenant_id}' || n, '{tenant_id}', '', sha256(('{tenant_id}' || n)::bytea), 0,
                   '', 'api', '{{}}', '{{}}', '{NOW}'::timestamptz - n * interval '1 second',
                   '{tenant_id}' || n
              FROM generate_series(1, {TENANT_SIZE}) AS n
            """
        )
        await connection.execute(
            f"""
            INSERT INTO asyncsvc.api_token_hash (token_hash, tenant_id, token_id)
            SELECT t.token_hash, t.tenant_id, t.id
              FROM asyncsvc.api_token AS t
             WHERE t.tenant_id = '{tenant_id}'
            """
        )
        await connection.execute(SEED_LEDGER.replace("asyncsvc.conversation AS c", of_tenant))
        await connection.execute(f"INSERT INTO asyncsvc.usage_zone VALUES ('{tenant_id}', 'UTC')")
    await connection.close()
    yield dsn_of(server_dsn, name)
    await drop_database(server_dsn, name)


@pytest_asyncio.fixture(params=["force_custom_plan", "force_generic_plan"])
async def grown_connection(request, grown):
    settings = {"plan_cache_mode": request.param, "statement_timeout": "20s"}
    connection = await asyncpg.connect(grown, server_settings=settings)
    yield connection
    await connection.close()


@pytest.mark.parametrize(("name", "flags", "more"), KEY_LOOKUPS)
async def test_rows_of_a_tenant_that_was_never_analyzed_are_read_by_primary_key(
    grown_connection, name, flags, more
):
    plan = await executed(grown_connection, name, *flags, **{"tenant_id": "new"} | more)
    repeated = [node for node in plan if node["Actual Loops"] >= 50 and "Relation Name" in node]
    assert all(node.get("Index Name", "").endswith("_pkey") for node in repeated), repeated


YEAR = {"range_from": NOW - timedelta(days=365), "range_before": NOW + timedelta(days=1)}


@pytest.mark.parametrize(
    ("name", "flags", "of"),
    [
        ("usage/roll_up", ("buckets",), {}),
        ("usage/recount", (), {"users_since": date.min}),
        ("usage/recount", (), {"users_since": date.min, "tz": "Asia/Kathmandu"}),
        (
            "usage/creation_stats",
            (),
            YEAR | {"grain": "day", "tz": "UTC", "dimension": "all", "fill": True},
        ),
    ],
)
async def test_creations_of_a_tenant_that_was_never_analyzed_are_not_compared_with_each_other(
    grown_connection, name, flags, of
):
    plan = await executed(grown_connection, name, *flags, tenant_id="new", **of)
    assert sum(node.get("Rows Removed by Join Filter", 0) for node in plan) <= TENANT_SIZE
    probes = [node for node in plan if node.get("Subplan Name", "").startswith("SubPlan")]
    assert bool(probes) == (name != "usage/recount")
    for probe in probes:
        (scan,) = [node for node in nodes(probe) if "Index Name" in node]
        assert scan["Index Name"] == "conversation_user_idx"
        assert scan.get("Rows Removed by Filter", 0) <= 10 * scan["Actual Rows"] + 10


@pytest.mark.parametrize(
    ("name", "flags", "more"),
    [
        ("search/newest_matches", (), NEWEST),
        ("search/newest_matches", (), NEWEST | {"dialog_id": "d1"}),
        ("search/scan", ("descending",), SCAN),
        ("search/match_page", ("by_tokens",), MATCHING | {"id_keywords": "no such words"}),
    ],
)
async def test_a_search_reads_a_bounded_number_of_rows_with_misleading_statistics(
    misled_connection, name, flags, more
):
    plan = await executed(misled_connection, name, *flags, **more)
    assert rows_read(node for node in plan if node.get("Relation Name") == "message") <= 500
    assert rows_read(plan) <= 4 * CONVERSATIONS


@pytest.mark.parametrize(
    ("name", "flags", "more"),
    [
        ("search/newest_matches", (), NEWEST | {"limit": 1_000, "user_id": "u2"}),
        ("search/match_page", ("by_created_at",), MATCHING | {"user_id": "u2"}),
        ("search/match_page", ("by_created_at",), MATCHING | {"exp_user_id": "e7"}),
        ("search/match_page", ("by_tokens",), MATCHING | {"exp_user_id": "e7"}),
    ],
)
async def test_a_search_of_one_user_looks_up_each_match_by_key(
    misled_connection, name, flags, more
):
    some = {"keywords": "0a1"}  # 400 of the 60,000 messages contain this text
    plan = await executed(misled_connection, name, *flags, **more | some)
    assert not indexes(plan) & {"conversation_user_idx", "conversation_exp_user_idx"}
    assert rows_read(plan) <= 6 * CONVERSATIONS


@pytest.mark.parametrize("flags", [("full_row",), ()])
@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize("bounds", [{}, {"limit": 2}, {"limit": 2, "after_seq": 1}])
async def test_a_list_of_messages_reads_its_rows(explain, flags, order, bounds):
    plan = await explain("message/get_list", order, *flags, tenant_id="big", id="big7", **bounds)
    assert scans(plan) == {("conversation", "conversation_pkey"), ("message", "message_pkey")}
    assert rows_read(plan) <= 1 + bounds.get("limit", 3)


async def test_whole_conversations_are_read_with_their_messages_only(explain):
    plan = await explain(
        "session/get_by_ids",
        tenant_id="big",
        ids=["big1", "big2"],
        include_dsl=True,
    )
    assert scans(plan) == {("conversation", "conversation_pkey"), ("message", "message_pkey")}
    assert rows_read(plan) == 2 + 2 * 3


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("conversation/lock", {"user_id": "u1"}),
        ("conversation/lock", {}),
        ("conversation/delete", {"dialog_ids": ["rare", "x"]}),
    ],
)
async def test_bulk_deletion_reads_a_batch(explain, name, where):
    limits = {"batch_size": 10, "max_messages": 30}
    plan = await explain(name, tenant_id="big", **limits, **where)
    assert ("conversation", None) not in scans(plan)
    assert rows_read(plan) <= 120


@pytest.mark.parametrize(
    ("of", "index"),
    [
        ({}, "conversation_recency_updated_idx"),
        ({"dialog_id": "d1"}, "conversation_recency_updated_idx"),
        (
            {"after_dialog_id": "d0", "after_at": NOW - timedelta(days=9), "after_id": ""},
            "conversation_recency_updated_idx",
        ),
    ],
)
async def test_a_purge_scans_the_index_on_updated_at(explain, of, index):
    more = {"batch_size": 10, "max_messages": 1_000}
    plan = await explain(
        "conversation/find_expired",
        "by_updated_at",
        tenant_id="big",
        before=NOW - timedelta(days=10),
        **more,
        **of,
    )
    assert {name for table, name in scans(plan) if table == "conversation_recency"} == {index}
    assert rows_read(plan) <= 2 * 12


async def test_a_purge_deletes_by_primary_key(explain):
    plan = await explain(
        "conversation/delete",
        "by_updated_at",
        "count_messages",
        tenant_id="big",
        ids=["big1", "big2"],
        before=NOW,
    )
    assert scans(plan) == {("conversation", "conversation_pkey"), ("message", "message_pkey")}
    assert rows_read(plan) <= 2 * (3 + 3)  # 3 reads of the row, and its 3 messages


@pytest.mark.parametrize(
    ("order", "of", "index"),
    [
        ("by_id", {}, "conversation_pkey"),
        ("by_id", {"after_id": "big5"}, "conversation_pkey"),
        ("by_created_at", {"dialog_id": "d1"}, "conversation_created_idx"),
        ("by_created_at", {"user_id": "u7"}, "conversation_user_idx"),
        (
            "by_created_at",
            {"user_id": "u7", "after_at": NOW - timedelta(days=1), "after_id": "x"},
            "conversation_user_idx",
        ),
    ],
)
async def test_an_export_reads_its_page(explain, order, of, index):
    more = {"batch_size": 10, "max_messages": 6, "max_bytes": 10_000}
    plan = await explain("conversation/export", order, tenant_id="big", **more, **of)
    assert index in indexes(plan)
    assert None not in {name for _, name in scans(plan)}
    assert rows_read(plan) <= 10 + 2 * 3 + 40  # the 40 rows of a user are sorted


async def test_get_names_reads_the_index_on_exp_user_id(explain):
    plan = await explain(
        "conversation/get_names", tenant_id="big", dialog_id="d1", exp_user_id="e7", limit=5
    )
    assert indexes(plan) == {"conversation_exp_user_idx"}


@pytest.mark.parametrize("ring", [False, True])
async def test_a_token_is_found_by_its_hash(explain, ring):
    import hashlib

    digest = hashlib.sha256(b"secret7").digest()
    more = {"last_used_resolution": timedelta(seconds=60), "pepper_version": 1}
    if ring:
        more |= {"second_hash": digest, "third_hash": b"3" * 32, "fourth_hash": b"4" * 32}
    token_hash = b"n" * 32 if ring else digest
    plan = await explain("api_token/verify", token_hash=token_hash, kind="api", **more)
    assert None not in {index for _, index in scans(plan)}
    assert indexes(plan) == {"api_token_token_hash_tenant_id_key"}
    assert rows_read(plan) <= 5


async def test_the_use_of_a_token_is_recorded_by_its_key(explain):
    plan = await explain(
        "api_token/record_use",
        tenant_id="tenant8",
        id="token8",
        token_hash=b"n" * 32,
        last_used_resolution=timedelta(seconds=60),
        pepper_version=1,
    )
    assert indexes(plan) == {"api_token_pkey", "api_token_hash_token_idx"}
    assert rows_read(plan) <= 6


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("is_verified", [False, True])
async def test_the_budgets_of_a_request_are_read_by_their_keys(seeded, is_verified, mode):
    """Of 10,001 budgets 2 apply. They have one metric and window and read the ledger once."""
    import hashlib

    if is_verified:
        digest = hashlib.sha256(b"secret7").digest()
        of = {"token_hash": digest, "kind": "api", "pepper_version": 1}
        query = sql_files.load("api_token/verify").bind(("budgets",), of | REQUEST)
    else:
        of = {"tenant_id": "tenant7", "token_id": "token7"}
        query = sql_files.load("budget/get_status").bind((), of | REQUEST)
    connection = await asyncpg.connect(seeded)
    await connection.execute(f"SET plan_cache_mode = {mode}")
    async with rolled_back(connection):
        rows = await connection.fetch(query.text, *query.arguments)
        read = await connection.fetchrow(READ_BY_SESSION)
    await connection.close()
    assert [row["scope"] for row in rows] == ["tenant", "user"][: 1 if is_verified else 2]
    assert read["sequential"] == 0
    assert read["rows"] <= 400 + 20


@pytest.mark.parametrize(
    ("name", "more"),
    [("budget/delete", {}), ("budget/raise_limit", {"by": 1, "max_cost": 10, "max_count": 10})],
)
async def test_a_budget_is_changed_by_its_id(explain, name, more):
    plan = await explain(name, tenant_id="tenant7", id="tenant77", actor=None, **more)
    assert "budget_id_key" in indexes(plan)
    assert rows_read(plan) <= 10


async def test_tokens_are_listed_from_the_index(explain):
    plan = await explain("api_token/get_list", tenant_id="tenant7", limit=11)
    assert scans(plan) == {("api_token", "api_token_tenant_idx")}
    assert rows_read(plan) == 11


@pytest.mark.parametrize("id", ["token4107", "token4957", "token7"])
async def test_a_family_is_read_by_its_index(explain, id):
    plan = await explain("api_token/get_family", id=id, tenant_id="tenant7")
    assert indexes(plan) == {"api_token_pkey", "api_token_family_idx"}
    assert None not in {index for _, index in scans(plan)}
    assert rows_read(plan) <= 2 * 21 + 2


TOKENS = [f"token{number}" for number in range(7, 2007, 100)]


def changes_of_tokens(ids):
    return [
        ("api_token/revoke_many", {"ids": ids, "family_of": ids[0], "reason": None}),
        ("api_token/update_many_by_id", {"patches": json.dumps({id: {"name": ""} for id in ids})}),
        ("api_token/delete", {"ids": ids}),
    ]


@pytest.mark.parametrize(("name", "of"), changes_of_tokens(TOKENS))
async def test_tokens_are_changed_by_their_keys(explain, name, of):
    plan = await explain(name, tenant_id="tenant7", actor=None, **of)
    hashes = {"api_token_hash_token_idx"} if name == "api_token/delete" else set()
    assert indexes(plan) == {"api_token_pkey", *hashes}
    assert None not in {index for _, index in scans(plan)}
    # An entry and a row to lock each token, the same to change it, and the row that is written.
    assert rows_read(plan) <= 5 * len(TOKENS)


@pytest.mark.parametrize(
    ("name", "of"),
    [
        *changes_of_tokens(NEW_IDS),
        ("api_token/revoke_many", {"reason": None}),
        ("api_token/delete", {"batch_size": TENANT_SIZE}),
    ],
)
async def test_tokens_of_a_tenant_that_was_never_analyzed_are_not_read_once_per_token(
    grown_connection, name, of
):
    plan = await executed(grown_connection, name, tenant_id="new", actor=None, **of)
    assert {node["Actual Loops"] for node in plan if "Relation Name" in node} == {1}
    if of.keys() & {"ids", "patches"}:
        hashes = {"api_token_hash_token_idx"} if name == "api_token/delete" else set()
        assert indexes(plan) == {"api_token_pkey", *hashes}


async def test_tenants_to_roll_up_are_read_without_the_rest_of_the_ledger(explain):
    plan = await explain("usage/find_tenants_to_roll_up", limit=1)
    ledger = {index for table, index in scans(plan) if table == "usage_ledger"}
    assert ledger == {"usage_ledger_tenant_idx"}
    (scan,) = [node for node in plan if node.get("Index Name") == "usage_ledger_tenant_idx"]
    assert scan["Actual Rows"] <= 401  # the rows of one tenant, and the first row of the next


async def test_a_token_is_rotated_by_its_key(explain):
    plan = await explain(
        "api_token/rotate",
        tenant_id="tenant7",
        id="token7",
        successor_id="new",
        token_hash=b"h" * 32,
        pepper_version=0,
        hint="",
        overlap=timedelta(0),
        actor=None,
    )
    assert indexes(plan) == {"api_token_pkey"}
    assert rows_read(plan) <= 3  # one read, two written


async def test_the_tokens_of_a_tenant_are_revoked_by_their_keys(explain):
    plan = await explain("api_token/revoke_many", tenant_id="tenant7", actor=None, reason=None)
    assert indexes(plan) == {"api_token_pkey"}
    # An entry and a row to lock each token, the same to revoke it, and the row that is written.
    # A row that another test wrote may have a dead version in the index and in the table.
    assert rows_read(plan) <= 5 * 100 + 2


@pytest.mark.parametrize(
    ("of", "index"), [({}, "token_audit_pkey"), ({"token_id": "token7"}, "token_audit_token_idx")]
)
async def test_the_audit_is_read_from_its_index(explain, of, index):
    for after in ({}, {"after_at": datetime.now(UTC), "after_id": 10**6}):
        plan = await explain("token_audit/get_list", tenant_id="tenant7", limit=3, **of, **after)
        assert scans(plan) == {("token_audit", index)}
        assert rows_read(plan) == 3


async def test_the_activity_of_a_range_is_read_from_the_index(explain):
    activity = RANGE | {"range_from": NOW - timedelta(days=1)}
    plan = await explain(
        "usage/stats",
        tenant_id="big",
        dimension="token_id",
        token_id="token1",
        **activity,
    )
    assert {"usage_quarter_hour_key", "usage_ledger_tenant_idx"} <= indexes(plan)
    assert rows_read(plan) <= 2 * 4 * 24


MONTH = datetime(2026, 11, 1, tzinfo=UTC)
RANGE = {
    "range_from": NOW - timedelta(days=1),
    "range_before": NOW,
    "grain": "hour",
    "tz": "Europe/Berlin",
    "fill": True,
}


async def test_statistics_of_a_dialog_read_their_range(explain):
    plan = await explain(
        "usage/creation_stats", tenant_id="big", dimension="dialog_id", dialog_id="d0", **RANGE
    )
    assert "conversation_created_idx" in indexes(plan)
    assert rows_read(plan) <= 2 * 24 * 60


BASES = {"creation": "usage/creation_stats", "activity": "usage/stats"}
WHOLE = {
    "range_from": NOW - timedelta(days=12),
    "range_before": NOW - timedelta(days=2),
    "grain": "day",
    "tz": "UTC",
    "fill": True,
}


@pytest.mark.parametrize("basis", BASES.values(), ids=BASES)
async def test_statistics_of_whole_days_read_one_row_per_day(explain, basis):
    plan = await explain(basis, tenant_id="big", dimension="all", **WHOLE)
    assert "usage_bucket_key" in indexes(plan)
    # 10 days and the zone. The ledger has no row of this tenant.
    assert rows_read(without_dead_entries(plan)) <= 12


OF = {
    "all": ((), {"dimension": "all"}),
    "source": ((), {"dimension": "source", "source": "api"}),
    "no source": (("source_is_null",), {"dimension": "source"}),
    "dialog": ((), {"dimension": "dialog_id", "dialog_id": "d0"}),
    "both": (("counted",), {"dimension": "all", "dialog_id": "d0", "source": "api"}),
}


@pytest.mark.parametrize("range_of", [WHOLE, RANGE, RANGE | {"grain": "day", "tz": "UTC"}])
@pytest.mark.parametrize("of", OF.values(), ids=OF)
@pytest.mark.parametrize("basis", BASES.values(), ids=BASES)
async def test_generic_plans_of_statistics_read_as_little_as_custom_plans(
    seeded, basis, of, range_of
):
    (flags, filters), read = of, {}
    # This simulates a table larger than memory, for which an index scan costs the most.
    connection = await asyncpg.connect(seeded, server_settings={"effective_cache_size": "8kB"})
    for mode in ("force_custom_plan", "force_generic_plan"):
        await connection.execute(f"SET plan_cache_mode = {mode}")
        plan = await executed(connection, basis, *flags, tenant_id="big", **range_of, **filters)
        read[mode] = rows_read(without_dead_entries(plan))
    await connection.close()
    assert read["force_generic_plan"] <= 2 * read["force_custom_plan"] + 100, read


async def test_the_total_of_a_dialog_reads_one_row_per_month(explain):
    for column in ("created_at", "updated_at"):
        plan = await explain(
            "conversation/get_list",
            *Order(column=column).flags,
            "unfiltered",
            "by_usage",
            **PAGE | {"count_limit": None},
        )
        assert {"usage_bucket_key", "usage_ledger_tenant_idx"} <= indexes(plan)
        assert rows_read(without_dead_entries(plan)) <= 3 * 31 + 2


def without_dead_entries(plan):
    """Return the nodes except those on the ledger, which has dead rows of other tests."""
    return [node for node in plan if node.get("Index Name") != "usage_ledger_tenant_idx"]


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_groups_read_their_buckets_and_no_quarter_hour(seeded, mode):
    connection = await asyncpg.connect(seeded)
    await connection.execute(f"SET plan_cache_mode = {mode}")
    for flags in ((), ("total",)):
        plan = await executed(
            connection,
            "usage/stats",
            *flags,
            tenant_id="big",
            dimension="all",
            group_by="model",
            top=2,
            **WHOLE,
        )
        # 4 models of 10 days, to rank them and for the 2 first ones, 10 days of all, the zone.
        assert rows_read(without_dead_entries(plan)) <= 4 * 10 + 2 * 10 + 10 + 2
    await connection.close()


async def test_stored_days_are_not_summed_again(explain):
    plan = await explain("usage/stats", tenant_id="big", dimension="all", **WHOLE)
    assert "usage_bucket_key" in indexes(plan)
    assert {node["Actual Rows"] for node in plan if node["Node Type"] == "Aggregate"} == {0}


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_the_usage_of_a_person_is_read_from_its_index(seeded, mode):
    connection = await asyncpg.connect(seeded)
    await connection.execute(f"SET plan_cache_mode = {mode}")
    plan = await executed(
        connection,
        "usage/stats",
        "counted",
        tenant_id="big",
        dimension="all",
        user_id="u7",
        **WHOLE | {"range_from": NOW - timedelta(days=300)},
    )
    await connection.close()
    assert "usage_quarter_hour_user_idx" in indexes(plan)
    assert rows_read(without_dead_entries(plan)) <= 50


MANY_TENANTS = (
    "ALTER TABLE asyncsvc.usage_quarter_hour ALTER tenant_id SET (n_distinct = 10000)",
    "ANALYZE asyncsvc.usage_quarter_hour",
    "UPDATE pg_class SET relallvisible = relpages WHERE relname = 'usage_quarter_hour'",
)
"""Statistics as of a vacuumed table in which the tenant is one of many."""


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize(
    ("name", "flags", "more"),
    [
        ("usage/stats", (), {"dimension": "all", "group_by": "model", "top": 2} | WHOLE),
        ("usage/roll_up", ("buckets",), {}),
    ],
)
async def test_a_new_person_in_the_ledger_is_looked_up_by_person(seeded, mode, name, flags, more):
    connection = await asyncpg.connect(seeded)
    await connection.execute(f"SET plan_cache_mode = {mode}")
    transaction = connection.transaction()
    await transaction.start()
    for command in MANY_TENANTS:
        await connection.execute(command)
    await connection.execute(
        "INSERT INTO asyncsvc.usage_ledger (tenant_id, dialog_id, user_id, at, rounds)"
        " SELECT 'big', 'd0', 'u' || n, $1, 1 FROM generate_series(1, 20) AS n",
        NOW - timedelta(days=5),
    )
    plan = await executed(connection, name, *flags, tenant_id="big", **more)
    await transaction.rollback()
    await connection.close()
    probes = [node for node in plan if node.get("Subplan Name", "").startswith("SubPlan")]
    scans_of_probes = [node for probe in probes for node in nodes(probe) if "Index Name" in node]
    assert {node["Index Name"] for node in scans_of_probes if "quarter" in node["Index Name"]} == {
        "usage_quarter_hour_user_idx"
    }


HEAVY = (
    "UPDATE asyncsvc.usage_user_month SET tokens = tokens * 100 WHERE user_id < 'u105'",
    "UPDATE asyncsvc.usage_user SET tokens = tokens * 100 WHERE user_id < 'u105'",
)
"""8 persons with more usage than the others."""


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_persons_are_ranked_by_the_months_of_few(seeded, mode):
    connection = await asyncpg.connect(seeded)
    await connection.execute(f"SET plan_cache_mode = {mode}")
    transaction = connection.transaction()
    await transaction.start()
    for command in HEAVY:
        await connection.execute(command)
    plan = await executed(
        connection,
        "usage/stats",
        "total",
        "by_user",
        "by_month",
        tenant_id="big",
        dimension="all",
        group_by="user_id",
        top=3,
        **WHOLE | {"range_from": datetime(2026, 7, 1, tzinfo=UTC), "range_before": MONTH},
    )
    await transaction.rollback()
    await connection.close()
    assert {"usage_user_bound_idx", "usage_user_month_pkey", "usage_bucket_key"} <= indexes(plan)
    # 4 months of 203 persons, without the other 797; 4 months of 3 persons, 123 days.
    assert rows_read(without_dead_entries(plan)) <= 203 * (1 + 4) + 2 * 8 + 3 * 4 + 123 + 10
    # The server compiles an expensive plan, which takes longer than to run it.
    assert max(node["Total Cost"] for node in plan) < 100_000


async def test_statistics_of_a_small_tenant_do_not_read_the_big_one(explain):
    plan = await explain("usage/creation_stats", tenant_id="small", dimension="all", **RANGE)
    assert rows_read(plan) <= 2 * CONVERSATIONS // 100


async def test_a_message_is_found_by_the_entries_of_its_id(explain):
    for filters in ({}, {"user_id": "u7"}):
        plan = await explain("message/find", tenant_id="big", message_id="big7", **filters)
        assert indexes(plan) == {"message_id_idx", "conversation_pkey", "message_pkey"}
        assert rows_read(plan) <= 4
