"""Each public method makes as many round trips as its docstring says, counted on the wire.

The pool is the library's own and warm: its statements are prepared.
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg
import pytest
from calls import METHODS, RECORD, TURN, arguments, call, furnish, method_name
from wire import Wire

import asyncsvc
from asyncsvc import (
    API4ConversationService,
    APITokenService,
    AsyncSvc,
    AsyncSvcError,
    Settings,
)

NUMBERS = {"none": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
NUMBER = re.compile(rf"\b({'|'.join(NUMBERS)})\b", re.IGNORECASE)
PLAIN = re.compile(rf"\b(?:{'|'.join(NUMBERS)}) round trips?\b", re.IGNORECASE)


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

        self.wire.before = watch


Case = Callable[[World], Awaitable[Callable[[], Awaitable[object]]]]
"""Prepares what it needs, uncounted, and returns the call that is counted."""


# ------------------------------------------------------------------ the cases of docstrings


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

    world.wire.before = watch
    return lambda: world.svc.conversations.append_message("a", TURN, **at)


async def delete_two_batches(world):
    for number in range(2):
        await world.svc.conversations.create_many(
            [{"dialog_id": "many", "id": f"{number}-{each}"} for each in range(501)],
            tenant_id=world.tenant,
        )
    return lambda: world.svc.conversations.delete_by_dialog_ids(["many"], tenant_id=world.tenant)


WALK = "One round trip for a walk"
ASKED = "one more where the index is asked"


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


def while_tokens_come(method: str) -> Case:
    async def case(world):
        come = [1]

        async def issue():
            if come:
                come.pop()
                await world.past_it.tokens.create(world.tenant, name="late")

        world.before(f"/{method} ", issue, first=2)
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


# What a docstring says beside its one number: the phrases, whose numbers add up, and their case.
VARIES: dict[tuple[type, str], list[tuple[tuple[str, ...], Case]]] = {
    (API4ConversationService, "append_message"): [
        (("One round trip",), append()),
        (("One round trip",), append(idempotency_key="k")),
        (("two when it raises or replays",), append(idempotency_key="k", repeated=True)),
        (("two when it raises or replays",), append(id="absent")),
        (("two when it raises or replays",), append(expected_seq=1)),
        (("at most six in a race",), append_in_a_race),
    ],
    (API4ConversationService, "search"): [
        ((WALK,), search("nothing there")),
        ((WALK, "one more to show"), search("hello")),
        ((WALK, "one more for a total"), search("nothing there", total="capped")),
        ((WALK, ASKED), search("nothing there", of_many=True)),
        ((WALK, ASKED, "one more to show"), search("long ago", of_many=True)),
        (
            (WALK, "one more where it goes on", ASKED, "one more to show"),
            search("lately", of_many=True),
        ),
        (
            (WALK, ASKED, "one more to show", "one more for a total"),
            search("long ago", of_many=True, total="exact"),
        ),
    ],
    (API4ConversationService, "update_by_id"): [
        (("One round trip",), conversations("update_by_id", patch={"name": "n"})),
        (("four where",), conversations("update_by_id")),
    ],
    (API4ConversationService, "update_many_by_id"): [
        (("One round trip",), conversations("update_many_by_id", patches={"a": {"name": "n"}})),
        (("four where",), conversations("update_many_by_id")),
    ],
    (API4ConversationService, "delete_by_dialog_ids"): [
        (("one round trip",), conversations("delete_by_dialog_ids")),
        (("one round trip",) * 2, delete_two_batches),
    ],
    (API4ConversationService, "erase_user"): [
        (("one round trip", "one more to see"), conversations("erase_user")),
        (("one more to see",), conversations("erase_user", user_id="absent")),
    ],
    (API4ConversationService, "purge"): [
        (("two round trips", "one more to find", "one before"), conversations("purge")),
        (
            ("one in a dry run", "one more to find", "one before"),
            conversations("purge", dry_run=True),
        ),
        (
            ("two round trips", "one more to find"),
            conversations("purge", older_than="2026-02-01"),
        ),
        (("one more to find",), conversations("purge", older_than="2020-01-01")),
    ],
    (API4ConversationService, "export"): [
        (("One round trip a page", "one more to find"), conversations("export")),
        (("one more to find",), conversations("export", dialog_id="absent")),
    ],
    (API4ConversationService, "import_"): [
        (("four round trips",), loading(there=(), given=("x", "y"))),
        (("four round trips",), loading(there=("x", "y"), given=("x", "y"))),
        (("four round trips", "one more round trip"), loading(there=("x",), given=("x", "y"))),
        (("a savepoint of five",), load_in_a_transaction_of_the_callers),
    ],
    (API4ConversationService, "declare_zone"): [
        (("Five round trips",), conversations("declare_zone")),
        (
            ("three where it was declared already",),
            after("declare_zone", "declare_zone", API4ConversationService),
        ),
    ],
    (APITokenService, "verify"): [
        (("One round trip", "one more where it stamps"), tokens("verify")),
        (("One round trip",), after("verify", "verify")),
        (("One round trip",), tokens("verify", touch=False)),
        (("none for what is not shaped",), tokens("verify", secret="s")),
    ],
    (APITokenService, "used"): [
        (("One round trip", "one more where it stamps"), tokens("used")),
        (("none for what is not shaped",), tokens("used", secret="s")),
    ],
    (APITokenService, "rotate"): [
        (("One round trip",), tokens("rotate")),
        (("two when it raises",), tokens("rotate", id="absent")),
        (("two when it raises",), after("revoke", "rotate")),
    ],
    (APITokenService, "revoke"): [
        (("One round trip",), tokens("revoke")),
        (("two when it raises or the token is revoked",), tokens("revoke", id="absent")),
        (("two when it raises or the token is revoked",), after("revoke", "revoke")),
    ],
    (APITokenService, "revoke_family"): [
        (("Three round trips",), tokens("revoke_family")),
        (("one when there is nothing to end",), tokens("revoke_family", id="absent")),
        (("one when there is nothing to end",), after("revoke", "revoke_family")),
        (("Three round trips", "two more for each such"), revoke_a_family_that_grows),
    ],
    (APITokenService, "revoke_all"): [
        (("Two round trips",), tokens("revoke_all", dialog_id="d")),
        (("one when there is nothing to end",), tokens("revoke_all", dialog_id="absent")),
        (("Two round trips", "one more where tokens"), while_tokens_come("revoke_all")),
    ],
    (APITokenService, "delete_by_tenant_id"): [
        (("Two round trips",), tokens("delete_by_tenant_id")),
        (("one when nothing is there",), after("delete_by_tenant_id", "delete_by_tenant_id")),
        (("Two round trips", "one more where tokens"), while_tokens_come("delete_by_tenant_id")),
    ],
}


def docstring(service: type, method: str) -> str:
    return " ".join(getattr(service, method).__doc__.split())


def cases(service: type, method: str) -> list[tuple[tuple[str, ...], Case]]:
    """The cases of a method; of one that does not vary, what it says and the call of the table."""
    plain = PLAIN.search(docstring(service, method))
    said = plain[0] if plain else "nothing of round trips"
    return VARIES.get((service, method), [((said,), by_the_table(service, method))])


CASES = [
    pytest.param(
        service, method, phrases, case, id=f"{method_name(service)}.{method}-{' + '.join(phrases)}"
    )
    for service, method in METHODS
    for phrases, case in cases(service, method)
]


@pytest.mark.parametrize(("service", "method", "phrases", "case"), CASES)
async def test_a_method_makes_the_round_trips_that_its_docstring_states(
    service, method, phrases, case, shared_dsns, numbers
):
    stated = docstring(service, method)
    assert [phrase for phrase in phrases if phrase not in stated] == []
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
    assert counted == sum(NUMBERS[NUMBER.search(phrase)[0].lower()] for phrase in phrases)


async def round_trips(world: World, case: Case) -> int:
    counted_call = await case(world)
    begun = world.wire.round_trips
    with contextlib.suppress(AsyncSvcError):
        await counted_call()
    world.wire.before = None
    return (world.counted or world.wire.round_trips) - begun


@pytest.mark.parametrize(("service", "method"), METHODS, ids=method_name)
def test_each_number_of_round_trips_in_a_docstring_has_a_case(service, method):
    sentences = [part for part in docstring(service, method).split(". ") if "round trip" in part]
    assert sentences, "the docstring does not say how many round trips it makes"
    said = {number.lower() for number in NUMBER.findall(" ".join(sentences))}
    tested = {
        NUMBER.search(phrase)[0].lower()
        for phrases, _ in cases(service, method)
        for phrase in phrases
    }
    assert said == tested


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
    return await svc.conversations.get_list("d", "acme")


async def test_a_transaction_adds_two_and_so_does_a_savepoint(shared_dsns):
    async with counting(shared_dsns[0]) as (_, svc, count):

        async def nested():
            async with svc.transaction() as tx:
                await list_of(tx)
                async with tx.transaction() as inner:
                    await list_of(inner)

        assert await count(nested) == 2 + 1 + 2 + 1


async def test_a_pool_of_the_callers_adds_the_reset_of_its_connection(shared_dsns):
    assert "a pool of yours adds one" in " ".join(API4ConversationService.__doc__.split())
    async with (
        counting(shared_dsns[0]) as (wire, _, count),
        asyncpg.create_pool(wire.dsn, min_size=1, max_size=1) as pool,
    ):
        assert await count(lambda: list_of(AsyncSvc(pool))) == 1 + 1


async def test_row_level_security_adds_three(shared_dsns):
    async with counting(shared_dsns[0], row_level_security=True) as (_, svc, count):
        assert await count(lambda: list_of(svc)) == 1 + 3
        secret = (await svc.tokens.create("acme", name="n")).secret
        assert await count(lambda: svc.tokens.verify(secret)) == 1 + 3


async def test_without_prepared_statements_each_is_parsed_first(shared_dsns):
    async with counting(shared_dsns[0], pgbouncer=True) as (_, svc, count):
        assert await count(lambda: list_of(svc)) == 1 + 1
