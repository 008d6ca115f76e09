"""Each SQL file can be prepared, has a repository method, and returns the columns of its model."""

import contextlib
import dataclasses
import inspect
import itertools
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import asyncpg
import pytest
from pglast import ast

from asyncsvc import AsyncSvcError, InvalidInput, models, repositories, sql_statement
from asyncsvc.database import sql_files
from asyncsvc.repositories import base, search, server
from asyncsvc.repositories.api_token import RevokedBatch
from asyncsvc.repositories.append_key import ExpiredKey
from asyncsvc.repositories.conversation_rows import (
    DeletedBatch,
    ExpiredConversation,
    ExtendedConversation,
    LockedBatch,
)
from asyncsvc.repositories.maintenance import BacklogRow, DueJobs, MaintenanceRole
from asyncsvc.repositories.message import MessageOutline
from asyncsvc.repositories.migration import Shard, TableSize
from asyncsvc.repositories.query import ListFilter, TimeRange
from asyncsvc.repositories.testing import DatabaseCommands
from asyncsvc.repositories.usage import LedgerTenant, SummedOut
from asyncsvc.repositories.usage_key import ExpiredUsageKey
from asyncsvc.repositories.watch import NewAppend, RunningTransactions
from tests.support import citus_shapes as trees
from tests.support.citus import ON_CITUS, STUBS
from tests.support.registry import SERVICE_METHODS, furnish

