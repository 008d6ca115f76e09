"""What is acknowledged is there, and is there once, whatever becomes of the wire.

Each fault happens at one statement, on the wire of `wire`. After each the pool is whole: the next
call works, no connection is missing, and the server holds no transaction that nobody ends.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from calls import METHODS, arguments, call, furnish, method_name
from wire import RESETS, Fault, Wire

import asyncsvc
from asyncsvc import (
    API4ConversationService,
    APITokenService,
    AsyncSvc,
    AsyncSvcError,
    Settings,
    StatementTimeout,
    Unavailable,
)
from asyncsvc.database import full_jitter

APPEND = "/append_message "
STALLS = [fault for fault in Fault if fault not in RESETS]
# The server had done it when the fault came: the repetition is a replay.
DONE = {Fault.LOSE_REPLY, Fault.CUT_REPLY, Fault.STALL_REPLY}
SLACK = 20.0
IDLE_TRANSACTIONS = """
    SELECT count(*)
      FROM pg_stat_activity
     WHERE datname = current_database()
       AND state LIKE 'idle in transaction%'
"""


@contextlib.asynccontextmanager
async def opened(
    dsn: str, tenant: str, *, most: int = 4, **settings: object
) -> AsyncIterator["World"]:
    """The library at one end of a wire, and past it, for what is to be judged."""
    retries: list[tuple[str, int, float, Unavailable]] = []
    given = Settings(on_retry=lambda *each: retries.append(each), **settings)
    async with (
        asyncsvc.connect(dsn) as past_it,
        Wire(dsn) as wire,
        asyncsvc.connect(wire.dsn, settings=given, max_size=most) as svc,
    ):
        try:
            yield World(tenant, svc, past_it, wire, retries)
        finally:
            wire.calm()
            wire.heal()


@pytest.fixture
def wired(shared_dsns, numbers):
    """Opens a world with these settings, and a tenant of its own."""
    return lambda **settings: opened(shared_dsns[0], f"tenant {next(numbers)}", **settings)


class World:
    """A conversation "a", and who appends to it."""

    def __init__(
        self,
        tenant: str,
        svc: AsyncSvc,
        past_it: AsyncSvc,
        wire: Wire,
        retries: list[tuple[object, ...]],
    ) -> None:
        self.tenant = tenant
        self.svc = svc
        self.past_it = past_it
        self.wire = wire
        self.retries = retries

    async def begin(self) -> None:
        """Make the conversation; prepare the append, that what a strike meets is its execution."""
        await self.past_it.conversations.create(tenant_id=self.tenant, dialog_id="d", id="a")
        await self.append("first")

    async def append(self, key: str, svc: object = None) -> asyncsvc.Appended:
        turn = {"messages": [{"role": "user", "content": f"{key} {part}"} for part in "12"]}
        return await (svc or self.svc).conversations.append_message(
            "a", turn, tenant_id=self.tenant, idempotency_key=key
        )

    def sent(self, text: str) -> int:
        """How often a statement was run."""
        return sum(text in each for each in self.wire.statements)

    async def holds_once(self, keys: list[str]) -> None:
        """No turn is lost, none is doubled, no seq is missing, and the counters say the same."""
        got = await self.past_it.conversations.get_by_id(
            "a", tenant_id=self.tenant, include_messages=True
        )
        found = [message.content for message in got.messages]
        assert sorted(found) == sorted(f"{key} {part}" for key in keys for part in "12")
        assert [message.seq for message in got.messages] == list(range(1, 2 * len(keys) + 1))
        assert (got.round, got.last_seq) == (len(keys), 2 * len(keys))

    async def is_whole(self) -> None:
        """The next calls work, and nobody holds a connection or a transaction."""
        await asyncio.gather(*(self.svc.conversations.stats(*YEAR) for _ in range(4)))
        async with asyncio.timeout(SLACK):  # until the server has noticed who hung up
            while await self.past_it._executor._pool.fetchval(IDLE_TRANSACTIONS):
                await asyncio.sleep(0.01)
        assert self.svc._executor._pool.get_idle_size() == self.svc._executor._pool.get_size()


YEAR = ("acme", "2026-01-01", "2026-12-31")


async def until_it_answers(work: Callable[[], Awaitable[object]]) -> object:
    """Make a call again while the database is unavailable, as a caller with a key does."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await work()
            except Unavailable:
                await asyncio.sleep(0.01)


# -------------------------------------------------------------------- exactly once, by a key


