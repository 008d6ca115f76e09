"""New messages are watched: each commit is reported; an append notifies only a listener.

`RARELY` is longer than a test, so only a notification or a lost connection causes a read. `OFTEN`
reads without notifications. No test measures time: `soon` ends a test that misses a message.
"""

import asyncio
import contextlib
import gc
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import asyncpg
import pytest

import asyncsvc
from asyncsvc import AsyncSvc, InvalidInput, NewMessages, PoolClosed, Services, Settings, Watch
from asyncsvc.repositories.watch import RunningTransactions
from asyncsvc.services.watermark import Watermark, next_read
from tests.support.cancelling import at_each_await, cancelled_at
from tests.support.wire import Fault, Wire

T = TypeVar("T")

CHANNEL = "asyncsvc_new_messages"
TURN = {"messages": [{"role": "user", "content": "hello"}]}
RARELY = Settings(watch_interval=3600)
OFTEN = Settings(watch_interval=0.02)
LISTENERS = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
)
"""The sessions that listen. A watch that reads often also runs other statements in them."""


async def soon(result: Awaitable[T]) -> T:
    """Await a result that needs no time of its own."""
    return await asyncio.wait_for(result, 60)


async def create(svc: Services, *ids: str, tenant_id: str = "acme", **values: object) -> None:
    for id in ids:
        await svc.conversations.create(
            tenant_id=tenant_id, id=id, **{"dialog_id": "d", "user_id": "ann"} | values
        )


async def append(svc: Services, id: str, *, tenant_id: str = "acme") -> int:
    return (await svc.conversations.append_message(id, TURN, tenant_id=tenant_id)).last_seq


