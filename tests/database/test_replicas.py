"""Reads on a real hot standby: which statements run there, how stale they are, and failures."""

import asyncio
import contextlib
import itertools
import math
import time

import asyncpg
import pytest
import pytest_asyncio

import asyncsvc
from asyncsvc import AsyncSvc, InvalidInput, Settings, Unavailable
from asyncsvc.database import replicas, sql_files
from benchmarks import standby
from tests.support.pages import run_recipe
from tests.support.registry import SERVICE_METHODS, furnish

TURN = {"messages": [{"role": "user", "content": "hello"}]}
READ_BY_REPLICAS = {
    "api_token/get_list",
    "conversation/get_list",
    "conversation/get_names",
    "conversation/list_dialogs",
    "record/get_list",
    "search/match_page",
    "search/newest_matches",
    "search/scan",
    "search/snippets",
    "token_audit/get_list",
    "usage/creation_stats",
    "usage/stats",
    "usage_audit/get_list",
}
POSITIONS = {"replica/position", "replica/replayed"}


@contextlib.asynccontextmanager
async def running():
    if standby.programs() is None:
        pytest.skip("the programs of PostgreSQL are not installed")
    async with standby.running(fsync=False) as pair:
        yield pair


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def servers():
    """A primary and its standby for all tests that stop neither."""
    async with running() as pair:
        yield pair


@pytest_asyncio.fixture
async def pair(servers, database_prefix, numbers):
    """The primary and its standby, with a database for this test."""
    primary, _ = servers
    name = f"{database_prefix}_{next(numbers)}"
    await primary.execute(f"CREATE DATABASE {name}")
    pair = [node.on(name) for node in servers]
    await migrate(pair[0], replica=servers[1])
    yield pair
    await primary.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest_asyncio.fixture
async def own_pair():
    """A primary and its standby for a test that stops one of them."""
    async with running() as pair:
        await migrate(pair[0], replica=pair[1])
        yield pair


async def migrate(primary, *, replica):
    """Migrate, and wait until the replica has replayed it. Before that it may lack the database."""
    async with asyncsvc.connect(primary.dsn) as svc:
        await svc.migrate()
        await replica.replay(await svc.position())


class Recorder:
    """Pools on both servers that record the statements that run on each."""

    def __init__(self, primary, replica):
        self.ran = {"primary": [], "replica": []}
        self._dsns = {"primary": primary.dsn, "replica": replica.dsn}

    def pool(self, role, **options):
        def record(query):
            name = query.query.split("*/")[0].removeprefix("/* asyncsvc ").strip()
            self.ran[role].append(name)

        async def init(connection):
            connection.add_query_logger(record)

        return asyncpg.create_pool(
            self._dsns[role], min_size=0, max_size=4, init=init, reset=nothing, **options
        )

    @contextlib.asynccontextmanager
    async def connected(self, **settings):
        async with self.pool("primary") as primary, self.pool("replica") as replica:
            yield AsyncSvc(primary, replicas=[replica], settings=Settings(**settings))

    def on(self, role):
        """Return the statements since the last call, without those that read positions."""
        names, self.ran[role] = self.ran[role], []
        return [name for name in names if "/" in name and name not in POSITIONS]


async def nothing(_connection):
    pass


@pytest.fixture
def recorder(pair):
    return Recorder(*pair)


async def wait_for_replica(svc):
    """Wait until reads use the replica. At the first read it may not be fresh enough."""
    async with asyncio.timeout(20):
        while True:
            await svc.conversations.get_list(dialog_id="d", tenant_id="other")
            if not svc._executor._replicas[0].is_resting:
                return
            await asyncio.sleep(0.05)


# --- which statements run on a replica


def test_replicas_may_run_lists_searches_and_statistics_only():
    assert {name for name in sql_files.names() if sql_files.load(name).allows_replica} == (
        READ_BY_REPLICAS
    )


