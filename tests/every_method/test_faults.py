"""An acknowledged write is applied exactly once, for every fault of the network.

Each fault happens at one statement, injected by `wire`. After each one the pool is usable: the next
call works, no connection is missing, and the server has no open transaction.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

import asyncsvc
from asyncsvc import AsyncSvc, AsyncSvcError, Settings, StatementTimeout, Unavailable
from asyncsvc.database import full_jitter
from tests.support.registry import BY_NAME, METHODS, SERVICE_METHODS, furnish
from tests.support.wire import RESETS, Fault, Wire

APPEND = "/append_message "
STALLS = [fault for fault in Fault if fault not in RESETS]
# The faults after which a retry is a replay: the server had already run the request.
APPLIED = {Fault.LOSE_REPLY, Fault.CUT_REPLY, Fault.STALL_REPLY}
SLACK = 20.0
"""Seconds that a call may take beyond its timeouts, on a slow machine."""
SENDING = [method for method in METHODS if method.sends_statements]
IDLE_TRANSACTIONS = """
    SELECT count(*)
      FROM pg_stat_activity
     WHERE datname = current_database()
       AND state LIKE 'idle in transaction%'
"""


@contextlib.asynccontextmanager
async def open_world(
    dsn: str, tenant: str, *, max_size: int = 4, **settings: object
) -> AsyncIterator["World"]:
    """Connect the library through a wire, and directly for the checks."""
    retries: list[tuple[str, int, float, Unavailable]] = []
    observed = Settings(on_retry=lambda *each: retries.append(each), **settings)
    async with (
        asyncsvc.connect(dsn) as direct,
        Wire(dsn) as wire,
        asyncsvc.connect(wire.dsn, settings=observed, max_size=max_size) as svc,
    ):
        try:
            yield World(tenant, svc, direct, wire, retries)
        finally:
            wire.stop_injecting()
            wire.resume()


@pytest.fixture
def wired(shared_dsns, numbers):
    """Return a function that opens a world with these settings and a new tenant."""
    return lambda **settings: open_world(shared_dsns[0], f"tenant {next(numbers)}", **settings)


class World:
    """A conversation "a" and the services that append to it."""

    def __init__(
        self,
        tenant: str,
        svc: AsyncSvc,
        direct: AsyncSvc,
        wire: Wire,
        retries: list[tuple[object, ...]],
    ) -> None:
        self.tenant = tenant
        self.svc = svc
        self.direct = direct
        self.wire = wire
        self.retries = retries

    async def create_conversation(self) -> None:
        """Create the conversation and prepare the append, so that a fault hits its execution."""
        await self.direct.conversations.create(tenant_id=self.tenant, dialog_id="d", id="a")
        await self.append("first")

    async def append(self, key: str, svc: object = None) -> asyncsvc.Appended:
        turn = {"messages": [{"role": "user", "content": f"{key} {part}"} for part in "12"]}
        return await (svc or self.svc).conversations.append_message(
            "a", turn, tenant_id=self.tenant, idempotency_key=key
        )

    def sent(self, text: str) -> int:
        """Return how often a statement was run."""
        return sum(text in each for each in self.wire.statements)

    async def assert_applied_once(self, keys: list[str]) -> None:
        """Assert that each turn exists once, seq has no gaps, and the counters agree."""
        stored = await self.direct.conversations.get_by_id(
            "a", tenant_id=self.tenant, include_messages=True
        )
        texts = [message.content for message in stored.messages]
        assert sorted(texts) == sorted(f"{key} {part}" for key in keys for part in "12")
        assert [message.seq for message in stored.messages] == list(range(1, 2 * len(keys) + 1))
        assert (stored.round, stored.last_seq) == (len(keys), 2 * len(keys))

    async def assert_usable(self) -> None:
        """Assert that calls work and that no connection or transaction is left open."""
        await asyncio.gather(*(self.svc.conversations.stats(**YEAR) for _ in range(4)))
        async with asyncio.timeout(SLACK):  # until the server has noticed the closed connections
            while await self.direct._executor._pool.fetchval(IDLE_TRANSACTIONS):
                await asyncio.sleep(0.01)
        assert self.svc._executor._pool.get_idle_size() == self.svc._executor._pool.get_size()


YEAR = {"tenant_id": "acme", "from_date": "2026-01-01", "to_date": "2026-12-31"}


async def until_available(work: Callable[[], Awaitable[object]]) -> object:
    """Repeat a call while the database is unavailable, as a caller with a key does."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await work()
            except Unavailable:
                await asyncio.sleep(0.01)