@pytest.mark.parametrize("fault", RESETS)
async def test_the_library_itself_repeats_a_keyed_append_whose_connection_broke(
    fault, wired, caplog
):
    async with wired() as world:
        await world.begin()
        strike = world.wire.strike(fault, APPEND)
        appended = await world.append("second")
        assert strike.hits == 1
        assert (appended.first_seq, appended.last_seq, appended.round) == (3, 4, 2)
        assert appended.replayed is (fault in DONE)
        assert [(name, attempt) for name, attempt, _, _ in world.retries] == [
            ("conversation/append_message", 1)
        ]
        assert "conversation/append_message is retried in" in caplog.text
        assert await world.append("second") == appended.model_copy(update={"replayed": True})
        await world.holds_once(["first", "second"])
        await world.is_whole()


@pytest.mark.parametrize("meets", ["a row that is held", "a pool that is exhausted"])
async def test_what_the_repetition_meets_does_not_say_that_nothing_was_done(meets, wired):
    """The first append was done, and its reply lost: nobody may be told that it was not."""
    async with wired(most=1, lock_timeout=0.2, acquire_timeout=0.2) as world:
        await world.begin()
        appends = itertools.count(1)
        async with contextlib.AsyncExitStack() as held:

            async def hold(text):
                if APPEND in text and next(appends) == 2:
                    tx = await held.enter_async_context(world.past_it.transaction())
                    await tx.conversations.update_by_id("a", {"name": "x"}, tenant_id=world.tenant)

            async def take(*_):
                await held.enter_async_context(world.svc._executor._pool.acquire())

            if "row" in meets:
                world.wire.before = hold
            world.wire.strike(Fault.LOSE_REPLY, APPEND)
            appending = asyncio.create_task(world.append("second"))
            if "pool" in meets:
                while not world.retries:
                    await asyncio.sleep(0)
                await take()
            with pytest.raises(Unavailable) as caught:
                await appending
            assert type(caught.value) is Unavailable
            world.wire.before = None
        await world.holds_once(["first", "second"])
        await world.is_whole()


@pytest.mark.parametrize("heals", ["before it is repeated", "after it was repeated"])
@pytest.mark.parametrize("fault", STALLS)
async def test_a_keyed_append_that_timed_out_is_the_callers_to_repeat(fault, heals, wired):
    async with wired(statement_timeout=0.5) as world:
        await world.begin()
        strike = world.wire.strike(fault, APPEND)
        with pytest.raises(StatementTimeout):
            await world.append("second")
        assert (strike.hits, world.retries) == (1, [])
        if heals == "before it is repeated":
            world.wire.heal()  # what was held back arrives late
        appended = await until_it_answers(lambda: world.append("second"))
        world.wire.heal()
        await world.is_whole()
        assert (appended.first_seq, appended.last_seq, appended.round) == (3, 4, 2)
        await world.holds_once(["first", "second"])


@pytest.mark.parametrize("when", ["it is idle", "the append arrives", "it was repeated already"])
async def test_a_keyed_append_survives_that_the_server_ends_all_connections(when, wired):
    async with wired() as world:
        await world.begin()
        appends = itertools.count(1)

        async def end(text):
            if APPEND in text and next(appends) <= (2 if "already" in when else 1):
                await end_connections(world)

        if when == "it is idle":
            await end_connections(world)
        else:
            world.wire.before = end
        await world.append("second")
        world.wire.before = None
        await world.holds_once(["first", "second"])
        await world.is_whole()


async def end_connections(world):
    """End the connections of the library's pool, and wait until they are over."""
    others = "datname = current_database() AND pid <> pg_backend_pid() AND application_name = ''"
    await world.past_it._executor._pool.execute(
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}"
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_sixteen_that_replay_one_key_in_a_storm_get_one_answer(seed, wired):
    keys = [f"key {number}" for number in range(6)]
    async with wired(most=8) as world:
        await world.begin()
        world.wire.storm(seed, share=0.2)
        answers = {
            key: await asyncio.gather(
                *(until_it_answers(lambda key=key: world.append(key)) for _ in range(16))
            )
            for key in keys
        }
        world.wire.calm()
        assert world.wire.faults > 10
        for same in answers.values():
            assert len({(each.first_seq, each.last_seq, each.round) for each in same}) == 1
            assert [each.replayed for each in same].count(False) <= 1
        await world.holds_once(["first", *keys])
        await world.is_whole()