NAMES = sql_files.names()
REPOSITORIES = {
    repository.folder: repository
    for repository in (getattr(repositories, name) for name in repositories.__all__)
}
OF_CITUS = {"migration/get_shards", "migration/get_sizes", "server/cluster", "server/workers"}
"""Statements that read the catalog of Citus."""
EXECUTORS = ("pooler/", "replica/", "row_security/", "watch/get_session", "watch/notify")
REPOSITORY_NAMES = [name for name in NAMES if not name.startswith(EXECUTORS)]
TENANT_STATEMENTS = [
    name
    for name in NAMES
    # Migrations have no tenant, the lookup of a token by its hash has none yet, and maintenance
    # and the databases of tests concern all tenants.
    if not name.startswith(
        ("maintenance/", "migration/", "server/", "testing/", "api_token/verify", *EXECUTORS)
    )
    and name
    not in {
        "api_token/find_hashes",
        "api_token/find_tenant",
        "append_key/find_expired",
        "api_token/import_many",
        "search/next_tenants",
        "search/flush_pending_list",
        "usage/backlog",
        "usage/find_old_users",
        "usage/find_tenants_to_roll_up",
        "usage/vacuum",
        "usage_key/find_expired",
        "watch/get_running",
        "watch/notify",
    }
]
CONVERSATION = list(models.Conversation.model_fields)
MESSAGE = list(models.StoredMessage.model_fields)
TOKEN = list(models.APIToken.model_fields)
RECORD = list(models.Record.model_fields)
BUCKET = [
    "dt",
    "conversations",
    "users",
    "rounds",
    "tokens",
    "duration",
    "thumb_up",
    "thumb_down",
    "round",
]
ACTIVITY_COUNTERS = [
    "requests",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost",
    "unpriced",
    "unmetered",
]
GROUP_BUCKET = ["dt", "group", "is_other", *BUCKET[1:], "large_sums", *ACTIVITY_COUNTERS]
BUDGET = list(models.Budget.model_fields)
STATUS = [*models.BudgetStatus.model_fields, "is_alerted"]
APPENDED = list(models.Appended.model_fields)
COLUMNS = {
    "append_key/delete_expired": ["deleted"],
    "append_key/find_expired": list(ExpiredKey._fields),
    "api_token/add_hashes": ["token_id"],
    "api_token/create": TOKEN,
    "api_token/delete": ["deleted"],
    "api_token/delete_hashes": [],
    "api_token/find_hashes": ["position", "tenant_id", "token_id"],
    "api_token/find_tenant": ["tenant_id"],
    "api_token/get_by_ids": TOKEN,
    "api_token/get_family": ["id", "is_live"],
    "api_token/get_list": TOKEN,
    "api_token/import_many": ["position", "outcome"],
    "api_token/record_use": ["id"],
    "api_token/replace_hash": [],
    "api_token/revoke": TOKEN,
    "api_token/revoke_many": list(RevokedBatch._fields),
    "api_token/rotate": TOKEN,
    "api_token/update_many_by_id": TOKEN,
    "api_token/use_two_phases": [],
    "api_token/verify": [*TOKEN, "is_due"],
    "budget/delete": ["deleted"],
    "budget/delete_all": ["deleted"],
    "budget/delete_usage": ["deleted"],
    "budget/erase_user": ["replaced"],
    "budget/get_list": BUDGET,
    "budget/get_status": STATUS,
    "budget/raise_limit": BUDGET,
    "budget/record_crossings": [
        name for name in models.BudgetAlert.model_fields if name != "tenant_id"
    ],
    "budget/recount": ["counted"],
    "budget/set": [*BUDGET, "must_recount"],
    "conversation/append_message": [*APPENDED, "is_watched"],
    "conversation/create_many": ["id", "created_at"],
    "conversation/delete": [field.name for field in dataclasses.fields(DeletedBatch)],
    "conversation/explain_append": [
        *("current_seq", "current_round", "current_tokens", "current_duration"),
        "body_hash",
        *(name for name in APPENDED if name != "replayed"),
        *("is_of_user", "metadata_bytes", "dsl_bytes", "has_ids"),
    ],
    "conversation/export": ["id", "created_at", "is_long"],
    "conversation/extend": [field.name for field in dataclasses.fields(ExtendedConversation)],
    "conversation/find_expired": [field.name for field in dataclasses.fields(ExpiredConversation)],
    "conversation/get_by_ids": CONVERSATION,
    "conversation/get_list": ["total", *CONVERSATION],
    "conversation/get_names": list(models.ConversationName.model_fields),
    "conversation/list_dialogs": list(models.DialogSummary.model_fields),
    "conversation/lock": [field.name for field in dataclasses.fields(LockedBatch)],
    "conversation/update_many_by_id": CONVERSATION,
    "maintenance/backlog": list(BacklogRow._fields),
    "maintenance/claim": ["worker"],
    "maintenance/find_due": list(DueJobs._fields),
    "maintenance/get_role": list(MaintenanceRole._fields),
    "maintenance/record_run": ["processed_until"],
    "message/change_dialog": ["updated"],
    "message/delete": ["deleted"],
    "message/digests": ["id", "digest"],
    "message/find": [
        *CONVERSATION,
        *("seq", "message_id"),
        *(name for name in MESSAGE if name not in {"seq", "id", "created_at"}),
        "message_created_at",
    ],
    "message/get": MESSAGE,
    "message/get_bounds": ["last_seq"],
    "message/get_chunk": MESSAGE,
    "message/get_list": ["payload"],
    "message/put": [*MESSAGE, "is_watched", "is_full"],
    "message/outline": list(MessageOutline._fields),
    "message/set_feedback": MESSAGE,
    "message/update": MESSAGE,
    "migration/create_schema": [],
    "migration/create_table": [],
    "migration/distribute": [],
    "migration/enable_row_security": [],
    "migration/get_applied": list(models.Migration.model_fields),
    "migration/get_progress": ["position", "rows"],
    "migration/get_shards": list(Shard._fields),
    "migration/get_sizes": list(TableSize._fields),
    "migration/has_citus": ["exists"],
    "migration/has_table": ["exists"],
    "migration/try_lock": ["is_locked", "idle_timeout"],
    "migration/record": [],
    "migration/record_progress": [],
    "migration/set_lock_timeout": [],
    "migration/get_unrestricted_tables": ["name"],
    "pooler/passes_names": ["passes_names"],
    "record/delete": ["deleted"],
    "record/get_list": RECORD,
    "record/get_many": RECORD,
    "record/put": RECORD,
    "replica/position": ["position", "flushed"],
    "replica/replayed": ["position", "is_standby", "is_streaming"],
    "row_security/set_tenant": ["tenant_id", "token_hashes"],
    "search/flush_pending_list": ["pages"],
    "search/index_messages": ["indexed", "at", "id", "seq"],
    "search/index_titles": ["indexed", "at", "id", "seq"],
    "search/match_page": ["total", "id", "at"],
    "search/newest_matches": list(search.Match.model_fields),
    "search/next_message": ["at", "id", "seq"],
    "search/next_tenants": ["tenant_id"],
    "search/scan": ["is_end", "scanned", "last_at", "last_id", *search.Match.model_fields],
    "search/snippets": list(models.Hit.model_fields),
    "server/clock": ["now"],
    "server/cluster": list(server.Cluster._fields),
    "server/indexes": list(server.Index._fields),
    "server/settings": list(server.ServerSettings._fields),
    "server/tables": list(server.Table._fields),
    "server/workers": list(server.Worker._fields),
    "server/zones": list(server.ZoneOffset._fields),
    "session/get_by_ids": [
        *CONVERSATION,
        *("is_first", "roles", "contents", "payloads", "message_references", "thumbs"),
    ],
    "session/lock": CONVERSATION,
    "testing/empty": [],
    "testing/get_commands": list(DatabaseCommands._fields),
    "token_audit/delete": ["deleted"],
    "token_audit/get_list": list(models.TokenEvent.model_fields),
    "usage/adjust": ["is_recorded"],
    "usage/backlog": ["ledger_rows"],
    "usage/creation_stats": [*BUCKET, "large_sums"],
    "usage/declare_zone": ["zone"],
    "usage/delete": ["deleted"],
    "usage/delete_quarter_hours": ["deleted"],
    "usage/delete_user_months": ["deleted"],
    "usage/erase_user": ["erased"],
    "usage/find_old_users": ["tenant_id"],
    "usage/find_tenants_to_roll_up": list(LedgerTenant._fields),
    "usage/lock": ["users_since"],
    "usage/record": ["is_recorded"],
    "usage/recount": ["buckets"],
    "usage/roll_up": ["ledger_rows"],
    "usage/stats": [*BUCKET, "large_sums", *ACTIVITY_COUNTERS],
    "usage/sum_out_users": list(SummedOut._fields),
    "usage/vacuum": [],
    "usage_key/delete_expired": ["deleted"],
    "usage_key/find_expired": list(ExpiredUsageKey._fields),
    "usage_key/get": ["body_hash"],
    "usage_audit/get_list": list(models.UsageEvent.model_fields),
    "watch/delete": ["deleted"],
    "watch/get_new": list(NewAppend._fields),
    "watch/get_running": list(RunningTransactions._fields),
    "watch/get_session": ["backend_pid", "is_distributed"],
    "watch/notify": ["synchronous_commit", "notified"],
    "watch/renew": ["tenant_id"],
}


