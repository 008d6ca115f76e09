"""Each public method makes its stated number of round trips, counted on the wire.

The pool is the library's own and warm: its statements are prepared.
"""

import contextlib

import asyncpg
import pytest

import asyncsvc
from asyncsvc import AsyncSvc, AsyncSvcError, Settings
from asyncsvc.services.credentials import new_secret
from tests.support.registry import METHODS, furnish
from tests.support.registry.counting import Case, Count, valid
from tests.support.registry.examples import CONVERSATION, TOKEN_RECORD
from tests.support.wire import Wire

CASES = [
    pytest.param(method, number, case, id=f"{method}-{index}")
    for method in METHODS
    for index, (number, case) in enumerate(method.cases)
]


@pytest.mark.parametrize(("method", "number", "case"), CASES)
async def test_a_method_makes_its_stated_number_of_round_trips(
    method, number, case, shared_dsns, database_factory, numbers
):
    # A method of all tenants would also process the rows that other tests have left.
    dsn = await database_factory() if method.cost == "database" else shared_dsns[0]
    async with (
        Wire(dsn) as wire,
        asyncsvc.connect(wire.dsn, max_size=1) as over_it,
        asyncsvc.connect(dsn) as svc,
    ):
        for _ in ("warm", "counted"):
            tenant = await furnish(svc, f"t{next(numbers)}")
            wire.statements.clear()
            counted = await round_trips(Count(method, tenant, over_it, svc, wire), case)
    assert counted == number, "\n".join(text.split("\n")[0] for text in wire.statements)


@pytest.mark.parametrize(
    "method", [each for each in METHODS if each.cost in {"nothing", "row", "page"}], ids=str
)
async def test_the_number_does_not_grow_with_the_rows_of_the_tenant(method, shared_dsns, numbers):
    """This applies to methods whose cost is `nothing`, `row` or `page`."""
    dsn, _ = shared_dsns
    async with (
        Wire(dsn) as wire,
        asyncsvc.connect(wire.dsn, max_size=1) as over_it,
        asyncsvc.connect(dsn) as svc,
    ):
        counts = []
        for more in (0, 0, 100):  # the first call prepares the statements
            tenant = await furnish(svc, f"t{next(numbers)}")
            await add_rows(svc, tenant.id, more)
            count = Count(method, tenant, over_it, svc, wire)
            counts.append(await round_trips(count, valid()))
    assert counts[1] == counts[2]


async def add_rows(svc: AsyncSvc, tenant_id: str, number: int) -> None:
    """Add conversations, messages and tokens like those of the valid calls."""
    if not number:
        return
    await svc.conversations.create_many(
        [CONVERSATION | {"id": f"more {each}"} for each in range(number)], tenant_id=tenant_id
    )
    turn = {"messages": [{"role": "user", "content": "hello"}] * number}
    await svc.conversations.append_message("more 0", turn, tenant_id=tenant_id)
    records = [TOKEN_RECORD | {"secret": new_secret("asv")} for _ in range(number)]
    await svc.tokens.import_(records, tenant_id=tenant_id)


async def round_trips(count: Count, case: Case) -> int:
    act = await case(count)
    begun = count.wire.round_trips
    with contextlib.suppress(AsyncSvcError):
        await act()
    count.wire.before_statement = None
    return (count.ended_at or count.wire.round_trips) - begun


# ------------------------------------------------------------------- additional round trips


@contextlib.asynccontextmanager
async def counting(dsn: str, **settings: object):
    """Yield the library on a wire, and a function that counts the round trips of a warm call."""
    async with (
        Wire(dsn) as wire,
        asyncsvc.connect(wire.dsn, settings=Settings(**settings), max_size=1) as svc,
    ):

        async def count(act):
            await act()
            begun = wire.round_trips
            await act()
            return wire.round_trips - begun

        yield wire, svc, count


async def list_of(svc):
    return await svc.conversations.get_list(dialog_id="d", tenant_id="acme")


async def test_a_transaction_adds_2_round_trips_and_so_does_a_savepoint(shared_dsns):
    async with counting(shared_dsns[0]) as (_, svc, count):

        async def nested():
            async with svc.transaction() as tx:
                await list_of(tx)
                async with tx.transaction() as inner:
                    await list_of(inner)

        assert await count(nested) == 2 + 1 + 2 + 1


async def test_a_borrowed_pool_adds_the_reset_of_its_connection(shared_dsns):
    async with (
        counting(shared_dsns[0]) as (wire, _, count),
        asyncpg.create_pool(wire.dsn, min_size=1, max_size=1) as pool,
    ):
        assert await count(lambda: list_of(AsyncSvc(pool))) == 1 + 1


async def test_row_level_security_adds_3_round_trips(shared_dsns):
    async with counting(shared_dsns[0], row_level_security=True) as (_, svc, count):
        assert await count(lambda: list_of(svc)) == 1 + 3
        secret = (await svc.tokens.create(tenant_id="acme", name="n")).secret
        assert await count(lambda: svc.tokens.verify(secret)) == 1 + 3


async def test_without_prepared_statements_each_statement_adds_the_parsing(shared_dsns):
    async with counting(shared_dsns[0], pgbouncer="transaction") as (_, svc, count):
        assert await count(lambda: list_of(svc)) == 1 + 1