async def test_only_lists_searches_and_statistics_run_on_the_replica(
    recorder,
):
    async with recorder.connected() as svc:
        await wait_for_replica(svc)
        tenant = await furnish(svc, "t")
        recorder.on("primary"), recorder.on("replica")
        for method in SERVICE_METHODS:
            with contextlib.suppress(asyncsvc.AsyncSvcError):
                await method.run(svc, method.arguments(tenant))
        await svc.conversations.get_list(dialog_id="d", tenant_id="t")
        days = {"from_date": "2026-01-01", "to_date": "2026-01-02"}
        await svc.conversations.stats(tenant_id="t", **days)
        await svc.conversations.stats(tenant_id="t", group_by="user_id", **days)
        await svc.conversations.stats(tenant_id="t", basis="creation", **days)
        on_replica = set(recorder.on("replica"))
        assert on_replica <= READ_BY_REPLICAS
        assert on_replica >= READ_BY_REPLICAS - {
            "search/newest_matches",
            "search/snippets",
        }  # the search index is empty
        assert not READ_BY_REPLICAS & set(recorder.on("primary"))


async def test_a_search_runs_on_the_replica_completely(recorder, pair):
    _, replica = pair
    async with recorder.connected() as svc:
        await wait_for_replica(svc)
        await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
        await svc.conversations.append_message("a", TURN, tenant_id="t")
        mine = svc.at_least(position := await svc.position())
        await replica.replay(position)
        recorder.on("primary"), recorder.on("replica")
        (hit,) = (await mine.conversations.search(tenant_id="t", keywords="ell")).items
        assert (hit.id, hit.seq, recorder.on("primary")) == ("a", 1, [])
        assert "search/snippets" in recorder.on("replica")


async def test_a_transaction_reads_from_the_primary(recorder):
    async with recorder.connected() as svc:
        await wait_for_replica(svc)
        recorder.on("primary"), recorder.on("replica")
        async with svc.transaction() as tx:
            await tx.conversations.create(tenant_id="t", dialog_id="d", id="a")
            assert (await tx.conversations.get_list(dialog_id="d", tenant_id="t")).total == 1
        assert recorder.on("replica") == []


async def test_row_level_security_applies_on_the_replica(pair, monkeypatch):
    primary, replica = pair
    async with asyncsvc.connect(primary.dsn, settings=Settings(row_level_security=True)) as owner:
        await owner.migrate()
    await primary.execute(
        "CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA asyncsvc TO app;"
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA asyncsvc TO app"
    )
    as_app = [node.dsn.replace("postgres@", "app@") for node in pair]
    settings = Settings(row_level_security=True)
    async with asyncsvc.connect(as_app[0], replicas=as_app[1:], settings=settings) as svc:
        await wait_for_replica(svc)
        await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
        await replica.replay(await svc.position())
        answered = []
        monkeypatch.setattr(svc._executor._replicas[0], "_handle_failure", answered.append)
        assert (await svc.conversations.get_list(dialog_id="d", tenant_id="t")).total == 1
        assert (await svc.conversations.get_list(dialog_id="d", tenant_id="u")).total == 0
        assert answered == []  # the primary ran none of the reads


# --- how fresh a read is


async def test_a_read_at_a_position_sees_everything_committed_before_it(recorder, pair):
    _, replica = pair
    async with recorder.connected(replica_lag=60) as svc:
        await wait_for_replica(svc)
        await replica.execute("SELECT pg_wal_replay_pause()")
        await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
        position = await svc.position()
        recorder.on("primary"), recorder.on("replica")

        assert (
            await svc.conversations.get_list(dialog_id="d", tenant_id="t")
        ).total == 0  # within the permitted lag
        assert recorder.on("replica") == ["conversation/get_list"]
        mine = svc.at_least(position)
        assert (await mine.conversations.get_list(dialog_id="d", tenant_id="t")).total == 1
        assert (recorder.on("primary"), recorder.on("replica")) == (["conversation/get_list"], [])
        assert (
            await svc.conversations.get_list(dialog_id="d", tenant_id="t")
        ).total == 0  # other reads are not affected

        await replica.execute("SELECT pg_wal_replay_resume()")
        await replica.replay(position)
        recorder.on("primary"), recorder.on("replica")
        assert (await mine.conversations.get_list(dialog_id="d", tenant_id="t")).total == 1
        assert (recorder.on("primary"), recorder.on("replica")) == ([], ["conversation/get_list"])


