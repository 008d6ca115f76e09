"""Row-level security: for a restricted role PostgreSQL itself separates the tenants."""

import asyncio
import contextlib

import asyncpg
import pytest

import asyncsvc
from asyncsvc import AsyncSvc, DatabaseError, InvalidToken, MigrationError, Settings
from asyncsvc.database.sql_files import Query
from tests.support.cancelling import at_each_await, cancelled_at
from tests.support.registry import SERVICE_METHODS, comparable, furnish

TURN = {"messages": [{"role": "user", "content": "hello"}]}
RLS = Settings(row_level_security=True)
EVERY_ROW = "SELECT tenant_id, id FROM asyncsvc.conversation ORDER BY 1, 2"


@pytest.fixture
async def role(dsn, svc, pool):
    """The role of an application. It may read and write every table, and owns none."""
    async with asyncsvc.connect(dsn, settings=RLS) as owner:
        await owner.migrate()
    name = f"{dsn.rpartition('/')[2]}_app"
    await pool.execute(f'CREATE ROLE "{name}"')
    await pool.execute(f'GRANT USAGE ON SCHEMA asyncsvc TO "{name}"')
    await pool.execute(
        f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA asyncsvc TO "{name}"'
    )
    yield name
    await pool.execute(f'DROP OWNED BY "{name}"')
    await pool.execute(f'DROP ROLE "{name}"')


@pytest.fixture
async def restricted(dsn, role):
    """The services of the restricted role, on one connection that all tenants share."""
    async with asyncsvc.connect(f"{dsn}?role={role}", settings=RLS, max_size=1) as services:
        yield services


@pytest.fixture
async def raw(dsn, role):
    """A connection of the restricted role, for statements without a tenant."""
    connection = await asyncpg.connect(dsn, server_settings={"role": role})
    yield connection
    await connection.close()


async def create(svc, tenant_id, id="a"):
    await svc.conversations.create(tenant_id=tenant_id, dialog_id="d", id=id)
    await svc.conversations.append_message(id, TURN, tenant_id=tenant_id, idempotency_key="k")


async def set_tenant(connection, tenant_id):
    await connection.execute("SELECT set_config('asyncsvc.tenant_id', $1, true)", tenant_id)


@pytest.mark.parametrize("method", SERVICE_METHODS, ids=str)
async def test_every_method_works_as_a_restricted_role(method, restricted, svc):
    """The result equals that of the owner of the tables, in an equal tenant."""
    mine, other = await furnish(restricted, "mine"), await furnish(svc, "other")
    if method.error_as_restricted_role is not None:
        with pytest.raises(DatabaseError, match=method.error_as_restricted_role):
            await method.run(restricted, method.arguments(mine))
        return
    result = comparable(await method.run(restricted, method.arguments(mine)))
    expected = comparable(await method.run(svc, method.arguments(other)))
    assert result == expected.replace("tenant_id='other'", "tenant_id='mine'")


async def test_a_restricted_role_and_the_owner_get_the_same_results(svc, restricted):
    for tenant_id in ("acme", "other"):
        await create(restricted, tenant_id)
    for services in (svc, restricted):
        for tenant_id in ("acme", "other"):
            assert (
                await services.conversations.get_list(dialog_id="d", tenant_id=tenant_id)
            ).total == 1
            (message,) = await services.conversations.messages("a", tenant_id=tenant_id)
            assert message.content == "hello"
            (month,) = await services.conversations.stats(
                tenant_id=tenant_id,
                from_date="2000-01-01",
                to_date="2099-01-01",
                interval="month",
                fill=False,
            )
            assert (month.conversations, month.rounds) == (1, 1)
        assert (await services.conversations.get_list(dialog_id="d", tenant_id="third")).total == 0
    again = await restricted.conversations.append_message(
        "a", TURN, tenant_id="acme", idempotency_key="k"
    )
    assert (again.last_seq, again.replayed) == (1, True)
    for tenant_id in ("acme", "third"):
        first = await restricted.conversations.append_message(
            "first", TURN, tenant_id=tenant_id, create={"dialog_id": "d"}
        )
        assert first.first_seq == 1


async def test_without_the_setting_a_restricted_role_sees_and_writes_nothing(dsn, role, svc, raw):
    await create(svc, "acme")
    for table in ("conversation", "message", "append_key", "usage_ledger"):
        assert await raw.fetchval(f"SELECT count(*) FROM asyncsvc.{table}") == 0
    async with asyncsvc.connect(f"{dsn}?role={role}") as forgetful:
        assert (await forgetful.conversations.get_list(dialog_id="d", tenant_id="acme")).total == 0
        with pytest.raises(DatabaseError) as caught:
            await create(forgetful, "acme", "b")
        assert caught.value.sqlstate == "42501"
        issued = await svc.tokens.create(tenant_id="acme", name="t")
        with pytest.raises(InvalidToken):
            await forgetful.tokens.verify(issued.secret)