async def take(watch: Watch, number: int = 1) -> list[tuple[str, int]]:
    """Return the next items of a watch."""
    items = [await soon(anext(watch)) for _ in range(number)]
    return [(item.conversation_id, item.last_seq) for item in items]


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait for a condition of the server, such as the end of a closed session."""
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def quiet(dsn: str) -> AsyncIterator[AsyncSvc]:
    """The library, whose watches read only after a notification."""
    async with asyncsvc.connect(dsn, settings=RARELY) as services:
        yield services


@pytest.fixture
async def polling(dsn: str) -> AsyncIterator[AsyncSvc]:
    """The library, whose watches read all the time."""
    async with asyncsvc.connect(dsn, settings=OFTEN) as services:
        yield services


# ------------------------------------------------------------------------------ reported appends


async def test_each_append_of_the_tenant_is_reported(quiet, svc):
    await create(quiet, "a", "b")
    await create(quiet, "a", tenant_id="other")
    await append(svc, "a")
    async with quiet.conversations.watch(tenant_id="acme") as watch:
        await append(svc, "a", tenant_id="other")
        await append(svc, "b")
        assert await soon(anext(watch)) == NewMessages(conversation_id="b", last_seq=1)
        await append(svc, "a")
        assert await take(watch) == [("a", 2)]


async def test_a_loop_over_the_call_starts_at_its_first_step(quiet):
    await create(quiet, "a")

    async def first():
        async for item in quiet.conversations.watch(tenant_id="acme"):
            return item.last_seq
        return None

    loop = asyncio.create_task(first())
    while not loop.done():  # appends before the first step are not reported
        last_seq = await append(quiet, "a")
        await asyncio.sleep(0.01)
    assert 1 <= await loop <= last_seq


async def test_a_watch_of_a_dialog_or_a_user_reports_no_others(quiet):
    await create(quiet, "a")
    await create(quiet, "b", dialog_id="e")
    await create(quiet, "c", user_id="bob")
    watch = quiet.conversations.watch
    async with (
        watch(tenant_id="acme", dialog_id="d") as dialog,
        watch(tenant_id="acme", user_id="ann") as user,
        watch(tenant_id="acme", dialog_id="e", user_id="bob") as nothing,
        watch(tenant_id="acme") as everything,
    ):
        for id in "abc":
            await append(quiet, id)
        assert sorted(await take(everything, 3)) == [("a", 1), ("b", 1), ("c", 1)]
        assert sorted(await take(dialog, 2)) == [("a", 1), ("c", 1)]
        assert sorted(await take(user, 2)) == [("a", 1), ("b", 1)]
        await create(quiet, "x", dialog_id="e", user_id="bob")
        await append(quiet, "x")
        assert await take(nothing) == [("x", 1)]


async def test_appends_without_a_waiting_watch_are_reported_once_with_the_last_seq(quiet):
    await create(quiet, "a", "b")
    async with quiet.conversations.watch(tenant_id="acme") as watch:
        for id in ("a", "b", "a", "a"):
            await append(quiet, id)
        assert sorted(await take(watch, 2)) == [("a", 3), ("b", 1)]
        await append(quiet, "b")
        assert await take(watch) == [("b", 2)]


async def test_changes_without_new_messages_are_not_reported(polling):
    await create(polling, "a", "b")
    await append(polling, "a")
    await append(polling, "a")
    conversations = polling.conversations
    async with conversations.watch(tenant_id="acme") as watch:
        await conversations.update_by_id("a", {"name": "new"}, tenant_id="acme")
        await conversations.update_message("a", 1, {"content": "new"}, tenant_id="acme")
        await conversations.set_feedback("a", 1, 1, tenant_id="acme")
        await conversations.delete_message("a", 1, tenant_id="acme")
        await conversations.pop_message("a", tenant_id="acme")
        await create(polling, "c")
        await polling.maintain()
        await append(polling, "b")
        assert await take(watch) == [("b", 1)]
        await conversations.update_by_id("b", {"name": "new"}, tenant_id="acme")
        await append(polling, "c")
        assert await take(watch) == [("c", 1)]


async def test_a_conversation_that_is_deleted_and_created_again_is_reported(quiet):
    await create(quiet, "a")
    async with quiet.conversations.watch(tenant_id="acme") as watch:
        await append(quiet, "a")
        assert await take(watch) == [("a", 1)]
        await quiet.conversations.delete_by_id("a", tenant_id="acme")
        await create(quiet, "a")
        await append(quiet, "a")
        assert await take(watch) == [("a", 1)]


async def test_a_first_turn_and_a_message_with_an_id_are_reported(quiet):
    message = {"id": "m", "role": "user", "content": "hello"}
    async with quiet.conversations.watch(tenant_id="acme") as watch:
        await quiet.conversations.append_message(
            "a", TURN, tenant_id="acme", create={"dialog_id": "d"}
        )
        assert await take(watch) == [("a", 1)]
        await quiet.conversations.put_message("a", message, tenant_id="acme")
        assert await take(watch) == [("a", 2)]
        await quiet.conversations.put_message("a", message, tenant_id="acme")  # replaces it
        await append(quiet, "a")
        assert await take(watch) == [("a", 3)]


async def test_a_conversation_created_in_the_future_is_reported(quiet):
    """Its updated_at does not change, since it never decreases."""
    await create(quiet, "a", created_at=datetime.now(UTC) + timedelta(hours=12))
    async with quiet.conversations.watch(tenant_id="acme") as watch:
        for number in (1, 2):
            await append(quiet, "a")
            assert await take(watch) == [("a", number)]


async def test_more_conversations_than_a_page_are_reported(polling):
    ids = [f"{number:04}" for number in range(1, 1_001)]
    await polling.conversations.create_many(
        [{"id": id, "dialog_id": "d"} for id in ids], tenant_id="acme"
    )
    async with polling.conversations.watch(tenant_id="acme") as watch:
        async with polling.transaction() as transaction:  # all at one moment
            for id in ids:
                await append(transaction, id)
        assert {id for id, _ in await take(watch, 1_000)} == set(ids)


# ----------------------------------------------------------------------------- transactions


async def test_a_transaction_that_commits_late_is_reported(quiet, svc):
    """Later appends are committed and reported while it is open."""
    await create(quiet, "a", "b", "c")
    async with quiet.conversations.watch(tenant_id="acme") as watch:
        async with svc.transaction() as transaction:
            await append(transaction, "a")
            for number in (1, 2, 3):
                await append(svc, "b")
                assert await take(watch) == [("b", number)]
        assert await take(watch) == [("a", 1)]
        await append(svc, "c")
        assert await take(watch) == [("c", 1)]  # and nothing twice


@pytest.mark.parametrize("is_written", [True, False], ids=["before", "after"])
async def test_a_transaction_that_began_before_the_watch_is_reported(polling, svc, is_written):
    """It has written before the watch, so it sends no notification, or writes after its start."""
    await create(polling, "a", "b")
    async with svc.transaction() as transaction:
        if is_written:
            await append(transaction, "a")
        else:
            await transaction.conversations.get_by_id("a", tenant_id="acme")
        await append(svc, "b")
        watch = await polling.conversations.watch(tenant_id="acme").__aenter__()
        if not is_written:
            await append(transaction, "a")
    assert await take(watch) == [("a", 1)]
    await append(svc, "b")
    assert await take(watch) == [("b", 2)]
    await watch.aclose()


async def test_an_append_that_is_rolled_back_is_not_reported(polling, svc):
    await create(polling, "a", "b")
    async with polling.conversations.watch(tenant_id="acme") as watch:
        with contextlib.suppress(KeyError):
            async with svc.transaction() as transaction:
                await append(transaction, "a")
                raise KeyError
        await append(svc, "b")
        assert await take(watch) == [("b", 1)]


async def test_the_transactions_of_a_role_that_hides_them_are_reported(dsn, svc, pool):
    """A role without pg_read_all_stats does not see when they began."""
    name = f"{dsn.rpartition('/')[2]}_watcher"
    await pool.execute(f'CREATE ROLE "{name}" LOGIN')
    await pool.execute(f'GRANT USAGE ON SCHEMA asyncsvc TO "{name}"')
    await pool.execute(f'GRANT ALL ON ALL TABLES IN SCHEMA asyncsvc TO "{name}"')
    try:
        await create(svc, "a", "b")
        async with asyncsvc.connect(f"{dsn}?role={name}", settings=OFTEN) as other:
            async with svc.transaction() as transaction:
                await append(transaction, "a")
                watch = await other.conversations.watch(tenant_id="acme").__aenter__()
                await append(svc, "b")
                assert await take(watch) == [("b", 1)]
            assert await take(watch) == [("a", 1)]
            await watch.aclose()
    finally:
        await pool.execute(f'DROP OWNED BY "{name}"')
        await pool.execute(f'DROP ROLE "{name}"')


# ----------------------------------------------------------------------------- notifications


@pytest.fixture
async def notifications(dsn: str) -> AsyncIterator[asyncio.Queue[str]]:
    """The payloads that a session of its own receives."""
    received = asyncio.Queue[str]()
    connection = await asyncpg.connect(dsn)
    await connection.add_listener(CHANNEL, lambda *arguments: received.put_nowait(arguments[-1]))
    yield received
    await connection.close()


async def received_before(notifications: asyncio.Queue[str], dsn: str) -> list[str]:
    """Return the payloads of all transactions that committed before this call."""
    await notify(dsn, "end")
    payloads = []
    while (payload := await soon(notifications.get())) != "end":
        payloads.append(payload)
    return payloads


async def notify(dsn: str, payload: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"NOTIFY {CHANNEL}, '{payload}'")
    await connection.close()


async def sent(services: AsyncSvc) -> None:
    """Wait until all notifications of a process are sent."""
    while services._executor.notifier._is_busy:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("on", ["a pool", "a transaction", "a connection"])
@pytest.mark.parametrize("key", [None, "k"], ids=["without a key", "with a key"])
async def test_an_append_notifies_only_while_its_tenant_is_watched(
    svc, pool, dsn, notifications, key, on
):
    async def append_to(tenant_id: str) -> list[str]:
        async with contextlib.AsyncExitStack() as stack:
            services: Services = svc
            if on == "a transaction":
                services = await stack.enter_async_context(svc.transaction())
            elif on == "a connection":
                services = svc.on(await stack.enter_async_context(pool.acquire()))
            await services.conversations.append_message(
                "a", TURN, tenant_id=tenant_id, idempotency_key=key
            )
        await sent(svc)
        return await received_before(notifications, dsn)

    for tenant_id in ("acme", "expired", "unwatched"):
        await create(svc, "a", tenant_id=tenant_id)
    await pool.execute(
        "INSERT INTO asyncsvc.watched_tenant (tenant_id, expires_at)"
        " VALUES ('acme', statement_timestamp() + interval '1 hour'),"
        " ('expired', statement_timestamp())"
    )
    assert await append_to("unwatched") == []
    assert await append_to("expired") == []
    assert await append_to("acme") == [hashlib.sha256(b"acme").hexdigest()]
    if key is not None:  # a replay appends nothing
        assert await append_to("acme") == []


async def test_an_append_that_is_rolled_back_sends_no_notification(svc, quiet, dsn, notifications):
    await create(svc, "a")
    async with quiet.conversations.watch(tenant_id="acme"):
        with contextlib.suppress(KeyError):
            async with svc.transaction() as transaction:
                await append(transaction, "a")
                raise KeyError
        await sent(svc)
        assert await received_before(notifications, dsn) == []


async def test_many_appends_share_a_notification(svc, quiet, dsn, notifications):
    """Commits with a notification queue for the whole server, so appends have none of their own."""
    tenants = [f"tenant {number}" for number in range(4)]
    for tenant_id in tenants:
        await create(svc, "a", tenant_id=tenant_id)
    async with contextlib.AsyncExitStack() as stack:
        watches = [
            await stack.enter_async_context(quiet.conversations.watch(tenant_id=tenant_id))
            for tenant_id in tenants
        ]
        for _ in range(50):
            await asyncio.gather(*(append(svc, "a", tenant_id=each) for each in tenants))
        await sent(svc)
        assert len(await received_before(notifications, dsn)) < 4 * 50
        for watch in watches:
            last = 0
            while last < 50:
                ((_, last),) = await take(watch)


async def test_a_notification_that_fails_delays_a_message_and_loses_none(dsn, svc):
    settings = OFTEN.model_copy(update={"retry_timeout": 0})
    await create(svc, "a")
    async with (
        svc.conversations.watch(tenant_id="acme"),
        Wire(dsn) as wire,
        asyncsvc.connect(wire.dsn, settings=settings) as over_it,
        over_it.conversations.watch(tenant_id="acme") as watch,
    ):
        failed = wire.inject(Fault.LOSE_REQUEST, "/notify ", times=3)
        for number in (1, 2, 3):
            await append(over_it, "a")
            assert await take(watch) == [("a", number)]
            await sent(over_it)
        assert failed.count >= 1
        await append(over_it, "a")
        assert await take(watch) == [("a", 4)]


async def test_a_watch_that_was_not_renewed_misses_nothing(polling, pool, dsn, notifications):
    """As after a pause of its process that is longer than the lease."""
    await create(polling, "a")
    async with polling.conversations.watch(tenant_id="acme") as watch:
        await pool.execute("UPDATE asyncsvc.watched_tenant SET expires_at = '-infinity'")
        await append(polling, "a")
        await sent(polling)
        assert await received_before(notifications, dsn) == []
        assert await take(watch) == [("a", 1)]


async def test_a_lease_is_renewed_and_never_shortened_by_a_second_watcher(svc, quiet, pool):
    expiry = "SELECT expires_at - statement_timestamp() FROM asyncsvc.watched_tenant"
    async with quiet.conversations.watch(tenant_id="acme"):
        assert await pool.fetchval(expiry) > timedelta(hours=3)
        async with svc.conversations.watch(tenant_id="acme"):
            assert await pool.fetchval(expiry) > timedelta(hours=3)
    await pool.execute("UPDATE asyncsvc.watched_tenant SET expires_at = 'infinity'")
    async with svc.conversations.watch(tenant_id="acme"):  # the server's clock was set back
        assert await pool.fetchval(expiry) < timedelta(hours=1)


async def test_the_deletion_of_a_tenant_deletes_its_lease(quiet, pool):
    async with quiet.conversations.watch(tenant_id="acme"):
        await quiet.conversations.delete_tenant(tenant_id="acme")
        assert await pool.fetchval("SELECT count(*) FROM asyncsvc.watched_tenant") == 0


async def test_the_watches_of_a_process_share_one_connection_outside_of_the_pool(dsn, pool):
    async with asyncsvc.connect(dsn, settings=RARELY, min_size=0, max_size=1) as svc:
        await create(svc, "a")
        await create(svc, "a", tenant_id="other")
        watches = [svc.conversations.watch(tenant_id=id) for id in ("acme", "acme", "other")]
        waiting = [asyncio.create_task(anext(watch)) for watch in watches]
        while not all(waiter.done() for waiter in waiting):
            await append(svc, "a")
            await append(svc, "a", tenant_id="other")
            await asyncio.sleep(0.01)
        assert len(await pool.fetch(LISTENERS)) == 1
        await watches[0].aclose()
        await watches[1].aclose()
        assert len(await pool.fetch(LISTENERS)) == 1
        await watches[2].aclose()
        await until(lambda: no_listener(pool))


async def no_listener(pool: asyncpg.Pool) -> bool:
    return not await pool.fetch(LISTENERS)


# ---------------------------------------------------------------------------------- the end


async def test_a_loop_that_is_left_closes_the_connection(quiet, pool):
    await create(quiet, "a")

    async def loop():
        async for _ in quiet.conversations.watch(tenant_id="acme"):
            return

    looping = asyncio.create_task(loop())
    while not looping.done():
        await append(quiet, "a")
        await asyncio.sleep(0.01)
    gc.collect()
    await until(lambda: no_listener(pool))


async def test_a_cancelled_task_closes_the_connection(quiet, pool):
    started = asyncio.Event()

    async def run():
        async with quiet.conversations.watch(tenant_id="acme") as watch:
            started.set()
            await anext(watch)

    task = asyncio.create_task(run())
    await soon(started.wait())
    assert len(await pool.fetch(LISTENERS)) == 1
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    await until(lambda: no_listener(pool))


async def test_a_watch_that_is_closed_has_no_further_steps(quiet, pool):
    watch = quiet.conversations.watch(tenant_id="acme")
    async with watch:
        waiting = asyncio.create_task(anext(watch))
        await asyncio.sleep(0)
    with pytest.raises(StopAsyncIteration):
        await soon(waiting)
    assert [item async for item in watch] == []
    await watch.aclose()
    await until(lambda: no_listener(pool))


async def test_a_step_that_times_out_loses_nothing(quiet):
    """As the heartbeat of a stream of server-sent events does."""
    await create(quiet, "a")
    async with quiet.conversations.watch(tenant_id="acme") as watch:
        for number in (1, 2, 3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(watch), 0.001)
            await append(quiet, "a")
            assert await take(watch) == [("a", number)]


async def test_a_step_that_is_cancelled_at_any_await_loses_nothing(dsn, svc):
    await create(svc, "a")
    async with (
        asyncsvc.connect(dsn, settings=RARELY, max_size=2) as quiet,
        quiet.conversations.watch(tenant_id="acme") as watch,
    ):

        async def trial(at, moment):
            last_seq = await append(svc, "a")
            outcome = await cancelled_at(anext(watch), at, moment)
            if outcome.error is not None:
                assert await take(watch) == [("a", last_seq)]
            else:
                assert outcome.result.last_seq == last_seq
            return outcome

        assert min((await at_each_await(trial)).values()) > 3


async def test_a_start_that_is_cancelled_at_any_await_leaves_no_connection(dsn, pool):
    async def trial(at, moment):
        async with asyncsvc.connect(dsn, settings=RARELY, max_size=1) as svc:
            watch = svc.conversations.watch(tenant_id="acme")
            outcome = await cancelled_at(watch.__aenter__(), at, moment)
            if outcome.error is None:
                await watch.aclose()
            await until(lambda: no_listener(pool))
            idle = svc._executor._pool.get_idle_size(), svc._executor._pool.get_size()
            assert idle[0] == idle[1]
        return outcome

    assert min((await at_each_await(trial)).values()) > 3


async def test_the_end_of_an_opened_pool_ends_its_watches(dsn, pool):
    svc = await asyncsvc.connect(dsn, settings=RARELY)
    watches = [svc.conversations.watch(tenant_id=id) for id in ("acme", "acme", "other")]
    for watch in watches:
        await watch.__aenter__()
    waiting = [asyncio.create_task(anext(watch)) for watch in watches]
    await asyncio.sleep(0)
    await soon(svc.close())
    for waiter in waiting:
        with pytest.raises(PoolClosed):
            await soon(waiter)
    with pytest.raises(PoolClosed):
        await anext(svc.conversations.watch(tenant_id="acme"))
    for watch in watches:
        await watch.aclose()
    await until(lambda: no_listener(pool))


async def test_watches_of_at_least_share_the_connection(dsn, pool):
    async with asyncsvc.connect(dsn, replicas=[dsn], settings=RARELY) as svc:
        services = svc.at_least(await svc.position())
        async with (
            svc.conversations.watch(tenant_id="acme"),
            services.conversations.watch(tenant_id="acme"),
        ):
            assert len(await pool.fetch(LISTENERS)) == 1
    assert await no_listener(pool)


@pytest.mark.parametrize("end", ["close", "terminate"])
async def test_the_end_of_a_borrowed_pool_ends_its_watches(dsn, pool, end):
    """The connection of a watch is not one of the pool, so the pool can close."""
    borrowed = await asyncpg.create_pool(dsn, min_size=0, max_size=1)
    watch = AsyncSvc(borrowed, settings=OFTEN).conversations.watch(tenant_id="acme")
    async with watch:
        assert borrowed.get_size() <= 1
        waiter = asyncio.create_task(anext(watch))
        if end == "close":
            await soon(borrowed.close())
        else:
            borrowed.terminate()
        with pytest.raises(PoolClosed):
            await soon(waiter)
    await until(lambda: no_listener(pool))


async def test_a_connection_or_a_transaction_has_no_watch(svc, pool):
    async with pool.acquire() as connection:
        with pytest.raises(InvalidInput, match="pool"):
            await anext(svc.on(connection).conversations.watch(tenant_id="acme"))
    async with svc.transaction() as transaction:
        with pytest.raises(InvalidInput, match="pool"):
            await anext(transaction.conversations.watch(tenant_id="acme"))


@pytest.mark.parametrize("name", ["tenant_id", "dialog_id", "user_id"])
async def test_an_invalid_id_is_rejected_at_the_start(svc, name):
    with pytest.raises(InvalidInput, match=name):
        await anext(svc.conversations.watch(**{"tenant_id": "acme"} | {name: 1}))


# --------------------------------------------------------------------------------- failures


async def test_the_loss_of_the_connection_between_commit_and_notification_loses_nothing(
    quiet, svc, pool
):
    """The append runs when the server has ended the session, which is not replaced yet."""
    await create(quiet, "a", "b")
    async with quiet.conversations.watch(tenant_id="acme") as watch:
        for number in range(1, 6):
            (listener,) = await pool.fetch(LISTENERS)
            waiter = asyncio.create_task(anext(watch))
            await pool.execute("SELECT pg_terminate_backend($1)", listener["pid"])
            await append(svc, "a")
            assert (await soon(waiter)).last_seq == number
            await until(lambda: pool.fetch(LISTENERS))
        await append(svc, "b")
        assert await take(watch) == [("b", 1)]


async def test_a_lost_notification_delays_a_message_and_loses_none(dsn, svc):
    """The network drops all packets of the listening connection, and then resets it."""
    await create(svc, "a")
    settings = OFTEN.model_copy(update={"acquire_timeout": 0.2})
    async with Wire(dsn) as wire, asyncsvc.connect(wire.dsn, settings=settings) as over_it:
        stalled = wire.inject(Fault.STALL_REPLY, "LISTEN")
        async with over_it.conversations.watch(tenant_id="acme") as watch:
            await append(svc, "a")
            assert await take(watch) == [("a", 1)]
        assert stalled.count == 1
        wire.resume()


@pytest.mark.parametrize(
    "fault", [fault for fault in Fault if not fault.name.startswith("STALL")], ids=lambda f: f.name
)
@pytest.mark.parametrize("statement", ["/get_running ", "/get_new ", "/renew ", "LISTEN"])
async def test_a_fault_of_any_statement_loses_nothing(dsn, svc, fault, statement):
    settings = OFTEN.model_copy(update={"retry_timeout": 0})
    await create(svc, "a", "b")
    async with (
        Wire(dsn) as wire,
        asyncsvc.connect(wire.dsn, settings=settings) as over_it,
        over_it.conversations.watch(tenant_id="acme") as watch,
    ):
        await append(svc, "a")
        assert await take(watch) == [("a", 1)]
        injected = wire.inject(fault, statement, times=2)
        if statement in {"LISTEN", "/renew "}:
            wire.reset()
            over_it.conversations._feeds["acme"]._next_renewal = 0
        number = 0
        while injected.count < 2:
            number = await append(svc, "b")
            assert await take(watch) == [("b", number)]


@pytest.mark.parametrize("often", [OFTEN, RARELY], ids=["often", "rarely"])
async def test_a_watch_waits_for_a_database_that_is_away(dsn, svc, often):
    settings = often.model_copy(update={"retry_timeout": 0})
    await create(svc, "a")
    async with (
        Wire(dsn) as wire,
        asyncsvc.connect(wire.dsn, settings=settings) as over_it,
        over_it.conversations.watch(tenant_id="acme") as watch,
    ):
        waiter = asyncio.create_task(anext(watch))
        wire.refuse_connections()
        wire.reset()
        for _ in range(3):
            await append(svc, "a")
            await asyncio.sleep(0.05)
        assert not waiter.done()
        await wire.accept_connections()
        assert (await soon(waiter)).last_seq == 3


async def test_a_network_that_drops_packets_delays_a_message_and_loses_none(dsn, svc):
    settings = OFTEN.model_copy(
        update={"retry_timeout": 0, "acquire_timeout": 0.2, "statement_timeout": 0.2}
    )
    await create(svc, "a")
    async with (
        Wire(dsn) as wire,
        asyncsvc.connect(wire.dsn, settings=settings) as over_it,
        over_it.conversations.watch(tenant_id="acme") as watch,
    ):
        waiter = asyncio.create_task(anext(watch))
        wire.stall()
        await append(svc, "a")
        await asyncio.sleep(0.5)
        assert not waiter.done()
        wire.resume()
        assert (await soon(waiter)).last_seq == 1


async def test_an_exhausted_pool_delays_a_message_and_loses_none(dsn, svc, caplog):
    settings = OFTEN.model_copy(update={"acquire_timeout": 1.0})
    await create(svc, "a")
    async with (
        asyncsvc.connect(dsn, settings=settings, max_size=1) as small,
        small.conversations.watch(tenant_id="acme") as watch,
    ):
        async with small._executor._pool.acquire():
            waiter = asyncio.create_task(anext(watch))
            await append(svc, "a")
            while "no connection became free" not in caplog.text:
                await asyncio.sleep(0.01)
            assert not waiter.done()
        assert (await soon(waiter)).last_seq == 1


async def test_a_server_without_a_free_connection_is_polled(dsn, svc, pool):
    """The pool has its connection, and the server accepts no further one."""
    name = f"{dsn.rpartition('/')[2]}_limited"
    await pool.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'p' CONNECTION LIMIT 1")
    await pool.execute(f'GRANT USAGE ON SCHEMA asyncsvc TO "{name}"')
    await pool.execute(f'GRANT ALL ON ALL TABLES IN SCHEMA asyncsvc TO "{name}"')
    host = dsn.rpartition("@")[2]
    limited = asyncsvc.connect(
        f"postgresql://{name}:p@{host}", settings=OFTEN, min_size=1, max_size=1
    )
    try:
        await create(svc, "a")
        async with limited as one, one.conversations.watch(tenant_id="acme") as watch:
            await append(svc, "a")
            assert await take(watch) == [("a", 1)]
            assert await pool.fetchval("SELECT count(*) FROM asyncsvc.watched_tenant") == 0
    finally:
        await pool.execute(f'DROP OWNED BY "{name}"')
        await pool.execute(f'DROP ROLE "{name}"')


async def test_a_watch_through_a_pooler_polls(pooler_setting, svc, pool):
    await create(svc, "a")
    dsns, setting = pooler_setting
    settings = OFTEN.model_copy(update={"pgbouncer": setting})
    async with (
        asyncsvc.connect(dsns["transaction"], settings=settings) as pooled,
        pooled.conversations.watch(tenant_id="acme") as watch,
    ):
        await append(svc, "a")
        assert await take(watch) == [("a", 1)]
        assert await pool.fetchval("SELECT count(*) FROM asyncsvc.watched_tenant") == 0


async def test_32_writers_and_two_processes_miss_nothing(dsn, svc):
    """One process polls, the other one is notified. Some writers use long transactions."""
    ids = [f"c{number}" for number in range(8)]
    await create(svc, *ids)

    async def write(writer: int) -> None:
        for turn in range(3):
            async with contextlib.AsyncExitStack() as stack:
                services: Services = svc
                if (writer + turn) % 3 == 0:
                    services = await stack.enter_async_context(svc.transaction())
                await append(services, ids[writer % len(ids)])
                await asyncio.sleep(0.001 * (writer % 5))

    async def follow(watch: Watch) -> None:
        last = dict.fromkeys(ids, 0)
        while set(last.values()) != {12}:
            item = await soon(anext(watch))
            assert item.last_seq > last[item.conversation_id]
            last[item.conversation_id] = item.last_seq

    async with (
        asyncsvc.connect(dsn, settings=RARELY) as notified,
        asyncsvc.connect(dsn, settings=OFTEN) as polling,
        notified.conversations.watch(tenant_id="acme") as one,
        polling.conversations.watch(tenant_id="acme") as two,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(follow(one))
        group.create_task(follow(two))
        for writer in range(32):
            group.create_task(write(writer))


# -------------------------------------------------------------------------------- watermark

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def read(
    previous: Watermark | None, seconds: float, clock: float = 0.0, **running: float
) -> tuple[float, Watermark]:
    """Read at these seconds of this process; the server's clock differs by `clock`."""
    state = RunningTransactions(
        at(seconds + clock), {key: at(value) for key, value in running.items()}
    )
    since, watermark = next_read(previous, state, seconds, seconds + 0.01)
    return (since - START).total_seconds(), watermark