async def test_the_recipe_reads_its_own_write(pair, monkeypatch):
    primary, replica = pair
    monkeypatch.setenv("ASYNCSVC_DSN", primary.dsn)
    monkeypatch.setenv("ASYNCSVC_REPLICAS", replica.dsn)
    await replica.execute("SELECT pg_wal_replay_pause()")  # the replica does not have the write
    try:
        await asyncio.to_thread(run_recipe, "read_your_writes")
    finally:
        await replica.execute("SELECT pg_wal_replay_resume()")


async def test_16_writers_read_their_own_writes_by_position(pair):
    primary, replica = pair
    async with asyncsvc.connect(primary.dsn, replicas=[replica.dsn], max_size=8) as svc:
        await wait_for_replica(svc)
        stale = itertools.count()

        async def work(number):
            tenant = f"t{number}"
            for turn in range(25):
                await svc.conversations.create(tenant_id=tenant, dialog_id="d", id=f"{turn}")
                position = await svc.position()
                page = await svc.at_least(position).conversations.get_list(
                    dialog_id="d", tenant_id=tenant
                )
                assert page.total == turn + 1
                if (
                    await svc.conversations.get_list(dialog_id="d", tenant_id=tenant)
                ).total != turn + 1:
                    next(stale)

        async def pause():
            while True:
                await replica.execute("SELECT pg_wal_replay_pause()")
                await asyncio.sleep(0.05)
                await replica.execute("SELECT pg_wal_replay_resume()")
                await asyncio.sleep(0.05)

        pausing = asyncio.create_task(pause())
        await asyncio.gather(*(work(number) for number in range(16)))
        pausing.cancel()
        await asyncio.wait({pausing})
        await replica.execute("SELECT pg_wal_replay_resume()")
        assert next(stale) > 0  # some reads without a position were stale


async def test_a_lagging_replica_is_skipped_until_it_has_caught_up(recorder, pair):
    _, replica = pair
    async with recorder.connected(replica_lag=0.4) as svc:
        await wait_for_replica(svc)
        await replica.execute("SELECT pg_wal_replay_pause()")
        await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
        created = time.monotonic()
        async with asyncio.timeout(20):
            began = time.monotonic()
            while (await svc.conversations.get_list(dialog_id="d", tenant_id="t")).total == 0:
                assert began - created < 0.4  # a read that begins later must see it
                await asyncio.sleep(0.01)
                began = time.monotonic()
        recorder.on("replica")
        for _ in range(20):
            assert (await svc.conversations.get_list(dialog_id="d", tenant_id="t")).total == 1
            await asyncio.sleep(0.01)
        assert recorder.on("replica") == []
        await replica.execute("SELECT pg_wal_replay_resume()")
        await wait_for_replica(svc)
        assert (await svc.conversations.get_list(dialog_id="d", tenant_id="t")).total == 1
        assert recorder.on("replica")


async def test_a_replica_of_an_idle_primary_stays_fresh(recorder):
    async with recorder.connected(replica_lag=0.5) as svc:
        await wait_for_replica(svc)
        for _ in range(2):
            await asyncio.sleep(0.6)
            recorder.on("replica")
            await svc.conversations.get_list(dialog_id="d", tenant_id="t")
            assert recorder.on("replica") == ["conversation/get_list"]


