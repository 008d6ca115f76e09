"""The table of hashes: its rows after concurrent calls, and verification as on Citus.

After each test the fixture of the database asserts that each token has its hash there, and each
hash a token.
"""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import pytest

import asyncsvc
from asyncsvc import AlreadyExists, BudgetExceeded, Conflict, InvalidToken, NotFound, Settings
from asyncsvc.services import credentials
from tests.support.citus import ON_CITUS, ONE_NODE, WAITING

FIRST, SECOND = (bytes([number]) * 32 for number in (1, 2))
OLD = {"token_peppers": {1: FIRST}}
NEW = {"token_peppers": {1: FIRST, 2: SECOND}}


@pytest.fixture(params=[True] if ON_CITUS else [False, True], ids=lambda citus: f"citus={citus}")
async def open_service(dsn, pool, request):
    """Return a function that opens services with these settings, and with or without `citus`."""
    if not ON_CITUS:
        await pool.execute(ONE_NODE)
    async with contextlib.AsyncExitStack() as stack:

        async def call(**settings):
            whole = Settings(citus=request.param, accept_foreign_tokens=True, **settings)
            return await stack.enter_async_context(asyncsvc.connect(dsn, settings=whole))

        yield call


async def issue(svc, **options):
    return await svc.tokens.create(tenant_id="acme", name="test", **options)


async def until_it_waits(pool):
    while not await pool.fetchval(WAITING):
        await asyncio.sleep(0.01)


async def rejected(svc, secret):
    with pytest.raises(InvalidToken):
        await svc.tokens.verify(secret)
    return not await svc.tokens.used(secret)


async def test_a_valid_secret_finds_its_token_and_is_rehashed(open_service):
    old, new = await open_service(**OLD), await open_service(**NEW)
    issued = await issue(old)
    assert await old.tokens.verify(issued.secret) == issued.token
    assert (await new.tokens.verify(issued.secret)).pepper_version == 1
    assert (await new.tokens.verify(issued.secret)).pepper_version == 2
    assert await new.tokens.used(issued.secret)
    assert await rejected(old, issued.secret)


async def test_each_other_secret_is_rejected(open_service):
    svc = await open_service()
    expired = await issue(svc, expires_at=datetime.now(UTC) - timedelta(days=1))
    revoked, deleted, rotated = [await issue(svc) for _ in range(3)]
    await svc.tokens.revoke(revoked.token.id, tenant_id="acme")
    await svc.tokens.delete_by_id(deleted.token.id, tenant_id="acme")
    successor = await svc.tokens.rotate(rotated.token.id, tenant_id="acme", overlap=timedelta(0))
    for issued in (expired, revoked, deleted, rotated):
        assert await rejected(svc, issued.secret)
    for secret in (credentials.new_secret("asv"), "malformed"):
        assert await rejected(svc, secret)
    with pytest.raises(InvalidToken):
        await svc.tokens.verify(successor.secret, kind="beta")
    assert await svc.tokens.verify(successor.secret) == successor.token


@pytest.mark.damages
async def test_a_secret_of_two_tokens_is_rejected(open_service, pool):
    old, new = await open_service(**OLD), await open_service(**NEW)
    issued = await issue(old)
    (own_hash,) = new.tokens._hashes(issued.secret)[:1]
    await pool.execute(
        "INSERT INTO asyncsvc.api_token SELECT (jsonb_populate_record(t, jsonb_build_object("
        "'id', 'twin', 'tenant_id', 'other', 'token_hash', $1::text))).*"
        " FROM asyncsvc.api_token AS t",
        f"\\x{own_hash.hex()}",
    )
    await pool.execute(
        "INSERT INTO asyncsvc.api_token_hash (token_hash, tenant_id, token_id)"
        " VALUES ($1, 'other', 'twin')",
        own_hash,
    )
    assert await rejected(new, issued.secret)


async def test_verification_reads_the_tightest_budget(open_service):
    svc = await open_service()
    issued = await issue(svc)
    assert (await svc.tokens.verify(issued.secret, budgets=True)).budget is None
    budget = {"tenant_id": "acme", "metric": "rounds"}
    await svc.budgets.set(scope="tenant", limit=5, **budget)
    verified = await svc.tokens.verify(issued.secret, budgets=True)
    assert (verified.budget.scope, verified.budget.limit) == ("tenant", 5)
    await svc.budgets.set(scope="token", subject=issued.token.id, limit=0, **budget)
    with pytest.raises(BudgetExceeded, match="token"):
        await svc.tokens.verify(issued.secret, budgets=True)