async def test_a_statement_without_a_tenant_condition_sees_one_tenant_only(svc, restricted):
    await create(svc, "acme")
    await create(svc, "other")
    everything = Query("test/forgotten", EVERY_ROW, (), {"tenant_id": "acme"})
    rows = await restricted._executor.fetch(everything)
    assert [tuple(row) for row in rows] == [("acme", "a")]
    assert len(await svc._executor.fetch(everything)) == 2  # the owner is unaffected


async def test_a_restricted_role_cannot_write_rows_of_another_tenant(svc, raw):
    await create(svc, "other")
    async with raw.transaction():
        await set_tenant(raw, "acme")
        assert await raw.execute("UPDATE asyncsvc.conversation SET name = 'x'") == "UPDATE 0"
        assert await raw.execute("DELETE FROM asyncsvc.message") == "DELETE 0"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with raw.transaction():
                await raw.execute(
                    "INSERT INTO asyncsvc.conversation (tenant_id, id, dialog_id, created_at,"
                    " updated_at) VALUES ('other', 'b', 'd', now(), now())"
                )
    assert (await svc.conversations.get_by_id("a", tenant_id="other")).name is None


async def test_a_restricted_role_finds_a_token_by_its_secret(svc, restricted, raw):
    mine = await restricted.tokens.create(tenant_id="acme", name="mine")
    await restricted.tokens.create(tenant_id="other", name="theirs")
    assert (await restricted.tokens.verify(mine.secret)).tenant_id == "acme"
    assert (await restricted.tokens.verify(mine.secret)).last_used_at is not None
    assert (await restricted.tokens.verify(mine.secret, record_use=False)).name == "mine"
    assert await restricted.tokens.used(mine.secret)
    assert await raw.fetchval("SELECT count(*) FROM asyncsvc.api_token") == 0
    async with raw.transaction():
        await set_tenant(raw, "acme")
        assert await raw.fetchval("SELECT array_agg(name) FROM asyncsvc.api_token") == ["mine"]
        assert await raw.fetchval("SELECT count(*) FROM asyncsvc.token_audit") == 1


async def test_a_restricted_role_verifies_budgets_in_a_second_statement(dsn, role, restricted, raw):
    issued = await restricted.tokens.create(tenant_id="acme", name="mine")
    other = await restricted.tokens.create(tenant_id="other", name="theirs")
    for token in (issued.token, other.token):
        await restricted.budgets.set(
            tenant_id=token.tenant_id, scope="token", subject=token.id, metric="rounds", limit=1
        )
    statements: list[str] = []
    counting = Settings(row_level_security=True, on_query=lambda name, *_: statements.append(name))
    async with asyncsvc.connect(f"{dsn}?role={role}", settings=counting) as counted:
        statements.clear()
        verified = await counted.tokens.verify(
            issued.secret, budgets=True, user_id="ann", record_use=False
        )
        assert [each for each in statements if each.startswith(("api_token/", "budget/"))] == [
            "api_token/verify", "budget/get_status",
        ]  # fmt: skip
    assert (verified.budget.used, verified.budget.limit) == (0, 1)
    await create(restricted, "acme")
    turn = {"messages": [{"role": "user", "content": "x"}], "token_id": issued.token.id}
    await restricted.conversations.append_message("a", turn, tenant_id="acme")
    with pytest.raises(asyncsvc.BudgetExceeded):
        await restricted.tokens.verify(issued.secret, budgets=True)
    events = (await restricted.budgets.audit(tenant_id="acme")).items
    assert [event.threshold for event in events] == [100, 80, 50, None]
    assert (await restricted.budgets.audit(tenant_id="other")).items[0].action == "set_budget"
    assert await raw.fetchval("SELECT count(*) FROM asyncsvc.budget") == 0


async def test_a_restricted_role_rehashes_a_token_with_a_new_pepper(dsn, role, restricted):
    issued = await restricted.tokens.create(tenant_id="acme", name="t")
    settings = Settings(
        row_level_security=True, token_peppers={1: b"p" * 32}, accept_unpeppered_tokens=True
    )
    async with asyncsvc.connect(f"{dsn}?role={role}", settings=settings) as peppered:
        assert (await peppered.tokens.verify(issued.secret)).pepper_version == 0
        assert (await peppered.tokens.verify(issued.secret)).pepper_version == 1


async def test_an_imported_secret_of_another_tenant_is_rejected(svc, restricted):
    issued = await svc.tokens.create(tenant_id="other", name="t")
    rejected = []
    report = await restricted.tokens.import_(
        [{"secret": issued.secret.get_secret_value()}],
        tenant_id="acme",
        on_rejected=lambda _, error: rejected.append(type(error)),
    )
    assert (report.tokens, rejected) == (0, [asyncsvc.AlreadyExists])