async def test_a_read_that_conflicts_with_the_replay_runs_on_the_primary(pair, monkeypatch):
    """A VACUUM on the primary removes rows that a long read on the standby still sees."""
    primary, replica = pair
    async with asyncsvc.connect(primary.dsn, replicas=[replica.dsn]) as svc:
        await wait_for_replica(svc)
        attempt, cancelled = replicas._Replica._attempt, []

        async def conflicting(self, query):
            async with self._pool.acquire() as connection:
                try:
                    await connection.fetch(LONG_READ)
                except asyncpg.PostgresError as error:
                    cancelled.append(error.sqlstate)
                    with asyncsvc.database.translate_errors(connection):
                        raise
            return await attempt(self, query)

        monkeypatch.setattr(replicas._Replica, "_attempt", conflicting)
        await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
        await replica.replay(await svc.position())
        reading = asyncio.create_task(svc.conversations.get_list(dialog_id="d", tenant_id="t"))
        async with asyncpg.create_pool(replica.dsn, min_size=0) as on_replica:
            async with asyncio.timeout(20):
                while not await on_replica.fetchval(SLEEPING):
                    await asyncio.sleep(0.01)
        await svc.conversations.delete_by_id("a", tenant_id="t")
        await primary.execute("VACUUM asyncsvc.conversation")
        assert (await reading).total == 0
        assert cancelled == ["40001"]
        assert not svc._executor._replicas[0].is_resting


LONG_READ = "SELECT count(*), pg_sleep(60) FROM asyncsvc.conversation"
SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


# --- failures


@pytest.mark.parametrize("mode", ["immediate", "fast"])
async def test_a_stopped_replica_is_skipped_until_it_runs_again(own_pair, mode):
    primary, replica = own_pair
    async with asyncsvc.connect(primary.dsn, replicas=[replica.dsn]) as svc:
        await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
        await wait_for_replica(svc)
        counts = [0] * 8

        async def read(number, goal):
            while min(counts) < goal:
                assert (await svc.conversations.get_list(dialog_id="d", tenant_id="t")).total == 1
                counts[number] += 1

        async def read_until(goal):
            """Read in 8 tasks until each has reached the goal."""
            async with asyncio.timeout(20):
                await asyncio.gather(*(read(number, goal) for number in range(8)))

        reading = asyncio.create_task(read_until(math.inf))
        while min(counts) < 10:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(replica.stop, mode)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await read_until(max(counts) + 10)
        await asyncio.sleep(replicas._REST_SECONDS)  # then one of the reads tests the replica
        await read_until(max(counts) + 10)
        await asyncio.to_thread(replica.start)
        await wait_for_replica(svc)


async def test_a_replica_that_never_answers_delays_one_read_by_replica_timeout(pair, monkeypatch):
    primary, _ = pair
    monkeypatch.setattr(replicas, "_REST_SECONDS", 60.0)
    settings = Settings(replica_timeout=0.3, acquire_timeout=60)
    async with silent_host() as (silent, connections):
        dsn = f"postgresql://postgres@{silent}/postgres"
        async with asyncsvc.connect(primary.dsn, replicas=[dsn], settings=settings) as svc:
            began = time.monotonic()
            assert (await svc.conversations.get_list(dialog_id="d", tenant_id="t")).total == 0
            assert svc._executor._replicas[0].is_resting
            assert 0.3 < time.monotonic() - began < 20
            for _ in range(20):
                await svc.conversations.get_list(dialog_id="d", tenant_id="t")
            assert len(connections) == 1  # no other read waited


async def test_a_frozen_replica_delays_a_read_by_replica_timeout_at_most(own_pair):
    primary, replica = own_pair
    settings = Settings(replica_timeout=0.3, replica_lag=0.4, statement_timeout=60)
    async with asyncsvc.connect(primary.dsn, replicas=[replica.dsn], settings=settings) as svc:
        await wait_for_replica(svc)
        replica.freeze()
        try:
            await asyncio.sleep(0.3)  # then the library reads its position again
            began = time.monotonic()
            assert (await svc.conversations.get_list(dialog_id="d", tenant_id="t")).total == 0
            assert time.monotonic() - began < 20
        finally:
            replica.thaw()


async def test_a_primary_is_not_used_as_a_replica(pair):
    primary, _ = pair
    async with asyncsvc.connect(primary.dsn, replicas=[primary.dsn]) as svc:
        await svc.conversations.get_list(dialog_id="d", tenant_id="t")
        assert svc._executor._replicas[0].is_resting