@pytest.mark.parametrize("is_deletion_first", [False, True])
async def test_a_rehash_beside_a_deletion(open_service, pool, is_deletion_first):
    issued = await issue(await open_service(**OLD))
    svc, other = await open_service(**NEW), await open_service(**NEW)
    whose = {"tenant_id": "acme"}
    async with svc.transaction() as transaction:
        if is_deletion_first:
            assert await transaction.tokens.delete_by_id(issued.token.id, **whose) == 1
            assert (await other.tokens.verify(issued.secret)).pepper_version == 1
        else:
            await transaction.tokens.verify(issued.secret)
            task = asyncio.create_task(other.tokens.delete_by_id(issued.token.id, **whose))
            await until_it_waits(pool)
    if not is_deletion_first:
        assert await task == 1
    assert await pool.fetchval("SELECT count(*) FROM asyncsvc.api_token_hash") == 0


@pytest.mark.parametrize("is_deletion_first", [False, True])
async def test_a_rotation_beside_a_deletion(open_service, pool, is_deletion_first):
    svc = await open_service()
    id = (await issue(svc)).token.id
    async with svc.transaction() as transaction:
        if is_deletion_first:
            await transaction.tokens.delete_by_id(id, tenant_id="acme")
            task = asyncio.create_task(svc.tokens.rotate(id, tenant_id="acme"))
        else:
            successor = await transaction.tokens.rotate(id, tenant_id="acme")
            task = asyncio.create_task(svc.tokens.delete_by_id(id, tenant_id="acme"))
        await until_it_waits(pool)
    if is_deletion_first:
        with pytest.raises(NotFound):
            await task
        assert await pool.fetchval("SELECT count(*) FROM asyncsvc.api_token_hash") == 0
    else:
        assert await task == 1
        assert await svc.tokens.verify(successor.secret) == successor.token


@pytest.mark.parametrize("is_committed", [False, True])
async def test_two_tenants_import_one_secret(open_service, pool, is_committed):
    svc = await open_service()
    secret = credentials.new_secret("other")
    errors = list[Exception]()
    with contextlib.suppress(ZeroDivisionError):
        async with svc.transaction() as transaction:
            await transaction.tokens.import_([{"secret": secret}], tenant_id="acme")
            task = asyncio.create_task(
                svc.tokens.import_(
                    [{"secret": secret}],
                    tenant_id="other",
                    on_rejected=lambda _, error: errors.append(error),
                )
            )
            await until_it_waits(pool)
            if not is_committed:
                raise ZeroDivisionError
    await task
    assert [type(error) for error in errors] == ([AlreadyExists] if is_committed else [])
    token = await svc.tokens.verify(secret)
    assert token.tenant_id == ("acme" if is_committed else "other")


def ignore(_position, _error):
    pass


async def test_a_deletion_of_all_tokens_beside_other_changes(open_service):
    old, new = await open_service(**OLD), await open_service(**NEW)
    secrets = [credentials.new_secret("other") for _ in range(4)]
    for _ in range(3):
        tokens = [await issue(old) for _ in range(6)]
        ids = [each.token.id for each in tokens]
        results = await asyncio.gather(
            *(new.tokens.verify(each.secret) for each in tokens),
            *(new.tokens.rotate(id, tenant_id="acme") for id in ids[:4]),
            new.tokens.delete_by_ids(ids[::-1], tenant_id="acme"),
            new.tokens.delete_by_tenant_id(tenant_id="acme"),
            issue(new),
            *(
                new.tokens.import_(
                    [{"secret": each} for each in secrets],
                    tenant_id=tenant_id,
                    on_rejected=ignore,
                )
                for tenant_id in ("acme", "other", "third")
            ),
            return_exceptions=True,
        )
        errors = {type(each) for each in results if isinstance(each, BaseException)}
        assert errors <= {InvalidToken, NotFound, Conflict}
    await new.tokens.delete_by_tenant_id(tenant_id="acme")