ADDED_COLUMNS = {
    ("usage/stats", "group_by"): ["group", "is_other"],
    ("api_token/delete", "hashes_apart"): ["ids"],
    ("api_token/record_use", "pepper_version"): ["is_rehashed"],
    ("api_token/verify", "budgets"): STATUS,
    ("conversation/create_many", "full_row"): [
        name for name in CONVERSATION if name not in {"id", "created_at"}
    ],
    ("conversation/update_many_by_id", "merges"): ["oversized_id", "oversized_column"],
    ("message/delete", "newest"): MESSAGE,
    ("message/delete", "after_id"): ["after_seq"],
    ("message/delete", "before_id"): ["before_seq"],
    ("message/get_bounds", "after_id"): ["after_seq"],
    ("message/get_bounds", "before_id"): ["before_seq"],
    ("message/get_list", "after_id"): ["after_seq"],
    ("message/get_list", "before_id"): ["before_seq"],
    ("message/get_list", "full_row"): [name for name in MESSAGE if name != "payload"],
    ("session/get_by_ids", "message_models"): ["seqs", "ids", "created_ats"],
}
"""Columns that a file returns only if a flag is present."""


def columns_of(name: str, present: frozenset[str]) -> list[str]:
    added = (ADDED_COLUMNS.get((name, flag), []) for flag in sorted(present))
    assert name in COLUMNS, f"add the result columns of {name} to COLUMNS in this file"
    return COLUMNS[name] + list(itertools.chain(*added))


def variants(statement: sql_files.Statement) -> list[frozenset[str]]:
    """Return no name, each name, each pair of names, and all names, in turn with each order."""
    names = sorted((statement.optional | statement.flags) - statement.orders)
    chosen = [
        (),
        *itertools.combinations(names, 1),
        *itertools.combinations(names, 2),
        tuple(names),
    ]
    orders = [frozenset({order}) for order in sorted(statement.orders)] or [frozenset()]
    return sorted({order.union(some) for order in orders for some in chosen}, key=sorted)