# ------------------------------------------------------------ exactly once, by a key


@pytest.mark.parametrize("fault", RESETS)
async def test_a_keyed_append_is_retried_after_its_connection_was_lost(fault, wired, caplog):
    async with wired() as world:
        await world.create_conversation()
        injection = world.wire.inject(fault, APPEND)
        appended = await world.append("second")
        assert injection.count == 1
        assert (appended.first_seq, appended.last_seq, appended.round) == (3, 4, 2)
        assert appended.replayed is (fault in APPLIED)
        assert [(name, attempt) for name, attempt, _, _ in world.retries] == [
            ("conversation/append_message", 1)
        ]
        assert "conversation/append_message is retried in" in caplog.text
        assert await world.append("second") == appended.model_copy(update={"replayed": True})
        await world.assert_applied_once(["first", "second"])
        await world.assert_usable()


@pytest.mark.parametrize("obstacle", ["a locked row", "an exhausted pool"])
async def test_an_error_of_a_retry_does_not_claim_that_nothing_was_done(obstacle, wired):
    """The first append was applied and its reply lost, so the outcome must remain unknown."""
    async with wired(max_size=1, lock_timeout=0.2, acquire_timeout=0.2) as world:
        await world.create_conversation()
        appends = itertools.count(1)
        async with contextlib.AsyncExitStack() as held:

            async def hold(text):
                if APPEND in text and next(appends) == 2:
                    tx = await held.enter_async_context(world.direct.transaction())
                    await tx.conversations.update_by_id("a", {"name": "x"}, tenant_id=world.tenant)

            async def take(*_):
                await held.enter_async_context(world.svc._executor._pool.acquire())

            if obstacle == "a locked row":
                world.wire.before_statement = hold
            world.wire.inject(Fault.LOSE_REPLY, APPEND)
            appending = asyncio.create_task(world.append("second"))
            if obstacle == "an exhausted pool":
                while not world.retries:
                    await asyncio.sleep(0)
                await take()
            with pytest.raises(Unavailable) as caught:
                await appending
            assert type(caught.value) is Unavailable
            world.wire.before_statement = None
        await world.assert_applied_once(["first", "second"])
        await world.assert_usable()


@pytest.mark.parametrize("resumes", ["before the repetition", "after the repetition"])
@pytest.mark.parametrize("fault", STALLS)
async def test_a_keyed_append_that_timed_out_is_not_retried_and_can_be_repeated(
    fault, resumes, wired
):
    async with wired(statement_timeout=0.5) as world:
        await world.create_conversation()
        injection = world.wire.inject(fault, APPEND)
        with pytest.raises(StatementTimeout):
            await world.append("second")
        assert (injection.count, world.retries) == (1, [])
        if resumes == "before the repetition":
            world.wire.resume()  # the held messages arrive late
        appended = await until_available(lambda: world.append("second"))
        world.wire.resume()
        await world.assert_usable()
        assert (appended.first_seq, appended.last_seq, appended.round) == (3, 4, 2)
        await world.assert_applied_once(["first", "second"])


@pytest.mark.parametrize(
    "when", ["before the append", "at the append", "at the append and at its retry"]
)
async def test_a_keyed_append_succeeds_although_the_server_ends_all_connections(when, wired):
    async with wired() as world:
        await world.create_conversation()
        appends = itertools.count(1)

        async def end(text):
            if APPEND in text and next(appends) <= (2 if "retry" in when else 1):
                await end_connections(world)

        if when == "before the append":
            await end_connections(world)
        else:
            world.wire.before_statement = end
        await world.append("second")
        world.wire.before_statement = None
        await world.assert_applied_once(["first", "second"])
        await world.assert_usable()


async def end_connections(world):
    """End the connections of the library's pool, and wait for their end."""
    others = "datname = current_database() AND pid <> pg_backend_pid() AND application_name = ''"
    await world.direct._executor._pool.execute(
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}"
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_16_replays_of_one_key_under_random_faults_get_one_answer(seed, wired):
    keys = [f"key {number}" for number in range(6)]
    async with wired(max_size=8) as world:
        await world.create_conversation()
        world.wire.inject_at_random(seed, share=0.2)
        answers = {
            key: await asyncio.gather(
                *(until_available(lambda key=key: world.append(key)) for _ in range(16))
            )
            for key in keys
        }
        world.wire.stop_injecting()
        assert world.wire.fault_count > 10
        for same in answers.values():
            assert len({(each.first_seq, each.last_seq, each.round) for each in same}) == 1
            assert [each.replayed for each in same].count(False) <= 1
        await world.assert_applied_once(["first", *keys])
        await world.assert_usable()