TENANT_SETTINGS = """
    SELECT array_remove(ARRAY[current_setting('asyncsvc.tenant_id', true),
                              current_setting('asyncsvc.token_hashes', true)], '') AS settings
"""


async def tenant_settings(connection):
    """Return the settings of the session or transaction that are not empty."""
    return [value for value in await connection.fetchval(TENANT_SETTINGS) if value is not None]


async def test_calls_leave_no_tenant_in_a_session(restricted):
    issued = await restricted.tokens.create(tenant_id="acme", name="t")
    await restricted.tokens.verify(issued.secret)
    await create(restricted, "acme")
    assert await tenant_settings(restricted._executor._pool) == []
    with contextlib.suppress(ZeroDivisionError):
        async with restricted.transaction() as tx:
            await create(tx, "acme", "b")
            await tx.tokens.verify(issued.secret)
            raise ZeroDivisionError
    assert await tenant_settings(restricted._executor._pool) == []

    async def trial(at, moment):
        outcome = await cancelled_at(restricted.tokens.verify(issued.secret), at, moment)
        assert await tenant_settings(restricted._executor._pool) == []
        return outcome

    assert min((await at_each_await(trial)).values()) >= 5
    assert (await restricted.conversations.get_list(dialog_id="d", tenant_id="other")).total == 0


async def test_a_cancelled_call_leaves_no_tenant_in_the_callers_transaction(dsn, role, restricted):
    await create(restricted, "acme")
    async with asyncpg.create_pool(dsn, min_size=0, server_settings={"role": role}) as pool:

        async def trial(at, moment):
            async with pool.acquire() as connection:
                transaction = connection.transaction()
                await transaction.start()
                mine = restricted.on(connection)
                outcome = await cancelled_at(
                    mine.conversations.get_list(dialog_id="d", tenant_id="acme"), at, moment
                )
                if not connection.is_closed():
                    with contextlib.suppress(asyncpg.InFailedSQLTransactionError):
                        assert await tenant_settings(connection) == []
                        assert await connection.fetch(EVERY_ROW) == []
                    await transaction.rollback()
            return outcome

        assert min((await at_each_await(trial)).values()) >= 3


async def test_a_value_that_cannot_be_encoded_leaves_no_tenant_in_the_transaction(restricted, raw):
    wrong = Query("test/wrong", "SELECT $1::int", ("x",), {"tenant_id": "acme"})
    async with raw.transaction():
        with pytest.raises(DatabaseError):
            await restricted.on(raw)._executor.fetch(wrong)
        assert await tenant_settings(raw) == []


async def test_the_hash_of_a_token_gives_access_to_its_row_alone(svc, raw, pool):
    theirs = await svc.tokens.create(tenant_id="other", name="theirs")
    hashed = await pool.fetchval("SELECT token_hash FROM asyncsvc.api_token_hash")
    async with raw.transaction():
        await set_tenant(raw, "acme")
        await raw.execute(
            "SELECT set_config('asyncsvc.token_hashes', $1, true)", f"\\x{hashed.hex()}"
        )
        for table in ("api_token", "api_token_hash"):
            assert await raw.fetchval(f"SELECT count(*) FROM asyncsvc.{table}") == 1
            assert await raw.execute(f"DELETE FROM asyncsvc.{table}") == "DELETE 0"
        assert (
            await raw.execute("UPDATE asyncsvc.api_token_hash SET tenant_id = 'acme'") == "UPDATE 0"
        )
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with raw.transaction():
                await raw.execute(
                    "INSERT INTO asyncsvc.api_token SELECT (jsonb_populate_record(t,"
                    ' \'{"id": "forged"}\')).* FROM asyncsvc.api_token AS t'
                )
    assert (await svc.tokens.verify(theirs.secret)).tenant_id == "other"


async def test_one_transaction_may_serve_two_tenants(svc, restricted):
    async with restricted.transaction() as tx:
        await create(tx, "acme")
        async with tx.transaction() as inner:
            await create(inner, "other")
        assert (await tx.conversations.get_list(dialog_id="d", tenant_id="acme")).total == 1
        assert (await tx.conversations.get_list(dialog_id="d", tenant_id="other")).total == 1
    assert (await svc.conversations.get_list(dialog_id="d", tenant_id="other")).total == 1


async def test_calls_leave_no_tenant_in_the_callers_transaction(restricted, raw):
    mine = restricted.on(raw)
    await create(mine, "acme")  # the library opens a transaction for each statement
    async with raw.transaction():
        assert (await mine.conversations.get_list(dialog_id="d", tenant_id="acme")).total == 1
        assert await raw.fetch(EVERY_ROW) == []
        async with mine.transaction() as inner:
            await create(inner, "acme", "b")
        assert await raw.fetch(EVERY_ROW) == []
    assert await raw.fetch(EVERY_ROW) == []
    assert (await restricted.conversations.get_list(dialog_id="d", tenant_id="acme")).total == 2