async def test_sixteen_writers_in_a_storm_lose_and_double_nothing(wired):
    async with wired(most=8) as world:
        await world.begin()
        world.wire.storm(4, share=0.2)

        async def write(writer):
            for number in range(6):
                await until_it_answers(lambda key=f"{writer}-{number}": world.append(key))

        await asyncio.gather(*(write(writer) for writer in range(16)))
        world.wire.calm()
        assert world.wire.faults > 10
        await world.holds_once(["first", *(f"{w}-{n}" for w in range(16) for n in range(6))])
        await world.is_whole()


# ---------------------------------------------------------------------- inside a transaction


@pytest.mark.parametrize("fault", Fault)
async def test_a_transaction_whose_commit_met_a_fault_is_repeated_whole(fault, wired):
    async with wired(statement_timeout=1.0) as world:
        await world.begin()

        async def work():
            async with world.svc.transaction() as tx:
                await tx.conversations.update_by_id("a", {"name": "n"}, tenant_id=world.tenant)
                return await world.append("second", tx)

        strike = world.wire.strike(fault, "COMMIT")
        with pytest.raises(Unavailable):
            await work()
        assert (strike.hits, world.retries) == (1, [])
        world.wire.heal()
        appended = await until_it_answers(work)
        assert (appended.first_seq, appended.last_seq) == (3, 4)
        if fault in DONE:
            assert appended.replayed
        await world.holds_once(["first", "second"])
        await world.is_whole()


@pytest.mark.parametrize("whose", ["the library's", "the caller's"])
@pytest.mark.parametrize("fault", RESETS)
async def test_nothing_is_repeated_inside_a_transaction(fault, whose, wired):
    """Neither a read nor a keyed append: what came before it is gone with the connection."""
    async with wired() as world:
        await world.begin()

        async def read(svc):
            return await svc.conversations.get_by_id("a", tenant_id=world.tenant)

        for statement, act in (
            ("/get_by_ids ", read),
            (APPEND, lambda svc: world.append("second", svc)),
        ):
            await act(world.past_it)
            sent = world.sent(statement)
            world.wire.strike(fault, statement)
            with pytest.raises(Unavailable):
                async with transaction(world.svc, whose) as svc:
                    await act(svc)
            assert world.sent(statement) <= sent + 2  # prepared, and run once
        assert world.retries == []
        await world.holds_once(["first", "second"])
        await world.is_whole()


@contextlib.asynccontextmanager
async def transaction(svc, whose):
    if whose == "the library's":
        async with svc.transaction() as tx:
            yield tx
    else:
        async with svc._executor._pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            yield svc.on(connection)
            await transaction.commit()


# --------------------------------------------------------- what is repeated, and for how long


@pytest.mark.parametrize("attempt", [1, 3, 64, 5_000])
def test_a_pause_is_bounded_however_many_there_were(attempt):
    pauses = [full_jitter(attempt, base=0.05, cap=1.0) for _ in range(100)]
    assert 0 <= min(pauses) < max(pauses) <= min(1.0, 0.05 * 2 ** min(attempt, 10))


REPEATED = {
    (API4ConversationService, name)
    for name in (
        "append_message",  # with a key, as the table has it
        "export",
        "get_by_id",
        "get_by_ids",
        "get_list",
        "get_names",
        "messages",
        "purge",  # its first statement reads
        "search",
        "stats",
    )
} | {
    (APITokenService, name)
    for name in (
        "audit",
        "get_by_id",
        "get_list",
        "revoke_family",  # its first statement reads
        "used",
        "verify",
    )
}


@pytest.mark.parametrize(("service", "method"), METHODS, ids=method_name)
async def test_reads_and_keyed_appends_are_repeated_and_no_other_write(service, method, wired):
    async with wired() as world:
        given = await good(service, method, world)
        strike = world.wire.strike(Fault.LOSE_REPLY, "/* asyncsvc ")
        if (service, method) in REPEATED:
            await call(world.svc, service, method, **given)
            assert len(world.retries) == 1
        else:
            with pytest.raises(Unavailable):
                await call(world.svc, service, method, **given)
            assert world.retries == []
        assert strike.hits == 1
        await world.is_whole()