async def test_without_the_primary_writes_fail_and_reads_continue_for_a_while(
    own_pair,
):
    primary, replica = own_pair
    settings = Settings(replica_lag=30, retry_timeout=0)
    async with asyncsvc.connect(primary.dsn, replicas=[replica.dsn], settings=settings) as svc:
        await wait_for_replica(svc)
        await asyncio.to_thread(primary.stop)
        assert (await svc.conversations.get_list(dialog_id="d", tenant_id="t")).total == 0
        with pytest.raises(Unavailable):
            await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")


async def follow(svc, watched):
    """Record the last message of each conversation that a watch reports."""
    async for new in svc.conversations.watch(tenant_id="t"):
        watched[new.conversation_id] = new.last_seq


async def until_equal(watched, expected):
    async with asyncio.timeout(60):
        while watched != expected:
            await asyncio.sleep(0.05)


async def test_a_promotion_under_load_loses_nothing_and_raises_nothing(own_pair):
    """The primary crashes and the standby is promoted. The DSN stays the same."""
    primary, replica = own_pair
    hosts = f"127.0.0.1:{primary.port},127.0.0.1:{replica.port}"
    dsn = f"postgresql://postgres@{hosts}/postgres"
    settings = Settings(retry_timeout=20, watch_interval=1)
    # The primary acknowledges a write only after the standby has it.
    await primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    await primary.execute("SELECT pg_reload_conf()")
    async with asyncsvc.connect(dsn, settings=settings, max_size=8) as svc:
        await svc.conversations.create_many(
            [{"dialog_id": "d", "id": f"{number}"} for number in range(8)], tenant_id="t"
        )
        acknowledged, errors, stopped = [0] * 8, [], asyncio.Event()

        async def write(number):
            for turn in itertools.count():
                if stopped.is_set():
                    return
                try:
                    await svc.conversations.append_message(
                        f"{number}", TURN, tenant_id="t", idempotency_key=f"{turn}"
                    )
                except Unavailable as error:
                    errors.append(error)
                else:
                    acknowledged[number] = turn + 1

        async def read():
            while not stopped.is_set():
                assert (await svc.conversations.get_list(dialog_id="d", tenant_id="t")).total == 8

        watched = {}
        following = asyncio.create_task(follow(svc, watched))
        working = [asyncio.create_task(work) for work in (*map(write, range(8)), read(), read())]
        await asyncio.sleep(0.5)
        before = list(acknowledged)
        await asyncio.to_thread(primary.stop)
        await asyncio.to_thread(replica.promote)
        await replica.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await replica.execute("SELECT pg_reload_conf()")
        await asyncio.sleep(1.5)
        stopped.set()
        await asyncio.gather(*working)
        assert errors == []  # keyed appends and reads were retried
        after = await svc.conversations.get_by_ids([f"{n}" for n in range(8)], tenant_id="t")
        for number, item in enumerate(after):
            assert item.last_seq == acknowledged[number] > before[number] > 0
        await until_equal(watched, {item.id: item.last_seq for item in after})
        following.cancel()
        await asyncio.wait({following})


async def test_a_standby_of_the_failed_primary_is_not_used_after_a_failover(own_pair):
    """It has replayed more of the failed primary's log than the new primary has."""
    primary, promoted = own_pair
    ahead = primary.beside("ahead")
    await asyncio.to_thread(ahead.copy, primary)
    await asyncio.to_thread(ahead.start)
    try:
        await asyncio.to_thread(promoted.stop, "fast")
        async with asyncsvc.connect(primary.dsn) as svc:
            for number in range(20):
                many = [{"dialog_id": "d", "id": f"{number}.{each}"} for each in range(200)]
                await svc.conversations.create_many(many, tenant_id="lost")
            await ahead.replay(await svc.position())
        await asyncio.to_thread(primary.stop)
        await asyncio.to_thread(promoted.start)
        await asyncio.to_thread(promoted.promote)
        async with asyncsvc.connect(promoted.dsn, replicas=[ahead.dsn]) as svc:
            await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
            mine = svc.at_least(await svc.position())
            for _ in range(3):
                assert (await mine.conversations.get_list(dialog_id="d", tenant_id="t")).total == 1
                assert (
                    await svc.conversations.get_list(dialog_id="d", tenant_id="lost")
                ).total == 0
                await asyncio.sleep(1.1)
    finally:
        await asyncio.to_thread(ahead.stop)


