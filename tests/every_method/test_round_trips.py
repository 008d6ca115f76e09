"""Each public method makes its stated number of round trips, counted on the wire.

The pool is the library's own and warm: its statements are prepared.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg
import pytest

import asyncsvc
from asyncsvc import (
    API4ConversationService,
    APITokenService,
    AsyncSvc,
    AsyncSvcError,
    Settings,
)
from tests.support.calls import METHODS, RECORD, TURN, arguments, call, furnish, method_name
from tests.support.wire import Wire


@dataclass
class World:
    """Where a case happens: a tenant of its own, seen over the wire and past it."""

    svc: AsyncSvc
    past_it: AsyncSvc
    wire: Wire
    tenant: str
    made: dict[type, dict[str, object]]
    counted: int | None = None
    """Where the count ended, if before the call did."""

    def before(self, text: str, act: Callable[[], Awaitable[object]], *, first: int = 1) -> None:
        """Have something else happen before each statement with this text, from the n-th on."""
        seen = 0

        async def watch(statement: str) -> None:
            nonlocal seen
            if text in statement:
                seen += 1
                if seen >= first:
                    await act()

        self.wire.before_statement = watch


Case = Callable[[World], Awaitable[Callable[[], Awaitable[object]]]]
"""Prepares what it needs, uncounted, and returns the call that is counted."""


# ------------------------------------------------------------------ calls


def by_the_table(service: type, method: str, **others: object) -> Case:
    async def case(world):
        given = arguments(service, method, world.tenant, world.made[service]) | others
        return lambda: call(world.svc, service, method, **given)

    return case


def append(*, repeated: bool = False, **options: object) -> Case:
    async def case(world):
        given = {"id": "a", "turn": TURN, "tenant_id": world.tenant} | options
        if repeated:
            await world.svc.conversations.append_message(**given)
        return lambda: world.svc.conversations.append_message(**given)

    return case


async def append_in_a_race(world):
    """It comes and goes: away when it is appended to, there when that is to be explained."""
    at = {"tenant_id": world.tenant}

    async def watch(text):
        if "/append_message " in text:
            await world.past_it.conversations.delete_by_id("a", **at)
        elif "/explain_append " in text:
            await world.past_it.conversations.create(dialog_id="d", id="a", **at)

    world.wire.before_statement = watch
    return lambda: world.svc.conversations.append_message("a", TURN, **at)


async def delete_two_batches(world):
    for number in range(2):
        await world.svc.conversations.create_many(
            [{"dialog_id": "many", "id": f"{number}-{each}"} for each in range(501)],
            tenant_id=world.tenant,
        )
    return lambda: world.svc.conversations.delete_by_dialog_ids(["many"], tenant_id=world.tenant)


def search(keywords: str, *, of_many: bool = False, **options: object) -> Case:
    """A search, perhaps of more conversations than are walked at first."""

    async def case(world):
        given = {"tenant_id": world.tenant, "keywords": keywords} | options
        if of_many:
            said = ["long ago", *[""] * 279, *["lately"] * 20]
            await world.svc.conversations.import_(
                [
                    RECORD | {"id": f"{n:03}", "messages": [{"role": "user", "content": text}]}
                    for n, text in enumerate(said)
                ],
                tenant_id=world.tenant,
            )
        return lambda: world.svc.conversations.search(**given)

    return case


def loading(*, there: tuple[str, ...], given: tuple[str, ...]) -> Case:
    async def case(world):
        await world.svc.conversations.import_(records(there), tenant_id=world.tenant)
        return lambda: world.svc.conversations.import_(records(given), tenant_id=world.tenant)

    return case


async def load_in_a_transaction_of_the_callers(world):
    stack = contextlib.AsyncExitStack()
    connection = await stack.enter_async_context(world.svc._executor._pool.acquire())
    await stack.enter_async_context(connection.transaction())
    mine = world.svc.on(connection)

    async def load():
        await mine.conversations.import_(records(["x"]), tenant_id=world.tenant)
        world.counted = world.wire.round_trips  # the COMMIT is the caller's
        await stack.aclose()

    return load


def records(ids):
    return [RECORD | {"id": id} for id in ids]


def after(first: str, then: str, service: type = APITokenService) -> Case:
    """A method of a service, after another."""

    async def case(world):
        made = world.made[service]
        await call(world.svc, service, first, **table(service, first, world, made))
        given = table(service, then, world, made)
        return lambda: call(world.svc, service, then, **given)

    return case


def table(service, method, world, made):
    return arguments(service, method, world.tenant, made)


def while_tokens_come(method: str, statement: str) -> Case:
    """A call of the method, with a token created before the statement runs again."""

    async def case(world):
        come = [1]

        async def issue():
            if come:
                come.pop()
                await world.past_it.tokens.create(tenant_id=world.tenant, name="late")

        world.before(f"/{statement} ", issue, first=2)
        return lambda: call(world.svc, APITokenService, method, tenant_id=world.tenant)

    return case


async def revoke_a_family_that_grows(world):
    """The rotation is done, not committed, when the family is read: its successor is not seen."""
    id = world.made[APITokenService]["id"]

    async def revoke():
        async with world.past_it.transaction() as tx:
            await tx.tokens.rotate(id, tenant_id=world.tenant)
            revoking = asyncio.create_task(
                world.svc.tokens.revoke_family(id, tenant_id=world.tenant)
            )
            await until_blocked(world.past_it)
        await revoking

    return revoke


async def until_blocked(svc):
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(20):
        while not await svc._executor._pool.fetchval(query):
            await asyncio.sleep(0.01)


def conversations(method: str, **others: object) -> Case:
    return by_the_table(API4ConversationService, method, **others)


def tokens(method: str, **others: object) -> Case:
    return by_the_table(APITokenService, method, **others)


VARYING: dict[tuple[type, str], list[tuple[int, Case]]] = {
    (API4ConversationService, "append_message"): [
        (1, append()),
        (1, append(idempotency_key="k")),
        (2, append(idempotency_key="k", repeated=True)),
        (2, append(id="absent")),
        (2, append(expected_seq=1)),
        (6, append_in_a_race),
    ],
    (API4ConversationService, "search"): [
        (1, search("nothing there")),
        (2, search("hello")),
        (2, search("nothing there", total="capped")),
        (2, search("nothing there", of_many=True)),
        (3, search("long ago", of_many=True)),
        (
            4,
            search("lately", of_many=True),
        ),
        (
            4,
            search("long ago", of_many=True, total="exact"),
        ),
    ],
    (API4ConversationService, "update_by_id"): [
        (1, conversations("update_by_id", patch={"name": "n"})),
        (4, conversations("update_by_id")),
    ],
    (API4ConversationService, "update_many_by_id"): [
        (1, conversations("update_many_by_id", patches={"a": {"name": "n"}})),
        (4, conversations("update_many_by_id")),
    ],
    (API4ConversationService, "delete_by_dialog_ids"): [
        (1, conversations("delete_by_dialog_ids")),
        (2, delete_two_batches),
    ],
    (API4ConversationService, "erase_user"): [
        (7, conversations("erase_user")),
        (3, conversations("erase_user", user_id="absent")),
    ],
    (API4ConversationService, "delete_tenant"): [
        (19, conversations("delete_tenant")),
        (6, after("delete_tenant", "delete_tenant", API4ConversationService)),
    ],
    (API4ConversationService, "purge"): [
        (4, conversations("purge")),
        (
            3,
            conversations("purge", dry_run=True),
        ),
        (
            3,
            conversations("purge", older_than="2026-02-01"),
        ),
        (1, conversations("purge", older_than="2020-01-01")),
    ],
    (API4ConversationService, "export"): [
        (2, conversations("export")),
        (1, conversations("export", dialog_id="absent")),
    ],
    (API4ConversationService, "import_"): [
        (4, loading(there=(), given=("x", "y"))),
        (4, loading(there=("x", "y"), given=("x", "y"))),
        (5, loading(there=("x",), given=("x", "y"))),
        (5, load_in_a_transaction_of_the_callers),
    ],
    (API4ConversationService, "declare_zone"): [
        (5, conversations("declare_zone")),
        (
            3,
            after("declare_zone", "declare_zone", API4ConversationService),
        ),
    ],
    (API4ConversationService, "recount_usage"): [(5, conversations("recount_usage"))],
    (APITokenService, "verify"): [
        (2, tokens("verify")),
        (1, after("verify", "verify")),
        (1, tokens("verify", record_use=False)),
        (0, tokens("verify", secret="s")),
    ],
    (APITokenService, "used"): [
        (2, tokens("used")),
        (0, tokens("used", secret="s")),
    ],
    (APITokenService, "rotate"): [
        (1, tokens("rotate")),
        (2, tokens("rotate", id="absent")),
        (2, after("revoke", "rotate")),
    ],
    (APITokenService, "revoke"): [
        (1, tokens("revoke")),
        (2, tokens("revoke", id="absent")),
        (2, after("revoke", "revoke")),
    ],
    (APITokenService, "revoke_family"): [
        (3, tokens("revoke_family")),
        (1, tokens("revoke_family", id="absent")),
        (1, after("revoke", "revoke_family")),
        (5, revoke_a_family_that_grows),
    ],
    (APITokenService, "revoke_all"): [
        (2, tokens("revoke_all", dialog_id="d")),
        (1, tokens("revoke_all", dialog_id="absent")),
        (3, while_tokens_come("revoke_all", "revoke_many")),
    ],
    (APITokenService, "delete_by_tenant_id"): [
        (2, tokens("delete_by_tenant_id")),
        (1, after("delete_by_tenant_id", "delete_by_tenant_id")),
        (3, while_tokens_come("delete_by_tenant_id", "delete")),
    ],
}


ONCE: dict[type, set[str]] = {
    API4ConversationService: {
        "clear_messages",
        "create",
        "create_many",
        "delete_by_id",
        "delete_by_ids",
        "delete_message",
        "get_by_id",
        "get_by_ids",
        "get_list",
        "get_names",
        "messages",
        "pop_message",
        "set_feedback",
        "stats",
        "update_message",
    },
    APITokenService: {"audit", "create", "get_by_id", "get_list", "import_", "update_by_id"},
}
"""Methods whose call from the table makes 1 round trip, and never another number."""


def cases(service: type, method: str) -> list[tuple[int, Case]]:
    """The numbers of round trips of a method, each with a call that makes so many."""
    if method in ONCE[service]:
        return [(1, by_the_table(service, method))]
    return VARYING.get((service, method), [])


CASES = [
    pytest.param(service, method, number, case, id=f"{method_name(service)}.{method}-{index}")
    for service, method in METHODS
    for index, (number, case) in enumerate(cases(service, method))
]


@pytest.mark.parametrize(("service", "method", "number", "case"), CASES)
async def test_a_method_makes_its_stated_number_of_round_trips(
    service, method, number, case, shared_dsns, numbers
):
    dsn, _ = shared_dsns
    async with (
        Wire(dsn) as wire,
        asyncsvc.connect(wire.dsn, max_size=1) as over_it,
        asyncsvc.connect(dsn) as svc,
    ):
        for _ in ("warm", "counted"):
            tenant = f"t{next(numbers)}"
            world = World(over_it, svc, wire, tenant, await furnish(svc, tenant))
            counted = await round_trips(world, case)
    assert counted == number


async def round_trips(world: World, case: Case) -> int:
    counted_call = await case(world)
    begun = world.wire.round_trips
    with contextlib.suppress(AsyncSvcError):
        await counted_call()
    world.wire.before_statement = None
    return (world.counted or world.wire.round_trips) - begun


@pytest.mark.parametrize(("service", "method"), METHODS, ids=method_name)
def test_every_public_method_states_its_round_trips(service, method):
    stated = [number for number, _ in cases(service, method)]
    assert stated, f"add {method} to ONCE or to VARYING, with a case for each number it can make"


# ------------------------------------------------------------------- what adds to a call


@contextlib.asynccontextmanager
async def counting(dsn: str, **settings: object):
    """The library on a wire, and how many round trips a warm call makes there."""
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


async def test_a_transaction_adds_two_and_so_does_a_savepoint(shared_dsns):
    async with counting(shared_dsns[0]) as (_, svc, count):

        async def nested():
            async with svc.transaction() as tx:
                await list_of(tx)
                async with tx.transaction() as inner:
                    await list_of(inner)

        assert await count(nested) == 2 + 1 + 2 + 1


async def test_a_pool_of_the_callers_adds_the_reset_of_its_connection(shared_dsns):
    async with (
        counting(shared_dsns[0]) as (wire, _, count),
        asyncpg.create_pool(wire.dsn, min_size=1, max_size=1) as pool,
    ):
        assert await count(lambda: list_of(AsyncSvc(pool))) == 1 + 1


async def test_row_level_security_adds_three(shared_dsns):
    async with counting(shared_dsns[0], row_level_security=True) as (_, svc, count):
        assert await count(lambda: list_of(svc)) == 1 + 3
        secret = (await svc.tokens.create(tenant_id="acme", name="n")).secret
        assert await count(lambda: svc.tokens.verify(secret)) == 1 + 3


async def test_without_prepared_statements_each_is_parsed_first(shared_dsns):
    async with counting(shared_dsns[0], pgbouncer=True) as (_, svc, count):
        assert await count(lambda: list_of(svc)) == 1 + 1