async def test_every_table_with_a_tenant_has_a_policy(pool, role):
    unprotected = await pool.fetch(
        "SELECT c.relname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid"
        " WHERE c.relnamespace = 'asyncsvc'::regnamespace AND c.relkind = 'r'"
        "   AND a.attname = 'tenant_id' AND (NOT c.relrowsecurity OR NOT EXISTS ("
        "       SELECT FROM pg_policy AS p WHERE p.polrelid = c.oid))"
    )
    assert unprotected == []


async def test_migrate_with_the_setting_enables_row_level_security_permanently(dsn, svc, pool):
    enabled = "SELECT count(*) FROM pg_class WHERE relrowsecurity"
    await svc.migrate()
    assert await pool.fetchval(enabled) == 0
    async with asyncsvc.connect(dsn, settings=RLS) as owner:
        await asyncio.gather(*(owner.migrate() for _ in range(4)))
        assert await owner.pending() == []
    assert await pool.fetchval(enabled) == 20
    await svc.migrate()
    assert await pool.fetchval(enabled) == 20


async def test_maintenance_as_a_restricted_role_is_rejected(dsn, role, restricted):
    async with asyncsvc.connect(f"{dsn}?role={role}") as forgetful:
        for services in (restricted, forgetful):
            with pytest.raises(DatabaseError, match="as the owner") as caught:
                await services.maintain()
            assert caught.value.sqlstate == "42501"


async def test_the_backlog_is_rejected_for_a_restricted_role(dsn, role, restricted):
    async with asyncsvc.connect(f"{dsn}?role={role}") as forgetful:
        for services in (restricted, forgetful):
            with pytest.raises(DatabaseError, match="as the owner") as caught:
                await services.backlog()
            assert caught.value.sqlstate == "42501"


async def test_the_owner_can_maintain_and_import_with_the_setting(dsn, role):
    async with asyncsvc.connect(dsn, settings=RLS) as owner:
        record = {"id": "r", "dialog_id": "d", "messages": TURN["messages"]}
        assert (await owner.conversations.import_([record], tenant_id="acme")).messages == 1
        assert (await owner.maintain()).messages == 1
        chat = await owner.conversations.create(tenant_id="acme", dialog_id="d")
        assert (await owner.maintain()).ledger_rows == 1
        assert await owner.conversations.delete_by_id(chat.id, tenant_id="acme")


async def test_check_raises_if_row_level_security_does_not_restrict_the_role(dsn, svc, restricted):
    await restricted.check()
    await svc.check()
    async with asyncsvc.connect(dsn, settings=RLS) as owner:
        with pytest.raises(MigrationError, match="row-level security does not restrict this role"):
            await owner.check()


async def test_the_doctor_reports_a_role_that_does_not_match_the_setting(
    dsn, role, svc, restricted
):
    async def examined(services):
        (finding,) = [each for each in await services.doctor() if each.check == "row security"]
        return finding

    assert (await examined(svc)).level == "ok"
    assert (await examined(restricted)).level == "ok"
    async with asyncsvc.connect(dsn, settings=RLS) as owner:
        assert "all tenants" in (await examined(owner)).observed
    async with asyncsvc.connect(f"{dsn}?role={role}") as forgetful:
        assert "sees no rows" in (await examined(forgetful)).observed


async def test_row_level_security_works_through_a_pooler(pooler_setting, pool, role):
    dsns, setting = pooler_setting
    settings = Settings(row_level_security=True, pgbouncer=setting)
    await pool.execute(f'ALTER ROLE CURRENT_USER IN DATABASE "{role[:-4]}" SET role = "{role}"')
    try:
        async with asyncsvc.connect(dsns["transaction"], settings=settings) as svc:
            await svc.check()
            tenants = [f"t{number}" for number in range(20)]
            await asyncio.gather(*(create(svc, tenant_id) for tenant_id in tenants))
            pages = [
                svc.conversations.get_list(dialog_id="d", tenant_id=tenant_id)
                for tenant_id in tenants
            ]
            assert [page.total for page in await asyncio.gather(*pages)] == [1] * 20
    finally:
        await pool.execute(f'ALTER ROLE CURRENT_USER IN DATABASE "{role[:-4]}" RESET role')


async def test_a_borrowed_pool_is_restricted_too(dsn, role):
    async with asyncpg.create_pool(dsn, min_size=0, server_settings={"role": role}) as pool:
        services = AsyncSvc(pool, settings=RLS)
        await create(services, "acme")
        assert (await services.conversations.get_list(dialog_id="d", tenant_id="acme")).total == 1
        assert await pool.fetch(EVERY_ROW) == []