@pytest.mark.parametrize(
    ("statement", "service", "method", "others"),
    [
        ("/append_message ", API4ConversationService, "append_message", {"idempotency_key": None}),
        ("/delete_old ", API4ConversationService, "purge", {}),
        ("/revoke_many ", APITokenService, "revoke_family", {}),
        ("COPY ", API4ConversationService, "import_", {}),
        ("COMMIT", API4ConversationService, "import_", {}),
    ],
)
async def test_a_write_without_a_key_is_never_repeated(statement, service, method, others, wired):
    async with wired() as world:
        given = await good(service, method, world) | others
        strike = world.wire.strike(Fault.LOSE_REPLY, statement, times=2)
        with pytest.raises(Unavailable):
            await call(world.svc, service, method, **given)
        assert (strike.hits, world.retries) == (1, [])
        await world.is_whole()


async def good(service, method, world):
    """Good arguments for a call, in a tenant that is furnished."""
    made = await furnish(world.past_it, world.tenant)
    return arguments(service, method, world.tenant, made[service])


async def test_repeating_ends_in_time(wired):
    async with wired(retry_timeout=1.0) as world:
        await world.begin()
        strike = world.wire.strike(Fault.LOSE_REQUEST, APPEND, times=10**6)
        begun = time.monotonic()
        with pytest.raises(Unavailable):
            await world.append("second")
        assert time.monotonic() - begun < 1 + SLACK
        assert strike.hits == len(world.retries) + 1 > 2
        assert [attempt for _, attempt, _, _ in world.retries] == [
            *range(1, len(world.retries) + 1)
        ]
        assert sum(pause for _, _, pause, _ in world.retries) <= 1
        world.wire.heal()
        await world.holds_once(["first"])
        await world.is_whole()


async def test_without_a_retry_timeout_nothing_is_repeated(wired):
    async with wired(retry_timeout=0) as world:
        await world.begin()
        strike = world.wire.strike(Fault.LOSE_REPLY, APPEND, times=2)
        with pytest.raises(Unavailable):
            await world.append("second")
        assert (strike.hits, world.retries) == (1, [])
        await world.holds_once(["first", "second"])
        await world.is_whole()


async def test_a_server_that_is_away_for_a_moment_is_not_noticed(wired):
    async with wired() as world:
        await world.begin()
        world.wire.refuse()
        world.wire.reset()
        appending = asyncio.create_task(world.append("second"))
        while not world.retries:
            await asyncio.sleep(0.01)
        await world.wire.accept()
        await appending
        await world.holds_once(["first", "second"])
        await world.is_whole()


# -------------------------------------------------------------------------- nothing hangs


@pytest.mark.parametrize(("service", "method"), METHODS, ids=method_name)
async def test_a_call_into_a_black_hole_ends_in_time(service, method, wired):
    bounds = {"acquire_timeout": 0.2, "statement_timeout": 0.2, "retry_timeout": 0.2}
    async with wired(**bounds) as world:
        given = await good(service, method, world)
        await until_it_answers(lambda: world.svc.conversations.stats(*YEAR))
        world.wire.silence()
        begun = time.monotonic()
        with pytest.raises(Unavailable):
            async with asyncio.timeout(60):
                await call(world.svc, service, method, **given)
        assert time.monotonic() - begun < SLACK
        world.wire.heal()
        with contextlib.suppress(AsyncSvcError):  # it may have been done, late
            await until_it_answers(lambda: call(world.svc, service, method, **given))


async def test_a_connection_that_cannot_be_opened_is_given_up_in_time(dsn):
    async with Wire(dsn) as wire:
        settings = Settings(acquire_timeout=0.3)
        async with asyncsvc.connect(wire.dsn, settings=settings, min_size=0) as svc:
            wire.silence()
            begun = time.monotonic()
            with pytest.raises(Unavailable):
                await svc.conversations.stats(*YEAR)
            assert time.monotonic() - begun < SLACK
            wire.heal()
            await until_it_answers(lambda: svc.conversations.stats(*YEAR))


@pytest.mark.parametrize(("service", "method"), METHODS, ids=method_name)
async def test_a_call_on_an_exhausted_pool_ends_in_time(service, method, wired):
    async with wired(most=1, acquire_timeout=0.2) as world:
        given = await good(service, method, world)
        async with world.svc.transaction():
            begun = time.monotonic()
            with pytest.raises(asyncsvc.PoolExhausted):
                async with asyncio.timeout(60):
                    await call(world.svc, service, method, **given)
            assert time.monotonic() - begun < SLACK
        with contextlib.suppress(asyncsvc.AlreadyExists):
            await call(world.svc, service, method, **given)