def few_variants(statement: sql_files.Statement) -> Iterator[frozenset[str]]:
    """Yield no name, each name, all names, and each order alone.

    A combination of optional lines contains no construct that none of the lines contains alone.
    """
    names = statement.optional | statement.flags - statement.orders
    orders = sorted(statement.orders)
    first = frozenset(orders[:1])
    yield first
    yield first | names
    yield from (first | {name} for name in sorted(names))
    yield from (frozenset({order}) for order in orders[1:])


@pytest.mark.parametrize("name", NAMES)
async def test_every_variant_is_prepared_and_returns_the_columns_of_its_model(name, pool):
    statement = sql_files.load(name)
    if name in OF_CITUS and not ON_CITUS:
        await pool.execute(STUBS)
    async with pool.acquire() as connection:
        for present in variants(statement):
            values = dict.fromkeys((statement.optional & present) | statement.required, 0)
            query = statement.bind(present & statement.flags, values)
            if name.startswith("migration/"):  # DDL cannot be prepared by name
                prepared = await connection.prepare(query.text, name="")
            else:
                prepared = await connection.prepare(query.text)
            columns = [attribute.name for attribute in prepared.get_attributes()]
            assert columns == columns_of(name, present), present
            assert len(prepared.get_parameters()) == len(query.arguments)


def test_every_file_has_a_method_and_every_method_a_file():
    methods = {
        f"{folder}/{name}"
        for folder, repository in REPOSITORIES.items()
        for name, _ in inspect.getmembers(repository, inspect.iscoroutinefunction)
        if not name.startswith("_")
    }
    assert methods - {"message/copy"} == set(REPOSITORY_NAMES)  # COPY has no file


@pytest.fixture
def used(monkeypatch) -> set[tuple[str, str]]:
    """The pairs of a repository method and the file that it ran. Calls of a test add to them."""
    pairs = set[tuple[str, str]]()

    def recording(run):
        def record(self, name, /, *flags, **parameters):
            caller = sys._getframe(1).f_code.co_name
            if not caller.startswith("_"):
                pairs.add((f"{self.folder}/{caller}", f"{self.folder}/{name}"))
            return run(self, name, *flags, **parameters)

        return record

    for method in ("_rows", "_count"):
        monkeypatch.setattr(base.Repository, method, recording(getattr(base.Repository, method)))
    return pairs


async def test_each_method_runs_the_file_of_its_name(svc, used):
    for method in SERVICE_METHODS:
        tenant = await furnish(svc, str(method))
        with contextlib.suppress(AsyncSvcError):
            await method.run(svc, method.arguments(tenant))
    await svc.maintain()
    await svc.doctor()
    await svc.check()
    assert {pair for pair in used if pair[0] != pair[1]} == set()
    assert len(used) > len(SERVICE_METHODS)


@pytest.mark.parametrize("name", ["conversation/get_list", "search/match_page", "search/scan"])
def test_each_statement_of_a_list_has_each_condition_of_list_filter(name):
    time = TimeRange(from_=datetime.now(UTC), before=datetime.now(UTC))
    text = [field.name for field in dataclasses.fields(ListFilter)]
    every = dict.fromkeys(text, "x") | {"created": time, "updated": time}
    statement = sql_files.load(name)
    missing = ListFilter(**every).conditions().keys() - statement.required - statement.optional
    assert not missing, f"sql/{name}.sql lacks a condition on {sorted(missing)}"


@pytest.mark.parametrize("name", TENANT_STATEMENTS)
def test_each_table_is_bound_to_the_tenant(name):
    statement = sql_files.load(name)
    for present in few_variants(statement):
        values = dict.fromkeys((statement.optional & present) | statement.required, 0)
        (tree,) = trees.parsed(statement.bind(present & statement.flags, values).text)
        assert list(unbound(tree)) == [], sorted(present)


def unbound(tree) -> Iterator[str]:
    """Yield the tables whose tenant is neither a parameter nor the tenant of another row."""
    for insert in trees.of(ast.InsertStmt, tree):
        if "tenant_id" not in {column.name for column in insert.cols}:
            yield insert.relation.relname
    for select in trees.of(ast.SelectStmt, tree):
        yield from unbound_in(trees.tables(select.fromClause), trees.conditions(select))
    for update in trees.of(ast.UpdateStmt, tree):
        yield from unbound_in([update.relation], [update.whereClause, update.fromClause])
    for delete in trees.of(ast.DeleteStmt, tree):
        yield from unbound_in([delete.relation], [delete.whereClause, delete.usingClause])


