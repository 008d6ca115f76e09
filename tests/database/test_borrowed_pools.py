"""With any pool of the caller, each call returns the right answer or raises an `AsyncSvcError`.

The caller's pool may have its own codecs or callbacks that fail, may belong to another event loop,
and may be closed. The stored data contain `SECRET`; no error may contain it.
"""

import asyncio
import contextlib
import json
import threading
import traceback
import uuid
from datetime import UTC, datetime

import asyncpg
import pytest

import asyncsvc
from asyncsvc import (
    AsyncSvc,
    AsyncSvcError,
    ConcurrentUse,
    DatabaseError,
    InvalidInput,
    PoolClosed,
    Settings,
    Unavailable,
)

SECRET = "hunter2"
YEAR = {"from_date": "2026-01-01", "to_date": "2026-12-31", "fill": False}
SETTINGS = Settings(retry_timeout=0.2, accept_foreign_tokens=True)


class World:
    """A tenant with a conversation and a token, and the answers of calls on a plain pool."""

    def __init__(self, dsn):
        self.dsn = dsn
        self.tenant = uuid.uuid4().hex

    async def furnish(self):
        async with self.plain() as svc:
            await svc.conversations.create(
                tenant_id=self.tenant,
                dialog_id="d",
                id="a",
                name=SECRET,
                metadata={SECRET: 1.5},
                dsl=[SECRET],
                created_at=datetime(2026, 3, 1, tzinfo=UTC),
            )
            await self.append(svc)
            issued = await svc.tokens.create(tenant_id=self.tenant, name=SECRET)
            self.secret, self.token_id = issued.secret, issued.token.id
            await svc.tokens.verify(
                self.secret
            )  # records the use, so later verifications only read
            self.answers = {name: await call(self, svc) for name, call in READS.items()}

    def plain(self):
        return asyncsvc.connect(self.dsn, settings=SETTINGS)

    def append(self, svc, id="a", key="first"):
        turn = {"messages": [{"role": "user", "content": SECRET}], "tokens": 3, "duration": 0.5}
        return svc.conversations.append_message(
            id, turn, tenant_id=self.tenant, idempotency_key=key
        )

    async def transact(self, svc):
        async with svc.transaction() as tx:
            await tx.conversations.create(tenant_id=self.tenant, dialog_id="d", id="new")
            await self.append(tx, "new", "k")
            return await tx.conversations.delete_by_id("new", tenant_id=self.tenant)

    async def import_again(self, svc):
        exported = [each async for each in svc.conversations.export(tenant_id=self.tenant)]
        return await svc.conversations.import_(exported, tenant_id=self.tenant)


READS = {
    "append": lambda world, svc: world.append(svc),  # a replay, which reads the key
    "list": lambda world, svc: svc.conversations.get_list(
        tenant_id=world.tenant, include_messages=True, total="exact"
    ),
    "list by keywords": lambda world, svc: svc.conversations.get_list(
        tenant_id=world.tenant, keywords=SECRET
    ),
    "verify": lambda world, svc: svc.tokens.verify(world.secret),
    "stats": lambda world, svc: svc.conversations.stats(
        tenant_id=world.tenant, tz="Europe/Berlin", basis="creation", **YEAR
    ),
    "usage": lambda world, svc: svc.conversations.stats(  # other calls add usage to the present
        tenant_id=world.tenant, from_date="2026-01-01", to_date="2026-10-31", interval="month"
    ),
    "search": lambda world, svc: svc.conversations.search(
        SECRET, tenant_id=world.tenant, total="exact"
    ),
    "messages": lambda world, svc: svc.conversations.messages("a", tenant_id=world.tenant),
    "import": lambda world, svc: world.import_again(svc),
    "purge": lambda world, svc: svc.conversations.purge(
        datetime(2026, 6, 1, tzinfo=UTC), tenant_id=world.tenant, by="created_at", dry_run=True
    ),
    "transaction": lambda world, svc: world.transact(svc),
}
WRITES = {
    "update": lambda world, svc: svc.conversations.update_by_id(
        "a", {"name": SECRET}, tenant_id=world.tenant
    ),
    "append without a key": lambda world, svc: world.append(svc, key=None),
    "set feedback": lambda world, svc: svc.conversations.set_feedback(
        "a", 1, 1, tenant_id=world.tenant
    ),
    "delete message": lambda world, svc: svc.conversations.delete_message(
        "a", 1, tenant_id=world.tenant
    ),
    "create token": lambda world, svc: svc.tokens.create(tenant_id=world.tenant, name="n"),
    "import tokens": lambda world, svc: svc.tokens.import_(
        [{"secret": "a-secret-of-another-system-" + world.tenant}], tenant_id=world.tenant
    ),
    "rotate": lambda world, svc: svc.tokens.rotate(world.token_id, tenant_id=world.tenant),
    "revoke all": lambda world, svc: svc.tokens.revoke_all(tenant_id=world.tenant),
    "audit": lambda world, svc: svc.tokens.audit(tenant_id=world.tenant),
    "declare zone": lambda world, svc: svc.conversations.declare_zone(
        "Asia/Tokyo", tenant_id=world.tenant
    ),
    "update token": lambda world, svc: svc.tokens.update_many_by_id(
        {world.token_id: {"name": "n"}}, tenant_id=world.tenant
    ),
    "tokens": lambda world, svc: svc.tokens.get_by_ids([world.token_id], tenant_id=world.tenant),
    "revoke family": lambda world, svc: svc.tokens.revoke_family(
        world.token_id, tenant_id=world.tenant
    ),
    "erase": lambda world, svc: svc.conversations.erase_user("u", tenant_id=world.tenant),
}
FACADE = {
    "migrate": lambda _, svc: svc.migrate(),
    "applied": lambda _, svc: svc.applied(),
    "check": lambda _, svc: svc.check(),
    "maintain": lambda _, svc: svc.maintain(),
    "doctor": lambda _, svc: svc.doctor(),
    "position": lambda _, svc: svc.position(),
    "explain": lambda _, svc: svc.explain("conversation/get_list", values={"limit": "5"}),
}