async def test_16_writers_under_random_faults_lose_and_duplicate_no_turn(wired):
    async with wired(max_size=8) as world:
        await world.create_conversation()
        world.wire.inject_at_random(4, share=0.2)

        async def write(writer):
            for number in range(6):
                await until_available(lambda key=f"{writer}-{number}": world.append(key))

        await asyncio.gather(*(write(writer) for writer in range(16)))
        world.wire.stop_injecting()
        assert world.wire.fault_count > 10
        await world.assert_applied_once(
            ["first", *(f"{w}-{n}" for w in range(16) for n in range(6))]
        )
        await world.assert_usable()


# ---------------------------------------------------------------------- inside a transaction


@pytest.mark.parametrize("fault", Fault)
async def test_a_transaction_can_be_repeated_after_a_fault_at_its_commit(fault, wired):
    async with wired(statement_timeout=1.0) as world:
        await world.create_conversation()

        async def work():
            async with world.svc.transaction() as tx:
                await tx.conversations.update_by_id("a", {"name": "n"}, tenant_id=world.tenant)
                return await world.append("second", tx)

        injection = world.wire.inject(fault, "COMMIT")
        with pytest.raises(Unavailable):
            await work()
        assert (injection.count, world.retries) == (1, [])
        world.wire.resume()
        appended = await until_available(work)
        assert (appended.first_seq, appended.last_seq) == (3, 4)
        if fault in APPLIED:
            assert appended.replayed
        await world.assert_applied_once(["first", "second"])
        await world.assert_usable()


@pytest.mark.parametrize("owner", ["the library's", "the caller's"])
@pytest.mark.parametrize("fault", RESETS)
async def test_nothing_is_retried_inside_a_transaction(fault, owner, wired):
    """A read and a keyed append are not retried, since the connection lost earlier statements."""
    async with wired() as world:
        await world.create_conversation()

        async def read(svc):
            return await svc.conversations.get_by_id("a", tenant_id=world.tenant)

        for statement, act in (
            ("/get_by_ids ", read),
            (APPEND, lambda svc: world.append("second", svc)),
        ):
            await act(world.direct)
            sent = world.sent(statement)
            world.wire.inject(fault, statement)
            with pytest.raises(Unavailable):
                async with transaction(world.svc, owner) as svc:
                    await act(svc)
            assert world.sent(statement) <= sent + 2  # prepared, and run once
        assert world.retries == []
        await world.assert_applied_once(["first", "second"])
        await world.assert_usable()


@contextlib.asynccontextmanager
async def transaction(svc, owner):
    if owner == "the library's":
        async with svc.transaction() as tx:
            yield tx
    else:
        async with svc._executor._pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            yield svc.on(connection)
            await transaction.commit()


# --------------------------------------------------------------- retries and their end


@pytest.mark.parametrize("attempt", [1, 3, 64, 5_000])
def test_a_pause_is_bounded_for_any_number_of_attempts(attempt):
    pauses = [full_jitter(attempt, base=0.05, cap=1.0) for _ in range(100)]
    assert 0 <= min(pauses) < max(pauses) <= min(1.0, 0.05 * 2 ** min(attempt, 10))


@pytest.mark.parametrize("method", SERVICE_METHODS, ids=str)
async def test_reads_and_keyed_appends_are_retried_and_other_writes_are_not(method, wired):
    async with wired() as world:
        arguments = method.arguments(await furnish(world.direct, world.tenant))
        injection = world.wire.inject(Fault.LOSE_REPLY, "/* asyncsvc ")
        if method.is_retriable:
            await method.run(world.svc, arguments)
            assert len(world.retries) == 1
        else:
            with pytest.raises(Unavailable):
                await method.run(world.svc, arguments)
            assert world.retries == []
        assert injection.count == 1
        await world.assert_usable()