@contextlib.asynccontextmanager
async def silent_host():
    """Yield the address of a host that never answers, and the connections that it accepted."""
    connections = []

    async def ignore(reader, writer):
        connections.append(writer)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(ignore, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", connections


async def test_a_first_host_that_never_answers_leaves_time_for_the_others(pair):
    primary, replica = pair
    database = primary.dsn.rpartition("/")[2]
    async with silent_host() as (silent, connections):
        hosts = f"{silent},127.0.0.1:{replica.port},127.0.0.1:{primary.port}"
        dsn = f"postgresql://postgres@{hosts}/{database}?target_session_attrs=read-write"
        settings = Settings(acquire_timeout=1.5, replica_timeout=0.2)
        async with asyncsvc.connect(dsn, settings=settings, min_size=2) as svc:
            await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
            mine = svc.at_least(await svc.position())
            assert (await mine.conversations.get_list(dialog_id="d", tenant_id="t")).total == 1
            tried = len(connections)
            assert tried > 0
            async with svc.transaction(), svc.transaction(), svc.transaction():
                pass
            assert len(connections) == tried  # the library tries the known primary first


@pytest.mark.parametrize("what", ["database", "role", "setting"])
async def test_a_replica_that_rejects_connections_is_skipped(pair, what):
    primary, replica = pair
    wrong = {
        "database": f"postgresql://postgres@127.0.0.1:{replica.port}/absent",
        "role": f"postgresql://absent@127.0.0.1:{replica.port}/postgres",
        "setting": f"{replica.dsn}?no_such_setting=1",
    }
    async with asyncsvc.connect(primary.dsn, replicas=[wrong[what]]) as svc:
        assert (await svc.conversations.get_list(dialog_id="d", tenant_id="t")).total == 0
        assert svc._executor._replicas[0].is_resting


async def test_concurrent_first_reads_use_the_replica(recorder):
    async with recorder.connected() as svc:
        await svc.position()  # opens the pool of the primary
        reads = [svc.conversations.get_list(dialog_id="d", tenant_id="t") for _ in range(8)]
        await asyncio.gather(*reads)
        assert not svc._executor._replicas[0].is_resting


# --- invalid input


@pytest.mark.parametrize(
    "position", ["", "0", "0/", "/0", "0/0/0", "x/0", "123456789/0", "0/0\n", " 0/0", None, 7]
)
async def test_an_invalid_position_is_rejected(svc, position):
    with pytest.raises(InvalidInput, match="position"):
        svc.at_least(position)


async def test_without_replicas_every_position_is_accepted(svc):
    position = await svc.position()
    await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
    assert await svc.position() > position
    for each in (position, "FFFFFFFF/FFFFFFFF"):
        assert (
            await svc.at_least(each).conversations.get_list(dialog_id="d", tenant_id="t")
        ).total == 1


@pytest.mark.parametrize(
    "replica",
    [
        "",
        "host",
        "mysql://a/b",
        "postgresql://h:99999/d",
        "postgresql://h:x/d",
        "postgresql://h/d?x",
    ],
)
async def test_an_invalid_dsn_of_a_replica_is_rejected(dsn, replica):
    with pytest.raises(InvalidInput, match="replicas: must be a PostgreSQL URL"):
        async with asyncsvc.connect(dsn, replicas=[replica]):
            pass


async def test_hosts_in_the_options_of_a_dsn_are_rejected():
    with pytest.raises(InvalidInput, match="dsn: must list its hosts before the path"):
        async with asyncsvc.connect("postgresql://u@/d?host=one,two"):
            pass


async def test_a_read_at_a_future_position_runs_on_the_primary(pair):
    primary, replica = pair
    async with asyncsvc.connect(primary.dsn, replicas=[replica.dsn]) as svc:
        await wait_for_replica(svc)
        ahead = svc.at_least("FFFFFFFF/FFFFFFFF")
        assert (await ahead.conversations.get_list(dialog_id="d", tenant_id="t")).total == 0
        assert not svc._executor._replicas[0].is_resting