@pytest.fixture
async def world(shared_dsns):
    world = World(shared_dsns[0])
    await world.furnish()
    return world


def codec(type, encoder, decoder, format="text"):
    async def init(connection):
        await connection.set_type_codec(
            type, encoder=encoder, decoder=decoder, schema="pg_catalog", format=format
        )

    return {"init": init}


def fail(value):
    raise KeyError(f"no {value} of {SECRET}")


async def fail_on(_):
    raise KeyError(SECRET)


class OwnRecord(asyncpg.Record):
    """A record class of the caller that overrides `items` and iteration."""

    def items(self):
        return [("x", 1)]

    def __iter__(self):
        return iter("x")


class OwnDatetime(datetime):
    """A subclass of datetime, like that of pendulum."""


ANSWERING = {
    "no statement cache": {"statement_cache_size": 0},
    "session settings": {
        "server_settings": {
            "DateStyle": "SQL, DMY",
            "IntervalStyle": "sql_standard",
            "TimeZone": "Asia/Kolkata",
            "bytea_output": "escape",
            "default_transaction_isolation": "serializable",
            "extra_float_digits": "-15",
            "search_path": "",
            "standard_conforming_strings": "off",
            "transform_null_equals": "on",
        }
    },
    "own record class": {"record_class": OwnRecord},
    "reset that fails": {"reset": fail_on},
    "jsonb as objects": codec("jsonb", json.dumps, json.loads),
    "json as objects": codec("json", json.dumps, json.loads),
    "numeric as float": codec("numeric", str, float),
    "numeric as text": codec("numeric", str, str),
    "bigint as int": codec("int8", str, int),
    "bigint as text": codec("int8", str, str),
    "integer as text": codec("int4", str, str),
    "float as text": codec("float8", repr, str),
    "boolean as text": codec("bool", str, str),
    "times as text": codec("timestamptz", lambda it: it.isoformat(), str),
    "times of an own class": codec(
        "timestamptz", lambda it: it.isoformat(), lambda it: OwnDatetime.fromisoformat(it + ":00")
    ),
    "uuid as text": codec("uuid", str, str),
    "interval as text": codec("interval", lambda it: f"{it.total_seconds()} s", str),
    "bytea as text": codec("bytea", lambda it: "\\x" + it.hex(), str),
}
FAILING = {
    "text as bytes": codec("text", str.encode, bytes, "binary"),
    "naive times": codec(
        "timestamptz", lambda it: it.isoformat(), lambda it: datetime.fromisoformat(it[:19])
    ),
    "times as dates": codec(
        "timestamptz", lambda it: it.isoformat(), lambda it: datetime.fromisoformat(it[:10]).date()
    ),
    "times as seconds": codec(
        "timestamptz",
        lambda it: it.isoformat(),
        lambda it: datetime.fromisoformat(it[:19] + "+00:00").timestamp(),
    ),
    "times as microseconds since 2000": codec(
        "timestamptz",
        lambda it: ((it - datetime(2000, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000,),
        lambda it: it[0],
        "tuple",
    ),
    "bytea as other text": codec("bytea", lambda it: "\\x" + it.hex(), lambda it: it[2:]),
    "bytea as list": codec("bytea", lambda it: "\\x" + it.hex(), list),
    "booleans as bytes": codec("bool", lambda it: bytes([it]), bytes, "binary"),
    "text as objects": codec("text", str, lambda it: {"text": it}),
    "text as numbers": codec("text", str, len),
    "bigint as list": codec("int8", str, list),
    "integer as fractions": codec("int4", str, lambda it: float(it) + 0.5),
    **{f"{type} that cannot be decoded": codec(type, str, fail) for type in ("text", "int8")},
    **{
        f"{type} that cannot be encoded": codec(type, fail, str)
        for type in ("text", "int4", "int8", "bool", "timestamptz", "bytea", "interval")
    },
}


async def outcome(world, name, call, svc):
    """Run a call and return its answer or error. Assert that an error does not contain `SECRET`."""
    try:
        async with asyncio.timeout(30):
            answer = await call(world, svc)
    except AsyncSvcError as error:
        answer = error
    if isinstance(answer, AsyncSvcError):
        text = "".join(traceback.format_exception(answer))
        assert SECRET not in str(answer), (name, text)
        assert "\n" not in str(answer), (name, text)
    elif name in world.answers:
        assert answer == world.answers[name], name
    return answer


@pytest.mark.parametrize("kind", ANSWERING)
async def test_a_borrowed_pool_with_unambiguous_values_gives_every_answer(world, kind):
    async with asyncpg.create_pool(world.dsn, min_size=1, max_size=3, **ANSWERING[kind]) as pool:
        svc = AsyncSvc(pool, settings=SETTINGS)
        for name, call in (READS | FACADE | WRITES).items():
            result = await outcome(world, name, call, svc)
            assert not isinstance(result, Exception), (name, result)
            if name == "doctor":
                assert not [each for each in result if each.observed.startswith("check failed")]


@pytest.mark.parametrize("kind", FAILING)
async def test_a_borrowed_pool_with_other_values_fails_with_an_error_of_the_library(world, kind):
    async with asyncpg.create_pool(world.dsn, min_size=1, max_size=3, **FAILING[kind]) as pool:
        svc = AsyncSvc(pool, settings=SETTINGS)
        errors = []
        for name, call in (READS | FACADE | WRITES).items():
            if (
                name == "doctor"
            ):  # it raises no error, and takes as long as all other calls together
                continue
            result = await outcome(world, name, call, svc)
            if isinstance(result, Exception):
                assert isinstance(result, DatabaseError | InvalidInput), (name, result)
                errors.append(result)
        # `explain` passes values unchanged, so the server rejects the output of some codecs.
        ours = [e for e in errors if getattr(e, "sqlstate", None) in {"22000", "42804"}]
        assert ours
        assert all("codec" in str(error) for error in ours)


async def test_a_primary_is_recognised_despite_codecs_of_the_borrowed_pool(world):
    async with (
        asyncpg.create_pool(world.dsn, min_size=1, max_size=2) as primary,
        asyncpg.create_pool(
            world.dsn, min_size=1, max_size=1, **ANSWERING["boolean as text"]
        ) as replica,
    ):
        statements = []
        settings = Settings(on_query=lambda name, *_: statements.append(name))
        svc = AsyncSvc(primary, replicas=[replica], settings=settings)
        assert await READS["list"](world, svc) == world.answers["list"]
        assert statements.count("replica/replayed") == 1
        assert statements[-2:] == ["conversation/get_list", "session/get_by_ids"]


# ------------------------------------------------------------------------ pools that cannot be used


async def closed(dsn):
    pool = await asyncpg.create_pool(dsn, min_size=1)
    await pool.close()
    return pool


async def terminated(dsn):
    pool = await asyncpg.create_pool(dsn, min_size=1)
    pool.terminate()
    return pool


async def not_opened(dsn):
    return asyncpg.create_pool(dsn)


async def setup_fails(dsn):
    return await asyncpg.create_pool(dsn, min_size=1, setup=fail_on)


async def init_fails(dsn):
    return await asyncpg.create_pool(dsn, min_size=0, init=fail_on)


async def misused_in_init(dsn):
    async def init(connection):
        await connection.set_type_codec("_text", encoder=str, decoder=str, schema="pg_catalog")

    return await asyncpg.create_pool(dsn, min_size=0, init=init)


async def unreadable_dsn(_):
    return await asyncpg.create_pool(f"mysql://u:{SECRET}@h/d", min_size=0)


async def of_a_closed_loop(dsn):
    # The pool opens no connection, since a connection cannot be closed after the end of its loop.
    return await asyncio.to_thread(asyncio.run, open_pool(dsn, min_size=0))


async def open_pool(dsn, min_size):
    return await asyncpg.create_pool(dsn, min_size=min_size, max_size=1)


UNUSABLE = {
    closed: PoolClosed,
    terminated: PoolClosed,
    not_opened: PoolClosed,
    setup_fails: Unavailable,
    init_fails: Unavailable,
    misused_in_init: Unavailable,
    unreadable_dsn: Unavailable,
    of_a_closed_loop: ConcurrentUse,
}


@pytest.mark.parametrize("create", UNUSABLE, ids=lambda create: create.__name__)
async def test_a_call_on_an_unusable_pool_raises_the_matching_error(world, create):
    pool = await create(world.dsn)
    svc = AsyncSvc(pool, settings=SETTINGS)
    for name, call in (READS | FACADE | WRITES).items():
        result = await outcome(world, name, call, svc)
        if name == "doctor":
            assert all(each.level == "problem" for each in result)
        else:
            assert isinstance(result, UNUSABLE[create]), (name, result)
    with contextlib.suppress(asyncpg.InterfaceError):
        pool.terminate()


@contextlib.contextmanager
def other_loop():
    """Run an event loop in a thread; yield a function that awaits a coroutine there."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield lambda work: asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def test_a_pool_or_connection_of_another_loop_is_never_used(world):
    with other_loop() as run:
        pool = await run(open_pool(world.dsn, min_size=1))
        connection = await run(asyncpg.connect(world.dsn))
        borrowed = AsyncSvc(pool, settings=SETTINGS)
        for svc in (borrowed, borrowed.on(connection)):
            for name, call in (READS | WRITES).items():
                result = await outcome(world, name, call, svc)
                assert isinstance(result, ConcurrentUse), (name, result)
                assert "event loop" in str(result)
        # The loop of the pool can still use the pool.
        assert await run(READS["list"](world, borrowed)) == world.answers["list"]
        await run(connection.close())
        await run(pool.close())


async def test_services_of_another_loop_cannot_be_closed_here(world):
    with other_loop() as run:
        svc = await run(opened_services(world.dsn))
        with pytest.raises(ConcurrentUse, match="event loop"):
            await svc.close()
        await run(svc._executor._pool.close())


async def opened_services(dsn):
    return await asyncsvc.connect(dsn)


# ---------------------------------------------------------------------- borrowed connections


async def closed_connection(pool):
    connection = await pool.acquire()
    await connection.close()
    return connection


async def terminated_connection(pool):
    connection = await pool.acquire()
    connection.terminate()
    return connection


async def released_connection(pool):
    connection = await pool.acquire()
    await pool.release(connection)
    return connection


async def failed_transaction(pool):
    connection = await pool.acquire()
    await connection.transaction().start()
    with contextlib.suppress(asyncpg.PostgresError):
        await connection.fetch("SELECT 1/0")
    return connection


@pytest.mark.parametrize(
    ("create", "expected"),
    [
        (closed_connection, Unavailable),
        (terminated_connection, Unavailable),
        (released_connection, Unavailable),
        (failed_transaction, DatabaseError),
    ],
    ids=lambda each: each.__name__,
)
@pytest.mark.parametrize("row_level_security", [False, True])
async def test_a_call_on_an_unusable_connection_raises_the_matching_error(
    world, create, expected, row_level_security
):
    settings = Settings(retry_timeout=0.2, row_level_security=row_level_security)
    async with asyncpg.create_pool(world.dsn, min_size=1, max_size=1) as pool:
        connection = await create(pool)
        svc = AsyncSvc(pool, settings=settings).on(connection)
        for name, call in READS.items():
            result = await outcome(world, name, call, svc)
            assert isinstance(result, expected), (name, result)
            if expected is DatabaseError:
                assert result.sqlstate == "25P02"
        await pool.release(connection)


async def test_a_transaction_begun_by_hand_allows_single_statements_only(world):
    async with (
        asyncpg.create_pool(world.dsn, min_size=1, max_size=1) as pool,
        pool.acquire() as connection,
    ):
        await connection.execute("BEGIN")
        svc = AsyncSvc(pool).on(connection)
        for name, call in READS.items():
            result = await outcome(world, name, call, svc)
            if name in {"transaction", "import"}:
                assert isinstance(result, ConcurrentUse)
                assert "begun by hand" in str(result)
            else:
                assert result == world.answers[name], name
        await connection.execute("ROLLBACK")