@pytest.mark.parametrize(
    ("statement", "name", "changes"),
    [
        ("/append_message ", "conversations.append_message", {"idempotency_key": None}),
        ("/delete ", "conversations.purge", {}),
        ("/revoke_many ", "tokens.revoke_family", {}),
        ("COPY ", "conversations.import_", {}),
        ("COMMIT", "conversations.import_", {}),
    ],
)
async def test_a_write_without_a_key_is_never_retried(statement, name, changes, wired):
    method = BY_NAME[name]
    async with wired() as world:
        arguments = method.arguments(await furnish(world.direct, world.tenant)) | changes
        injection = world.wire.inject(Fault.LOSE_REPLY, statement, times=2)
        with pytest.raises(Unavailable):
            await method.run(world.svc, arguments)
        assert (injection.count, world.retries) == (1, [])
        await world.assert_usable()


async def test_retries_end_after_retry_timeout(wired):
    async with wired(retry_timeout=1.0) as world:
        await world.create_conversation()
        injection = world.wire.inject(Fault.LOSE_REQUEST, APPEND, times=10**6)
        started_at = time.monotonic()
        with pytest.raises(Unavailable):
            await world.append("second")
        assert time.monotonic() - started_at < 1 + SLACK
        assert injection.count == len(world.retries) + 1 > 2
        assert [attempt for _, attempt, _, _ in world.retries] == [
            *range(1, len(world.retries) + 1)
        ]
        assert sum(pause for _, _, pause, _ in world.retries) <= 1
        world.wire.resume()
        await world.assert_applied_once(["first"])
        await world.assert_usable()


async def test_a_retry_timeout_of_0_disables_retries(wired):
    async with wired(retry_timeout=0) as world:
        await world.create_conversation()
        injection = world.wire.inject(Fault.LOSE_REPLY, APPEND, times=2)
        with pytest.raises(Unavailable):
            await world.append("second")
        assert (injection.count, world.retries) == (1, [])
        await world.assert_applied_once(["first", "second"])
        await world.assert_usable()


async def test_retries_outlast_a_short_outage_of_the_server(wired):
    async with wired() as world:
        await world.create_conversation()
        world.wire.refuse_connections()
        world.wire.reset()
        appending = asyncio.create_task(world.append("second"))
        while not world.retries:
            await asyncio.sleep(0.01)
        await world.wire.accept_connections()
        await appending
        await world.assert_applied_once(["first", "second"])
        await world.assert_usable()


# ------------------------------------------------------------------- calls end in time


@pytest.mark.parametrize("method", SENDING, ids=str)
async def test_a_call_ends_in_time_if_the_network_drops_all_packets(method, wired):
    bounds = {"acquire_timeout": 0.2, "statement_timeout": 0.2, "retry_timeout": 0.2}
    async with wired(**bounds) as world:
        arguments = method.arguments(await furnish(world.direct, world.tenant))
        await until_available(lambda: world.svc.conversations.stats(**YEAR))
        world.wire.stall()
        started_at = time.monotonic()
        with method.raises(Unavailable):
            async with asyncio.timeout(60):
                await method.run(world.svc, arguments)
        assert time.monotonic() - started_at < SLACK
        world.wire.resume()
        with contextlib.suppress(AsyncSvcError):  # the first call may have been applied late
            await until_available(lambda: method.run(world.svc, arguments))


async def test_the_attempt_to_open_a_connection_ends_in_time(dsn):
    async with Wire(dsn) as wire:
        settings = Settings(acquire_timeout=0.3)
        async with asyncsvc.connect(wire.dsn, settings=settings, min_size=0) as svc:
            wire.stall()
            started_at = time.monotonic()
            with pytest.raises(Unavailable):
                await svc.conversations.stats(**YEAR)
            assert time.monotonic() - started_at < SLACK
            wire.resume()
            await until_available(lambda: svc.conversations.stats(**YEAR))


@pytest.mark.parametrize("method", SENDING, ids=str)
async def test_a_call_on_an_exhausted_pool_ends_in_time(method, wired):
    async with wired(max_size=1, acquire_timeout=0.2) as world:
        arguments = method.arguments(await furnish(world.direct, world.tenant))
        async with world.svc.transaction():
            started_at = time.monotonic()
            with method.raises(asyncsvc.PoolExhausted):
                async with asyncio.timeout(60):
                    await method.run(world.svc, arguments)
            assert time.monotonic() - started_at < SLACK
        with contextlib.suppress(asyncsvc.AlreadyExists):
            await method.run(world.svc, arguments)