def unbound_in(tables, conditions) -> Iterator[str]:
    bound = {
        trees.tenant_of(one)
        for one, other in trees.equalities(conditions)
        if trees.is_parameter(other) or trees.tenant_of(other)
    }
    yield from (trees.alias(table) for table in tables if trees.alias(table) not in bound)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT c.id FROM asyncsvc.conversation AS c",
        "SELECT c.id FROM asyncsvc.conversation AS c WHERE c.id = $1",
        "DELETE FROM asyncsvc.message AS m WHERE m.seq = $1",
        "UPDATE asyncsvc.message AS m SET seq = 1",
        "INSERT INTO asyncsvc.message (seq) VALUES ($1)",
        "SELECT c.id FROM asyncsvc.conversation AS c, asyncsvc.message AS m WHERE c.tenant_id = $1",
    ],
)
def test_an_unbound_table_is_detected(text):
    (tree,) = trees.parsed(text)
    assert len(list(unbound(tree))) == 1


WRITING_AND_IDEMPOTENT = {
    "api_token/record_use",
    "budget/record_crossings",
    "conversation/append_message",
    "search/index_messages",
    "search/index_titles",
    "testing/empty",
    "usage/adjust",
    "usage/record",
    "watch/renew",
}
IDEMPOTENT = [name for name in NAMES if sql_files.load(name).idempotent_if is not None]


@pytest.mark.parametrize("name", sorted({*IDEMPOTENT} - WRITING_AND_IDEMPOTENT - OF_CITUS))
async def test_a_statement_that_may_be_retried_only_reads(name, shared_dsns):
    """Or it is one of those that write and are idempotent."""
    statement = sql_files.load(name)
    connection, writing = await asyncpg.connect(shared_dsns[0]), []
    try:
        for present in few_variants(statement):
            values = dict.fromkeys((statement.optional & present) | statement.required, 0)
            text = statement.bind(present & statement.flags, values).text
            async with connection.transaction(readonly=True):
                prepared = await connection.prepare(text)
                try:
                    await prepared.fetch(*[None] * len(prepared.get_parameters()))
                except asyncpg.ReadOnlySQLTransactionError:  # a write or a row lock
                    writing.append(sorted(present))
                except asyncpg.DataError:  # a NULL that is not allowed
                    continue
    finally:
        await connection.close()
    assert writing == []


def test_reads_and_idempotent_writes_may_be_retried():
    assert {*IDEMPOTENT} > {
        *WRITING_AND_IDEMPOTENT,
        "conversation/get_list",
        "message/get_list",
        "search/newest_matches",
        "search/flush_pending_list",
        "usage/stats",
        "usage/creation_stats",
    }


def test_an_append_may_be_retried_only_with_a_key_and_a_hash():
    statement = sql_files.load("conversation/append_message")
    values = dict.fromkeys(statement.required, 0)
    key, body_hash = {"idempotency_key": "k"}, {"body_hash": b"h"}
    for more in ({}, key, body_hash, {"expected_seq": 0}):
        assert not statement.bind((), values | more).is_idempotent
    assert statement.bind((), values | key | body_hash).is_idempotent


async def test_a_new_column_does_not_affect_an_open_connection(svc, pool):
    await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
    async with pool.acquire() as connection:
        mine = svc.on(connection)
        await mine.conversations.get_list(dialog_id="d", tenant_id="t")
        async with connection.transaction():
            await connection.execute("ALTER TABLE asyncsvc.conversation ADD COLUMN later int")
            page = await mine.conversations.get_list(dialog_id="d", tenant_id="t")
    assert [item.id for item in page.items] == ["a"]


async def test_the_library_ignores_the_json_codec_of_the_caller(dsn, svc):
    connection = await asyncpg.connect(dsn)
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=lambda _: 1 / 0, decoder=lambda _: 1 / 0
    )
    mine = svc.on(connection)
    created = await mine.conversations.create(tenant_id="t", dialog_id="d", id="a", dsl={"b": [1]})
    assert created.dsl == {"b": [1]}
    await connection.close()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"name": 5}, "name"),
        ({"name": "server/clock", "present": 5}, "present"),
        ({"name": "server/clock", "present": [5]}, "present"),
    ],
)
def test_a_wrong_argument_of_sql_statement_is_invalid_input(options, field):
    with pytest.raises(InvalidInput) as caught:
        sql_statement(**options)
    assert caught.value.field == field