def test_a_read_begins_at_the_previous_one():
    _, watermark = read(None, 100)
    since, watermark = read(watermark, 200)
    assert 98 < since < 100
    since, _ = read(watermark, 300)
    assert 198 < since < 200


def test_the_read_after_the_end_of_a_transaction_begins_where_it_began():
    _, watermark = read(None, 100, old=50)
    since, watermark = read(watermark, 200, old=50, new=150)
    assert 98 < since < 100
    since, watermark = read(watermark, 300, new=150)
    assert 48 < since < 50
    since, watermark = read(watermark, 400)
    assert 98 < since < 100  # the read before the first one that saw it
    since, _ = read(watermark, 500)
    assert 398 < since < 400


def test_a_transaction_that_is_prepared_keeps_its_beginning():
    _, watermark = read(None, 100, session=50)
    _, watermark = read(watermark, 200, prepared_1=0)
    since, _ = read(watermark, 300)
    assert since < 50


@pytest.mark.parametrize("setback", [2, 3600])
def test_a_clock_that_is_set_back_moves_the_read_back(setback):
    """The clock of the server, or of another server after a failover."""
    _, watermark = read(None, 10_000, old=9_000)
    since, watermark = read(watermark, 10_005, clock=-setback, old=9_000)
    assert since < 10_000 - setback  # an append at 10,001 has the time 10,001 - setback
    since, watermark = read(watermark, 10_010, clock=-setback)
    assert since < 9_000 - setback
    since, _ = read(watermark, 10_015, clock=-setback)
    assert 10_008 - setback < since < 10_010 - setback


def test_small_changes_of_the_clock_add_up():
    _, watermark = read(None, 0, old=0)
    for number in range(1, 101):
        _, watermark = read(watermark, number, clock=-0.1 * number, old=0)
    since, _ = read(watermark, 101, clock=-10.0)
    assert since < -8.5  # an append of `old` at 100 can have the time 90; one before it less


def test_latency_does_not_move_the_read_back():
    _, watermark = read(None, 0, old=0)
    for number in range(1, 1_001):
        _, watermark = read(watermark, number, clock=0.001 * (number % 2), old=0)
    since, _ = read(watermark, 1_001)
    assert -1.1 < since < 0
